"""Schedules, as the public API takes and gives them."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints
from pydantic_core import PydanticCustomError

from jobs_service import cron
from jobs_service.schemas.jobs import TimeLimit
from jobs_service.schemas.shared import Name, PageQuery, Public, Time, Update
from triton_common.schemas import JobParameters, JobPriority, Schema, Text


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
