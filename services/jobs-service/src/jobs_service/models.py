"""The tables. What must never be true of a row, a CHECK refuses: a table model validates nothing (see schemas.py)."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from triton_common.db import Table, timestamp


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
        # the list's filters; an id is a UUIDv7, so its order is the order of creation
        Index(None, "client_id", "id"),
        Index(None, "prospect_id", "id"),
        Index(None, "status", "id"),
        # the sweeps look at live rows alone, however many are over
        Index("ix_generation_jobs_due", "dispatch_at", postgresql_where=text("status = 'pending'")),
        Index("ix_generation_jobs_leases", "lease_expires_at", postgresql_where=text("status = 'processing'")),
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

    status: str = Field(sa_column_kwargs={"server_default": "pending"})
    progress: int = Field(sa_column_kwargs={"server_default": "0"})
    stage: str | None = None
    error: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    document_id: UUID | None = None
    event_seq: int = Field(sa_column_kwargs={"server_default": "0"})  # of the last event: taken under the row's lock
    cancel_requested_at: datetime | None = timestamp(nullable=True)
    started_at: datetime | None = timestamp(nullable=True)
    finished_at: datetime | None = timestamp(nullable=True)

    attempt: int = Field(sa_column_kwargs={"server_default": "0"})  # the fencing token: one more with each claim
    max_attempts: int
    run_after: datetime = timestamp(default=True)
    dispatch_at: datetime = timestamp(default=True)  # when its message is sent (again)
    dispatches: int = Field(sa_column_kwargs={"server_default": "0"})
    lease_expires_at: datetime | None = timestamp(nullable=True)
    worker: str | None = None
    task_id: str | None = None
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
    __table_args__ = (Index(None, "client_id", "id"), Index(None, "prospect_id", "id"))

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
