"""The parts that every query over a prospect's data reads, and the one place where such a query is run.

No query names a table. It reads parts, which hold the rows of one prospect's completed batches that its filters choose,
and nothing else; `select` puts them before the query, binds the prospect, and refuses what would go around them.
"""

# ruff: noqa: S608  the SQL put together here is made of our own words; values are bound

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from analytics_service.batches import OF_TENANT, parameters
from analytics_service.clickhouse import ClickHouse
from analytics_service.engine import Row
from analytics_service.prospects import Tenant
from triton_common.schemas import CodePattern, CostCategory

CATEGORIES: Final = [category for category in CostCategory if category is not CostCategory.TOTAL]
TABLES: Final = ("claims", "clinical", "utilization", "pharmacy", "ingest_batches")

_TABLE: Final = re.compile(
    rf"\b(?:FROM|JOIN)\s+(?:\w+\.)?(?:{'|'.join(TABLES)})\b(?:\s+FINAL)?(?P<after>.{{0,160}})",
    re.DOTALL | re.IGNORECASE,
)
_FENCED: Final = re.compile(rf"\s+WHERE {re.escape(OF_TENANT)}(?= AND | GROUP |\))")
# What a readonly client can still do: leave the database, read its inside, write a file, change its own limits
_BEYOND: Final = re.compile(
    r";|--|/\*|\bINTO\s+OUTFILE\b|\bSETTINGS\b|\bFORMAT\b|\bsystem\s*\.|\bschema_migrations\b|\bstage_|"
    r"\b((file|url|s3|remote|cluster|merge|executable|mysql|postgresql|hdfs)\w*|input|format|loop)\s*\(",
    re.IGNORECASE,
)


COUNTING: Final = "batch_id IN {batches:Array(UUID)}"


class Unfenced(RuntimeError):
    """A query names a table without the prospect's filter, or reaches beyond the database: ours is wrong."""


@dataclass(frozen=True)
class Scope:
    """Whose rows a report is about, and which of them.

    `since` and `until`, both included, choose rows by their date; `conditions` members by their codes. `smallest` is
    the fewest members that a group may show, 0 for all.
    """

    tenant: Tenant
    since: date | None = None
    until: date | None = None
    conditions: tuple[CodePattern, ...] = ()
    smallest: int = 0

    @property
    def whole(self) -> "Scope":
        """Without filters."""
        return replace(self, since=None, until=None, conditions=())


@dataclass(frozen=True)
class Holds:
    """What a prospect holds: the batches that count, of which datasets, and whether claims tell of pharmacy."""

    batches: tuple[UUID, ...] = ()
    datasets: frozenset[str] = frozenset()
    pharmacy_in_claims: bool = False


class _BatchGone(Exception):
    """A batch was taken out while a query read it."""


async def select(clickhouse: ClickHouse, scope: Scope, query: str, **values: Any) -> list[Row]:
    """Rows of a query over the parts, all of one set of batches; kept while these are the ones that count.

    The rows are shared: nobody changes them. Raises what ClickHouse.read raises, and Unfenced.
    """
    given = codes_of(scope.conditions, "chosen_") if scope.conditions else {}
    dates = {name: value for name, value in (("since", scope.since), ("until", scope.until)) if value}
    while True:
        holds = await _holds(clickhouse, scope.tenant)
        defined = parts(
            dated=(bool(scope.since), bool(scope.until)),
            chosen=bool(scope.conditions),
            datasets=holds.datasets,
            pharmacy_in_claims=holds.pharmacy_in_claims,
        )
        sql = f"WITH {defined}\n{query}"
        try:
            return await _read(clickhouse, scope.tenant, holds, sql, {**given, **dates, **values})
        except _BatchGone:
            continue


async def _holds(clickhouse: ClickHouse, tenant: Tenant) -> Holds:
    """Completed batches; of two with the same content (two services at once) the first."""
    batches = await _batches(clickhouse, tenant)
    holds = Holds(tuple(batches), frozenset(batches.values()))
    if "claims" in holds.datasets:
        sql = f"SELECT 1 FROM claims WHERE {OF_TENANT} AND {COUNTING} AND claim_type = 'pharmacy' LIMIT 1"
        return replace(holds, pharmacy_in_claims=bool(await _read(clickhouse, tenant, holds, sql, {})))
    return holds


async def _batches(clickhouse: ClickHouse, tenant: Tenant) -> dict[UUID, str]:
    rows = await clickhouse.read(
        f"SELECT argMin(id, created_at) AS id, dataset FROM ingest_batches FINAL WHERE {OF_TENANT} "
        "AND status = 'completed' GROUP BY dataset, source, content_sha256 ORDER BY id",
        parameters(tenant),
    )
    return {row["id"]: row["dataset"] for row in rows}


async def _read(clickhouse: ClickHouse, tenant: Tenant, holds: Holds, sql: str, values: dict[str, Any]) -> list[Row]:
    """Raises _BatchGone: a batch that is taken out ceases to count before its first row goes."""
    check_fence(sql)
    in_claims = int(holds.pharmacy_in_claims)
    bound = parameters(tenant, batches=list(holds.batches), pharmacy_in_claims=in_claims, **values)

    async def ask() -> list[Row]:
        rows = await clickhouse.read(sql, bound)
        if not holds.batches or set(holds.batches) <= (await _batches(clickhouse, tenant)).keys():
            return rows
        raise _BatchGone

    return await clickhouse.answers.of((sql, repr(bound)), ask)


@lru_cache(maxsize=256)
def check_fence(sql: str) -> None:
    """Raises Unfenced."""
    if _BEYOND.search(sql) or any(not _FENCED.match(found["after"]) for found in _TABLE.finditer(sql)):
        raise Unfenced


def codes_of(codes: Sequence[CodePattern], prefix: str = "") -> dict[str, Any]:
    """What `has_code` is bound to."""
    return {
        f"{prefix}systems": [pattern.system.value for pattern in codes],
        f"{prefix}wanted": [pattern.code.rstrip("*").replace(".", "") for pattern in codes],
        f"{prefix}prefixes": [int(pattern.code.endswith("*")) for pattern in codes],
    }


def has_code(diagnosed: str, prefix: str = "") -> str:
    """SQL of the members with any of the codes; dots do not count."""
    return f"""
        SELECT member_id FROM {diagnosed}
        WHERE arrayExists(
            (wanted_system, wanted, prefix) -> wanted_system = system AND if(
                prefix, startsWith(replaceAll(code, '.', ''), wanted), replaceAll(code, '.', '') = wanted),
            {{{prefix}systems:Array(String)}}, {{{prefix}wanted:Array(String)}}, {{{prefix}prefixes:Array(UInt8)}})"""


def month_of(column: str) -> str:
    """Months since year 0: toStartOfMonth knows none before 1970."""
    return f"toYear({column}) * 12 + toMonth({column}) - 1"


@lru_cache(maxsize=64)
def parts(*, dated: tuple[bool, bool], chosen: bool, datasets: frozenset[str], pharmacy_in_claims: bool) -> str:
    """lines, records, stays, fills    the rows of claims, clinical, utilization and pharmacy
    events     all that costs, or shows that a member was there; fills cost nothing where claims hold pharmacy lines
    members    a member each: months of its first and last event, money by category
    diagnosed  a member and a code each

    The engine plans a part anew wherever it is read, which takes longer than reading a small prospect's rows: so no
    part reads a dataset that the prospect lacks, and batches are bound, not looked up.
    """
    rows = "every_{}" if chosen else "{}"
    defined = [
        _rows_of(rows.format("lines"), "claims", _within("service_date", dated)),
        # a condition lasts: it counts from when it was recorded to its end, where it has one
        _rows_of(rows.format("records"), "clinical", _within("recorded_date", dated, last=_LAST_DAY)),
        _rows_of(rows.format("stays"), "utilization", _within("start", dated)),
        _rows_of(rows.format("fills"), "pharmacy", _within("fill_date", dated)),
    ]
    if chosen:
        defined.append(_diagnosed("every_diagnosed", "every_", datasets))
        defined.append(f"chosen AS ({has_code('every_diagnosed', 'chosen_')})")
        defined += [
            f"{name} AS (SELECT * FROM every_{name} WHERE member_id IN (SELECT member_id FROM chosen))"
            for name in ("lines", "records", "stays", "fills")
        ]
    return ",\n".join(
        [*defined, _events(datasets, pharmacy_in_claims), _MEMBERS, _diagnosed("diagnosed", "", datasets)]
    )


def _rows_of(part: str, table: str, within: str) -> str:
    return f"{part} AS (SELECT * FROM {table} WHERE {OF_TENANT} AND {COUNTING}{within})"


def _within(column: str, dated: tuple[bool, bool], *, last: str = "") -> str:
    """The rows' dates, both ends included. `last` is SQL of when a row ceases to count, if not at once."""
    since, until = dated
    return (f" AND {last or column} >= toDateTime64({{since:Date32}}, 3, 'UTC')" if since else "") + (
        f" AND {column} < toDateTime64(addDays({{until:Date32}}, 1), 3, 'UTC')" if until else ""
    )


def _diagnosed(name: str, rows: str, datasets: frozenset[str]) -> str:
    found = {
        "claims": f"SELECT member_id, code_system, toString(arrayJoin(diagnosis_codes)) AS code FROM {rows}lines",
        "clinical": f"SELECT member_id, code_system, toString(code) AS code FROM {rows}records "
        "WHERE kind = 'condition'",
    }
    return f"""{name} AS (
            SELECT DISTINCT member_id, toString(code_system) AS system, code
            FROM ({_union(found, datasets)}))"""


def _events(datasets: frozenset[str], pharmacy_in_claims: bool) -> str:
    nothing = "toDecimal64(0, 2)"
    found = {
        "claims": f"""
            SELECT member_id, {month_of("service_date")} AS month, 'line' AS kind, claim_id AS id,
                   if(place_of_service = '23', 'emergency', toString(claim_type)) AS category, paid, member_paid
            FROM lines""",
        "utilization": f"""
            SELECT member_id, {month_of("start")} AS month, 'stay' AS kind, encounter_id AS id, '' AS category,
                   {nothing} AS paid, {nothing} AS member_paid
            FROM stays""",
        "pharmacy": f"""
            SELECT member_id, {month_of("fill_date")} AS month, 'fill' AS kind, fill_id AS id, 'pharmacy' AS category,
                   {f"{nothing} AS paid, {nothing} AS member_paid" if pharmacy_in_claims else "paid, member_paid"}
            FROM fills""",
    }
    return f"events AS ({_union(found, datasets)})"


def _union(found: Mapping[str, str], datasets: frozenset[str]) -> str:
    """What is found in the datasets that there are, or of none of them nothing."""
    return " UNION ALL ".join(sql for name, sql in found.items() if name in datasets) or next(iter(found.values()))


_LAST_DAY: Final = "if(kind = 'condition', ifNull(end_date, toDateTime64('2299-12-31', 3, 'UTC')), recorded_date)"
_MEMBERS: Final = f"""members AS (
            SELECT member_id, min(month) AS first_month, max(month) AS last_month,
                   last_month - first_month + 1 AS months,
                   sum(paid) AS plan_paid, sum(member_paid) AS own_paid, plan_paid + own_paid AS total_paid,
                   uniqExactIf(id, kind = 'line') AS claims, uniqExactIf(id, kind = 'stay') AS encounters,
                   countIf(kind = 'fill') AS fills,
                   {", ".join(f"sumIf(paid + member_paid, category = '{name}') AS {name}_paid" for name in CATEGORIES)}
            FROM events GROUP BY member_id)"""


def per(total: Decimal, count: int | Decimal, unit: str = "0.01") -> Decimal:
    """To the cent; 0 where there is nobody."""
    return rounded(total / count if count else Decimal(0), unit)


def rounded(value: Decimal, unit: str) -> Decimal:
    """Half up."""
    return value.quantize(Decimal(unit), rounding=ROUND_HALF_UP)


def first_day(month: int) -> date:
    """Of a month counted since year 0."""
    return date(month // 12, month % 12 + 1, 1)
