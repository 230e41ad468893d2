"""Ingest batches: what was taken in, and taking it out again. The only writer of a batch's status.

loading → completed → removing → removed; one that fails goes from loading to removing to failed. Reports see a batch's
rows while it is completed: a single-row insert shows all of them at once, another hides them.
"""

# ruff: noqa: S608  the SQL put together here is made of our own words; values are bound

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from loguru import logger

from analytics_service.clickhouse import ClickHouse
from analytics_service.datasets import COLUMNS, Dataset
from analytics_service.engine import Engine, Row
from analytics_service.loads import Load, Loads
from analytics_service.prospects import Tenant
from analytics_service.schemas import IngestBatch, LoadError
from triton_common.errors import AppError, NotFound, Unavailable
from triton_common.pages import decode_id_cursor, encode_cursor
from triton_common.schemas import Page, ProblemDetail

STAGE: Final = "stage_"  # what the names of staging tables begin with
VERSIONS: Final = {"loading": 1, "completed": 2, "removing": 3, "removed": 4, "failed": 4}
OF_TENANT: Final = "client_id = {client:UUID} AND prospect_id = {prospect:UUID}"


class BatchNotFound(NotFound):
    """There is no such batch."""


class LoadInterrupted(Unavailable):
    """The load was interrupted; send the file again."""


@dataclass(frozen=True)
class Batch:
    """A batch as ClickHouse keeps it."""

    tenant: Tenant
    id: UUID
    dataset: Dataset
    source: str
    content_sha256: str
    created_at: datetime
    rows: int = 0
    rejected: int = 0
    rejects: tuple[ProblemDetail, ...] = ()
    bytes: int = 0
    status: str = "completed"
    error: LoadError | None = None

    def public(self) -> IngestBatch:
        """As answers show it."""
        return IngestBatch(
            id=self.id,
            client_id=self.tenant.client_id,
            prospect_id=self.tenant.prospect_id,
            dataset=self.dataset,
            source=self.source,
            status="failed" if self.status == "failed" else "completed",
            bytes=self.bytes,
            error=self.error,
            rows=self.rows,
            rejected=self.rejected,
            rejects=list(self.rejects),
            content_sha256=self.content_sha256,
            created_at=self.created_at,
        )


def parameters(tenant: Tenant, **others: Any) -> dict[str, Any]:
    """What OF_TENANT is bound to."""
    return {"client": tenant.client_id, "prospect": tenant.prospect_id, **others}


async def list_batches(
    clickhouse: ClickHouse, loads: Loads, tenant: Tenant, *, limit: int, cursor: str | None
) -> Page[IngestBatch]:
    """Batches that are loading or completed, newest first. An id is a UUIDv7: the order of their texts is that of their
    times. Raises InvalidCursor.
    """
    before = str(decode_id_cursor(cursor)) if cursor else ""
    rows = await clickhouse.read(
        f"SELECT * FROM ingest_batches FINAL WHERE {OF_TENANT} AND status = 'completed' "
        "AND ({before:String} = '' OR toString(id) < {before:String}) ORDER BY toString(id) DESC LIMIT {limit:UInt32}",
        parameters(tenant, before=before, limit=limit + 1),
    )
    loading = [one for one in loads.of(tenant) if not before or str(one.id) < before]
    items = [await _progress(clickhouse, one) for one in loading] + [_batch(row).public() for row in rows]
    items.sort(key=lambda one: str(one.id), reverse=True)
    more = len(items) > limit
    items = items[:limit]
    return Page(items=items, next_cursor=encode_cursor(str(items[-1].id)) if more else None)


async def get(clickhouse: ClickHouse, loads: Loads, tenant: Tenant, batch_id: UUID) -> IngestBatch:
    """One batch: loading, completed or failed. Raises BatchNotFound."""
    if load := loads.get(tenant, batch_id):
        return await _progress(clickhouse, load)
    rows = await clickhouse.read(
        f"SELECT * FROM ingest_batches FINAL WHERE {OF_TENANT} AND id = {{id:UUID}} "
        "AND status IN ('completed', 'failed')",
        parameters(tenant, id=batch_id),
    )
    if not rows:
        raise BatchNotFound(f"There is no batch {batch_id}.")
    return _batch(rows[0]).public()


async def _progress(clickhouse: ClickHouse, load: Load) -> IngestBatch:
    """A load under way: the rows that are on disk so far, which no report sees."""
    [counted] = await clickhouse.read(
        f"SELECT count() AS rows FROM {load.dataset} WHERE {OF_TENANT} AND batch_id = {{id:UUID}}",
        parameters(load.tenant, id=load.id),
    )
    return IngestBatch(
        id=load.id,
        client_id=load.tenant.client_id,
        prospect_id=load.tenant.prospect_id,
        dataset=load.dataset,
        source=load.source,
        status="loading",
        bytes=load.received,
        bytes_total=load.total,
        rows=counted["rows"],
        created_at=load.created_at,
    )


async def delete(clickhouse: ClickHouse, tenant: Tenant, batch_id: UUID) -> None:
    """Take a batch and its rows out. Raises BatchNotFound."""

    def work(engine: Engine) -> None:
        rows = engine.rows(
            f"SELECT * FROM ingest_batches FINAL WHERE {OF_TENANT} AND id = {{id:UUID}} AND status = 'completed'",
            parameters(tenant, id=batch_id),
        )
        if not rows:
            raise BatchNotFound(f"There is no batch {batch_id}.")
        remove(engine, _batch(rows[0]))

    await clickhouse.write(work)


def with_content(engine: Engine, tenant: Tenant, content_sha256: str) -> Batch | None:
    """The completed batch of this very content."""
    rows = engine.rows(
        f"SELECT * FROM ingest_batches FINAL WHERE {OF_TENANT} AND content_sha256 = {{content:String}} "
        "AND status = 'completed' ORDER BY created_at LIMIT 1",
        parameters(tenant, content=content_sha256),
    )
    return _batch(rows[0]) if rows else None


def is_known(engine: Engine, batch_id: UUID) -> bool:
    """Whether a batch has this id, whosever it is."""
    return bool(engine.rows("SELECT 1 FROM ingest_batches WHERE id = {id:UUID} LIMIT 1", {"id": batch_id}))


def begin(engine: Engine, batch: Batch) -> None:
    """Before the first row is written: what a later start finds when this process dies."""
    _record(engine, batch, "loading")


def complete(engine: Engine, batch: Batch) -> None:
    """The batch's rows are all there: show them."""
    _record(engine, batch, "completed")


def remove(engine: Engine, batch: Batch) -> None:
    """Hide the batch's rows, then take them from the disk."""
    _record(engine, batch, "removing")
    drop_rows(engine, batch)
    _record(engine, batch, "removed")


def fail(engine: Engine, batch: Batch, error: BaseException) -> None:
    """Take the batch's rows from the disk, and keep why."""
    empty = replace(batch, rows=0, rejected=0, rejects=())
    _record(engine, empty, "removing")
    drop_rows(engine, batch)
    known = error if isinstance(error, AppError) else LoadInterrupted()
    why = LoadError(code=known.code, message=known.message, details=list(known.details))
    _record(engine, replace(empty, error=why), "failed")


def drop_rows(engine: Engine, batch: Batch) -> None:
    """Take the batch's rows from the disk: they are a partition, and gone in milliseconds, however many they are."""
    engine.drop_partition(batch.dataset, batch.id)


def count_rows(engine: Engine, batch: Batch) -> int:
    """How many rows of the batch are on disk."""
    rows = engine.row(f"SELECT count() AS rows FROM {batch.dataset} WHERE batch_id = {{id:UUID}}", {"id": batch.id})
    return int(rows["rows"])


def sweep(engine: Engine) -> None:
    """At start: what a process left that was killed goes, staging tables and the rows of unfinished batches."""
    for table in engine.rows(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND startsWith(name, {stage:String})",
        {"stage": STAGE},
    ):
        engine.command(f"DROP TABLE IF EXISTS {table['name']} SYNC")
    for row in engine.rows("SELECT * FROM ingest_batches FINAL WHERE status IN ('loading', 'removing')"):
        batch = _batch(row)
        if row["status"] == "loading":
            fail(engine, batch, LoadInterrupted())
        else:
            remove(engine, batch)
        logger.bind(batch_id=str(batch.id), dataset=batch.dataset).warning("unfinished batch removed")


def _record(engine: Engine, batch: Batch, status: str) -> None:
    values = {
        "client_id": batch.tenant.client_id,
        "prospect_id": batch.tenant.prospect_id,
        "id": batch.id,
        "dataset": batch.dataset,
        "source": batch.source,
        "content_sha256": batch.content_sha256,
        "status": status,
        "rows": batch.rows,
        "rejected": batch.rejected,
        "rejects": json.dumps([reject.model_dump() for reject in batch.rejects]),
        "created_at": batch.created_at,
        "bytes": batch.bytes,
        "error": batch.error.model_dump_json() if batch.error else "",
        "version": VERSIONS[status],
    }
    engine.insert("ingest_batches", [values])


def _batch(row: Row) -> Batch:
    assert row["dataset"] in COLUMNS  # noqa: S101  we wrote it
    return Batch(
        tenant=Tenant(row["client_id"], row["prospect_id"]),
        id=row["id"],
        dataset=row["dataset"],
        source=row["source"],
        content_sha256=row["content_sha256"],
        created_at=row["created_at"],
        rows=row["rows"],
        rejected=row["rejected"],
        rejects=tuple(ProblemDetail.model_validate(reject) for reject in json.loads(row["rejects"])),
        bytes=row["bytes"],
        status=row["status"],
        error=LoadError.model_validate_json(row["error"]) if row["error"] else None,
    )
