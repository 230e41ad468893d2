"""The facts of the financial case: what the value proposition says, and what the value model makes of it."""

from functools import partial
from typing import Final

from agent_runner.facts import CARE, Facts, Source
from agent_runner.population import RECENT, YEAR
from agent_runner.value_model import CASES, Case, ValueModel
from triton_common.schemas import ValuePropositionContent

TERMS: Final = partial(Source, "value proposition", None)
MODEL: Final = partial(Source, "value model", None)
_CODES: Final = 10  # that a text can name
_ORDINALS: Final = ("first", "second", "third")


def put_terms(facts: Facts, terms: ValuePropositionContent, model: ValueModel) -> None:
    """What the client says of its programme, and the cost that its effects start from."""
    codes = [pattern.code for pattern in terms.eligibility]
    named = ", ".join(codes[:_CODES]) + (" and others" if len(codes) > _CODES else "")
    facts.put_text("programme.codes", "Diagnosis codes that qualify", named, TERMS("eligibility"))
    fee, one_time = terms.fees.per_engaged_member_per_month, terms.fees.one_time
    source = TERMS("fees.per_engaged_member_per_month")
    facts.put_money("programme.fee", "Fee per engaged member per month", fee, source)
    facts.put_money("programme.one_time_fee", "One-time fee", one_time, TERMS("fees.one_time"))
    source = TERMS("ramp_up_months")
    facts.put("ramp_up_months", "Months until the full effect", terms.ramp_up_months, "months", source)
    source = Source("job", None, "parameters.horizon_months")
    facts.put("horizon_months", "Months the financial case covers", model.horizon_months, "months", source)
    for case in CASES:
        share = 100 * getattr(terms.engagement, case)
        label = f"Share of qualifying members who take part, {case} case"
        facts.put(f"engagement.{case}", label, share, "percent", TERMS(f"engagement.{case}"))
    for effect in terms.effects:
        key, care = f"effect.{effect.driver}", CARE[effect.driver]
        for case in CASES:
            label = f"Reduction of the cost of {care} of a member who takes part, {case} case"
            source = TERMS(f"effects.{effect.driver}.reduction.{case}")
            facts.put(f"{key}.{case}", label, 100 * getattr(effect.reduction, case), "percent", source)
        evidence = effect.evidence.rstrip(". \n") or effect.evidence
        source = TERMS(f"effects.{effect.driver}.evidence")
        facts.put_text(f"{key}.evidence", f"Source for the effect on {care}", evidence, source)
        paid = "total_paid" if effect.driver == "total" else f"paid_by_category.{effect.driver}"
        source = RECENT(f"cohort.{paid} / cohort.member_months")
        label = f"Cost of {care} per qualifying member per month in the baseline period"
        facts.put_money(f"{key}.baseline", label, model.baseline[effect.driver], source)


def put_years(facts: Facts, model: ValueModel) -> None:
    """Words for the years of the horizon."""
    for year, ordinal in zip(range(1, model.horizon_months // YEAR + 1), _ORDINALS, strict=False):
        facts.put_text(f"year.{year}", f"Words for year {year} of the horizon", f"the {ordinal} year", MODEL("horizon"))


def put_case(facts: Facts, case: Case, model: ValueModel) -> None:
    """One case over the horizon and by year."""
    scenario, words = model.cases[case], f"{case} case"
    source = MODEL(f"baseline.members * engagement.{case}")
    facts.put(f"engaged.{case}", f"Members who take part, {words}", scenario.engaged, "members", source)
    parts = " + ".join(f"savings.{case}.{driver}" for driver in model.baseline)
    facts.put_money(f"savings.{case}", f"Gross savings over the horizon, {words}", scenario.savings, MODEL(parts))
    source = MODEL(f"programme.one_time_fee + horizon_months * engaged.{case} * programme.fee")
    facts.put_money(f"fees.{case}", f"Fees over the horizon, {words}", scenario.fees, source)
    source = MODEL(f"savings.{case} - fees.{case}")
    facts.put_money(f"net.{case}", f"Net result over the horizon, {words}", scenario.net, source)
    for year in range(1, model.horizon_months // YEAR + 1):
        savings, fees, net = scenario.year(year)
        months = f"of months {YEAR * (year - 1) + 1} to {YEAR * year}"
        one_time = " + programme.one_time_fee" if year == 1 else ""
        for name, label, amount, formula in (
            ("savings", "Gross savings", savings, f"savings {months}"),
            ("fees", "Fees", fees, f"fees {months}{one_time}"),
            ("net", "Net result", net, f"savings.{case}.year{year} - fees.{case}.year{year}"),
        ):
            facts.put_money(f"{name}.{case}.year{year}", f"{label} in year {year}, {words}", amount, MODEL(formula))
    for driver in model.baseline:
        effect = f"effect.{driver}.baseline * effect.{driver}.{case}"
        source = MODEL(f"sum over the months of engaged.{case} * {effect} * ramp-up, each rounded to cents")
        label = f"Gross savings on {CARE[driver]}, {words}"
        facts.put_money(f"savings.{case}.{driver}", label, scenario.savings_of(driver), source)
    if scenario.roi is not None:
        label, source = f"Return on investment, {words}", MODEL(f"net.{case} / fees.{case}")
        facts.put_share(f"roi.{case}", label, scenario.net, scenario.fees, source)
    key, label = f"payback_month.{case}", f"Month by whose end savings have covered all fees so far, {words}"
    source = MODEL("first month whose cumulative savings - fees are 0 or more")
    if scenario.payback_month:
        facts.put(key, label, scenario.payback_month, "month number", source)
    else:
        facts.put_text(key, label, f"not within {model.horizon_months} months", source)
    key, label = f"savings.{case}.per_engaged_month", f"Gross savings per engaged member per month, {words}"
    source = MODEL(f"savings.{case} / (engaged.{case} * horizon_months)")
    facts.put_money(key, label, scenario.savings_per_engaged_month, source)
    label = f"Net result per member per month over all members seen in the baseline period, {words}"
    source = MODEL(f"net.{case} / (members of the baseline period * horizon_months)")
    facts.put_money(f"net.{case}.pmpm", label, model.net_pmpm(case), source)
