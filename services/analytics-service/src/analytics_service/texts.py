"""What a mapping makes texts of: columns, constants, looked-up rows, and a few things done to them."""

import re
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ANY_VALUE: Final = "*"

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
Alias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
Constant = Annotated[str, StringConstraints(max_length=500)]
Conditions = dict[Name, list[Constant]]
"""Values that columns may have; `["*"]` is any but none."""


class Part(BaseModel):
    """Base of what a mapping file holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Lookup(Part):
    """Rows of a file that belong to a row: those where the columns in `on` are equal, ours = theirs.

    Of several, any one; with `lowest`, the one with the lowest number in that column; with `sum`, the sum of that
    column over all of them. A sum goes to the first of the rows that share its key, so that nothing counts twice.
    """

    file: Name
    on: dict[Name, Name] = Field(min_length=1, max_length=8)
    where: Conditions = {}
    optional: bool = False
    lowest: Name | None = None
    sum: Name | None = None


class When(Part):
    """The text only in rows where columns have these values."""

    when: Conditions = {}


class Value(Part):
    """A constant; with `differ`, only in rows where two columns differ."""

    value: Constant
    differ: tuple[Name, Name] | None = None


class From(When):
    """A column's text, translated by the source's maps that `map` names, one after another; what one does not know is
    empty."""

    column: Name = Field(alias="from")
    map: str | list[str] = []


class Join(Part):
    """Several columns' texts, empty ones left out, with something between."""

    join: list[Name] = Field(min_length=1, max_length=64)
    between: str = Field(default=";", alias="with", max_length=8)


class Minus(Part):
    """The first column's number less the second's."""

    minus: tuple[Name, Name]


class Plus(Part):
    """Several columns' numbers together; an empty one is 0."""

    plus: list[Name] = Field(min_length=1, max_length=16)


class Ymd(Part):
    """A date of eight digits, 20080911."""

    ymd: Name


class Days(Part):
    """Midnights between two times."""

    days: tuple[Name, Name]


One = Name | Value | From | Join | Minus | Plus | Ymd | Days
Text = One | list[One]
"""A column by its name, or something made of columns; of a list the first that is not empty. `lookup.COLUMN` is a
column of a looked-up row."""


def alias_of(name: str) -> str:
    """The lookup's name in `lookup.COLUMN`; empty for a column of the row itself, whatever dots its name has."""
    found = re.match(r"([a-z][a-z0-9_]*)[.]", name)
    return found[1] if found else ""


def column_of(name: str) -> str:
    """The column's name, without the lookup's."""
    alias = alias_of(name)
    return name.removeprefix(f"{alias}.") if alias else name


def names_of(text: Text) -> list[str]:  # noqa: PLR0911  a kind of text each
    """Every column that a text is made of."""
    match text:
        case str():
            return [text]
        case list():
            return [name for part in text for name in names_of(part)]
        case Value(differ=differ):
            return list(differ or ())
        case From():
            return [text.column, *text.when]
        case Join():
            return text.join
        case Minus(minus=pair) | Days(days=pair):
            return list(pair)
        case Plus(plus=several):
            return several
        case Ymd(ymd=name):
            return [name]
    raise AssertionError("unreachable")


def essential(text: Text) -> list[str]:
    """The columns without which there would be no text: of a list the first's, none if it ends in a constant."""
    if isinstance(text, list):
        return [] if isinstance(text[-1], Value) else names_of(text[0])
    return names_of(text)
