"""From texts with references to the document: checked as a whole, figures put in, charts drawn from the reports."""

from collections.abc import Callable
from decimal import Decimal
from typing import Final

from agent_runner.checking import AgentOutputUngrounded, Grounding, render
from agent_runner.collecting import Reports, queries
from agent_runner.conditions import Ranked, condition_name, conditions
from agent_runner.facts import CARE, Facts, month_name
from agent_runner.figures import visible
from agent_runner.models import OFFLINE
from agent_runner.value_model import CASES, ValueModel, cents
from agent_runner.writing import Draft
from triton_common.schemas import (
    Chart,
    ChartPoint,
    ClaimedJob,
    ConditionRow,
    DocumentContent,
    FactTable,
    Highlight,
    Section,
    TableRow,
)

SECTIONS: Final = {
    "executive_summary": "Executive summary",
    "population": "Population",
    "cost_drivers": "Cost drivers",
    "programme_fit": "Programme fit",
    "financial_case": "Financial case",
    "assumptions": "Assumptions",
    "risks": "Risks",
    "next_steps": "Next steps",
}
OFFLINE_NOTICE: Final = (
    "No language model wrote this document: its sentences were composed from the figures by fixed rules "
    "(offline:template)."
)
HIGHLIGHTS: Final = (
    ("Members", "members"),
    ("Cost per member per month", "pmpm"),
    ("Members who qualify", "cohort.members"),
    ("Savings, base case", "savings.base"),
    ("Net of fees, base case", "net.base"),
    ("Return on fees, base case", "roi.base"),
)
CASE_ROWS: Final = (
    ("Share of qualifying members who take part", "engagement"),
    ("Members who take part", "engaged"),
    ("Savings", "savings"),
    ("Fees", "fees"),
    ("Net result", "net"),
    ("Return on fees", "roi"),
    ("Fees covered by", "payback_month"),
)
TREND_MONTHS: Final = 36  # older months say little about the next ones
BARS: Final = 10


def check(draft: Draft, grounding: Grounding) -> None:
    """Nothing leaves with a figure that is no fact. Raises AgentOutputUngrounded, with every place."""
    faults = [
        fault
        for key in SECTIONS
        for position, text in enumerate(draft.sections[key])
        for fault in grounding.check(text, place=f"{key}[{position}]")
    ]
    if faults:
        raise AgentOutputUngrounded(faults[0].issue, details=faults)


def assemble(job: ClaimedJob, draft: Draft, facts: Facts, *, reports: Reports, model: ValueModel) -> DocumentContent:
    """The document of a draft that `check` has passed."""
    results = draft.results
    written_by = next(iter(results.values())).model
    return DocumentContent(
        title=visible(f"{job.value_proposition_name} for {job.prospect_name}"),
        model=written_by,
        notice=OFFLINE_NOTICE if written_by == OFFLINE else None,
        currency=facts.currency,
        sections=[
            Section(key=key, title=title, paragraphs=[render(text, facts) for text in draft.sections[key]])
            for key, title in SECTIONS.items()
        ],
        facts=list(facts.values()),
        highlights=[Highlight(label=label, fact=key) for label, key in HIGHLIGHTS if key in facts],
        tables=[_cases(facts)],
        reports=[query for query, _ in queries(job)],
        charts=charts(job, reports, model, currency=facts.currency),
        prompt_versions={name: result.prompt_version for name, result in results.items()},
        input_tokens=sum(result.input_tokens for result in results.values()),
        output_tokens=sum(result.output_tokens for result in results.values()),
    )


def _cases(facts: Facts) -> FactTable:
    """The three cases side by side."""
    horizon = facts["horizon_months"].display
    rows = [TableRow(label=label, facts=[f"{name}.{case}" for case in CASES]) for label, name in CASE_ROWS]
    return FactTable(
        title=f"The three cases over {horizon} months",
        section="financial_case",
        columns=[f"{case.capitalize()} case" for case in CASES],
        rows=[row for row in rows if all(key in facts for key in row.facts)],
    )


def charts(job: ClaimedJob, reports: Reports, model: ValueModel, *, currency: str) -> list[Chart]:
    """Cost trend, top conditions by members and by cost, savings waterfall, cumulative net by month."""
    base, eligibility = model.cases["base"], job.value_proposition.eligibility
    saved = {driver: base.savings_of(driver) for driver in model.baseline}
    waterfall = [(CARE[driver].capitalize(), amount) for driver, amount in saved.items() if amount]
    waterfall += [("Fees", -base.fees), ("Net result", base.net)]
    return [
        Chart(
            key="cost_trend",
            section="population",
            title="Cost per member per month",
            kind="line",
            unit=currency,
            points=[
                ChartPoint(label=month_name(row.month), value=row.pmpm) for row in reports.trend.rows[-TREND_MONTHS:]
            ],
        ),
        Chart(
            key="top_conditions_members",
            section="population",
            title="Most common conditions",
            kind="bar",
            unit="members",
            points=_bars(conditions(reports.by_prevalence.rows, eligibility), lambda row: Decimal(row.members)),
        ),
        Chart(
            key="top_conditions_cost",
            section="cost_drivers",
            title="Conditions whose members cost most",
            kind="bar",
            unit=currency,
            points=_bars(conditions(reports.by_cost.rows, eligibility), lambda row: row.total_paid),
        ),
        Chart(
            key="savings_waterfall",
            section="financial_case",
            title=f"From savings to net result in {model.horizon_months} months, base case",
            kind="waterfall",
            unit=currency,
            points=[ChartPoint(label=label, value=cents(value)) for label, value in waterfall],
        ),
        Chart(
            key="cumulative_net",
            section="financial_case",
            title="Net result so far by month, base case",
            kind="line",
            unit=currency,
            points=[ChartPoint(label=str(month), value=net) for month, net in enumerate(base.cumulative_net)],
        ),
    ]


def _bars(ranked: list[Ranked], value: Callable[[ConditionRow], Decimal]) -> list[ChartPoint]:
    return [ChartPoint(label=condition_name(row), value=value(row)) for _, row in ranked[:BARS]]
