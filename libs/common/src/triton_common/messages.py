"""Every message that crosses the queue. A message is plain data under a name that never changes."""

from datetime import datetime
from typing import Any, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Message(BaseModel):
    """Base of messages. A reader ignores fields it does not know, so that a newer sender does not break it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: ClassVar[str]
    queue: ClassVar[str]

    request_id: str = ""
    traceparent: str = ""


class RunJob(Message):
    """Command to an agent worker: claim this job and run it. Redis may lose or double it; the claim decides."""

    name = "agent_runner.run_job"
    queue = "agent-runner"

    job_id: UUID


class Ping(Message):
    """Command to any worker: answer, to show that the queue is consumed."""

    name = "agent_runner.ping"
    queue = "agent-runner"


ActorKind = Literal["user", "service", "api_key", "anonymous", "system"]
Outcome = Literal["succeeded", "refused", "failed"]


class AuditEvent(Message):
    """Event for the audit log, of a service's requests. Sent until it is stored; its id makes that once.

    `object_kind` and `object_id` name what it was done to; `details` hold no secret and nothing of a member.
    """

    name = "audit.event"
    queue = "triton:audit"

    id: UUID
    at: datetime
    source: str
    actor_kind: ActorKind
    actor_id: str | None = None
    action: str
    object_kind: str | None = None
    object_id: str | None = None
    client_id: UUID | None = None
    address: str | None = None
    outcome: Outcome = "succeeded"
    details: dict[str, Any] = Field(default_factory=dict)
