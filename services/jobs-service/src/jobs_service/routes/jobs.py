"""Generation jobs, as users see them."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response, status
from sqlmodel import col
from sse_starlette import EventSourceResponse

from jobs_service import events, jobs
from jobs_service.catalogue import (
    ClientArchived,
    ProspectArchived,
    ValuePropositionArchived,
    ValuePropositionNotFound,
)
from jobs_service.idempotency import IdempotencyKeyInUse, IdempotencyKeyReused
from jobs_service.jobs import DifferentClients, JobAlreadyFinished, JobNotFound
from jobs_service.models import Job
from jobs_service.routes.state import ERRORS, DispatcherDep, FollowerDep, IdempotencyKeyHeader, SettingsDep
from jobs_service.schemas import JobCreate, JobEventPublic, JobPublic
from triton_common.auth import Principal, require
from triton_common.db import DatabaseDep, SessionDep, newest
from triton_common.errors import ProspectNotFound, problems
from triton_common.pages import CursorQuery, InvalidCursor, LimitQuery
from triton_common.schemas import JobStatus, Page

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"], responses=problems(*ERRORS))

Reader = Annotated[Principal, require("jobs:read")]
Writer = Annotated[Principal, require("jobs:write")]

EVENT_STREAM = "text/event-stream"


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(
        ProspectNotFound,
        ValuePropositionNotFound,
        DifferentClients,
        ClientArchived,
        ProspectArchived,
        ValuePropositionArchived,
        IdempotencyKeyInUse,
        IdempotencyKeyReused,
    ),
)
async def submit_job(
    *,
    body: JobCreate,
    database: DatabaseDep,
    dispatcher: DispatcherDep,
    settings: SettingsDep,
    principal: Writer,
    response: Response,
    idempotency_key: IdempotencyKeyHeader = None,
) -> JobPublic:
    """Have a document made. The job is stored when this answers, and runs when a worker is free: follow its events."""
    job = await jobs.submit(
        database,
        dispatcher,
        principal=principal,
        body=body,
        idempotency_key=idempotency_key,
        max_attempts=settings.max_attempts,
    )
    response.headers["Location"] = f"{router.prefix}/{job.id}"
    return job


@router.get("", responses=problems(InvalidCursor))
async def list_jobs(
    *,
    session: SessionDep,
    principal: Reader,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
    statuses: Annotated[list[JobStatus] | None, Query(alias="status", description="One or several")] = None,
    client_id: Annotated[UUID | None, Query()] = None,
    prospect_id: Annotated[UUID | None, Query()] = None,
) -> Page[JobPublic]:
    """List jobs, newest first."""
    conditions = [col(Job.client_id) == owner for owner in (client_id, principal.client_id) if owner is not None]
    if statuses:
        conditions.append(col(Job.status).in_(statuses))
    if prospect_id is not None:
        conditions.append(col(Job.prospect_id) == prospect_id)
    found, next_cursor = await newest(session, Job, *conditions, limit=limit, cursor=cursor)
    return Page(items=[JobPublic.model_validate(job) for job in found], next_cursor=next_cursor)


@router.get("/{job_id}", responses=problems(JobNotFound))
async def read_job(job_id: UUID, database: DatabaseDep, principal: Reader) -> JobPublic:
    """Read one job."""
    return await jobs.get(database, job_id, principal=principal)


@router.post("/{job_id}/cancel", responses=problems(JobNotFound, JobAlreadyFinished))
async def cancel_job(job_id: UUID, database: DatabaseDep, principal: Writer) -> JobPublic:
    """Cancel a job: a pending one is cancelled at once, one at work within ten seconds. Twice is once."""
    return await jobs.cancel(database, job_id, principal=principal)


@router.get(
    "/{job_id}/events",
    response_model=Page[JobEventPublic],
    responses={
        **problems(JobNotFound, InvalidCursor),
        200: {
            "description": "The history, oldest first; with Accept: text/event-stream, the events as they happen",
            "content": {EVENT_STREAM: {"schema": {"type": "string", "description": "id: seq, data: an event as JSON"}}},
        },
        204: {"description": "Nothing will come: the job is over, and Last-Event-ID is its last event"},
    },
)
async def read_events(
    *,
    job_id: UUID,
    request: Request,
    session: SessionDep,
    database: DatabaseDep,
    follower: FollowerDep,
    settings: SettingsDep,
    principal: Reader,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
    last_event_id: Annotated[
        int, Header(alias="Last-Event-ID", ge=0, le=events.LAST_SEQ, description="A stream begins after this event")
    ] = 0,
) -> Response | Page[JobEventPublic]:
    """What happened to a job, oldest first. A stream ends with the job; Last-Event-ID resumes one that broke off."""
    await jobs.get(database, job_id, principal=principal)
    if EVENT_STREAM not in request.headers.get("accept", ""):
        return await events.history(session, job_id, limit=limit, cursor=cursor)
    after = await events.position(database, job_id, last_event_id)
    if after is None:
        return Response(status_code=status.HTTP_204_NO_CONTENT)  # which tells a browser to stop reconnecting
    return EventSourceResponse(
        events.stream(follower, job_id, after=after), ping=settings.stream_heartbeat.total_seconds()
    )
