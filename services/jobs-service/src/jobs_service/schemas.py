"""What the public API takes and gives. What workers send and get is in triton_common.schemas."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from jobs_service import cron
from triton_common.schemas import (
    DocumentContent,
    JobError,
    JobParameters,
    JobPriority,
    JobStage,
    JobStatus,
    Schema,
    Text,
    ValuePropositionContent,
)


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC it is outside the years 1 to 9999") from error


Time = Annotated[AwareDatetime, AfterValidator(_utc)]

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _rfc3339(value: object) -> object:
    # pydantic would take a number for seconds since 1970, or milliseconds when it is large
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise ValueError(
        "give date, time and offset as RFC 3339 has them: 2026-11-22T18:30:00Z or 2026-11-22T18:30:00+01:00"
    )


GivenTime = Annotated[Time, BeforeValidator(_rfc3339)]
Name = Annotated[Text, StringConstraints(max_length=200)]


def _cron(value: str) -> str:
    try:
        return cron.check(value)
    except cron.InvalidCron as error:
        raise PydanticCustomError("invalid_cron", "{problem}", {"problem": str(error)}) from error


def _timezone(value: str) -> str:
    try:
        return cron.check_timezone(value)
    except cron.InvalidTimezone as error:
        raise PydanticCustomError("invalid_timezone", "{problem}", {"problem": str(error)}) from error


Cron = Annotated[
    Text,
    StringConstraints(max_length=256),
    AfterValidator(_cron),
    Field(
        description="minute, hour, day of month, month, day of week, as Debian's cron reads them; or @hourly, @daily, "
        "@weekly, @monthly, @yearly",
        examples=["0 6 * * MON-FRI"],
    ),
]
Timezone = Annotated[
    Text,
    StringConstraints(max_length=64),
    AfterValidator(_timezone),
    Field(description="Whose clock the expression means: an IANA name", examples=["America/New_York"]),
]
MissedRuns = Annotated[
    Literal["skip", "one", "all"],
    Field(
        description="What is made up for of the runs that nobody could fire in time: skip, none that is over a minute "
        "late; one, a job for all of them; all, a job for each, of the last hundred"
    ),
]
Overlap = Annotated[
    Literal["allow", "skip"],
    Field(description="Whether a run is left out while the schedule's last job is not over"),
]


TimeLimit = Annotated[
    int | None,
    Field(
        ge=10,
        le=86_400,
        description="From its first start, attempts and pauses included; over it the job fails with timed_out. "
        "Null for the usual of its type",
    ),
]


class PageQuery(Schema):
    """A page of a list; a parameter that is unknown is refused, so that a misspelt condition is not taken for none."""

    limit: int = Field(default=50, ge=1, le=200, description="Items a page")
    cursor: str | None = Field(default=None, max_length=500, description="next_cursor of the page before")


class Update(Schema):
    """Base of PATCH bodies: a field that is left out stays as it is."""

    nullable: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="after")
    def something(self) -> "Update":
        """At least one field, and null only where that means something."""
        if not self.model_fields_set:
            raise ValueError("name at least one field to change")
        if any(getattr(self, field) is None for field in self.model_fields_set - self.nullable):
            raise ValueError("a field may be left out, not null")
        return self


class Public(Schema):
    """Base of what is read from a table."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    created_at: Time


class Archivable(Public):
    """What can change, and be archived."""

    updated_at: Time
    archived_at: Time | None = Field(description="Archived things stay readable, and take part in no new job")


class ClientCreate(Schema):
    """A new client."""

    name: Name


class ClientUpdate(Update):
    """A change of a client."""

    name: Name | None = None


class ClientPublic(Archivable):
    """A company that sells health-care programmes."""

    name: str


class ValuePropositionCreate(Schema):
    """A new value proposition of a client."""

    client_id: UUID
    name: Name
    content: ValuePropositionContent


class ValuePropositionUpdate(Update):
    """A change of a value proposition; `content` is replaced as a whole. Jobs claimed from now on see it."""

    name: Name | None = None
    content: ValuePropositionContent | None = None


class ValuePropositionPublic(Archivable):
    """What a client's programme does, for whom, with what effect, at what price."""

    client_id: UUID
    name: str
    content: ValuePropositionContent


class ProspectCreate(Schema):
    """A new prospect of a client."""

    client_id: UUID
    name: Name


class ProspectUpdate(Update):
    """A change of a prospect."""

    name: Name | None = None


class ProspectPublic(Archivable):
    """A health plan or employer that a client sells to."""

    client_id: UUID
    name: str


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


class DocumentSummary(Public):
    """A document in a list."""

    job_id: UUID
    client_id: UUID
    prospect_id: UUID
    value_proposition_id: UUID
    title: str


class DocumentPublic(Public):
    """What a completed job made."""

    job_id: UUID
    client_id: UUID
    prospect_id: UUID
    value_proposition_id: UUID
    content: DocumentContent


WebhookEventType = Literal[
    "job.submitted",
    "job.claimed",
    "job.retrying",
    "job.released",
    "job.lease_lost",
    "job.cancel_requested",
    "job.retried",
    "job.completed",
    "job.failed",
    "job.cancelled",
    "webhook.disabled",
    "webhook.test",
]
WebhookDeliveryStatus = Literal["pending", "delivered", "failed"]
WebhookEventTypes = Annotated[frozenset[WebhookEventType], Field(min_length=1)]
WebhookUrl = Annotated[
    str, Field(max_length=2048, description="https, to a public address; without user name, password or fragment")
]
Description = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")]


class WebhookEndpointQuery(PageQuery):
    """A page of webhook endpoints."""

    client_id: UUID | None = None


class WebhookDeliveryQuery(PageQuery):
    """A page of what was sent to an endpoint."""

    status: WebhookDeliveryStatus | None = None


class WebhookEndpointCreate(Schema):
    """A new webhook endpoint of a client."""

    client_id: UUID | None = Field(default=None, description="Staff must name it; others have their own")
    url: WebhookUrl
    description: Description = ""
    event_types: WebhookEventTypes = frozenset({"job.completed", "job.failed", "job.cancelled"})


class WebhookEndpointUpdate(Update):
    """A change of a webhook endpoint."""

    url: WebhookUrl | None = None
    description: Description | None = None
    event_types: WebhookEventTypes | None = None
    enabled: bool | None = Field(default=None, description="What waits while it is disabled is sent when it is enabled")


class WebhookEndpointPublic(Public):
    """Where a client wants to be told of what."""

    updated_at: Time
    client_id: UUID
    url: str
    description: str
    event_types: list[WebhookEventType]
    enabled: bool
    disabled_at: Time | None
    disabled_reason: str | None
    failing_since: Time | None = Field(description="The first failure after the last success")
    previous_secret_expires_at: Time | None = Field(description="Until then the secret before this one signs too")


class WebhookEndpointWithSecret(WebhookEndpointPublic):
    """An endpoint and its secret, which no other answer shows."""

    secret: str = Field(description="whsec_…: verify the header webhook-signature with it")


class WebhookSecretRotate(Schema):
    """How a secret is rotated."""

    force: bool = Field(default=False, description="Also while the secret before still signs, which ends at once")


class WebhookSecretRotation(WebhookSecretRotate):
    """What an Idempotency-Key of a rotation stands for."""

    endpoint_id: UUID


class WebhookDeliveryPublic(Public):
    """One event for one endpoint. Its id is the header `webhook-id`, the same in every attempt."""

    endpoint_id: UUID
    event_type: WebhookEventType
    job_id: UUID | None
    payload: dict[str, Any] = Field(description="The body that is sent")
    status: WebhookDeliveryStatus
    attempts: int
    next_attempt_at: Time | None = Field(description="Null unless pending")
    last_attempt_at: Time | None
    response_status: int | None = Field(description="Of the last attempt; null when nothing was answered")
    error: str | None
    delivered_at: Time | None


class ScheduleQuery(PageQuery):
    """A page of the schedules that meet all conditions given."""

    client_id: UUID | None = None
    prospect_id: UUID | None = None
    enabled: bool | None = None


class ScheduleCreate(Schema):
    """Jobs to be submitted again and again. Prospect and value proposition belong to the same client."""

    name: Name
    job_type: Literal["value_proposition"]
    prospect_id: UUID
    value_proposition_id: UUID
    parameters: JobParameters = JobParameters()
    priority: JobPriority = JobPriority.NORMAL
    time_limit_seconds: TimeLimit = None
    cron: Cron
    timezone: Timezone = "UTC"
    missed_runs: MissedRuns = "one"
    overlap: Overlap = "allow"
    enabled: bool = True


class ScheduleUpdate(Update):
    """A change of a schedule; `parameters` are replaced as a whole."""

    nullable = frozenset({"time_limit_seconds"})

    name: Name | None = None
    parameters: JobParameters | None = None
    priority: JobPriority | None = None
    time_limit_seconds: TimeLimit = None
    cron: Cron | None = None
    timezone: Timezone | None = None
    missed_runs: MissedRuns | None = None
    overlap: Overlap | None = None
    enabled: bool | None = None


class ScheduleRun(Schema):
    """A request for a job of a schedule now."""

    schedule_id: UUID


class ScheduleError(Schema):
    """Why a run made no job."""

    code: str = Field(
        description="runs_missed, last_job_alive, schedule_invalid, internal_error, or what submitting the job would "
        "have answered: prospect_archived, queue_full …"
    )
    message: str
    at: Time


class SchedulePublic(Public):
    """Jobs that are submitted again and again."""

    updated_at: Time
    client_id: UUID
    prospect_id: UUID
    value_proposition_id: UUID
    name: str
    job_type: str
    parameters: dict[str, Any]
    priority: JobPriority
    time_limit_seconds: int | None
    cron: str
    timezone: str
    missed_runs: MissedRuns
    overlap: Overlap
    enabled: bool
    created_by: str = Field(description="Whose its jobs are too")
    next_run_at: Time | None = Field(description="Null while it is switched off")
    last_run_at: Time | None = Field(description="When its last job was submitted")
    last_job_id: UUID | None
    last_error: ScheduleError | None = Field(description="Of the last run, or of runs missed before it; null when none")


class NextRun(Schema):
    """A run to come."""

    at: Time
    local: AwareDatetime = Field(description="The same on the clock of the schedule's timezone")


class ScheduleDetail(SchedulePublic):
    """A schedule, and when it runs next."""

    next_runs: list[NextRun] = Field(description="The next five; none while it is switched off or not valid")
