"""What no query may do: see another prospect, take more than its share, leave the database."""

import asyncio
import re
import threading
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from conftest import NewProspect, Prospect
from extracts import csv_of, population
from test_reports import loaded

from analytics_service.batches import OF_TENANT
from analytics_service.clickhouse import ClickHouse
from analytics_service.datasets import Dataset
from analytics_service.engine import Engine, QueryTimedOut, QueryTooLarge
from analytics_service.lanes import AnalyticsBusy, ClickhouseUnavailable, Lane
from analytics_service.reports import parts
from analytics_service.reports.query import KNOWN, PERIODS

REPORTS = ["summary", "cost-trend", "conditions", "utilization", "pharmacy", "high-cost", "readmissions"]
FILTERS = [{}, {"since": "2021-06-01"}, {"until": "2022-01-01"}, {"condition": ["icd10cm:E11*", "icd10cm:I10"]}]
COHORT = {"codes": [{"system": "icd10cm", "code": "E11*"}]}
QUERIES = [
    {"dataset": name, "dimensions": [dimension], "measures": ["members", "rows", *list(known.measures)[:4]]}
    for name, known in KNOWN.items()
    for dimension in (*known.dimensions, *PERIODS)
]


async def everything(prospect: Prospect) -> list[Any]:
    """The answer to every report with every filter, and to every dimension and measure of declared queries."""
    answers = [await prospect.get(f"reports/{name}", **chosen) for name in REPORTS for chosen in FILTERS]
    answers += [
        await prospect.get("reports/pharmacy", by="drug"),
        await prospect.get("reports/conditions", order="cost"),
    ]
    answers.append(await prospect.post("reports/cohort", COHORT))
    return answers + [await prospect.post("query", asked) for asked in QUERIES]


async def test_every_statement_of_every_report_holds_the_tenants_filter(prospect: Prospect, monkeypatch):
    await loaded(prospect, population(3, pharmacy_claims=True))
    ran: list[tuple[str, dict[str, Any]]] = []
    rows = Engine.rows

    def watched(self: Engine, sql: str, parameters: Any = None) -> Any:
        ran.append((sql, dict(parameters or {})))
        return rows(self, sql, parameters)

    monkeypatch.setattr(Engine, "rows", watched)
    await everything(prospect)
    await prospect.get("batches")
    assert len(ran) > len(REPORTS) * len(FILTERS) + len(QUERIES)
    tables = "|".join(parts.TABLES)
    for sql, parameters in ran:
        named = re.findall(rf"\b(?:FROM|JOIN|,)\s+(?:{tables})\b(?! AS|\.|\s*[,)])(.{{0,90}})", sql, re.DOTALL)
        assert named, sql
        assert all(re.match(rf"(\s+FINAL)?\s+WHERE {re.escape(OF_TENANT)}", after) for after in named), sql
        assert (parameters["client"], parameters["prospect"]) == (prospect.client_id, prospect.id)


async def test_no_answer_changes_by_other_prospects_data(prospect: Prospect, new_prospect: NewProspect, jobs_service):
    await loaded(prospect, population(4, pharmacy_claims=False))
    before = await everything(prospect)
    other, sibling = new_prospect(), new_prospect()
    jobs_service.clients[sibling.id] = sibling.client_id = prospect.client_id
    for one in (other, sibling):
        await loaded(one, population(5, pharmacy_claims=True))
    assert await everything(prospect) == before


@pytest.mark.parametrize("dataset", KNOWN)
async def test_every_report_is_answered_of_a_prospect_with_one_dataset(prospect: Prospect, dataset: Dataset):
    frame = getattr(population(4, pharmacy_claims=False), dataset)
    assert (await prospect.send(dataset, csv_of(frame))).status_code == 201
    await everything(prospect)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM claims",
        "SELECT * FROM analytics.claims WHERE 1",
        "SELECT 1 FROM lines JOIN pharmacy ON 1",
        f"SELECT * FROM claims WHERE {OF_TENANT} OR 1",
        "SELECT * FROM claims FINAL WHERE prospect_id = {prospect:UUID}",
        "SELECT 1; SELECT 2",
        "SELECT * FROM lines INTO/**/OUTFILE 'x'",
        "SELECT * FROM lines into outfile '/tmp/x'",
        "SELECT * FROM file('/etc/passwd')",
        "SELECT * FROM url('http://127.0.0.1')",
        "SELECT * FROM s3('x')",
        "SELECT * FROM executable('x')",
        "SELECT * FROM system.tables",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 FORMAT CSV",
    ],
)
async def test_a_query_that_goes_around_the_fence_is_not_run(app, http, sql: str):
    scope = parts.Scope(SimpleNamespace(client_id=UUID(int=1), prospect_id=UUID(int=2)))  # type: ignore[arg-type]
    with pytest.raises(parts.Unfenced):
        await parts.select(app.state.clickhouse, scope, sql)


async def test_a_runaway_query_ends_in_time_and_the_next_is_answered(app, http, prospect: Prospect, tmp_path):
    clickhouse: ClickHouse = app.state.clickhouse
    reader = clickhouse._readers._clients[0]
    started = time.monotonic()
    with pytest.raises((QueryTimedOut, QueryTooLarge)):
        reader.rows("SELECT sum(sipHash64(number)) FROM numbers(1000000000000)")
    assert time.monotonic() - started < app.state.settings.query_timeout.total_seconds() + 5
    with pytest.raises(QueryTooLarge):
        reader.rows("SELECT length(range(400000000 + number)) FROM numbers(1)")
    with pytest.raises(QueryTooLarge):
        reader.rows("SELECT number FROM numbers(300000)")
    assert reader.rows("SELECT 1 AS one") == [{"one": 1}]
    assert (await prospect.send("claims", csv_of(population(6, pharmacy_claims=False).claims))).status_code == 201


async def test_what_a_query_that_failed_had_answered_is_in_no_other_answer(app, http):
    """The embedded engine keeps it, and would put it before the next: another prospect's rows."""
    for engine in (app.state.clickhouse._readers._clients[0], app.state.clickhouse._writer._clients[0]):
        for failing in (
            "SELECT number, 'first' AS whose FROM numbers(300000) SETTINGS max_result_rows = 200000",
            "SELECT number, 'first' AS whose, throwIf(number = 250000) FROM numbers(300000)",
        ):
            asked = (
                failing if engine is not app.state.clickhouse._readers._clients[0] else failing.partition(" SETT")[0]
            )
            with pytest.raises((QueryTooLarge, ClickhouseUnavailable)):
                engine.rows(asked)
            assert engine.rows("SELECT number, 'second' AS whose FROM numbers(1)") == [{"number": 0, "whose": "second"}]


class Polluted:
    """A client whose every answer begins with somebody else's rows."""

    closed = False

    def raw_query(self, *_: Any, **__: Any) -> bytes:
        """More than was asked for."""
        return b"7\n1\n"

    def command(self, *_: Any, **__: Any) -> None:
        """Fails."""
        raise DatabaseError

    def close(self) -> None:
        """Once and for all."""
        self.closed = True


def test_a_client_that_goes_on_answering_what_was_not_asked_is_closed():
    client = Polluted()
    with pytest.raises(ClickhouseUnavailable):
        Engine(client, embedded=True).command("SELECT 1")  # type: ignore[arg-type]
    assert client.closed


async def test_a_server_that_takes_calls_and_never_answers_is_noticed_in_bounded_time():
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    started = time.monotonic()
    with pytest.raises(ClickhouseUnavailable):
        async with ClickHouse.connect(
            f"http://127.0.0.1:{port}", readers=1, waiting=1, query_timeout=timedelta(seconds=1)
        ):
            pass
    assert time.monotonic() - started < 20
    server.close()


class Stuck:
    """A client whose work takes as long as it is told."""

    def close(self) -> None:
        """Nothing to close."""


async def test_who_waits_too_long_is_told_so():
    lane = Lane([Stuck()], name="test", waiting=5, patience=timedelta(milliseconds=100))
    go = threading.Event()
    calls = [lane.run(lambda _: go.wait()) for _ in range(2)]
    running, waiting = await asyncio.gather(*calls, return_exceptions=True)
    assert (type(running), type(waiting)) == (ClickhouseUnavailable, AnalyticsBusy)
    assert (running.status, waiting.status) == (503, 429)
    go.set()
    lane.close()
