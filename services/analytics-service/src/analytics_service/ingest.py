"""Taking files in: stage, validate, load, publish.

Each file goes into a staging table of its own as text, columns that the mapping does not read left out; one INSERT …
SELECT then turns rows of text into rows of the dataset, hashing ids on the way. The rows are in a partition of the
batch's own and no report sees them until the batch's row in `ingest_batches` says `completed`: that single insert is
the moment of publishing. Killed before it, a process leaves nothing that anyone sees, and the next start takes it away.
"""

# ruff: noqa: S608  the SQL put together here is made of our own words; values are bound

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from loguru import logger
from prometheus_client import Counter
from pydantic import SecretStr

from analytics_service import batches, staging
from analytics_service.batches import Batch
from analytics_service.columns import ISSUES
from analytics_service.datasets import COLUMNS, HASHED_KINDS, Dataset
from analytics_service.engine import Engine, RowsRefused
from analytics_service.inputs import EmptyFile, Input, content_digest, inputs_of, lines_of
from analytics_service.loads import BatchIdTaken, Load
from analytics_service.mappings import OWN, Rows, Source, own, source
from analytics_service.members import padded_keys
from analytics_service.selects import Sql, Staged, count, lost, problems_of, select
from analytics_service.uploads import Received
from triton_common.errors import Unprocessable
from triton_common.schemas import ProblemDetail

MAX_REJECTS: Final = 1_000
SHAPES: Final[Mapping[int, tuple[str, str]]] = {
    1: ("too_few_fields", "has fewer fields than the header"),
    2: ("too_many_fields", "has more fields than the header"),
}

INGESTED: Final = Counter("triton_ingest_rows_total", "Rows of ingested files", ["dataset", "outcome"])


class InvalidRows(Unprocessable):
    """Rows of the file are not valid; none was stored."""


@dataclass(frozen=True)
class Bad:
    """A row that is refused: `row` counts from 0 after the header."""

    name: str
    row: int
    column: str
    code: str
    issue: str


def mapping_of(came: Received, source_name: str, *, dataset: Dataset) -> tuple[Source, str]:
    """The mapping that came with the files, or else the source's; and its name. Raises InvalidMapping, UnknownSource.

    A mapping's name tells its content, so that the same file read in another way is another batch.
    """
    if came.mapping is None:
        return source(source_name, dataset=dataset), source_name
    return own(came.mapping, dataset=dataset), f"{OWN}:{sha256(came.mapping).hexdigest()[:12]}"


def load(
    engine: Engine, under_way: Load, came: Received, *, skip_bad_rows: bool, secret: SecretStr
) -> tuple[Batch, bool]:
    """Take files in as one batch: all or nothing, or with `skip_bad_rows` all that is good. For the writer's lane.

    Answers the batch, and whether it is new: the same content again is the batch that it was. Raises one of the errors
    above, naming lines and columns, never values.
    """
    tenant, dataset = under_way.tenant, under_way.dataset
    mapping, name = mapping_of(came, under_way.source, dataset=dataset)
    inputs = inputs_of(mapping, came.files, dataset=dataset, source_name=name)
    digest = content_digest(inputs, mapping, dataset=dataset, source_name=name)
    if known := batches.with_content(engine, tenant, digest):
        if known.rejected and not skip_bad_rows:
            message = f"{_are_not_valid(known.rejected)}; batch {known.id} has the others."
            raise InvalidRows(message, details=known.rejects)
        return known, False
    if batches.is_known(engine, under_way.id):
        raise BatchIdTaken
    batch = Batch(
        tenant, under_way.id, dataset, name, digest, created_at=under_way.created_at, bytes=under_way.received
    )
    batches.begin(engine, batch)
    try:
        with staging.keys(engine, batch, padded_keys(secret, tenant.client_id)) as keys:
            batch = _loaded(engine, batch, mapping, inputs, keys=keys, skip_bad_rows=skip_bad_rows)
    except BaseException as error:
        batches.fail(engine, batch, error)
        raise
    batches.complete(engine, batch)
    INGESTED.labels(dataset, "stored").inc(batch.rows)
    INGESTED.labels(dataset, "rejected").inc(batch.rejected)
    logger.bind(batch_id=str(batch.id), dataset=dataset, rows=batch.rows, rejected=batch.rejected).info(
        "batch completed"
    )
    return batch, True


def _loaded(
    engine: Engine, batch: Batch, mapping: Source, inputs: Sequence[Input], *, keys: str, skip_bad_rows: bool
) -> Batch:
    """The batch with its rows in place, and counted."""
    stored = _loaded_in_place(engine, batch, mapping, inputs, keys=keys)
    bad: list[Bad] = []
    rejected = 0
    if stored is None:
        with staging.staged(engine, batch, inputs) as staged:
            stored = _insert(engine, batch, mapping, staged, keys=keys)
            bad, rejected = refused(engine, batch, mapping, staged, keys=keys, stored=stored)
    if rejected and (stored == 0 or not skip_bad_rows):
        raise InvalidRows(
            f"{_are_not_valid(rejected)}, and none was stored; see details.", details=details_of(bad, inputs)
        )
    if stored == 0:
        raise EmptyFile(f"No row of the files is one of {batch.dataset}.")
    return replace(batch, rows=stored, rejected=rejected, rejects=tuple(details_of(bad, inputs)))


def _loaded_in_place(
    engine: Engine, batch: Batch, mapping: Source, inputs: Sequence[Input], *, keys: str
) -> int | None:
    """Load in one pass over files that the engine reads itself; None when it cannot be done so.

    It can when no row is bad, and no file is looked up from another: this is the way of most files, and costs little
    more than the engine's own INSERT … FROM file. Any other is staged, to be looked at closely.
    """
    if not engine.embedded or any(rows.lookups for rows in mapping.rows_of(batch.dataset)):
        return None
    most = sum(given.most_rows for given in inputs) * len(mapping.rows_of(batch.dataset))
    try:
        with engine.merging_later(batch.dataset, rows=most):
            for given in inputs:
                _insert(engine, batch, mapping, {given.name: staging.in_place(given)}, keys=keys, strict=True)
    except RowsRefused:
        batches.drop_rows(engine, batch)
        return None
    return batches.count_rows(engine, batch)


# --- loading


def sources_of(mapping: Source, batch: Batch, staged: Mapping[str, Staged]) -> Iterator[tuple[Rows, Sql]]:
    """Each file whose rows are rows of the dataset, with how."""
    for rows in mapping.rows_of(batch.dataset):
        for file in staged.values():
            if rows.fits(file.name):
                yield rows, Sql(staged, file, mapping.maps, dict(file.parameters))


def with_keys(table: str) -> str:
    scalars = [
        f"(SELECT unhex({half}) FROM {table} WHERE kind = '{kind}') AS {kind}_{half}"
        for kind in HASHED_KINDS
        for half in ("inner", "outer")
    ]
    return f"WITH {', '.join(scalars)}"


def _insert(
    engine: Engine,
    batch: Batch,
    mapping: Source,
    staged: Mapping[str, Staged],
    *,
    keys: str,
    strict: bool = False,
) -> int:
    """Load every good row, or with `strict` none but all; answers how many. Raises RowsRefused."""
    names = [column.name for column in COLUMNS[batch.dataset]]
    targets = ", ".join(["client_id", "prospect_id", "batch_id", *(f"`{name}`" for name in names)])
    for rows, sql in sources_of(mapping, batch, staged):
        engine.load(
            f"INSERT INTO {batch.dataset} ({targets}) {with_keys(keys)} "
            f"SELECT {{client:UUID}}, {{prospect:UUID}}, {{batch:UUID}}, "
            f"{', '.join(f'v_{name}' for name in names)} FROM ({select(rows, batch.dataset, sql)}) "
            f"WHERE {'throwIf(bad) = 0' if strict else 'NOT bad'}",
            sql.parameters | batches.parameters(batch.tenant, batch=batch.id),
        )
    return batches.count_rows(engine, batch)


def refused(
    engine: Engine, batch: Batch, mapping: Source, staged: Mapping[str, Staged], *, keys: str, stored: int
) -> tuple[list[Bad], int]:
    """The first MAX_REJECTS rows that were not loaded, and how many there are. Cheap when there are none."""
    bad: list[Bad] = []
    rejected = 0
    for file in staged.values():
        shapes = engine.rows(
            f"SELECT _row, _shape, count() OVER () AS total FROM {file.table} WHERE _shape IN (1, 2) "
            "ORDER BY _row LIMIT {limit:UInt32}",
            {"limit": MAX_REJECTS},
        )
        rejected += int(shapes[0]["total"]) if shapes else 0
        bad += [Bad(file.name, row["_row"], "", *SHAPES[row["_shape"]]) for row in shapes]
    taken = sum(
        int(engine.row(count(rows, sql), sql.parameters)["rows"]) for rows, sql in sources_of(mapping, batch, staged)
    )
    for rows, sql in sources_of(mapping, batch, staged):
        if taken > stored:
            bad += _bad_rows(engine, batch, rows, sql, keys=keys)
        for file, column, query in lost(rows, sql):
            found = engine.rows(
                f"SELECT *, count() OVER () AS total FROM ({query}) ORDER BY row LIMIT {MAX_REJECTS}", sql.parameters
            )
            rejected += int(found[0]["total"]) if found else 0
            issues = {**ISSUES, "no_such_row": "is of a row that no row of the dataset belongs to"}
            bad += [Bad(file.name, row["row"], column, row["code"], issues[row["code"]]) for row in found]
    bad.sort(key=lambda one: (one.name, one.row))
    return bad[:MAX_REJECTS], rejected + taken - stored


def _bad_rows(engine: Engine, batch: Batch, rows: Rows, sql: Sql, *, keys: str) -> Iterator[Bad]:
    problems = problems_of(batch.dataset)
    found = engine.rows(
        f"{with_keys(keys)} SELECT row, problems FROM ({select(rows, batch.dataset, sql)}) WHERE bad "
        f"ORDER BY row LIMIT {MAX_REJECTS}",
        sql.parameters,
    )
    for row in found:
        seen: set[str] = set()
        for number, kind in row["problems"]:
            column, code, _ = problems[number - 1]
            if column.name not in seen:  # the first that is wrong with a column says enough
                seen.add(column.name)
                issue = ISSUES[code] if kind == "empty" else f"{ISSUES[code]}; what stands there is {kind}"
                yield Bad(sql.base.name, row["row"], rows.source_of(column.name), code, issue)


# --- naming lines


def _are_not_valid(rejected: int) -> str:
    return f"{rejected} row{' is' if rejected == 1 else 's are'} not valid"


def details_of(bad: Sequence[Bad], inputs: Sequence[Input]) -> list[ProblemDetail]:
    """Where and why, as answers say it."""
    details: list[ProblemDetail] = []
    for given in inputs:
        here = [one for one in bad if one.name == given.name]
        lines = lines_of(given, {one.row for one in here}) if here else {}
        details += [
            ProblemDetail(field=given.place(lines[one.row], one.column), issue=one.issue, code=one.code) for one in here
        ]
    return details[:MAX_REJECTS]
