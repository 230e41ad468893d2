"""Facts: their ids, values and how they are shown."""

from datetime import date
from decimal import Decimal

import examples
import pytest

from agent_runner import collecting, facts, gathering, value_model
from agent_runner.comparisons import compared
from agent_runner.conditions import condition_name, conditions
from agent_runner.facts import Facts
from triton_common.schemas import CodePattern, CodeSystem, ConditionsReport, CostCategory, CostTrendReport


def gathered(*, job=None, **different) -> Facts:
    job, reports = job or examples.job(), examples.reports(**different)
    model = value_model.calculate(reports.recent, job.value_proposition)
    return gathering.gather(job, reports, model, today=examples.TODAY)


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        ("1234567.89", "USD", "$1,234,568"),
        ("412.3", "USD", "$412.30"),
        ("-12.5", "USD", "\N{MINUS SIGN}$12.50"),
        ("-48000", "EUR", "\N{MINUS SIGN}€48,000"),
        ("48000", "CHF", "CHF 48,000"),
        ("0", "USD", "$0.00"),
        ("30", "percent", "30%"),
        ("33.33", "percent", "33.3%"),
        ("-66.25", "percent", "\N{MINUS SIGN}66.2%"),
        ("2.35", "times", "2.4 times"),
        ("27", "members", "27"),
        ("12000", "claims", "12,000"),
        ("4.25", "members", "4.2"),
        ("412.25", "members", "412"),
        ("7", "month number", "month 7"),
    ],
)
def test_numbers_are_shown_by_their_unit(value, unit, shown):
    assert facts.display(Decimal(value), unit) == shown


def test_the_facts_that_others_rely_on():
    known = gathered()

    assert {
        key: known[key].display for key in ("members", "member_months", "total_paid", "pmpm", "cohort.members")
    } == {
        "members": "1,000",
        "member_months": "24,000",
        "total_paid": "$12,000,000",
        "pmpm": "$500.00",
        "cohort.members": "100",
    }
    assert known["savings.base.year1"].display == "$37,800"
    assert known["net.base.year1"].display == "$27,200"
    assert known["roi.base"].display == "316.8%"
    assert known["payback_month.base"].display == "month 3"
    assert known["payback_month.base"].value == 3
    assert known["net.base"].source == "value model: savings.base - fees.base"
    assert known["net.base"].report is None
    assert known["pmpm"].source == "summary report: total_paid / member_months"
    assert (known["pmpm"].formula, known["pmpm"].report) == ("total_paid / member_months", "summary")
    assert known["data_age_months"].value == 2
    assert known["cohort.cost_share"].display == "30%"
    assert known["cohort.multiple"].value == Decimal("3.9")


def test_every_fact_is_labelled_and_has_a_source():
    for key, fact in gathered().items():
        assert fact.id == key
        assert fact.label
        assert fact.source
        assert fact.display


def test_a_year_of_data_has_no_trend():
    assert not [key for key in gathered(trend=examples.trend(12)) if key.startswith("trend.")]


@pytest.mark.parametrize(
    ("step", "compared"),
    [(100, "3% more than"), (-100, "3% less than"), (0, "as much as"), (100_000, "3 times as much as")],
)
def test_the_trend_compares_two_years(step, compared):
    known = gathered(trend=examples.trend(step=step))

    assert known["compare.trend"].value == compared
    assert known["compare.trend"].formula == "trend.recent against trend.earlier"
    assert known["trend.period"].display == "January 2024 to December 2024"


def test_months_without_members_have_no_trend():
    rows = [row.model_copy(update={"members": 0}) for row in examples.trend().rows]

    assert "trend.recent" not in gathered(trend=CostTrendReport(rows=rows))


def test_findings_of_snomed_are_no_conditions():
    rows = [
        examples.condition("Full-time employment (finding)", 900, "1.00"),
        examples.condition("Anemia (disorder)", 5, "1.00"),
        examples.condition("Hypertension", 6, "1.00"),
        examples.condition("Essential (primary) hypertension", 7, "1.00"),
    ]

    assert [(place, row.members) for place, row in conditions(rows)] == [(2, 5), (3, 6), (4, 7)]
    assert [row for _, row in conditions(rows[:2])] == rows[:2]  # better odd ones than hardly any


@pytest.mark.parametrize(
    ("system", "pattern", "code"),
    [("snomed", "162864005", "162864005"), ("icd10cm", "Z68*", "Z68.35"), ("icd10cm", "Z6835", "Z68.35")],
)
def test_what_the_programme_is_for_is_a_condition_whatever_its_kind(system, pattern, code):
    finding = examples.condition("Body mass index 30+ - obesity (finding)", 900, "1.00", code=code)
    rows = [finding.model_copy(update={"code_system": system}), *examples.CONDITIONS.rows]

    kept = conditions(rows, [CodePattern(system=CodeSystem(system), code=pattern)])

    assert [place for place, _ in kept] == [1, 2, 3, 4]
    assert condition_name(kept[0].row) == "Body mass index 30+ - obesity"
    assert [place for place, _ in conditions(rows, [CodePattern(system=CodeSystem(system), code="E11*")])] == [2, 3, 4]


def test_a_conditions_facts_name_the_row_that_the_report_has_it_in():
    rows = [examples.condition("Employed (finding)", 900, "9000000.00", code="E1"), *examples.CONDITIONS.rows]
    known = gathered(by_prevalence=ConditionsReport(rows=rows))

    fact = known["condition.prevalence.1.members"]
    assert (fact.value, fact.formula, fact.report) == (300, "row 2: members", "conditions_by_prevalence")


def test_every_report_that_a_fact_names_was_asked():
    asked = {query.id for query, _ in collecting.queries(examples.job())}

    assert {fact.report for fact in gathered().values()} == {None, *asked}


def test_the_reports_asked_are_the_jobs_prospects_alone():
    job = examples.job()

    for query, _ in collecting.queries(job):
        assert query.path.startswith(f"/api/v1/analytics/prospects/{job.prospect_id}/reports/")


def test_check_ups_are_no_conditions():
    check_up = examples.condition("Encounter for general adult medical examination", 900, "1.00", code="Z00.00")

    assert [row for _, row in conditions([check_up, *examples.CONDITIONS.rows])] == examples.CONDITIONS.rows


def test_codes_that_nothing_names_are_left_out_where_others_have_names():
    unnamed = [
        examples.condition("", 9, "1.00", code="410620009"),
        examples.condition("162673000", 8, "1.00", code="162673000"),
    ]

    assert [row for _, row in conditions([*unnamed, *examples.CONDITIONS.rows])] == examples.CONDITIONS.rows
    assert [row for _, row in conditions(unnamed)] == unnamed


def test_a_conditions_name_is_one_line_and_never_empty():
    assert condition_name(examples.condition("Anemia\n \x07(disorder)", 1, "1.00")) == "Anemia"
    assert condition_name(examples.condition("", 1, "1.00", code="D64.9")) == "D64.9"
    assert len(condition_name(examples.condition("a" * 500, 1, "1.00"))) == 120


def test_a_long_list_of_codes_is_cut():
    codes = [CodePattern(system=CodeSystem.ICD10CM, code=f"E{number}") for number in range(10, 25)]
    known = gathered(job=examples.job(value_proposition=examples.terms(eligibility=codes)))

    assert known["programme.codes"].display.endswith("E19 and others")


def test_data_without_months_has_no_period():
    known = gathered(summary=examples.summary(first_month=None, last_month=None))

    assert "first_month" not in known
    assert "months_of_data" not in known


def test_the_period_is_counted_with_both_its_ends():
    known = gathered(summary=examples.summary(first_month=date(2023, 12, 1), last_month=date(2024, 1, 1)))

    assert known["months_of_data"].value == 2
    assert known["first_month"].display == "December 2023"


def test_a_cohort_of_everybody_has_no_rest():
    everybody = examples.cohort(rest=examples.part(0, 0, "0.00"))

    assert "rest.pmpm" not in gathered(cohort=everybody)
    assert "cohort.multiple" not in gathered(cohort=everybody)


def test_a_name_is_no_number():
    with pytest.raises(TypeError):
        gathered().number("prospect")


@pytest.mark.parametrize(
    ("value", "other", "words"),
    [
        ("200", "100", "twice as much as"),
        ("201", "100", "about twice as much as"),
        ("194", "100", "94% more than"),
        ("194.9", "100", "94.9% more than"),
        ("390", "100", "3.9 times as much as"),
        ("112.5", "100", "12.5% more than"),
        ("100", "100", "as much as"),
        ("100.01", "100", "about as much as"),
        ("50", "100", "50% less than"),
    ],
)
def test_figures_are_compared_in_words(value, other, words):
    assert compared(Decimal(value), Decimal(other)) == words


def test_the_first_of_several_is_told_in_a_clause():
    known = gathered()

    assert known["largest.cost"].display == "Inpatient care is the largest part of the cost"
    assert known["largest.savings.base"].display == "Inpatient care is more than half of the savings"
    assert known["largest.condition.prevalence"].display == "Essential hypertension is the most common condition"


def test_where_two_are_first_nothing_is_the_largest():
    tied = examples.condition("Anemia", 300, "4000000.00", code="D64")
    rows = ConditionsReport(rows=[tied, *examples.CONDITIONS.rows])
    halves = {CostCategory.INPATIENT: Decimal("0.5"), CostCategory.PHARMACY: Decimal("0.5")}
    cohort = examples.cohort(cohort=examples.part(100, 2400, "3600000.00", halves))
    known = gathered(by_prevalence=rows, by_cost=rows, cohort=cohort)

    assert not [key for key in known if key.startswith("largest.condition")]
    assert "largest.cohort.cost" not in known
    assert "largest.cost" in known


def test_a_comparison_with_nothing_is_none():
    known = gathered(cohort=examples.cohort(cohort=examples.part(100, 2400, "0.00")))

    assert "compare.cohort_rest" not in known


def test_the_baseline_is_the_datas_last_year_as_far_as_there_is_one():
    short = gathered(summary=examples.summary(first_month=date(2024, 10, 1)))
    one = gathered(recent=examples.recent(first_month=date(2024, 12, 1)))

    assert gathered()["baseline.period"].display == "January 2024 to December 2024"
    assert short["baseline.period"].display == "October 2024 to December 2024"
    assert one["baseline.period"].display == "December 2024"
    assert gathered()["effect.inpatient.baseline"].report == "cohort_recent"


def test_names_lose_what_cannot_be_seen():
    job = examples.job(prospect_name="Ac\u202eme\u200b He\x07alth\n\u2066Ltd\ufeff")
    known = gathered(job=job)

    assert known["prospect"].display == "Acme Health Ltd"
