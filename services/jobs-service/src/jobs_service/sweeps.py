"""What is done each second, in every process: expire leases, send messages again, tell the metrics how many jobs wait.

Sweeps of several processes lock different rows, and only Postgres' clock is asked.
"""

import asyncio
from datetime import datetime, timedelta

from loguru import logger

from jobs_service import idempotency, jobs, moves
from jobs_service.dispatch import Dispatcher
from jobs_service.metrics import JOBS_PENDING, OLDEST_PENDING
from jobs_service.statements import check_version, connected
from triton_common.db import Database, DatabaseUnavailable


async def run(database: Database, dispatcher: Dispatcher, *, interval: timedelta, lease: timedelta) -> None:
    """Sweep until cancelled.

    No lease expires in the first lease after a start, nor after Postgres was away: workers could not report meanwhile,
    and get the time to do so before their jobs are given to others.
    """
    not_before: datetime | None = None
    while True:
        try:
            if not_before is None:
                await check_version(database)
                not_before = await jobs.now(database) + lease
            await sweep(database, dispatcher, not_before=not_before)
        except DatabaseUnavailable as error:
            not_before = None
            logger.bind(reason=error.message).warning("sweep failed: there is no database to work with")
        except Exception as error:  # noqa: BLE001  the next one may go better, and there must be one
            logger.opt(exception=error).error("sweep failed")
        await asyncio.sleep(interval.total_seconds())


async def sweep(database: Database, dispatcher: Dispatcher, *, not_before: datetime) -> None:
    """One turn."""
    while await jobs.expire(database, not_before=not_before) >= moves.BATCH:
        pass
    await send_due(database, dispatcher)
    waiting, oldest = await jobs.pending(database)
    JOBS_PENDING.set(waiting)
    OLDEST_PENDING.set(oldest)
    async with connected(database) as connection:
        await connection.execute(idempotency.PURGE.encode())


async def send_due(database: Database, dispatcher: Dispatcher) -> None:
    """Send the messages of all jobs that should have been claimed by now. Stops when the queue cannot be reached."""
    while messages := await jobs.take_due(database):
        if not await dispatcher.send(messages):
            await jobs.give_back(database, messages)
            return
