"""Schedules: jobs that are submitted again and again, and the sweep that submits them.

A due schedule is locked, its jobs are inserted and its next run is set in one transaction: who dies in the middle has
fired nothing, who comes second finds nothing due. Postgres' clock alone says what is due.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from loguru import logger
from pydantic import ValidationError
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from jobs_service import cron, idempotency, jobs, moves
from jobs_service.backlog import Backlog
from jobs_service.catalogue import ClientArchived, ProspectArchived, ValuePropositionArchived
from jobs_service.catalogue import find as find_in_catalogue
from jobs_service.jobs import DifferentClients
from jobs_service.metrics import JOBS_CREATED
from jobs_service.models import Client, Prospect, Schedule, ValueProposition
from jobs_service.schemas import (
    JobCreate,
    JobPublic,
    NextRun,
    ScheduleCreate,
    ScheduleDetail,
    SchedulePublic,
    ScheduleRun,
)
from jobs_service.settings import Policies
from jobs_service.statements import Row, as_calls, connected, fetch
from triton_common.auth import Principal
from triton_common.db import Database
from triton_common.errors import AppError, Conflict, NotFound
from triton_common.logging import log_context

BATCH: Final = 100  # schedules fired in one transaction
BATCHES: Final = 10  # a sweep: the others of its works wait no longer than for a thousand jobs
GRACE: Final = timedelta(minutes=1)  # a run that is younger was not missed, just fired by a sweep that had more to do
KEPT: Final = 100  # missed runs that are made up for
MOST_PER_CLIENT: Final = 100
SHOWN: Final = 5  # next runs

_LAST_JOB_ALIVE: Final = """EXISTS (
  SELECT FROM generation_jobs AS job WHERE job.id = schedule.last_job_id AND job.status IN ('pending', 'processing'))"""
_DUE: Final = f"""
SELECT schedule.*, now() AS now, {_LAST_JOB_ALIVE} AS last_job_alive FROM schedules AS schedule
WHERE next_run_at <= now() ORDER BY next_run_at LIMIT {BATCH} FOR NO KEY UPDATE SKIP LOCKED"""  # noqa: S608  constants
_FIRED: Final = """
UPDATE schedules AS schedule SET next_run_at = call.next_run_at, enabled = call.next_run_at IS NOT NULL,
  last_run_at = CASE WHEN call.last_job_id IS NULL THEN schedule.last_run_at ELSE now() END,
  last_job_id = coalesce(call.last_job_id, schedule.last_job_id), last_error = call.last_error
FROM jsonb_to_recordset(%(calls)s::jsonb) AS call (id uuid, next_run_at timestamptz, last_job_id uuid, last_error jsonb)
WHERE schedule.id = call.id"""
_FIND: Final = "SELECT * FROM schedules WHERE id = %(id)s FOR NO KEY UPDATE"
_RUN: Final = "UPDATE schedules SET last_run_at = now(), last_job_id = %(job_id)s WHERE id = %(id)s"


class ScheduleNotFound(NotFound):
    """There is no such schedule."""


class TooManySchedules(Conflict):
    """The client has as many schedules as it may."""


# --- what users do


async def add(session: AsyncSession, body: ScheduleCreate, *, principal: Principal) -> Schedule:
    """A new schedule.

    Raises ProspectNotFound, ValuePropositionNotFound, DifferentClients, ClientArchived, ProspectArchived,
    ValuePropositionArchived, TooManySchedules.
    """
    prospect = await find_in_catalogue(session, Prospect, body.prospect_id, principal=principal)
    proposition = await find_in_catalogue(session, ValueProposition, body.value_proposition_id, principal=principal)
    if proposition.client_id != prospect.client_id:
        raise DifferentClients("Choose a value proposition of the prospect's client.")
    # locked, so that two who come at once count one after the other
    client = await session.get_one(Client, prospect.client_id, with_for_update={"key_share": True})
    archived: AppError
    for record, archived in (
        (client, ClientArchived()),
        (prospect, ProspectArchived()),
        (proposition, ValuePropositionArchived()),
    ):
        if record.archived_at is not None:
            raise archived
    of_client = select(func.count()).select_from(Schedule).where(col(Schedule.client_id) == client.id)
    if (await session.exec(of_client)).one() >= MOST_PER_CLIENT:
        raise TooManySchedules(f"A client has at most {MOST_PER_CLIENT} schedules: delete one.")
    schedule = Schedule(
        **body.model_dump(exclude={"parameters"}),
        parameters=body.parameters.model_dump(mode="json", exclude_unset=True),
        client_id=client.id,
        created_by=principal.subject,
        next_run_at=cron.following(body.cron, body.timezone, after=await _now(session)) if body.enabled else None,
    )
    session.add(schedule)
    await session.flush()
    await session.refresh(schedule)
    return schedule


async def _now(session: AsyncSession) -> datetime:
    now: datetime = (await session.exec(select(func.now()))).one()
    return now


async def find(session: AsyncSession, schedule_id: UUID, *, principal: Principal, lock: bool = False) -> Schedule:
    """The schedule; locked, it is not fired meanwhile. Raises ScheduleNotFound, for another client's too."""
    schedule = await session.get(Schedule, schedule_id, with_for_update={"key_share": True} if lock else None)
    if schedule is None or not principal.can_see(schedule.client_id):
        raise ScheduleNotFound(f"There is no schedule {schedule_id}.")
    return schedule


async def change(session: AsyncSession, schedule: Schedule, fields: dict[str, Any]) -> Schedule:
    """Put new values into fields of a locked schedule. When its plan changes or it is switched on, its next run is the
    first from now: what it missed before is no longer missed."""
    now = await _now(session)
    replanned = "cron" in fields or "timezone" in fields or not schedule.enabled
    for name, value in fields.items():
        setattr(schedule, name, value)
    if not schedule.enabled:
        schedule.next_run_at = None
    elif replanned:
        schedule.next_run_at = cron.following(schedule.cron, schedule.timezone, after=now)
        schedule.last_error = None
    schedule.updated_at = func.now()  # type: ignore[assignment]  # the server's time, read back below
    await session.flush()
    await session.refresh(schedule)
    return schedule


def detail(schedule: Schedule) -> ScheduleDetail:
    """The schedule with its next runs; with none while it is switched off."""
    next_runs: list[NextRun] = []
    if (first := schedule.next_run_at) is not None:
        zone = ZoneInfo(schedule.timezone)
        coming = [first, *islice(cron.runs(schedule.cron, schedule.timezone, after=first), SHOWN - 1)]
        next_runs = [NextRun(at=run, local=run.astimezone(zone)) for run in coming]
    return ScheduleDetail(**SchedulePublic.model_validate(schedule).model_dump(), next_runs=next_runs)


async def run(
    database: Database,
    backlog: Backlog,
    schedule_id: UUID,
    *,
    principal: Principal,
    idempotency_key: str | None,
    policies: Policies,
) -> JobPublic:
    """A job of the schedule now, beside its plan; with a known Idempotency-Key, the first answer.

    Raises ScheduleNotFound, ClientArchived, ProspectArchived, ValuePropositionArchived, QueueFull, and what
    `idempotency.once` raises.
    """
    async with connected(database) as connection, connection.transaction():

        async def insert() -> JobPublic:
            found = await fetch(connection, _FIND, {"id": schedule_id})
            if not found or not principal.can_see(found[0]["client_id"]):
                raise ScheduleNotFound(f"There is no schedule {schedule_id}.")
            values = _submission(found[0], backlog, policies=policies, created_by=principal.subject)
            made = await jobs.submit_within(connection, values)
            await connection.execute(_RUN.encode(), {"id": schedule_id, "job_id": made.id})
            return made

        if idempotency_key is None:
            job, is_new = await insert(), True
        else:
            job, is_new = await idempotency.once(
                connection,
                caller=principal.subject,
                key=idempotency_key,
                request=ScheduleRun(schedule_id=schedule_id),
                make=insert,
                answer=JobPublic,
            )
    if is_new:
        _count(job, backlog)
    return job


def _submission(
    schedule: Row, backlog: Backlog, *, policies: Policies, created_by: str, run: datetime | None = None
) -> dict[str, Any]:
    """What moves.SUBMIT takes, for one job of the schedule. Nothing but its own client's is there for it."""
    body = JobCreate.model_validate({name: schedule[name] for name in JobCreate.model_fields if name in schedule})
    values = jobs.submission(
        body, backlog, policy=policies.of(body.job_type), created_by=created_by, see=schedule["client_id"]
    )
    return values | {"schedule_id": schedule["id"], "scheduled_for": run}


def _count(job: JobPublic, backlog: Backlog) -> None:
    JOBS_CREATED.labels(job.job_type).inc()
    backlog.added(job.client_id)


# --- what sweeps do


@dataclass
class _Firing:
    """What comes of one due schedule."""

    schedule: Row
    next_run_at: datetime | None = None
    submissions: list[dict[str, Any]] = field(default_factory=list)
    made: list[JobPublic] = field(default_factory=list)
    error: dict[str, Any] | None = None

    def fails(self, code: str, message: str) -> None:
        """Say on the schedule why a run made no job."""
        self.error = {"code": code, "message": message, "at": self.schedule["now"].isoformat()}


async def fire(database: Database, backlog: Backlog, *, policies: Policies) -> None:
    """Submit the jobs of all schedules that are due; of a thousand at most, the others are next."""
    for _ in range(BATCHES):
        if await fire_batch(database, backlog, policies=policies) < BATCH:
            return


async def fire_batch(database: Database, backlog: Backlog, *, policies: Policies) -> int:
    """Fire some due schedules in one transaction. Answers how many; those another sweep has locked are left to it."""
    async with connected(database) as connection, connection.transaction():
        firings = [_plan(schedule, backlog, policies=policies) for schedule in await fetch(connection, _DUE, {})]
        if not firings:
            return 0
        asked = [(firing, values) for firing in firings for values in firing.submissions]
        answers = await fetch(connection, moves.SUBMIT, as_calls([values for _, values in asked])) if asked else []
        _note(asked, answers)
        await connection.execute(_FIRED.encode(), as_calls([_outcome(firing) for firing in firings]))
    for firing in firings:
        _tell(firing, backlog)
    return len(firings)


def _plan(schedule: Row, backlog: Backlog, *, policies: Policies) -> _Firing:
    """The runs that are due, as the schedule's policies have it, and the next one."""
    firing = _Firing(schedule)
    expression, timezone = schedule["cron"], schedule["timezone"]
    first, now, policy = schedule["next_run_at"], schedule["now"], schedule["missed_runs"]
    one_by_one = schedule["overlap"] == "skip"
    try:
        limit = KEPT if policy == "all" and not one_by_one else 1
        runs, firing.next_run_at = cron.due(expression, timezone, first=first, until=now, limit=limit)
        if policy == "skip":
            runs = [run for run in runs if run >= now - GRACE]
        if policy != "one" and first not in runs:
            until = runs[0] if runs else firing.next_run_at
            firing.fails(
                "runs_missed", f"No job was made for the runs from {first.isoformat()} to before {until.isoformat()}."
            )
        if one_by_one and schedule["last_job_alive"]:
            firing.fails("last_job_alive", "No job was made: the last one is not over.")
            runs = []
        with log_context(request_id=str(uuid7())):  # one request, as it were, for all that a firing makes
            firing.submissions = [
                _submission(schedule, backlog, policies=policies, created_by=schedule["created_by"], run=run)
                for run in runs
            ]
    except (cron.InvalidCron, cron.InvalidTimezone, ValidationError) as error:
        # what was valid once: a timezone that is no more, parameters of another release
        firing.next_run_at = None
        firing.fails("schedule_invalid", f"Switched off: {error}")
    return firing


def _note(asked: Sequence[tuple[_Firing, dict[str, Any]]], answers: Sequence[Row]) -> None:
    """Note the jobs that were made, and why others were not."""
    by_call = {answer["n"]: answer for answer in answers}
    for n, (firing, values) in enumerate(asked):
        try:
            job = jobs.submitted(by_call.get(n), see=values["see"])
        except AppError as error:
            firing.fails(error.code, f"No job was made for {values['scheduled_for'].isoformat()}: {error.message}")
        else:
            if job is not None:  # else the run has its job since before Postgres' clock was set back
                firing.made.append(job)


def _outcome(firing: _Firing) -> dict[str, Any]:
    return {
        "id": firing.schedule["id"],
        "next_run_at": firing.next_run_at,
        "last_job_id": firing.made[-1].id if firing.made else None,
        "last_error": firing.error,
    }


def _tell(firing: _Firing, backlog: Backlog) -> None:
    """Once it is committed: count the jobs, wake the dispatcher, leave a line in the log."""
    log = logger.bind(schedule_id=str(firing.schedule["id"]), client_id=str(firing.schedule["client_id"]))
    for job in firing.made:
        _count(job, backlog)
        log.bind(job_id=str(job.id), request_id=job.request_id).info("schedule fired")
    if firing.error is not None:
        log.bind(code=firing.error["code"]).warning("schedule made no job")
