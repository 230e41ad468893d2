"""Plain statements on Postgres, for the hot paths: 3 to 12 times the rate of a session."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from loguru import logger
from psycopg import AsyncConnection, DataError
from psycopg.rows import DictRow
from psycopg_pool import PoolTimeout

from triton_common.db import Database, DatabaseUnavailable, translated_errors
from triton_common.errors import Unprocessable

Row = DictRow

OLDEST_POSTGRES: Final = 18  # the first with RETURNING old, new: see moves.PROGRESS


class TextNotStorable(Unprocessable):
    """The request holds text or numbers that cannot be stored."""


@asynccontextmanager
async def connected(database: Database) -> AsyncIterator[AsyncConnection[Row]]:
    """A connection in autocommit. Raises DatabaseUnavailable; TextNotStorable for NUL and the like."""
    try:
        async with translated_errors(), database.pool.connection() as connection:
            yield connection
    except DataError as error:
        raise TextNotStorable("Send text without NUL, and numbers that are finite.") from error
    except DatabaseUnavailable:
        # after a restart of Postgres every waiting connection is dead: drop them all, not one an error
        await database.pool.check()
        raise


async def check_version(database: Database) -> None:
    """Raises DatabaseUnavailable for a Postgres that is too old, as for one that is not there, and logs which it is."""
    async with connected(database) as connection:
        version = connection.info.server_version // 10_000
    if version < OLDEST_POSTGRES:
        logger.bind(version=version, needed=OLDEST_POSTGRES).error("this Postgres is too old for jobs-service")
        raise DatabaseUnavailable(f"jobs-service needs Postgres {OLDEST_POSTGRES} or newer; this is {version}.")


async def rows(database: Database, statement: str, values: Mapping[str, Any]) -> list[Row]:
    """Run one statement; once more when its connection was dead, so it must be one that may run twice."""
    try:
        async with connected(database) as connection:
            return await fetch(connection, statement, values)
    except DatabaseUnavailable as error:
        if isinstance(error.__cause__, PoolTimeout):  # Postgres is down, or everybody waits: no use in waiting twice
            raise
    async with connected(database) as connection:
        return await fetch(connection, statement, values)


async def row(database: Database, statement: str, values: Mapping[str, Any]) -> Row | None:
    """The one row of a statement that has at most one."""
    found = await rows(database, statement, values)
    return found[0] if found else None


async def fetch(connection: AsyncConnection[Row], statement: str, values: Mapping[str, Any]) -> list[Row]:
    """All rows of a statement on this connection."""
    cursor = await connection.execute(statement.encode(), values)
    return await cursor.fetchall()
