"""The paths: who and what, one rule, the answer."""

import re
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response, status
from starlette.requests import ClientDisconnect

from analytics_service import batches, ingest, inputs, reports
from analytics_service.batches import BatchNotFound
from analytics_service.clickhouse import AnalyticsBusy, ClickHouse, ClickhouseUnavailable
from analytics_service.datasets import Dataset
from analytics_service.mappings import UnknownSource
from analytics_service.prospects import Prospects, Tenant
from analytics_service.schemas import IngestBatch
from analytics_service.settings import Settings
from analytics_service.uploads import InvalidGzip, InvalidMultipart, UploadTypeNotSupported, received
from triton_common.audit import event_of, recorded
from triton_common.auth import TOKEN_ERRORS, CurrentPrincipal, InsufficientScope, KeysUnavailable, require
from triton_common.client import ServiceUnreachable
from triton_common.errors import BadRequest, ContentTooLarge, ProspectNotFound, problems
from triton_common.pages import CursorQuery, InvalidCursor, LimitQuery
from triton_common.schemas import (
    CohortReport,
    CohortRequest,
    ConditionsReport,
    CostTrendReport,
    Page,
    SummaryReport,
)
from triton_common.trail import AuditUnavailable

router = APIRouter(
    prefix="/api/v1/analytics/prospects/{prospect_id}",
    tags=["analytics"],
    responses=problems(
        *TOKEN_ERRORS,
        InsufficientScope,
        ProspectNotFound,
        ClickhouseUnavailable,
        AnalyticsBusy,
        KeysUnavailable,
        ServiceUnreachable,
        AuditUnavailable,
    ),
)

UPLOAD_PATHS: Final = re.compile(r"/api/v1/analytics/prospects/[^/]+/[^/]+")
UPLOAD: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "Rows as CSV with a header, UTF-8; plain or with Content-Encoding gzip",
        "content": {
            "text/csv": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}
            },
        },
    }
}


class UploadBroken(BadRequest):
    """The connection broke off before the body's end."""


async def _tenant(request: Request, principal: CurrentPrincipal, prospect_id: UUID) -> Tenant:
    prospects: Prospects = request.app.state.prospects
    tenant = await prospects.tenant(principal, prospect_id)
    event_of(request).tell(client_id=tenant.client_id)  # every route about a prospect records
    return tenant


async def _clickhouse(request: Request) -> ClickHouse:
    clickhouse: ClickHouse = request.app.state.clickhouse
    return clickhouse


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


TenantDep = Annotated[Tenant, Depends(_tenant)]
ClickHouseDep = Annotated[ClickHouse, Depends(_clickhouse)]
SettingsDep = Annotated[Settings, Depends(_settings)]


@router.get(
    "/batches",
    dependencies=[recorded("batch.listed", on="prospect"), require("data:read")],
    responses=problems(InvalidCursor),
)
async def list_batches(
    tenant: TenantDep, clickhouse: ClickHouseDep, limit: LimitQuery = 50, cursor: CursorQuery = None
) -> Page[IngestBatch]:
    """What was taken in for a prospect, newest first."""
    return await batches.list_batches(clickhouse, tenant, limit=limit, cursor=cursor)


@router.get(
    "/batches/{batch_id}",
    dependencies=[recorded("batch.read", on="prospect"), require("data:read")],
    responses=problems(ProspectNotFound, BatchNotFound),
)
async def get_batch(tenant: TenantDep, clickhouse: ClickHouseDep, batch_id: UUID) -> IngestBatch:
    """One batch, with the rows it refused."""
    return await batches.get(clickhouse, tenant, batch_id)


@router.delete(
    "/batches/{batch_id}",
    dependencies=[recorded("data.deleted", on="prospect"), require("data:write")],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(ProspectNotFound, BatchNotFound),
)
async def delete_batch(tenant: TenantDep, clickhouse: ClickHouseDep, batch_id: UUID) -> None:
    """Take a batch out: its rows leave every report at once, and the disk."""
    await batches.delete(clickhouse, tenant, batch_id)


@router.get(
    "/reports/summary", dependencies=[recorded("report.read", on="prospect", report="summary"), require("data:read")]
)
async def summary(tenant: TenantDep, clickhouse: ClickHouseDep) -> SummaryReport:
    """The population and what it costs."""
    return await reports.summary(clickhouse, tenant)


@router.get(
    "/reports/cost-trend",
    dependencies=[recorded("report.read", on="prospect", report="cost-trend"), require("data:read")],
)
async def cost_trend(tenant: TenantDep, clickhouse: ClickHouseDep) -> CostTrendReport:
    """Cost by calendar month."""
    return await reports.cost_trend(clickhouse, tenant)


@router.get(
    "/reports/conditions",
    dependencies=[recorded("report.read", on="prospect", report="conditions"), require("data:read")],
)
async def conditions(
    tenant: TenantDep,
    clickhouse: ClickHouseDep,
    order: reports.Order = "prevalence",
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> ConditionsReport:
    """The most common conditions, or those whose members cost most."""
    return await reports.conditions(clickhouse, tenant, order=order, limit=limit)


@router.post(
    "/reports/cohort", dependencies=[recorded("report.read", on="prospect", report="cohort"), require("data:read")]
)
async def cohort(tenant: TenantDep, clickhouse: ClickHouseDep, wanted: CohortRequest) -> CohortReport:
    """Members with any of the codes, against the rest. A pattern that ends in * takes every code that begins so."""
    return await reports.cohort(clickhouse, tenant, codes=wanted.codes, last_months=wanted.last_months)


@router.post(
    "/{dataset}",
    dependencies=[recorded("data.loaded", on="prospect"), require("data:write")],
    status_code=status.HTTP_201_CREATED,
    openapi_extra=UPLOAD,
    responses={
        200: {"model": IngestBatch, "description": "The same content was there: the batch that it was"},
        **problems(
            UploadBroken,
            InvalidMultipart,
            ContentTooLarge,
            UploadTypeNotSupported,
            InvalidGzip,
            UnknownSource,
            inputs.EmptyFile,
            inputs.UnknownFile,
            inputs.MissingFile,
            inputs.MissingColumn,
            inputs.InvalidHeader,
            inputs.InvalidCsv,
            ingest.InvalidRows,
        ),
    },
)
async def ingest_files(  # noqa: PLR0917  FastAPI names them
    request: Request,
    response: Response,
    tenant: TenantDep,
    clickhouse: ClickHouseDep,
    settings: SettingsDep,
    dataset: Dataset,
    source: Annotated[str, Query(max_length=64, description="The column mapping: triton or synthea")] = "triton",
    on_error: Annotated[
        Literal["abort", "skip"], Query(description="What one bad row does: nothing is stored, or all the others are")
    ] = "abort",
) -> IngestBatch:
    """Take rows into a dataset, all or none of them.

    `text/csv` is one file; `multipart/form-data` brings several, each under the file name that its source gives it.
    The same content again changes nothing and answers the batch that it was.
    """
    try:
        async with received(request.headers, request.stream(), limit=settings.max_upload_bytes) as files:
            batch, created = await clickhouse.write(
                lambda engine: ingest.load(
                    engine,
                    tenant,
                    files,
                    dataset=dataset,
                    source_name=source,
                    skip_bad_rows=on_error == "skip",
                    secret=settings.member_key,
                )
            )
    except ClientDisconnect:
        raise UploadBroken from None
    event_of(request).tell(batch_id=batch.id, rows=batch.rows)
    if not created:
        response.status_code = status.HTTP_200_OK
    response.headers["Location"] = f"{request.url.path.rpartition('/')[0]}/batches/{batch.id}"
    return batch.public()
