"""What submits the jobs of schedules when they are due, in a task of each process.

A due schedule is locked, its jobs are inserted and its next run is set in one transaction: who dies in the middle has
fired nothing, who comes second finds nothing due. Postgres' clock alone says what is due.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from loguru import logger
from psycopg import AsyncConnection, DataError, IntegrityError
from uuid_utils.compat import uuid7

from jobs_service import cron, jobs, moves, schedules
from jobs_service.backlog import Backlog
from jobs_service.schemas.jobs import JobPublic
from jobs_service.settings import Policies
from jobs_service.statements import LARGEST_BATCH, Row, as_calls, connected, fetch
from triton_common.db import Database, DatabaseUnavailable
from triton_common.errors import AppError
from triton_common.logging import log_context

BATCH: Final = 100  # schedules fired in one transaction
# and no further schedule once they have so many jobs: who changes one waits for its transaction
MOST_JOBS: Final = 1000
GRACE: Final = timedelta(minutes=1)  # a run that is younger was not missed, there was just more to fire before it
KEPT: Final = 100  # missed runs that are made up for

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
                schedules.submission(schedule, backlog, policies=policies, created_by=schedule["created_by"], run=run)
                for run in runs
            ]
    except schedules.VALID_NO_MORE as error:
        firing.next_run_at = None
        firing.fails("schedule_invalid", f"Switched off: {schedules.wrong(error)}")
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
        schedules.count(job, backlog)
        log.bind(job_id=str(job.id), request_id=job.request_id).info("schedule fired")
    if firing.error is not None:
        log.bind(code=firing.error["code"]).warning("schedule made no job")
