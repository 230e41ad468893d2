"""How mappings become SQL over files as tables. What a mapping holds reaches ClickHouse as bound parameters."""

# ruff: noqa: S608  the SQL put together here is made of our own words; values are bound

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from analytics_service.columns import MOST, Column, amount, kind_of, problem_codes, refused
from analytics_service.datasets import COLUMNS, Dataset
from analytics_service.mappings import Rows
from analytics_service.texts import (
    ANY_VALUE,
    Days,
    From,
    Join,
    Lookup,
    Minus,
    Plus,
    Text,
    Value,
    Ymd,
    alias_of,
    column_of,
    names_of,
)


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
        tests = [
            f"trimBoth({alias}.{file.columns[name]}) != ''"
            if values == [ANY_VALUE]
            else f"{alias}.{file.columns[name]} IN {self.bind(values)}"
            for name, values in conditions.items()
        ]
        return " AND ".join([f"{alias}._shape = 0", *tests])


def select(rows: Rows, dataset: Dataset, sql: Sql) -> str:
    """Typed rows: `row`, a v_ column for each of the dataset's, `bad`, and `problems`: their numbers in
    `problems_of(dataset)` and what the text looks like."""
    texts = _texts(rows, dataset, sql)
    columns = COLUMNS[dataset]
    values = [f"{column.value(f't_{column.name}')} AS v_{column.name}" for column in columns]
    numbered = ", ".join(
        f"if({condition}, ({n}, {kind_of(f't_{column.name}')}), (0, ''))"
        for n, (column, _, condition) in enumerate(problems_of(dataset), start=1)
    )
    bad = " OR ".join(f"({refused(column, f't_{column.name}')})" for column in columns)
    return (
        f"SELECT row, {', '.join(values)}, "
        f"{bad} AS bad, "
        f"arrayFilter(one -> one.1 > 0, [{numbered}]) AS problems FROM ({texts})"
    )


def count(rows: Rows, sql: Sql) -> str:
    """How many rows there are to take."""
    return f"SELECT count() AS rows FROM {sql.base.table} AS s WHERE {sql.where(rows.where, sql.base, alias='s')}"


def lost(rows: Rows, sql: Sql) -> Iterator[tuple[Staged, str, str]]:
    """For each column that is summed up: its file, its name, and the query of its bad rows: `row`, `code`.

    A row that cannot be added, or that no row of ours claims, would be money lost.
    """
    for lookup in rows.lookups.values():
        if lookup.sum is None or lookup.file not in sql.staged:
            continue
        file = sql.staged[lookup.file]
        given = f"l.{file.columns[lookup.sum]}"
        number = amount(given)
        theirs = ", ".join(f"l.{file.columns[name]}" for name in lookup.on.values())
        ours = ", ".join(f"s.{sql.base.columns[name]}" for name in lookup.on)
        base = f"SELECT {ours} FROM {sql.base.table} AS s WHERE {sql.where(rows.where, sql.base, alias='s')}"
        code = (
            f"multiIf({given} != '' AND isNull({number}), 'invalid_number', ifNull({number} < 0, 0), 'negative', "
            f"ifNull({number} > {MOST}, 0), 'too_large', ({theirs}) NOT IN ({base}), 'no_such_row', '')"
        )
        where = sql.where(lookup.where, file, alias="l")
        query = f"SELECT l._row AS row, {code} AS code FROM {file.table} AS l WHERE {where} AND code != ''"
        yield file, lookup.sum, query


def _texts(rows: Rows, dataset: Dataset, sql: Sql) -> str:
    taken: list[str] = []
    for column in COLUMNS[dataset]:
        text = _text(rows, rows.columns[column.name], sql) if column.name in rows.columns else "''"
        if column.default:
            text = f"if(({text}) = '', {sql.bind(column.default)}, {text})"
        taken.append(f"{f'toLowCardinality({text})' if column.few else text} AS t_{column.name}")
    joins = "".join(_join(rows, alias, lookup, sql) for alias, lookup in rows.lookups.items())
    where = sql.where(rows.where, sql.base, alias="s")
    return f"SELECT s._row AS row, {', '.join(taken)} FROM {sql.base.table} AS s{joins} WHERE {where}"


def _text(rows: Rows, text: Text, sql: Sql) -> str:  # noqa: C901, PLR0911  a kind of text each
    match text:
        case str():
            return _reference(rows, text, sql)
        case list():
            parts = [f"nullIf({_text(rows, part, sql)}, '')" for part in text]
            return f"coalesce({', '.join(parts)}, '')"
        case Value(value=value, differ=None):
            return sql.bind(value)
        case Value(value=value, differ=(left, right)):
            return f"if({_reference(rows, left, sql)} != {_reference(rows, right, sql)}, {sql.bind(value)}, '')"
        case From():
            taken = _reference(rows, text.column, sql)
            for name in [text.map] if isinstance(text.map, str) else text.map:
                meaning = sql.maps[name]
                known, meant = sql.bind(list(meaning)), sql.bind(list(meaning.values()))
                taken = f"transform({taken}, {known}, {meant}, '')"
            tests = [f"{_reference(rows, name, sql)} IN {sql.bind(values)}" for name, values in text.when.items()]
            return f"if({' AND '.join(tests)}, {taken}, '')" if tests else taken
        case Join():
            parts = [_reference(rows, name, sql) for name in text.join]
            return f"arrayStringConcat(arrayFilter(x -> x != '', [{', '.join(parts)}]), {sql.bind(text.between)})"
        case Minus(minus=(left, right)):
            a, b = _reference(rows, left, sql), _reference(rows, right, sql)
            b = f"if({b} = '', '0', {b})"
            # what is no number stays none: the two texts in a row are refused by the column they go to
            number = f"toString({amount(a)} - {amount(b)})"
            return f"if({a} = '', '', ifNull({number}, concat({a}, '?', {b})))"
        case Plus():
            parts = [_reference(rows, name, sql) for name in text.plus]
            numbers = [amount(f"if({part} = '', '0', {part})") for part in parts]
            # what is no number stays none: the texts in a row are refused by the column they go to
            return f"ifNull(toString({' + '.join(numbers)}), concat({', '.join([*parts, chr(39) + '?' + chr(39)])}))"
        case Ymd():
            given = _reference(rows, text.ymd, sql)
            date = f"concat(left({given}, 4), '-', substring({given}, 5, 2), '-', substring({given}, 7))"
            return f"if(match({given}, '^[0-9]{{8}}$'), {date}, {given})"
        case Days(days=(start, end)):
            times = [f"parseDateTime64BestEffortOrNull({_reference(rows, n, sql)}, 3, 'UTC')" for n in (start, end)]
            return f"ifNull(toString(dateDiff('day', {times[0]}, {times[1]}, 'UTC')), '')"
    raise AssertionError("unreachable")


def _reference(rows: Rows, name: str, sql: Sql) -> str:
    """SQL of a column's text; empty when its file or it is not there."""
    lookup = rows.lookup_of(name)
    if lookup is None:
        column = sql.base.columns.get(name)
        return f"trimBoth(s.{column})" if column else "''"
    file = sql.staged.get(lookup.file)
    column = file.columns.get(column_of(name)) if file else None
    if column is None:
        return "''"
    taken = f"l_{alias_of(name)}.{column}"
    if lookup.sum is None:
        return f"trimBoth({taken})"
    keys = ", ".join(f"s.{sql.base.columns[ours]}" for ours in lookup.on)
    firsts = (
        f"SELECT min(s._row) FROM {sql.base.table} AS s "
        f"WHERE {sql.where(rows.where, sql.base, alias='s')} GROUP BY {keys}"
    )
    return f"if(s._row IN ({firsts}), {taken}, '')"


def _join(rows: Rows, alias: str, lookup: Lookup, sql: Sql) -> str:
    file = sql.staged.get(lookup.file)
    if file is None:
        return ""
    keys = [f"l.{file.columns[name]}" for name in lookup.on.values()]
    read = sorted(
        {
            file.columns[column_of(name)]
            for text in rows.columns.values()
            for name in names_of(text)
            if alias_of(name) == alias and column_of(name) in file.columns
        }
    )
    if lookup.sum:
        summed = file.columns[lookup.sum]
        number = amount(f"l.{summed}")
        taken = [f"toString(sumIf({number}, {number} BETWEEN 0 AND {MOST})) AS {summed}"]
    elif lookup.lowest:
        taken = [f"argMin(l.{name}, toInt64OrZero(l.{file.columns[lookup.lowest]})) AS {name}" for name in read]
    else:
        taken = [f"any(l.{name}) AS {name}" for name in read]
    named = [f"{key} AS k{n}" for n, key in enumerate(keys)]
    on = " AND ".join(f"s.{sql.base.columns[ours]} = l_{alias}.k{n}" for n, ours in enumerate(lookup.on))
    return (
        f" LEFT ANY JOIN (SELECT {', '.join([*named, *taken])} FROM {file.table} AS l "
        f"WHERE {sql.where(lookup.where, file, alias='l')} GROUP BY {', '.join(keys)}) AS l_{alias} ON {on}"
    )


@cache
def problems_of(dataset: Dataset) -> list[tuple[Column, str, str]]:
    """All that a row's columns may be refused for: column, code of ISSUES, SQL condition."""
    return [
        (column, code, condition)
        for column in COLUMNS[dataset]
        for code, condition in problem_codes(column, f"t_{column.name}").items()
    ]
