"""Named column mappings, one TOML file a source, and how they become SQL over the staged files.

A mapping says which file's rows are the dataset's rows, which other files are looked up, and which text each column of
the dataset takes. It holds no SQL, and what it holds reaches ClickHouse as bound parameters.
"""

# ruff: noqa: S608  the SQL put together here is made of our own words; values are bound

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from analytics_service.datasets import COLUMNS, MOST, Column, Dataset, problem_codes
from triton_common.errors import Unprocessable

ANY_FILE: Final = "*"


class UnknownSource(Unprocessable):
    """There is no source of this name, or it does not have this dataset."""


@dataclass(frozen=True)
class Staged:
    """A file as a table bound to `parameters`: `columns` maps the header's names to the table's."""

    name: str
    table: str
    columns: Mapping[str, str]
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Sql:
    """Parameters of a statement that is being put together, and what its columns' texts are read from."""

    staged: Mapping[str, Staged]
    base: Staged
    maps: Mapping[str, Mapping[str, str]]
    parameters: dict[str, Any] = field(default_factory=dict)

    def bind(self, value: str | Sequence[str]) -> str:
        """A placeholder for a value."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value if isinstance(value, str) else list(value)
        return f"{{{name}:{'String' if isinstance(value, str) else 'Array(String)'}}}"

    def where(self, conditions: Mapping[str, list[str]], file: Staged, *, alias: str) -> str:
        """The rows of a file that are whole and have these values."""
        tests = [f"{alias}.{file.columns[name]} IN {self.bind(values)}" for name, values in conditions.items()]
        return " AND ".join([f"{alias}._shape = 0", *tests])


class Part(BaseModel):
    """Base of what a mapping file holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Lookup(Part):
    """Rows of a file that belong to a row: those where the columns in `on` are equal, ours = theirs.

    Of several, any one; with `lowest`, the one with the lowest number in that column; with `sum`, the sum of that
    column over all of them. A sum goes to the first of the rows that share its key, so that nothing counts twice.
    """

    file: str
    on: dict[str, str] = Field(min_length=1)
    where: dict[str, list[str]] = {}
    optional: bool = False
    lowest: str | None = None
    sum: str | None = None


class When(Part):
    """The text only in rows where columns have these values."""

    when: dict[str, list[str]] = {}


class Value(Part):
    """A constant; with `differ`, only in rows where two columns differ."""

    value: str
    differ: tuple[str, str] | None = None


class From(When):
    """A column's text, translated by the source's maps that `map` names, one after another; what one does not know is
    empty."""

    column: str = Field(alias="from")
    map: str | list[str] = []


class Join(Part):
    """Several columns' texts, empty ones left out, with something between."""

    join: list[str]
    between: str = Field(default=";", alias="with")


class Minus(Part):
    """The first column's number less the second's."""

    minus: tuple[str, str]


class Days(Part):
    """Midnights between two times."""

    days: tuple[str, str]


One = str | Value | From | Join | Minus | Days
Text = One | list[One]
"""A column by its name, or something made of columns; of a list the first that is not empty. `lookup.COLUMN` is a
column of a looked-up row."""


class Rows(Part):
    """Rows of a file that are rows of a dataset."""

    rows: str
    where: dict[str, list[str]] = {}
    lookups: dict[str, Lookup] = {}
    columns: dict[str, Text]

    @model_validator(mode="before")
    @classmethod
    def same_names(cls, data: Any) -> Any:
        """A list of columns means that each is named like the dataset's."""
        if isinstance(data, dict) and isinstance(data.get("columns"), list):
            return data | {"columns": {name: name for name in data["columns"]}}
        return data

    def needs(self, file: str, dataset: Dataset) -> set[str]:
        """Columns that a file must have: what chooses, joins and adds rows, and what required columns are made of."""
        needed = {*self.where, *(name for lookup in self.lookups.values() for name in lookup.on)}
        needed = needed if file == self.rows else set()
        for lookup in self.lookups.values():
            if lookup.file == file:
                needed |= {*lookup.where, *lookup.on.values()}
                needed |= {name for name in (lookup.lowest, lookup.sum) if name}
        required = [self.columns[column.name] for column in COLUMNS[dataset] if column.required]
        return needed | self._of(file, (name for text in required for name in _essential(text)))

    def reads(self, file: str, dataset: Dataset) -> set[str]:
        """Columns of a file that the mapping makes something of. No other is ever stored."""
        names = (name for text in self.columns.values() for name in _names(text))
        return self.needs(file, dataset) | self._of(file, names)

    def _of(self, file: str, names: Iterable[str]) -> set[str]:
        return {_column(name) for name in names if self._file_of(name) == file}

    def select(self, dataset: Dataset, sql: Sql) -> str:
        """Typed rows: `row`, a v_ column for each of the dataset's, `problems` by number in `problems_of(dataset)`."""
        texts = self._texts(dataset, sql)
        columns = COLUMNS[dataset]
        values = [f"{column.value(f't_{column.name}')} AS v_{column.name}" for column in columns]
        conditions = [condition for _, _, condition in problems_of(dataset)]
        numbered = ", ".join(f"if({condition}, {n}, 0)" for n, condition in enumerate(conditions, start=1))
        return (
            f"SELECT row, {', '.join(values)}, "
            f"{' OR '.join(f'({condition})' for condition in conditions)} AS bad, "
            f"arrayFilter(n -> n > 0, [{numbered}]) AS problems FROM ({texts})"
        )

    def count(self, sql: Sql) -> str:
        """How many rows there are to take."""
        return f"SELECT count() AS rows FROM {sql.base.table} AS s WHERE {sql.where(self.where, sql.base, alias='s')}"

    def lost(self, sql: Sql) -> Iterator[tuple[Staged, str, str]]:
        """For each column that is summed up: its file, its name, and the query of its bad rows: `row`, `code`.

        A row that cannot be added, or that no row of ours claims, would be money lost.
        """
        for lookup in self.lookups.values():
            if lookup.sum is None or lookup.file not in sql.staged:
                continue
            file = sql.staged[lookup.file]
            amount = f"l.{file.columns[lookup.sum]}"
            number = f"toDecimal64OrNull({amount}, 4)"
            theirs = ", ".join(f"l.{file.columns[name]}" for name in lookup.on.values())
            ours = ", ".join(f"s.{sql.base.columns[name]}" for name in lookup.on)
            base = f"SELECT {ours} FROM {sql.base.table} AS s WHERE {sql.where(self.where, sql.base, alias='s')}"
            code = (
                f"multiIf({amount} != '' AND isNull({number}), 'invalid_number', ifNull({number} < 0, 0), 'negative', "
                f"ifNull({number} > {MOST}, 0), 'too_large', ({theirs}) NOT IN ({base}), 'no_such_row', '')"
            )
            where = sql.where(lookup.where, file, alias="l")
            query = f"SELECT l._row AS row, {code} AS code FROM {file.table} AS l WHERE {where} AND code != ''"
            yield file, lookup.sum, query

    def source_of(self, target: str) -> str:
        """How the file calls what a column of the dataset is made of, for messages."""
        names = _names(self.columns.get(target, target))
        return _column(names[0]) if names else target

    def _texts(self, dataset: Dataset, sql: Sql) -> str:
        taken: list[str] = []
        for column in COLUMNS[dataset]:
            text = self._text(self.columns[column.name], sql) if column.name in self.columns else "''"
            if column.default:
                text = f"if(({text}) = '', {sql.bind(column.default)}, {text})"
            taken.append(f"{text} AS t_{column.name}")
        joins = "".join(self._join(alias, lookup, sql) for alias, lookup in self.lookups.items())
        where = sql.where(self.where, sql.base, alias="s")
        return f"SELECT s._row AS row, {', '.join(taken)} FROM {sql.base.table} AS s{joins} WHERE {where}"

    def _text(self, text: Text, sql: Sql) -> str:  # noqa: PLR0911  a kind of text each
        match text:
            case str():
                return self._reference(text, sql)
            case list():
                parts = [f"nullIf({self._text(part, sql)}, '')" for part in text]
                return f"coalesce({', '.join(parts)}, '')"
            case Value(value=value, differ=None):
                return sql.bind(value)
            case Value(value=value, differ=(left, right)):
                return f"if({self._reference(left, sql)} != {self._reference(right, sql)}, {sql.bind(value)}, '')"
            case From():
                taken = self._reference(text.column, sql)
                for name in [text.map] if isinstance(text.map, str) else text.map:
                    meaning = sql.maps[name]
                    known, meant = sql.bind(list(meaning)), sql.bind(list(meaning.values()))
                    taken = f"transform({taken}, {known}, {meant}, '')"
                tests = [f"{self._reference(name, sql)} IN {sql.bind(values)}" for name, values in text.when.items()]
                return f"if({' AND '.join(tests)}, {taken}, '')" if tests else taken
            case Join():
                parts = [self._reference(name, sql) for name in text.join]
                return f"arrayStringConcat(arrayFilter(x -> x != '', [{', '.join(parts)}]), {sql.bind(text.between)})"
            case Minus(minus=(left, right)):
                a, b = self._reference(left, sql), self._reference(right, sql)
                b = f"if({b} = '', '0', {b})"
                # what is no number stays none: the two texts in a row are refused by the column they go to
                number = f"toString(toDecimal64OrNull({a}, 4) - toDecimal64OrNull({b}, 4))"
                return f"if({a} = '', '', ifNull({number}, concat({a}, '?', {b})))"
            case Days(days=(start, end)):
                times = [f"parseDateTime64BestEffortOrNull({self._reference(n, sql)}, 3, 'UTC')" for n in (start, end)]
                return f"ifNull(toString(dateDiff('day', {times[0]}, {times[1]}, 'UTC')), '')"
        raise AssertionError("unreachable")

    def _reference(self, name: str, sql: Sql) -> str:
        """SQL of a column's text; empty when its file or it is not there."""
        lookup = self._lookup_of(name)
        if lookup is None:
            column = sql.base.columns.get(name)
            return f"trimBoth(s.{column})" if column else "''"
        file = sql.staged.get(lookup.file)
        column = file.columns.get(_column(name)) if file else None
        if column is None:
            return "''"
        taken = f"{_alias(name)}.{column}"
        if lookup.sum is None:
            return f"trimBoth({taken})"
        keys = ", ".join(f"s.{sql.base.columns[ours]}" for ours in lookup.on)
        firsts = (
            f"SELECT min(s._row) FROM {sql.base.table} AS s "
            f"WHERE {sql.where(self.where, sql.base, alias='s')} GROUP BY {keys}"
        )
        return f"if(s._row IN ({firsts}), {taken}, '')"

    def _join(self, alias: str, lookup: Lookup, sql: Sql) -> str:
        file = sql.staged.get(lookup.file)
        if file is None:
            return ""
        keys = [f"l.{file.columns[name]}" for name in lookup.on.values()]
        read = sorted(
            {
                file.columns[_column(name)]
                for text in self.columns.values()
                for name in _names(text)
                if _alias(name) == alias and _column(name) in file.columns
            }
        )
        if lookup.sum:
            amount = file.columns[lookup.sum]
            number = f"toDecimal64OrZero(l.{amount}, 4)"
            taken = [f"toString(sumIf({number}, {number} BETWEEN 0 AND {MOST})) AS {amount}"]
        elif lookup.lowest:
            taken = [f"argMin(l.{name}, toInt64OrZero(l.{file.columns[lookup.lowest]})) AS {name}" for name in read]
        else:
            taken = [f"any(l.{name}) AS {name}" for name in read]
        named = [f"{key} AS k{n}" for n, key in enumerate(keys)]
        on = " AND ".join(f"s.{sql.base.columns[ours]} = {alias}.k{n}" for n, ours in enumerate(lookup.on))
        return (
            f" LEFT ANY JOIN (SELECT {', '.join([*named, *taken])} FROM {file.table} AS l "
            f"WHERE {sql.where(lookup.where, file, alias='l')} GROUP BY {', '.join(keys)}) AS {alias} ON {on}"
        )

    def _lookup_of(self, name: str) -> Lookup | None:
        return self.lookups.get(_alias(name))

    def _file_of(self, name: str) -> str:
        lookup = self._lookup_of(name)
        return lookup.file if lookup else self.rows


def _alias(name: str) -> str:
    return name.partition(".")[0] if "." in name else ""


def _column(name: str) -> str:
    return name.rpartition(".")[2]


def _names(text: Text) -> list[str]:
    """Every column that a text is made of."""
    match text:
        case str():
            return [text]
        case list():
            return [name for part in text for name in _names(part)]
        case Value(differ=differ):
            return list(differ or ())
        case From():
            return [text.column, *text.when]
        case Join():
            return text.join
        case Minus(minus=pair) | Days(days=pair):
            return list(pair)
    raise AssertionError("unreachable")


def _essential(text: Text) -> list[str]:
    """The columns without which there would be no text: of a list the first's, none if it ends in a constant."""
    if isinstance(text, list):
        return [] if isinstance(text[-1], Value) else _names(text[0])
    return _names(text)


class Source(Part):
    """A mapping file."""

    description: str
    maps: dict[str, dict[str, str]] = {}
    claims: list[Rows] = []
    clinical: list[Rows] = []
    utilization: list[Rows] = []
    pharmacy: list[Rows] = []

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


@cache
def problems_of(dataset: Dataset) -> list[tuple[Column, str, str]]:
    """All that a row's columns may be refused for: column, code of ISSUES, SQL condition."""
    return [
        (column, code, condition)
        for column in COLUMNS[dataset]
        for code, condition in problem_codes(column, f"t_{column.name}").items()
    ]
