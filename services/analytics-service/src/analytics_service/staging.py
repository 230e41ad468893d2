"""Files as tables that statements read: copied into a staging table, or in place where the engine reads our files."""

# ruff: noqa: S608  the SQL put together here is made of our own words; values are bound, names quoted

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from analytics_service.batches import STAGE, Batch
from analytics_service.engine import FORMATS, Engine, RowsRefused
from analytics_service.inputs import Input, InvalidCsv, InvalidNdjson, malformed_line
from analytics_service.parquet import InvalidParquet
from analytics_service.selects import Staged
from triton_common.schemas import ProblemDetail

MISSING: Final = "\\0"  # the default of a file's last column: what a row that is too short gets there


@dataclass(frozen=True)
class Field:
    """A field of a file: what its format calls it, the type it is read as, SQL of its text, the column of that."""

    name: str
    type: str
    text: str
    column: str

    @property
    def declared(self) -> str:
        """As a format's structure has it."""
        return f"{_quoted(self.name)} {self.type}"


def _fields(given: Input) -> list[Field]:
    """All fields of CSV, whose columns go by position; of the other formats those that are kept."""
    fields: list[Field] = []
    for number, name in enumerate(given.header):
        column, quoted = f"c{number}", _quoted(name)
        if given.uploaded.kind == "csv":
            fields.append(Field(column, "String", column, column))
        elif name not in given.kept:
            continue
        elif name in given.lists:
            fields.append(Field(name, "Array(String)", f"arrayStringConcat({quoted}, ';')", column))
        elif given.uploaded.kind == "ndjson":
            text = f"if(startsWith({quoted}, '['), {_listed(quoted)}, {quoted})"
            fields.append(Field(name, "String", text, column))
        else:
            fields.append(Field(name, "String", quoted, column))
    return fields


def _listed(text: str) -> str:
    return f"arrayStringConcat(JSONExtract({text}, 'Array(String)'), ';')"


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def _columns(given: Input) -> dict[str, str]:
    """The kept columns' names in the table; of a name that is there twice the first."""
    numbered = {name: number for number, name in reversed(list(enumerate(given.header)))}
    return {name: f"c{numbered[name]}" for name in given.kept}


def in_place(given: Input) -> Staged:
    """The file read where it is, each time. Rows have no numbers; one that is not whole breaks the reading off."""
    fields = _fields(given)
    columns = _columns(given)
    texts = ", ".join(f"{one.text} AS {one.column}" for one in fields if one.column in columns.values())
    table = f"(SELECT {texts}, 0 AS _row, 0 AS _shape FROM file({{path:String}}, {{format:String}}, {{fields:String}}))"
    parameters = {
        "path": str(given.uploaded.path),
        "format": FORMATS[given.uploaded.kind or ""],
        "fields": ", ".join(one.declared for one in fields),
    }
    return Staged(given.name, table, columns, parameters)


@contextmanager
def staged(engine: Engine, batch: Batch, inputs: Sequence[Input]) -> Iterator[dict[str, Staged]]:
    """The files in staging tables, dropped in the end. Raises InvalidCsv, InvalidNdjson, InvalidParquet."""
    tables = [f"{STAGE}{batch.id.hex}_{number}" for number in range(len(inputs))]
    try:
        yield {given.name: _stage(engine, table, given) for table, given in zip(tables, inputs, strict=True)}
    finally:
        for table in tables:
            engine.command(f"DROP TABLE IF EXISTS {table} SYNC")


@contextmanager
def keys(engine: Engine, batch: Batch, rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """The client's keys in a table that is never on disk; answers its name."""
    table = f"{STAGE}{batch.id.hex}_keys"
    try:
        engine.command(f"CREATE TABLE {table} (kind String, inner String, outer String) ENGINE = Memory")
        # as data and not as parameters, which a server writes to its query log
        engine.insert(table, rows)
        yield table
    finally:
        engine.command(f"DROP TABLE IF EXISTS {table} SYNC")


def _stage(engine: Engine, table: str, given: Input) -> Staged:
    """Copy a file into a table of texts. Columns that are not read are EPHEMERAL: parsed, and stored nowhere.

    `_row` counts the file's rows; `_shape` is 0 for a row as long as the header, 3 for a blank line, else as in
    ingest.SHAPES.
    """
    fields, columns = _fields(given), _columns(given)
    shape = "_shape UInt8 DEFAULT 0"
    if given.uploaded.kind == "csv":
        names = [one.name for one in fields]
        declared = [
            f"{name} String {'DEFAULT' if name in columns.values() else 'EPHEMERAL'}"
            f" '{MISSING if name == names[-1] else ''}'"
            for name in names
        ]
        declared.append(f"beyond String EPHEMERAL '{MISSING}'")
        shape = (
            f"_shape UInt8 DEFAULT multiIf(beyond != '{MISSING}', 2, {names[-1]} != '{MISSING}', 0, "
            f"concat('', {', '.join(names)}) = '{MISSING}', 3, 1)"
        )
        names.append("beyond")
    else:
        names = [one.name for one in fields]
        declared = [f"{one.declared} EPHEMERAL" for one in fields]
        declared += [f"{one.column} String DEFAULT {one.text}" for one in fields]
    engine.command(
        f"CREATE TABLE {table} ({', '.join(declared)}, _row UInt64 DEFAULT rowNumberInAllBlocks(), {shape}) "
        "ENGINE = MergeTree ORDER BY tuple()"
    )
    try:
        engine.insert_file(table, names, given.uploaded.path, kind=given.uploaded.kind or "")
    except RowsRefused:
        _raise_malformed(given)
    return Staged(given.name, table, columns)


def _raise_malformed(given: Input) -> None:
    if given.uploaded.kind == "parquet":
        raise InvalidParquet("The Parquet file cannot be read.") from None
    line = malformed_line(given)
    issue = "is not CSV" if given.uploaded.kind == "csv" else "is not a JSON object"
    details = [ProblemDetail(field=given.place(line), issue=issue, code="malformed")] if line else []
    if given.uploaded.kind == "ndjson":
        raise InvalidNdjson(details=details) from None
    raise InvalidCsv(
        "A quoted field must end where the field ends; write a quote in it twice.", details=details
    ) from None
