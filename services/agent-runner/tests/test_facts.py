"""Facts: their ids, values and how they are shown."""

from datetime import date
from decimal import Decimal

import examples
import pytest

from agent_runner import facts, gathering, value_model
from agent_runner.facts import Facts
from triton_common.schemas import CodePattern, CodeSystem, CostTrendReport


def gathered(*, job=None, **different) -> Facts:
    job, reports = job or examples.job(), examples.reports(**different)
    model = value_model.calculate(reports.cohort, reports.summary, job.value_proposition)
    return gathering.gather(job, reports, model)


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        ("1234567.89", "USD", "$1,234,568"),
        ("412.3", "USD", "$412.30"),
        ("-12.5", "USD", "-$12.50"),
        ("-48000", "EUR", "-€48,000"),
        ("48000", "CHF", "CHF 48,000"),
        ("0", "USD", "$0.00"),
        ("30", "percent", "30%"),
        ("33.33", "percent", "33.3%"),
        ("-66.25", "percent", "-66.2%"),
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
    assert known["net.base"].source == "value model: savings - fees"
    assert known["pmpm"].source == "summary report: total_paid / member_months"
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
    ("step", "key"), [(100, "trend.rise"), (-100, "trend.fall"), (0, None), (100_000, "trend.multiple")]
)
def test_the_trend_compares_two_years(step, key):
    changes = {"trend.rise", "trend.fall", "trend.multiple"} & set(gathered(trend=examples.trend(step=step)))

    assert changes == ({key} if key else set())


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

    assert [row.members for row in gathering.conditions(rows)] == [5, 6, 7]
    assert gathering.conditions(rows[:2]) == rows[:2]  # better odd ones than hardly any


def test_check_ups_are_no_conditions():
    check_up = examples.condition("Encounter for general adult medical examination", 900, "1.00", code="Z00.00")

    assert gathering.conditions([check_up, *examples.CONDITIONS.rows]) == examples.CONDITIONS.rows


def test_codes_that_nothing_names_are_left_out_where_others_have_names():
    unnamed = [
        examples.condition("", 9, "1.00", code="410620009"),
        examples.condition("162673000", 8, "1.00", code="162673000"),
    ]

    assert gathering.conditions([*unnamed, *examples.CONDITIONS.rows]) == examples.CONDITIONS.rows
    assert gathering.conditions(unnamed) == unnamed


def test_a_conditions_name_is_one_line_and_never_empty():
    assert gathering.condition_name(examples.condition("Anemia\n \x07(disorder)", 1, "1.00")) == "Anemia"
    assert gathering.condition_name(examples.condition("", 1, "1.00", code="D64.9")) == "D64.9"
    assert len(gathering.condition_name(examples.condition("a" * 500, 1, "1.00"))) == 120


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
