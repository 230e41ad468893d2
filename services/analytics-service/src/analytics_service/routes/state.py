"""What routes take from the running app and from every request: who and what."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request

from analytics_service.clickhouse import ClickHouse, QueryTimedOut
from analytics_service.lanes import AnalyticsBusy, ClickhouseUnavailable
from analytics_service.loads import Loads
from analytics_service.prospects import Prospects, Tenant
from analytics_service.settings import Settings
from triton_common.audit import event_of
from triton_common.auth import TOKEN_ERRORS, CurrentPrincipal, InsufficientScope, KeysUnavailable
from triton_common.client import ServiceUnreachable
from triton_common.errors import ProspectNotFound, problems
from triton_common.trail import AuditUnavailable

ERRORS = (
    *TOKEN_ERRORS,
    InsufficientScope,
    ProspectNotFound,
    ClickhouseUnavailable,
    QueryTimedOut,
    AnalyticsBusy,
    KeysUnavailable,
    ServiceUnreachable,
    AuditUnavailable,
)
"""What every route may answer. A route that declares a status of these itself replaces it, and must name them again."""


def router() -> APIRouter:
    """A router under a prospect, whose routes declare what all may answer."""
    return APIRouter(
        prefix="/api/v1/analytics/prospects/{prospect_id}", tags=["analytics"], responses=problems(*ERRORS)
    )


async def _tenant(request: Request, principal: CurrentPrincipal, prospect_id: UUID) -> Tenant:
    prospects: Prospects = request.app.state.prospects
    return _recorded(request, await prospects.tenant(principal, prospect_id))


async def _open_tenant(request: Request, principal: CurrentPrincipal, prospect_id: UUID) -> Tenant:
    prospects: Prospects = request.app.state.prospects
    return _recorded(request, await prospects.open_tenant(principal, prospect_id))


def _recorded(request: Request, tenant: Tenant) -> Tenant:
    event_of(request).tell(client_id=tenant.client_id)  # every route about a prospect records
    return tenant


async def _clickhouse(request: Request) -> ClickHouse:
    clickhouse: ClickHouse = request.app.state.clickhouse
    return clickhouse


async def _loads(request: Request) -> Loads:
    loads: Loads = request.app.state.loads
    return loads


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


TenantDep = Annotated[Tenant, Depends(_tenant)]
OpenTenantDep = Annotated[Tenant, Depends(_open_tenant)]
ClickHouseDep = Annotated[ClickHouse, Depends(_clickhouse)]
LoadsDep = Annotated[Loads, Depends(_loads)]
SettingsDep = Annotated[Settings, Depends(_settings)]
