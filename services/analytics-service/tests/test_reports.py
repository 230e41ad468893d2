"""Each figure against an independent computation in polars, on made-up data."""

from decimal import ROUND_HALF_UP, Decimal

import polars as pl
import pytest
from conftest import NewProspect, Prospect
from extracts import Population, cents, costs, csv_of, diagnosed, population, spans

from analytics_service.engine import Engine

CATEGORIES = ["inpatient", "emergency", "outpatient", "professional", "pharmacy", "other"]


async def loaded(prospect: Prospect, data: Population) -> Population:
    for dataset in ("claims", "clinical", "utilization", "pharmacy"):
        answer = await prospect.send(dataset, csv_of(getattr(data, dataset)))
        assert answer.status_code == 201, answer.text
        assert answer.json()["rows"] == getattr(data, dataset).height
    return data


@pytest.fixture(params=[True, False], ids=["pharmacy in claims", "pharmacy in fills"])
def data(request) -> Population:
    return population(7, pharmacy_claims=request.param)


def half_up(value: Decimal, unit: str = "0.01") -> Decimal:
    return value.quantize(Decimal(unit), rounding=ROUND_HALF_UP)


async def test_summary(prospect: Prospect, data: Population):
    await loaded(prospect, data)
    report = await prospect.get("reports/summary")
    cost, span = costs(data), spans(data)
    months = int((span["last"] - span["first"] + 1).sum())
    by_category = {name: cents(cost.filter(pl.col("category") == name)["cost"].sum()) for name in CATEGORIES}
    total = cents(cost["cost"].sum())
    in_claims = (data.claims["claim_type"] == "pharmacy").any()
    plan = cents(data.claims["paid"].cast(pl.Decimal(18, 2)).sum())
    if not in_claims:
        plan += cents(data.pharmacy["paid"].cast(pl.Decimal(18, 2)).sum())
    assert report == {
        "members": span.height,
        "member_months": months,
        "first_month": first_day(span["first"].min()),
        "last_month": first_day(span["last"].max()),
        "total_paid": str(total),
        "plan_paid": str(plan),
        "member_paid": str(total - plan),
        "medical_paid": str(total - by_category["pharmacy"]),
        "pharmacy_paid": str(by_category["pharmacy"]),
        "pharmacy_source": "claims" if in_claims else "fills",
        "pmpm": str(half_up(total / months)),
        "claims": data.claims.select("member_id", "claim_id").unique().height,
        "encounters": data.utilization.select("member_id", "encounter_id").unique().height,
        "fills": data.pharmacy.height,
        "paid_by_category": {name: str(paid) for name, paid in by_category.items()},
        "currency": "USD",
    }


async def test_cost_trend(prospect: Prospect, data: Population):
    await loaded(prospect, data)
    rows = (await prospect.get("reports/cost-trend"))["rows"]
    cost, span = costs(data), spans(data)
    expected = []
    for month in range(span["first"].min(), span["last"].max() + 1):
        members = span.filter((pl.col("first") <= month) & (pl.col("last") >= month)).height
        paid = cents(cost.filter(pl.col("month") == month)["cost"].sum())
        expected.append(
            {
                "month": first_day(month),
                "members": members,
                "total_paid": str(paid),
                "pmpm": str(half_up(paid / members if members else Decimal(0))),
            }
        )
    assert rows == expected


@pytest.mark.parametrize("order", ["prevalence", "cost"])
async def test_conditions(prospect: Prospect, data: Population, order: str):
    await loaded(prospect, data)
    rows = (await prospect.get("reports/conditions", order=order, limit=200))["rows"]
    members = spans(data).select("member_id")
    paid = members.join(costs(data).group_by("member_id").agg(pl.col("cost").sum()), on="member_id", how="left")
    found = diagnosed(data).join(paid.fill_null(0), on="member_id").group_by("code")
    expected = found.agg(members=pl.len(), cost=pl.col("cost").sum()).rows(named=True)
    assert {row["code"]: (row["members"], row["total_paid"]) for row in rows} == {
        row["code"]: (row["members"], str(cents(row["cost"]))) for row in expected
    }
    for row in rows:
        assert row["description"] == f"About {row['code']}"
        assert Decimal(row["prevalence_per_1000"]) == half_up(Decimal(1000 * row["members"]) / members.height, "0.1")
    figures = [row["members"] if order == "prevalence" else Decimal(row["total_paid"]) for row in rows]
    assert figures == sorted(figures, reverse=True)
    first = (await prospect.get("reports/conditions", order=order, limit=2))["rows"]
    assert first == rows[:2]


@pytest.mark.parametrize(
    ("codes", "pattern"),
    [(["E11*"], "^E11"), (["E119"], "^E11.9$"), (["E11.65", "J45*"], "^(E11.65|J45)"), (["Z99"], "^Z99$")],
)
async def test_cohort(prospect: Prospect, data: Population, codes: list[str], pattern: str):
    await loaded(prospect, data)
    report = await prospect.post("reports/cohort", {"codes": [{"system": "icd10cm", "code": code} for code in codes]})
    mine = diagnosed(data).filter(pl.col("code").str.contains(pattern.replace(".", r"\.")))["member_id"].implode()
    for name, inside in (("cohort", True), ("rest", False)):
        span = spans(data).filter(pl.col("member_id").is_in(mine) == inside)
        cost = costs(data).filter(pl.col("member_id").is_in(mine) == inside)
        months = int((span["last"] - span["first"] + 1).sum())
        total = cents(cost["cost"].sum())
        assert report[name] == {
            "members": span.height,
            "member_months": months,
            "total_paid": str(total),
            "pmpm": str(half_up(total / months if months else Decimal(0))),
            "paid_by_category": {
                category: str(cents(cost.filter(pl.col("category") == category)["cost"].sum()))
                for category in CATEGORIES
            },
        }


@pytest.mark.parametrize("months", [1, 7, 120])
async def test_a_cohorts_last_months_count_those_months_and_members_alone(
    prospect: Prospect, data: Population, months: int
):
    await loaded(prospect, data)
    wanted = {"codes": [{"system": "icd10cm", "code": "E11*"}], "last_months": months}
    report = await prospect.post("reports/cohort", wanted)
    newest = spans(data)["last"].max()
    oldest = newest - months + 1
    mine = diagnosed(data).filter(pl.col("code").str.starts_with("E11"))["member_id"].implode()
    for name, inside in (("cohort", True), ("rest", False)):
        span = spans(data).filter((pl.col("member_id").is_in(mine) == inside) & (pl.col("last") >= oldest))
        cost = costs(data).filter((pl.col("member_id").is_in(mine) == inside) & (pl.col("month") >= oldest))
        assert report[name]["members"] == span.height
        assert report[name]["member_months"] == int((span["last"] - span["first"].clip(oldest) + 1).sum())
        assert report[name]["total_paid"] == str(cents(cost["cost"].sum()))
        assert report[name]["paid_by_category"] == {
            category: str(cents(cost.filter(pl.col("category") == category)["cost"].sum())) for category in CATEGORIES
        }
    assert (report["first_month"], report["last_month"]) == (first_day(oldest), first_day(newest))


async def test_a_cohort_of_no_data_has_no_last_months(prospect: Prospect):
    wanted = {"codes": [{"system": "icd10cm", "code": "E11*"}], "last_months": 12}
    report = await prospect.post("reports/cohort", wanted)
    assert report["cohort"]["members"] == report["rest"]["members"] == 0
    assert report["first_month"] is report["last_month"] is None


async def test_cohort_of_another_system_is_empty(prospect: Prospect, data: Population):
    await loaded(prospect, data)
    report = await prospect.post("reports/cohort", {"codes": [{"system": "snomed", "code": "E119"}]})
    assert report["cohort"]["members"] == 0
    assert report["rest"]["members"] == spans(data).height


async def test_a_prospect_without_data_answers_zeros(prospect: Prospect):
    summary = await prospect.get("reports/summary")
    assert summary["members"] == summary["member_months"] == summary["claims"] == 0
    assert summary["total_paid"] == summary["pmpm"] == "0.00"
    assert summary["first_month"] is summary["last_month"] is None
    assert summary["pharmacy_source"] == "none"
    assert (await prospect.get("reports/cost-trend"))["rows"] == []
    assert (await prospect.get("reports/conditions"))["rows"] == []
    cohort = await prospect.post("reports/cohort", {"codes": [{"system": "icd10cm", "code": "E11*"}]})
    assert cohort["cohort"] == cohort["rest"]
    assert cohort["rest"]["pmpm"] == "0.00"


async def test_reports_hold_the_sum_of_a_million_lines_of_the_largest_amount(app, prospect: Prospect):
    """Ten quadrillion and more: beyond eighteen digits, which are enough for a line."""
    header = "member_id,claim_id,service_date,claim_type,diagnosis_codes,paid,member_paid"
    answer = await prospect.send("claims", f"{header}\nM-1,C-1,2024-01-31,inpatient,E11.9,10000000000,10000000000.00\n")
    assert answer.status_code == 201, answer.text

    def multiply(engine: Engine) -> None:
        engine.command(
            "INSERT INTO claims SELECT line.* FROM claims AS line CROSS JOIN numbers(999999) AS n "
            "WHERE batch_id = {id:UUID}",
            {"id": answer.json()["id"]},
        )

    await app.state.clickhouse.write(multiply)
    total = "20000000000000000.00"
    summary = await prospect.get("reports/summary")
    assert (summary["total_paid"], summary["pmpm"]) == (total, total)
    assert (await prospect.get("reports/cost-trend"))["rows"][0]["total_paid"] == total
    assert (await prospect.get("reports/conditions"))["rows"][0]["total_paid"] == total
    cohort = await prospect.post("reports/cohort", {"codes": [{"system": "icd10cm", "code": "E11*"}]})
    assert cohort["cohort"]["paid_by_category"]["inpatient"] == total


async def test_reports_see_one_prospect(new_prospect: NewProspect):
    one, other = new_prospect(), new_prospect()
    first = await loaded(one, population(1, pharmacy_claims=False))
    second = await loaded(other, population(2, pharmacy_claims=False))
    totals = [(await one.get("reports/summary"))["total_paid"], (await other.get("reports/summary"))["total_paid"]]
    assert totals == [str(cents(costs(data)["cost"].sum())) for data in (first, second)]
    assert totals[0] != totals[1]


def first_day(month: int) -> str:
    return f"{month // 12}-{month % 12 + 1:02}-01"
