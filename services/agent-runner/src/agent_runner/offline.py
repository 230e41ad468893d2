"""Texts composed from the facts by fixed rules, for when no language model is set up: plain and complete.

They are written as an agent writes them, figures as `{{fact}}` references, and are checked like an agent's. Here: the
population, what it costs and whom the programme fits; the case for the programme is in offline_case.py.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from agent_runner.facts import CARE, Facts
from agent_runner.population import TOP
from triton_common.schemas import CostCategory

NAMED_CATEGORIES: Final = 4  # more make a sentence a list


def population(facts: Facts) -> list[str]:
    """Who is in the data and what their care costs."""
    months = counted(facts, "member_months", "member month")
    period = ""
    if "first_month" in facts:
        several = facts["first_month"].value != facts["last_month"].value
        period = ", from {{first_month}} to {{last_month}}" if several else ", all in {{first_month}}"
    text = [
        f"The data of {{{{prospect}}}} covers {counted(facts, 'members', 'member')} and {months}{period}. "
        + (
            "Care cost {{total_paid}} in all, or {{pmpm}} per member per month. The plan paid {{plan_paid}} of it, and "
            "members themselves {{member_paid}}."
            if facts.number("total_paid")
            else "It shows no cost."
        )
    ]
    ranked = _conditions(facts, "prevalence")
    if len(ranked) == 1:
        text.append(f"The condition that the data shows is {ranked[0]}.")
    elif "largest.condition.prevalence" in facts:
        first = counted(facts, "condition.prevalence.1.members", "member")
        text.append(f"{the('largest.condition.prevalence')}, with {first}, followed by {listed(ranked[1:])}.")
    elif ranked:
        text.append(f"By the number of members who have them, the conditions at the top are {listed(ranked)}.")
    if "trend.recent" in facts:
        before = "{{compare.trend}} the {{trend.earlier}}" if "compare.trend" in facts else "against {{trend.earlier}}"
        text.append(
            f"From {{{{trend.period}}}}, a member cost {{{{trend.recent}}}} per month, {before} of the year before."
        )
    return text


def cost_drivers(facts: Facts) -> list[str]:
    """Where the money goes."""
    text = []
    if drivers := _care(facts, "cost", with_amount=True):
        text.append(_led(facts, "largest.cost", drivers, otherwise="The cost goes to"))
    if "pharmacy_paid" not in facts:
        text.append("The data holds no pharmacy cost, so every figure in this document is about medical care alone.")
    elif "compare.medical_pharmacy" in facts:
        text.append(
            "Medical care as a whole cost {{medical_paid}}, {{compare.medical_pharmacy}} drugs with {{pharmacy_paid}}."
        )
    ranked = _conditions(facts, "cost")
    several = "A member with several conditions counts for each of them."
    if len(ranked) == 1:
        text.append(f"The condition whose members\u2019 cost the data shows is {ranked[0]}.")
    elif "largest.condition.cost" in facts:
        text.append(
            f"{the('largest.condition.cost')} ({the('condition.cost.1.paid')}). Next are {listed(ranked[1:])}. "
            f"{several}"
        )
    elif ranked:
        text.append(
            f"By the cost of the members who have them, the conditions at the top are {listed(ranked)}. {several}"
        )
    return text or ["The data shows neither what the cost was for nor any condition."]


def programme_fit(facts: Facts) -> list[str]:
    """Who qualifies, and how they differ from everybody else."""
    text = ["{{programme.summary}}"]
    if not facts.number("cohort.members"):
        text.append(
            "The data shows no member with a diagnosis that qualifies for {{programme}} ({{programme.codes}}). As it "
            "stands, there is nobody the programme could take in."
        )
        return text
    qualify = qualifying(facts)
    verb = "has" if _one(facts, "cohort.members") else "have"
    account = ""
    if "compare.cohort_shares" in facts and "rest.members" in facts:
        they, their = ("That member accounts", "its") if _one(facts, "cohort.members") else ("They account", "their")
        shares = f"{the('cohort.cost_share')} of the cost, {the('compare.cohort_shares')} {their} share of the members"
        account = f" {they} for {shares}."
    text.append(
        f"{qualify} {verb} a diagnosis that qualifies for {the('programme')} ({the('programme.codes')}).{account}"
    )
    if "compare.cohort_rest" in facts:
        text.append(
            "On average, a qualifying member costs {{cohort.pmpm}} per month, {{compare.cohort_rest}} a member who "
            "does not qualify, at {{rest.pmpm}}."
        )
    if "compare.baseline" in facts and "baseline.period" in facts:
        same = facts.number("baseline.pmpm") == facts.number("cohort.pmpm")
        text.append(
            "The financial case starts from what qualifying members cost in {{baseline.period}}: {{baseline.pmpm}} per "
            f"member per month{'' if same else ', {{compare.baseline}} over all the data'}."
        )
    if drivers := _care(facts, "cohort.cost", with_amount=False):
        text.append(_led(facts, "largest.cohort.cost", drivers, otherwise="Their cost goes to"))
    period = ", {{baseline.period}}" if "baseline.period" in facts else ""
    if not facts.number("baseline.members"):
        text.append(
            f"None of them was seen in the final months of the data{period}. As it stands, there is nobody the "
            "programme could take in."
        )
    elif facts.number("baseline.members") != facts.number("cohort.members"):
        verb = "was" if _one(facts, "baseline.members") else "were"
        text.append(
            f"Of the members who qualify, {the('baseline.members')} {verb} still seen in the final months of the "
            f"data{period}. The financial case counts these alone."
        )
    return text


def the(key: str) -> str:
    """A reference to a fact."""
    return f"{{{{{key}}}}}"


def counted(facts: Facts, key: str, noun: str) -> str:
    """`{{members}} members`, or `{{members}} member` for 1. Of members expected, such as 4.2, it says about so many."""
    number = facts.number(key)
    about = "" if number == number.to_integral_value() else "about "
    return f"{about}{the(key)} {noun if number == 1 else noun + 's'}"


def qualifying(facts: Facts) -> str:
    """How many members qualify, and which part of all they are."""
    every = facts.number("cohort.members") == facts.number("members")
    return f"{counted(facts, 'cohort.members', 'member')} ({'all there are' if every else '{{cohort.share}} of all'})"


def listed(parts: Iterable[str]) -> str:
    """a; a and b; a, b and c."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def _one(facts: Facts, key: str) -> bool:
    return facts.number(key) == 1


def _led(facts: Facts, leader: str, parts: list[tuple[str, str]], *, otherwise: str) -> str:
    """Kinds of care in a sentence that begins with the leader, if there is one."""
    named = [f"{care} {figures}" for care, figures in parts]
    if leader not in facts:
        return f"{otherwise} {listed(named)}."
    return f"{the(leader)} {parts[0][1]}, followed by {listed(named[1:])}."


def _care(facts: Facts, key: str, *, with_amount: bool) -> list[tuple[str, str]]:
    """Kinds of care, the costliest first, each with its figures in brackets."""
    cost: dict[CostCategory, Decimal] = {
        category: facts.number(f"{key}.{category}") for category in CARE if f"{key}.{category}.share" in facts
    }
    return [
        (CARE[category], f"({the(f'{key}.{category}')}, {share})" if with_amount else f"({share})")
        for category in sorted(cost, key=lambda category: -cost[category])[:NAMED_CATEGORIES]
        for share in [the(f"{key}.{category}.share")]
    ]


def _conditions(facts: Facts, order: str) -> list[str]:
    """The first conditions in this order, each with the figure that orders them."""
    keys = [f"condition.{order}.{rank}" for rank in range(1, TOP + 1) if f"condition.{order}.{rank}" in facts]
    return [
        f"{the(key)} ({the(f'{key}.paid') if order == 'cost' else counted(facts, f'{key}.members', 'member')})"
        for key in keys
    ]
