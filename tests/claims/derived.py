"""What follows from several resources or from the whole record: trends, extremes, counts, ages, durations."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import pairwise

from tests.claims.charts import Chart, day_of, number_of, text_of
from tests.claims.statements import SEEN_DEAD, Statement

MOST_CITED = 8
"""A count cites every value that it counts; nobody cites more than this."""


@dataclass(frozen=True)
class Point:
    """One value of a series."""

    day: date
    value: str
    unit: str
    reference: str

    @property
    def number(self) -> Decimal:
        return Decimal(self.value)


def series_of(chart: Chart) -> dict[str, list[Point]]:
    """Return the numeric results of a chart by recorded name, oldest first."""
    found: dict[str, list[Point]] = defaultdict(list)
    for reference, resource in chart.of_type("Observation"):
        day, quantity = day_of(resource.get("effectiveDateTime")), resource.get("valueQuantity")
        if day and quantity and quantity.get("unit"):
            point = Point(day, number_of(quantity), str(quantity["unit"]), reference)
            found[text_of(resource["code"])].append(point)
    return {name: sorted(points, key=lambda p: (p.day, p.reference)) for name, points in found.items()}


def analyte(name: str) -> str:
    """Return the short name under which two recorded names could be confused: `glucose`."""
    short = re.split(r"\s*\[| in | by |[/,]", name)[0].lower()
    return short.removeprefix("estimated ").removeprefix("body ")


def clear_series(chart: Chart) -> dict[str, list[Point]]:
    """Return the series that the whole record speaks of under one name and unit, one value a day."""
    found = series_of(chart)
    named = Counter(analyte(name) for name in found)
    return {
        name: points
        for name, points in found.items()
        if named[analyte(name)] == 1
        and len({p.unit for p in points}) == 1
        and len({p.day for p in points}) == len(points)
    }


def read_derived(chart: Chart) -> Iterator[Statement]:
    """Yield every statement that rests on more than one resource of the chart."""
    for name, points in clear_series(chart).items():
        yield from _of_pairs(chart, name, points)
        yield from _of_whole(chart, name, points)
    yield from _ages(chart)
    yield from _durations(chart)


def _pair(chart: Chart, kind: str, name: str, one: Point, two: Point) -> Statement:
    said = {
        "name": name,
        "unit": one.unit,
        "first": one.value,
        "second": two.value,
        "first_date": one.day.isoformat(),
        "second_date": two.day.isoformat(),
        "direction": "up" if two.number > one.number else "down",
        "diff": format(abs(two.number - one.number), "f"),
    }
    return Statement(kind, chart, (one.reference, two.reference), said)


def _of_pairs(chart: Chart, name: str, points: list[Point]) -> Iterator[Statement]:
    far = zip(points, points[2:], strict=False)
    for one, two in [*pairwise(points), *far]:
        if one.number != two.number:
            yield _pair(chart, "change", name, one, two)
            yield _pair(chart, "difference", name, one, two)
        if 0 < 2 * one.number < two.number:
            yield _pair(chart, "doubled", name, one, two)


def single(chart: Chart, kind: str, name: str, point: Point, **more: str) -> Statement:
    """Return a statement about one value of a series."""
    said = {"name": name, "value": point.value, "unit": point.unit, "date": point.day.isoformat(), **more}
    return Statement(kind, chart, (point.reference,), said)


def _of_whole(chart: Chart, name: str, points: list[Point]) -> Iterator[Statement]:
    if len(points) == 1:
        yield single(chart, "no_other", name, points[0])
        return
    yield single(chart, "latest", name, points[-1])
    yield single(chart, "first", name, points[0])
    numbers = [p.number for p in points]
    for end, pick in (("highest", max), ("lowest", min)):
        best = pick(numbers)
        if numbers.count(best) == 1:
            yield single(chart, "extreme", name, points[numbers.index(best)], end=end)
    if len(points) <= MOST_CITED:
        said = {"name": name, "n": str(len(points))}
        yield Statement("count", chart, tuple(p.reference for p in points), said)


def age_at(birth: date, day: date) -> int:
    """Return whole years lived on a day."""
    return day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))


def _ages(chart: Chart) -> Iterator[Statement]:
    patient = next(reference for reference, _ in chart.of_type("Patient"))
    names = Counter(text_of(r["code"]) for _, r in chart.of_type("Condition"))
    for reference, resource in chart.of_type("Condition"):
        name, begun = text_of(resource["code"]), day_of(resource.get("onsetDateTime"))
        if begun and names[name] == 1 and age_at(chart.birth, begun) > 0:
            said = {"name": name, "date": begun.isoformat(), "age": str(age_at(chart.birth, begun))}
            yield Statement("age", chart, (reference, patient), said)


def _durations(chart: Chart) -> Iterator[Statement]:
    names = Counter(text_of(r["code"]) for _, r in chart.of_type("Condition"))
    for reference, resource in chart.of_type("Condition"):
        name = text_of(resource["code"])
        begun, ended = day_of(resource.get("onsetDateTime")), day_of(resource.get("abatementDateTime"))
        if begun and ended and names[name] == 1 and ended > begun:
            yield _length(chart, "duration", reference, name, begun, ended)
    for reference, resource in chart.of_type("Encounter"):
        period = resource["period"]
        begun, ended = day_of(period["start"]), day_of(period.get("end"))
        name = text_of((resource.get("type") or [{}])[0])
        stayed = resource["class"]["code"] == "IMP" and name != SEEN_DEAD
        if stayed and begun and ended and ended > begun:
            yield _length(chart, "stay", reference, name, begun, ended)


def _length(chart: Chart, kind: str, reference: str, name: str, begun: date, ended: date) -> Statement:
    said = {
        "name": name,
        "date": begun.isoformat(),
        "end_date": ended.isoformat(),
        "days": str((ended - begun).days),
    }
    return Statement(kind, chart, (reference,), said)
