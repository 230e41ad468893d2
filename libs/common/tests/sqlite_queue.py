"""A third task queue, to show what one takes: a table in a file of SQLite, and a worker that reads it.

It is no part of the platform: ADR 003 says how one becomes a part.
"""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

from triton_common.queue.base import QueueUnavailable, TaskQueue, TaskStatus

TABLES = """
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS incarnation (token TEXT);
CREATE TABLE IF NOT EXISTS tasks (
    number INTEGER PRIMARY KEY, id TEXT, queue TEXT, priority INTEGER, task TEXT, payload TEXT,
    status TEXT DEFAULT 'pending'
);
"""
TAKE = """
UPDATE tasks SET status = 'processing'
WHERE number = (SELECT number FROM tasks WHERE status = 'pending' AND queue = ? ORDER BY priority, number LIMIT 1)
RETURNING number, task, payload
"""


def connect(path: Path) -> "closing[sqlite3.Connection]":
    """A connection of this thread; each statement is a transaction, and waits four seconds for those of others."""
    return closing(sqlite3.connect(path, timeout=4, isolation_level=None))


def empty(path: Path) -> None:
    """Lose everything, as Redis does."""
    with connect(path) as connection:
        connection.executescript("DELETE FROM tasks; DELETE FROM incarnation")


class SqliteTaskQueue(TaskQueue):
    """Carries tasks in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def _push(
        self, task: str, tasks: Sequence[tuple[str, Mapping[str, Any]]], *, queue: str, priority: int
    ) -> None:
        """One INSERT, which takes all or none."""
        rows = [(task_id, queue, priority, task, json.dumps(payload)) for task_id, payload in tasks]
        values = ", ".join(["(?, ?, ?, ?, ?)"] * len(rows))
        sql = f"INSERT INTO tasks (id, queue, priority, task, payload) VALUES {values}"
        await self._run(sql, *(value for row in rows for value in row))

    async def status(self, task_id: str) -> TaskStatus:
        """Exact."""
        found = await self._run("SELECT status FROM tasks WHERE id = ?", task_id)
        return TaskStatus(found[0][0]) if found else TaskStatus.PENDING

    async def cancel(self, task_id: str) -> None:
        """Exact."""
        await self._run("UPDATE tasks SET status = 'cancelled' WHERE id = ? AND status = 'pending'", task_id)

    async def ping(self) -> None:
        """The file can be read."""
        await self._run("SELECT 1")

    async def incarnation(self) -> str:
        """Another once the tables were emptied, or the file is a new one."""
        await self._run("INSERT INTO incarnation SELECT ? WHERE NOT EXISTS (SELECT * FROM incarnation)", str(uuid4()))
        [[token]] = await self._run("SELECT token FROM incarnation")
        return str(token)

    async def waiting(self, queue: str) -> int:
        """Those that nobody has taken."""
        [[count]] = await self._run("SELECT count(*) FROM tasks WHERE status = 'pending' AND queue = ?", queue)
        return int(count)

    async def close(self) -> None:
        """Nothing stays open."""

    async def _run(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        def run() -> list[tuple[Any, ...]]:
            with connect(self._path) as connection:
                connection.executescript(TABLES)
                return connection.execute(sql, values).fetchall()

        try:
            return await asyncio.to_thread(run)
        except sqlite3.Error as error:
            raise QueueUnavailable from error


class SqliteWorker(threading.Thread):
    """Runs the tasks of one queue, one after another, until `stopped`."""

    def __init__(self, path: Path, *, queue: str, tasks: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__()
        self._path = path
        self._queue = queue
        self._tasks = tasks
        self.stopped = threading.Event()

    def run(self) -> None:
        """Take, run, say how it went."""
        with connect(self._path) as connection:
            connection.executescript(TABLES)
            while not self.stopped.is_set():
                taken = connection.execute(TAKE, [self._queue]).fetchall()
                if not taken:
                    self.stopped.wait(0.01)
                for number, task, payload in taken:
                    try:
                        self._tasks[task](**json.loads(payload))
                        status = TaskStatus.COMPLETED
                    except Exception:  # noqa: BLE001  a task may raise anything; its status says so
                        status = TaskStatus.FAILED
                    connection.execute("UPDATE tasks SET status = ? WHERE number = ?", [status, number])
