"""The files of a call: which they are to the source, what their headers say, and where in them a row stands."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import Final

from analytics_service import parquet
from analytics_service.datasets import Dataset
from analytics_service.mappings import ANY_FILE, Source
from analytics_service.unpacking import Uploaded
from triton_common.errors import Unprocessable
from triton_common.schemas import ProblemDetail

MAX_HEADER: Final = 1 << 20  # bytes; a thousand columns with room to spare
MAX_COLUMNS: Final = 1_000
ROW: Final = 16  # bytes, fewer than what any dataset needs of a row
LOOKED_AT: Final = 100  # rows of NDJSON, whose keys are its header


class EmptyFile(Unprocessable):
    """The file has no rows."""


class UnknownFile(Unprocessable):
    """The source does not know a file of this name."""


class MissingFile(Unprocessable):
    """A file that the dataset needs is missing."""


class MissingColumn(Unprocessable):
    """A column that the dataset needs is missing."""


class InvalidHeader(Unprocessable):
    """The first line is not a CSV header."""


class InvalidCsv(Unprocessable):
    """The file is not CSV."""


class InvalidNdjson(Unprocessable):
    """The file is not NDJSON: a JSON object a line."""


@dataclass(frozen=True)
class Input:
    """A file of the call, and which of its columns are kept; those in `lists` hold several values a row."""

    uploaded: Uploaded
    name: str
    header: Sequence[str]
    kept: frozenset[str]
    lists: frozenset[str] = frozenset()

    @property
    def most_rows(self) -> int:
        """It has no more."""
        return parquet.footer(self.uploaded.path).rows if self.uploaded.kind == "parquet" else self.uploaded.size // ROW

    def place(self, line: int, column: str = "") -> str:
        """`line 12, column paid`; with the file's name before it where there are several. Parquet has no lines."""
        number = f"row {line}" if self.uploaded.kind == "parquet" else f"line {line}"
        file = [f"{self.name}.{self.uploaded.kind}"] if self.name else []
        return ", ".join([*file, number, *([f"column {column}"] if column else [])])


def inputs_of(mapping: Source, files: Sequence[Uploaded], *, dataset: Dataset, source_name: str) -> list[Input]:
    """Pair the files with what the source says of them, and look at their headers. Raises one of the errors above."""
    if not files:
        raise MissingFile("Send a file.")
    any_file = mapping.files_of(dataset) == [ANY_FILE]
    names = _any_names(files) if any_file else _known_names(mapping, files, dataset=dataset, source_name=source_name)
    inputs: list[Input] = []
    for name, uploaded in zip(names, files, strict=True):
        needed, read = mapping.columns_of(ANY_FILE if any_file else name, dataset)
        lists: frozenset[str] = frozenset()
        match uploaded.kind:
            case "parquet":
                footer = parquet.footer(uploaded.path)
                header = [column for column in footer.columns if column not in footer.unread]
                lists = footer.lists
            case "ndjson":
                # a key that comes later for the first time is read too; what is needed must be there from the start
                header = [*(keys := sorted(_keys(uploaded) & read)), *sorted(read - needed - set(keys))]
            case _:
                header = _header(uploaded)
        given = Input(uploaded, name, header, frozenset(read & set(header)), lists)
        _check_header(given, needed)
        inputs.append(given)
    return inputs


def _any_names(files: Sequence[Uploaded]) -> list[str]:
    """One file needs no name; several are told apart by number where their names do not."""
    names = [file.name for file in files] if len(files) > 1 else [""]
    return (
        names if len(set(names)) == len(names) else [f"{name}-{number}" for number, name in enumerate(names, start=1)]
    )


def _known_names(mapping: Source, files: Sequence[Uploaded], *, dataset: Dataset, source_name: str) -> list[str]:
    """The files' names, each one of the source's; a dataset of a single file needs none."""
    known = mapping.files_of(dataset)
    names = [file.name or (known[0] if len(known) == 1 else "") for file in files]
    for name in names:
        if not any(fnmatchcase(name, one) for one in known):
            given = f"{name}.csv" if name else "A body without a file name"
            wanted = ", ".join(f"{one}.csv" for one in known)
            raise UnknownFile(
                f"{given} is not a file of {source_name} {dataset}; send {wanted} as multipart/form-data."
            )
        if names.count(name) > 1:
            raise UnknownFile(f"{name}.csv is there twice.")
    given_rows = [rows for rows in mapping.rows_of(dataset) if any(rows.fits(name) for name in names)]
    if not given_rows:
        wanted = " or ".join(f"{rows.rows}.csv" for rows in mapping.rows_of(dataset))
        raise MissingFile(f"{source_name} {dataset} needs {wanted}.")
    for lookup in (lookup for rows in given_rows for lookup in rows.lookups.values()):
        if not lookup.optional and lookup.file not in names:
            raise MissingFile(f"{source_name} {dataset} needs {lookup.file}.csv too.")
    return names


def _keys(uploaded: Uploaded) -> set[str]:
    """The keys of the first rows."""
    keys: set[str] = set()
    rows = 0
    with uploaded.open() as file:
        for number, line in enumerate(islice(iter(lambda: file.readline(MAX_HEADER), b""), LOOKED_AT), start=1):
            try:
                row = json.loads(line.decode("utf-8-sig")) if line.strip() else {}
                keys |= row.keys()
            except (ValueError, AttributeError, RecursionError):
                long = f"is longer than {MAX_HEADER} bytes" if len(line) == MAX_HEADER else "is not a JSON object"
                details = [ProblemDetail(field=f"line {number}", issue=long, code="malformed")]
                raise InvalidNdjson(details=details) from None
            rows += bool(line.strip())
    if not rows:
        raise EmptyFile("The file is empty.")
    return keys


def _header(uploaded: Uploaded) -> list[str]:
    with uploaded.open() as file:
        beginning = file.read(MAX_HEADER)
    if not beginning.strip():
        raise EmptyFile("The file is empty.")
    # what is not text further down is a row's matter, and a character may be cut at the end of what was read
    lines = io.StringIO(beginning.decode("utf-8-sig", errors="replace"), newline="")
    try:
        header = [name.strip() for name in next(csv.reader(lines), [])]
    except csv.Error:
        raise InvalidHeader from None
    if any("\ufffd" in name or "\0" in name for name in header):
        raise InvalidHeader("The file is not UTF-8 text.")
    if lines.newlines == "\r":
        raise InvalidHeader("The file's lines end in CR alone; end them in LF or CR LF.")
    if len(header) > MAX_COLUMNS:
        raise InvalidHeader(f"The first line has {len(header)} columns; at most {MAX_COLUMNS} are read.")
    return header


def _check_header(given: Input, needed: set[str]) -> None:
    header = given.header
    details = [
        ProblemDetail(field=given.place(1, column), issue=issue, code=code)
        for code, issue, columns in (
            ("missing_column", "is missing in the header", sorted(needed - set(header))),
            ("repeated_column", "is there more than once", sorted({c for c in needed if header.count(c) > 1})),
        )
        for column in columns
    ]
    if details:
        columns = ", ".join(detail.field.rpartition("column ")[2] for detail in details)
        between = ", with commas between them" if given.uploaded.kind == "csv" and len(header) == 1 else ""
        raise MissingColumn(f"The header must have each of these columns once{between}: {columns}.", details=details)


def content_digest(inputs: Sequence[Input], mapping: Source, *, dataset: Dataset, source_name: str) -> str:
    """SHA-256 of what a call brings, in hexadecimal. Neither the order of its files matters, nor their names where the
    source knows none."""
    named = mapping.files_of(dataset) != [ANY_FILE]
    whole = hashlib.sha256(f"{dataset}\n{source_name}\n".encode())
    for name, digest in sorted((given.name if named else "", given.uploaded.sha256) for given in inputs):
        whole.update(f"{name}\n{digest}\n".encode())
    return whole.hexdigest()


def lines_of(given: Input, rows: set[int]) -> dict[int, int]:
    """The line on which each row begins: a quoted field of CSV may span several, and its header's is 1."""
    match given.uploaded.kind:
        case "parquet":
            return {row: row + 1 for row in rows}
        case "ndjson":
            return _lines_of_ndjson(given, rows)
    lines: dict[int, int] = {}
    with _text(given) as text:
        reader = csv.reader(text)
        next(reader)
        try:
            line = reader.line_num + 1
            for number, _ in enumerate(reader):
                if number in rows:
                    lines[number] = line
                    if len(lines) == len(rows):
                        break
                line = reader.line_num + 1
        except csv.Error:
            pass  # a field beyond what the csv module reads: count the rest as one line each
    return {row: lines.get(row, row + 2) for row in rows}


def _lines_of_ndjson(given: Input, rows: set[int]) -> dict[int, int]:
    with given.uploaded.open() as file:
        filled = (number for number, line in enumerate(file, start=1) if line.strip())
        return {row: line for row, line in enumerate(filled) if row in rows}


def malformed_line(given: Input) -> int:
    """The first line that Python's reader will not take either; 0 when it takes all."""
    if given.uploaded.kind == "ndjson":
        return _malformed_ndjson(given)
    with _text(given) as text:
        reader = csv.reader(text, strict=True)
        try:
            for _ in reader:
                pass
        except csv.Error:
            return reader.line_num
    return 0


def _malformed_ndjson(given: Input) -> int:
    with given.uploaded.open() as file:
        for number, line in enumerate(file, start=1):
            try:
                if line.strip() and not isinstance(json.loads(line.decode("utf-8-sig")), dict):
                    return number
            except (ValueError, RecursionError):
                return number
    return 0


@contextmanager
def _text(given: Input) -> Iterator[io.TextIOWrapper]:
    with given.uploaded.path.open(encoding="utf-8", errors="replace", newline="") as text:
        yield text
