"""Small apps that a real route is compared with: what FastAPI alone costs, and what a token costs."""

from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from triton_common.app import create_app
from triton_common.auth import require
from triton_common.hot import hot
from triton_common.schemas import JobError, JobPriority, JobStage, JobStatus
from triton_common.settings import CommonSettings


class Job(BaseModel):
    """As large as JobPublic of jobs-service; a test compares their fields."""

    id: UUID
    created_at: datetime
    job_type: str
    client_id: UUID
    prospect_id: UUID
    value_proposition_id: UUID
    status: JobStatus
    progress: int
    stage: JobStage | None
    priority: JobPriority
    series: int
    time_limit_seconds: int
    deadline_at: datetime | None
    run_after: datetime
    schedule_id: UUID | None
    scheduled_for: datetime | None
    parameters: dict[str, Any]
    error: JobError | None
    document_id: UUID | None
    attempt: int
    max_attempts: int
    created_by: str
    request_id: str
    cancel_requested_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


_known: dict[UUID, Job] = {}


def bare() -> FastAPI:
    """FastAPI as it comes: the route without database, token, metrics, logs. A PUT says what it answers."""
    app = FastAPI()

    @app.put("/api/v1/jobs/{job_id}")
    async def keep(job_id: UUID, job: Job) -> None:
        _known[job_id] = job

    @app.get("/api/v1/jobs/{job_id}")
    async def read(job_id: UUID) -> Job:
        return _known[job_id]

    return app


class Settings(CommonSettings):
    """Nothing of its own."""


def guarded() -> FastAPI:
    """A service as ours are, with two routes that differ in their token alone."""
    router = APIRouter()

    @router.get("/open/{job_id}")
    @hot
    async def read_open(job_id: UUID) -> JobError:
        return JobError(code="none", message=str(job_id))

    @router.get("/guarded/{job_id}", dependencies=[require("jobs:read")])
    @hot
    async def read_guarded(job_id: UUID) -> JobError:
        return JobError(code="none", message=str(job_id))

    return create_app(Settings(), name="twin", version="0", description="A twin", routers=[router])
