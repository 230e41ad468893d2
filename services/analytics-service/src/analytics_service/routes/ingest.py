"""Taking rows in, and what was taken in."""

import re
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Query, Request, Response, status
from starlette.requests import ClientDisconnect

from analytics_service import batches, ingest, inputs
from analytics_service.batches import BatchNotFound
from analytics_service.datasets import Dataset
from analytics_service.mappings import UnknownSource
from analytics_service.parquet import InvalidParquet
from analytics_service.routes import state
from analytics_service.routes.state import ClickHouseDep, SettingsDep, TenantDep
from analytics_service.schemas import IngestBatch
from analytics_service.unpacking import InvalidGzip, InvalidZstd
from analytics_service.uploads import InvalidMultipart, UploadTypeNotSupported, received
from triton_common.auth import require
from triton_common.errors import BadRequest, ContentTooLarge, ProspectNotFound, problems
from triton_common.pages import CursorQuery, InvalidCursor, LimitQuery
from triton_common.schemas import Page

router = state.router()

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


@router.get("/batches", dependencies=[require("data:read")], responses=problems(InvalidCursor))
async def list_batches(
    tenant: TenantDep, clickhouse: ClickHouseDep, limit: LimitQuery = 50, cursor: CursorQuery = None
) -> Page[IngestBatch]:
    """What was taken in for a prospect, newest first."""
    return await batches.list_batches(clickhouse, tenant, limit=limit, cursor=cursor)


@router.get(
    "/batches/{batch_id}", dependencies=[require("data:read")], responses=problems(ProspectNotFound, BatchNotFound)
)
async def get_batch(tenant: TenantDep, clickhouse: ClickHouseDep, batch_id: UUID) -> IngestBatch:
    """One batch, with the rows it refused."""
    return await batches.get(clickhouse, tenant, batch_id)


@router.delete(
    "/batches/{batch_id}",
    dependencies=[require("data:write")],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(ProspectNotFound, BatchNotFound),
)
async def delete_batch(tenant: TenantDep, clickhouse: ClickHouseDep, batch_id: UUID) -> None:
    """Take a batch out: its rows leave every report at once, and the disk."""
    await batches.delete(clickhouse, tenant, batch_id)


@router.post(
    "/{dataset}",
    dependencies=[require("data:write")],
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
            InvalidZstd,
            InvalidParquet,
            UnknownSource,
            inputs.EmptyFile,
            inputs.UnknownFile,
            inputs.MissingFile,
            inputs.MissingColumn,
            inputs.InvalidHeader,
            inputs.InvalidCsv,
            inputs.InvalidNdjson,
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
        async with received(request.headers, request.stream(), limit=settings.max_upload_bytes) as came:
            batch, created = await clickhouse.write(
                lambda engine: ingest.load(
                    engine,
                    tenant,
                    came.files,
                    dataset=dataset,
                    source_name=source,
                    skip_bad_rows=on_error == "skip",
                    secret=settings.member_key,
                )
            )
    except ClientDisconnect:
        raise UploadBroken from None
    if not created:
        response.status_code = status.HTTP_200_OK
    response.headers["Location"] = f"{request.url.path.rpartition('/')[0]}/batches/{batch.id}"
    return batch.public()
