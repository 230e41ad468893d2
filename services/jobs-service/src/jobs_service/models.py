"""The tables. What must never be true of a row, a CHECK refuses: a table model validates nothing (see schemas.py)."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import CheckConstraint, Enum, Index, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel
from uuid_utils.compat import uuid7

from triton_common.db import Table, timestamp
from triton_common.schemas import JobPriority

# its values in the order of admission
PRIORITY = Enum(JobPriority, name="job_priority", values_callable=lambda values: [value.value for value in values])


class Client(Table, table=True):
    """A company that sells health-care programmes."""

    __tablename__ = "clients"

    name: str
    updated_at: datetime = timestamp(default=True)
    archived_at: datetime | None = timestamp(nullable=True)


class ValueProposition(Table, table=True):
    """What a client's programme does, for whom, with what effect, at what price."""

    __tablename__ = "value_propositions"
    __table_args__ = (Index(None, "client_id", "id"),)

    client_id: UUID = Field(foreign_key="clients.id")
    name: str
    content: dict[str, Any] = Field(sa_type=JSONB)
    updated_at: datetime = timestamp(default=True)
    archived_at: datetime | None = timestamp(nullable=True)


class Prospect(Table, table=True):
    """A health plan or employer a client sells to; its data lives in analytics-service under this id."""

    __tablename__ = "prospects"
    __table_args__ = (Index(None, "client_id", "id"),)

    client_id: UUID = Field(foreign_key="clients.id")
    name: str
    updated_at: datetime = timestamp(default=True)
    archived_at: datetime | None = timestamp(nullable=True)


# What lists of jobs read (listing.py): by what a job belongs to, if anything; then by the code of its error, if any;
# then the newest of a status and a priority. And what ended when (stats.py).
_NEWEST: Final = ("status", "priority", "created_at", "id")
_CODE: Final = text("(error ->> 'code')")
_LISTS: Final = (
    Index(None, *_NEWEST),
    Index(None, "client_id", *_NEWEST),
    Index(None, "prospect_id", *_NEWEST),
    Index(None, "schedule_id", *_NEWEST, postgresql_where=text("schedule_id IS NOT NULL")),
    Index("ix_generation_jobs_code", _CODE, *_NEWEST, postgresql_where=text("error IS NOT NULL")),
    Index("ix_generation_jobs_client_code", "client_id", _CODE, *_NEWEST, postgresql_where=text("error IS NOT NULL")),
    Index(
        "ix_generation_jobs_prospect_code", "prospect_id", _CODE, *_NEWEST, postgresql_where=text("error IS NOT NULL")
    ),
    Index(
        "ix_generation_jobs_schedule_code",
        "schedule_id",
        _CODE,
        *_NEWEST,
        postgresql_where=text("error IS NOT NULL AND schedule_id IS NOT NULL"),
    ),
    Index(None, "client_id", "status", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
)


class Job(Table, table=True):
    """A generation job: the truth about it. Only jobs.py writes its status."""

    __tablename__ = "generation_jobs"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'processing', 'completed', 'failed', 'cancelled')", name="status"),
        CheckConstraint(
            "(status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", name="finished_when_final"
        ),
        CheckConstraint("(status = 'processing') = (lease_expires_at IS NOT NULL)", name="lease_when_processing"),
        CheckConstraint("(status = 'completed') = (document_id IS NOT NULL)", name="document_when_completed"),
        CheckConstraint("status <> 'failed' OR error IS NOT NULL", name="error_when_failed"),
        CheckConstraint("status <> 'pending' OR cancel_requested_at IS NULL", name="pending_is_cancelled_at_once"),
        CheckConstraint("progress BETWEEN 0 AND 100", name="progress"),
        CheckConstraint("attempt BETWEEN 0 AND max_attempts", name="attempt"),
        CheckConstraint("time_limit_seconds > 0", name="time_limit"),
        CheckConstraint("series >= 1", name="series"),
        *_LISTS,
        # the sweeps look at live rows alone, however many are over
        Index("ix_generation_jobs_due", "dispatch_at", postgresql_where=text("status = 'pending'")),
        Index(
            "ix_generation_jobs_deadlines", "deadline_at", postgresql_where=text("status IN ('pending', 'processing')")
        ),
        # admission: a client's next jobs, and how many of its jobs are in flight
        Index(
            "ix_generation_jobs_waiting",
            "client_id",
            "priority",
            "id",
            postgresql_where=text("status = 'pending' AND dispatch_at IS NULL"),
        ),
        Index(
            "ix_generation_jobs_in_flight",
            "client_id",
            postgresql_where=text("status = 'processing' OR status = 'pending' AND dispatch_at IS NOT NULL"),
        ),
        Index(  # a firing happens once, whoever fires
            "uq_generation_jobs_scheduled",
            "schedule_id",
            "scheduled_for",
            unique=True,
            postgresql_where=text("schedule_id IS NOT NULL"),
        ),
        {"postgresql_with": {"fillfactor": 80}},  # room for the updates of a row beside it
    )

    job_type: str
    client_id: UUID = Field(foreign_key="clients.id")
    prospect_id: UUID = Field(foreign_key="prospects.id")
    value_proposition_id: UUID = Field(foreign_key="value_propositions.id")
    parameters: dict[str, Any] = Field(sa_type=JSONB, sa_column_kwargs={"server_default": text("'{}'::jsonb")})
    created_by: str
    request_id: str
    traceparent: str = Field(sa_column_kwargs={"server_default": ""})
    idempotency_key: str | None = None
    schedule_id: UUID | None = None  # no foreign key: it stays when the schedule is deleted
    scheduled_for: datetime | None = timestamp(nullable=True)  # null when somebody ran the schedule by hand
    priority: JobPriority = Field(sa_type=PRIORITY, sa_column_kwargs={"server_default": JobPriority.NORMAL.value})
    time_limit_seconds: int = Field(sa_column_kwargs={"server_default": "1800"})

    status: str = Field(sa_column_kwargs={"server_default": "pending"})
    progress: int = Field(sa_column_kwargs={"server_default": "0"})
    stage: str | None = None
    error: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    document_id: UUID | None = None
    event_seq: int = Field(sa_column_kwargs={"server_default": "0"})  # of the last event: taken under the row's lock
    cancel_requested_at: datetime | None = timestamp(nullable=True)
    started_at: datetime | None = timestamp(nullable=True)
    finished_at: datetime | None = timestamp(nullable=True)

    series: int = Field(sa_column_kwargs={"server_default": "1"})  # of attempts: one more when a user retries the job
    attempt: int = Field(sa_column_kwargs={"server_default": "0"})  # the fencing token: one more with each claim
    max_attempts: int
    run_after: datetime = timestamp(default=True)
    deadline_at: datetime | None = timestamp(nullable=True)  # the time limit after the series' first claim
    dispatch_at: datetime | None = timestamp(nullable=True)  # when its message is sent again; null until it is admitted
    dispatches: int = Field(sa_column_kwargs={"server_default": "0"})
    lease_expires_at: datetime | None = timestamp(nullable=True)
    worker: str | None = None
    task_id: str | None = None
    claim_id: UUID | None = None
    outcome: str | None = None  # what the worker's finish of this attempt said, to know it again


class JobEvent(SQLModel, table=True):
    """One thing that happened to a job; written with the change itself, never changed."""

    __tablename__ = "job_events"

    job_id: UUID = Field(foreign_key="generation_jobs.id", primary_key=True)
    seq: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    at: datetime = timestamp(default=True)
    kind: str
    status: str
    progress: int
    stage: str | None = None
    message: str
    data: dict[str, Any] = Field(sa_type=JSONB, sa_column_kwargs={"server_default": text("'{}'::jsonb")})


class Document(Table, table=True):
    """What a completed job made."""

    __tablename__ = "documents"
    __table_args__ = (
        Index(None, "client_id", "id"),
        Index(None, "prospect_id", "id"),
        Index(None, "prospect_id", "value_proposition_id", "id"),  # versions
    )

    job_id: UUID = Field(foreign_key="generation_jobs.id", unique=True)
    client_id: UUID = Field(foreign_key="clients.id")
    prospect_id: UUID = Field(foreign_key="prospects.id")
    value_proposition_id: UUID = Field(foreign_key="value_propositions.id")
    content: dict[str, Any] = Field(sa_type=JSONB)


class IdempotencyKey(SQLModel, table=True):
    """A key that a caller sent with a POST, and the first answer."""

    __tablename__ = "idempotency_keys"

    caller: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    fingerprint: str
    answer: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    created_at: datetime = timestamp(default=True)
    __table_args__ = (Index(None, "created_at"),)


class WebhookEndpoint(Table, table=True):
    """Where a client wants to be told of what. The secrets are encrypted (webhooks.py)."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        CheckConstraint("enabled = (disabled_at IS NULL)", name="disabled_at_a_time"),
        CheckConstraint(
            "(previous_secret IS NULL) = (previous_secret_expires_at IS NULL)", name="previous_secret_expires"
        ),
        Index(None, "client_id", "id"),
        Index("ix_webhook_endpoints_listening", "client_id", postgresql_where=text("enabled")),  # asked by each move
    )

    client_id: UUID = Field(foreign_key="clients.id")
    url: str
    description: str = Field(sa_column_kwargs={"server_default": ""})
    event_types: list[str] = Field(sa_type=ARRAY(Text))
    secret: str
    previous_secret: str | None = None
    previous_secret_expires_at: datetime | None = timestamp(nullable=True)
    enabled: bool = Field(default=True, sa_column_kwargs={"server_default": text("true")})
    disabled_at: datetime | None = timestamp(nullable=True)
    disabled_reason: str | None = None
    failing_since: datetime | None = timestamp(nullable=True)  # the first failure after the last success
    updated_at: datetime = timestamp(default=True)


class WebhookDelivery(Table, table=True):
    """One event for one endpoint: what was sent, or is to be. A move of a job writes it with the event."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
        CheckConstraint("(status = 'pending') = (next_attempt_at IS NOT NULL)", name="due_when_pending"),
        CheckConstraint("(status = 'delivered') = (delivered_at IS NOT NULL)", name="delivered_at_a_time"),
        UniqueConstraint("endpoint_id", "job_id", "event_seq"),
        Index(None, "endpoint_id", "id"),
        Index(
            "ix_webhook_deliveries_due",
            "endpoint_id",
            "next_attempt_at",
            postgresql_where=text("status = 'pending'"),
        ),
    )

    # the header webhook-id; made by Postgres where a move makes the row
    id: UUID = Field(default_factory=uuid7, primary_key=True, sa_column_kwargs={"server_default": text("uuidv7()")})
    endpoint_id: UUID = Field(foreign_key="webhook_endpoints.id", ondelete="CASCADE")
    event_type: str
    job_id: UUID | None = None
    event_seq: int | None = None
    payload: dict[str, Any] = Field(sa_type=JSONB)
    status: str = Field(default="pending", sa_column_kwargs={"server_default": "pending"})
    attempts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    next_attempt_at: datetime | None = timestamp(default=True, nullable=True)
    last_attempt_at: datetime | None = timestamp(nullable=True)
    response_status: int | None = None
    error: str | None = None
    delivered_at: datetime | None = timestamp(nullable=True)


class Schedule(Table, table=True):
    """Jobs that are submitted again and again, at the times of a cron expression."""

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("enabled = (next_run_at IS NOT NULL)", name="next_run_when_enabled"),
        CheckConstraint("missed_runs IN ('skip', 'one', 'all')", name="missed_runs"),
        CheckConstraint("time_limit_seconds > 0", name="time_limit"),
        CheckConstraint("overlap IN ('allow', 'skip')", name="overlap"),
        Index(None, "client_id", "id"),
        Index(None, "prospect_id", "id"),
        Index("ix_schedules_due", "next_run_at", postgresql_where=text("next_run_at IS NOT NULL")),
    )

    updated_at: datetime = timestamp(default=True)
    client_id: UUID = Field(foreign_key="clients.id")
    prospect_id: UUID = Field(foreign_key="prospects.id")
    value_proposition_id: UUID = Field(foreign_key="value_propositions.id")
    name: str
    job_type: str
    parameters: dict[str, Any] = Field(sa_type=JSONB, sa_column_kwargs={"server_default": text("'{}'::jsonb")})
    priority: JobPriority = Field(sa_type=PRIORITY, sa_column_kwargs={"server_default": JobPriority.NORMAL.value})
    time_limit_seconds: int | None = None
    created_by: str
    cron: str
    timezone: str
    missed_runs: str
    overlap: str
    enabled: bool
    next_run_at: datetime | None = timestamp(nullable=True)
    last_run_at: datetime | None = timestamp(nullable=True)
    last_job_id: UUID | None = None
    last_error: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
