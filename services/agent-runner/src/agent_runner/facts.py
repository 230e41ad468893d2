"""The facts of a document: every figure and name its text may show, under an id, formatted, with where it came from.

Text refers to a fact as `{{id}}`; nothing else in the platform writes a figure into a document.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final, NamedTuple

from agent_runner.figures import visible
from agent_runner.value_model import cents
from triton_common.schemas import CostCategory, Fact

CARE: Final[dict[CostCategory, str]] = {
    CostCategory.TOTAL: "all care",
    CostCategory.INPATIENT: "inpatient care",
    CostCategory.EMERGENCY: "emergency care",
    CostCategory.OUTPATIENT: "outpatient care",
    CostCategory.PROFESSIONAL: "professional services",
    CostCategory.PHARMACY: "pharmacy",
    CostCategory.OTHER: "other care",
}
MINUS: Final = "\N{MINUS SIGN}"
_SYMBOL: Final = {"USD": "$", "EUR": "€", "GBP": "£"}
_WHOLE_FROM: Final = 1000  # cents say nothing beside amounts this large
_ONE_DECIMAL_BELOW: Final = 100  # of members expected, 4.2 is not 4, but 412.3 is 412


class Facts(Mapping[str, Fact]):
    """Facts by id, in the order they were put in."""

    def __init__(self, currency: str) -> None:
        self.currency = currency
        self._facts: dict[str, Fact] = {}

    @classmethod
    def of(cls, known: Iterable[Fact], *, currency: str) -> "Facts":
        """Facts that were put into a document."""
        facts = cls(currency)
        facts._facts = {fact.id: fact for fact in known}
        return facts

    def __getitem__(self, key: str) -> Fact:
        return self._facts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def number(self, key: str) -> Decimal:
        """The value of a fact that is a number."""
        value = self._facts[key].value
        if isinstance(value, str):
            raise TypeError(f"the fact {key} is no number")
        return value

    def put(self, key: str, label: str, value: Decimal | int, unit: str, source: "Source") -> None:
        """A number; `unit` decides how it is shown."""
        value = Decimal(value)
        self._put(key, label, value, unit=unit, shown=display(value, unit), source=source)

    def put_money(self, key: str, label: str, value: Decimal, source: "Source") -> None:
        """An amount in the document's currency."""
        self.put(key, label, cents(value), self.currency, source)

    def put_share(self, key: str, label: str, part: Decimal | int, whole: Decimal | int, source: "Source") -> None:
        """part / whole in percent; no fact when there is no whole, or reversals have made it negative."""
        if whole > 0:
            self.put(key, label, tenths(100 * Decimal(part) / whole), "percent", source)

    def put_text(self, key: str, label: str, value: str, source: "Source", *, unit: str = "text") -> None:
        """A name, a code, a month; in one line, without characters that cannot be seen."""
        value = visible(value)
        self._put(key, label, value, unit=unit, shown=value, source=source)

    def _put(self, key: str, label: str, value: Decimal | str, *, unit: str, shown: str, source: "Source") -> None:
        self._facts[key] = Fact(
            id=key,
            label=label,
            value=value,
            unit=unit,
            display=shown,
            source=f"{source.name}: {source.formula}",
            formula=source.formula,
            report=source.report,
        )


class Source(NamedTuple):
    """Where a fact comes from: a report (or what else), and how its value follows from its fields, or from other facts,
    which stand by their ids."""

    name: str
    report: str | None
    formula: str

    def of(self, formula: str) -> "Source":
        """Another formula over the same."""
        return self._replace(formula=formula)


def tenths(value: Decimal) -> Decimal:
    """Rounded to one decimal."""
    return value.quantize(Decimal("0.1"), rounding=ROUND_HALF_EVEN)


def display(value: Decimal, unit: str) -> str:
    """A number as text shows it: 1,234 members, $1,234, 12.5%, 2.4 times."""
    match unit:
        case "percent":
            return f"{trimmed(tenths(value))}%"
        case "times":
            return f"{trimmed(tenths(value))} times"
        case "month number":
            return f"month {value}"
        case _ if re.fullmatch("[A-Z]{3}", unit):
            return money(value, unit)
        case _:
            whole = value == value.to_integral_value() or abs(value) >= _ONE_DECIMAL_BELOW
            return f"{value.quantize(Decimal(1), rounding=ROUND_HALF_EVEN):,}" if whole else f"{tenths(value):,}"


def money(amount: Decimal, currency: str) -> str:
    """Thousands separated; whole units from 1,000 on, cents below."""
    digits = f"{abs(amount):,.0f}" if abs(amount) >= _WHOLE_FROM else f"{abs(amount):,.2f}"
    sign = MINUS if amount < 0 else ""
    symbol = _SYMBOL.get(currency)
    return f"{sign}{symbol}{digits}" if symbol else f"{currency} {sign}{digits}"


def trimmed(value: Decimal) -> str:
    """Without a zero that says nothing: 30.0 → 30; with a minus sign, where a hyphen would break a line."""
    return f"{value:,f}".removesuffix(".0").replace("-", MINUS)


def month_name(day: date) -> str:
    """March 2024."""
    return f"{day:%B %Y}"
