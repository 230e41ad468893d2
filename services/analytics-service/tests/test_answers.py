"""Answers that are kept: asked once, of the batches that count now, never without bound."""

import asyncio
from typing import Any

import pytest
from conftest import Prospect
from extracts import csv_of, population

from analytics_service import answers as module
from analytics_service import batches
from analytics_service.answers import Answers
from analytics_service.clickhouse import ClickHouse
from analytics_service.engine import Engine
from analytics_service.prospects import Tenant
from analytics_service.reports import parts


class Question:
    """Counts how often it is asked, and answers when it is let."""

    def __init__(self, rows: int = 1) -> None:
        self.asked = 0
        self.go = asyncio.Event()
        self.rows = [{"n": n} for n in range(rows)]

    async def __call__(self) -> list[dict[str, Any]]:
        self.asked += 1
        await self.go.wait()
        return self.rows


async def test_who_asks_the_same_at_once_waits_for_one_answer():
    answers, question = Answers(), Question()
    first = asyncio.create_task(answers.of("a", question))
    others = [asyncio.create_task(answers.of("a", question)) for _ in range(7)]
    await asyncio.sleep(0)
    first.cancel()  # who asked first goes; the others get their answer
    question.go.set()
    assert await asyncio.gather(*others) == [question.rows] * 7
    assert await answers.of("a", question) == question.rows
    assert question.asked == 1


async def test_an_error_reaches_all_and_is_not_kept():
    answers, asked = Answers(), []

    async def wrong() -> list[dict[str, Any]]:
        asked.append(1)
        await asyncio.sleep(0)
        raise LookupError

    found = await asyncio.gather(*(answers.of("a", wrong) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [LookupError] * 3
    with pytest.raises(LookupError):
        await answers.of("a", wrong)
    assert len(asked) == 2


async def test_answers_take_bounded_room_and_age(monkeypatch):
    answers = Answers()
    for number in range(100):
        question = Question(rows=module.LARGEST)
        question.go.set()
        await answers.of(number, question)
    assert answers._rows == sum(1 + len(rows) for _, rows in answers._kept.values()) <= module.ROOM
    assert next(reversed(answers._kept)) == 99
    large = Question(rows=module.LARGEST + 1)
    large.go.set()
    for _ in range(2):
        await answers.of("large", large)
    assert large.asked == 2
    monkeypatch.setattr("analytics_service.answers.time.monotonic", lambda: 1e12)
    again = Question()
    again.go.set()
    assert await answers.of(99, again) == again.rows


async def test_a_report_asked_again_reads_no_data_and_one_after_a_change_does(prospect: Prospect, monkeypatch):
    data = population(3, pharmacy_claims=False)
    assert (await prospect.send("claims", csv_of(data.claims))).status_code == 201
    read: list[str] = []
    rows = Engine.rows

    def watched(self: Engine, sql: str, parameters: Any = None) -> Any:
        read.extend(table for table in ("claims", "pharmacy") if f"FROM {table} " in sql)
        return rows(self, sql, parameters)

    monkeypatch.setattr(Engine, "rows", watched)
    first = await prospect.get("reports/summary")
    assert read
    read.clear()
    assert await prospect.get("reports/summary") == first
    assert not read
    batch = (await prospect.send("pharmacy", csv_of(data.pharmacy))).json()["id"]
    read.clear()
    assert (await prospect.get("reports/summary"))["fills"] == data.pharmacy.height
    assert "pharmacy" in read
    await prospect.http.delete(f"{prospect.path}/batches/{batch}", headers=prospect.headers)
    assert await prospect.get("reports/summary") == first


async def test_a_batch_that_is_taken_out_meanwhile_is_in_no_answer(app, prospect: Prospect, monkeypatch):
    """Its rows may be half gone when the query reads them."""
    data = population(3, pharmacy_claims=False)
    assert (await prospect.send("claims", csv_of(data.claims))).status_code == 201
    gone = (await prospect.send("pharmacy", csv_of(data.pharmacy))).json()["id"]
    clickhouse: ClickHouse = app.state.clickhouse
    read = clickhouse.read
    waiting = [gone]

    async def interrupted(sql: str, parameters: Any = None) -> Any:
        rows = await read(sql, parameters)
        if "AS fills" in sql and waiting:
            tenant = Tenant(prospect.client_id, prospect.id)
            await batches.delete(clickhouse, tenant, waiting.pop())
        return rows

    monkeypatch.setattr(clickhouse, "read", interrupted)
    summary = await prospect.get("reports/summary")
    assert not waiting
    assert (summary["fills"], summary["pharmacy_source"]) == (0, "none")


def test_parts_read_no_dataset_that_is_not_there():
    for datasets in ([], ["claims"], ["pharmacy", "clinical"], ["claims", "clinical", "utilization", "pharmacy"]):
        sql = parts.parts(dated=(False, False), chosen=False, datasets=frozenset(datasets), pharmacy_in_claims=False)
        events = sql.partition("events AS")[2].partition("members AS")[0]
        named = {"claims": "FROM lines", "utilization": "FROM stays", "pharmacy": "FROM fills"}
        read = {name for name, text in named.items() if text in events}
        assert read == (set(datasets) & set(named) or {"claims"})
