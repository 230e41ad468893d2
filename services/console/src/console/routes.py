"""What the platform shows of itself, and the words of the gateway's own errors."""

from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.staticfiles import StaticFiles
from triton_common.client import ServiceUnreachable
from triton_common.errors import AppError, ContentTooLarge, NotFound, TooManyRequests, problem_response

from console.schemas import About, PlatformHealth

router = APIRouter(tags=["platform"])

PAGES: Final = Environment(
    loader=PackageLoader("console"), autoescape=select_autoescape(), undefined=StrictUndefined, enable_async=True
)

LOGIN_PAUSE: Final = 2  # seconds until the gateway admits one more login of an address (infra/traefik/dynamic.yml)


@router.get("/", response_model=About, responses={200: {"content": {"text/html": {}}}})
async def home(request: Request, response: Response) -> About | Response:
    """Name, version, description and links: JSON, or a page for browsers."""
    about: About = request.app.state.about
    response.headers["Vary"] = "Accept"
    if "text/html" not in request.headers.get("Accept", ""):
        return about
    health = await request.app.state.health.now()
    origin = str(request.base_url).rstrip("/")
    page = await PAGES.get_template("home.html").render_async(about=about, health=health, origin=origin)
    return HTMLResponse(page, headers={"Vary": "Accept"})


@router.get("/health", responses={503: {"model": PlatformHealth, "description": "A service is down"}})
async def health(request: Request, response: Response) -> PlatformHealth:
    """The readiness of every service with its latency; 503 when one is down. At most a second old."""
    answer: PlatformHealth = await request.app.state.health.now()
    response.headers["Cache-Control"] = "no-store"
    if answer.status == "down":
        response.status_code = 503
    return answer


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> JSONResponse:
    """The public operations of all services in one document."""
    return JSONResponse(await request.app.state.openapi.now(), headers={"Cache-Control": "no-cache"})


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Swagger UI over /openapi.json."""
    return HTMLResponse(await PAGES.get_template("docs.html").render_async(about=request.app.state.about))


@router.get("/errors/{status}", include_in_schema=False)
async def gateway_error(status: int) -> Response:
    """The gateway's own answer of this status, in the shape of every error. Not public: the gateway itself asks."""
    return problem_response(gateway_problem(status))


def gateway_problem(status: int) -> AppError:
    """What the gateway has to say when it is not a service that answers."""
    match status:
        case 413:
            return ContentTooLarge("Bodies of 10 MB and more are taken under /api/v1/analytics alone.")
        case 429:
            return TooManyRequests("Too many logins from this address; wait and try again.", retry_after=LOGIN_PAUSE)
        case 503:
            return ServiceUnreachable("The service behind this path does not answer; try again.", retry_after=2)
        case _:
            return NotFound("No route has this path. See /docs for those there are.")


def assets() -> dict[str, StaticFiles]:
    """Files that pages need, by the path they are served under: our own, and Swagger UI's from its package."""
    own, swagger = files("console") / "assets", files("fastapi_offline") / "static"
    served: dict[str, Any] = {"/docs/assets": own, "/docs/swagger-ui": swagger}
    return {path: StaticFiles(directory=str(folder)) for path, folder in served.items()}
