"""Schedules: jobs that are submitted again and again."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status
from sqlmodel import col

from jobs_service import schedules
from jobs_service.catalogue import (
    ClientArchived,
    ProspectArchived,
    ValuePropositionArchived,
    ValuePropositionNotFound,
)
from jobs_service.idempotency import IdempotencyKeyInUse, IdempotencyKeyReused, once_in_session
from jobs_service.jobs import DifferentClients, QueueFull
from jobs_service.models import Schedule
from jobs_service.routes.state import ERRORS, BacklogDep, IdempotencyKeyHeader, SettingsDep
from jobs_service.schedules import ScheduleInvalid, ScheduleNotFound, TooManySchedules
from jobs_service.schemas.jobs import JobPublic
from jobs_service.schemas.schedules import ScheduleCreate, ScheduleDetail, SchedulePublic, ScheduleQuery, ScheduleUpdate
from triton_common.auth import Principal, require
from triton_common.db import DatabaseDep, SessionDep, newest
from triton_common.errors import ProspectNotFound, problems
from triton_common.pages import InvalidCursor, once
from triton_common.schemas import Page

router = APIRouter(prefix="/api/v1/schedules", tags=["schedules"], responses=problems(*ERRORS))

Reader = Annotated[Principal, require("jobs:read")]
Writer = Annotated[Principal, require("jobs:write")]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=problems(
        ProspectNotFound,
        ValuePropositionNotFound,
        DifferentClients,
        ClientArchived,
        ProspectArchived,
        ValuePropositionArchived,
        TooManySchedules,
        IdempotencyKeyInUse,
        IdempotencyKeyReused,
    ),
)
async def create_schedule(
    *,
    body: ScheduleCreate,
    session: SessionDep,
    principal: Writer,
    response: Response,
    idempotency_key: IdempotencyKeyHeader = None,
) -> ScheduleDetail:
    """Have a document made again and again, at the times of a cron expression."""

    async def make() -> ScheduleDetail:
        return schedules.detail(await schedules.add(session, body, principal=principal))

    schedule = await once_in_session(
        session, principal=principal, key=idempotency_key, request=body, make=make, answer=ScheduleDetail
    )
    response.headers["Location"] = f"{router.prefix}/{schedule.id}"
    return schedule


@router.get("", dependencies=[once()], responses=problems(InvalidCursor))
async def list_schedules(
    wanted: Annotated[ScheduleQuery, Query()], session: SessionDep, principal: Reader
) -> Page[SchedulePublic]:
    """List the schedules that meet all conditions given, newest first."""
    owners = (wanted.client_id, principal.client_id)
    conditions = [col(Schedule.client_id) == owner for owner in owners if owner is not None]
    if wanted.prospect_id is not None:
        conditions.append(col(Schedule.prospect_id) == wanted.prospect_id)
    if wanted.enabled is not None:
        conditions.append(col(Schedule.enabled).is_(wanted.enabled))
    found, next_cursor = await newest(session, Schedule, *conditions, limit=wanted.limit, cursor=wanted.cursor)
    return Page(items=[SchedulePublic.model_validate(schedule) for schedule in found], next_cursor=next_cursor)


@router.get("/{schedule_id}", responses=problems(ScheduleNotFound))
async def read_schedule(schedule_id: UUID, session: SessionDep, principal: Reader) -> ScheduleDetail:
    """Read one schedule, and when it runs next."""
    return schedules.detail(await schedules.find(session, schedule_id, principal=principal))


@router.patch("/{schedule_id}", responses=problems(ScheduleNotFound, ScheduleInvalid))
async def update_schedule(
    schedule_id: UUID, body: ScheduleUpdate, session: SessionDep, principal: Writer
) -> ScheduleDetail:
    """Change a schedule; what is left out stays as it is. Jobs it has made before stay as they are."""
    schedule = await schedules.find(session, schedule_id, principal=principal, lock=True)
    fields = body.model_dump(mode="json", exclude_unset=True)
    return schedules.detail(await schedules.change(session, schedule, fields))


@router.delete("/{schedule_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(ScheduleNotFound))
async def delete_schedule(schedule_id: UUID, session: SessionDep, principal: Writer) -> None:
    """Delete a schedule. The jobs it has made stay, and are found by its id as before."""
    await session.delete(await schedules.find(session, schedule_id, principal=principal, lock=True))


@router.post(
    "/{schedule_id}/run",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(
        ScheduleNotFound,
        ScheduleInvalid,
        ClientArchived,
        ProspectArchived,
        ValuePropositionArchived,
        QueueFull,
        IdempotencyKeyInUse,
        IdempotencyKeyReused,
    ),
)
async def run_schedule(
    *,
    schedule_id: UUID,
    database: DatabaseDep,
    backlog: BacklogDep,
    settings: SettingsDep,
    principal: Writer,
    response: Response,
    idempotency_key: IdempotencyKeyHeader = None,
) -> JobPublic:
    """Submit a job of the schedule now, beside its plan; switched off or not."""
    job = await schedules.run(
        database,
        backlog,
        schedule_id,
        principal=principal,
        idempotency_key=idempotency_key,
        policies=settings.policies,
    )
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return job
