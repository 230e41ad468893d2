"""The facts of a prospect's population: its members, what they cost, what they have, and who of them qualifies."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Final

from agent_runner.collecting import Reports
from agent_runner.conditions import Ranked, condition_name, conditions
from agent_runner.facts import CARE, Facts, Source, month_name, tenths
from triton_common.schemas import CodePattern, CohortPart, CostCategory, SummaryReport

TOP: Final = 5  # conditions a text can name without becoming a list
YEAR: Final = 12

SUMMARY: Final = partial(Source, "summary report", "summary")
TREND: Final = partial(Source, "cost trend report", "cost_trend")
COHORT: Final = partial(Source, "cohort report", "cohort")
RECENT: Final = partial(Source, "cohort report, last months", "cohort_recent")
CLOCK: Final = partial(Source, "the day the document was made", None)


def put_population(facts: Facts, reports: Reports, *, eligibility: Sequence[CodePattern], today: date) -> None:
    """All of them."""
    _summary(facts, reports.summary)
    _period(facts, reports.summary, today)
    _trend(facts, reports)
    for order, report in (("prevalence", reports.by_prevalence), ("cost", reports.by_cost)):
        _conditions(facts, order, conditions(report.rows, eligibility), reports)
    _cohort(facts, reports)
    _recent(facts, reports)


def _summary(facts: Facts, summary: SummaryReport) -> None:
    facts.put("members", "Members in the data", summary.members, "members", SUMMARY("members"))
    facts.put("member_months", "Member months", summary.member_months, "months", SUMMARY("member_months"))
    facts.put_money("total_paid", "Total cost, paid by plan and members", summary.total_paid, SUMMARY("total_paid"))
    facts.put_money("plan_paid", "Paid by the plan", summary.plan_paid, SUMMARY("plan_paid"))
    facts.put_money("member_paid", "Paid by members", summary.member_paid, SUMMARY("member_paid"))
    facts.put_money("medical_paid", "Medical cost", summary.medical_paid, SUMMARY("medical_paid"))
    if summary.pharmacy_source != "none":
        facts.put_money("pharmacy_paid", "Pharmacy cost", summary.pharmacy_paid, SUMMARY("pharmacy_paid"))
    facts.put_money("pmpm", "Cost per member per month", summary.pmpm, SUMMARY("total_paid / member_months"))
    facts.put("claims", "Claims", summary.claims, "claims", SUMMARY("claims"))
    facts.put("encounters", "Encounters", summary.encounters, "encounters", SUMMARY("encounters"))
    facts.put("fills", "Pharmacy fills", summary.fills, "fills", SUMMARY("fills"))
    paid = summary.paid_by_category
    _by_category(facts, "cost", whole="total cost", paid=paid, total=summary.total_paid, source=SUMMARY(""))


def _by_category(
    facts: Facts, key: str, *, whole: str, paid: dict[CostCategory, Decimal], total: Decimal, source: Source
) -> None:
    """Kinds of care that cost anything, the costliest first."""
    for category, amount in sorted(paid.items(), key=lambda item: -item[1]):
        if amount and category is not CostCategory.TOTAL:
            field = f"paid_by_category.{category}"
            facts.put_money(f"{key}.{category}", f"Cost of {CARE[category]}, in {whole}", amount, source.of(field))
            label, formula = f"Share of {CARE[category]} in {whole}", f"{field} / total_paid"
            facts.put_share(f"{key}.{category}.share", label, amount, total, source.of(formula))


def _period(facts: Facts, summary: SummaryReport, today: date) -> None:
    if not (summary.first_month and summary.last_month):
        return
    first, last = summary.first_month, summary.last_month
    for key, label, day in (
        ("first_month", "First month of the data", first),
        ("last_month", "Last month of it", last),
    ):
        facts.put_text(key, label, month_name(day), SUMMARY(key), unit="month")
    span = SUMMARY("last_month - first_month + 1")
    facts.put("months_of_data", "Calendar months the data spans", _months(first, last) + 1, "months", span)
    age = CLOCK("its month - last_month")
    facts.put("data_age_months", "Months from the data's end to this document", _months(last, today), "months", age)


def _months(earlier: date, later: date) -> int:
    return YEAR * (later.year - earlier.year) + later.month - earlier.month


def _trend(facts: Facts, reports: Reports) -> None:
    """Cost per member per month of the last twelve months against the twelve before."""
    rows = reports.trend.rows[-2 * YEAR :]
    earlier, recent = rows[:-YEAR], rows[-YEAR:]
    if len(rows) < 2 * YEAR or not all(sum(row.members for row in year) for year in (earlier, recent)):
        return
    for key, label, year, which in (
        ("trend.earlier", "the year before the last of the data", earlier, "before the last"),
        ("trend.recent", "the last twelve months of the data", recent, "at the end"),
    ):
        pmpm = sum((row.total_paid for row in year), Decimal(0)) / sum(row.members for row in year)
        source = TREND(f"sum of total_paid / sum of members, twelve rows {which}")
        facts.put_money(key, f"Cost per member per month, {label}", pmpm, source)
    months = f"{month_name(recent[0].month)} to {month_name(recent[-1].month)}"
    facts.put_text("trend.period", "The months of trend.recent", months, TREND("month of the last twelve rows"))


def _conditions(facts: Facts, order: str, ranked: list[Ranked], reports: Reports) -> None:
    report = f"conditions_by_{order}"
    for rank, (place, row) in enumerate(ranked[:TOP], start=1):
        key, label = f"condition.{order}.{rank}", f"Condition {rank} by {order}"
        source = Source(f"conditions report, order {order}", report, f"row {place}")
        facts.put_text(key, label, condition_name(row), source.of(f"row {place}: description"))
        of_members = source.of(f"row {place}: members")
        facts.put(f"{key}.members", f"{label}: members with it", row.members, "members", of_members)
        share = source.of(f"row {place}: members / members of the summary report")
        facts.put_share(f"{key}.share", f"{label}: share of all members", row.members, reports.summary.members, share)
        paid = source.of(f"row {place}: total_paid")
        facts.put_money(f"{key}.paid", f"{label}: all cost of these members", row.total_paid, paid)


def _cohort(facts: Facts, reports: Reports) -> None:
    cohort, rest = reports.cohort.cohort, reports.cohort.rest
    label, source = "Members who qualify for the programme", COHORT("cohort.members")
    facts.put("cohort.members", label, cohort.members, "members", source)
    both = COHORT("cohort.members / (cohort.members + rest.members)")
    everyone = cohort.members + rest.members
    facts.put_share("cohort.share", "Share of members who qualify", cohort.members, everyone, both)
    if not cohort.members:
        return
    _part(facts, "cohort", "qualifying members", cohort)
    if rest.members:
        _part(facts, "rest", "all other members", rest)
    facts.put_share(
        "cohort.cost_share",
        "Share of qualifying members in total cost",
        cohort.total_paid,
        cohort.total_paid + rest.total_paid,
        COHORT("cohort.total_paid / (cohort.total_paid + rest.total_paid)"),
    )
    if rest.pmpm and cohort.pmpm:
        label = "Cost per qualifying member per month, against all other members'"
        source = COHORT("cohort.pmpm / rest.pmpm")
        facts.put("cohort.multiple", label, tenths(cohort.pmpm / rest.pmpm), "times", source)
    whose, paid = "the cost of qualifying members", cohort.paid_by_category
    _by_category(facts, "cohort.cost", whole=whose, paid=paid, total=cohort.total_paid, source=COHORT(""))


def _part(facts: Facts, key: str, who: str, part: CohortPart) -> None:
    if key != "cohort":
        facts.put(f"{key}.members", f"Members: {who}", part.members, "members", COHORT(f"{key}.members"))
    months = COHORT(f"{key}.member_months")
    facts.put(f"{key}.member_months", f"Member months of {who}", part.member_months, "months", months)
    facts.put_money(f"{key}.total_paid", f"Total cost of {who}", part.total_paid, COHORT(f"{key}.total_paid"))
    pmpm = COHORT(f"{key}.total_paid / {key}.member_months")
    facts.put_money(f"{key}.pmpm", f"Cost per month for each of {who}", part.pmpm, pmpm)


def _recent(facts: Facts, reports: Reports) -> None:
    """The baseline period: the last months of the data, as far as there are so many."""
    recent, starts, ends = reports.recent, reports.recent.first_month, reports.recent.last_month
    if starts and ends:
        starts = max(starts, reports.summary.first_month or starts)
        months = f"{month_name(starts)} to {month_name(ends)}" if starts < ends else month_name(ends)
        label = "The baseline period, which the financial case starts from"
        facts.put_text("baseline.period", label, months, RECENT("first_month to last_month"))
    label, source = "Qualifying members seen in the baseline period", RECENT("cohort.members")
    facts.put("baseline.members", label, recent.cohort.members, "members", source)
    if recent.cohort.members:
        source = RECENT("cohort.total_paid / cohort.member_months")
        facts.put_money("baseline.pmpm", "Cost per month for each of them in it", recent.cohort.pmpm, source)
