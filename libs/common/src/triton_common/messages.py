"""Every message that crosses the queue. A message is plain data under a name that never changes."""

from typing import ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict


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
