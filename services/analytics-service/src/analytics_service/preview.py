"""What a call would store: its first rows as they are mapped, and what is wrong with the others. Stores nothing."""

# ruff: noqa: S608  the SQL put together here is made of our own words; values are bound

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from pydantic import SecretStr
from uuid_utils.compat import uuid7

from analytics_service import ingest, staging
from analytics_service.batches import Batch
from analytics_service.datasets import COLUMNS, Dataset
from analytics_service.engine import Engine
from analytics_service.inputs import inputs_of
from analytics_service.members import padded_keys
from analytics_service.prospects import Tenant
from analytics_service.schemas import Preview
from analytics_service.selects import select
from analytics_service.uploads import Received

SHOWN: Final = 20  # rows of each kind that the mapping knows


def preview(
    engine: Engine, tenant: Tenant, came: Received, *, dataset: Dataset, source_name: str, secret: SecretStr
) -> Preview:
    """The first rows and the problems. Raises what `ingest.load` raises, bad rows excepted. For the writer's lane."""
    mapping, source_name = ingest.mapping_of(came, source_name, dataset=dataset)
    inputs = inputs_of(mapping, came.files, dataset=dataset, source_name=source_name)
    # its id names the staging tables, and nothing else
    batch = Batch(tenant, uuid7(), dataset, source_name, "", created_at=datetime.now(UTC))
    shown: list[dict[str, Any]] = []
    good = 0
    names = ", ".join(f"v_{column.name}" for column in COLUMNS[dataset])
    with (
        staging.keys(engine, batch, padded_keys(secret, tenant.client_id)) as keys,
        staging.staged(engine, batch, inputs) as staged,
    ):
        for rows, sql in ingest.sources_of(mapping, batch, staged):
            query = f"{ingest.with_keys(keys)} SELECT %s FROM ({select(rows, dataset, sql)}) WHERE NOT bad"
            good += int(engine.row(query % "count() AS rows", sql.parameters)["rows"])
            found = engine.rows(f"{query % f'row, {names}'} ORDER BY row LIMIT {SHOWN}", sql.parameters)
            shown += [{name.removeprefix("v_"): _shown(row[name]) for name in row if name != "row"} for row in found]
        bad, rejected = ingest.refused(engine, batch, mapping, staged, keys=keys, stored=good)
    return Preview(rows=shown[:SHOWN], good=good, rejected=rejected, rejects=ingest.details_of(bad, inputs))


def _shown(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case Decimal():
            return str(value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
    return value
