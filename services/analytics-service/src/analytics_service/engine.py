"""One client of ClickHouse, and how clients are opened: the only file that imports the driver."""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, TypeVar, cast
from urllib.parse import urlsplit
from uuid import UUID

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from loguru import logger

from analytics_service.lanes import ClickhouseUnavailable, Lane
from triton_common.errors import Unavailable, Unprocessable

T = TypeVar("T")
Row = dict[str, Any]

DATABASE: Final = "analytics"
CONNECT_TIMEOUT: Final = 2  # seconds; a dead server is noticed while the request still waits
WRITE_TIMEOUT: Final = 600  # seconds until the answer to a statement that loads a file
LIMITS: Final[Mapping[str, int]] = {
    "max_memory_usage": 2 << 30,
    "max_bytes_before_external_group_by": 1 << 30,  # beyond it a GROUP BY goes on, on disk
    "max_rows_to_read": 2_000_000_000,
    "max_result_rows": 200_000,
    "max_threads": 4,
}
"""What a query of a reader may take, beside its time."""
BLOCK: Final = 65_536  # rows of a part as it is written
DRAINS: Final = 5  # one is enough
MOST_PARTS: Final = 2_500  # of a partition; the engine takes 3,000
WRITING: Final = {
    "async_insert": 0,  # rows are there when the statement has answered
    "min_insert_block_size_rows": BLOCK,  # a sixteenth of the default: so much less memory
    "min_insert_block_size_bytes": 16 << 20,
    "max_insert_threads": 2,  # sorting and packing a block takes as long as reading it
}
# On a cluster: a join or an IN sees all of the other table, and an INSERT answers when every shard has its rows
ACROSS: Final[Mapping[str, Any]] = {"distributed_product_mode": "global", "distributed_foreground_insert": 1}
# Last of a reader's settings: a server may apply them in their order, and takes none after `readonly`. The driver would
# add the first after it.
READONLY: Final = {"cancel_http_readonly_queries_on_client_close": 1, "readonly": 1}
# What the engine says of a query that reaches its limits
OUT_OF_TIME: Final = ("TIMEOUT_EXCEEDED", "TOO_SLOW")
OUT_OF_ROOM: Final = ("MEMORY_LIMIT_EXCEEDED", "TOO_MANY_ROWS", "TOO_MANY_ROWS_OR_BYTES", "TOO_MANY_BYTES")
# What the engine says of rows that it cannot read, and throwIf of rows that we refuse
REFUSED: Final = re.compile(
    "CANNOT_PARSE_.*|CANNOT_READ_.*|CANNOT_CONVERT_TYPE|INCORRECT_DATA|UNEXPECTED_END_OF_FILE|BAD_ARGUMENTS|"
    "ARGUMENT_OUT_OF_BOUND|CANNOT_ALLOCATE_MEMORY|LOGICAL_ERROR|NOT_IMPLEMENTED|TYPE_MISMATCH|TOO_LARGE_.*|"
    ".*DECOMPRESS.*|FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"
)
READING: Final = {
    "storage_file_read_method": "pread",  # not mapped: a file's pages would count as ours, and cost more
    "input_format_csv_skip_first_lines": 1,
    "input_format_csv_empty_as_default": 0,  # an empty field is an empty string, and no missing field
    "input_format_defaults_for_omitted_fields": 1,
    "input_format_skip_unknown_fields": 1,
    "input_format_json_read_arrays_as_strings": 1,
    "input_format_json_read_numbers_as_strings": 1,
    "input_format_json_read_bools_as_strings": 1,
    "input_format_json_read_objects_as_strings": 1,
    "input_format_parquet_allow_missing_columns": 1,
    "input_format_parquet_memory_low_watermark": 1 << 20,
    "input_format_parquet_memory_high_watermark": 16 << 20,
    "input_format_max_block_size_bytes": 16 << 20,
    "input_format_parquet_max_block_size": 16_384,  # as many rows as a piece of CSV has
    "min_chunk_bytes_for_parallel_parsing": 2 << 20,
}
FORMATS: Final = {"csv": "CSV", "ndjson": "JSONEachRow", "parquet": "Parquet"}

# How long the embedded engine's allocator keeps what was freed. Its own five seconds of a load are 200 MB.
ALLOCATOR: Final = ("JE_MALLOC_CONF", "dirty_decay_ms:200,muzzy_decay_ms:0")

# The driver's own messages quote SQL and rows: what is worth logging, this file logs itself.
logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)


class QueryTimedOut(Unavailable):
    """The query took too long; narrow its dates, or try again."""


class QueryTooLarge(Unprocessable):
    """The query needs more memory or rows than one may; narrow its dates or conditions."""


class RowsRefused(Exception):
    """ClickHouse cannot read the rows, or throwIf would not have them. Where it is, the caller must look up."""


class Engine:
    """One client: what may be asked of ClickHouse. For use in a lane's thread; values are bound, never formatted in."""

    def __init__(self, client: Client, *, embedded: bool = False, cluster: str = "") -> None:
        self._client = client
        self._cluster = cluster
        self.embedded = embedded
        """Whether the engine is in this process: nobody else opens it, and it reads files of ours by their path."""

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Run a query."""
        with self._asking():
            return list(self._client.query(sql, parameters=dict(parameters or {})).named_results())

    def row(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Row:
        """Run a query that answers one row."""
        return self.rows(sql, parameters)[0]

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement that answers nothing."""
        with self._asking():
            self._client.command(sql, parameters=dict(parameters or {}))

    def create(self, sql: str) -> bool:
        """Make a table; false when there is one of its name."""
        with self._asking():
            try:
                self._client.command(sql)
            except ClickHouseError as error:
                if getattr(error, "name", None) == "TABLE_ALREADY_EXISTS":
                    return False
                raise
        return True

    def drop_partition(self, table: str, partition: UUID) -> None:
        """Take a partition from the disk, of a cluster on every node."""
        where = f"{table}_local ON CLUSTER {self._cluster}" if self._cluster else table
        self.command(f"ALTER TABLE {where} DROP PARTITION {{id:UUID}}", {"id": partition})

    @contextmanager
    def merging_later(self, table: str, *, rows: int) -> Iterator[None]:
        """Parts of a table stay as they are written meanwhile, unless `rows` would make too many: merging what is still
        being written costs as much again, and memory. For the embedded engine: who else writes would be held up too."""
        if rows > MOST_PARTS * BLOCK:
            yield
            return
        self.command(f"SYSTEM STOP MERGES {table}")
        try:
            yield
        finally:
            self.command(f"SYSTEM START MERGES {table}")

    def load(self, sql: str, parameters: Mapping[str, Any]) -> None:
        """Run an INSERT … SELECT over a file or a staging table. Raises RowsRefused."""
        with self._asking(refusing=True):
            self._client.command(sql, parameters=dict(parameters), settings=READING)

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert a few rows. They travel as data: unlike parameters, no log of a server shows them."""
        # the driver's own insert() would import pandas, which takes seconds
        lines = "\n".join(json.dumps(row, default=str) for row in rows)
        with self._asking():
            self._client.raw_insert(
                table,
                column_names=list(rows[0]),
                insert_block=lines,
                fmt="JSONEachRow",
                settings={"date_time_input_format": "best_effort"},
            )

    def insert_file(self, table: str, columns: Sequence[str], path: Path, *, kind: str) -> None:
        """Stream a file into a table, CSV by position and the others by name. What a row lacks takes the default.

        Raises RowsRefused for what is no such file.
        """
        settings = READING | {
            "input_format_csv_allow_variable_number_of_columns": 1,
            "max_insert_threads": 1,  # rows stay in the file's order, and their numbers unique
        }
        with path.open("rb") as file, self._asking(refusing=True):
            self._client.raw_insert(
                table, column_names=list(columns), insert_block=file, fmt=FORMATS[kind], settings=settings
            )

    def copy_out(self, sql: str, file: IO[bytes]) -> None:
        """Write what a query answers, in ClickHouse's Native format."""
        with self._asking(), closing(cast("BinaryIO", self._client.raw_stream(sql, fmt="Native"))) as stream:
            shutil.copyfileobj(stream, file)

    def copy_in(self, table: str, file: IO[bytes]) -> None:
        """Stream into a table what copy_out wrote: columns by their names, of any number of batches."""
        settings = {"max_partitions_per_insert_block": 0}
        with self._asking():
            self._client.raw_insert(table, insert_block=cast("BinaryIO", file), fmt="Native", settings=settings)

    @contextmanager
    def _asking(self, *, refusing: bool = False) -> Iterator[None]:
        try:
            with _translated(refusing=refusing):
                yield
        except BaseException:
            self._drain()
            raise

    def _drain(self) -> None:
        """What a query that failed had answered so far, the embedded engine puts before the client's next answer: rows
        that may be another prospect's. So ask until the answer is whole; a client that will not is closed."""
        if not self.embedded:
            return
        for _ in range(DRAINS):
            with suppress(ClickHouseError):
                if self._client.raw_query("SELECT 1", fmt="TSV") == b"1\n":
                    return
        logger.critical("a client of the embedded engine answers what was not asked, and is closed")
        self._client.close()


@contextmanager
def _translated(*, refusing: bool = False) -> Iterator[None]:
    """The driver's errors quote values and host names: neither answers nor logs get to see them."""
    try:
        yield
    except ClickHouseError as error:
        name = getattr(error, "name", None)
        if refusing and name and REFUSED.fullmatch(name):
            raise RowsRefused from None
        if name in OUT_OF_TIME:
            raise QueryTimedOut(retry_after=10) from None
        if name in OUT_OF_ROOM:
            raise QueryTooLarge from None
        logger.bind(clickhouse_error=name or type(error).__name__, clickhouse_code=getattr(error, "code", None)).error(
            "ClickHouse refused a statement or is gone"
        )
        raise ClickhouseUnavailable(retry_after=2) from None


def open_lanes(
    url: str, *, readers: int, waiting: int, reading: Mapping[str, Any], cluster: str
) -> tuple[Lane[Engine], Lane[Engine], Lane[Engine]]:
    embedded = urlsplit(url).scheme == "chdb"
    across = ACROSS if cluster else {}
    patience = timedelta(seconds=2 * reading["max_execution_time"])  # half of it in line
    try:
        with _client(url, database="default", settings={"max_execution_time": CONNECT_TIMEOUT}) as client:
            client.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        writer = _client(url, settings={**WRITING, **across})
        reading_clients = [_client(url, settings={**reading, **across, **READONLY}) for _ in range(readers)]
        health = _client(url, settings={"max_execution_time": CONNECT_TIMEOUT, **READONLY})
    except (ClickHouseError, OSError) as error:
        logger.bind(clickhouse_error=getattr(error, "name", None) or type(error).__name__).error(
            "cannot open ClickHouse. Embedded: another process has the folder of CLICKHOUSE_URL open, and only one "
            "can; stop it or choose another. Server: none answers at CLICKHOUSE_URL, or it refuses the user."
        )
        raise ClickhouseUnavailable from None
    return (
        Lane(
            [Engine(client, embedded=embedded) for client in reading_clients],
            name="clickhouse-read",
            waiting=waiting,
            patience=patience,
        ),
        Lane([Engine(writer, embedded=embedded, cluster=cluster)], name="clickhouse-write", waiting=waiting),
        Lane(
            [Engine(health, embedded=embedded)],
            name="clickhouse-health",
            waiting=waiting,
            patience=timedelta(seconds=2 * CONNECT_TIMEOUT),
        ),
    )


def _client(url: str, *, database: str = DATABASE, settings: Mapping[str, Any] | None = None) -> Client:
    scheme = urlsplit(url).scheme
    options: dict[str, Any] = {}
    if scheme == "chdb":
        os.environ.setdefault(*ALLOCATOR)  # read once, when the driver loads the engine
    else:
        most = (settings or {}).get("max_execution_time", WRITE_TIMEOUT)
        options = {
            "connect_timeout": CONNECT_TIMEOUT,
            "send_receive_timeout": most + CONNECT_TIMEOUT,
            "query_retries": 0,
        }
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
