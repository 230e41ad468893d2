"""The offline texts: in every situation complete, grounded, and plain about what the data says."""

from decimal import Decimal

import examples
import pytest
from hypothesis import given
from test_value_model import cohorts, propositions

from agent_runner import document, gathering, value_model, writing
from agent_runner.checking import Grounding
from agent_runner.desk import Desk
from agent_runner.models import Models
from agent_runner.settings import Settings
from triton_common.schemas import CostCategory, DocumentContent, Effect, Fees

DEAR = examples.terms(fees=Fees(per_engaged_member_per_month=Decimal("900.00"), one_time=Decimal("1000.00")))
FREE = examples.terms(fees=Fees(per_engaged_member_per_month=Decimal(0), one_time=Decimal(0)), ramp_up_months=0)


def written(terms=None, **different) -> DocumentContent:
    job, reports = examples.job(value_proposition=terms), examples.reports(**different)
    model = value_model.calculate(reports.cohort, reports.summary, job.value_proposition)
    known = gathering.gather(job, reports, model)
    grounding = Grounding.of(job, known)
    settings = Settings()
    draft = writing.write(
        job, known, grounding, desk=Desk(settings=settings, models=Models(settings)), written=lambda _: None
    )
    document.check(draft, grounding)
    return document.assemble(job, draft, known, reports=reports, model=model)


def text(content: DocumentContent, *keys: str) -> str:
    return "\n".join(
        paragraph.text
        for section in content.sections
        if not keys or section.key in keys
        for paragraph in section.paragraphs
    )


def test_a_good_offer_reads_well():
    summary = text(written(), "executive_summary")

    assert summary == (
        "Glucare offers Diabetes 360 to Acme Health. The data describes 1,000 members, whose care cost $12,000,000, or "
        "$500.00 per member per month.\n"
        "100 members (10% of all) qualify for the programme. They account for 30% of all cost.\n"
        "In the base case, 40 members would take part, and the programme would save $124,200 in 36 months for fees of "
        "$29,800. That leaves $94,400 net, a return of 316.8% on the fees. Savings have covered all fees by month 3.\n"
        "The net result is $15,650 in the low case and $234,688 in the high case."
    )


def test_every_paragraph_carries_its_facts():
    content = written()
    known = {fact.id: fact.display for fact in content.facts}

    for section in content.sections:
        assert section.paragraphs
        for paragraph in section.paragraphs:
            assert "{{" not in paragraph.text
            for key in paragraph.facts:
                assert known[key] in paragraph.text


def test_no_eligible_member_is_said_plainly():
    content = written(cohort=examples.nobody())

    assert "shows no member who qualifies" in text(content, "executive_summary")
    assert "the net result is -$1,000" in text(content, "executive_summary")
    assert "savings are $0.00 in the low, the base and the high case alike" in text(content, "financial_case")
    assert "is not the right offer" in text(content, "next_steps")


def test_no_eligible_member_and_no_fixed_fee_costs_nothing():
    assert "it would cost nothing: the net result is $0.00" in text(written(FREE, cohort=examples.nobody()))


def test_a_negative_net_is_said_plainly():
    content = written(DEAR)

    assert "The programme costs more than it saves." in text(content, "executive_summary")
    assert "costs more than it saves" in text(content, "financial_case")
    assert "The fees are not recovered in that time." in text(content, "financial_case")
    assert "does not pay for itself" in text(content, "next_steps")


def test_a_negative_low_case_is_a_risk():
    fees = Fees(per_engaged_member_per_month=Decimal("60.00"), one_time=Decimal("1000.00"))

    assert "In the low case the programme costs more than it saves" in text(written(examples.terms(fees=fees)), "risks")


def test_no_pharmacy_data_is_said_wherever_it_matters():
    effect = Effect(
        driver=CostCategory.PHARMACY, reduction=examples.spread("0.1", "0.1", "0.1"), evidence="An earlier client"
    )
    shares = {category: share for category, share in examples.SHARES.items() if category is not CostCategory.PHARMACY}
    without = examples.cohort(cohort=examples.part(100, 2400, "3600000.00", shares))
    content = written(examples.terms(effects=[effect]), summary=examples.NO_PHARMACY, cohort=without)

    assert "holds no pharmacy cost" in text(content, "cost_drivers")
    assert "The effect on pharmacy is therefore counted as nothing." in text(content, "risks")
    assert "Ask Acme Health for its pharmacy data" in text(content, "next_steps")
    assert "pharmacy_paid" not in {fact.id for fact in content.facts}


def test_one_member_is_not_members():
    content = written(
        summary=examples.summary(members=1, member_months=1),
        cohort=examples.cohort(cohort=examples.part(1, 1, "10.00"), rest=examples.part(0, 0, "0.00")),
    )

    assert "1 member (100% of all) qualifies for the programme." in text(content)
    assert "1 member over 1 member month" in text(content)
    assert "about 0.4 members would take part" in text(content)
    assert "1 qualifying member. In a group this small" in text(content, "risks")


def test_little_is_said_of_little_data():
    content = written(
        FREE,
        summary=examples.summary(first_month=None, last_month=None, paid_by_category={}),
        trend=examples.trend(3),
        by_prevalence=examples.NO_CONDITIONS,
        by_cost=examples.NO_CONDITIONS,
        cohort=examples.cohort(cohort=examples.part(100, 2400, "0.00"), rest=examples.part(900, 100, "5.00")),
    )

    assert "conditions" not in text(content, "population")
    assert "By kind of care" not in text(content)
    assert "The full effect is there from the start." in text(content, "assumptions")


def test_a_steady_cost_neither_rises_nor_falls():
    assert "against $400.00 in the year before." in text(written(trend=examples.trend(step=0)), "population")


def test_a_cost_that_multiplies_is_told_as_a_multiple():
    assert "times as much." in text(written(trend=examples.trend(step=100_000)), "population")


def test_short_data_is_a_risk():
    summary = examples.summary(first_month=examples.date(2024, 10, 1))

    assert "less than a year" in text(written(summary=summary), "risks")


def test_the_charts_hold_what_the_reports_and_the_model_say():
    charts = {chart.key: chart for chart in written(trend=examples.trend(40)).charts}

    assert list(charts) == [
        *("cost_trend", "top_conditions_members", "top_conditions_cost"),
        *("savings_waterfall", "cumulative_net"),
    ]
    assert len(charts["cost_trend"].points) == 36
    assert [point.label for point in charts["top_conditions_members"].points][:2] == [
        "Essential hypertension",
        "Type 2 diabetes mellitus",
    ]
    waterfall = charts["savings_waterfall"].points
    assert [point.label for point in waterfall] == ["Inpatient care", "Emergency care", "Fees", "Net result"]
    assert sum(point.value for point in waterfall[:-1]) == waterfall[-1].value
    assert len(charts["cumulative_net"].points) == 37
    assert charts["cumulative_net"].points[-1].value == waterfall[-1].value


@pytest.mark.parametrize("summary", [examples.summary(), examples.NO_PHARMACY])
@given(cohort=cohorts, terms=propositions())
def test_every_document_is_complete_and_grounded(cohort, terms, summary):
    content = written(terms, cohort=cohort, summary=summary)

    assert all(section.paragraphs for section in content.sections)
    assert "{{" not in text(content)
    assert DocumentContent.model_validate_json(content.model_dump_json()).title == content.title
