"""Which facts there are: from the reports, the value proposition and the value model, with ids, labels and sources."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from agent_runner.collecting import Reports
from agent_runner.facts import CARE, Facts, month_name, tenths
from agent_runner.value_model import CASES, Case, ValueModel
from triton_common.schemas import (
    ClaimedJob,
    CodeSystem,
    CohortPart,
    ConditionRow,
    CostCategory,
    ValuePropositionContent,
)

TOP: Final = 5  # conditions a text can name without becoming a list
YEAR: Final = 12
_NO_CONDITION: Final = re.compile(  # the kinds SNOMED CT marks concepts with, behind their names
    r"\((finding|situation|person|event|procedure|observable entity|social concept|environment)\)$"
)
_FEW: Final = 3
_MULTIPLE: Final = 3  # from here on, "3.2 times as much" is clearer than a rise of 220 %


def gather(job: ClaimedJob, reports: Reports, model: ValueModel) -> Facts:
    """All facts of a job. Ids with a number in them count from 1: years of the horizon, ranks of conditions."""
    facts = Facts(job.value_proposition.currency)
    _names(facts, job)
    _population(facts, reports)
    _trend(facts, reports)
    for order, rows in (
        ("prevalence", conditions(reports.by_prevalence.rows)),
        ("cost", conditions(reports.by_cost.rows)),
    ):
        _conditions(facts, order, rows, reports)
    _cohort(facts, reports)
    _terms(facts, job.value_proposition, model)
    for case in CASES:
        _case(facts, case, model)
    return facts


def conditions(rows: Sequence[ConditionRow]) -> list[ConditionRow]:
    """The rows that are conditions and have a name. Extracts list work, schooling and check-ups beside them, and claims
    have codes that nothing names. All rows when few are left."""
    kept = [row for row in rows if _is_condition(row)]
    return kept if len(kept) >= _FEW else list(rows)


def _is_condition(row: ConditionRow) -> bool:
    named = bool(row.description.strip()) and row.description != row.code
    # ICD-10's chapter Z: reasons to see a doctor other than being ill
    contact = row.code_system == CodeSystem.ICD10CM and row.code.startswith("Z")
    return named and not contact and not _NO_CONDITION.search(row.description)


def condition_name(row: ConditionRow) -> str:
    """A condition as text shows it: a line, without SNOMED's mark; its code when it has no name."""
    return one_line(row.description.removesuffix("(disorder)"))[:120] or row.code


def one_line(text: str) -> str:
    """Without line breaks and control characters, which data and people's input may have."""
    return re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip()


def _names(facts: Facts, job: ClaimedJob) -> None:
    facts.put_text("client", "Who offers the programme", job.client_name, "client")
    facts.put_text("prospect", "Who is offered the programme", job.prospect_name, "prospect")
    facts.put_text("programme", "The programme's name", job.value_proposition_name, "value proposition: name")
    facts.put_text(
        "programme.summary",
        "The client's own words on the programme, whole sentences",
        one_line(job.value_proposition.summary),
        "value proposition: summary",
    )


def _population(facts: Facts, reports: Reports) -> None:
    summary = reports.summary

    def source(field: str) -> str:
        return f"summary report: {field}"

    facts.put("members", "Members in the data", summary.members, "members", source("members"))
    facts.put("member_months", "Member months", summary.member_months, "months", source("member_months"))
    if summary.first_month and summary.last_month:
        for key, label, day in (
            ("first_month", "First month of the data", summary.first_month),
            ("last_month", "Last month of the data", summary.last_month),
        ):
            facts.put_text(key, label, month_name(day), source(key), unit="month")
        span = YEAR * (summary.last_month.year - summary.first_month.year)
        span += summary.last_month.month - summary.first_month.month + 1
        facts.put("months_of_data", "Calendar months the data spans", span, "months", source("first_month, last_month"))
    facts.put_money("total_paid", "Total cost, paid by plan and members", summary.total_paid, source("total_paid"))
    facts.put_money("plan_paid", "Paid by the plan", summary.plan_paid, source("plan_paid"))
    facts.put_money("member_paid", "Paid by members", summary.member_paid, source("member_paid"))
    if summary.medical_paid is not None:
        facts.put_money("medical_paid", "Medical cost", summary.medical_paid, source("medical_paid"))
    if summary.pharmacy_source != "none" and summary.pharmacy_paid is not None:
        facts.put_money("pharmacy_paid", "Pharmacy cost", summary.pharmacy_paid, source("pharmacy_paid"))
    facts.put_money("pmpm", "Cost per member per month", summary.pmpm, source("total_paid / member_months"))
    facts.put("claims", "Claims", summary.claims, "claims", source("claims"))
    facts.put("encounters", "Encounters", summary.encounters, "encounters", source("encounters"))
    facts.put("fills", "Pharmacy fills", summary.fills, "fills", source("fills"))
    for category, paid in sorted(summary.paid_by_category.items(), key=lambda item: -item[1]):
        if paid and category is not CostCategory.TOTAL:
            share = f"Share of {CARE[category]} in total cost"
            facts.put_money(
                f"cost.{category}", f"Cost of {CARE[category]}", paid, source(f"paid_by_category.{category}")
            )
            facts.put_share(
                f"cost.{category}.share",
                share,
                paid,
                summary.total_paid,
                source(f"paid_by_category.{category} / total_paid"),
            )


def _trend(facts: Facts, reports: Reports) -> None:
    """Cost per member per month of the last twelve months against the twelve before."""
    rows = reports.trend.rows[-2 * YEAR :]
    earlier, recent = rows[:-YEAR], rows[-YEAR:]
    if len(rows) < 2 * YEAR or not all(sum(row.members for row in year) for year in (earlier, recent)):
        return
    before, after = (
        sum((row.total_paid for row in year), Decimal(0)) / sum(row.members for row in year)
        for year in (earlier, recent)
    )
    source = "cost trend report: sum of total_paid / sum of members, over twelve months"
    facts.put_money("trend.earlier", "Cost per member per month, the year before the last of the data", before, source)
    facts.put_money("trend.recent", "Cost per member per month, the last twelve months of the data", after, source)
    if before and after >= _MULTIPLE * before:
        facts.put(
            "trend.multiple", "The later of those two years, against the earlier", after / before, "times", source
        )
    elif before and after != before:
        key = "trend.rise" if after > before else "trend.fall"
        label = "Rise" if after > before else "Fall"
        facts.put_share(key, f"{label} of it between those two years", abs(after - before), before, f"{source}; change")


def _conditions(facts: Facts, order: str, rows: Sequence[ConditionRow], reports: Reports) -> None:
    for rank, row in enumerate(rows[:TOP], start=1):
        key, source = f"condition.{order}.{rank}", f"conditions report, order {order}, row {rank}"
        label = f"Condition {rank} by {order}"
        facts.put_text(key, label, condition_name(row), source)
        facts.put(f"{key}.members", f"{label}: members with it", row.members, "members", source)
        facts.put_share(f"{key}.share", f"{label}: share of all members", row.members, reports.summary.members, source)
        facts.put_money(f"{key}.paid", f"{label}: all cost of these members", row.total_paid, source)


def _cohort(facts: Facts, reports: Reports) -> None:
    cohort, rest, everyone = reports.cohort.cohort, reports.cohort.rest, reports.summary
    source = "cohort report"
    facts.put(
        "cohort.members", "Members who qualify for the programme", cohort.members, "members", f"{source}: members"
    )
    facts.put_share(
        "cohort.share",
        "Share of members who qualify",
        cohort.members,
        everyone.members,
        f"{source}: members / all members",
    )
    if not cohort.members:
        return
    _part(facts, "cohort", "qualifying members", cohort)
    if rest.members:
        _part(facts, "rest", "all other members", rest)
    both = cohort.total_paid + rest.total_paid
    facts.put_share(
        "cohort.cost_share",
        "Share of qualifying members in total cost",
        cohort.total_paid,
        both,
        f"{source}: total_paid",
    )
    if rest.pmpm and cohort.pmpm:
        facts.put(
            "cohort.multiple",
            "Cost per qualifying member per month, against all other members'",
            tenths(cohort.pmpm / rest.pmpm),
            "times",
            f"{source}: pmpm / rest's pmpm",
        )
    for category, paid in sorted(cohort.paid_by_category.items(), key=lambda item: -item[1]):
        if paid and category is not CostCategory.TOTAL:
            label = f"Cost of {CARE[category]} of qualifying members"
            facts.put_money(f"cohort.cost.{category}", label, paid, f"{source}: paid_by_category.{category}")
            facts.put_share(
                f"cohort.cost.{category}.share",
                f"Share of {CARE[category]} in their cost",
                paid,
                cohort.total_paid,
                f"{source}: paid_by_category.{category} / total_paid",
            )


def _part(facts: Facts, key: str, who: str, part: CohortPart) -> None:
    if key != "cohort":
        facts.put(f"{key}.members", f"Members: {who}", part.members, "members", f"cohort report: {key}.members")
    facts.put(
        f"{key}.member_months",
        f"Member months of {who}",
        part.member_months,
        "months",
        f"cohort report: {key}.member_months",
    )
    facts.put_money(f"{key}.total_paid", f"Total cost of {who}", part.total_paid, f"cohort report: {key}.total_paid")
    facts.put_money(f"{key}.pmpm", f"Cost per month for each of {who}", part.pmpm, f"cohort report: {key}.pmpm")


def _terms(facts: Facts, terms: ValuePropositionContent, model: ValueModel) -> None:
    source = "value proposition"
    codes = [pattern.code for pattern in terms.eligibility]
    named = ", ".join(codes[:10]) + (" and others" if len(codes) > 10 else "")
    facts.put_text("programme.codes", "Diagnosis codes that qualify", named, f"{source}: eligibility")
    facts.put_money(
        "programme.fee",
        "Fee per engaged member per month",
        terms.fees.per_engaged_member_per_month,
        f"{source}: fees.per_engaged_member_per_month",
    )
    facts.put_money("programme.one_time_fee", "One-time fee", terms.fees.one_time, f"{source}: fees.one_time")
    facts.put(
        "ramp_up_months", "Months until the full effect", terms.ramp_up_months, "months", f"{source}: ramp_up_months"
    )
    facts.put(
        "horizon_months", "Months the financial case covers", model.horizon_months, "months", "value model: horizon"
    )
    for case in CASES:
        share = 100 * getattr(terms.engagement, case)
        label = f"Share of qualifying members who take part, {case} case"
        facts.put(f"engagement.{case}", label, share, "percent", f"{source}: engagement.{case}")
    for effect in terms.effects:
        key, care = f"effect.{effect.driver}", CARE[effect.driver]
        for case in CASES:
            facts.put(
                f"{key}.{case}",
                f"Reduction of the cost of {care} of a member who takes part, {case} case",
                100 * getattr(effect.reduction, case),
                "percent",
                f"{source}: effects.{effect.driver}.reduction.{case}",
            )
        evidence = one_line(effect.evidence).rstrip(". ") or effect.evidence
        facts.put_text(f"{key}.evidence", f"Source for the effect on {care}", evidence, f"{source}: effects.evidence")
        facts.put_money(
            f"{key}.baseline",
            f"Cost of {care} per qualifying member per month",
            model.baseline[effect.driver],
            "cohort report: paid_by_category / member_months",
        )


def _case(facts: Facts, case: Case, model: ValueModel) -> None:
    scenario, words, source = model.cases[case], f"{case} case", "value model"
    facts.put(
        f"engaged.{case}",
        f"Members who take part, {words}",
        scenario.engaged,
        "members",
        f"{source}: eligible * engagement",
    )
    months = "sum over months of engaged * baseline * reduction * ramp-up"
    facts.put_money(
        f"savings.{case}", f"Gross savings over the horizon, {words}", scenario.savings, f"{source}: {months}"
    )
    facts.put_money(
        f"fees.{case}",
        f"Fees over the horizon, {words}",
        scenario.fees,
        f"{source}: one-time fee + sum of monthly fees",
    )
    facts.put_money(f"net.{case}", f"Net result over the horizon, {words}", scenario.net, f"{source}: savings - fees")
    for year in range(1, model.horizon_months // YEAR + 1):
        for name, label, amount in zip(
            ("savings", "fees", "net"), ("Gross savings", "Fees", "Net result"), scenario.year(year), strict=True
        ):
            facts.put_money(
                f"{name}.{case}.year{year}",
                f"{label} in year {year}, {words}",
                amount,
                f"{source}: months of year {year}",
            )
    for driver in model.baseline:
        label = f"Gross savings on {CARE[driver]}, {words}"
        facts.put_money(f"savings.{case}.{driver}", label, scenario.savings_of(driver), f"{source}: {months}")
    if scenario.roi is not None:
        facts.put_share(
            f"roi.{case}", f"Return on investment, {words}", scenario.net, scenario.fees, f"{source}: net / fees"
        )
    key, label = f"payback_month.{case}", f"Month by whose end savings have covered all fees so far, {words}"
    origin = f"{source}: first month with a cumulative net of 0 or more"
    if scenario.payback_month:
        facts.put(key, label, scenario.payback_month, "month number", origin)
    else:
        facts.put_text(key, label, f"not within {model.horizon_months} months", origin)
    facts.put_money(
        f"savings.{case}.per_engaged_month",
        f"Gross savings per engaged member per month, {words}",
        scenario.savings_per_engaged_month,
        f"{source}: savings / (engaged * months)",
    )
    facts.put_money(
        f"net.{case}.pmpm",
        f"Net result per member per month over all members, {words}",
        model.net_pmpm(case),
        f"{source}: net / (members * months)",
    )
