"""The few results whose course tells something: first, last, lowest and highest value of at most eight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

from service.context.chosen import Label, Line
from service.context.pivot import Column, Tables, bare, in_order, is_abnormal
from service.record.dates import on_day
from service.record.facts import Fact, Precision, When

FEWEST = 3
"""Two values are no trend."""
NEWEST = 3
"""How many of the newest values are looked at for flags."""


def trend_lines(facts: Iterable[Fact], tables: Tables, most: int) -> tuple[Line, ...]:
    """Return at most `most` lines, sorted by name: the results with most to tell, over the whole record.

    A course with a value such as `<0.01` has no lowest or no highest value: it is told by its table alone.
    """
    series: dict[Column, list[Fact]] = defaultdict(list)
    open_ended: set[Column] = set()
    for fact in facts:
        column = tables.columns.get(fact.id)
        if column and not column.person and fact.quantity and fact.quantity.number is not None:
            if fact.quantity.comparator:
                open_ended.add(column)
            series[column].append(fact)
    told = [
        (column, sorted(values, key=in_order))
        for column, values in series.items()
        if len(values) >= FEWEST and column not in open_ended
    ]
    told.sort(key=lambda item: (-_weight(item[1]), item[0]))
    chosen = sorted(told[: max(most, 0)])
    return tuple(_line(n, column, values, tables) for n, (column, values) in enumerate(chosen, 1))


def _weight(values: Sequence[Fact]) -> float:
    """Weigh a course: flags among the newest values first, then how far the last is from the first."""
    flagged = sum(is_abnormal(fact) for fact in values[-NEWEST:])
    first, last = _value(values[0]), _value(values[-1])
    size = max(abs(first), abs(last)) or Decimal(1)
    return 10.0 * flagged + float(abs(last - first) / size)


def _value(fact: Fact) -> Decimal:
    assert fact.quantity is not None
    assert fact.quantity.number is not None
    return fact.quantity.number


def _line(number: int, column: Column, values: Sequence[Fact], tables: Tables) -> Line:
    low, high = min(values, key=_value), max(values, key=_value)
    ends = (("first", values[0]), ("last", values[-1]), ("lowest", low), ("highest", high))
    words: dict[Fact, list[str]] = {}
    for word, fact in ends:
        words.setdefault(fact, []).append(word)
    told = (f"{' and '.join(said)} {_point(fact, column)}" for fact, said in words.items())
    text = f"{tables.head(column)}: {len(values)} values; {'; '.join(told)}"
    return Line(text, Label(f"K{number}"), tuple(words))


def _point(fact: Fact, column: Column) -> str:
    status = [] if fact.recorded_status == "final" else [fact.recorded_status or fact.status.value]
    said = ", ".join([*status, *fact.flags])
    return " ".join(p for p in (bare(fact, column), f"({said})" if said else "", _month(fact)) if p)


def _month(fact: Fact) -> str:
    """Return `in May-2019`: enough for a course; the table and the fact itself have the day."""
    when = fact.when
    return on_day(replace(when, precision=Precision.MONTH) if _is_to_the_day(when) else when) if when else ""


def _is_to_the_day(when: When) -> bool:
    return when.precision in (Precision.DAY, Precision.TIME)
