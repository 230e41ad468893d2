"""The gateway's own errors in the shape of all errors.

Traefik has no words of its own: for what it answers itself it asks console for `/errors/{status}`, and auth-service
while console is down. The gateway shows this path to nobody.
"""

from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Response

from triton_common.client import ServiceUnreachable
from triton_common.errors import AppError, ContentTooLarge, NotAllowed, NotFound, problem_response

METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"  # as in infra/traefik/dynamic.yml

router = APIRouter(include_in_schema=False)


@router.get("/errors/{status}")
async def gateway_error(status: int) -> Response:
    """The answer of this status, as a problem."""
    answer = problem_response(gateway_problem(status))
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        answer.headers["Allow"] = METHODS
    return answer


def gateway_problem(status: int) -> AppError:
    """What the gateway has to say when it is not a service that answers."""
    match status:
        case 405:
            return NotAllowed(f"No path has this method. Those there are: {METHODS}.")
        case 413:
            return ContentTooLarge("Bodies of 10 MB and more are taken under /api/v1/analytics alone.")
        case 503:
            return ServiceUnreachable("The service behind this path does not answer; try again.", retry_after=2)
        case _:
            return NotFound("No route has this path. See /docs for those there are.")
