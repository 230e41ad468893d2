"""HTTP shapes of the audit log."""

from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from auth_service.schemas import PageQuery
from triton_common.messages import ActorKind, Outcome
from triton_common.schemas import Schema, Text

LARGEST: Final = 2**63 - 1  # of Postgres' bigint

Short = Annotated[Text, Field(max_length=200)]


class AuditConditions(Schema):
    """Which events: those that meet all conditions that are given."""

    actor: Short | None = Field(default=None, description="A user's or service account's id; `anonymous`, `system`")
    action: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.]{1,100}(\.\*)?$")] | None = Field(
        default=None, description="`login.failed`, or all that begin so: `login.*`"
    )
    object_kind: Short | None = Field(default=None, description="`user`, `prospect`, …")
    object_id: Short | None = None
    client_id: UUID | None = None
    outcome: Outcome | None = None
    request_id: Short | None = None
    since: AwareDatetime | None = Field(default=None, description="At this time or later")
    until: AwareDatetime | None = Field(default=None, description="Before this time")


class AuditFilter(AuditConditions, PageQuery):
    """The same, a page at a time."""


class AuditEventPublic(Schema):
    """An event of the audit log."""

    id: UUID
    seq: int | None = Field(description="Its number in the chain; null in its first second")
    at: AwareDatetime
    recorded_at: AwareDatetime = Field(description="When auth-service stored it")
    source: str = Field(description="The service")
    actor_kind: ActorKind
    actor_id: str | None
    action: str
    object_kind: str | None
    object_id: str | None
    client_id: UUID | None
    address: str | None
    outcome: Outcome
    request_id: str
    details: dict[str, Any]


class ChainQuery(Schema):
    """What part of the chain is verified, and against what."""

    since_seq: int | None = Field(default=None, ge=1, le=LARGEST, description="next_seq of the report before")
    limit: int = Field(default=100_000, ge=1, le=200_000, description="Events a report, a few seconds")
    expected_seq: int | None = Field(default=None, ge=1, le=LARGEST, description="seq of a head from the log")
    expected_hash: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="hash of that head"
    )

    @model_validator(mode="after")
    def head_is_whole(self) -> Self:
        """A head has both parts."""
        if (self.expected_seq is None) != (self.expected_hash is None):
            raise ValueError("give expected_seq and expected_hash together")
        return self


class ChainFault(Schema):
    """The first place where the chain does not hold."""

    seq: int
    id: UUID | None = Field(description="null when there is no event")
    reason: Literal["changed", "missing", "inserted", "cut", "other_head"] = Field(
        description="changed: the event, or its place. missing: no event has this number. inserted: it repeats a "
        "number, or stands before the first. cut: the log ends before the expected head. other_head: another is there"
    )


class ChainReport(Schema):
    """What computing the chain again has shown."""

    valid: bool
    events: int = Field(description="How many were verified")
    head_seq: int = Field(description="The last one of them")
    head_hash: str | None
    first_bad: ChainFault | None
    unsealed: int = Field(description="Events that wait for their number: those of the last second")
    next_seq: int | None = Field(description="Pass as since_seq for the rest; null when there is none")
    duration_ms: float
