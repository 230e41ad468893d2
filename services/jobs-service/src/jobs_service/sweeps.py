"""What is done each second: give the jobs of dead workers to others, end those over their time, count what waits.

Sweeps of several processes lock different rows, and only Postgres' clock is asked.
"""

import asyncio
from datetime import UTC, datetime, timedelta

from loguru import logger

from jobs_service import idempotency, jobs, moves
from jobs_service.backlog import Backlog
from jobs_service.metrics import JOBS_PENDING, OLDEST_PENDING
from jobs_service.statements import check_version, connected
from triton_common.db import Database, DatabaseUnavailable


async def run(database: Database, backlog: Backlog, *, interval: timedelta, lease: timedelta) -> None:
    """Sweep until cancelled.

    No lease expires in the first lease after a start, nor after a pause in which workers could not report, because
    Postgres or this process was away or frozen: they get the time to do so before their jobs are given to others.
    """
    last: datetime | None = None
    not_before = datetime.max.replace(tzinfo=UTC)
    while True:
        try:
            now = await jobs.now(database)
            if last is None or now - last > interval + lease / 3:
                await check_version(database)
                not_before = now + lease
            last = now
            await sweep(database, backlog, not_before=not_before)
        except DatabaseUnavailable as error:
            logger.bind(reason=error.message).warning("sweep failed: there is no database to work with")
        except Exception as error:  # noqa: BLE001  the next one may go better, and there must be one
            logger.opt(exception=error).error("sweep failed")
        await asyncio.sleep(interval.total_seconds())


async def sweep(database: Database, backlog: Backlog, *, not_before: datetime) -> None:
    """One turn."""
    while (moved := await jobs.expire(database, not_before=not_before)) >= moves.BATCH:
        backlog.changed.set()
    if moved:
        backlog.changed.set()
    backlog.counting()
    waiting = await jobs.waiting(database)
    backlog.counted(waiting.by_client)
    JOBS_PENDING.set(waiting.due)
    OLDEST_PENDING.set(waiting.oldest)
    async with connected(database) as connection:
        await connection.execute(idempotency.PURGE.encode())
