"""The reports: one function and its SQL each. What every figure means stands in docs/METRICS.md.

No report names a table. It reads the parts that `_PARTS` defines, which hold the rows of one prospect's completed
batches and nothing else; `_run` puts them before each query and binds the prospect.
"""

# ruff: noqa: S608  the SQL put together here is made of our own words; values are bound

from collections.abc import Sequence
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final, Literal

from analytics_service.batches import OF_TENANT, parameters
from analytics_service.clickhouse import ClickHouse, Row
from analytics_service.prospects import Tenant
from triton_common.schemas import (
    CodePattern,
    CohortPart,
    CohortReport,
    ConditionRow,
    ConditionsReport,
    CostCategory,
    CostTrendReport,
    CostTrendRow,
    SummaryReport,
)

Order = Literal["prevalence", "cost"]

CATEGORIES: Final = [category for category in CostCategory if category is not CostCategory.TOTAL]


def _rows_of(part: str, table: str) -> str:
    return f"{part} AS (SELECT * FROM {table} WHERE {OF_TENANT} AND batch_id IN (SELECT id FROM visible))"


def _month(column: str) -> str:
    """Months since year 0: toStartOfMonth knows none before 1970."""
    return f"toYear({column}) * 12 + toMonth({column}) - 1"


# visible    the batches that count: completed, and of two with the same content (two services at once) the first
# events     all that costs, or shows that a member was there; fills cost nothing where claims hold pharmacy lines
# members    a member each: months of its first and last event, money by category
# diagnosed  a member and a code each
_PARTS: Final = ",\n".join(
    [
        f"""visible AS (
            SELECT argMin(id, created_at) AS id FROM ingest_batches FINAL
            WHERE {OF_TENANT} AND status = 'completed' GROUP BY dataset, source, content_sha256)""",
        _rows_of("lines", "claims"),
        _rows_of("records", "clinical"),
        _rows_of("stays", "utilization"),
        _rows_of("fills", "pharmacy"),
        "(SELECT count() > 0 FROM lines WHERE claim_type = 'pharmacy') AS pharmacy_in_claims",
        f"""events AS (
            SELECT member_id, {_month("service_date")} AS month, 'line' AS kind, claim_id AS id,
                   if(place_of_service = '23', 'emergency', toString(claim_type)) AS category, paid, member_paid
            FROM lines
            UNION ALL
            SELECT member_id, {_month("start")}, 'stay', encounter_id, '', toDecimal64(0, 2), toDecimal64(0, 2)
            FROM stays
            UNION ALL
            SELECT member_id, {_month("fill_date")}, 'fill', fill_id, 'pharmacy',
                   if(pharmacy_in_claims, toDecimal64(0, 2), paid),
                   if(pharmacy_in_claims, toDecimal64(0, 2), member_paid)
            FROM fills)""",
        f"""members AS (
            SELECT member_id, min(month) AS first_month, max(month) AS last_month,
                   last_month - first_month + 1 AS months,
                   sum(paid) AS plan_paid, sum(member_paid) AS own_paid, plan_paid + own_paid AS total_paid,
                   uniqExactIf(id, kind = 'line') AS claims, uniqExactIf(id, kind = 'stay') AS encounters,
                   countIf(kind = 'fill') AS fills,
                   {", ".join(f"sumIf(paid + member_paid, category = '{name}') AS {name}_paid" for name in CATEGORIES)}
            FROM events GROUP BY member_id)""",
        """diagnosed AS (
            SELECT DISTINCT member_id, toString(code_system) AS system, code
            FROM (SELECT member_id, code_system, toString(arrayJoin(diagnosis_codes)) AS code FROM lines
                  UNION ALL
                  SELECT member_id, code_system, toString(code) FROM records WHERE kind = 'condition'))""",
    ]
)

# members as they were in the data's last months: those seen in them, their months and money of that time
_RECENT: Final = f"""(
            SELECT member_id, oldest, max(month) AS last_month, last_month - greatest(min(month), oldest) + 1 AS months,
                   sumIf(cost, recent) AS total_paid,
                   {", ".join(f"sumIf(cost, category = '{name}' AND recent) AS {name}_paid" for name in CATEGORIES)}
            FROM (SELECT member_id, month, category, paid + member_paid AS cost,
                         (SELECT max(last_month) FROM members) + 1 - {{last_months:UInt32}} AS oldest,
                         month >= oldest AS recent
                  FROM events)
            GROUP BY member_id, oldest HAVING last_month >= oldest)"""


async def _run(clickhouse: ClickHouse, tenant: Tenant, select: str, **values: Any) -> list[Row]:
    return await clickhouse.read(f"WITH {_PARTS}\n{select}", parameters(tenant, **values))


async def summary(clickhouse: ClickHouse, tenant: Tenant) -> SummaryReport:
    """Members, member months, what was paid and for what; zeros where there is no data."""
    [row] = await _run(
        clickhouse,
        tenant,
        f"""
        SELECT count() AS members, sum(members.months) AS member_months,
               min(first_month) AS first_month, max(last_month) AS last_month,
               {", ".join(f"sum({category}_paid) AS {category}_paid" for category in CATEGORIES)},
               sum(members.plan_paid) AS plan_paid, sum(members.own_paid) AS member_paid,
               sum(members.claims) AS claims, sum(members.encounters) AS encounters, sum(members.fills) AS fills,
               pharmacy_in_claims
        FROM members""",
    )
    total = row["plan_paid"] + row["member_paid"]
    pharmacy = row["pharmacy_paid"]
    return SummaryReport(
        members=row["members"],
        member_months=row["member_months"],
        first_month=_date(row["first_month"]) if row["members"] else None,
        last_month=_date(row["last_month"]) if row["members"] else None,
        total_paid=total,
        plan_paid=row["plan_paid"],
        member_paid=row["member_paid"],
        medical_paid=total - pharmacy,
        pharmacy_paid=pharmacy,
        pharmacy_source="claims" if row["pharmacy_in_claims"] else "fills" if row["fills"] else "none",
        pmpm=_per(total, row["member_months"]),
        claims=row["claims"],
        encounters=row["encounters"],
        fills=row["fills"],
        paid_by_category=_by_category(row),
    )


async def cost_trend(clickhouse: ClickHouse, tenant: Tenant) -> CostTrendReport:
    """What was paid in each calendar month from the first to the last."""
    rows = await _run(
        clickhouse,
        tenant,
        """
        SELECT month, sum(paid) AS total_paid, sum(started) AS started, sum(ended) AS ended
        FROM (SELECT month, paid + member_paid AS paid, 0 AS started, 0 AS ended FROM events
              UNION ALL SELECT first_month, toDecimal64(0, 2), 1, 0 FROM members
              UNION ALL SELECT last_month, toDecimal64(0, 2), 0, 1 FROM members)
        GROUP BY month ORDER BY month""",
    )
    by_month = {row["month"]: row for row in rows}
    trend: list[CostTrendRow] = []
    members = 0
    for month in range(min(by_month), max(by_month) + 1) if by_month else ():
        row = by_month.get(month, {"total_paid": Decimal(0), "started": 0, "ended": 0})
        members += row["started"]
        trend.append(
            CostTrendRow(
                month=_date(month),
                members=members,
                total_paid=row["total_paid"],
                pmpm=_per(row["total_paid"], members),
            )
        )
        members -= row["ended"]
    return CostTrendReport(rows=trend)


async def conditions(clickhouse: ClickHouse, tenant: Tenant, *, order: Order, limit: int) -> ConditionsReport:
    """The conditions that most members have, or whose members cost most."""
    rows = await _run(
        clickhouse,
        tenant,
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
        ORDER BY if({order:String} = 'cost', total_paid, toDecimal128(0, 2)) DESC, members DESC, total_paid DESC,
                 system, code
        LIMIT {limit:UInt32}""",
        order=order,
        limit=limit,
    )
    return ConditionsReport(
        rows=[
            ConditionRow(
                code_system=row["system"],
                code=row["code"],
                description=row["description"],
                members=row["members"],
                prevalence_per_1000=_rounded(Decimal(1000 * row["members"]) / row["population"], "0.1"),
                total_paid=row["total_paid"],
            )
            for row in rows
        ]
    )


async def cohort(
    clickhouse: ClickHouse, tenant: Tenant, *, codes: Sequence[CodePattern], last_months: int | None = None
) -> CohortReport:
    """Members with any of the codes, and the rest; of the data's last so many months alone when `last_months` says."""
    rows = await _run(
        clickhouse,
        tenant,
        f"""
        SELECT member_id IN (
                   SELECT member_id FROM diagnosed
                   WHERE arrayExists(
                       (wanted_system, wanted, prefix) -> wanted_system = system AND if(
                           prefix, startsWith(replaceAll(code, '.', ''), wanted), replaceAll(code, '.', '') = wanted),
                       {{systems:Array(String)}}, {{wanted:Array(String)}}, {{prefixes:Array(UInt8)}})) AS in_cohort,
               count() AS members, sum(seen.months) AS member_months, sum(seen.total_paid) AS total_paid,
               max(seen.last_month) AS newest,
               {", ".join(f"sum(seen.{category}_paid) AS {category}_paid" for category in CATEGORIES)}
        FROM {_RECENT if last_months else "members"} AS seen GROUP BY in_cohort""",
        systems=[pattern.system.value for pattern in codes],
        wanted=[pattern.code.rstrip("*").replace(".", "") for pattern in codes],
        prefixes=[int(pattern.code.endswith("*")) for pattern in codes],
        last_months=last_months or 0,
    )
    parts = {bool(row["in_cohort"]): _cohort_part(row) for row in rows}
    nobody = _cohort_part({"members": 0, "member_months": 0, "total_paid": Decimal(0)})
    report = CohortReport(cohort=parts.get(True, nobody), rest=parts.get(False, nobody))
    if rows and last_months:
        newest = max(row["newest"] for row in rows)
        months = {"first_month": _date(newest - last_months + 1), "last_month": _date(newest)}
        return report.model_copy(update=months)
    return report


def _cohort_part(row: Row) -> CohortPart:
    return CohortPart(
        members=row["members"],
        member_months=row["member_months"],
        total_paid=row["total_paid"],
        pmpm=_per(row["total_paid"], row["member_months"]),
        paid_by_category=_by_category(row),
    )


def _by_category(row: Row) -> dict[CostCategory, Decimal]:
    return {category: row.get(f"{category}_paid", Decimal(0)) for category in CATEGORIES}


def _per(total: Decimal, count: int) -> Decimal:
    """To the cent; 0 where there is nobody."""
    return _rounded(total / count if count else Decimal(0), "0.01")


def _rounded(value: Decimal, unit: str) -> Decimal:
    return value.quantize(Decimal(unit), rounding=ROUND_HALF_UP)


def _date(month: int) -> date:
    """The first day of a month counted since year 0."""
    return date(month // 12, month % 12 + 1, 1)
