"""What the API does by itself: ends runs whose worker is lost, deletes those kept long enough, and counts messages."""

import asyncio
from datetime import timedelta
from typing import Final

from loguru import logger
from prometheus_client import Gauge

from triton_common.db import Database, DatabaseUnavailable, translated_errors
from triton_common.messages import RunJob
from triton_common.queue.base import QueueUnavailable, TaskQueue

INTERVAL: Final = 60.0  # seconds
COUNTING: Final = 5.0
QUEUE_LENGTH: Final = Gauge(
    "celery_queue_length",
    "Messages that wait in a queue for a worker; -1 when the queue cannot be asked",
    ["queue"],
    multiprocess_mode="livemostrecent",
)
_LOST: Final = """
    UPDATE agent_runs SET status = 'lost', updated_at = clock_timestamp() WHERE status = 'running' AND ends_by < now()
"""
# a part at a time: a table that was never swept must not be locked for minutes
_OLD: Final = """
    DELETE FROM agent_runs WHERE id IN (
        SELECT id FROM agent_runs WHERE created_at < now() - %(kept)s ORDER BY id LIMIT 5000
    )
"""


async def sweep(database: Database, *, kept: timedelta) -> None:
    """Once. Any number of processes may at the same time. Raises DatabaseUnavailable."""
    async with translated_errors(), database.pool.connection() as connection:
        await connection.execute(_LOST)
        await connection.execute(_OLD, {"kept": kept})


async def run(database: Database, *, kept: timedelta) -> None:
    """For ever, each minute."""
    while True:
        try:
            await sweep(database, kept=kept)
        except DatabaseUnavailable:
            logger.warning("runs could not be swept")
        await asyncio.sleep(INTERVAL)


async def count_messages(queue: TaskQueue) -> None:
    """Once: how long the queue is."""
    try:
        length = await queue.waiting(RunJob.queue)
    except QueueUnavailable:
        length = -1
    QUEUE_LENGTH.labels(RunJob.queue).set(length)


async def keep_counting(queue: TaskQueue) -> None:
    """For ever, every few seconds."""
    while True:
        await count_messages(queue)
        await asyncio.sleep(COUNTING)
