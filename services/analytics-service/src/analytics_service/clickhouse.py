"""The service's connections to ClickHouse: readers for reports, a writer for ingest, one for the health check."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, Self, TypeVar

from prometheus_client import Histogram

from analytics_service.answers import Answers
from analytics_service.engine import LIMITS, Engine, Row, open_lanes
from analytics_service.lanes import Lane
from triton_common.telemetry import statement_span

T = TypeVar("T")

QUERY_SECONDS: Final = Histogram(
    "triton_clickhouse_seconds",
    "From asking ClickHouse to its answer, waiting for a client included",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)


class ClickHouse:
    """The service's connections: readers for reports, one writer for ingest, one that is free for the health check.

    One writer, so that two ingests of the same content come one after the other; the second finds the first.
    """

    def __init__(self, *, readers: Lane[Engine], writer: Lane[Engine], health: Lane[Engine]) -> None:
        self._readers = readers
        self._writer = writer
        self._health = health
        self.answers = Answers()

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        *,
        readers: int,
        waiting: int,
        query_timeout: timedelta,
        query_limits: Mapping[str, int] = LIMITS,
        cluster: str = "",
    ) -> AsyncIterator[Self]:
        """Open the database at `url` (chdb:///path or http://user:password@host:8123)."""
        reading = {"max_execution_time": int(query_timeout.total_seconds()), **LIMITS, **query_limits}
        opened = await asyncio.to_thread(
            open_lanes, url, readers=readers, waiting=waiting, reading=reading, cluster=cluster
        )
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
