"""Ingest batches: what was taken in, and taking it out again. The only writer of a batch's status.

loading → completed → removing → removed; one that fails goes from loading to removing. Reports see a batch's rows while
it is completed: a single-row insert shows all of them at once, another hides them.
"""

# ruff: noqa: S608  the SQL put together here is made of our own words; values are bound

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from loguru import logger

from analytics_service.clickhouse import ClickHouse, Engine, Row
from analytics_service.datasets import COLUMNS, Dataset
from analytics_service.prospects import Tenant
from analytics_service.schemas import IngestBatch
from triton_common.errors import NotFound
from triton_common.pages import decode_id_cursor, encode_cursor
from triton_common.schemas import Page, ProblemDetail

STAGE: Final = "stage_"  # what the names of staging tables begin with
VERSIONS: Final = {"loading": 1, "completed": 2, "removing": 3, "removed": 4}
OF_TENANT: Final = "client_id = {client:UUID} AND prospect_id = {prospect:UUID}"


class BatchNotFound(NotFound):
    """There is no such batch."""


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

    def public(self) -> IngestBatch:
        """As answers show it."""
        return IngestBatch(
            id=self.id,
            client_id=self.tenant.client_id,
            prospect_id=self.tenant.prospect_id,
            dataset=self.dataset,
            source=self.source,
            status="completed",
            rows=self.rows,
            rejected=self.rejected,
            rejects=list(self.rejects),
            content_sha256=self.content_sha256,
            created_at=self.created_at,
        )


def parameters(tenant: Tenant, **others: Any) -> dict[str, Any]:
    """What OF_TENANT is bound to."""
    return {"client": tenant.client_id, "prospect": tenant.prospect_id, **others}


async def list_batches(clickhouse: ClickHouse, tenant: Tenant, *, limit: int, cursor: str | None) -> Page[IngestBatch]:
    """Completed batches, newest first. An id is a UUIDv7: the order of their texts is that of their times.

    Raises InvalidCursor.
    """
    before = str(decode_id_cursor(cursor)) if cursor else ""
    rows = await clickhouse.read(
        f"SELECT * FROM ingest_batches FINAL WHERE {OF_TENANT} AND status = 'completed' "
        "AND ({before:String} = '' OR toString(id) < {before:String}) ORDER BY toString(id) DESC LIMIT {limit:UInt32}",
        parameters(tenant, before=before, limit=limit + 1),
    )
    items = [_batch(row).public() for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(str(items[-1].id)) if len(rows) > limit else None)


async def get(clickhouse: ClickHouse, tenant: Tenant, batch_id: UUID) -> IngestBatch:
    """One completed batch. Raises BatchNotFound."""
    rows = await clickhouse.read(
        f"SELECT * FROM ingest_batches FINAL WHERE {OF_TENANT} AND id = {{id:UUID}} AND status = 'completed'",
        parameters(tenant, id=batch_id),
    )
    if not rows:
        raise BatchNotFound(f"There is no batch {batch_id}.")
    return _batch(rows[0]).public()


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


def drop_rows(engine: Engine, batch: Batch) -> None:
    """Take the batch's rows from the disk: they are a partition, and gone in milliseconds, however many they are."""
    engine.command(f"ALTER TABLE {batch.dataset} DROP PARTITION {{id:UUID}}", {"id": batch.id})


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
        remove(engine, replace(batch, rows=0, rejected=0, rejects=()))
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
    )
