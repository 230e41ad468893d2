"""Kinds of columns: how a text becomes a value, and what is refused.

Everything here is SQL over columns of text, so that the engine validates and converts, a million rows a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from triton_common.schemas import CodeSystem

# XXXX-XX-XX, and with a time, its offset; RFC 3339's profile of ISO 8601, seconds and zone (UTC) may be left out
ISO_8601: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]+)?)?(Z|[+-](0[0-9]|1[0-4]):?[0-5][0-9])?)?$"
)
MOST: Final = 10**10  # dollars of a line: a unit's mistake, or a column's; it keeps sums within what reports can hold
MOST_COUNTED: Final = 10**9 - 1
# a social security number, an e-mail address, a telephone number: whatever text they stand in is not kept
CONTACT: Final = r"\\b[0-9]{3}-[0-9]{2}-[0-9]{4}\\b|[^ ]@[^ ]|\\b[0-9]{3}[-. ][0-9]{3}[-. ][0-9]{4}\\b"
# questions whose answer names a person or a place: LOINC 56799-0 "What address do you live at?" and their like
ASKS_WHO: Final = r"(?i)\\b(address|name|phone|telephone|e-?mail|social security|ssn|zip|postal)\\b"

DIAGNOSIS_SYSTEMS: Final = tuple(system.value for system in CodeSystem)

ISSUES: Final[Mapping[str, str]] = {
    "missing_value": "must not be empty",
    "invalid_date": "is not a date as in 2024-05-31 or 2024-05-31T13:45:00Z, from 1900 to 2199",
    "future_date": "lies in the future",
    "invalid_number": "is not a number as in 1234.56",
    "negative": "must not be negative",
    "too_large": f"is absurdly large: at most {MOST}, and {MOST_COUNTED} of what is counted",
    "not_whole": "must be a whole number",
    "unknown_value": "is not one of the values that this column knows",
    "unknown_system": f"is not a code system of diagnoses; those are {', '.join(DIAGNOSIS_SYSTEMS)}",
    "invalid_code": "is not a code of its system, as the code system's owner shapes them",
    "too_long": "is longer than 500 characters",
    "not_utf8": "is not UTF-8 text",
}


@dataclass(frozen=True)
class Column:
    """A column of a dataset. `required`: each row must fill it. `default` stands in for an empty text."""

    name: str
    required: bool = False
    default: str = ""

    @property
    def few(self) -> bool:
        """Whether the column has few texts that differ: the engine then works on a dictionary of them."""
        return False

    def value(self, text: str) -> str:
        """SQL of the value that SQL `text` stands for. Never throws: what is no value is refused by `checks`."""
        return text

    def checks(self, text: str) -> dict[str, str]:
        """For each code of ISSUES that may apply: SQL that is true when it does. `text` is not empty."""
        return {"too_long": f"lengthUTF8({text}) > 500", "not_utf8": f"NOT isValidUTF8({text})"}

    def refuses(self, text: str) -> str:
        """SQL that is true when any of `checks` is: asked of every row, which of them it was only of bad ones."""
        return " OR ".join(f"({condition})" for condition in self.checks(text).values())


@dataclass(frozen=True)
class Hashed(Column):
    """An id of the source, kept as a keyed hash of this kind; `size` bytes of it."""

    kind: str = ""
    size: int = 16

    @property
    def few(self) -> bool:
        """Providers and facilities; members and claims differ too often."""
        return self.kind in ("provider", "facility")

    def value(self, text: str) -> str:
        """HMAC-SHA-256 by its definition (RFC 2104) and padded keys: five times as fast as the engine's HMAC()."""
        digest = f"SHA256(concat({self.kind}_outer, SHA256(concat({self.kind}_inner, {text}))))"
        return f"toFixedString(if({text} = '', '', substring({digest}, 1, {self.size})), {self.size})"

    def checks(self, text: str) -> dict[str, str]:
        """Any text is an id."""
        return {"too_long": f"length({text}) > 500"}


@dataclass(frozen=True)
class Time(Column):
    """A moment; a date is its midnight, no zone is UTC."""

    nullable: bool = False
    past: bool = False

    def value(self, text: str) -> str:
        """DateTime64(3, 'UTC')."""
        return f"parseDateTime64BestEffortOr{'Null' if self.nullable else 'Zero'}({text}, 3, 'UTC')"

    def checks(self, text: str) -> dict[str, str]:
        """The engine's parser alone would take 31/12/2024, 20241231 and 25:00 too."""
        year = f"toYear(parseDateTime64BestEffortOrNull({text}, 3, 'UTC'))"
        time = f"NOT match({text}, '{ISO_8601}') OR ifNull({year} NOT BETWEEN 1900 AND 2199, 1)"
        # a date that comes out as it went in is one: four times as fast, and what most files hold
        date = f"ifNull(toString(toDate32OrNull({text})) != {text}, 1) OR {text} NOT BETWEEN '1900' AND '2200'"
        # a day's grace: it is tomorrow somewhere already
        future = {"future_date": f"left({text}, 10) > toString(today() + 1)"} if self.past else {}
        return {"invalid_date": f"if(length({text}) = 10, {date}, {time})"} | future


def amount(text: str) -> str:
    """SQL of a text's number with four decimals, NULL for what is none. The engine's parser of decimals alone would
    take 1.234.567 for 1.2345 and a lone - for 0; its parser of floats does not."""
    return f"if(isNull(toFloat64OrNull({text})), NULL, toDecimal64OrNull({text}, 4))"


@dataclass(frozen=True)
class Number(Column):
    """An amount that is not negative: `places` decimals, rounded half up; whole ones are UInt32."""

    places: int = 2

    def value(self, text: str) -> str:
        """Decimal(18, places), or UInt32."""
        number = f"ifNull(toDecimal64OrNull({text}, 4), toDecimal64(0, 4))"  # parsed once: `checks` has the same words
        return (
            f"CAST(round({number}, {self.places}), 'Decimal(18, {self.places})')"
            if self.places
            else f"toUInt32({number})"
        )

    def checks(self, text: str) -> dict[str, str]:
        """What the engine's parser takes, up to MOST, and MOST_COUNTED for a whole one."""
        number = f"toDecimal64OrNull({text}, 4)"
        float_ = f"toFloat64OrNull({text})"
        known = {
            "invalid_number": f"NOT isFinite(ifNull({float_}, nan))",
            "too_large": f"ifNull(abs({number}) > {MOST if self.places else MOST_COUNTED}, 1)",
            "negative": f"ifNull({number} < 0, 0)",
        }
        if not self.places:
            known["not_whole"] = f"ifNull({number} != truncate({number}), 0)"
        return known

    def refuses(self, text: str) -> str:
        """One comparison for all of them: what is no number, or too large for one, counts as negative here."""
        number = f"ifNull(toDecimal64OrNull({text}, 4), toDecimal64(-1, 4))"
        most = MOST if self.places else MOST_COUNTED
        whole = "" if self.places else f" OR {number} != truncate({number})"
        return f"{number} NOT BETWEEN 0 AND {most} OR isNull(toFloat64OrNull({text})){whole}"


@dataclass(frozen=True)
class Measurement(Column):
    """Any number, or none."""

    def value(self, text: str) -> str:
        """Nullable(Float64)."""
        return f"toFloat64OrNull({text})"

    def checks(self, text: str) -> dict[str, str]:
        """Infinity and NaN are numbers to the engine, not to us."""
        return {"invalid_number": f"NOT isFinite(ifNull(toFloat64OrNull({text}), nan))"}


@dataclass(frozen=True)
class Choice(Column):
    """One of a few words, in any case."""

    among: tuple[str, ...] = ()

    @property
    def few(self) -> bool:
        """Yes."""
        return True

    def value(self, text: str) -> str:
        """The word in small letters."""
        return f"lower({text})"

    def checks(self, text: str) -> dict[str, str]:
        """Only the words that are known."""
        known = ", ".join(f"'{word}'" for word in self.among)
        return {"unknown_value": f"lower({text}) NOT IN ({known})"}


@dataclass(frozen=True)
class FreeText(Column):
    """Words that people wrote. Kept only when they show no sign of a person: see CONTACT and ASKS_WHO."""

    question: str | None = None  # the column whose text says what this one answers

    def value(self, text: str) -> str:
        """The text; empty (NULL for an answer) where it was dropped."""
        kept = f"NOT match({text}, '{CONTACT}')"
        if self.question is None:
            return f"if({kept}, {text}, '')"
        # emptied before it is made NULL: under a NULL ClickHouse would still store the text
        return f"nullIf(if({kept} AND NOT match(t_{self.question}, '{ASKS_WHO}'), {text}, ''), '')"


def kind_of(text: str) -> str:
    """SQL of what a text looks like, for whoever looks for the fault: it tells nothing of a person."""
    return (
        f"multiIf({text} = '', 'empty', NOT isValidUTF8({text}), 'bytes', match({text}, '^[+-]?[0-9]+$'), "
        f"'a whole number', isNotNull(toFloat64OrNull({text})), 'a number', "
        f"match({text}, '^[0-9]{{1,4}}[-/.][0-9]{{1,2}}[-/.][0-9]{{1,4}}'), 'a date', "
        f"match({text}, '^[\\\\p{{L}} ]+$'), 'words', 'text')"
    )


def problem_codes(column: Column, text: str) -> dict[str, str]:
    """All that may be wrong with a column's text, the missing value included: code → SQL condition."""
    codes = {code: f"{text} != '' AND ({condition})" for code, condition in column.checks(text).items()}
    return {"missing_value": f"{text} = ''"} | codes if column.required else codes


def refused(column: Column, text: str) -> str:
    """SQL that is true when any of `problem_codes` is."""
    return f"{text} = '' OR {column.refuses(text)}" if column.required else f"{text} != '' AND ({column.refuses(text)})"
