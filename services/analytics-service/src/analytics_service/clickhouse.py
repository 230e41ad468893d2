"""ClickHouse: the only file that imports its driver. A few clients behind bounded lanes, and the migrations."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib.resources import files
from queue import SimpleQueue
from typing import IO, Any, BinaryIO, Final, Self, TypeVar, cast
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from loguru import logger
from prometheus_client import Histogram

from triton_common.errors import Unavailable
from triton_common.telemetry import statement_span

T = TypeVar("T")
Row = dict[str, Any]

DATABASE: Final = "analytics"
CONNECT_TIMEOUT: Final = 2  # seconds; a dead server is noticed while the request still waits
WRITING: Final = {
    "async_insert": 0,  # rows are there when the statement has answered
    "min_insert_block_size_rows": 262_144,  # a quarter of the default: so much less memory, at the same rate
    "min_insert_block_size_bytes": 64 << 20,
}
# The driver adds this where it is missing, after `readonly`, behind which a server may take no setting
READING: Final = {"cancel_http_readonly_queries_on_client_close": 1}
QUERY_SECONDS: Final = Histogram(
    "triton_clickhouse_seconds",
    "From asking ClickHouse to its answer, waiting for a client included",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
NOT_CSV: Final = frozenset({"INCORRECT_DATA", "CANNOT_PARSE_INPUT_ASSERTION_FAILED", "CANNOT_PARSE_QUOTED_STRING"})

# The driver's own messages quote SQL and rows: what is worth logging, this file logs itself.
logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)


class ClickhouseUnavailable(Unavailable):
    """The analytics database does not answer; try again."""


class AnalyticsBusy(Unavailable):
    """Too many analytics requests are waiting; try again."""


class MalformedCsv(Exception):
    """ClickHouse cannot take the file for CSV. Where it breaks, the caller must look up."""


class Engine:
    """One client: what may be asked of ClickHouse. For use in a lane's thread; values are bound, never formatted in."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Run a query."""
        with _translated():
            return list(self._client.query(sql, parameters=dict(parameters or {})).named_results())

    def row(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Row:
        """Run a query that answers one row."""
        return self.rows(sql, parameters)[0]

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement that answers nothing."""
        with _translated():
            self._client.command(sql, parameters=dict(parameters or {}))

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert a few rows. They travel as data: unlike parameters, no log of a server shows them."""
        # the driver's own insert() would import pandas, which takes seconds
        lines = "\n".join(json.dumps(row, default=str) for row in rows)
        with _translated():
            self._client.raw_insert(
                table,
                column_names=list(rows[0]),
                insert_block=lines,
                fmt="JSONEachRow",
                settings={"date_time_input_format": "best_effort"},
            )

    def insert_csv(self, table: str, columns: Sequence[str], file: IO[bytes]) -> None:
        """Stream a CSV file with a header into a table, by position. A field that a row lacks takes the default.

        Raises MalformedCsv for what is none.
        """
        settings = {
            "input_format_csv_skip_first_lines": 1,
            "input_format_csv_allow_variable_number_of_columns": 1,
            "input_format_csv_empty_as_default": 0,  # an empty field is an empty string, and no missing field
            "input_format_defaults_for_omitted_fields": 1,
            "max_insert_threads": 1,  # rows stay in the file's order, and their numbers unique
        }
        with _translated():
            self._client.raw_insert(
                table, column_names=list(columns), insert_block=cast("BinaryIO", file), fmt="CSV", settings=settings
            )


@contextmanager
def _translated() -> Any:
    """The driver's errors quote values and host names: neither answers nor logs get to see them."""
    try:
        yield
    except ClickHouseError as error:
        name = getattr(error, "name", None)
        if name in NOT_CSV:
            raise MalformedCsv from None
        logger.bind(clickhouse_error=name or type(error).__name__, clickhouse_code=getattr(error, "code", None)).error(
            "ClickHouse refused a statement or is gone"
        )
        raise ClickhouseUnavailable(retry_after=2) from None


class Lane:
    """A few clients, a thread each, and a bounded line of work in front of them.

    A client serves one caller at a time; the embedded engine knows no other way.
    """

    def __init__(self, clients: Iterable[Client], *, name: str, waiting: int) -> None:
        self._clients = list(clients)
        self._free: SimpleQueue[Engine] = SimpleQueue()
        for client in self._clients:
            self._free.put(Engine(client))
        self._threads = ThreadPoolExecutor(max_workers=len(self._clients), thread_name_prefix=name)
        self._room = len(self._clients) + waiting

    async def run(self, work: Callable[[Engine], T]) -> T:
        """Run `work` in a thread. Raises AnalyticsBusy when the line is full.

        A caller that is cancelled leaves its work running: a statement cannot be taken back.
        """
        if self._room == 0:
            raise AnalyticsBusy(retry_after=2)
        self._room -= 1
        loop = asyncio.get_running_loop()
        future = self._threads.submit(self._work, work)
        future.add_done_callback(lambda done: self._leave(loop, done))
        return await asyncio.wrap_future(future)

    def _work(self, work: Callable[[Engine], T]) -> T:
        engine = self._free.get()
        try:
            return work(engine)
        finally:
            self._free.put(engine)

    def _leave(self, loop: asyncio.AbstractEventLoop, _: "Future[Any]") -> None:
        def leave() -> None:
            self._room += 1

        if not loop.is_closed():
            loop.call_soon_threadsafe(leave)

    def close(self) -> None:
        """Wait for the work that runs, and close the clients."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for client in self._clients:
            client.close()


class ClickHouse:
    """The service's connections: readers for reports, one writer for ingest, one that is free for the health check.

    One writer, so that two ingests of the same content come one after the other; the second finds the first.
    """

    def __init__(self, *, readers: Lane, writer: Lane, health: Lane) -> None:
        self._readers = readers
        self._writer = writer
        self._health = health

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, *, readers: int, waiting: int, query_timeout: timedelta) -> AsyncIterator[Self]:
        """Open the database at `url` (chdb:///path or http://user:password@host:8123), and migrate it."""
        opened = await asyncio.to_thread(_open, url, readers=readers, waiting=waiting, query_timeout=query_timeout)
        clickhouse = cls(readers=opened[0], writer=opened[1], health=opened[2])
        try:
            yield clickhouse
        finally:
            for lane in opened:
                await asyncio.to_thread(lane.close)

    async def read(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Rows of a query, through a client that cannot write."""
        with statement_span("clickhouse", sql), QUERY_SECONDS.labels("read").time():
            return await self._readers.run(lambda engine: engine.rows(sql, parameters))

    async def write(self, work: Callable[[Engine], T]) -> T:
        """Run `work` alone: no other writing work runs beside it."""
        with statement_span("clickhouse", "WRITE"), QUERY_SECONDS.labels("write").time():
            return await self._writer.run(work)

    async def ping(self) -> None:
        """Raises ClickhouseUnavailable when the engine does not answer."""
        await self._health.run(lambda engine: engine.rows("SELECT 1"))


def _open(url: str, *, readers: int, waiting: int, query_timeout: timedelta) -> tuple[Lane, Lane, Lane]:
    try:
        with _client(url, database="default") as client:
            client.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        writer = _client(url, settings=WRITING)
        reading = READING | {"max_execution_time": int(query_timeout.total_seconds()), "readonly": 1}
        reading_clients = [_client(url, settings=reading) for _ in range(readers)]
        health = _client(url, settings=READING | {"max_execution_time": CONNECT_TIMEOUT, "readonly": 1})
    except (ClickHouseError, OSError) as error:
        logger.bind(clickhouse_error=getattr(error, "name", None) or type(error).__name__).error(
            "cannot open ClickHouse. Embedded: another process has the folder of CLICKHOUSE_URL open, and only one "
            "can; stop it or choose another. Server: none answers at CLICKHOUSE_URL, or it refuses the user."
        )
        raise ClickhouseUnavailable from None
    migrate(Engine(writer))
    return (
        Lane(reading_clients, name="clickhouse-read", waiting=waiting),
        Lane([writer], name="clickhouse-write", waiting=waiting),
        Lane([health], name="clickhouse-health", waiting=waiting),
    )


def _client(url: str, *, database: str = DATABASE, settings: Mapping[str, Any] | None = None) -> Client:
    scheme = urlsplit(url).scheme
    options: dict[str, Any] = {} if scheme == "chdb" else {"connect_timeout": CONNECT_TIMEOUT}
    return clickhouse_connect.get_client(
        dsn=url,
        interface=scheme,
        database=database,
        settings=dict(settings or {}),
        tz_mode="aware",
        autogenerate_session_id=False,  # a session cannot serve two threads
        show_clickhouse_errors=True,  # for the name of an error; its text goes nowhere
        **options,
    )


def migrate(engine: Engine) -> list[str]:
    """Apply the numbered SQL files that this database has not seen, in order; answers their names.

    ClickHouse has no transactions for DDL: each statement can run twice, and a file counts once all of it has run.
    """
    engine.command(
        "CREATE TABLE IF NOT EXISTS schema_migrations "
        "(name String, sha256 String, applied_at DateTime64(3, 'UTC')) ENGINE = ReplacingMergeTree ORDER BY name"
    )
    seen = {row["name"]: row["sha256"] for row in engine.rows("SELECT name, sha256 FROM schema_migrations FINAL")}
    applied: list[str] = []
    folder = files("analytics_service") / "migrations"
    for file in sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name):
        text = file.read_text(encoding="utf-8")
        digest = sha256(text.encode()).hexdigest()
        if file.name in seen:
            if seen[file.name] != digest:
                raise RuntimeError(f"{file.name} was changed after it was applied; add a new migration instead")
            continue
        for statement in re.split(r";\s*(?:\n|$)", text):
            if statement.strip():
                engine.command(statement)
        engine.insert("schema_migrations", [{"name": file.name, "sha256": digest, "applied_at": datetime.now(UTC)}])
        logger.bind(migration=file.name).info("migration applied")
        applied.append(file.name)
    return applied
