"""The arithmetic: known values, and what must hold for all values."""

from decimal import Decimal
from itertools import pairwise

import examples
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runner.value_model import CASES, CurrencyMismatch, ValueModel, calculate, cents, ramp
from triton_common.schemas import CostCategory, Effect, Fees, Range, ValuePropositionContent

ZERO = Decimal(0)
NOBODY = examples.part(0, 0, "0.00")

shares = st.decimals(min_value=0, max_value=1, places=3)
amounts = st.decimals(min_value=0, max_value=10**7, places=2)
prices = st.decimals(min_value=0, max_value=1000, places=2)
ranges = st.lists(shares, min_size=3, max_size=3).map(sorted).map(lambda s: Range(low=s[0], base=s[1], high=s[2]))
drivers = st.lists(
    st.sampled_from([driver for driver in CostCategory if driver is not CostCategory.TOTAL]), min_size=1, unique=True
) | st.just([CostCategory.TOTAL])
cohorts = st.builds(
    examples.cohort,
    cohort=st.builds(
        lambda members, months, total: examples.part(members, members * months, str(total)),
        st.integers(0, 5000),
        st.integers(1, 60),
        amounts,
    ),
)


@st.composite
def propositions(draw: st.DrawFn) -> ValuePropositionContent:
    return examples.terms(
        engagement=draw(ranges),
        effects=[Effect(driver=driver, reduction=draw(ranges), evidence="A study") for driver in draw(drivers)],
        fees=Fees(per_engaged_member_per_month=draw(prices), one_time=draw(amounts)),
        ramp_up_months=draw(st.integers(0, 24)),
    )


def with_reduction(terms: ValuePropositionContent, change) -> ValuePropositionContent:
    effects = [
        effect.model_copy(
            update={
                "reduction": Range(
                    low=change(effect.reduction.low),
                    base=change(effect.reduction.base),
                    high=change(effect.reduction.high),
                )
            }
        )
        for effect in terms.effects
    ]
    return terms.model_copy(update={"effects": effects})


def value(cohort, terms, **options) -> ValueModel:
    return calculate(cohort, terms, **options)


def test_known_values_by_hand():
    # 100 eligible, 40 engaged. Inpatient care costs 3.6 M * 0.4 / 2400 months = 600 a month; 10 % of it for 40 members
    # are 2400. Emergency care: 20 % of 150 for 40 are 1200. Of these 3600, the first three months have 1/6, 3/6, 5/6.
    # Fees are 40 * 20 = 800.
    model = value(examples.cohort(), examples.terms())
    base = model.cases["base"]

    assert base.engaged == 40
    assert model.baseline == {CostCategory.INPATIENT: 600, CostCategory.EMERGENCY: 150}
    assert [month.gross for month in base.months[:4]] == [600, 1800, 3000, 3600]
    assert base.savings == 600 + 1800 + 3000 + 33 * 3600
    assert base.savings_of(CostCategory.EMERGENCY) * 2 == base.savings_of(CostCategory.INPATIENT)
    assert base.fees == 1000 + 36 * 800
    assert base.net == 124_200 - 29_800
    assert base.roi is not None
    assert round(base.roi, 4) == Decimal("3.1678")
    assert base.year(1) == (600 + 1800 + 3000 + 9 * 3600, 1000 + 12 * 800, 37_800 - 10_600)
    # -1000, then -200, +1000, +2200: behind by 1200 after a month, by 200 after two, ahead after three
    assert base.cumulative_net[:4] == (-1000, -1200, -200, 2000)
    assert base.payback_month == 3
    assert base.savings_per_engaged_month == cents(Decimal(124_200) / (40 * 36))
    assert model.net_pmpm("base") == cents(Decimal(94_400) / (1000 * 36))


def test_the_effect_on_total_cost_is_taken_from_the_total():
    terms = examples.terms(
        effects=[Effect(driver=CostCategory.TOTAL, reduction=examples.spread("0.1", "0.1", "0.1"), evidence="A study")],
        ramp_up_months=0,
    )

    assert value(examples.cohort(), terms).cases["base"].months[0].gross == 40 * 1500 * Decimal("0.1")


def test_the_effect_grows_evenly():
    assert [ramp(month, months=2) for month in (1, 2, 3)] == [Decimal("0.25"), Decimal("0.75"), 1]
    assert ramp(1, months=0) == 1


def test_nobody_eligible_leaves_the_one_time_fee():
    for scenario in value(examples.nobody(), examples.terms()).cases.values():
        assert (scenario.savings, scenario.net) == (0, Decimal("-1000.00"))
        assert scenario.payback_month is None
        assert scenario.savings_per_engaged_month == 0


def test_nothing_saved_and_nothing_paid_is_no_payback():
    free = examples.terms(fees=Fees(per_engaged_member_per_month=ZERO, one_time=ZERO))
    base = value(examples.nobody(), free).cases["base"]

    assert base.payback_month is None
    assert base.roi is None


def test_another_currency_is_refused():
    with pytest.raises(CurrencyMismatch):
        value(examples.cohort(), examples.terms(currency="EUR"))


def test_nobody_at_all_has_no_cost_a_member():
    model = value(examples.cohort(cohort=NOBODY, rest=NOBODY), examples.terms())

    assert model.net_pmpm("base") == 0


@given(cohorts, propositions(), st.sampled_from([24, 36]))
def test_totals_are_the_sums_of_their_parts(cohort, terms, horizon):
    model = value(cohort, terms, horizon_months=horizon)

    for scenario in model.cases.values():
        years = [scenario.year(number) for number in range(1, horizon // 12 + 1)]
        assert scenario.savings == sum(scenario.savings_of(driver) for driver in model.baseline)
        assert scenario.savings == sum(savings for savings, _, _ in years)
        assert scenario.fees == sum(fees for _, fees, _ in years)
        assert scenario.net == sum(net for _, _, net in years) == scenario.cumulative_net[-1]
        assert scenario.net == scenario.savings - scenario.fees
        assert len(scenario.cumulative_net) == horizon + 1


@given(cohorts, propositions())
def test_without_effect_the_result_is_minus_the_fees(cohort, terms):
    for scenario in value(cohort, with_reduction(terms, lambda _: ZERO)).cases.values():
        assert scenario.savings == 0
        assert scenario.net == -scenario.fees
        assert scenario.payback_month is None


@given(cohorts, propositions(), shares)
def test_a_larger_effect_never_saves_less(cohort, terms, more):
    before = value(cohort, terms)
    after = value(cohort, with_reduction(terms, lambda reduction: reduction + (1 - reduction) * more))

    for case in CASES:
        assert after.cases[case].savings >= before.cases[case].savings
        assert after.cases[case].net >= before.cases[case].net
        assert after.cases[case].fees == before.cases[case].fees


@given(cohorts, propositions())
def test_a_better_case_never_saves_less(cohort, terms):
    low, base, high = (value(cohort, terms).cases[case] for case in CASES)

    assert low.savings <= base.savings <= high.savings
    assert low.engaged <= base.engaged <= high.engaged
    assert low.fees <= base.fees <= high.fees


@given(cohorts, propositions())
def test_a_better_case_never_returns_less_on_its_fees(cohort, terms):
    """But for cents: each month's savings and fees are rounded."""
    cases = [value(cohort, terms).cases[case] for case in CASES]

    for worse, better in pairwise(case for case in cases if case.roi is not None):
        assert worse.savings * better.fees <= better.savings * worse.fees + worse.fees + better.fees


@given(cohorts, propositions(), prices)
def test_a_higher_fee_never_leaves_more(cohort, terms, more):
    fees = terms.fees.model_copy(
        update={"per_engaged_member_per_month": terms.fees.per_engaged_member_per_month + more}
    )
    before, after = value(cohort, terms), value(cohort, terms.model_copy(update={"fees": fees}))

    for case in CASES:
        assert after.cases[case].savings == before.cases[case].savings
        assert after.cases[case].net <= before.cases[case].net


@given(cohorts, propositions())
def test_after_the_payback_month_the_result_stays_ahead(cohort, terms):
    for scenario in value(cohort, terms).cases.values():
        month = scenario.payback_month
        if month is None:
            assert scenario.net < 0 or not scenario.savings
        else:
            assert all(net >= 0 for net in scenario.cumulative_net[month:])
            assert month == 1 or scenario.cumulative_net[month - 1] < 0


@given(cohorts, propositions())
def test_a_longer_horizon_begins_with_the_shorter_one(cohort, terms):
    shorter, longer = (value(cohort, terms, horizon_months=months) for months in (24, 36))

    for case in CASES:
        assert longer.cases[case].months[:24] == shorter.cases[case].months
