"""What no query may do: see another prospect, tell of a few people, take more than its share, leave the database."""

import asyncio
import csv
import io
import itertools
import random
import re
import threading
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import polars as pl
import pyarrow as pa
import pytest
from conftest import NewProspect, Prospect
from extracts import csv_of, population
from test_reports import loaded

from analytics_service.batches import OF_TENANT
from analytics_service.clickhouse import ClickHouse, Engine, QueryTimedOut, QueryTooLarge
from analytics_service.lanes import AnalyticsBusy, ClickhouseUnavailable, Lane
from analytics_service.reports import exports, parts, suppression
from analytics_service.reports.query import KNOWN, PERIODS
from analytics_service.reports.schemas import PharmacyReport, PharmacyRow

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


@pytest.mark.parametrize("seed", range(200))
def test_what_is_hidden_cannot_be_computed(seed: int):
    rng = random.Random(seed)
    counts, smallest = [rng.randrange(60) for _ in range(rng.randrange(12))], rng.randrange(1, 21)
    rows = [(count, uuid4()) for count in counts]
    kept = suppression.shown(rows, lambda row: row[0], smallest=smallest, add_up=True)
    hidden = [row[0] for row in rows if row not in kept]
    assert all(row[0] == 0 or row[0] >= smallest for row in kept)
    assert not hidden or (len(hidden) > 1 and sum(hidden) >= smallest) or not any(row[0] for row in kept)
    assert kept == [row for row in rows if row in kept]


@pytest.fixture
def as_client(prospect: Prospect, as_user: Any) -> Prospect:
    """The prospect as its client's own people see it."""
    prospect.staff = prospect.headers  # type: ignore[attr-defined]
    prospect.headers = as_user("editor", client_id=prospect.client_id)
    return prospect


def few(members: int, code: str, first: int = 0) -> str:
    rows = [f"M-{first + n},C-{first + n},2024-01-0{n % 9 + 1},other,{code},10.00,0" for n in range(members)]
    return "\n".join(["member_id,claim_id,service_date,claim_type,diagnosis_codes,paid,member_paid", *rows])


async def test_a_population_of_ten_is_shown_to_staff_alone(as_client: Prospect, as_user: Any):
    await as_client.send("claims", few(10, "E11.9"))
    for name in REPORTS:
        answer = await as_client.http.get(f"{as_client.path}/reports/{name}", headers=as_client.headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "group_too_small"), name
        export = await as_client.http.get(f"{as_client.path}/reports/{name}/export", headers=as_client.headers)
        assert export.status_code == 422, name
    for path, body in (("reports/cohort", COHORT), ("query", {"dataset": "claims", "measures": ["members"]})):
        answer = await as_client.http.post(f"{as_client.path}/{path}", json=body, headers=as_client.headers)
        assert answer.json()["code"] == "group_too_small"
    as_client.headers = as_client.staff  # type: ignore[attr-defined]
    assert (await as_client.get("reports/summary"))["members"] == 10


async def test_small_groups_and_what_would_tell_them_are_not_shown(as_client: Prospect):
    for first, members, code in ((0, 5, "E11.9"), (100, 20, "I10"), (200, 30, "J45.909")):
        assert (await as_client.send("claims", few(members, code, first))).status_code == 201
    conditions = await as_client.get("reports/conditions")
    assert {row["code"] for row in conditions["rows"]} == {"I10", "J45.909"}
    for chosen in (COHORT, {"codes": [{"system": "icd10cm", "code": "I10"}, {"system": "icd10cm", "code": "J45*"}]}):
        answer = await as_client.http.post(f"{as_client.path}/reports/cohort", json=chosen, headers=as_client.headers)
        assert answer.json()["code"] == "group_too_small"
    answer = await as_client.http.get(
        f"{as_client.path}/reports/summary", params={"condition": "icd10cm:E11*"}, headers=as_client.headers
    )
    assert answer.json()["code"] == "group_too_small"
    assert (await as_client.post("reports/cohort", {"codes": [{"system": "icd10cm", "code": "I10"}]}))["cohort"][
        "members"
    ] == 20


async def test_a_months_few_members_hide_a_second_month(as_client: Prospect):
    header = "member_id,claim_id,service_date,claim_type,paid,member_paid"
    members = {"2024-01": 30, "2024-02": 4, "2024-03": 12, "2024-04": 20}
    rows = [
        f"M-{month}-{n},C-{month}-{n},{month}-05,other,1.00,0" for month, count in members.items() for n in range(count)
    ]
    await as_client.send("claims", "\n".join([header, *rows]))
    trend = await as_client.get("reports/cost-trend")
    assert [row["month"] for row in trend["rows"]] == ["2024-01-01", "2024-04-01"]
    assert trend["suppressed"] == 2
    asked = {"dataset": "claims", "dimensions": ["month"], "measures": ["rows"]}
    answer = await as_client.post("query", asked)
    assert (answer["rows"], answer["suppressed"]) == ([["2024-01", 30], ["2024-04", 20]], 2)


async def test_what_a_month_cost_few_members_is_not_shown_however_many_count_in_it(as_client: Prospect):
    header = "member_id,claim_id,service_date,claim_type,paid,member_paid"
    months = {"2024-01": 30, "2024-02": 3, "2024-03": 30, "2024-04": 40}
    rows = [f"M-{n},C-{month}-{n},{month}-05,other,1.00,0" for month, count in months.items() for n in range(count)]
    await as_client.send("claims", "\n".join([header, *rows]))
    trend = await as_client.get("reports/cost-trend")
    assert [row["month"] for row in trend["rows"]] == ["2024-03-01", "2024-04-01"]
    as_client.headers = as_client.staff  # type: ignore[attr-defined]
    assert len((await as_client.get("reports/cost-trend"))["rows"]) == 4


async def test_pharmacy_of_few_members_is_not_shown(as_client: Prospect):
    await as_client.send("claims", few(30, "I10"))
    fills = [f"M-{n},F-{n},2024-01-05,00093104801,5.00,0" for n in range(3)]
    await as_client.send("pharmacy", "\n".join(["member_id,fill_id,fill_date,drug_code,paid,member_paid", *fills]))
    summary = await as_client.get("reports/summary")
    assert summary["pharmacy_paid"] is summary["medical_paid"] is None
    assert "pharmacy" not in summary["paid_by_category"]
    assert (await as_client.get("reports/pharmacy"))["rows"] == []


async def test_an_export_holds_what_the_report_holds(prospect: Prospect):
    await loaded(prospect, population(8, pharmacy_claims=True))
    for name, kind in itertools.product(REPORTS, exports.MEDIA_TYPES):
        report = await prospect.get(f"reports/{name}")
        answer = await prospect.http.get(
            f"{prospect.path}/reports/{name}/export", params={"format": kind}, headers=prospect.headers
        )
        assert answer.status_code == 200
        assert answer.headers["content-type"] == exports.MEDIA_TYPES[kind]
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}.{kind}"'
        match kind:
            case "csv":
                rows = list(csv.DictReader(io.StringIO(answer.text)))
            case "parquet":
                rows = pl.read_parquet(io.BytesIO(answer.content)).to_dicts()
            case _:
                rows = pa.ipc.open_stream(answer.content).read_all().to_pylist()
        shown = report.get("rows", [report])
        assert len(rows) == len(shown), name
        for exported, row in zip(rows, shown, strict=True):
            flat = row | {f"paid_{key}": paid for key, paid in row.get("paid_by_category", {}).items()}
            flat.pop("paid_by_category", None)
            assert exported.keys() == flat.keys()
            for key, value in flat.items():
                same = float(exported[key]) == float(value) if re.fullmatch(r"-?[\d.]+", str(value)) else None
                assert same or str(exported[key]) == str(value), (name, key)


async def test_an_export_of_a_prospect_without_data_has_its_columns(prospect: Prospect):
    path = f"{prospect.path}/reports/pharmacy/export"
    parquet = await prospect.http.get(path, params={"format": "parquet"}, headers=prospect.headers)
    assert pl.read_parquet(io.BytesIO(parquet.content)).columns == list(PharmacyRow.model_fields)
    text = (await prospect.http.get(path, headers=prospect.headers)).text
    assert text.strip().split(",") == list(PharmacyRow.model_fields)


def pharmacy_of(names: list[str]) -> PharmacyReport:
    return PharmacyReport(
        by="drug",
        rows=[
            PharmacyRow(
                code_system="ndc",
                code="1",
                name=name,
                members=1,
                fills=1,
                dispenses=1,
                days_supply=1,
                total_paid="1.00",
            )
            for name in names
        ],
    )


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_a_csv_is_a_formula(first: str):
    text = b"".join(exports.exported(pharmacy_of([f'{first}HYPERLINK("x")', "Metformin"]), "csv")).decode()
    names = [row["name"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert names == [f'\'{first}HYPERLINK("x")', "Metformin"]


@pytest.mark.parametrize("kind", exports.MEDIA_TYPES)
def test_an_export_leaves_in_pieces(kind: exports.Format):
    pieces = list(exports.exported(pharmacy_of([f"Drug {n}" for n in range(5000)]), kind))
    assert len(pieces) > 5
    assert max(map(len, pieces)) < len(b"".join(pieces)) / 2
