"""What the API does each minute: ends runs whose worker is lost, and deletes those kept long enough."""

import asyncio
from datetime import timedelta
from typing import Final

from loguru import logger

from triton_common.db import Database, DatabaseUnavailable, translated_errors

INTERVAL: Final = 60.0  # seconds
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
