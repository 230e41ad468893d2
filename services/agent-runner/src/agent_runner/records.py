"""What is kept of an agent's run: when, with which model, each call, what it cost, how it ended; never a prompt."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from uuid_utils.compat import uuid7

from agent_runner.meter import Call
from triton_common.errors import AppError
from triton_common.schemas import ProblemDetail

Status = Literal["running", "completed", "failed", "cancelled", "released", "lost"]
"""`lost`: the attempt's lease went to another worker, or its worker died."""


@dataclass
class RunRecord:
    """One run of an agent for a job. Kept twice: when it begins, and when it is over."""

    agent: str
    model: str
    prompt_version: str
    job_id: UUID | None
    client_id: UUID | None
    attempt: int
    worker: str
    request_id: str
    trace_id: str
    ends_by: datetime
    """Later than this, a run that is still `running` has lost its worker."""
    currency: str
    id: UUID = field(default_factory=uuid7)
    status: Status = "running"
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: float | None = None
    calls: list[Call] = field(default_factory=list)
    error_code: str | None = None
    error_message: str | None = None
    error_details: list[ProblemDetail] = field(default_factory=list)
    error_traceback: str | None = None

    def fail(self, error: Exception) -> None:
        """It ended with an error."""
        self.status = "failed"
        self.error_code = error.code if isinstance(error, AppError) else "agent_crashed"
        self.error_message = error.message if isinstance(error, AppError) else type(error).__name__
        self.error_details = list(error.details) if isinstance(error, AppError) else []
        # places alone: the text of an unforeseen error may quote what was worked on
        self.error_traceback = "".join(traceback.format_tb(error.__traceback__))

    @property
    def input_tokens(self) -> int:
        """Of all calls."""
        return sum(call.input_tokens for call in self.calls)

    @property
    def output_tokens(self) -> int:
        """Of all calls."""
        return sum(call.output_tokens for call in self.calls)

    @property
    def cost(self) -> Decimal | None:
        """Of the calls whose model has a price; None when none has."""
        known = [call.cost for call in self.calls if call.cost is not None]
        return sum(known, Decimal(0)) if known else None


Record = Callable[[RunRecord], None]
"""Keeps a run's record as it is at the moment. Returns at once, and never raises."""
