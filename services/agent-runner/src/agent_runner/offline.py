"""Texts composed from the facts by fixed rules, for when no language model is set up: plain and complete.

They are written as an agent writes them, figures as `{{fact}}` references, and are checked like an agent's.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from agent_runner.facts import CARE, Facts
from agent_runner.gathering import TOP
from agent_runner.value_model import CASES
from triton_common.schemas import CostCategory

SMALL_COHORT: Final = 100  # qualifying members; below, a few costly cases decide the average
SHORT_DATA: Final = 12  # months; less than a year misses the seasons
NAMED_CATEGORIES: Final = 4  # more make a sentence a list


def population(facts: Facts) -> list[str]:
    """Who is in the data and what their care costs."""
    months = counted(facts, "member_months", "member month")
    period = ", from {{first_month}} to {{last_month}}" if "first_month" in facts else ""
    start = f"The data of {the('prospect')} describes {counted(facts, 'members', 'member')} over {months}{period}."
    cost = (
        "Their care cost {{total_paid}}, which is {{pmpm}} per member per month: the plan paid {{plan_paid}}, and "
        "members themselves {{member_paid}}."
    )
    text = [f"{start} {cost}"]
    if named := _conditions(facts, "prevalence"):
        text.append(f"The conditions that most members have are {named}.")
    if "trend.recent" in facts:
        change = next((word for word in ("rise", "fall") if f"trend.{word}" in facts), None)
        moved = f": a {change} of {the(f'trend.{change}')}" if change else ""
        moved = ": {{trend.multiple}} as much" if "trend.multiple" in facts else moved
        text.append(
            "In the last year of the data a member cost {{trend.recent}} per month, against {{trend.earlier}} in the "
            f"year before{moved}."
        )
    return text


def cost_drivers(facts: Facts) -> list[str]:
    """Where the money goes."""
    text = []
    if shares := [
        f"{CARE[category]} with {the(f'cost.{category}')} ({the(f'cost.{category}.share')})"
        for category in _costliest(facts, "cost")
    ]:
        text.append(f"By kind of care, the cost falls on {listed(shares)}.")
    if "pharmacy_paid" in facts:
        text.append("Medical care cost {{medical_paid}}, and drugs {{pharmacy_paid}}.")
    else:
        text.append("The data holds no pharmacy cost, so every figure in this document is about medical care alone.")
    if conditions := _conditions(facts, "cost"):
        text.append(
            f"The conditions whose members cost most, all their care included, are {conditions}. Members with several "
            "conditions count for each of them."
        )
    return text


def programme_fit(facts: Facts) -> list[str]:
    """Who qualifies, and how they differ from everybody else."""
    text = ["{{programme.summary}}"]
    if _nobody(facts):
        text.append(
            "The data shows no member with a diagnosis that qualifies for {{programme}} ({{programme.codes}}). As it "
            "stands, there is nobody the programme could take in."
        )
        return text
    share = " They account for {{cohort.cost_share}} of the total cost." if "cohort.cost_share" in facts else ""
    text.append(f"{_qualify(facts)} for {the('programme')} by diagnosis ({the('programme.codes')}).{share}")
    if "rest.pmpm" in facts:
        dearer = facts.number("cohort.pmpm") > facts.number("rest.pmpm") and "cohort.multiple" in facts
        ratio = f", {the('cohort.multiple')} as much" if dearer else ""
        text.append(
            f"All other members cost {the('rest.pmpm')} each per month, qualifying ones {the('cohort.pmpm')}{ratio}."
        )
    if shares := [
        f"{CARE[category]} ({the(f'cohort.cost.{category}.share')})" for category in _costliest(facts, "cohort.cost")
    ]:
        text.append(f"Their cost goes to {listed(shares)}.")
    return text


def executive_summary(facts: Facts) -> list[str]:
    """The offer and its result in short."""
    offer = f"{the('client')} offers {the('programme')} to {the('prospect')}."
    cost = "whose care cost {{total_paid}}, or {{pmpm}} per member per month"
    text = [f"{offer} The data describes {counted(facts, 'members', 'member')}, {cost}."]
    if _nobody(facts):
        text.append(
            "The data shows no member who qualifies for the programme. On this data it would save nothing, and "
            f"{_fixed_fees(facts)}."
        )
        return text
    share = ". They account for {{cohort.cost_share}} of all cost" if "cohort.cost_share" in facts else ""
    text.append(f"{_qualify(facts)} for the programme{share}.")
    start = (
        f"In the base case, {counted(facts, 'engaged.base', 'member')} would take part, and the programme would save "
        "{{savings.base}} in {{horizon_months}} months for fees of {{fees.base}}."
    )
    if facts.number("net.base") < 0:
        text.append(
            f"{start} That does not cover its fees: the net result is {the('net.base')}. The programme costs more than "
            "it "
            "saves."
        )
        return text
    roi = ", a return of {{roi.base}} on the fees" if "roi.base" in facts else ""
    paid = " Savings have covered all fees by {{payback_month.base}}." if _pays_back(facts) else ""
    text.append(f"{start} That leaves {the('net.base')} net{roi}.{paid}")
    text.append("The net result is {{net.low}} in the low case and {{net.high}} in the high case.")
    return text


def financial_case(facts: Facts) -> list[str]:
    """Savings, fees, net and payback."""
    if _nobody(facts):
        nothing = "savings are {{savings.base}} in the low, the base and the high case alike"
        return [f"With no qualifying member there is nothing to save: {nothing}, and {_fixed_fees(facts)}."]
    drivers = [driver for driver in CostCategory if f"savings.base.{driver}" in facts]
    drivers.sort(key=lambda driver: -facts.number(f"savings.base.{driver}"))
    by_driver = listed(f"{the(f'savings.base.{driver}')} on {CARE[driver]}" for driver in drivers)
    years = listed(the(f"net.base.year{year}") for year in range(1, 11) if f"net.base.year{year}" in facts)
    roi = ", {{roi.base}} of the fees" if "roi.base" in facts and facts.number("net.base") >= 0 else ""
    text = [f"In the base case {counted(facts, 'engaged.base', 'member')} would take part."]
    text[0] += (
        f" The programme would save {the('savings.base')} in {the('horizon_months')} months: {by_driver}. Fees over "
        f"the same time are {the('fees.base')}, so the net result is {the('net.base')}{roi}."
    )
    if facts.number("net.base") < 0:
        text.append("On these assumptions the programme costs more than it saves.")
    recovered = (
        "Savings have covered all fees paid so far by {{payback_month.base}}."
        if _pays_back(facts)
        else "The fees are not recovered in that time."
    )
    text.append(f"Year by year the net result is {years}. {recovered}")
    low, high = (counted(facts, f"engaged.{case}", "member") for case in ("low", "high"))
    text.append(
        f"In the low case {low} would take part: savings are {the('savings.low')}, fees {the('fees.low')}, the net "
        f"result {the('net.low')}. In the high case {high} would take part: savings are {the('savings.high')}, fees "
        f"{the('fees.high')}, the net result {the('net.high')}."
    )
    text.append(
        "Each member who takes part saves {{savings.base.per_engaged_month}} per month in the base case. Over all "
        "members of {{prospect}}, the net result is {{net.base.pmpm}} per member per month."
    )
    return text


def assumptions(facts: Facts) -> list[str]:
    """What the financial case takes for granted, with its sources."""
    cases = listed(f"{the(f'engagement.{case}')} in the {case} case" for case in CASES)
    text = [f"Of the qualifying members, {cases} take part."]
    for driver in CostCategory:
        if (effect := f"effect.{driver}") + ".base" in facts:
            text.append(  # noqa: PERF401  a sentence reads better outside a comprehension
                f"For a member who takes part, the cost of {CARE[driver]} falls by {the(f'{effect}.low')}, "
                f"{the(f'{effect}.base')} or {the(f'{effect}.high')} in the low, base and high case, from "
                f"{the(f'{effect}.baseline')} per month in the data. Source: {the(f'{effect}.evidence')}."
            )
    one_time = ", after {{programme.one_time_fee}} at the start" if facts.number("programme.one_time_fee") else ""
    effect = (
        "The effect grows evenly from the start to the end of month {{ramp_up_months}}."
        if facts.number("ramp_up_months")
        else "The full effect is there from the start."
    )
    text.append(
        f"The fee is {the('programme.fee')} per engaged member per month{one_time}. It is due in full from the first "
        f"month. {effect}"
    )
    text.append(
        "Members who take part cost as much as qualifying members do on average, and without the programme their cost "
        "would stay what it was in the data: no inflation, trend or return to the average is counted."
    )
    return text


def risks(facts: Facts) -> list[str]:
    """What could make the result another."""
    text = []
    if _nobody(facts):
        text.append("Qualifying members may be missing from the data, or coded otherwise than {{programme.codes}}.")
    elif facts.number("cohort.members") < SMALL_COHORT:
        text.append(
            f"The result rests on {counted(facts, 'cohort.members', 'qualifying member')}. In a group this small, a "
            "few "
            "costly cases can change the averages, and with them the result."
        )
    if "months_of_data" in facts and facts.number("months_of_data") < SHORT_DATA:
        text.append("The data covers less than a year, so seasons may distort the averages.")
    if "pharmacy_paid" not in facts:
        nothing = " The effect on pharmacy is therefore counted as nothing." if "effect.pharmacy.base" in facts else ""
        text.append(f"Pharmacy cost is missing from the data.{nothing}")
    if facts.number("net.base") >= 0 > facts.number("net.low"):
        text.append("In the low case the programme costs more than it saves: the net result is {{net.low}}.")
    text.append(
        "Members whose cost was high by chance tend to cost less later even without a programme, and members who "
        "choose to take part may differ from those who do not. A comparison group shows how much of a change is the "
        "programme's."
    )
    text.append(
        "Claims that were not yet paid when the data was drawn are not in it, so cost may be understated for the last "
        "months."
    )
    return text


def next_steps(facts: Facts) -> list[str]:
    """What to do now."""
    if _nobody(facts):
        return [
            (
                "Check with {{prospect}} whether its data has all diagnoses, and in which code system. Load the "
                "missing part, and make this document again."
            ),
            "If nobody qualifies indeed, {{programme}} is not the right offer for {{prospect}}.",
        ]
    text = []
    if facts.number("net.base") < 0:
        text.append(
            "Discuss fees and scope before anything else: as assumed here, the programme does not pay for itself."
        )
    text.append(
        "Agree with {{prospect}} on the assumptions above, engagement and effects first, since the result depends most "
        "on them."
    )
    text.append(
        "Confirm the list of qualifying members, and settle when the programme starts and how its result will be "
        "measured."
    )
    if "pharmacy_paid" not in facts:
        text.append("Ask {{prospect}} for its pharmacy data, so that the next version of this document can include it.")
    return text


def the(key: str) -> str:
    """A reference to a fact."""
    return f"{{{{{key}}}}}"


def counted(facts: Facts, key: str, noun: str) -> str:
    """`{{members}} members`, or `{{members}} member` for 1. Of members expected, such as 4.2, it says about so many."""
    number = facts.number(key)
    about = "" if number == number.to_integral_value() else "about "
    return f"{about}{the(key)} {noun if number == 1 else noun + 's'}"


def listed(parts: Iterable[str]) -> str:
    """a; a and b; a, b and c."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def _nobody(facts: Facts) -> bool:
    return not facts.number("cohort.members")


def _qualify(facts: Facts) -> str:
    verb = "qualifies" if facts.number("cohort.members") == 1 else "qualify"
    return f"{counted(facts, 'cohort.members', 'member')} ({the('cohort.share')} of all) {verb}"


def _costliest(facts: Facts, key: str) -> list[CostCategory]:
    """Kinds of care, the costliest first."""
    cost: dict[CostCategory, Decimal] = {
        category: facts.number(f"{key}.{category}") for category in CARE if f"{key}.{category}.share" in facts
    }
    return sorted(cost, key=lambda category: -cost[category])[:NAMED_CATEGORIES]


def _conditions(facts: Facts, order: str) -> str:
    """The first conditions in this order, with the figure that orders them."""
    keys = [f"condition.{order}.{rank}" for rank in range(1, TOP + 1) if f"condition.{order}.{rank}" in facts]
    named = (
        f"{the(key)} ({the(f'{key}.paid') if order == 'cost' else counted(facts, f'{key}.members', 'member')})"
        for key in keys
    )
    return listed(named) if keys else ""


def _pays_back(facts: Facts) -> bool:
    return not isinstance(facts["payback_month.base"].value, str)


def _fixed_fees(facts: Facts) -> str:
    if facts.number("programme.one_time_fee"):
        return "what remains is its one-time fee of {{programme.one_time_fee}}: the net result is {{net.base}}"
    return "since nobody would take part, it would cost nothing: the net result is {{net.base}}"
