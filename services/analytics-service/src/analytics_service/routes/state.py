"""What routes take from the running app and from every request: who and what."""

from collections import Counter
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute

from analytics_service.clickhouse import ClickHouse
from analytics_service.engine import QueryTimedOut
from analytics_service.lanes import AnalyticsBusy, ClickhouseUnavailable
from analytics_service.loads import Loads
from analytics_service.prospects import Prospects, Tenant
from analytics_service.settings import Settings
from triton_common.audit import event_of
from triton_common.auth import TOKEN_ERRORS, CurrentPrincipal, InsufficientScope, KeysUnavailable
from triton_common.client import ServiceUnreachable
from triton_common.errors import ProspectNotFound, ValidationFailed, problems
from triton_common.schemas import ProblemDetail
from triton_common.trail import AuditUnavailable

SEVERAL: Final = {"condition"}  # parameters that may come more than once
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


def _check_parameters(request: Request) -> None:
    """Raises ValidationFailed: a misspelt filter is not taken for none, and of two dates none is dropped."""
    route: APIRoute = request.scope["route"]
    known = {field.alias for field in get_flat_params(route.dependant) if isinstance(field.field_info, Query)}
    given = Counter(name for name, _ in request.query_params.multi_items())
    details = [
        ProblemDetail(
            field=f"query.{name}", issue=f"is not known; {', '.join(sorted(known)) or 'none'} is", code="unknown"
        )
        for name in sorted(given.keys() - known)
    ]
    details += [
        ProblemDetail(field=f"query.{name}", issue="Input should come once", code="repeated")
        for name, count in given.items()
        if count > 1 and name in known - SEVERAL
    ]
    if details:
        raise ValidationFailed("Correct the fields named in details.", details=details)


def router() -> APIRouter:
    """A router under a prospect, whose routes declare what all may answer."""
    return APIRouter(
        prefix="/api/v1/analytics/prospects/{prospect_id}",
        tags=["analytics"],
        responses=problems(*ERRORS),
    )


async def _tenant(request: Request, principal: CurrentPrincipal, prospect_id: UUID) -> Tenant:
    _check_parameters(request)
    prospects: Prospects = request.app.state.prospects
    return _recorded(request, await prospects.tenant(principal, prospect_id))


async def _open_tenant(request: Request, principal: CurrentPrincipal, prospect_id: UUID) -> Tenant:
    _check_parameters(request)
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
