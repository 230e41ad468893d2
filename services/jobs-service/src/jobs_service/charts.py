"""A document's charts as inline SVG: no script, no font, nothing to load, and readable when printed."""

from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from math import ceil, floor, log10
from typing import Final, Literal

from triton_common.schemas import Chart

WIDTH: Final = 720
BAR: Final = 30  # height of a bar's row
LABELS: Final = 270  # width of the labels left of the bars
VALUES: Final = 90  # and of the values right of them
LINE_HEIGHT: Final = 260
MARGIN: Final = 72  # left of a line chart, for the amounts of the axis and their sign
LONGEST_LABEL: Final = 34  # characters that fit into LABELS, in a wide font
FOOT: Final = 34


@dataclass(frozen=True)
class Bar:
    """One bar, in pixels."""

    label: str
    full_label: str
    display: str
    tone: Literal["plain", "gain", "loss", "total"]
    x: float
    y: float
    width: float
    value_x: float
    anchor: Literal["start", "end"]


@dataclass(frozen=True)
class Bars:
    """A bar chart, in pixels."""

    height: int
    zero: float
    bars: list[Bar]


@dataclass(frozen=True)
class Mark:
    """A tick and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A line chart, in pixels."""

    height: int
    path: str
    area: str
    dots: list[tuple[float, float, str]]
    ticks: list[Mark]
    labels: list[Mark]


def bars(chart: Chart) -> Bars:
    """Horizontal bars from a common zero; those below it go left. A waterfall's begin where the last ended."""
    spans = _spans(chart)
    low, high = min(0.0, *(min(span) for span in spans)), max(0.0, *(max(span) for span in spans))
    room = WIDTH - LABELS - VALUES * (2 if low < 0 else 1)
    scale = room / ((high - low) or 1.0)
    zero = LABELS + (VALUES if low < 0 else 0) - low * scale
    drawn = []
    for number, (point, (start, end)) in enumerate(zip(chart.points, spans, strict=True)):
        x, width = zero + min(start, end) * scale, abs(end - start) * scale
        left = chart.kind != "waterfall" and end < 0
        drawn.append(
            Bar(
                label=_short(point.label),
                full_label=point.label,
                display=amount(point.value, chart.unit),
                tone=_tone(chart, number),
                x=round(x, 1),
                y=number * BAR + 5,
                width=round(max(width, 1.0), 1),
                value_x=round(x - 8 if left else x + width + 8, 1),
                anchor="end" if left else "start",
            )
        )
    return Bars(height=len(drawn) * BAR + 10, zero=round(zero, 1), bars=drawn)


def _spans(chart: Chart) -> list[tuple[float, float]]:
    """Where each bar begins and ends."""
    values = [float(point.value) for point in chart.points]
    if chart.kind != "waterfall":
        return [(0.0, value) for value in values]
    ends = list(accumulate(values[:-1]))
    return [*zip([0.0, *ends], ends, strict=False), (0.0, values[-1])]


def _tone(chart: Chart, number: int) -> Literal["plain", "gain", "loss", "total"]:
    if chart.kind != "waterfall":
        return "plain"
    if number == len(chart.points) - 1:
        return "total"
    return "gain" if chart.points[number].value >= 0 else "loss"


def line(chart: Chart) -> Line:
    """A line over points at equal distances, with at most five ticks and seven labels."""
    values = [float(point.value) for point in chart.points]
    step = _step(max(0.0, *values) - min(0.0, *values))
    bottom, top = floor(min(0.0, *values) / step) * step, ceil(max(0.0, *values) / step) * step
    top = top if top > bottom else bottom + step
    right, foot = WIDTH - 16, LINE_HEIGHT - FOOT

    def x(number: int) -> float:
        return round(MARGIN + (right - MARGIN) * (number / (len(values) - 1) if len(values) > 1 else 0.5), 1)

    def y(value: float) -> float:
        return round(12 + (foot - 12) * (top - value) / (top - bottom), 1)

    places = [(x(number), y(value)) for number, value in enumerate(values)]
    path = "M" + " L".join(f"{left},{above}" for left, above in places)
    every = max(1, ceil(len(values) / 7))
    return Line(
        height=LINE_HEIGHT,
        path=path,
        area=f"{path} L{places[-1][0]},{y(0)} L{places[0][0]},{y(0)} Z",
        dots=[
            (left, above, f"{point.label}: {amount(point.value, chart.unit)}")
            for (left, above), point in zip(places, chart.points, strict=True)
        ],
        ticks=[
            Mark(y(bottom + number * step), amount(Decimal(str(round(bottom + number * step, 6))), chart.unit))
            for number in range(round((top - bottom) / step) + 1)
        ],
        labels=[Mark(x(number), _short(chart.points[number].label)) for number in range(0, len(values), every)],
    )


def amount(value: Decimal, unit: str) -> str:
    """A value as a chart shows it: $1.2M, 37 %, 1,204; decimals only where they matter."""
    size = abs(value)
    sign = "\N{MINUS SIGN}" if value < 0 else ""
    for limit, letter in ((Decimal(10) ** 9, "B"), (Decimal(10) ** 6, "M"), (Decimal(10) ** 4, "k")):
        if size >= limit:
            divisor = limit if letter != "k" else Decimal(1000)
            text = f"{size / divisor:,.1f}".removesuffix(".0") + letter
            break
    else:
        text = f"{size:,.2f}".rstrip("0").rstrip(".") if size < 100 else f"{size:,.0f}"
    match unit:
        case "USD":
            return f"{sign}${text}"
        case "percent" | "%":
            return f"{sign}{text} %"
        case _ if len(unit) == 3 and unit.isupper():  # any other currency
            return f"{sign}{text} {unit}"
        case _:
            return f"{sign}{text}"


def _short(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1].rstrip()}…"


def _step(span: float) -> float:
    """A round distance that divides `span` into at most five parts: 1, 2 or 5 times a power of ten."""
    if span <= 0:
        return 1.0
    power = 10 ** floor(log10(span / 5))
    return float(next(times * power for times in (1, 2, 5, 10) if times * power * 5 >= span))
