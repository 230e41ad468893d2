"""Jobs, as the public API takes and gives them. What workers send and get is in triton_common.schemas."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from jobs_service.schemas.shared import GivenTime, PageQuery, Public, Time
from triton_common.schemas import JobError, JobParameters, JobPriority, JobStage, JobStatus, Schema

TimeLimit = Annotated[
    int | None,
    Field(
        ge=10,
        le=86_400,
        description="From its first start, attempts and pauses included; over it the job fails with timed_out. "
        "Null for the usual of its type",
    ),
]


class JobCreate(Schema):
    """A document to be made. Prospect and value proposition belong to the same client."""

    job_type: Literal["value_proposition"]
    prospect_id: UUID
    value_proposition_id: UUID
    parameters: JobParameters = JobParameters()
    priority: JobPriority = Field(default=JobPriority.NORMAL, description="Among the jobs of all clients that wait")
    time_limit_seconds: TimeLimit = None


class JobPublic(Public):
    """A generation job."""

    job_type: str
    client_id: UUID
    prospect_id: UUID
    value_proposition_id: UUID
    status: JobStatus
    progress: int = Field(ge=0, le=100)
    stage: JobStage | None
    parameters: dict[str, Any]
    error: JobError | None = Field(description="Why it failed; of a pending job, why its last attempt did")
    document_id: UUID | None
    priority: JobPriority
    series: int = Field(description="Of attempts: one more with each retry by a user")
    attempt: int = Field(description="How many times a worker has taken it, in all series")
    max_attempts: int
    run_after: Time = Field(description="When it is due; after a failed attempt, when the next one is")
    time_limit_seconds: int
    deadline_at: Time | None = Field(description="When it fails with timed_out; null until it is first started")
    created_by: str
    request_id: str
    schedule_id: UUID | None = Field(description="The schedule that submitted it; it may be deleted since")
    scheduled_for: Time | None = Field(description="For which of the schedule's runs; null when it was run by hand")
    cancel_requested_at: Time | None
    started_at: Time | None
    finished_at: Time | None


class JobFilter(Schema):
    """Which jobs: those that meet all conditions that are given."""

    status: list[JobStatus] | None = Field(default=None, min_length=1, description="One or several")
    client_id: UUID | None = None
    prospect_id: UUID | None = None
    schedule_id: UUID | None = None
    job_type: Literal["value_proposition"] | None = None
    priority: JobPriority | None = None
    created_after: GivenTime | None = Field(default=None, description="From this moment on")
    created_before: GivenTime | None = Field(default=None, description="Up to this moment, without it")
    error_code: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{0,64}\*?$", min_length=1)] | None = Field(
        default=None, description="A code, or with a trailing * every code that begins so: model_*"
    )


class JobQuery(PageQuery, JobFilter):
    """A page of the jobs that meet a filter."""


class JobStatsQuery(Schema):
    """Whose jobs are counted."""

    client_id: UUID | None = None


class JobSelection(JobFilter):
    """The jobs to change: those named, or those that meet all conditions that are given."""

    ids: list[UUID] | None = Field(default=None, min_length=1, max_length=10_000)
    dry_run: bool = Field(default=False, description="Count the jobs, and change none")

    @model_validator(mode="after")
    def something(self) -> "JobSelection":
        """Ids or conditions; a body without any would mean every job there is."""
        conditions = self.model_dump(exclude={"ids", "dry_run"}, exclude_none=True)
        if (self.ids is None) == (not conditions):
            raise ValueError("name either ids, or at least one condition")
        return self


class JobsChanged(Schema):
    """What became of the selected jobs."""

    matched: int = Field(description="Jobs of the selection that were in a state to be changed")
    changed: int = Field(description="How many of them this call changed")
    complete: bool = Field(description="False when there are more than 10,000 of them: call again for the rest")


class JobCounts(Schema):
    """Jobs by state."""

    pending: int
    processing: int
    completed: int
    failed: int
    cancelled: int


class Throughput(Schema):
    """What ended in the last so many seconds."""

    window_seconds: int
    completed: int
    failed: int
    cancelled: int
    completed_per_minute: float


class JobStats(Schema):
    """How the work is going."""

    counts: JobCounts
    oldest_pending_seconds: float | None = Field(
        description="How long the job that waits longest has been due; null when none is due"
    )
    throughput: list[Throughput] = Field(description="Of the last minute, five minutes and hour")


class JobEventPublic(Schema):
    """One thing that happened to a job."""

    model_config = ConfigDict(from_attributes=True)

    seq: int
    at: Time
    kind: str = Field(
        description="submitted, claimed, progress, retrying, released, lease_lost, cancel_requested, "
        "completed, failed, cancelled or retried"
    )
    status: JobStatus
    progress: int
    stage: JobStage | None
    message: str
