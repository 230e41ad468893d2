"""What the API tells of agents and their runs."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, PlainSerializer

from agent_runner.records import Status
from agent_runner.tables import AgentRun
from triton_common.schemas import ProblemDetail, Schema

Cost = Annotated[Decimal, PlainSerializer(lambda value: f"{value:.6f}", when_used="json")]
"""Six decimals: a short call costs less than a cent."""


class AgentRunQuery(Schema):
    """A page of the runs that meet all conditions given; a parameter that is unknown is refused."""

    job_id: UUID | None = Field(default=None, description="Of this job")
    agent: str | None = Field(default=None, max_length=100, description="Of this agent")
    status: Status | None = Field(default=None, description="lost: its worker died, or another one has the job")
    limit: int = Field(default=50, ge=1, le=200, description="Items a page")
    cursor: str | None = Field(default=None, max_length=500, description="next_cursor of the page before")


class AgentPublic(Schema):
    """An agent as it runs at present."""

    name: str
    description: str
    model: str
    prompt_version: str
    output_schema: dict[str, Any]


class ModelCallPublic(Schema):
    """One model call of a run."""

    model: str
    began_at: datetime
    outcome: str = Field(description="answered, cut_off (at the most tokens), failed, or abandoned: nobody waited")
    reason: str = Field(description="The provider's error code, or why the answer could not be used")
    seconds: float
    input_tokens: int
    output_tokens: int
    cost: Cost | None
    faults: list[ProblemDetail] = Field(description="What was wrong with the answer, as the model was told")


class AgentRunError(Schema):
    """Why a run failed."""

    code: str
    message: str
    details: list[ProblemDetail]
    traceback: str | None = Field(description="Where in the code; for the platform's admins alone")


class AgentRunPublic(Schema):
    """A run of an agent for a job."""

    id: UUID
    agent: str
    model: str
    prompt_version: str
    job_id: UUID
    client_id: UUID
    attempt: int
    worker: str
    request_id: str
    trace_id: str = Field(description="Of the run's trace in OpenTelemetry")
    status: Status
    started_at: datetime
    seconds: float | None = Field(description="How long it took; null while it runs, and when its worker is lost")
    model_calls: int
    input_tokens: int
    output_tokens: int
    cost: Cost | None = Field(description="By AGENT_PRICES; null for models without a price")
    currency: str
    error: AgentRunError | None


class AgentRunDetail(AgentRunPublic):
    """The same with each of its model calls."""

    calls: list[ModelCallPublic]


def public(run: AgentRun, *, with_traceback: bool = False) -> dict[str, Any]:
    """A row as AgentRunPublic and AgentRunDetail take it."""
    fields = run.model_dump(exclude={"created_at", "updated_at", "ends_by", "calls", "error"})
    error = run.error and run.error | {"traceback": run.error["traceback"] if with_traceback else None}
    return fields | {"model_calls": len(run.calls), "error": error}
