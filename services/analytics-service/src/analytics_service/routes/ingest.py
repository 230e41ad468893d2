"""Taking rows in, and what was taken in."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Header, Query, Request, Response, status
from pydantic import UUID7
from starlette.requests import ClientDisconnect
from uuid_utils.compat import uuid7

from analytics_service import batches, ingest, inputs
from analytics_service.batches import BatchNotFound
from analytics_service.datasets import Dataset
from analytics_service.loads import BatchIdTaken, Load
from analytics_service.mappings import InvalidMapping, UnknownSource
from analytics_service.parquet import InvalidParquet
from analytics_service.preview import preview
from analytics_service.prospects import ProspectClosed
from analytics_service.routes import state
from analytics_service.routes.state import ClickHouseDep, LoadsDep, OpenTenantDep, SettingsDep, TenantDep
from analytics_service.schemas import IngestBatch, Preview
from analytics_service.unpacking import InvalidGzip, InvalidZstd
from analytics_service.uploads import InvalidMultipart, UploadTypeNotSupported, received
from triton_common.audit import event_of, recorded
from triton_common.auth import require
from triton_common.errors import BadRequest, ContentTooLarge, ProspectNotFound, problems
from triton_common.pages import CursorQuery, InvalidCursor, LimitQuery
from triton_common.schemas import Page

router = state.router()

UPLOAD_PATHS: Final = re.compile(r"/api/v1/analytics/prospects/[^/]+/[^/]+(/preview)?")
_FILE: Final = {"schema": {"type": "string", "format": "binary"}}
UPLOAD: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "Rows, plain or packed with gzip or zstd; several files, and a mapping of one's own as the part "
        "`mapping`, as multipart/form-data",
        "content": {
            "text/csv": _FILE,
            "application/x-ndjson": _FILE,
            "application/vnd.apache.parquet": _FILE,
            "multipart/form-data": {"schema": {"type": "object", "additionalProperties": _FILE["schema"]}},
        },
    }
}


class UploadBroken(BadRequest):
    """The connection broke off before the body's end."""


@router.get(
    "/batches",
    dependencies=[recorded("batch.listed", on="prospect"), require("data:read")],
    responses=problems(InvalidCursor),
)
async def list_batches(
    tenant: TenantDep,
    clickhouse: ClickHouseDep,
    loads: LoadsDep,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> Page[IngestBatch]:
    """What was taken in for a prospect or is being taken in, newest first."""
    return await batches.list_batches(clickhouse, loads, tenant, limit=limit, cursor=cursor)


@router.get(
    "/batches/{batch_id}",
    dependencies=[recorded("batch.read", on="prospect"), require("data:read")],
    responses=problems(ProspectNotFound, BatchNotFound),
)
async def get_batch(tenant: TenantDep, clickhouse: ClickHouseDep, loads: LoadsDep, batch_id: UUID) -> IngestBatch:
    """One batch: how far it has come while it is loading, the rows it refused, or why it failed."""
    return await batches.get(clickhouse, loads, tenant, batch_id)


@router.delete(
    "/batches/{batch_id}",
    dependencies=[recorded("data.deleted", on="prospect"), require("data:write")],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(ProspectNotFound, BatchNotFound),
)
async def delete_batch(tenant: TenantDep, clickhouse: ClickHouseDep, batch_id: UUID) -> None:
    """Take a batch out: its rows leave every report at once, and the disk."""
    await batches.delete(clickhouse, tenant, batch_id)


UNREADABLE: Final = (
    InvalidMultipart,
    ContentTooLarge,
    UploadTypeNotSupported,
    InvalidGzip,
    InvalidZstd,
    InvalidParquet,
    InvalidMapping,
    UnknownSource,
    inputs.EmptyFile,
    inputs.UnknownFile,
    inputs.MissingFile,
    inputs.MissingColumn,
    inputs.InvalidHeader,
    inputs.InvalidCsv,
    inputs.InvalidNdjson,
)
SourceQuery = Annotated[
    str, Query(max_length=64, description="The column mapping: triton, synthea or cms-synpuf; see docs/mappings.md")
]
BatchIdHeader = Annotated[
    UUID7 | None, Header(description="A UUIDv7 to ask for the load's progress by; without it the batch gets one")
]


@router.post(
    "/{dataset}",
    dependencies=[recorded("data.loaded", on="prospect"), require("data:write")],
    status_code=status.HTTP_201_CREATED,
    openapi_extra=UPLOAD,
    responses={
        200: {"model": IngestBatch, "description": "The same content was there: the batch that it was"},
        **problems(UploadBroken, *UNREADABLE, ProspectClosed, BatchIdTaken, ingest.InvalidRows),
    },
)
async def ingest_files(  # noqa: PLR0917  FastAPI names them
    request: Request,
    response: Response,
    tenant: OpenTenantDep,
    clickhouse: ClickHouseDep,
    settings: SettingsDep,
    loads: LoadsDep,
    dataset: Dataset,
    source: SourceQuery = "triton",
    on_error: Annotated[
        Literal["abort", "skip"], Query(description="What one bad row does: nothing is stored, or all the others are")
    ] = "abort",
    batch_id: BatchIdHeader = None,
) -> IngestBatch:
    """Take rows into a dataset, all or none of them.

    CSV, NDJSON or Parquet is one file; `multipart/form-data` brings several, each under the file name that its source
    gives it. The same content again changes nothing and answers the batch that it was. Meanwhile
    `GET …/batches/{Batch-Id}` tells how far it has come.
    """
    length = request.headers.get("content-length", "")
    load = Load(
        tenant,
        batch_id or uuid7(),
        dataset,
        source,
        created_at=_now(),
        total=int(length) if length.isdigit() else None,
    )
    try:
        with loads.under_way(load):
            async with received(
                request.headers, request.stream(), limit=settings.max_upload_bytes, count=load.count
            ) as came:
                batch, created = await clickhouse.write(
                    lambda engine: ingest.load(
                        engine, load, came, skip_bad_rows=on_error == "skip", secret=settings.member_key
                    )
                )
    except ClientDisconnect:
        raise UploadBroken from None
    event_of(request).tell(batch_id=batch.id, rows=batch.rows)
    if not created:
        response.status_code = status.HTTP_200_OK
    response.headers["Location"] = f"{request.url.path.rpartition('/')[0]}/batches/{batch.id}"
    return batch.public()


@router.post(
    "/{dataset}/preview",
    dependencies=[recorded("data.previewed", on="prospect"), require("data:write")],
    openapi_extra=UPLOAD,
    responses=problems(UploadBroken, *UNREADABLE),
)
async def preview_files(  # noqa: PLR0917  FastAPI names them
    request: Request,
    tenant: TenantDep,
    clickhouse: ClickHouseDep,
    settings: SettingsDep,
    dataset: Dataset,
    source: SourceQuery = "triton",
) -> Preview:
    """What the same call without /preview would store: its first 20 rows, and what is wrong with the others."""
    try:
        async with received(request.headers, request.stream(), limit=settings.max_upload_bytes) as came:
            return await clickhouse.write(
                lambda engine: preview(
                    engine, tenant, came, dataset=dataset, source_name=source, secret=settings.member_key
                )
            )
    except ClientDisconnect:
        raise UploadBroken from None


def _now() -> datetime:
    """To the millisecond, as ClickHouse keeps it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
