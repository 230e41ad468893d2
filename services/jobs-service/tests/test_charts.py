"""Charts' geometry."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs_service import charts
from triton_common.schemas import Chart, ChartPoint

VALUES = st.lists(st.decimals(min_value=-(10**12), max_value=10**12, places=2), min_size=1, max_size=60)


def chart(values, kind="bar", unit="USD"):
    points = [ChartPoint(label=f"point {number}", value=value) for number, value in enumerate(values)]
    return Chart(key="k", title="t", kind=kind, unit=unit, points=points)


@given(VALUES)
def test_bars_stay_inside_the_picture(values):
    drawn = charts.bars(chart(values))
    assert len(drawn.bars) == len(values)
    for bar, value in zip(drawn.bars, values, strict=True):
        assert bar.x + 0.2 >= charts.LABELS
        assert bar.x + bar.width <= charts.WIDTH - charts.VALUES + 1.2
        assert bar.y + 20 <= drawn.height
        assert (bar.x >= drawn.zero) == (value >= 0) or abs(bar.x - drawn.zero) <= 1
    widest = max(range(len(values)), key=lambda number: abs(values[number]))
    assert drawn.bars[widest].width == max(bar.width for bar in drawn.bars)


def test_a_waterfall_goes_on_where_the_last_bar_ended():
    drawn = charts.bars(chart([100, 50, -60, 90], "waterfall")).bars
    first, second, loss, total = drawn
    assert second.x == pytest.approx(first.x + first.width, abs=0.2)
    assert loss.x + loss.width == pytest.approx(second.x + second.width, abs=0.2)
    assert (total.x, total.x + total.width) == pytest.approx((first.x, loss.x), abs=0.2)
    assert [bar.tone for bar in drawn] == ["gain", "gain", "loss", "total"]
    assert {bar.anchor for bar in drawn} == {"start"}


@given(VALUES)
def test_a_waterfall_stays_inside_the_picture(values):
    drawn = charts.bars(chart([*values, sum(values)], "waterfall"))
    for bar in drawn.bars:
        assert bar.x + 0.2 >= charts.LABELS
        assert bar.x + bar.width <= charts.WIDTH - charts.VALUES + 1.2


@given(VALUES)
def test_lines_stay_inside_the_picture_and_between_their_ticks(values):
    drawn = charts.line(chart(values, "line"))
    assert len(drawn.dots) == len(values)
    assert 2 <= len(drawn.ticks) <= 8
    assert len(drawn.labels) <= 7
    for x, y, _ in drawn.dots:
        assert charts.MARGIN <= x <= charts.WIDTH
        assert drawn.ticks[-1].at - 0.2 <= y <= drawn.ticks[0].at + 0.2
        assert 0 <= y <= drawn.height


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        ("0", "USD", "$0"),
        ("12.5", "USD", "$12.5"),
        ("12.346", "percent", "12.35 %"),
        ("999.5", "members", "1,000"),
        ("9999", "USD", "$9,999"),
        ("12500", "USD", "$12.5k"),
        ("1103503.95", "USD", "$1.1M"),
        ("2000000000", "USD", "$2B"),
        ("-420", "USD", "\N{MINUS SIGN}$420"),
        ("-12500", "EUR", "\N{MINUS SIGN}12.5k EUR"),
        ("7", "per 1000", "7"),
    ],
)
def test_amounts_are_short(value, unit, shown):
    assert charts.amount(Decimal(value), unit) == shown


def test_long_labels_are_cut_and_kept_whole_beside():
    long = Chart(
        key="k", title="t", kind="bar", unit="USD", points=[ChartPoint(label="a very " * 10, value=Decimal(1))]
    )
    [bar] = charts.bars(long).bars
    assert len(bar.label) <= charts.LONGEST_LABEL
    assert bar.label.endswith("…")
    assert bar.full_label == "a very " * 10
