"""Declared queries, for what no report covers: dimensions, measures and filters of an allow-list. The caller's words
choose among ours and are bound; none of them is SQL."""

# ruff: noqa: S608  the SQL put together here is made of our own words; values are bound

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints, model_validator

from analytics_service.clickhouse import ClickHouse
from analytics_service.datasets import Dataset
from analytics_service.reports import suppression
from analytics_service.reports.parts import Scope, select
from analytics_service.reports.schemas import Day
from triton_common.schemas import CodePattern, Schema

MEMBERS: Final = "uniqExact(member_id)"


@dataclass(frozen=True)
class Known:
    """What may be asked of a dataset: SQL by name, over one of the parts."""

    part: str
    day: str
    dimensions: Mapping[str, str]
    measures: Mapping[str, str]

    def dimension(self, name: str) -> str:
        """SQL of a text; a month as 2024-05, a year as 2024."""
        if name in PERIODS:
            return f"formatDateTime({self.day}, '{PERIODS[name]}')"
        return self.dimensions[name]


PERIODS: Final = {"month": "%Y-%m", "year": "%Y"}
PAID: Final = {"paid": "sum(paid)", "member_paid": "sum(member_paid)", "total_paid": "sum(paid + member_paid)"}
KNOWN: Final[Mapping[Dataset, Known]] = {
    "claims": Known(
        "lines",
        "service_date",
        {
            "claim_type": "toString(claim_type)",
            "category": "if(place_of_service = '23', 'emergency', toString(claim_type))",
            "place_of_service": "toString(place_of_service)",
            "procedure_code": "toString(procedure_code)",
        },
        {"claims": "uniqExact(member_id, claim_id)", "billed": "sum(billed)", "allowed": "sum(allowed)", **PAID},
    ),
    "clinical": Known(
        "records",
        "recorded_date",
        {"kind": "toString(kind)", "code_system": "toString(code_system)", "code": "toString(code)"},
        {},
    ),
    "utilization": Known(
        "stays",
        "start",
        {"encounter_class": "toString(encounter_class)", "reason_code": "toString(reason_code)"},
        {
            "encounters": "uniqExact(member_id, encounter_id)",
            "length_of_stay_days": "sum(length_of_stay_days)",
            "total_cost": "sum(total_cost)",
        },
    ),
    "pharmacy": Known(
        "fills",
        "fill_date",
        {
            "code_system": "toString(code_system)",
            "drug_code": "toString(drug_code)",
            "drug_name": "toString(drug_name)",
            "therapeutic_class": "toString(therapeutic_class)",
        },
        {
            "dispenses": "sum(dispenses)",
            "days_supply": "sum(days_supply)",
            "quantity": "sum(quantity)",
            **PAID,
        },
    ),
}
COMMON: Final = {"members": MEMBERS, "rows": "count()"}

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{0,39}$")]
Wanted = Annotated[list[Annotated[str, StringConstraints(max_length=200)]], Field(min_length=1, max_length=100)]


class QueryRequest(Schema):
    """What to count, and by what."""

    dataset: Dataset
    dimensions: list[Name] = Field(default=[], max_length=3)
    measures: list[Name] = Field(min_length=1, max_length=6)
    filters: dict[Name, Wanted] = Field(
        default={}, max_length=6, description="Of a dimension: the values of which rows have one"
    )
    since: Day = None
    until: Day = None
    conditions: list[CodePattern] = Field(default=[], max_length=200)
    order_by: Name | None = Field(default=None, description="One of the measures, the largest first; else dimensions")
    limit: int = Field(default=100, ge=1, le=10_000)

    @model_validator(mode="after")
    def known(self) -> "QueryRequest":
        """Names are of the dataset's own, each once."""
        dataset = KNOWN[self.dataset]
        dimensions, measures = {*dataset.dimensions, *PERIODS}, {*dataset.measures, *COMMON}
        for given, allowed, what in (
            (self.dimensions, dimensions, "dimensions"),
            (list(self.filters), dimensions, "filters"),
            (self.measures, measures, "measures"),
        ):
            if set(given) - allowed:
                raise ValueError(f"{what} of {self.dataset} are {', '.join(sorted(allowed))}")
            if len(set(given)) < len(given):
                raise ValueError(f"name each of the {what} once")
        if self.order_by is not None and self.order_by not in self.measures:
            raise ValueError("order_by is one of the measures")
        if self.since and self.until and self.since > self.until:
            raise ValueError("since is not after until")
        return self


class QueryAnswer(Schema):
    """A row for each group that there is."""

    columns: list[str] = Field(description="The dimensions, then the measures, as asked for")
    rows: list[list[str | int]] = Field(description="Amounts and quantities as decimal strings")
    truncated: bool = Field(description="Whether there are more rows than the limit")
    suppressed: int = Field(default=0, description="Groups left out: they, or what they leave, are of too few members")
    currency: str = "USD"


async def query(clickhouse: ClickHouse, scope: Scope, asked: QueryRequest) -> QueryAnswer:
    """Run a declared query. Raises GroupTooSmall."""
    await suppression.check(clickhouse, scope)
    known = KNOWN[asked.dataset]
    dimensions = [f"{known.dimension(name)} AS d_{name}" for name in asked.dimensions]
    measures = [f"{({**known.measures, **COMMON})[name]} AS m_{name}" for name in asked.measures]
    names = [f"d_{name}" for name in asked.dimensions]
    filters = [f"{known.dimension(name)} IN {{f_{name}:Array(String)}}" for name in asked.filters]
    order = [*([f"m_{asked.order_by} DESC"] if asked.order_by else []), *names]
    rows = await select(
        clickhouse,
        scope,
        f"SELECT {', '.join([*dimensions, *measures])}, {MEMBERS} AS group_members FROM {known.part}"
        + (f" WHERE {' AND '.join(filters)}" if filters else "")
        + (f" GROUP BY {', '.join(names)}" if names else "")
        + (f" ORDER BY {', '.join(order)}" if order else ""),
        **{f"f_{name}": values for name, values in asked.filters.items()},
    )
    hidden = await _hidden(clickhouse, scope, asked) if scope.smallest else set()
    kept = [
        row
        for row in rows
        if tuple(row[name] for name in names) not in hidden
        and not suppression.is_small(row["group_members"], scope.smallest)
    ]
    columns = [*names, *(f"m_{name}" for name in asked.measures)]
    return QueryAnswer(
        columns=[*asked.dimensions, *asked.measures],
        rows=[[_shown(row[name]) for name in columns] for row in kept[: asked.limit]],
        truncated=len(kept) > asked.limit,
        suppressed=len(rows) - len(kept),
    )


async def _hidden(clickhouse: ClickHouse, scope: Scope, asked: QueryRequest) -> set[suppression.Cell]:
    """Groups that hold a cell which is not shown, of the table by all dimensions, those of filters too: the same
    question with another filter, or without one, must not tell of it."""
    known = KNOWN[asked.dataset]
    axes = list(dict.fromkeys([*asked.dimensions, *asked.filters]))
    if not axes:
        return set()
    names = [f"d_{name}" for name in axes]
    rows = await select(
        clickhouse,
        scope,
        f"SELECT {', '.join(f'{known.dimension(name)} AS d_{name}' for name in axes)}, {MEMBERS} AS group_members "
        f"FROM {known.part} GROUP BY {', '.join(names)}",
    )
    cells = {tuple(row[name] for name in names): int(row["group_members"]) for row in rows}
    hidden = await asyncio.to_thread(suppression.hidden_cells, cells, smallest=scope.smallest)
    return {
        cell[: len(asked.dimensions)]
        for cell in hidden
        if all(cell[axes.index(name)] in values for name, values in asked.filters.items())
    }


def _shown(value: Any) -> str | int:
    return f"{value:f}" if isinstance(value, Decimal) else value if isinstance(value, int) else str(value)
