"""The few results whose course tells something: first, last, lowest and highest value of at most eight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal

from service.context.chosen import Label, Line
from service.context.pivot import Column, Tables, in_order, is_abnormal
from service.record.dates import on_day
from service.record.facts import Fact

FEWEST = 3
"""Two values are no trend."""
NEWEST = 3
"""How many of the newest values are looked at for flags."""


def trend_lines(facts: Iterable[Fact], tables: Tables, most: int) -> tuple[Line, ...]:
    """Return at most `most` lines, sorted by name: the results with most to tell, over the whole record."""
    series: dict[Column, list[Fact]] = defaultdict(list)
    for fact in facts:
        column = tables.columns.get(fact.id)
        if column and not column.person and _number(fact) is not None:
            series[column].append(fact)
    told = [
        (column, sorted(values, key=in_order)) for column, values in series.items() if len(values) >= FEWEST
    ]
    told.sort(key=lambda item: (-_weight(item[1]), item[0]))
    chosen = sorted(told[: max(most, 0)])
    return tuple(_line(n, column, values) for n, (column, values) in enumerate(chosen, 1))


def _number(fact: Fact) -> Decimal | None:
    quantity = fact.quantity
    return quantity.number if quantity is not None and not quantity.comparator else None


def _weight(values: Sequence[Fact]) -> float:
    """Weigh a course: flags among the newest values first, then how far the last is from the first."""
    flagged = sum(is_abnormal(fact) for fact in values[-NEWEST:])
    first, last = float(_value(values[0])), float(_value(values[-1]))
    size = max(abs(first), abs(last)) or 1.0
    return 10.0 * flagged + abs(last - first) / size


def _value(fact: Fact) -> Decimal:
    number = _number(fact)
    assert number is not None
    return number


def _line(number: int, column: Column, values: Sequence[Fact]) -> Line:
    low, high = min(values, key=_value), max(values, key=_value)
    points = list(dict.fromkeys((values[0], low, high, values[-1])))
    text = (
        f"{column.name}: {len(values)} values; first {_point(values[0])}; last {_point(values[-1])}; "
        f"lowest {_point(low)}; highest {_point(high)}"
    )
    return Line(text, Label(f"K{number}"), tuple(points))


def _point(fact: Fact) -> str:
    flags = f" ({', '.join(fact.flags)})" if fact.flags else ""
    return f"{fact.value}{flags} {on_day(fact.when)}"
