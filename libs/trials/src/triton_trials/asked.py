"""The reports' own SQL, asked of the engine without a service around it: what the reports are compared with.

A process of its own, since only one can open an embedded engine's folder. It prints the seconds of each report as JSON.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import date, timedelta
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any, Final
from uuid import UUID

import clickhouse_connect

from analytics_service.clickhouse import ClickHouse
from analytics_service.engine import DATABASE, Row
from analytics_service.prospects import Tenant
from analytics_service.reports import conditions, population, use
from analytics_service.reports.parts import Scope
from triton_common.schemas import CodePattern, CodeSystem

PATIENCE: Final = timedelta(minutes=10)
COHORT: Final = CodePattern(system=CodeSystem.ICD10CM, code="E1*")
REPORTS: Final[Mapping[str, Callable[[ClickHouse, Scope], Awaitable[Any]]]] = {
    "summary": population.summary,
    "cost-trend": population.cost_trend,
    "conditions": partial(conditions.conditions, order="prevalence", limit=20),
    "utilization": use.utilization,
    "pharmacy": partial(use.pharmacy, by="class", limit=20),
    "high-cost": use.high_cost,
    "readmissions": use.readmissions,
    "cohort": partial(conditions.cohort, codes=[COHORT]),
}


class Recorder(ClickHouse):
    """Keeps what is asked."""

    asked: list[tuple[str, Mapping[str, Any]]]

    async def read(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """As it is, and remembered."""
        self.asked.append((sql, parameters or {}))
        return await super().read(sql, parameters)


async def main(folder: str, client_id: str, prospect_id: str, rounds: str) -> dict[str, float]:
    """Seconds of a report: of all its queries, one after another, with the engine's own settings; the median."""
    tenant = Tenant(UUID(client_id), UUID(prospect_id))
    url = f"chdb://{folder}"
    found: dict[str, list[float]] = {name: [] for name in REPORTS}
    limits = {"max_memory_usage": 0, "max_rows_to_read": 0}
    async with Recorder.connect(url, readers=1, waiting=1, query_timeout=PATIENCE, query_limits=limits) as clickhouse:
        with clickhouse_connect.get_client(dsn=url, interface="chdb", database=DATABASE) as engine:
            for name, report in REPORTS.items():
                for day in range(1 + int(rounds)):
                    clickhouse.asked = []
                    await report(clickhouse, Scope(tenant, until=last_day(day)))
                    began = perf_counter()
                    for sql, parameters in clickhouse.asked:
                        engine.raw_query(sql, parameters=dict(parameters), fmt="Native")
                    found[name].append(perf_counter() - began)
    return {name: median(seconds[1:]) for name, seconds in found.items()}  # the first warms up


def last_day(number: int) -> date:
    """Of a report's rows. Another each time, since what is asked twice is answered from memory."""
    return date(2199, 12, 31) - timedelta(days=number)


if __name__ == "__main__":
    json.dump(asyncio.run(main(*sys.argv[1:])), sys.stdout)
