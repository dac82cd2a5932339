"""The geometry of charts: numbers in, places in an SVG out. Pure; templates draw it, a table says the same.

A chart is as wide as a phone, so that its words are never scaled below what can be read. A line is told from
the others by its dashes and the shape of its marks, and by colour besides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from service.quality.statistics import Estimate
from service.quality.trends import MOST_SERIES, MeasureKind, Trends

WIDTH: Final = 320
HEIGHT: Final = 190
LEFT: Final = 50
RIGHT: Final = 12
TOP: Final = 10
BOTTOM: Final = 28
BESIDE: Final = 3
"""How far a series stands beside the one before, so that equal figures do not hide each other."""
ROW: Final = 40
"""Height of one row of a chart of intervals."""
_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Tick:
    """One word of an axis, and where it stands."""

    at: float
    text: str
    anchor: str = "end"


@dataclass(frozen=True, slots=True)
class Mark:
    """One figure with its interval: a table says what it is."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Line:
    """One series: `number` chooses dashes, shape and colour."""

    number: int
    points: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table beside a chart."""

    when: str
    name: str
    value: str
    interval: str
    n: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One measure as it is drawn, and as it is told."""

    kind: MeasureKind
    lines: tuple[Line, ...]
    rows: tuple[Row, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    not_drawn: int
    """Series that are in the table alone."""
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """One measure of an evaluation: its name, and one interval an arm."""

    name: str
    at: float
    """Where the name stands."""
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Intervals:
    """The shares of an evaluation's arms on one scale from 0 to 100 %."""

    rows: tuple[IntervalRow, ...]
    ticks: tuple[Tick, ...]
    height: float
    width: int = WIDTH


def draw_trend(kind: MeasureKind, trends: Trends) -> Chart | None:
    """Return one measure by week; None where nothing was counted."""
    found = {
        series: {week: one for week in trends.weeks if (one := trends.estimate(kind.key, series, week))}
        for series in trends.series
    }
    estimates = [one for by_week in found.values() for one in by_week.values()]
    if not estimates:
        return None
    ceiling, step = _scale(kind, estimates)
    places = _places(trends.weeks)
    lines = tuple(
        _line(number, by_week, places, ceiling)
        for number, by_week in enumerate(list(found.values())[:MOST_SERIES])
        if by_week
    )
    rows = tuple(
        Row(_day(week), series.name, _said(kind, one.value), _interval(kind, one), f"{one.n:,}")
        for week in reversed(trends.weeks)
        for series, by_week in found.items()
        if (one := by_week.get(week)) is not None
    )
    ticks = tuple(
        Tick(_y(step * number, ceiling), _said(kind, step * number))
        for number in range(round(ceiling / step) + 1)
    )
    not_drawn = sum(bool(by_week) for by_week in list(found.values())[MOST_SERIES:])
    return Chart(kind, lines, rows, _week_ticks(trends.weeks, places), ticks, not_drawn)


def _line(
    number: int,
    by_week: Mapping[str, Estimate],
    places: Mapping[str, float],
    ceiling: float,
) -> Line:
    beside = number * min(BESIDE, (WIDTH - LEFT - RIGHT) / len(places) / MOST_SERIES)
    marks = tuple(
        Mark(places[week] + beside, *(_y(at, ceiling) for at in (one.value, one.low, one.high)))
        for week, one in by_week.items()
    )
    return Line(number, " ".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in marks), marks)


def _places(weeks: Sequence[str]) -> Mapping[str, float]:
    room = WIDTH - LEFT - RIGHT
    return {week: LEFT + room * (number + 0.5) / len(weeks) for number, week in enumerate(weeks)}


def _week_ticks(weeks: Sequence[str], places: Mapping[str, float]) -> tuple[Tick, ...]:
    first, last = weeks[0], weeks[-1]
    if first == last:
        return (Tick(places[first], _day(first), "middle"),)
    return (Tick(float(LEFT), _day(first), "start"), Tick(float(WIDTH - RIGHT), _day(last), "end"))


def _y(value: float, ceiling: float) -> float:
    share = min(max(value / ceiling, 0.0), 1.0)
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - share), 1)


def _scale(kind: MeasureKind, estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Return where the axis ends and its step: shares that are near nothing get room of their own."""
    highest = max(one.high for one in estimates)
    if kind.is_share and highest > 0.5:
        return 1.0, 0.25
    rough = (highest or (0.1 if kind.is_share else 1.0)) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(one * power for one in _STEPS if one * power >= rough * 0.999)
    return step * math.ceil(highest / step - 1e-9) if highest else step * 4, step


def draw_intervals(
    arms: Sequence[Mapping[str, Any]], keys: Sequence[str], titles: Mapping[str, str]
) -> Intervals:
    """Return the shares of an evaluation's arms, one row a measure."""
    rows = tuple(
        IntervalRow(
            titles[key],
            TOP + 12 + ROW * number * 1.0,
            tuple(
                _interval_mark(measure, TOP + 20 + ROW * number + 9 * which)
                for which, arm in enumerate(arms)
                if (measure := arm["measures"].get(key)) is not None
            ),
        )
        for number, key in enumerate(keys)
    )
    height = TOP + ROW * len(keys) + BOTTOM
    ticks = tuple(Tick(_x(share), f"{share:.0%}", "middle") for share in (0.0, 0.25, 0.5, 0.75, 1.0))
    return Intervals(rows, ticks, height)


def _interval_mark(measure: Mapping[str, float], y: float) -> Mark:
    low, value, high = (measure[name] for name in ("low", "value", "high"))
    return Mark(_x(value), y, _x(low), _x(high))


def _x(share: float) -> float:
    left, right = 16, 22
    return round(left + (WIDTH - left - right) * min(max(share, 0.0), 1.0), 1)


def _said(kind: MeasureKind, value: float) -> str:
    if kind.is_share:
        return f"{value * 100:.1f} %".replace(".0 %", " %")
    return f"{value:.3g} {kind.unit}".strip()


def _interval(kind: MeasureKind, one: Estimate) -> str:
    return f"{_said(kind, one.low)} to {_said(kind, one.high)}"


def _day(week: str) -> str:
    return f"{date.fromisoformat(week):%d-%b-%Y}"
