"""What members used: encounters, drugs, readmissions, and who costs most. What every figure means stands in
docs/METRICS.md."""

# ruff: noqa: S608  the SQL put together here is made of our own words; values are bound

from collections import defaultdict
from decimal import Decimal
from typing import Final, Literal

from analytics_service.clickhouse import ClickHouse
from analytics_service.engine import Row
from analytics_service.reports import suppression
from analytics_service.reports.parts import Scope, per, rounded, select
from analytics_service.reports.schemas import (
    HighCostReport,
    HighCostRow,
    PharmacyReport,
    PharmacyRow,
    ReadmissionsReport,
    UtilizationReport,
    UtilizationRow,
)

By = Literal["class", "drug"]

TOP: Final = (1, 5, 10)  # percent
READMITTED: Final = 30  # days: the window of CMS' readmission measures


async def utilization(clickhouse: ClickHouse, scope: Scope) -> UtilizationReport:
    """Encounters by class. Raises GroupTooSmall."""
    await suppression.check(clickhouse, scope)
    rows = await select(
        clickhouse,
        scope,
        """
        SELECT toString(class) AS encounter_class, uniqExact(member_id) AS members, count() AS encounters,
               sum(days) AS days, sum(cost) AS total_cost, (SELECT sum(months) FROM members) AS member_months
        FROM (SELECT member_id, encounter_id, encounter_class AS class, max(length_of_stay_days) AS days,
                     sum(total_cost) AS cost
              FROM stays GROUP BY member_id, encounter_id, encounter_class)
        GROUP BY encounter_class ORDER BY encounters DESC, encounter_class""",
    )
    kept = suppression.shown(rows, lambda row: int(row["members"]), smallest=scope.smallest)
    return UtilizationReport(
        rows=[
            UtilizationRow(
                encounter_class=row["encounter_class"],
                members=row["members"],
                encounters=row["encounters"],
                per_1000=per(Decimal(12_000 * row["encounters"]), row["member_months"], "0.1"),
                length_of_stay_days=per(Decimal(row["days"]), row["encounters"], "0.1"),
                total_cost=row["total_cost"],
            )
            for row in kept
        ],
        suppressed=len(rows) - len(kept),
    )


async def pharmacy(clickhouse: ClickHouse, scope: Scope, *, by: By, limit: int) -> PharmacyReport:
    """Fills by therapeutic class or drug. Raises GroupTooSmall."""
    await suppression.check(clickhouse, scope)
    key = "toString(therapeutic_class)" if by == "class" else "toString(code_system), toString(drug_code)"
    names = (
        "'' AS system, '' AS code, toString(therapeutic_class) AS name"
        if by == "class"
        else "toString(code_system) AS system, toString(drug_code) AS code, max(toString(drug_name)) AS name"
    )
    rows = await select(
        clickhouse,
        scope,
        f"""
        SELECT {names}, uniqExact(member_id) AS members, count() AS fills, sum(dispenses) AS dispensed,
               sum(days_supply) AS days, sum(paid + member_paid) AS total_paid
        FROM fills GROUP BY {key} ORDER BY total_paid DESC, fills DESC, system, code, name""",
    )
    kept = suppression.shown(rows, lambda row: int(row["members"]), smallest=scope.smallest)
    if scope.smallest and by == "drug":
        hidden = await _hidden_drugs(clickhouse, scope)
        kept = [row for row in kept if (row["system"], row["code"]) not in hidden]
    return PharmacyReport(
        by=by,
        rows=[
            PharmacyRow(
                code_system=row["system"],
                code=row["code"],
                name=row["name"],
                members=row["members"],
                fills=row["fills"],
                dispenses=row["dispensed"],
                days_supply=row["days"],
                total_paid=row["total_paid"],
            )
            for row in kept[:limit]
        ],
        suppressed=len(rows) - len(kept),
    )


async def _hidden_drugs(clickhouse: ClickHouse, scope: Scope) -> set[tuple[str, str]]:
    """Drugs of which the report by class would tell: those of a class that it does not show, and those that a class
    less its other drugs would leave."""
    rows = await select(
        clickhouse,
        scope,
        """
        SELECT toString(therapeutic_class) AS class, toString(code_system) AS system, toString(drug_code) AS code,
               uniqExact(member_id) AS members
        FROM fills GROUP BY class, system, code""",
    )
    classes = await select(
        clickhouse,
        scope,
        "SELECT toString(therapeutic_class) AS class, uniqExact(member_id) AS members FROM fills GROUP BY class",
    )
    kept = suppression.shown(classes, lambda row: int(row["members"]), smallest=scope.smallest)
    drugs: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        drugs[row["class"]].append(row)
    hidden: set[tuple[str, str]] = set()
    for name, ours in drugs.items():
        shown = [] if name not in {row["class"] for row in kept} else ours
        shown = suppression.shown(shown, lambda row: int(row["members"]), smallest=scope.smallest)
        hidden |= {(row["system"], row["code"]) for row in ours} - {(row["system"], row["code"]) for row in shown}
    return hidden


async def high_cost(clickhouse: ClickHouse, scope: Scope) -> HighCostReport:
    """The share of the most costly members. Raises GroupTooSmall."""
    await suppression.check(clickhouse, scope)
    rows = await select(
        clickhouse,
        scope,
        f"""
        SELECT percent, count() AS members, sum(total_paid) AS paid, any(everything) AS everything
        FROM (SELECT total_paid, row_number() OVER (ORDER BY total_paid DESC) AS place, count() OVER () AS people,
                     sum(total_paid) OVER () AS everything
              FROM members)
        ARRAY JOIN {list(TOP)} AS percent
        WHERE place <= ceil(people * percent / 100)
        GROUP BY percent ORDER BY percent""",
    )
    kept: list[Row] = []
    for row in rows:  # each holds the one before it: what it adds is a group too
        if not suppression.is_small(row["members"] - (kept[-1]["members"] if kept else 0), scope.smallest):
            kept.append(row)
    return HighCostReport(
        rows=[
            HighCostRow(
                top_percent=row["percent"],
                members=row["members"],
                total_paid=row["paid"],
                share_percent=rounded(
                    100 * row["paid"] / row["everything"] if row["everything"] else Decimal(0), "0.1"
                ),
                mean_paid=per(row["paid"], row["members"]),
            )
            for row in kept
        ],
        suppressed=len(rows) - len(kept),
    )


async def readmissions(clickhouse: ClickHouse, scope: Scope) -> ReadmissionsReport:
    """How many inpatient stays were followed by another within 30 days. Raises GroupTooSmall."""
    await suppression.check(clickhouse, scope)
    [row] = await select(
        clickhouse,
        scope,
        f"""
        SELECT count() AS discharges, uniqExact(member_id) AS members,
               countIf(gap BETWEEN 1 AND {READMITTED}) AS readmissions,
               uniqExactIf(member_id, gap BETWEEN 1 AND {READMITTED}) AS readmitted
        FROM (SELECT member_id, discharged,
                     if(next_admitted IS NULL, NULL, dateDiff('day', discharged, next_admitted)) AS gap
              FROM (SELECT member_id, discharged, leadInFrame(toNullable(admitted)) OVER (
                               PARTITION BY member_id ORDER BY admitted, discharged, encounter_id
                               ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS next_admitted
                    FROM (SELECT member_id, encounter_id, toDate32(min(start)) AS admitted,
                                 toDate32(max(coalesce(`end`, addDays(start, length_of_stay_days)))) AS discharged
                          FROM stays WHERE encounter_class = 'inpatient' GROUP BY member_id, encounter_id)))
        WHERE (gap IS NULL OR gap >= 1)
          AND addDays(discharged, {READMITTED}) <= (SELECT toDate32(max(start)) FROM stays)""",
    )
    discharges, found = row["discharges"], row["readmissions"]
    suppression.check_parts([row["members"]], smallest=scope.smallest)
    hidden = any(
        suppression.is_small(count, scope.smallest) for count in (row["readmitted"], row["members"] - row["readmitted"])
    )
    return ReadmissionsReport(
        discharges=discharges,
        members=row["members"],
        readmissions=None if hidden else found,
        rate_percent=None if hidden else per(Decimal(100 * found), discharges, "0.1"),
    )
