"""The reports, as JSON and as files, and declared queries."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Query
from fastapi.responses import StreamingResponse

from analytics_service.clickhouse import ClickHouse
from analytics_service.engine import QueryTooLarge
from analytics_service.reports import conditions as by_condition
from analytics_service.reports import exports, population, query, use
from analytics_service.reports.conditions import Order
from analytics_service.reports.parts import Scope
from analytics_service.reports.query import QueryAnswer, QueryRequest
from analytics_service.reports.schemas import Day, HighCostReport, PharmacyReport, ReadmissionsReport, UtilizationReport
from analytics_service.reports.suppression import GroupTooSmall
from analytics_service.reports.use import By
from analytics_service.routes import state
from analytics_service.routes.state import ClickHouseDep, SettingsDep, TenantDep
from triton_common.audit import recorded
from triton_common.auth import CurrentPrincipal, require
from triton_common.errors import ValidationFailed, problems
from triton_common.schemas import (
    CodePattern,
    CodeSystem,
    CohortReport,
    CohortRequest,
    ConditionsReport,
    CostTrendReport,
    ProblemDetail,
    Schema,
    SummaryReport,
)

router = state.router()
REFUSALS: Final = problems(ValidationFailed, GroupTooSmall, QueryTooLarge)

Condition = Annotated[str, Query(pattern=r"^[a-z0-9]+:[A-Z0-9][A-Z0-9.]{0,19}\*?$")]
LimitRows = Annotated[int, Query(ge=1, le=200)]


async def _scope(  # noqa: PLR0917  FastAPI names them
    tenant: TenantDep,
    principal: CurrentPrincipal,
    settings: SettingsDep,
    since: Day = None,
    until: Day = None,
    condition: Annotated[
        list[Condition] | None, Query(max_length=200, description="Members with any of these codes: icd10cm:E11*")
    ] = None,
) -> Scope:
    if since and until and since > until:
        raise ValidationFailed(details=[ProblemDetail(field="query.since", issue="is after until", code="order")])
    chosen = tuple(_pattern(text) for text in condition or ())
    return Scope(tenant, since, until, chosen, smallest=0 if principal.is_staff else settings.smallest_group)


def _pattern(text: str) -> CodePattern:
    system, _, code = text.partition(":")
    if system not in set(CodeSystem):
        issue = f"names no code system of diagnoses: {', '.join(CodeSystem)}"
        raise ValidationFailed(details=[ProblemDetail(field="query.condition", issue=issue, code="unknown_system")])
    return CodePattern(system=CodeSystem(system), code=code)


ScopeDep = Annotated[Scope, Depends(_scope)]


@router.get(
    "/reports/summary",
    dependencies=[recorded("report.read", on="prospect", report="summary"), require("data:read")],
    responses=REFUSALS,
)
async def summary(scope: ScopeDep, clickhouse: ClickHouseDep) -> SummaryReport:
    """The population and what it costs."""
    return await population.summary(clickhouse, scope)


@router.get(
    "/reports/cost-trend",
    dependencies=[recorded("report.read", on="prospect", report="cost-trend"), require("data:read")],
    responses=REFUSALS,
)
async def cost_trend(scope: ScopeDep, clickhouse: ClickHouseDep) -> CostTrendReport:
    """Cost by calendar month."""
    return await population.cost_trend(clickhouse, scope)


@router.get(
    "/reports/conditions",
    dependencies=[recorded("report.read", on="prospect", report="conditions"), require("data:read")],
    responses=REFUSALS,
)
async def conditions(
    scope: ScopeDep, clickhouse: ClickHouseDep, order: Order = "prevalence", limit: LimitRows = 20
) -> ConditionsReport:
    """The most common conditions, or those whose members cost most."""
    return await by_condition.conditions(clickhouse, scope, order=order, limit=limit)


@router.get(
    "/reports/utilization",
    dependencies=[recorded("report.read", on="prospect", report="utilization"), require("data:read")],
    responses=REFUSALS,
)
async def utilization(scope: ScopeDep, clickhouse: ClickHouseDep) -> UtilizationReport:
    """Encounters by class, a year and 1,000 members."""
    return await use.utilization(clickhouse, scope)


@router.get(
    "/reports/pharmacy",
    dependencies=[recorded("report.read", on="prospect", report="pharmacy"), require("data:read")],
    responses=REFUSALS,
)
async def pharmacy(
    scope: ScopeDep, clickhouse: ClickHouseDep, by: By = "class", limit: LimitRows = 20
) -> PharmacyReport:
    """Fills by therapeutic class or by drug, the most costly first."""
    return await use.pharmacy(clickhouse, scope, by=by, limit=limit)


@router.get(
    "/reports/high-cost",
    dependencies=[recorded("report.read", on="prospect", report="high-cost"), require("data:read")],
    responses=REFUSALS,
)
async def high_cost(scope: ScopeDep, clickhouse: ClickHouseDep) -> HighCostReport:
    """What the most costly 1, 5 and 10 percent of the members cost."""
    return await use.high_cost(clickhouse, scope)


@router.get(
    "/reports/readmissions",
    dependencies=[recorded("report.read", on="prospect", report="readmissions"), require("data:read")],
    responses=REFUSALS,
)
async def readmissions(scope: ScopeDep, clickhouse: ClickHouseDep) -> ReadmissionsReport:
    """Inpatient stays that follow another within 30 days."""
    return await use.readmissions(clickhouse, scope)


@router.post(
    "/reports/cohort",
    dependencies=[recorded("report.read", on="prospect", report="cohort"), require("data:read")],
    responses=REFUSALS,
)
async def cohort(scope: ScopeDep, clickhouse: ClickHouseDep, wanted: CohortRequest) -> CohortReport:
    """Members with any of the codes, against the rest. A pattern that ends in * takes every code that begins so."""
    return await by_condition.cohort(clickhouse, scope, codes=wanted.codes, last_months=wanted.last_months)


Name = Literal["summary", "cost-trend", "conditions", "utilization", "pharmacy", "high-cost", "readmissions"]
EXPORTS: Final[dict[Name, Callable[[ClickHouse, Scope, Order, By], Awaitable[Schema]]]] = {
    "summary": lambda clickhouse, scope, *_: population.summary(clickhouse, scope),
    "cost-trend": lambda clickhouse, scope, *_: population.cost_trend(clickhouse, scope),
    "conditions": lambda clickhouse, scope, order, _: by_condition.conditions(
        clickhouse, scope, order=order, limit=exports.MOST
    ),
    "utilization": lambda clickhouse, scope, *_: use.utilization(clickhouse, scope),
    "pharmacy": lambda clickhouse, scope, _, by: use.pharmacy(clickhouse, scope, by=by, limit=exports.MOST),
    "high-cost": lambda clickhouse, scope, *_: use.high_cost(clickhouse, scope),
    "readmissions": lambda clickhouse, scope, *_: use.readmissions(clickhouse, scope),
}
FILES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The file", "content": {media.partition(";")[0]: {} for media in exports.MEDIA_TYPES.values()}}
}


@router.get(
    "/reports/{name}/export",
    dependencies=[recorded("report.exported", on="prospect"), require("data:read")],
    response_class=StreamingResponse,
    responses={**REFUSALS, **FILES},
)
async def export(  # noqa: PLR0917  FastAPI names them
    scope: ScopeDep,
    clickhouse: ClickHouseDep,
    name: Name,
    kind: Annotated[exports.Format, Query(alias="format")] = "csv",
    order: Order = "prevalence",
    by: By = "class",
) -> StreamingResponse:
    """All rows of a report as a file: CSV with a header, Parquet, or an Arrow stream."""
    report = await EXPORTS[name](clickhouse, scope, order, by)
    return StreamingResponse(
        exports.exported(report, kind),
        media_type=exports.MEDIA_TYPES[kind],
        headers={"Content-Disposition": f'attachment; filename="{name}.{kind}"', "Cache-Control": "no-store"},
    )


@router.post("/query", dependencies=[recorded("data.queried", on="prospect"), require("data:read")], responses=REFUSALS)
async def declared(
    tenant: TenantDep,
    principal: CurrentPrincipal,
    settings: SettingsDep,
    clickhouse: ClickHouseDep,
    asked: QueryRequest,
) -> QueryAnswer:
    """Measures by dimensions of one dataset, for what no report covers."""
    smallest = 0 if principal.is_staff else settings.smallest_group
    scope = Scope(tenant, asked.since, asked.until, tuple(asked.conditions), smallest=smallest)
    return await query.query(clickhouse, scope, asked)
