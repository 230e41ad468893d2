"""Schedules: jobs that are submitted again and again. What submits them when they are due is in firing.py."""

from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import ValidationError
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from jobs_service import cron, idempotency, jobs
from jobs_service.backlog import Backlog
from jobs_service.catalogue import ClientArchived, ProspectArchived, ValuePropositionArchived
from jobs_service.catalogue import find as find_in_catalogue
from jobs_service.jobs import DifferentClients
from jobs_service.metrics import JOBS_CREATED
from jobs_service.models import Client, Prospect, Schedule, ValueProposition
from jobs_service.schemas.jobs import JobCreate, JobPublic
from jobs_service.schemas.schedules import NextRun, ScheduleCreate, ScheduleDetail, SchedulePublic, ScheduleRun
from jobs_service.settings import Policies
from jobs_service.statements import Row, connected, fetch
from triton_common.auth import Principal
from triton_common.db import Database
from triton_common.errors import AppError, Conflict, NotFound

MOST_PER_CLIENT: Final = 100
SHOWN: Final = 5  # next runs

_FIND: Final = "SELECT * FROM schedules WHERE id = %(id)s FOR NO KEY UPDATE"
_RUN: Final = "UPDATE schedules SET last_run_at = now(), last_job_id = %(job_id)s WHERE id = %(id)s"
VALID_NO_MORE: Final = (cron.InvalidCron, cron.InvalidTimezone, ValidationError)
"""Of a schedule that was valid once: its timezone was dropped, say, or its parameters are those of another release."""


class ScheduleNotFound(NotFound):
    """There is no such schedule."""


class TooManySchedules(Conflict):
    """The client has as many schedules as it may."""


class ScheduleInvalid(Conflict):
    """The schedule was valid once and is no more."""


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
        except VALID_NO_MORE as error:  # the one of the two that is not changed
            raise ScheduleInvalid(wrong(error)) from error
        schedule.last_error = None
    schedule.updated_at = func.now()  # type: ignore[assignment]  # the server's time, read back below
    await session.flush()
    await session.refresh(schedule)
    return schedule


def detail(schedule: Schedule) -> ScheduleDetail:
    """The schedule with its next runs; with none while it is switched off, or when it is valid no more."""
    next_runs: list[NextRun] = []
    if (first := schedule.next_run_at) is not None:
        with suppress(*VALID_NO_MORE):
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
                values = submission(found[0], backlog, policies=policies, created_by=principal.subject)
            except VALID_NO_MORE as error:
                raise ScheduleInvalid(wrong(error)) from error
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
        count(job, backlog)
    return job


def submission(
    schedule: Row, backlog: Backlog, *, policies: Policies, created_by: str, run: datetime | None = None
) -> dict[str, Any]:
    """What moves.SUBMIT takes, for one job of the schedule. Nothing but its own client's is there for it."""
    body = JobCreate.model_validate({name: schedule[name] for name in JobCreate.model_fields if name in schedule})
    values = jobs.submission(
        body, backlog, policy=policies.of(body.job_type), created_by=created_by, see=schedule["client_id"]
    )
    return values | {"schedule_id": schedule["id"], "scheduled_for": run}


def wrong(error: ValueError) -> str:
    """What is wrong, in a sentence: pydantic's own text has several lines, the value and a link."""
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in found)
    return str(error)


def count(job: JobPublic, backlog: Backlog) -> None:
    """A job of a schedule was made."""
    JOBS_CREATED.labels(job.job_type).inc()
    backlog.added(job.client_id)
