"""Conditions, and cohorts by code against the rest. What every figure means stands in docs/METRICS.md."""

# ruff: noqa: S608  the SQL put together here is made of our own words; values are bound

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, Literal

from analytics_service.clickhouse import ClickHouse
from analytics_service.engine import Row
from analytics_service.reports import suppression
from analytics_service.reports.parts import CATEGORIES, Scope, codes_of, first_day, has_code, per, rounded, select
from analytics_service.reports.population import BY_CATEGORY, by_category
from triton_common.schemas import CodePattern, CohortPart, CohortReport, ConditionRow, ConditionsReport

Order = Literal["prevalence", "cost"]

# members as they were in the data's last months: those seen in them, their months and money of that time
_RECENT: Final = f"""(
            SELECT member_id, oldest, max(month) AS last_month, last_month - greatest(min(month), oldest) + 1 AS months,
                   sumIf(cost, recent) AS total_paid,
                   {", ".join(f"sumIf(cost, category = '{name}' AND recent) AS {name}_paid" for name in CATEGORIES)}
            FROM (SELECT member_id, month, category, paid + member_paid AS cost,
                         (SELECT max(month) FROM events) + 1 - {{last_months:UInt32}} AS oldest,
                         month >= oldest AS recent
                  FROM events)
            GROUP BY member_id, oldest HAVING last_month >= oldest)"""


async def conditions(clickhouse: ClickHouse, scope: Scope, *, order: Order, limit: int) -> ConditionsReport:
    """The conditions that most members have, or whose members cost most. Raises GroupTooSmall."""
    await suppression.check(clickhouse, scope)
    rows = await select(
        clickhouse,
        scope,
        """
        SELECT system, code, any(described.description) AS description, count() AS members,
               sum(members.total_paid) AS total_paid, any(members.population) AS population
        FROM diagnosed
        INNER JOIN (SELECT member_id, total_paid, count() OVER () AS population FROM members) AS members
                ON members.member_id = diagnosed.member_id
        LEFT JOIN (SELECT toString(code_system) AS system, toString(code) AS code,
                          max(toString(description)) AS description
                   FROM records GROUP BY system, code) AS described
               ON described.system = diagnosed.system AND described.code = diagnosed.code
        GROUP BY diagnosed.system AS system, diagnosed.code AS code
        HAVING members >= {smallest:UInt32} AND (population - members = 0 OR population - members >= {smallest:UInt32})
        ORDER BY if({order:String} = 'cost', total_paid, toDecimal128(0, 2)) DESC, members DESC, total_paid DESC,
                 system, code
        LIMIT {limit:UInt32}""",
        order=order,
        smallest=scope.smallest,
        limit=limit,
    )
    return ConditionsReport(
        rows=[
            ConditionRow(
                code_system=row["system"],
                code=row["code"],
                description=row["description"],
                members=row["members"],
                prevalence_per_1000=rounded(Decimal(1000 * row["members"]) / row["population"], "0.1"),
                total_paid=row["total_paid"],
            )
            for row in rows
        ]
    )


async def cohort(
    clickhouse: ClickHouse, scope: Scope, *, codes: Sequence[CodePattern], last_months: int | None = None
) -> CohortReport:
    """Members with any of the codes, and the rest; of the data's last so many months alone when `last_months` says.

    Raises GroupTooSmall.
    """
    await suppression.check(clickhouse, scope)
    rows = await select(
        clickhouse,
        scope,
        f"""
        SELECT member_id IN ({has_code("diagnosed")}) AS in_cohort,
               count() AS members, sum(members.months) AS member_months, sum(members.total_paid) AS total_paid,
               max(members.last_month) AS newest,
               {BY_CATEGORY}
        FROM {_RECENT if last_months else "members"} AS members GROUP BY in_cohort""",
        **codes_of(codes),
        **({"last_months": last_months} if last_months else {}),
    )
    parts = {bool(row["in_cohort"]): _cohort_part(row, scope) for row in rows}
    nobody = _cohort_part({"members": 0, "member_months": 0, "total_paid": Decimal(0)}, scope)
    suppression.check_parts((part.members for part in parts.values()), smallest=scope.smallest)
    report = CohortReport(cohort=parts.get(True, nobody), rest=parts.get(False, nobody))
    if rows and last_months:
        newest = max(row["newest"] for row in rows)
        months = {"first_month": first_day(newest - last_months + 1), "last_month": first_day(newest)}
        return report.model_copy(update=months)
    return report


def _cohort_part(row: Row, scope: Scope) -> CohortPart:
    return CohortPart(
        members=row["members"],
        member_months=row["member_months"],
        total_paid=row["total_paid"],
        pmpm=per(row["total_paid"], row["member_months"]),
        paid_by_category=by_category(row, scope),
    )
