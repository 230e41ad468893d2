"""Plain statements on Postgres, for the hot paths: 3 times the rate of a session, in batches 7 times (ADR 013)."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, Final
from weakref import WeakKeyDictionary

from loguru import logger
from psycopg import AsyncConnection, DataError
from psycopg.errors import LockNotAvailable
from psycopg.rows import DictRow
from psycopg_pool import PoolTimeout

from triton_common.db import POSTGRES, Database, DatabaseUnavailable, translated_errors
from triton_common.errors import Unprocessable
from triton_common.telemetry import statement_span

Row = DictRow

SILENCE: Final = 10.0  # seconds; a third of a lease, so that workers get another try
OLDEST_POSTGRES: Final = 18  # the first with RETURNING old, new: see moves.py
LARGEST_BATCH: Final = 100  # calls in a statement: documents, say, of a few megabytes in all


class TextNotStorable(Unprocessable):
    """The request holds text or numbers that cannot be stored."""


@asynccontextmanager
async def connected(database: Database) -> AsyncIterator[AsyncConnection[Row]]:
    """A connection in autocommit, for SILENCE seconds at most.

    Raises DatabaseUnavailable; TextNotStorable for NUL and the like.
    """
    try:
        async with translated_errors(), database.pool.connection() as connection:
            silence = asyncio.get_running_loop().call_later(SILENCE, _hang_up, connection)
            try:
                yield connection
            finally:
                silence.cancel()
    except DataError as error:
        raise TextNotStorable("Send text without NUL, and numbers that are finite.") from error
    except DatabaseUnavailable as error:
        # after a restart of Postgres every waiting connection is dead: drop them all, not one an error
        if may_be_repeated(error):
            await database.pool.check()
        raise


def _hang_up(connection: AsyncConnection[Row]) -> None:
    """End a wait that no cancellation ends: for a Postgres that is frozen, or behind a connection that is half open."""
    if not connection.closed:
        logger.warning("the database has said nothing for long: connection given up")
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


def may_be_repeated(error: DatabaseUnavailable) -> bool:
    """Whether the next connection may do better: not when Postgres is down, everybody waits, or a row is locked."""
    return not isinstance(error.__cause__, PoolTimeout | LockNotAvailable)


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
        if not may_be_repeated(error):
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


# --- natural batching


class Batch:
    """Calls of one statement: while it runs, calls wait, and go together in its next run. Nobody waits for company: a
    call that comes alone runs alone, at once.

    The statement takes `calls`, a JSON array of objects with the number `n`, and answers rows with their call's `n`.
    A move changes a row just once a run, so a second call for the same job waits for the next; `shared`, for what only
    reads, has them share an answer.
    """

    def __init__(self, statement: str, *, shared: bool) -> None:
        self._statement = statement
        self._shared = shared
        self._waiting: list[Call] = []
        self._running: asyncio.Task[None] | None = None

    async def call(self, database: Database, values: Mapping[str, Any]) -> Row | None:
        """The row that answers this call; None without one. Raises what `rows` raises, each call for itself."""
        answer: asyncio.Future[Row | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((values, [answer]))
        if self._running is None:
            self._running = asyncio.create_task(self._run(database), context=Context())  # not with one request's id
        with statement_span(POSTGRES, self._statement):
            return await answer

    async def _run(self, database: Database) -> None:
        try:
            while self._waiting:
                await self._turn(database, self._take())
        finally:
            self._running = None

    def _take(self) -> "list[Call]":
        """What goes next."""
        taken: dict[Any, Call] = {}
        later: list[Call] = []
        for call in self._waiting:
            values, answers = call
            if values["id"] not in taken and len(taken) < LARGEST_BATCH:
                taken[values["id"]] = call
            elif self._shared and values["id"] in taken:
                taken[values["id"]][1].extend(answers)
            else:
                later.append(call)
        self._waiting = later
        return list(taken.values())

    async def _turn(self, database: Database, taken: "list[Call]") -> None:
        try:
            found = await rows(database, self._statement, as_calls([values for values, _ in taken]))
        except (TextNotStorable, DatabaseUnavailable) as error:
            theirs = isinstance(error, TextNotStorable) or isinstance(error.__cause__, LockNotAvailable)
            if theirs and len(taken) > 1:  # one of them has it: the others must not pay for that
                for one in taken:
                    await self._turn(database, [one])
            else:
                for call in taken:
                    _answer(call, error)
        except Exception as error:  # noqa: BLE001  it is raised where the calls were made
            for call in taken:
                _answer(call, error)
        else:
            by_call = {row["n"]: row for row in found}
            for n, call in enumerate(taken):
                _answer(call, by_call.get(n))


Call = tuple[Mapping[str, Any], list["asyncio.Future[Row | None]"]]
"""What a call brings, and who waits for its answer."""


def _answer(call: Call, answer: Row | Exception | None) -> None:
    for waiting in call[1]:
        if waiting.done():  # its request is gone
            continue
        if isinstance(answer, Exception):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer)


def as_calls(calls: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The parameter of a statement that takes calls."""
    return {"calls": json.dumps([{**values, "n": n} for n, values in enumerate(calls)], default=str)}


_batches: WeakKeyDictionary[Database, dict[str, Batch]] = WeakKeyDictionary()


async def batched(database: Database, statement: str, values: Mapping[str, Any], *, shared: bool = False) -> Row | None:
    """Make one call of a statement that takes many; it must be one that may run twice. Raises what `rows` raises."""
    known = _batches.setdefault(database, {})
    if statement not in known:
        known[statement] = Batch(statement, shared=shared)
    return await known[statement].call(database, values)
