"""Generation jobs, as users see them."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response, status
from loguru import logger
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from jobs_service import events, jobs, listing, stats
from jobs_service.catalogue import (
    ClientArchived,
    ProspectArchived,
    ValuePropositionArchived,
    ValuePropositionNotFound,
)
from jobs_service.idempotency import IdempotencyKeyInUse, IdempotencyKeyReused
from jobs_service.jobs import (
    DifferentClients,
    JobAlreadyCompleted,
    JobAlreadyFinished,
    JobNotFound,
    JobNotOver,
    QueueFull,
)
from jobs_service.routes.state import ERRORS, BacklogDep, FollowerDep, IdempotencyKeyHeader, SettingsDep, accepted
from jobs_service.schemas.jobs import (
    JobCreate,
    JobEventPublic,
    JobPublic,
    JobQuery,
    JobsChanged,
    JobSelection,
    JobStats,
    JobStatsQuery,
)
from triton_common.auth import Principal, TokenVerifier, require
from triton_common.db import DatabaseDep, SessionDep
from triton_common.errors import ProspectNotFound, Unauthorized, Unavailable, problems
from triton_common.hot import hot
from triton_common.pages import CursorQuery, InvalidCursor, LimitQuery, once
from triton_common.schemas import Page

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"], responses=problems(*ERRORS))

Reader = Annotated[Principal, require("jobs:read")]
Writer = Annotated[Principal, require("jobs:write")]

EVENT_STREAM = "text/event-stream"
READER_TIMEOUT = 60  # seconds without taking anything, not even a heartbeat


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
        QueueFull,
    ),
)
@hot
async def submit_job(
    *,
    body: JobCreate,
    database: DatabaseDep,
    backlog: BacklogDep,
    settings: SettingsDep,
    principal: Writer,
    response: Response,
    idempotency_key: IdempotencyKeyHeader = None,
) -> JobPublic:
    """Have a document made. The job is stored when this answers, and runs when a worker is free: follow its events."""
    job = await jobs.submit(
        database,
        backlog,
        principal=principal,
        body=body,
        idempotency_key=idempotency_key,
        policies=settings.policies,
    )
    response.headers["Location"] = f"{router.prefix}/{job.id}"
    return job


@router.get("", dependencies=[once("status")], responses=problems(InvalidCursor))
async def list_jobs(wanted: Annotated[JobQuery, Query()], database: DatabaseDep, principal: Reader) -> Page[JobPublic]:
    """List the jobs that meet all conditions given, newest first."""
    return await listing.page(database, wanted, principal=principal, limit=wanted.limit, cursor=wanted.cursor)


@router.get("/stats", dependencies=[once()])
async def read_stats(wanted: Annotated[JobStatsQuery, Query()], database: DatabaseDep, principal: Reader) -> JobStats:
    """How many jobs there are in each state, how long the oldest has waited, and how many ended lately."""
    return await stats.read(database, principal=principal, client_id=wanted.client_id)


@router.post("/cancel")
async def cancel_jobs(body: JobSelection, database: DatabaseDep, principal: Writer) -> JobsChanged:
    """Cancel the pending and processing jobs of a selection, 10,000 at most: again when `complete` is false.

    It takes either `ids`, or the conditions of the list, at least one. Twice is once.
    """

    async def cancel(found: Sequence[JobPublic]) -> int:
        return await jobs.cancel_many(database, [job.id for job in found], principal=principal)

    return await listing.change(database, body, principal=principal, only=listing.CANCELLABLE, move=cancel)


@router.post("/retry")
async def retry_jobs(
    body: JobSelection, database: DatabaseDep, backlog: BacklogDep, settings: SettingsDep, principal: Writer
) -> JobsChanged:
    """Begin the failed and cancelled jobs of a selection anew, 10,000 at most: again when `complete` is false.

    A client gets no more pending jobs than it may have; what is over that stays as it is. It takes either `ids`, or the
    conditions of the list, at least one.
    """

    async def retry(found: Sequence[JobPublic]) -> int:
        return await jobs.retry_many(database, backlog, found, principal=principal, policies=settings.policies)

    return await listing.change(database, body, principal=principal, only=listing.RETRYABLE, move=retry)


@router.get("/cancel", include_in_schema=False)
@router.get("/retry", include_in_schema=False)
async def read_no_job() -> None:
    """These are no jobs."""
    raise HTTPException(status.HTTP_405_METHOD_NOT_ALLOWED, headers={"Allow": "POST"})


@router.get("/{job_id}", responses=problems(JobNotFound))
@hot
async def read_job(job_id: UUID, database: DatabaseDep, principal: Reader) -> JobPublic:
    """Read one job."""
    return await jobs.get(database, job_id, principal=principal)


@router.post("/{job_id}/cancel", responses=problems(JobNotFound, JobAlreadyFinished))
async def cancel_job(job_id: UUID, database: DatabaseDep, principal: Writer) -> JobPublic:
    """Cancel a job: a pending one is cancelled at once, one at work within ten seconds. Twice is once."""
    return await jobs.cancel(database, job_id, principal=principal)


@router.post("/{job_id}/retry", responses=problems(JobNotFound, JobNotOver, JobAlreadyCompleted, QueueFull))
async def retry_job(
    job_id: UUID, database: DatabaseDep, backlog: BacklogDep, settings: SettingsDep, principal: Writer
) -> JobPublic:
    """Begin a failed or cancelled job anew: it is pending again, with a new series of attempts. Twice is once."""
    return await jobs.retry(database, backlog, job_id, principal=principal, policies=settings.policies)


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
        str, Header(alias="Last-Event-ID", description="A stream begins after this event; at the start if it is none")
    ] = "",
) -> Response | Page[JobEventPublic]:
    """What happened to a job, oldest first; by Accept as a stream, which ends with the job.

    A stream may end before the job does: when the token expires or is revoked, of which a comment tells, and when the
    service stops. Last-Event-ID resumes it without a gap.
    """
    await jobs.get(database, job_id, principal=principal)
    if accepted(request, "application/json", EVENT_STREAM) != EVENT_STREAM:
        return await events.history(session, job_id, limit=limit, cursor=cursor)
    after = await events.position(database, job_id, events.last_seen(last_event_id))
    if after is None:
        return Response(status_code=status.HTTP_204_NO_CONTENT)  # which tells a browser to stop reconnecting
    heartbeat = settings.stream_heartbeat.total_seconds()
    verifier: TokenVerifier = request.app.state.verifier

    async def allowed() -> bool:
        try:
            await verifier.verify(principal.token)
        except Unauthorized:
            return False
        except Unavailable:  # of an API key auth-service says nothing just now
            pass
        return True

    return _Stream(
        events.stream(follower, job_id, after=after, until=principal.expires_at, allowed=allowed, every=heartbeat),
        ping=heartbeat,
        send_timeout=READER_TIMEOUT,
    )


class _Stream(EventSourceResponse):
    """A stream that is cut when its reader takes nothing for long: it has gone without a word, or has stopped."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            logger.info("stream cut: its reader takes nothing")  # the server closes what is not complete
