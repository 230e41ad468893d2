"""Generation jobs: what users, workers and sweeps do with them. The only caller of the moves, so the only writer of a
job's status."""

import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, assert_never
from uuid import UUID

from psycopg import AsyncConnection
from uuid_utils.compat import uuid7

from jobs_service import idempotency, moves
from jobs_service.backlog import Backlog
from jobs_service.catalogue import (
    ClientArchived,
    ProspectArchived,
    ValuePropositionArchived,
    ValuePropositionNotFound,
)
from jobs_service.metrics import (
    JOB_DURATION,
    JOB_QUEUE_WAIT,
    JOBS_CANCELLED,
    JOBS_COMPLETED,
    JOBS_CREATED,
    JOBS_FAILED,
)
from jobs_service.schemas.jobs import JobCreate, JobPublic
from jobs_service.settings import JobPolicy, Policies
from jobs_service.statements import Row, as_calls, batched, connected, fetch, row, rows
from triton_common.auth import Principal
from triton_common.db import Database
from triton_common.errors import Conflict, NotFound, ProspectNotFound, TooManyRequests, Unprocessable
from triton_common.logging import current_request_id
from triton_common.messages import RunJob
from triton_common.schemas import (
    ClaimedJob,
    JobClaim,
    JobFinish,
    JobFinishAnswer,
    JobPriority,
    JobProgress,
    JobProgressAnswer,
    JobStatus,
)
from triton_common.telemetry import current_traceparent

FINAL: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
FULL_FOR: Final = 5  # seconds to wait with the next submit when a client has no room
LANES: Final = {JobPriority.HIGH: 0, JobPriority.NORMAL: 2, JobPriority.LOW: 4}


class JobNotFound(NotFound):
    """There is no such job."""


class JobAlreadyFinished(Conflict):
    """The job is already over."""


class JobAlreadyCompleted(Conflict):
    """The job has made its document."""


class JobNotOver(Conflict):
    """The job is not over yet."""


class JobNotClaimable(Conflict):
    """The job is not there to be claimed: another worker has it, it is not due, or it is over."""


class StaleAttempt(Conflict):
    """The attempt is over: the job was given to another worker, or has ended."""


class DifferentClients(Unprocessable):
    """Prospect and value proposition belong to different clients."""


class QueueFull(TooManyRequests):
    """The client has as many jobs waiting as it may."""


# --- what users do


async def submit(
    database: Database,
    backlog: Backlog,
    *,
    principal: Principal,
    body: JobCreate,
    idempotency_key: str | None,
    policies: Policies,
) -> JobPublic:
    """A new pending job, its message on the way; with a known Idempotency-Key, the first answer.

    Raises ProspectNotFound, ValuePropositionNotFound, DifferentClients, ClientArchived, ProspectArchived,
    ValuePropositionArchived, QueueFull, and what `idempotency.once` raises.
    """
    values = submission(
        body,
        backlog,
        policy=policies.of(body.job_type),
        created_by=principal.subject,
        see=principal.client_id,
        idempotency_key=idempotency_key,
    )
    if idempotency_key is None:
        inserted = await batched(database, moves.SUBMIT, values)
        job = submitted(inserted, see=principal.client_id) or await get(database, values["id"], principal=principal)
    else:
        async with connected(database) as connection, connection.transaction():

            async def insert() -> JobPublic:
                return await submit_within(connection, values)

            job, is_new = await idempotency.once(
                connection,
                principal=principal,
                key=idempotency_key,
                request=body,
                make=insert,
                answer=JobPublic,
            )
        if not is_new:
            return job
    JOBS_CREATED.labels(job.job_type).inc()
    backlog.added(job.client_id)
    return job


def submission(
    body: JobCreate,
    backlog: Backlog,
    *,
    policy: JobPolicy,
    created_by: str,
    see: UUID | None,
    idempotency_key: str | None = None,
) -> dict[str, Any]:
    """What moves.SUBMIT takes. `see` is the one client whose things exist for the submitter; None for all."""
    return {
        "id": uuid7(),
        "job_type": body.job_type,
        "prospect_id": body.prospect_id,
        "value_proposition_id": body.value_proposition_id,
        "parameters": body.parameters.model_dump(mode="json", exclude_unset=True),
        "priority": body.priority,
        "time_limit_seconds": body.time_limit_seconds or int(policy.time_limit.total_seconds()),
        "max_attempts": policy.max_attempts,
        "created_by": created_by,
        "request_id": current_request_id() or "",
        "traceparent": current_traceparent(),
        "idempotency_key": idempotency_key,
        "see": see,
        "full_clients": backlog.full_clients,
    }


async def submit_within(connection: AsyncConnection[Any], values: Mapping[str, Any]) -> JobPublic:
    """Insert a job in the connection's transaction. Whoever commits tells the backlog. Raises what `submit` raises."""
    found = await fetch(connection, moves.SUBMIT, as_calls([values]))
    made = submitted(found[0] if found else None, see=values["see"])
    assert made is not None  # noqa: S101  in a transaction, nothing was inserted before
    return made


def submitted(target: Row | None, *, see: UUID | None) -> JobPublic | None:
    """The inserted job, or the reason why there is none; None without one: an earlier try had inserted it."""
    if target is None or see not in (None, target["target_client_id"]):
        raise ProspectNotFound
    owner = target["proposition_client_id"]
    if owner is None or see not in (None, owner):
        raise ValuePropositionNotFound
    if owner != target["target_client_id"]:
        raise DifferentClients("Choose a value proposition of the prospect's client.")
    if target["client_archived_at"]:
        raise ClientArchived
    if target["prospect_archived_at"]:
        raise ProspectArchived
    if target["proposition_archived_at"]:
        raise ValuePropositionArchived
    if target["client_full"]:
        raise QueueFull("Wait until some of the client's jobs are done.", retry_after=FULL_FOR)
    return None if target["id"] is None else _public(target)


def _public(job: Row) -> JobPublic:
    return JobPublic.model_validate({field: job[field] for field in JobPublic.model_fields})


async def get(database: Database, job_id: UUID, *, principal: Principal) -> JobPublic:
    """The job as it is now. Raises JobNotFound, for another client's job too."""
    job = await batched(database, moves.READ, {"id": job_id}, shared=True)
    if job is None or not principal.can_see(job["client_id"]):
        raise JobNotFound(f"There is no job {job_id}.")
    return _public(job)


async def cancel(database: Database, job_id: UUID, *, principal: Principal) -> JobPublic:
    """Cancelled at once when pending; when processing, its worker is told at its next report. Twice is once.

    Raises JobNotFound, JobAlreadyFinished.
    """
    if job := await batched(database, moves.CANCEL, {"id": job_id, "see": principal.client_id}):
        _count(job)
        return _public(job)
    known = await get(database, job_id, principal=principal)
    if known.cancel_requested_at is None:
        raise JobAlreadyFinished(f"The job is {known.status}.")
    return known


async def retry(
    database: Database, backlog: Backlog, job_id: UUID, *, principal: Principal, policies: Policies
) -> JobPublic:
    """Begin a failed or cancelled job anew: pending, with a new series of attempts. Twice is once, while it is alive.

    Raises JobNotFound, JobNotOver, JobAlreadyCompleted, QueueFull.
    """
    known = await get(database, job_id, principal=principal)
    values = _anew([known], backlog, see=principal.client_id, policies=policies)[0]
    if job := await batched(database, moves.RETRY_ANEW, values):
        backlog.added(job["client_id"])
        return _public(job)
    known = await get(database, job_id, principal=principal)
    if known.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise QueueFull("Wait until some of the client's jobs are done.", retry_after=FULL_FOR)
    if known.status is JobStatus.COMPLETED:
        raise JobAlreadyCompleted("Submit another job for another document.")
    if known.series == 1:
        raise JobNotOver(f"The job is {known.status}; only one that failed or was cancelled can be retried.")
    return known


def _anew(
    known: Sequence[JobPublic], backlog: Backlog, *, see: UUID | None, policies: Policies
) -> list[dict[str, Any]]:
    full = backlog.full_clients
    return [
        {"id": job.id, "see": see, "attempts": policies.of(job.job_type).max_attempts, "full_clients": full}
        for job in known
    ]


async def cancel_many(database: Database, job_ids: Sequence[UUID], *, principal: Principal) -> int:
    """Cancel those of the jobs that can be; at most moves.BATCH of them. Answers how many moved."""
    calls = as_calls([{"id": job_id, "see": principal.client_id} for job_id in sorted(job_ids)])
    moved = await rows(database, moves.CANCEL, calls)
    for job in moved:
        _count(job)
    return len(moved)


async def retry_many(
    database: Database, backlog: Backlog, known: Sequence[JobPublic], *, principal: Principal, policies: Policies
) -> int:
    """Begin those of the jobs anew that can be, and whose client may have more; at most moves.BATCH of them.

    Answers how many moved.
    """
    known = sorted(known, key=lambda job: job.id)
    values = _anew(known, backlog, see=principal.client_id, policies=policies)
    moved = await rows(database, moves.RETRY_ANEW, as_calls(values))
    for job in moved:
        backlog.added(job["client_id"])
    return len(moved)


# --- what workers do


async def claim(database: Database, backlog: Backlog, job_id: UUID, body: JobClaim, *, lease: timedelta) -> ClaimedJob:
    """Give a due pending job to one worker, for a new attempt. Raises JobNotClaimable."""
    values = {"id": job_id, "lease": lease.total_seconds(), **body.model_dump()}
    job = await batched(database, moves.CLAIM, values)
    if job is None:
        raise JobNotClaimable
    if job["is_new"]:
        backlog.claimed(job["client_id"])
        JOB_QUEUE_WAIT.observe(job["waited"])
    fields = {name: job[name] for name in ClaimedJob.model_fields if name in job}
    return ClaimedJob.model_validate(fields | {"job_id": job_id, "lease_seconds": lease.total_seconds()})


async def progress(database: Database, job_id: UUID, body: JobProgress, *, lease: timedelta) -> JobProgressAnswer:
    """Note how far an attempt is, and renew its lease. A job that was asked to cancel is cancelled by this report.

    Raises JobNotFound, StaleAttempt.
    """
    if await batched(database, moves.PROGRESS, {"id": job_id, "lease": lease.total_seconds(), **body.model_dump()}):
        return JobProgressAnswer(cancelled=False)
    if job := await batched(database, moves.STOP_IF_ASKED, {"id": job_id, "attempt": body.attempt, "outcome": None}):
        _count(job)
        return JobProgressAnswer(cancelled=True)
    state = await _state(database, job_id)
    if state["attempt"] != body.attempt or state["status"] != JobStatus.CANCELLED:
        raise StaleAttempt
    return JobProgressAnswer(cancelled=True)


async def finish(
    database: Database, backlog: Backlog, job_id: UUID, body: JobFinish, *, policies: Policies
) -> JobFinishAnswer:
    """End an attempt; the same finish again gets the same answer. A job that was asked to cancel ends cancelled.

    Raises JobNotFound, StaleAttempt.
    """
    values: dict[str, Any] = {"id": job_id, "attempt": body.attempt, "outcome": body.outcome}
    statements: tuple[str, ...]
    match body.outcome:
        case "completed":
            assert body.document is not None  # noqa: S101  JobFinish sees to it
            statements = (moves.COMPLETE, moves.STOP_IF_ASKED)
            values |= {"document_id": uuid7(), "content": body.document.model_dump(mode="json")}
        case "failed":
            assert body.error is not None  # noqa: S101  JobFinish sees to it
            policy = policies.of((await _state(database, job_id))["job_type"])
            may_pass = body.retryable and body.error.code not in policy.permanent
            statements = (*((moves.RETRY,) if may_pass else ()), moves.FAIL, moves.STOP_IF_ASKED)
            error = body.error.model_copy(update={"attempt": body.attempt})
            values |= {"error": error.model_dump(mode="json"), "delay": _delay(body.attempt, policy).total_seconds()}
        case "released":
            statements = (moves.RELEASE, moves.STOP_IF_ASKED)
            values |= {"delay": body.retry_after_seconds}
        case "cancelled":
            statements = (moves.STOP,)
        case _:
            assert_never(body.outcome)
    for statement in statements:
        if job := await batched(database, statement, values):
            _count(job)
            if job["status"] == JobStatus.PENDING:
                backlog.added(job["client_id"])
            backlog.freed(job["client_id"])
            return JobFinishAnswer(status=job["status"], document_id=job["document_id"])
    state = await _state(database, job_id)
    same = state["outcome"] == body.outcome or state["status"] == body.outcome == "cancelled"
    if state["attempt"] != body.attempt or not same:
        raise StaleAttempt
    return JobFinishAnswer(status=state["status"], document_id=state["document_id"])


async def _state(database: Database, job_id: UUID) -> Row:
    state = await row(database, moves.STATE, {"id": job_id})
    if state is None:
        raise JobNotFound(f"There is no job {job_id}.")
    return state


def _delay(attempt: int, policy: JobPolicy) -> timedelta:
    """Doubled with each attempt; half of it to one and a half by chance, so that retries spread."""
    doubled = min(policy.retry_delay * 2.0 ** min(max(attempt - 1, 0), 20), policy.longest_retry_delay)
    return doubled * random.uniform(0.5, 1.5)  # noqa: S311  no secret


def _count(job: Row) -> None:
    """Count a job that is over."""
    match JobStatus(job["status"]):
        case JobStatus.COMPLETED:
            JOBS_COMPLETED.inc()
        case JobStatus.FAILED:
            JOBS_FAILED.labels(job["error"]["code"]).inc()
        case JobStatus.CANCELLED:
            JOBS_CANCELLED.inc()
        case _:
            return
    if job["started_at"] is not None:
        JOB_DURATION.observe((job["finished_at"] - job["started_at"]).total_seconds())


# --- what the dispatcher does


class Admitted(NamedTuple):
    """A job whose message is to be sent: into a lane of the queue, 0 first."""

    lane: int
    message: RunJob


async def admit(database: Database, *, per_client: int) -> list[Admitted]:
    """Up to moves.BATCH jobs more that may be in flight, in the order to send them; from now on they count as sent."""
    async with connected(database) as connection:
        # one round trip, one transaction, which ends without another word from us: who is frozen then holds up nobody
        async with connection.pipeline():
            await connection.execute(moves.LOCK_ADMISSION.encode())
            admitted = await connection.execute(moves.ADMIT.encode(), {"limit": per_client})
        return _in_order(await admitted.fetchall())


async def sent(database: Database) -> int:
    """How many jobs' messages should be in the queue."""
    [answer] = await rows(database, moves.SENT, {})
    jobs: int = answer["jobs"]
    return jobs


async def due_again(database: Database, *, lost: bool) -> list[Admitted]:
    """Up to moves.BATCH jobs whose message nobody has taken for a while; from now on they count as sent again.

    `lost` says that the queue holds too few messages; without that, of those that wait there far fewer are repeated.
    """
    return _in_order(await rows(database, moves.RESEND, {"lost": lost}))


def _in_order(admitted: list[Row]) -> list[Admitted]:
    admitted.sort(key=lambda job: (LANES[job["priority"]], job["place"], job["id"]))
    return [
        Admitted(
            lane=LANES[job["priority"]] + (job["place"] > 1),
            message=RunJob(job_id=job["id"], request_id=job["request_id"], traceparent=job["traceparent"]),
        )
        for job in admitted
    ]


async def not_sent(database: Database, job_ids: Sequence[UUID]) -> None:
    """Their messages were not sent after all: they are due again."""
    async with connected(database) as connection:
        await connection.execute(moves.NOT_SENT.encode(), {"ids": list(job_ids)})


async def all_lost(database: Database) -> None:
    """The queue has lost every message: all are due again."""
    async with connected(database) as connection:
        await connection.execute(moves.ALL_LOST.encode())


# --- what sweeps do


async def now(database: Database) -> datetime:
    """Postgres' time."""
    [answer] = await rows(database, moves.NOW, {})
    moment: datetime = answer["now"]
    return moment


async def expire(database: Database, *, not_before: datetime) -> int:
    """End jobs over their time limit, and take jobs from workers that fell silent; the latter from `not_before` on, so
    that after a start they have a lease's time to report. Answers how many moved."""
    moved = 0
    for move in (moves.STOP_SILENT, moves.TIME_OUT, moves.WORKER_LOST, moves.LEASE_LOST):
        for job in await rows(database, move, {"not_before": not_before}):
            _count(job)
            moved += 1
    return moved


class Waiting(NamedTuple):
    """What waits: jobs that are due, the age of the oldest of them in seconds, and all pending ones by client."""

    due: int
    oldest: float
    by_client: dict[UUID, int]


async def waiting(database: Database) -> Waiting:
    """What waits now."""
    clients = await rows(database, moves.BACKLOG, {})
    return Waiting(
        due=sum(client["due"] for client in clients),
        oldest=max((client["oldest"] for client in clients), default=0.0),
        by_client={client["client_id"]: client["jobs"] for client in clients},
    )
