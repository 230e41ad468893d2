"""The population and what it costs: summary and trend. What every figure means stands in docs/METRICS.md."""

# ruff: noqa: S608  the SQL put together here is made of our own words; values are bound

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from analytics_service.clickhouse import ClickHouse
from analytics_service.engine import Row
from analytics_service.reports import suppression
from analytics_service.reports.parts import CATEGORIES, Scope, first_day, per, select
from triton_common.schemas import CostCategory, CostTrendReport, CostTrendRow, SummaryReport

BY_CATEGORY = ", ".join(
    f"sum(members.{name}_paid) AS {name}_paid, countIf(members.{name}_paid != 0) AS {name}_members"
    for name in CATEGORIES
)
"""SQL over members: what was paid, and for how many, by category."""


async def summary(clickhouse: ClickHouse, scope: Scope) -> SummaryReport:
    """Members, member months, what was paid and for what; zeros where there is no data. Raises GroupTooSmall."""
    await suppression.check(clickhouse, scope)
    [row] = await select(
        clickhouse,
        scope,
        f"""
        SELECT count() AS members, sum(members.months) AS member_months,
               min(first_month) AS first_month, max(last_month) AS last_month,
               {BY_CATEGORY},
               sum(members.plan_paid) AS plan_paid, sum(members.own_paid) AS member_paid,
               sum(members.claims) AS claims, sum(members.encounters) AS encounters, sum(members.fills) AS fills,
               {{pharmacy_in_claims:UInt8}} AS pharmacy_in_claims
        FROM members""",
    )
    total = row["plan_paid"] + row["member_paid"]
    categories = by_category(row, scope)
    pharmacy = categories.get(CostCategory.PHARMACY)
    return SummaryReport(
        members=row["members"],
        member_months=row["member_months"],
        first_month=first_day(row["first_month"]) if row["members"] else None,
        last_month=first_day(row["last_month"]) if row["members"] else None,
        total_paid=total,
        plan_paid=row["plan_paid"],
        member_paid=row["member_paid"],
        medical_paid=None if pharmacy is None else total - pharmacy,
        pharmacy_paid=pharmacy,
        pharmacy_source="claims" if row["pharmacy_in_claims"] else "fills" if row["fills"] else "none",
        pmpm=per(total, row["member_months"]),
        claims=row["claims"],
        encounters=row["encounters"],
        fills=row["fills"],
        paid_by_category=categories,
    )


async def cost_trend(clickhouse: ClickHouse, scope: Scope) -> CostTrendReport:
    """What was paid in each calendar month from the first to the last. Raises GroupTooSmall."""
    await suppression.check(clickhouse, scope)
    rows = await select(
        clickhouse,
        scope,
        f"""
        SELECT month, sum(paid) AS total_paid, sum(started) AS started, sum(ended) AS ended,
               {"uniqExactIf(member_id, paid != 0)" if scope.smallest else "0"} AS payers
        FROM (SELECT member_id, month, paid + member_paid AS paid, 0 AS started, 0 AS ended FROM events
              UNION ALL SELECT member_id, edge.1, toDecimal64(0, 2), edge.2, edge.3
              FROM members ARRAY JOIN [(first_month, 1, 0), (last_month, 0, 1)] AS edge)
        GROUP BY month ORDER BY month""",
    )
    by_month = {row["month"]: row for row in rows}
    trend: list[CostTrendRow] = []
    fewest: dict[date, int] = {}  # people that a month's figures are of: who counts in it, and who cost something
    members = 0
    for month in range(min(by_month), max(by_month) + 1) if by_month else ():
        row: Row = by_month.get(month, {"total_paid": Decimal(0), "started": 0, "ended": 0, "payers": 0})
        members += row["started"]
        fewest[first_day(month)] = min(members, row["payers"] or members)
        trend.append(
            CostTrendRow(
                month=first_day(month),
                members=members,
                total_paid=row["total_paid"],
                pmpm=per(row["total_paid"], members),
            )
        )
        members -= row["ended"]
    kept = suppression.shown(trend, lambda row: fewest[row.month], smallest=scope.smallest)
    return CostTrendReport(rows=kept, suppressed=len(trend) - len(kept))


def by_category(row: Mapping[str, Any], scope: Scope) -> dict[CostCategory, Decimal]:
    """What BY_CATEGORY found, without what is of too few members."""
    kept = suppression.shown(CATEGORIES, lambda name: int(row.get(f"{name}_members", 0)), smallest=scope.smallest)
    return {name: row.get(f"{name}_paid", Decimal(0)) for name in kept}
