"""The case for the programme, composed from the facts by fixed rules: the other half of offline.py."""

from typing import Final

from agent_runner.facts import CARE, Facts
from agent_runner.offline import counted, listed, qualifying, the
from agent_runner.value_model import CASES
from triton_common.schemas import CostCategory

SMALL_COHORT: Final = 100  # qualifying members; below, a few costly cases decide the average
SHORT_DATA: Final = 12  # months; less than a year misses the seasons
OLD_DATA: Final = 12  # months; a plan's members and prices are others after a year


def executive_summary(facts: Facts) -> list[str]:
    """The offer and its result in short."""
    text = [
        "{{client}} offers {{programme}} to {{prospect}}. The data covers "
        f"{counted(facts, 'members', 'member')}"
        + (
            ", whose care cost {{total_paid}}, or {{pmpm}} per member per month."
            if facts.number("total_paid")
            else ". It shows no cost."
        )
    ]
    if _nobody(facts):
        who = "who qualifies for the programme"
        if facts.number("cohort.members"):
            who += " and was still seen in its final months"
        text.append(f"The data shows no member {who}. On this data it would save nothing, and {_fixed_fees(facts)}.")
        return text
    verb = "qualifies" if facts.number("cohort.members") == 1 else "qualify"
    account = "accounts" if verb == "qualifies" else "account"
    share = f", and {account} for {the('cohort.cost_share')} of the cost" if "compare.cohort_shares" in facts else ""
    text.append(f"{qualifying(facts)} {verb} for the programme{share if 'rest.members' in facts else ''}.")
    saved = "{{savings.base}}" if facts.number("savings.base") else "nothing that the data shows"
    start = (
        f"In the base case, {counted(facts, 'engaged.base', 'member')} would take part. Over {the('horizon_months')} "
        f"months the programme would save {saved}, for fees of {the('fees.base')}"
    )
    if facts.number("net.base") < 0:
        text.append(f"{start}. The savings do not cover the fees: the net result is {the('net.base')}.{_saves(facts)}")
    else:
        roi = ", a return of {{roi.base}} on the fees" if "roi.base" in facts else ""
        paid = (
            " By the end of {{payback_month.base}}, savings have covered all fees so far." if _pays_back(facts) else ""
        )
        text.append(f"{start}. That leaves {the('net.base')} net{roi}.{paid}")
    text.append("The net result is {{net.low}} in the low case and {{net.high}} in the high case.")
    if _old(facts):
        text.append(_age(facts))
    return text


def financial_case(facts: Facts) -> list[str]:
    """Savings, fees, net and payback."""
    if _nobody(facts):
        nothing = "savings are {{savings.base}} in the low, the base and the high case alike"
        return [f"With nobody to take part there is nothing to save: {nothing}, and {_fixed_fees(facts)}."]
    keys = {driver: f"savings.base.{driver}" for driver in CostCategory if f"savings.base.{driver}" in facts}
    drivers = sorted(
        (driver for driver, key in keys.items() if facts.number(key)), key=lambda d: -facts.number(keys[d])
    )
    saved = "nothing that the data shows"
    if drivers:
        saved = f"{the('savings.base')}: {listed(f'{the(keys[driver])} on {CARE[driver]}' for driver in drivers)}"
    years = listed(
        f"{the(f'net.base.year{year}')} in {the(f'year.{year}')}" for year in (1, 2, 3) if f"year.{year}" in facts
    )
    roi = ", {{roi.base}} of the fees" if "roi.base" in facts and facts.number("net.base") >= 0 else ""
    dear = _saves(facts) if facts.number("net.base") < 0 else ""
    paid = (
        "By the end of {{payback_month.base}}, savings have covered all fees paid so far."
        if _pays_back(facts)
        else "The fees are not recovered in that time."
    )
    text = [
        (
            f"In the base case {counted(facts, 'engaged.base', 'member')} would take part. "
            f"Over {the('horizon_months')} months the programme would save {saved}. The fees come to "
            f"{the('fees.base')}, so the net result is {the('net.base')}{roi}.{dear}"
        ),
        f"The net result is {years}. {paid}",
    ]
    text.append(
        " ".join(
            f"In the {case} case {counted(facts, f'engaged.{case}', 'member')} would take part. Savings are "
            f"{the(f'savings.{case}')} and fees {the(f'fees.{case}')}: a net result of {the(f'net.{case}')}."
            for case in ("low", "high")
        )
    )
    each = "Each member who takes part saves {{savings.base.per_engaged_month}} per month in the base case. "
    text.append(
        (each if drivers else "")
        + "Spread over all members of {{prospect}}, the net result is {{net.base.pmpm}} per member per month."
    )
    return text


def assumptions(facts: Facts) -> list[str]:
    """What the financial case takes for granted, with its sources."""
    shares = listed(f"{the(f'engagement.{case}')} in the {case} case" for case in CASES)
    text = [f"Of the members who qualify, {shares} take part."]
    for driver in CostCategory:
        if (effect := f"effect.{driver}") + ".base" in facts:
            text.append(  # noqa: PERF401  a sentence reads better outside a comprehension
                f"For a member who takes part, the cost of {CARE[driver]} falls by {the(f'{effect}.low')} in the low, "
                f"{the(f'{effect}.base')} in the base and {the(f'{effect}.high')} in the high case"
                + (f", from {the(f'{effect}.baseline')} per month" if facts.number(f"{effect}.baseline") else "")
                + f". Source: {the(f'{effect}.evidence')}."
            )
    if "baseline.period" in facts and not _nobody(facts):
        text.append(
            "The costs that the effects start from are those of qualifying members in {{baseline.period}}. Members who "
            "qualify but were not seen in that time are counted as gone."
        )
    one_time = ", after {{programme.one_time_fee}} at the start" if facts.number("programme.one_time_fee") else ""
    ramp_up = facts.number("ramp_up_months")
    effect = (
        "The effect grows evenly from the start to the end of month {{ramp_up_months}}."
        if ramp_up
        else "The full effect is there from the start."
    )
    text.append(
        f"The fee is {the('programme.fee')} per month for each member who takes part{one_time}. It is due in full from "
        f"the start. {effect}"
    )
    text.append(
        "Members who take part are taken to cost what a qualifying member costs on average, and without the programme "
        "their cost would stay what it was: no inflation, trend or return to the average is counted."
    )
    return text


def risks(facts: Facts) -> list[str]:
    """What could make the result another."""
    text = []
    if _nobody(facts):
        text.append(
            "Qualifying members may be missing from the data, or have other codes. Looked for: {{programme.codes}}."
        )
    elif facts.number("baseline.members") < SMALL_COHORT:
        text.append(
            f"The result rests on {counted(facts, 'baseline.members', 'qualifying member')}. In a group this small, a "
            "few costly cases can change the averages, and with them the result."
        )
    if "months_of_data" in facts and facts.number("months_of_data") < SHORT_DATA:
        text.append(
            f"The data covers only {counted(facts, 'months_of_data', 'month')}, so the season may distort the averages."
        )
    if _old(facts):
        text.append(f"{_age(facts)} Members and prices may be others by now.")
    if "pharmacy_paid" not in facts:
        nothing = " The effect on pharmacy is therefore counted as nothing." if "effect.pharmacy.base" in facts else ""
        text.append(f"Pharmacy cost is missing from the data.{nothing}")
    if facts.number("net.base") >= 0 > facts.number("net.low"):
        text.append("In the low case the savings do not cover the fees: the net result is {{net.low}}.")
    text.append(
        "Members whose cost was high by chance tend to cost less later even without a programme, and members who "
        "choose to take part may differ from those who do not. A comparison group shows how much of a change is the "
        "programme's."
    )
    text.append(
        "Claims that were still unpaid when the data was drawn are not in it, so the cost of its final months may be "
        "understated."
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
        "Agree with {{prospect}} on the assumptions above, engagement and effects first, since the result turns on "
        "them."
    )
    if _old(facts):
        text.append("Ask {{prospect}} for newer data, and make this document again with it.")
    if "pharmacy_paid" not in facts:
        text.append("Ask {{prospect}} for its pharmacy data, so that the next version of this document can include it.")
    text.append(
        "Confirm the list of qualifying members, and settle when the programme starts and how its result will be "
        "measured."
    )
    return text


def _nobody(facts: Facts) -> bool:
    return not facts.number("baseline.members")


def _old(facts: Facts) -> bool:
    return "data_age_months" in facts and facts.number("data_age_months") >= OLD_DATA


def _age(facts: Facts) -> str:
    months = counted(facts, "data_age_months", "month")
    return f"The data ends in {the('last_month')}, {months} before this document was made."


def _pays_back(facts: Facts) -> bool:
    return not isinstance(facts["payback_month.base"].value, str)


def _saves(facts: Facts) -> str:
    return (
        " The programme saves {{compare.savings_fees.base}} it costs." if "compare.savings_fees.base" in facts else ""
    )


def _fixed_fees(facts: Facts) -> str:
    if facts.number("programme.one_time_fee"):
        return "what remains is its one-time fee of {{programme.one_time_fee}}: the net result is {{net.base}}"
    return "since nobody would take part, it would cost nothing: the net result is {{net.base}}"
