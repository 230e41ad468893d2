"""What the platform shows of itself."""

from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.staticfiles import StaticFiles

from console.schemas import About, PlatformHealth

router = APIRouter(tags=["platform"])

PAGES: Final = Environment(
    loader=PackageLoader("console"), autoescape=select_autoescape(), undefined=StrictUndefined, enable_async=True
)


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
    """The readiness of every service with its latency; 503 when one is down. Two seconds old at most."""
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


def assets() -> dict[str, StaticFiles]:
    """Files that pages need, by the path they are served under: our own, and Swagger UI's from its package."""
    own, swagger = files("console") / "assets", files("fastapi_offline") / "static"
    served: dict[str, Any] = {"/docs/assets": own, "/docs/swagger-ui": swagger}
    return {path: StaticFiles(directory=str(folder)) for path, folder in served.items()}
