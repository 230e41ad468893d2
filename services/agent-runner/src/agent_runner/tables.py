"""The table of agents' runs. The worker writes it (recorder.py), the API reads it and ends what lost its worker."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Double, Index, Numeric, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from triton_common.db import Table, timestamp


class AgentRun(Table, table=True):
    """A run of an agent for a job: records.RunRecord, stored."""

    __tablename__ = "agent_runs"
    __table_args__ = (
        CheckConstraint("status IN ('running', 'completed', 'failed', 'cancelled', 'released', 'lost')", name="status"),
        CheckConstraint("status = 'lost' OR (status = 'running') = (seconds IS NULL)", name="seconds_when_over"),
        CheckConstraint("(status = 'failed') = (error IS NOT NULL)", name="error_when_failed"),
        Index("ix_agent_runs_job_id", "job_id", "id"),
        Index("ix_agent_runs_client_id", "client_id", "id"),
        Index("ix_agent_runs_status", "status", "id"),
        Index("ix_agent_runs_updated_at", "updated_at"),
        Index("ix_agent_runs_ends_by", "ends_by", postgresql_where=text("status = 'running'")),
    )

    updated_at: datetime = timestamp(default=True)
    agent: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    prompt_version: str = Field(sa_type=Text)
    job_id: UUID
    client_id: UUID
    attempt: int
    worker: str = Field(sa_type=Text)
    request_id: str = Field(sa_type=Text)
    trace_id: str = Field(sa_type=Text)
    status: str = Field(sa_type=Text)
    started_at: datetime = timestamp()
    ends_by: datetime = timestamp()
    seconds: float | None = Field(default=None, sa_type=Double)
    calls: list[dict[str, Any]] = Field(sa_type=JSONB)
    input_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    cost: Decimal | None = Field(default=None, sa_type=Numeric(18, 6))
    currency: str = Field(sa_type=Text)
    error: dict[str, Any] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
