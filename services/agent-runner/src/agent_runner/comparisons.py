"""Comparison facts: what agents may not say in words of their own ("more than", "the largest", "most") the platform
says, computed from other facts.

A comparison stands between two things: "A qualifying member costs {{compare.cohort_rest}} any other". A leader is a
clause that begins a sentence: "Inpatient care is the largest part of the cost".
"""

from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from typing import Final

from agent_runner.facts import CARE, Facts, Source, display, tenths
from agent_runner.value_model import CASES, ValueModel
from triton_common.schemas import CostCategory

_TWICE: Final = 2  # from here on "2.4 times as much as" is clearer than "140% more than"
_MAJORITY: Final = 50  # percent
COMPARED: Final = partial(Source, "comparison", None)


def put_comparisons(facts: Facts, model: ValueModel) -> None:
    """Those whose figures are among the facts."""
    for key, label, value, other in (
        ("cohort_rest", "Cost of a qualifying member, against any other's", "cohort.pmpm", "rest.pmpm"),
        (
            "cohort_shares",
            "Their share of the cost, against their share of members",
            "cohort.cost_share",
            "cohort.share",
        ),
        ("trend", "Cost per member in trend.period, against the twelve months before", "trend.recent", "trend.earlier"),
        ("medical_pharmacy", "Medical cost, against pharmacy cost", "medical_paid", "pharmacy_paid"),
        (
            "baseline",
            "Cost of a qualifying member in the baseline period, against all the data",
            "baseline.pmpm",
            "cohort.pmpm",
        ),
        *(
            (
                f"savings_fees.{case}",
                f"What the programme saves, against what it costs, {case} case",
                f"savings.{case}",
                f"fees.{case}",
            )
            for case in CASES
        ),
    ):
        if value in facts and other in facts and facts.number(value) > 0 and facts.number(other) > 0:
            words = compared(facts.number(value), facts.number(other))
            facts.put_text(f"compare.{key}", label, words, COMPARED(f"{value} against {other}"), unit="comparison")
    drivers = list(model.baseline)
    for key, label, leaders, part in (
        ("cost", "The costliest kind of care", _shares(facts, "cost"), "the cost"),
        (
            "cohort.cost",
            "The costliest kind of care of qualifying members",
            _shares(facts, "cohort.cost"),
            "their cost",
        ),
        *(
            (
                f"savings.{case}",
                f"Where most is saved, {case} case",
                _savings(facts, f"savings.{case}", drivers),
                "the savings",
            )
            for case in CASES
        ),
    ):
        if clause := _leader(leaders, part):
            formula = f"largest of {', '.join(name for name, _, _ in leaders)}"
            facts.put_text(
                f"largest.{key}", f"A clause to begin with: {label}", clause, COMPARED(formula), unit="clause"
            )
    for order, by, words in (
        ("prevalence", "members", "is the most common condition"),
        ("cost", "paid", "is the condition whose members cost most, all their care included"),
    ):
        _condition(facts, order, by, words)


def compared(value: Decimal, other: Decimal) -> str:
    """How a positive figure compares with another: "2.4 times as much as", "12% less than", "as much as"."""
    ratio = value / other
    percent = tenths(100 * abs(ratio - 1))
    if ratio == 1:
        return "as much as"
    if not percent:
        return "about as much as"
    if ratio == _TWICE or tenths(ratio) == _TWICE:
        return "twice as much as" if ratio == _TWICE else "about twice as much as"
    if ratio > _TWICE:
        return f"{display(ratio, 'times')} as much as"
    return f"{display(percent, 'percent')} {'more' if ratio > 1 else 'less'} than"


def _shares(facts: Facts, key: str) -> list[tuple[str, str, Decimal]]:
    """Kinds of care: fact, name, share in percent."""
    named = ((f"{key}.{category}.share", CARE[category]) for category in CostCategory)
    return [(fact, name, facts.number(fact)) for fact, name in named if fact in facts]


def _savings(facts: Facts, key: str, drivers: Sequence[CostCategory]) -> list[tuple[str, str, Decimal]]:
    whole = facts.number(key)
    parts = [(f"{key}.{driver}", CARE[driver], facts.number(f"{key}.{driver}")) for driver in drivers]
    return [(fact, name, 100 * saved / whole) for fact, name, saved in parts] if whole and len(parts) > 1 else []


def _leader(shares: list[tuple[str, str, Decimal]], whole: str) -> str:
    """Nothing when two are first, or there is no other."""
    match sorted(shares, key=lambda part: -part[2]):
        case [first, second, *_] if first[2] > second[2]:
            pass
        case _:
            return ""
    what = f"more than half of {whole}" if first[2] > _MAJORITY else f"the largest part of {whole}"
    return f"{first[1][0].upper()}{first[1][1:]} is {what}"


def _condition(facts: Facts, order: str, by: str, words: str) -> None:
    first, second = (f"condition.{order}.{rank}" for rank in (1, 2))
    if second in facts and facts.number(f"{first}.{by}") > facts.number(f"{second}.{by}"):
        label = f"A clause to begin with: the first condition by {order}"
        formula = f"largest {by} of condition.{order}"
        facts.put_text(
            f"largest.condition.{order}", label, f"{facts[first].display} {words}", COMPARED(formula), unit="clause"
        )
