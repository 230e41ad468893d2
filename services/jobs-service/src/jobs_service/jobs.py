"""Generation jobs: what users, workers and sweeps do with them. The only caller of the moves, so the only writer of a
job's status."""

import random
from datetime import datetime, timedelta
from typing import Any, Final, assert_never
from uuid import UUID

from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from jobs_service import idempotency, moves
from jobs_service.catalogue import (
    ClientArchived,
    ProspectArchived,
    ValuePropositionArchived,
    ValuePropositionNotFound,
)
from jobs_service.dispatch import Dispatcher
from jobs_service.metrics import (
    JOB_DURATION,
    JOB_QUEUE_WAIT,
    JOBS_CANCELLED,
    JOBS_COMPLETED,
    JOBS_CREATED,
    JOBS_FAILED,
)
from jobs_service.schemas import JobCreate, JobPublic
from jobs_service.statements import Row, connected, fetch, row, rows
from triton_common.auth import Principal
from triton_common.db import Database
from triton_common.errors import Conflict, NotFound, ProspectNotFound, Unprocessable
from triton_common.logging import current_request_id
from triton_common.messages import RunJob
from triton_common.schemas import (
    ClaimedJob,
    JobClaim,
    JobFinish,
    JobFinishAnswer,
    JobProgress,
    JobProgressAnswer,
    JobStatus,
)
from triton_common.telemetry import current_traceparent

FINAL: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
LONGEST_RETRY_DELAY: Final = timedelta(minutes=5)


class JobNotFound(NotFound):
    """There is no such job."""


class JobAlreadyFinished(Conflict):
    """The job is already over."""


class JobNotClaimable(Conflict):
    """The job is not there to be claimed: another worker has it, it is not due, or it is over."""


class StaleAttempt(Conflict):
    """The attempt is over: the job was given to another worker, or has ended."""


class DifferentClients(Unprocessable):
    """Prospect and value proposition belong to different clients."""


# --- what users do


async def submit(
    database: Database,
    dispatcher: Dispatcher,
    *,
    principal: Principal,
    body: JobCreate,
    idempotency_key: str | None,
    max_attempts: int,
) -> JobPublic:
    """A new pending job, its message on the way; with a known Idempotency-Key, the first answer.

    Raises ProspectNotFound, ValuePropositionNotFound, DifferentClients, ClientArchived, ProspectArchived,
    ValuePropositionArchived, and what `idempotency.once` raises.
    """
    job_id = uuid7()
    values = {
        "id": job_id,
        "job_type": body.job_type,
        "prospect_id": body.prospect_id,
        "value_proposition_id": body.value_proposition_id,
        "parameters": Jsonb(body.parameters.model_dump(mode="json", exclude_unset=True)),
        "max_attempts": max_attempts,
        "created_by": principal.subject,
        "request_id": current_request_id() or "",
        "traceparent": current_traceparent(),
        "idempotency_key": idempotency_key,
        "see": principal.client_id,
    }
    if idempotency_key is None:
        inserted = await row(database, moves.SUBMIT, values)
        job = _submitted(inserted, principal) or await get(database, job_id, principal=principal)
    else:
        async with connected(database) as connection, connection.transaction():

            async def insert() -> JobPublic:
                found = await fetch(connection, moves.SUBMIT, values)
                made = _submitted(found[0] if found else None, principal)
                assert made is not None  # noqa: S101  in a transaction, nothing was inserted before
                return made

            job, is_new = await idempotency.once(
                connection,
                caller=principal.subject,
                key=idempotency_key,
                request=body,
                make=insert,
                answer=JobPublic,
            )
        if not is_new:
            return job
    JOBS_CREATED.labels(job.job_type).inc()
    dispatcher.push(RunJob(job_id=job.id, request_id=job.request_id, traceparent=values["traceparent"]))
    return job


def _submitted(target: Row | None, principal: Principal) -> JobPublic | None:
    """The inserted job, or the reason why there is none; None without one: an earlier try had inserted it."""
    if target is None or not principal.can_see(target["target_client_id"]):
        raise ProspectNotFound
    owner = target["proposition_client_id"]
    if owner is None or not principal.can_see(owner):
        raise ValuePropositionNotFound
    if owner != target["target_client_id"]:
        raise DifferentClients("Choose a value proposition of the prospect's client.")
    if target["client_archived_at"]:
        raise ClientArchived
    if target["prospect_archived_at"]:
        raise ProspectArchived
    if target["proposition_archived_at"]:
        raise ValuePropositionArchived
    return None if target["id"] is None else _public(target)


def _public(job: Row) -> JobPublic:
    return JobPublic.model_validate({field: job[field] for field in JobPublic.model_fields})


async def get(database: Database, job_id: UUID, *, principal: Principal) -> JobPublic:
    """The job as it is now. Raises JobNotFound, for another client's job too."""
    job = await row(database, moves.READ, {"id": job_id})
    if job is None or not principal.can_see(job["client_id"]):
        raise JobNotFound(f"There is no job {job_id}.")
    return _public(job)


async def cancel(database: Database, job_id: UUID, *, principal: Principal) -> JobPublic:
    """Cancelled at once when pending; when processing, its worker is told at its next report. Twice is once.

    Raises JobNotFound, JobAlreadyFinished.
    """
    await get(database, job_id, principal=principal)
    if job := await row(database, moves.CANCEL, {"id": job_id}):
        _count(job)
        return _public(job)
    known = await get(database, job_id, principal=principal)
    if known.cancel_requested_at is None:
        raise JobAlreadyFinished(f"The job is {known.status}.")
    return known


# --- what workers do


async def claim(database: Database, job_id: UUID, body: JobClaim, *, lease: timedelta) -> ClaimedJob:
    """Give a due pending job to one worker, for a new attempt. Raises JobNotClaimable."""
    job = await row(
        database, moves.CLAIM, {"id": job_id, "worker": body.worker, "task_id": body.task_id, "lease": lease}
    )
    if job is None:
        raise JobNotClaimable
    JOB_QUEUE_WAIT.observe(job["waited"])
    fields = {name: job[name] for name in ClaimedJob.model_fields if name in job}
    return ClaimedJob.model_validate(fields | {"job_id": job_id, "lease_seconds": lease.total_seconds()})


async def progress(database: Database, job_id: UUID, body: JobProgress, *, lease: timedelta) -> JobProgressAnswer:
    """Note how far an attempt is, and renew its lease. A job that was asked to cancel is cancelled by this report.

    Raises JobNotFound, StaleAttempt.
    """
    fence: dict[str, Any] = {"id": job_id, "attempt": body.attempt}
    report = fence | {"progress": body.progress, "stage": body.stage, "message": body.message, "lease": lease}
    if await row(database, moves.PROGRESS, report):
        return JobProgressAnswer(cancelled=False)
    if job := await row(database, moves.STOP_IF_ASKED, fence | {"outcome": None}):
        _count(job)
        return JobProgressAnswer(cancelled=True)
    state = await _state(database, job_id)
    if state["attempt"] != body.attempt or state["status"] != JobStatus.CANCELLED:
        raise StaleAttempt
    return JobProgressAnswer(cancelled=True)


async def finish(
    database: Database, dispatcher: Dispatcher, job_id: UUID, body: JobFinish, *, retry_delay: timedelta
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
            values |= {"document_id": uuid7(), "content": Jsonb(body.document.model_dump(mode="json"))}
        case "failed":
            assert body.error is not None  # noqa: S101  JobFinish sees to it
            statements = (
                (moves.RETRY, moves.FAIL, moves.STOP_IF_ASKED) if body.retryable else (moves.FAIL, moves.STOP_IF_ASKED)
            )
            error = body.error.model_copy(update={"attempt": body.attempt})
            values |= {"error": Jsonb(error.model_dump(mode="json")), "delay": _delay(body.attempt, retry_delay)}
        case "released":
            statements = (moves.RELEASE, moves.STOP_IF_ASKED)
        case "cancelled":
            statements = (moves.STOP,)
        case _:
            assert_never(body.outcome)
    for statement in statements:
        if job := await row(database, statement, values):
            _count(job)
            if body.outcome == "released" and job["status"] == JobStatus.PENDING:
                dispatcher.push(_message(job))
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


def _delay(attempt: int, base: timedelta) -> timedelta:
    """Doubled with each attempt up to five minutes; half of it to one and a half by chance, so that retries spread."""
    doubled = min(base * 2.0 ** min(max(attempt - 1, 0), 20), LONGEST_RETRY_DELAY)
    return doubled * random.uniform(0.5, 1.5)  # noqa: S311  no secret


def _message(job: Row) -> RunJob:
    return RunJob(job_id=job["id"], request_id=job["request_id"], traceparent=job["traceparent"])


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


# --- what sweeps do


async def now(database: Database) -> datetime:
    """Postgres' time."""
    [answer] = await rows(database, moves.NOW, {})
    moment: datetime = answer["now"]
    return moment


async def take_due(database: Database) -> list[RunJob]:
    """Up to 500 messages of jobs that are pending, due, and not sent lately; from now on they count as sent."""
    return [_message(job) for job in await rows(database, moves.TAKE_DUE, {})]


async def give_back(database: Database, messages: list[RunJob]) -> None:
    """They were not sent after all."""
    async with connected(database) as connection:
        await connection.execute(moves.GIVE_BACK.encode(), {"ids": [message.job_id for message in messages]})


async def expire(database: Database, *, not_before: datetime) -> int:
    """Take jobs from workers that fell silent; from `not_before` on, so that after a start they have a lease's time to
    report. Jobs asked to cancel end, however long we have been up. Answers how many moved."""
    moved = 0
    for move in (moves.STOP_SILENT, moves.WORKER_LOST, moves.LEASE_LOST):
        for job in await rows(database, move, {"not_before": not_before}):
            _count(job)
            moved += 1
    return moved


async def pending(database: Database) -> tuple[int, float]:
    """(how many jobs are due, for how many seconds the oldest of them has been)."""
    [answer] = await rows(database, moves.PENDING, {})
    return answer["jobs"], answer["oldest"]
