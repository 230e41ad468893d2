"""What workers call: claim, progress, finish; one by one, or as many as they have. Not routed by the gateway."""

import asyncio
from typing import Annotated, assert_never
from uuid import UUID

from fastapi import APIRouter, Depends
from opentelemetry.trace import use_span

from jobs_service import jobs
from jobs_service.catalogue import StaffOnly
from jobs_service.jobs import JobNotClaimable, JobNotFound, StaleAttempt
from jobs_service.routes.state import ERRORS, BacklogDep, SettingsDep
from triton_common.auth import Principal, require
from triton_common.db import DatabaseDep
from triton_common.errors import logged, problem, problems
from triton_common.hot import hot
from triton_common.logging import log_context
from triton_common.schemas import (
    ClaimCall,
    ClaimedJob,
    FinishCall,
    JobClaim,
    JobFinish,
    JobFinishAnswer,
    JobProgress,
    JobProgressAnswer,
    ProgressCall,
    WorkerAnswer,
    WorkerAnswers,
    WorkerCalls,
)
from triton_common.telemetry import span_below


async def bound_to_no_client(principal: Annotated[Principal, require("jobs:work")]) -> None:
    """A worker works for every client."""
    if not principal.is_staff:
        raise StaffOnly


router = APIRouter(
    prefix="/internal/v1/jobs",
    tags=["internal"],
    dependencies=[Depends(bound_to_no_client)],
    responses=problems(*ERRORS, StaffOnly),
)


@router.post("/{job_id}/claim", responses=problems(JobNotClaimable))
@hot
async def claim_job(
    job_id: UUID, body: JobClaim, database: DatabaseDep, backlog: BacklogDep, settings: SettingsDep
) -> ClaimedJob:
    """Take a job. 409: somebody else has it, or it is over: drop the message."""
    return await jobs.claim(database, backlog, job_id, body, lease=settings.lease)


@router.post("/{job_id}/progress", responses=problems(JobNotFound, StaleAttempt))
@hot
async def report_progress(
    job_id: UUID, body: JobProgress, database: DatabaseDep, settings: SettingsDep
) -> JobProgressAnswer:
    """Say how far an attempt is, and keep its lease; three times a lease at least. 409: stop, the job is not yours."""
    return await jobs.progress(database, job_id, body, lease=settings.lease)


@router.post("/{job_id}/finish", responses=problems(JobNotFound, StaleAttempt))
@hot
async def finish_job(
    job_id: UUID, body: JobFinish, database: DatabaseDep, backlog: BacklogDep, settings: SettingsDep
) -> JobFinishAnswer:
    """End an attempt. Repeat it until it is answered: the same finish gets the same answer."""
    return await jobs.finish(database, backlog, job_id, body, policies=settings.policies)


@router.post("/calls")
@hot
async def take_calls(
    body: WorkerCalls, database: DatabaseDep, backlog: BacklogDep, settings: SettingsDep
) -> WorkerAnswers:
    """Many of the above in one request, each with the answer its own route would give. 200 whatever they are."""

    async def answer(call: ClaimCall | ProgressCall | FinishCall) -> WorkerAnswer:
        span = span_below(call.call, traceparent=call.traceparent)
        with log_context(request_id=call.request_id), use_span(span, end_on_exit=True):
            try:
                match call:
                    case ClaimCall():
                        said: ClaimedJob | JobProgressAnswer | JobFinishAnswer = await jobs.claim(
                            database, backlog, call.job_id, call.body, lease=settings.lease
                        )
                    case ProgressCall():
                        said = await jobs.progress(database, call.job_id, call.body, lease=settings.lease)
                    case FinishCall():
                        said = await jobs.finish(database, backlog, call.job_id, call.body, policies=settings.policies)
                    case _:
                        assert_never(call)
            except Exception as error:  # noqa: BLE001  the others' calls go on
                told = logged(error)
                return WorkerAnswer(status=told.status, problem=problem(told))
            return WorkerAnswer(status=200, body=said)

    return WorkerAnswers(answers=await asyncio.gather(*map(answer, body.calls)))
