"""The audit log: who did what, from where, with what outcome; written in the transaction of what it tells of."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from auth_service.models import AuditEvent
from triton_common.auth import Principal
from triton_common.logging import current_request_id
from triton_common.messages import ActorKind, Outcome

SOURCE: Final = "auth-service"


@dataclass(frozen=True)
class Origin:
    """Where a request came from."""

    address: str
    user_agent: str | None = None


@dataclass(frozen=True)
class Actor:
    """Who does something. Nobody is known before a login; the platform itself is `system`."""

    kind: ActorKind
    id: str | None = None

    @classmethod
    def of(cls, principal: Principal) -> "Actor":
        """The subject of a token."""
        return cls(principal.kind, principal.subject)


ANONYMOUS: Final = Actor("anonymous")
SYSTEM: Final = Actor("system")


def record(
    session: AsyncSession,
    action: str,
    *,
    actor: Actor,
    origin: Origin | None = None,
    on: tuple[str, str] | None = None,
    client_id: UUID | None = None,
    outcome: Outcome = "succeeded",
    **details: Any,
) -> None:
    """Add an event to the session's transaction. `on` is (kind, id) of the object; `details` hold no secret."""
    kind, object_id = on or (None, None)
    session.add(
        AuditEvent(
            id=uuid7(),
            at=datetime.now(UTC),
            source=SOURCE,
            actor_kind=actor.kind,
            actor_id=actor.id,
            action=action,
            object_kind=kind,
            object_id=object_id,
            client_id=client_id,
            address=origin.address if origin else None,
            request_id=current_request_id() or "",
            outcome=outcome,
            details=details,
        )
    )
