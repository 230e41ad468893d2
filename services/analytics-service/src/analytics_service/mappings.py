"""Mappings, one TOML file a source: the words they are made of, and what makes one valid.

A mapping says which file's rows are the dataset's rows, which other files are looked up, and which text each column of
the dataset takes. It holds no SQL, and what it holds reaches ClickHouse as bound parameters (`selects.py`).
docs/mappings.md tells how to write one.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any, Final

from pydantic import Field, ValidationError, model_validator

from analytics_service.datasets import COLUMNS, Dataset
from analytics_service.texts import (
    Alias,
    Conditions,
    Constant,
    From,
    Lookup,
    Name,
    Part,
    Text,
    alias_of,
    column_of,
    essential,
    names_of,
)
from triton_common.errors import Unprocessable
from triton_common.schemas import ProblemDetail

ANY_FILE: Final = "*"
OWN: Final = "own"
MOST_PROBLEMS: Final = 100


class InvalidMapping(Unprocessable):
    """The mapping is not valid."""


class UnknownSource(Unprocessable):
    """There is no source of this name, or it does not have this dataset."""


class Rows(Part):
    """Rows of a file that are rows of a dataset. `rows` is the file's name; with * in it several may fit."""

    rows: Name
    where: Conditions = Field(default={})
    lookups: dict[Alias, Lookup] = Field(default={}, max_length=16)
    columns: dict[str, Text]

    @model_validator(mode="before")
    @classmethod
    def samenames_of(cls, data: Any) -> Any:
        """A list of columns means that each is named like the dataset's."""
        if isinstance(data, dict) and isinstance(data.get("columns"), list):
            return data | {"columns": {name: name for name in data["columns"]}}
        return data

    def fits(self, file: str) -> bool:
        """Whether rows of a file of this name are meant."""
        return self.rows in (file, ANY_FILE) or fnmatchcase(file, self.rows)

    def needs(self, file: str, dataset: Dataset) -> set[str]:
        """Columns that a file must have: what chooses, joins and adds rows, and what required columns are made of."""
        needed = {*self.where, *(name for lookup in self.lookups.values() for name in lookup.on)}
        needed = needed if self.fits(file) else set()
        for lookup in self.lookups.values():
            if lookup.file == file:
                needed |= {*lookup.where, *lookup.on.values()}
                needed |= {name for name in (lookup.lowest, lookup.sum) if name}
        required = [self.columns[column.name] for column in COLUMNS[dataset] if column.required]
        return needed | self._of(file, (name for text in required for name in essential(text)))

    def reads(self, file: str, dataset: Dataset) -> set[str]:
        """Columns of a file that the mapping makes something of. No other is ever stored."""
        names = (name for text in self.columns.values() for name in names_of(text))
        return self.needs(file, dataset) | self._of(file, names)

    def _of(self, file: str, names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for name in names:
            lookup = self.lookup_of(name)
            if lookup.file == file if lookup else self.fits(file):
                found.add(column_of(name))
        return found

    def source_of(self, target: str) -> str:
        """How the file calls what a column of the dataset is made of, for messages."""
        names = names_of(self.columns.get(target, target))
        return column_of(names[0]) if names else target

    def lookup_of(self, name: str) -> Lookup | None:
        return self.lookups.get(alias_of(name))


class Source(Part):
    """A mapping file."""

    description: str = ""
    maps: dict[str, dict[Constant, Constant]] = Field(default={})
    claims: list[Rows] = Field(default=[], max_length=64)
    clinical: list[Rows] = Field(default=[], max_length=64)
    utilization: list[Rows] = Field(default=[], max_length=64)
    pharmacy: list[Rows] = Field(default=[], max_length=64)

    @model_validator(mode="before")
    @classmethod
    def repeated(cls, data: Any) -> Any:
        """`repeat = 13` stands for the numbers 1 to 13 in place of {n}: a file that has a row's lines side by side."""
        return {key: _repeated(value) if key in COLUMNS else value for key, value in data.items()}

    def rows_of(self, dataset: Dataset) -> list[Rows]:
        """How the dataset's rows are found."""
        rows: list[Rows] = getattr(self, dataset)
        return rows

    def files_of(self, dataset: Dataset) -> list[str]:
        """Names of the files that the dataset is made of."""
        names = [
            name
            for rows in self.rows_of(dataset)
            for name in (rows.rows, *(look.file for look in rows.lookups.values()))
        ]
        return list(dict.fromkeys(names))

    def columns_of(self, file: str, dataset: Dataset) -> tuple[set[str], set[str]]:
        """The columns a file must have, and all that are read."""
        kinds = self.rows_of(dataset)
        return (
            {name for rows in kinds for name in rows.needs(file, dataset)},
            {name for rows in kinds for name in rows.reads(file, dataset)},
        )


@cache
def sources() -> Mapping[str, Source]:
    """Every mapping file of this package, by name."""
    folder = files("analytics_service") / "sources"
    return {
        file.name.removesuffix(".toml"): Source.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
        for file in folder.iterdir()
        if file.name.endswith(".toml")
    }


def source(name: str, *, dataset: Dataset) -> Source:
    """The source of this name. Raises UnknownSource."""
    found = sources().get(name)
    if found is None or not found.rows_of(dataset):
        raise UnknownSource(f"The sources of {dataset} are {', '.join(sorted(sources()))}.")
    return found


def own(text: bytes, *, dataset: Dataset) -> Source:
    """A mapping that somebody wrote. Raises InvalidMapping, with a detail for each thing that is wrong with it."""
    try:
        mapping = Source.model_validate(tomllib.loads(text.decode()))
    except UnicodeDecodeError:
        raise InvalidMapping("The mapping is not UTF-8 text.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidMapping(f"The mapping is not TOML: {error}.") from None
    except ValidationError as error:
        details = [
            ProblemDetail(field=".".join(map(str, ("mapping", *one["loc"]))), issue=one["msg"], code=one["type"])
            for one in error.errors(include_input=False, include_context=False, include_url=False)
        ]
        raise InvalidMapping("Correct the places named in details.", details=details[:MOST_PROBLEMS]) from None
    details = list(faults(mapping, dataset))
    if details:
        raise InvalidMapping("Correct the places named in details.", details=details[:MOST_PROBLEMS])
    return mapping


def faults(mapping: Source, dataset: Dataset) -> Iterator[ProblemDetail]:
    """What is wrong with how the parts of a mapping go together."""
    known = {column.name: column for column in COLUMNS[dataset]}
    if not mapping.rows_of(dataset):
        yield ProblemDetail(field=f"mapping.{dataset}", issue="says nothing of this dataset", code="missing")
    for number, rows in enumerate(mapping.rows_of(dataset)):
        place = f"mapping.{dataset}.{number}"
        for name in sorted(rows.columns.keys() - known.keys()):
            yield ProblemDetail(field=f"{place}.columns.{name}", issue="is no column of the dataset", code="unknown")
        for name in (name for name, column in known.items() if column.required and name not in rows.columns):
            yield ProblemDetail(field=f"{place}.columns.{name}", issue="is required", code="missing")
        for name, text in rows.columns.items():
            parts = text if isinstance(text, list) else [text]
            maps = [part.map for part in parts if isinstance(part, From)]
            used = {one for given in maps for one in ([given] if isinstance(given, str) else given)}
            for missing in sorted(used - mapping.maps.keys()):
                yield ProblemDetail(field=f"{place}.columns.{name}", issue=f"there is no map {missing}", code="unknown")
            for missing in sorted({alias_of(one) for one in names_of(text)} - {"", *rows.lookups}):
                issue = f"there is no lookup {missing}"
                yield ProblemDetail(field=f"{place}.columns.{name}", issue=issue, code="unknown")


def _repeated(kinds: Any) -> Any:
    if not isinstance(kinds, list):
        return kinds
    repeated: list[Any] = []
    for rows in kinds:
        times = rows.get("repeat") if isinstance(rows, dict) else None
        if isinstance(times, int) and 1 <= times <= 64:
            rest = {key: value for key, value in rows.items() if key != "repeat"}
            repeated += [_numbered(rest, str(number)) for number in range(1, times + 1)]
        else:
            repeated.append(rows)
    return repeated


def _numbered(value: Any, number: str) -> Any:
    match value:
        case str():
            return value.replace("{n}", number)
        case list():
            return [_numbered(one, number) for one in value]
        case dict():
            return {_numbered(key, number): _numbered(one, number) for key, one in value.items()}
    return value
