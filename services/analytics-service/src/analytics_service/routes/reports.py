"""The reports."""

from typing import Annotated

from fastapi import Query

from analytics_service import reports
from analytics_service.routes import state
from analytics_service.routes.state import ClickHouseDep, TenantDep
from triton_common.auth import require
from triton_common.schemas import CohortReport, CohortRequest, ConditionsReport, CostTrendReport, SummaryReport

router = state.router()


@router.get("/reports/summary", dependencies=[require("data:read")])
async def summary(tenant: TenantDep, clickhouse: ClickHouseDep) -> SummaryReport:
    """The population and what it costs."""
    return await reports.summary(clickhouse, tenant)


@router.get("/reports/cost-trend", dependencies=[require("data:read")])
async def cost_trend(tenant: TenantDep, clickhouse: ClickHouseDep) -> CostTrendReport:
    """Cost by calendar month."""
    return await reports.cost_trend(clickhouse, tenant)


@router.get("/reports/conditions", dependencies=[require("data:read")])
async def conditions(
    tenant: TenantDep,
    clickhouse: ClickHouseDep,
    order: reports.Order = "prevalence",
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> ConditionsReport:
    """The most common conditions, or those whose members cost most."""
    return await reports.conditions(clickhouse, tenant, order=order, limit=limit)


@router.post("/reports/cohort", dependencies=[require("data:read")])
async def cohort(tenant: TenantDep, clickhouse: ClickHouseDep, wanted: CohortRequest) -> CohortReport:
    """Members with any of the codes, against the rest. A pattern that ends in * takes every code that begins so."""
    return await reports.cohort(clickhouse, tenant, codes=wanted.codes)
