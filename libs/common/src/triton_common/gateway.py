"""The gateway's own errors in the shape of all errors.

Traefik has no words of its own: for what it answers itself it asks console for `/errors/{status}`, and auth-service
while console is down. The gateway shows this path to nobody.
"""

from fastapi import APIRouter, Response

from triton_common.client import ServiceUnreachable
from triton_common.errors import AppError, ContentTooLarge, NotFound, problem_response

router = APIRouter(include_in_schema=False)


@router.get("/errors/{status}")
async def gateway_error(status: int) -> Response:
    """The answer of this status, as a problem."""
    return problem_response(gateway_problem(status))


def gateway_problem(status: int) -> AppError:
    """What the gateway has to say when it is not a service that answers."""
    match status:
        case 413:
            return ContentTooLarge("Bodies of 10 MB and more are taken under /api/v1/analytics alone.")
        case 503:
            return ServiceUnreachable("The service behind this path does not answer; try again.", retry_after=2)
        case _:
            return NotFound("No route has this path. See /docs for those there are.")
