"""Encounters, drugs, costly members, readmissions and filters, each against polars on made-up data."""

from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from math import ceil
from typing import Any

import polars as pl
import pytest
from conftest import Prospect
from extracts import Population, cents, costs, diagnosed, month, population, spans, total
from test_reports import loaded


@pytest.fixture
def data() -> Population:
    return population(11, pharmacy_claims=False)


def tenth(value: float | Decimal) -> Decimal:
    return Decimal(str(value)).quantize(Decimal("0.1"), rounding=ROUND_HALF_UP)


async def test_utilization(prospect: Prospect, data: Population):
    await loaded(prospect, data)
    rows = (await prospect.get("reports/utilization"))["rows"]
    stays = data.utilization.with_columns(
        days=pl.col("length_of_stay_days").cast(pl.Int64), cost=pl.col("total_cost").cast(pl.Decimal(18, 2))
    )
    each = stays.group_by("encounter_class", "member_id", "encounter_id").agg(
        pl.col("days").max(), pl.col("cost").sum()
    )
    months = int((spans(data)["last"] - spans(data)["first"] + 1).sum())
    for row in rows:
        own = each.filter(pl.col("encounter_class") == row["encounter_class"])
        assert row["members"] == own["member_id"].n_unique()
        assert row["encounters"] == own.height
        assert Decimal(row["per_1000"]) == tenth(Decimal(12_000 * own.height) / months)
        assert Decimal(row["length_of_stay_days"]) == tenth(Decimal(int(own["days"].sum())) / own.height)
        assert row["total_cost"] == str(cents(own["cost"].sum()))
    assert sum(row["encounters"] for row in rows) == each.height


@pytest.mark.parametrize("by", ["class", "drug"])
async def test_pharmacy(prospect: Prospect, data: Population, by: str):
    await loaded(prospect, data)
    [row] = (await prospect.get("reports/pharmacy", by=by))["rows"]
    assert row == {
        "code_system": "ndc" if by == "drug" else "",
        "code": "00093104801" if by == "drug" else "",
        "name": "Metformin 500 MG" if by == "drug" else "biguanides",
        "members": data.pharmacy["member_id"].n_unique(),
        "fills": data.pharmacy.height,
        "dispenses": data.pharmacy.height,
        "days_supply": 30 * data.pharmacy.height,
        "total_paid": str(cents(data.pharmacy.select(total().sum()).item())),
    }


async def test_high_cost(prospect: Prospect, data: Population):
    await loaded(prospect, data)
    rows = (await prospect.get("reports/high-cost"))["rows"]
    each = spans(data).join(costs(data).group_by("member_id").agg(pl.col("cost").sum()), on="member_id", how="left")
    paid = sorted((Decimal(str(value or 0)) for value in each["cost"]), reverse=True)
    for row, percent in zip(rows, (1, 5, 10), strict=True):
        top = paid[: ceil(len(paid) * percent / 100)]
        assert (row["top_percent"], row["members"], row["total_paid"]) == (percent, len(top), str(cents(sum(top))))
        assert Decimal(row["share_percent"]) == tenth(100 * sum(top) / sum(paid))
        assert row["mean_paid"] == str((sum(top) / len(top)).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP))


async def test_readmissions(prospect: Prospect, data: Population):
    await loaded(prospect, data)
    report = await prospect.get("reports/readmissions")
    last = max(date.fromisoformat(start[:10]) for start in data.utilization["start"])
    stays: dict[str, dict[str, list[Any]]] = {}
    for row in data.utilization.filter(pl.col("encounter_class") == "inpatient").rows(named=True):
        start = date.fromisoformat(row["start"][:10])
        end = start + timedelta(days=int(row["length_of_stay_days"]))
        stay = stays.setdefault(row["member_id"], {}).setdefault(row["encounter_id"], [start, end])
        stay[:] = [min(stay[0], start), max(stay[1], end)]
    discharges = found = 0
    for of_member in stays.values():
        ordered = sorted(of_member.values())
        for index, (_, end) in enumerate(ordered):
            gap = (ordered[index + 1][0] - end).days if index + 1 < len(ordered) else None
            if (gap is None or gap >= 1) and end + timedelta(days=30) <= last:
                discharges += 1
                found += gap is not None and gap <= 30
    assert (report["discharges"], report["readmissions"]) == (discharges, found)
    assert Decimal(report["rate_percent"]) == tenth(Decimal(100 * found) / discharges)


async def test_a_readmission_is_one_to_thirty_days_after_the_end_and_a_transfer_is_none(prospect: Prospect):
    rows = ["member_id,encounter_id,start,end,encounter_class"]
    for member, days in enumerate((0, 1, 30, 31)):
        again = date(2024, 1, 5) + timedelta(days=days)
        rows += [f"M-{member},A-{member},2024-01-01,2024-01-05,inpatient", f"M-{member},B-{member},{again},,inpatient"]
    rows.append("M-9,Z,2024-12-31,,wellness")
    assert (await prospect.send("utilization", "\n".join(rows))).status_code == 201
    report = await prospect.get("reports/readmissions")
    assert (report["discharges"], report["readmissions"], report["rate_percent"]) == (7, 2, "28.6")


async def test_filters_choose_rows_by_date_and_members_by_condition(prospect: Prospect, data: Population):
    await loaded(prospect, data)
    since, until = "2021-06-01", "2022-05-31"
    dated = Population(
        data.claims.filter(pl.col("service_date").is_between(pl.lit(since), pl.lit(until))),
        data.clinical.filter(
            pl.when(pl.col("kind") == "condition")
            .then(pl.col("recorded_date") <= until)
            .otherwise(pl.col("recorded_date").is_between(pl.lit(since), pl.lit(until)))
        ),
        data.utilization.filter(pl.col("start").str.slice(0, 10).is_between(pl.lit(since), pl.lit(until))),
        data.pharmacy.filter(pl.col("fill_date").is_between(pl.lit(since), pl.lit(until))),
    )
    summary = await prospect.get("reports/summary", since=since, until=until)
    assert summary["members"] == spans(dated).height
    assert summary["total_paid"] == str(cents(costs(dated)["cost"].sum()))
    ill = diagnosed(dated).filter(pl.col("code").str.starts_with("E11"))["member_id"].implode()
    summary = await prospect.get("reports/summary", since=since, until=until, condition="icd10cm:E11*")
    assert summary["members"] == spans(dated).filter(pl.col("member_id").is_in(ill)).height
    assert summary["total_paid"] == str(cents(costs(dated).filter(pl.col("member_id").is_in(ill))["cost"].sum()))
    trend = (await prospect.get("reports/cost-trend", since=since, until=until))["rows"]
    assert (trend[0]["month"], trend[-1]["month"]) == ("2021-06-01", "2022-05-01")
    cohort = await prospect.post("reports/cohort", {"codes": [{"system": "icd10cm", "code": "E11*"}]})
    everything = await prospect.get("reports/summary", condition="icd10cm:E11*")
    assert cohort["cohort"]["total_paid"] == everything["total_paid"]


async def test_a_condition_that_has_ended_counts_until_then(prospect: Prospect):
    await prospect.send("utilization", "member_id,encounter_id,start,encounter_class\nM,E,2024-06-01,wellness\n")
    rows = "member_id,recorded_date,kind,code,code_system,end_date\nM,2020-01-01,condition,J459,icd10cm,2021-01-01\n"
    assert (await prospect.send("clinical", rows)).status_code == 201
    assert (await prospect.get("reports/summary", condition="icd10cm:J45*"))["members"] == 1
    assert (await prospect.get("reports/summary", condition="icd10cm:J45*", since="2024-01-01"))["members"] == 0


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"since": "2024-02-01", "until": "2024-01-01"}, "query.since"),
        ({"since": "1577836800"}, "query.since"),
        ({"since": "20240101"}, "query.since"),
        ({"since": ["2024-01-01", "2024-02-01"]}, "query.since"),
        ({"untill": "2024-01-01"}, "query.untill"),
        ({"sex": "F"}, "query.sex"),
        ({"since": "1066-10-14"}, "query.since"),
        ({"condition": "loinc:E11"}, "query.condition"),
        ({"condition": "E11"}, "query.condition.0"),
        ({"condition": "icd10cm:E11'"}, "query.condition.0"),
    ],
)
async def test_filters_are_checked(prospect: Prospect, params: dict[str, str], field: str):
    answer = await prospect.http.get(f"{prospect.path}/reports/summary", params=params, headers=prospect.headers)
    assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, field)


@pytest.mark.parametrize("dimension", ["month", "claim_type", "category"])
async def test_a_declared_query(prospect: Prospect, data: Population, dimension: str):
    await loaded(prospect, data)
    answer = await prospect.post(
        "query", {"dataset": "claims", "dimensions": [dimension], "measures": ["members", "claims", "total_paid"]}
    )
    lines = data.claims.with_columns(
        month=pl.col("service_date").str.slice(0, 7),
        category=pl.when(pl.col("place_of_service") == "23").then(pl.lit("emergency")).otherwise("claim_type"),
        cost=total(),
    )
    expected = (
        lines.group_by(dimension)
        .agg(pl.col("member_id").n_unique(), claims=pl.struct("member_id", "claim_id").n_unique(), cost=pl.sum("cost"))
        .sort(dimension)
    )
    assert answer["columns"] == [dimension, "members", "claims", "total_paid"]
    assert answer["rows"] == [[*row[:3], str(cents(row[3]))] for row in expected.rows()]
    assert month("service_date") is not None


async def test_a_declared_query_takes_filters_order_and_limit(prospect: Prospect, data: Population):
    await loaded(prospect, data)
    asked = {
        "dataset": "utilization",
        "dimensions": ["encounter_class"],
        "measures": ["encounters"],
        "filters": {"encounter_class": ["inpatient", "emergency", "') OR 1=1 --"]},
        "order_by": "encounters",
        "limit": 1,
    }
    answer = await prospect.post("query", asked)
    assert (len(answer["rows"]), answer["truncated"]) == (1, True)
    both = (await prospect.post("query", asked | {"limit": 9}))["rows"]
    assert {row[0] for row in both} == {"inpatient", "emergency"}
    assert both[0][1] >= both[1][1]
    total_rows = await prospect.post("query", {"dataset": "clinical", "measures": ["rows"]})
    assert total_rows["rows"] == [[data.clinical.height]]


HOSTILE = [
    "members; DROP TABLE claims",
    "count() FROM claims --",
    "file('/etc/passwd')",
    "url('http://127.0.0.1:1')",
    "(SELECT 1) INTO OUTFILE 'x'",
    "system.tables",
    "members SETTINGS readonly=0",
    "member_id",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("place", ["dataset", "dimensions", "measures", "filters", "order_by"])
async def test_no_sql_gets_into_a_declared_query(prospect: Prospect, text: str, place: str):
    asked: dict[str, Any] = {"dataset": "claims", "dimensions": ["month"], "measures": ["members"]}
    asked[place] = {"dataset": text, "order_by": text, "filters": {text: ["x"]}}.get(place, [text])
    answer = await prospect.http.post(f"{prospect.path}/query", json=asked, headers=prospect.headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


@pytest.mark.parametrize(
    "wrong",
    [
        {"measures": []},
        {"measures": ["members", "members"]},
        {"since": "2024-02-01", "until": "2024-01-01"},
        {"order_by": "paid"},
        {"limit": 0},
        {"sql": "SELECT 1"},
    ],
)
async def test_declared_queries_are_checked(prospect: Prospect, wrong: dict[str, Any]):
    asked = {"dataset": "claims", "measures": ["members"]} | wrong
    answer = await prospect.http.post(f"{prospect.path}/query", json=asked, headers=prospect.headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
