"""Brings records of runs to Postgres without a job waiting for it: a thread writes what the jobs' threads hand over.

What is not written yet is written again and again until Postgres takes it, also while the worker shuts down. A worker
that is killed loses what it holds in that moment: the run then reads `running`, and `lost` once its time is over.
"""

import threading
from time import monotonic
from typing import Any, Final
from uuid import UUID

import psycopg
from loguru import logger
from psycopg.types.json import Jsonb
from pydantic_core import to_jsonable_python

from agent_runner.records import RunRecord

BATCH: Final = 100  # records in one transaction
MOST: Final = 20_000  # records that wait while Postgres is away; a few KB each
PAUSE: Final = 0.2  # seconds before Postgres is tried again; it doubles
LONGEST_PAUSE: Final = 5.0

_CONNECTION: Final[dict[str, Any]] = {
    "connect_timeout": 3,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "options": "-c lock_timeout=2s -c statement_timeout=10s",
}
_COLUMNS: Final = (
    *("id", "agent", "model", "prompt_version", "job_id", "client_id", "attempt", "worker", "request_id", "trace_id"),
    *("status", "started_at", "ends_by", "seconds", "calls", "input_tokens", "output_tokens", "cost", "currency"),
    "error",
)
_CHANGING: Final = ("model", "status", "seconds", "calls", "input_tokens", "output_tokens", "cost", "error")
# what is over stays as it is; a run that was taken for lost has its true end after all
_UPSERT: Final = (
    f"INSERT INTO agent_runs ({', '.join(_COLUMNS)}, updated_at) "  # noqa: S608  our own names
    f"VALUES ({', '.join(f'%({name})s' for name in _COLUMNS)}, clock_timestamp()) ON CONFLICT (id) DO UPDATE "
    f"SET {', '.join(f'{name} = excluded.{name}' for name in (*_CHANGING, 'updated_at'))} "
    "WHERE agent_runs.status IN ('running', 'lost') AND excluded.status <> 'running'"
).encode()


class Recorder:
    """One a worker process. Its thread starts with the first record."""

    def __init__(self, url: str) -> None:
        """`url` as DATABASE_URL; without one nothing is kept."""
        self._url = url
        self._changed = threading.Condition()
        self._waiting: dict[UUID, dict[str, Any]] = {}
        self._writing = False
        self._thread: threading.Thread | None = None
        self._closing_at: float | None = None

    def keep(self, run: RunRecord) -> None:
        """Write it soon, as it is now. The newest record of a run replaces one that still waits."""
        if not self._url or run.job_id is None:
            return
        row = _row(run)
        with self._changed:
            self._waiting[run.id] = row
            if len(self._waiting) > MOST:
                self._waiting.pop(next(iter(self._waiting)))
                logger.error("a record of a run is lost: too many wait for Postgres")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="records", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self, *, patience: float = 5.0) -> None:
        """Write what waits, for `patience` seconds at most."""
        with self._changed:
            if self._closing_at is not None:
                return
            self._closing_at = monotonic() + patience
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting and not self._writing, patience)
            if self._waiting or self._writing:
                logger.bind(records=len(self._waiting)).error("records of runs are lost: Postgres does not take them")

    def _run(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        pause = PAUSE
        while batch := self._next():
            try:
                connection = connection or psycopg.connect(self._url, autocommit=True, **_CONNECTION)
                with connection.transaction(), connection.cursor() as cursor:
                    cursor.executemany(_UPSERT, list(batch.values()))
                pause = PAUSE
                self._done()
            except psycopg.OperationalError as error:
                logger.bind(error=type(error).__name__, records=len(batch)).warning("records of runs must wait")
                _close(connection)
                connection = None
                self._again(batch, pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except Exception as error:  # noqa: BLE001  one that cannot be written must not keep the others from it
                logger.opt(exception=error).bind(records=len(batch)).error("records of runs are not taken")
                _close(connection)
                connection = None
                self._done()
        _close(connection)

    def _next(self) -> dict[UUID, dict[str, Any]]:
        """What to write, once there is something; nothing when we are closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing_at is not None)
            if self._closing_at is not None and monotonic() > self._closing_at:
                return {}
            batch = dict(list(self._waiting.items())[:BATCH])
            for key in batch:
                del self._waiting[key]
            self._writing = bool(batch)
            return batch

    def _done(self) -> None:
        with self._changed:
            self._writing = False
            self._changed.notify_all()

    def _again(self, batch: dict[UUID, dict[str, Any]], pause: float) -> None:
        """Put them back, before what came since; a newer record of the same run stands."""
        with self._changed:
            self._waiting = batch | self._waiting
            self._writing = False
            self._changed.wait_for(lambda: self._closing_at is not None, pause)
            if self._closing_at is not None:  # no pause is cut short twice
                self._changed.wait(min(PAUSE, pause))


def _row(run: RunRecord) -> dict[str, Any]:
    error = {
        "code": run.error_code,
        "message": run.error_message,
        "details": run.error_details,
        "traceback": run.error_traceback,
    }
    return {name: getattr(run, name) for name in _COLUMNS if name not in ("calls", "error")} | {
        "calls": Jsonb(to_jsonable_python(run.calls)),
        "error": Jsonb(to_jsonable_python(error)) if run.error_code else None,
    }


def _close(connection: "psycopg.Connection[Any] | None") -> None:
    if connection is not None:
        connection.close()
