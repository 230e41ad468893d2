"""Schedules: jobs that are submitted again and again, and what submits them when they are due.

A due schedule is locked, its jobs are inserted and its next run is set in one transaction: who dies in the middle has
fired nothing, who comes second finds nothing due. Postgres' clock alone says what is due.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from loguru import logger
from psycopg import AsyncConnection, DataError, IntegrityError
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
from jobs_service.schemas.jobs import JobCreate, JobPublic
from jobs_service.schemas.schedules import NextRun, ScheduleCreate, ScheduleDetail, SchedulePublic, ScheduleRun
from jobs_service.settings import Policies
from jobs_service.statements import LARGEST_BATCH, Row, as_calls, connected, fetch
from triton_common.auth import Principal
from triton_common.db import Database, DatabaseUnavailable
from triton_common.errors import AppError, Conflict, NotFound
from triton_common.logging import log_context

BATCH: Final = 100  # schedules fired in one transaction
MOST_JOBS: Final = (
    1000  # and no further schedule once they have so many jobs: who changes one waits for its transaction
)
GRACE: Final = timedelta(minutes=1)  # a run that is younger was not missed, there was just more to fire before it
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
_VALID_NO_MORE: Final = (cron.InvalidCron, cron.InvalidTimezone, ValidationError)
"""Of a schedule that was valid once: its timezone was dropped, say, or its parameters are those of another release."""


class ScheduleNotFound(NotFound):
    """There is no such schedule."""


class TooManySchedules(Conflict):
    """The client has as many schedules as it may."""


class ScheduleInvalid(Conflict):
    """The schedule was valid once and is no more."""


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
    first from now: what it missed before is no longer missed. Raises ScheduleInvalid."""
    now = await _now(session)
    replanned = "cron" in fields or "timezone" in fields or not schedule.enabled
    for name, value in fields.items():
        setattr(schedule, name, value)
    if not schedule.enabled:
        schedule.next_run_at = None
    elif replanned:
        try:
            schedule.next_run_at = cron.following(schedule.cron, schedule.timezone, after=now)
        except _VALID_NO_MORE as error:  # the one of the two that is not changed
            raise ScheduleInvalid(_wrong(error)) from error
        schedule.last_error = None
    schedule.updated_at = func.now()  # type: ignore[assignment]  # the server's time, read back below
    await session.flush()
    await session.refresh(schedule)
    return schedule


def detail(schedule: Schedule) -> ScheduleDetail:
    """The schedule with its next runs; with none while it is switched off, or when it is valid no more."""
    next_runs: list[NextRun] = []
    if (first := schedule.next_run_at) is not None:
        with suppress(*_VALID_NO_MORE):
            coming = [first, *islice(cron.runs(schedule.cron, schedule.timezone, after=first), SHOWN - 1)]
            next_runs = [NextRun(at=run, local=run.astimezone(ZoneInfo(schedule.timezone))) for run in coming]
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

    Raises ScheduleNotFound, ScheduleInvalid, ClientArchived, ProspectArchived, ValuePropositionArchived, QueueFull, and
    what `idempotency.once` raises.
    """
    async with connected(database) as connection, connection.transaction():

        async def insert() -> JobPublic:
            found = await fetch(connection, _FIND, {"id": schedule_id})
            if not found or not principal.can_see(found[0]["client_id"]):
                raise ScheduleNotFound(f"There is no schedule {schedule_id}.")
            try:
                values = _submission(found[0], backlog, policies=policies, created_by=principal.subject)
            except _VALID_NO_MORE as error:
                raise ScheduleInvalid(_wrong(error)) from error
            made = await jobs.submit_within(connection, values)
            await connection.execute(_RUN.encode(), {"id": schedule_id, "job_id": made.id})
            return made

        if idempotency_key is None:
            job, is_new = await insert(), True
        else:
            job, is_new = await idempotency.once(
                connection,
                principal=principal,
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


def _wrong(error: ValueError) -> str:
    """What is wrong, in a sentence: pydantic's own text has several lines, the value and a link."""
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in found)
    return str(error)


def _count(job: JobPublic, backlog: Backlog) -> None:
    JOBS_CREATED.labels(job.job_type).inc()
    backlog.added(job.client_id)


# --- what is done each second


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

    def breaks(self, error: Exception) -> None:
        """The same of what nobody foresaw."""
        logger.bind(schedule_id=str(self.schedule["id"])).opt(exception=error).error("schedule failed")
        self.fails("internal_error", "No job was made: something unexpected happened, and is in the log.")


_Asked = tuple[_Firing, dict[str, Any]]
"""A job to submit, and whose."""


async def keep_firing(database: Database, backlog: Backlog, *, interval: timedelta, policies: Policies) -> None:
    """Fire what is due until cancelled: a task beside the sweeps, so that no lease and no time limit waits for it."""
    while True:
        try:
            await fire(database, backlog, policies=policies)
        except DatabaseUnavailable as error:
            logger.bind(reason=error.message).warning("no schedule fires: there is no database to work with")
        except Exception as error:  # noqa: BLE001  the next turn may go better, and there must be one
            logger.opt(exception=error).error("firing schedules failed")
        await asyncio.sleep(interval.total_seconds())


async def fire(database: Database, backlog: Backlog, *, policies: Policies) -> None:
    """Submit the jobs of all schedules that are due."""
    while await fire_batch(database, backlog, policies=policies):
        pass


async def fire_batch(database: Database, backlog: Backlog, *, policies: Policies) -> int:
    """Fire some due schedules, those that wait longest, in one transaction. Answers how many.

    Those another process has locked are left to it; those that are too much for this transaction stay due.
    """
    firings: list[_Firing] = []
    asked: list[_Asked] = []
    async with connected(database) as connection, connection.transaction():
        for schedule in await fetch(connection, _DUE, {}):
            firing = _plan(schedule, backlog, policies=policies)
            firings.append(firing)
            asked += [(firing, values) for values in firing.submissions]
            if len(asked) >= MOST_JOBS:
                break
        if not firings:
            return 0
        for start in range(0, len(asked), LARGEST_BATCH):
            await _submit(connection, asked[start : start + LARGEST_BATCH])
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
    except _VALID_NO_MORE as error:
        firing.next_run_at = None
        firing.fails("schedule_invalid", f"Switched off: {_wrong(error)}")
    except Exception as error:  # noqa: BLE001  the others must fire; without a next run this one is switched off
        firing.breaks(error)
    return firing


async def _submit(connection: AsyncConnection[Row], asked: Sequence[_Asked]) -> None:
    """Insert jobs, and note what came of each. What Postgres refuses for one of them alone holds up no other."""
    try:
        async with connection.transaction():  # a savepoint
            answers = await fetch(connection, moves.SUBMIT, as_calls([values for _, values in asked]))
    except (DataError, IntegrityError) as error:
        if len(asked) == 1:
            asked[0][0].breaks(error)
            return
        for one in asked:
            await _submit(connection, [one])
    else:
        _note(asked, answers)


def _note(asked: Sequence[_Asked], answers: Sequence[Row]) -> None:
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
