"""What requests leave in the audit log: one dependency of a route records what it answers, and what it refuses."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute
from uuid_utils.compat import uuid7

from triton_common.auth import Principal
from triton_common.errors import AppError, Forbidden, NotFound
from triton_common.logging import current_request_id
from triton_common.messages import AuditEvent, Outcome
from triton_common.trail import Trail

LONGEST: Final = 64  # characters of what was given as an id


@dataclass
class Event:
    """What a request will be recorded as. Its route adds what it finds out."""

    action: str
    on: tuple[str, str] | None = None
    client_id: UUID | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def tell(self, *, client_id: UUID | None = None, **details: Any) -> None:
        """Add whose object it is (the principal's client unless told), and details: never a secret or member's data."""
        self.client_id = client_id or self.client_id
        self.details |= {name: value for name, value in details.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Recorder:
    """A dependency around a route: records what became of it, before the answer leaves."""

    action: str
    kind: str | None
    details: dict[str, Any]

    async def __call__(self, request: Request) -> AsyncIterator[Event]:
        """The event, for the route to add to. Raises AuditUnavailable in place of the answer."""
        given = {name: _printable(value) for name, value in request.path_params.items()}
        on = (self.kind, given.pop(f"{self.kind}_id")) if self.kind else None
        event = request.state.event = Event(self.action, on=on, details=self.details | given)
        try:
            yield event
        except (Exception, asyncio.CancelledError) as error:
            if outcome := _outcome_of(error):
                await _record(request, event, outcome)
            raise
        await _record(request, event, "succeeded")


def recorded(action: str, *, on: str | None = None, **details: Any) -> Any:
    """A dependency: the route's requests are events of the audit log. `on` is the kind of object whose id is the path's
    `{on}_id`; the path's other parameters become details.

    Recorded are what succeeded, what was refused (403, 404) and what broke (5xx): of a token that is good. It stands
    before `require(…)`, whose refusals it is to see, and behind SessionDep, so that nothing is committed that could not
    be recorded.
    """
    return Depends(Recorder(action, on, details), scope="function")


def event_of(request: Request) -> Event:
    """The event of a route behind `recorded`, for dependencies of its; AttributeError in any other."""
    event: Event = request.state.event
    return event


def recorded_routes(routes: Sequence[BaseRoute]) -> dict[tuple[str, str], str]:
    """(method, path) → action, of the routes that record."""

    def actions(dependant: Dependant) -> Iterator[str]:
        for below in dependant.dependencies:
            if isinstance(below.call, Recorder):
                yield below.call.action
            yield from actions(below)

    return {
        (method, str(route.path_format)): action
        for route in iter_route_contexts(routes)
        if isinstance(route.original_route, APIRoute)
        for action in actions(route.dependant)
        for method in route.methods or ()
    }


def address_of(request: HTTPConnection) -> str:
    """Where a request came from: behind the gateway, what its X-Forwarded-For says, which uvicorn has put there."""
    return request.client.host if request.client else "unknown"


def _printable(given: object) -> str:
    return "".join(filter(str.isprintable, str(given)))[:LONGEST]


def _outcome_of(error: BaseException) -> Outcome | None:
    match error:
        case Forbidden() | NotFound():
            return "refused"
        case RequestValidationError():
            return None
        case AppError() if error.status < 500:
            return None
        case _:
            return "failed"


async def _record(request: Request, event: Event, outcome: Outcome) -> None:
    principal: Principal | None = getattr(request.state, "principal", None)
    if principal is None and outcome != "succeeded":
        return  # nobody got nothing
    kind, object_id = event.on or (None, None)
    key = {"api_key": principal.token_id} if principal is not None and principal.kind == "api_key" else {}
    trail: Trail = request.app.state.audit
    await trail.record(
        AuditEvent(
            id=uuid7(),
            at=datetime.now(UTC),
            source=trail.source,
            actor_kind=principal.kind if principal else "anonymous",
            actor_id=principal.subject if principal else None,
            action=event.action,
            object_kind=kind,
            object_id=object_id,
            client_id=event.client_id or (principal.client_id if principal else None),
            address=_printable(address_of(request)),
            request_id=current_request_id() or "",
            outcome=outcome,
            details=event.details | key,
        )
    )
