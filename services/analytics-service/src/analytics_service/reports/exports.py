"""A report's rows as a file: CSV, Parquet or Arrow, a thousand rows at a time."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from itertools import chain, islice
from typing import Any, Final, Literal, get_args

from analytics_service.reports.parts import CATEGORIES
from triton_common.schemas import Schema

Format = Literal["csv", "parquet", "arrow"]

MEDIA_TYPES: Final[Mapping[Format, str]] = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}
MOST: Final = 100_000  # rows of an export; more than there are codes or drugs
PIECE: Final = 1000  # rows
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")  # what spreadsheets compute (OWASP, CSV injection)


def exported(report: Schema, kind: Format) -> Iterator[bytes]:
    """The rows of a report that has rows, or the report itself as one; amounts by category in columns of their own."""
    shape: type[Schema] = type(report)
    rows: Iterable[Schema] = [report]
    if "rows" in shape.model_fields:
        [shape] = get_args(shape.model_fields["rows"].annotation)
        rows = report.rows  # type: ignore[attr-defined]
    columns: dict[str, Any] = {}
    for name, field in shape.model_fields.items():
        if name == "paid_by_category":
            columns |= {f"paid_{category}": Decimal for category in CATEGORIES}
        else:
            columns[name] = field.annotation
    flat = (_flat(row) for row in rows)
    pieces = iter(lambda: list(islice(flat, PIECE)), [])
    return _csv(list(columns), pieces) if kind == "csv" else _arrow(columns, pieces, parquet=kind == "parquet")


def _flat(row: Schema) -> dict[str, Any]:
    values = row.model_dump()
    by_category = values.pop("paid_by_category", {})
    return values | {f"paid_{category}": paid for category, paid in by_category.items()}


def _csv(columns: list[str], pieces: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    for piece in chain([[]], pieces):
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="")
        if not piece:
            writer.writeheader()
        writer.writerows({name: _harmless(value) for name, value in row.items()} for row in piece)
        yield text.getvalue().encode()


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe; of numbers none begins with a sign."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _arrow(columns: Mapping[str, Any], pieces: Iterator[list[dict[str, Any]]], *, parquet: bool) -> Iterator[bytes]:
    import pyarrow as pa  # noqa: PLC0415  40 MB, which a service that exports nothing need not hold
    import pyarrow.parquet as pq  # noqa: PLC0415

    schema = pa.schema([(name, _type(pa, kind)) for name, kind in columns.items()])
    sink = _Sink()
    with pq.ParquetWriter(sink, schema) if parquet else pa.ipc.new_stream(sink, schema) as writer:
        for piece in pieces:
            writer.write_batch(pa.RecordBatch.from_pylist(piece, schema=schema))
            yield sink.taken()
    yield sink.taken()


class _Sink(io.RawIOBase):
    """A file that is read as it is written: it keeps what nobody has taken."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._written = 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Parquet's footer says where its parts begin."""
        return self._written

    def write(self, data: Any) -> int:
        """All of it."""
        self._kept += data
        self._written += len(data)
        return len(data)

    def taken(self) -> bytes:
        """What was written since."""
        kept, self._kept = bytes(self._kept), bytearray()
        return kept


def _type(arrow: Any, kind: Any) -> Any:
    kinds = {int: arrow.int64(), date: arrow.date32(), Decimal: arrow.decimal128(38, 2)}
    among = {kind, *(getattr(one, "__origin__", one) for one in get_args(kind))}  # of `Annotated[…] | None` too
    return next((made for one, made in kinds.items() if one in among), arrow.string())
