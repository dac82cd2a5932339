"""Results as tables of day × analyte, vital signs as one row a day: every value as recorded, in few tokens.

A table is fixed by the calendar and by the day of its analytes' first results: what was first measured
together stands together. So a new result appends to a table of its own time and moves nothing earlier.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from service.context.chosen import Label, Line
from service.record.dates import show_day
from service.record.facts import Fact, FactId, Kind, Status

MAX_COLUMNS = 12
BLOCK = 5
"""Years that stand in one table…"""
BUSY = 6
"""…unless there are so many rows in a year, a quarter or a month: then that has a table of its own, so that
a new row leaves all earlier tables as they were."""
MAX_CELL = 48
"""Longer values are told on a line of their own: a table is no place for prose."""
MIN_CELLS = 2
"""A column with fewer chosen values is told line by line…"""
WIDE = 4
"""…unless so many of one table are alike: a panel that was measured once is a table of one row."""
RANGED = 3
"""From so many values of one vital sign on one day, the lowest and the highest stand for all."""

_NORMAL = frozenset({"N", "normal"})
_ASIDE = re.compile(r"\[[^\]]*\]")
_PART = re.compile(r"(-?\d+(?:\.\d+)?) ([^ (]+)( \(.*)?", re.ASCII)
"""A member of a small panel: number, unit, and its flags or reference range if it has any."""


class Column(NamedTuple):
    """What one column of a table holds: values of one name, unit, person and place."""

    name: str
    unit: str
    person: str
    site: str


Cells = dict[Column, list[Fact]]


@dataclass(frozen=True)
class Tables:
    """The columns of a record's results or vital signs, each with the table that it belongs to."""

    kind: Kind
    columns: dict[FactId, Column]
    panels: dict[Column, tuple[Any, ...]]
    """Column → what its table is known by, in order."""
    ranges: dict[Column, str]
    """Reference range of the columns in which it never changes."""
    busy: Mapping[tuple[tuple[Any, ...], str, date], int]
    """(table, `month`, first day) → on how many days of that time something of the table was measured."""

    def rows(
        self, facts: Iterable[Fact], labels: Callable[[Fact], Label], latest: Collection[FactId] = frozenset()
    ) -> Iterator[Line]:
        """Yield tables of these facts, time by time, one row a day; then the rest line by line.

        A fact of `latest` joins a table only where the day's row stands there anyway: it must not open a row
        or a column that goes again when a newer value comes.
        """
        periods: dict[date, Cells] = defaultdict(lambda: defaultdict(list))
        single: list[Fact] = []
        waiting: list[Fact] = []
        for fact in facts:
            column = self.columns.get(fact.id)
            if column is None:
                single.append(fact)
            elif fact.id in latest:
                waiting.append(fact)
            else:
                periods[self._period(fact)][column].append(fact)
        self._seat(waiting, periods, single)
        for period in sorted(periods):
            for columns in self._tables(periods[period], single):
                yield from self._table(columns, periods[period])
        yield from (Line(told_by(fact), labels(fact), (fact,)) for fact in sorted(single, key=in_order))

    def _period(self, fact: Fact) -> date:
        """Return the first day of the time whose values of this table stand together."""
        assert fact.when is not None
        panel = self.panels[self.columns[fact.id]]
        starts = _starts(fact.when.day)
        return next(
            (start for span, start in starts if self.busy.get((panel, span, start), 0) >= BUSY), starts[-1][1]
        )

    def _seat(self, waiting: Iterable[Fact], periods: dict[date, Cells], single: list[Fact]) -> None:
        """Seat the newest values where their row or column stands anyway, or where they fill a row."""
        days = {f.when.day for cells in periods.values() for facts in cells.values() for f in facts if f.when}
        rows: dict[tuple[Any, ...], list[Fact]] = defaultdict(list)
        for fact in waiting:
            assert fact.when is not None
            rows[*self.panels[self.columns[fact.id]], fact.when.day].append(fact)
        for (*_, day), facts in rows.items():
            for fact in facts:
                column, cells = self.columns[fact.id], periods.get(self._period(fact), {})
                is_seated = day in days or len(facts) >= WIDE or len(cells.get(column, ())) >= MIN_CELLS
                (periods[self._period(fact)][column] if is_seated else single).append(fact)

    def _tables(self, cells: Cells, single: list[Fact]) -> Iterator[list[Column]]:
        panels: dict[tuple[Any, ...], list[Column]] = defaultdict(list)
        for column in cells:
            panels[self.panels[column]].append(column)
        for key in sorted(panels):
            columns = sorted(panels[key])
            lone = [column for column in columns if len(cells[column]) < MIN_CELLS]
            if len(lone) < WIDE:
                single += [fact for column in lone for fact in cells[column]]
                columns = [column for column in columns if column not in lone]
            yield from (columns[n : n + MAX_COLUMNS] for n in range(0, len(columns), MAX_COLUMNS))

    def _table(self, columns: Sequence[Column], cells: Cells) -> Iterator[Line]:
        yield Line(" | ".join(["day", *map(self.head, columns)]))
        days: dict[tuple[date, str], dict[Column, list[Fact]]] = defaultdict(lambda: defaultdict(list))
        for column in columns:
            for fact in cells[column]:
                assert fact.when is not None
                days[fact.when.day, show_day(fact.when)][column].append(fact)
        for key in sorted(days):
            row = days[key]
            facts = tuple(fact for column in columns for fact in sorted(row[column], key=in_order))
            text = " | ".join(self._cell(column, row[column]) for column in columns)
            authors = ", ".join(dict.fromkeys(fact.author for fact in facts if fact.author))
            told = f"{text} | by {authors}" if authors else text.rstrip(" |")
            yield Line(told, row_label(self.kind, key[1]), facts)

    def head(self, column: Column) -> str:
        """Return what a column is called, with unit, the range where it never changes, side and person."""
        said = [column.unit, self.ranges.get(column, "")]
        about = [column.site, f"of {column.person}, not the patient" if column.person else ""]
        inner = "; ".join(part for part in (*said, *about) if part)
        # The unit tells what a bracketed property tells: `[Mass/volume]` beside `mg/dL` only takes room.
        name = " ".join(_ASIDE.sub(" ", column.name).split()) if column.unit else column.name
        return f"{name or column.name} ({inner})" if inner else column.name

    def _cell(self, column: Column, facts: Sequence[Fact]) -> str:
        ordered = sorted(facts, key=in_order)
        if (
            self.kind is Kind.VITAL
            and len(ordered) >= RANGED
            and (text := _ranged(ordered, column, self.ranges))
        ):
            return text
        is_timed = len(ordered) > 1
        return "; ".join(_value(fact, column, self.ranges, is_timed=is_timed) for fact in ordered)


def tables_of(facts: Sequence[Fact], kind: Kind) -> Tables:
    """Return the columns and tables of all results, or all vital signs, of a record."""
    columns: dict[FactId, Column] = {}
    first: dict[Column, tuple[Any, ...]] = {}
    seen: dict[Column, set[str]] = defaultdict(set)
    for fact in facts:
        if fact.kind is not kind or not _fits(fact):
            continue
        column = _column(fact)
        columns[fact.id] = column
        assert fact.when is not None
        day = (fact.when.day.isoformat(),) if kind is Kind.RESULT else ("",)
        first[column] = min(first.get(column, day), day)
        seen[column].add(fact.reference_range)
    ranges = {column: f"reference {next(iter(r))}" for column, r in seen.items() if len(r) == 1 and any(r)}
    days = {(first[columns[fact.id]], fact.when.day) for fact in facts if fact.id in columns and fact.when}
    busy = Counter((panel, span, start) for panel, day in days for span, start in _starts(day))
    return Tables(kind, columns, first, ranges, busy)


def _starts(day: date) -> tuple[tuple[str, date], ...]:
    """Return the month, quarter, year and five years of a day, each by its first day."""
    return (
        ("month", day.replace(day=1)),
        ("quarter", date(day.year, (day.month - 1) // 3 * 3 + 1, 1)),
        ("year", date(day.year, 1, 1)),
        ("block", date(max(1, day.year // BLOCK * BLOCK), 1, 1)),
    )


def row_label(kind: Kind, day: str) -> Label:
    """Return the label of all results, or all vital signs, of one day: `R@25-Nov-2020`."""
    return Label(f"{'R' if kind is Kind.RESULT else 'T'}@{day}")


def in_order(fact: Fact) -> tuple[float, str]:
    """Order facts by their time, then by their id."""
    return (fact.when.earliest.timestamp() if fact.when else float("-inf")), fact.id


def told_by(fact: Fact) -> str:
    """Return a fact's line with its author, where the line does not name them."""
    return f"{fact.text}; by {fact.author}" if fact.author and fact.author not in fact.text else fact.text


def is_abnormal(fact: Fact) -> bool:
    """Tell whether the record flags a value as other than normal."""
    return any(flag not in _NORMAL for flag in fact.flags)


def _column(fact: Fact) -> Column:
    unit = fact.quantity.unit if fact.quantity else _shared_unit(fact)
    person = "" if fact.person.role == "patient" else fact.person.text or fact.person.role
    return Column(fact.name, unit, person, dict(fact.details).get("body site", ""))


def _shared_unit(fact: Fact) -> str:
    """Return the unit that all members of a small panel share: `mm[Hg]` of a blood pressure."""
    units = {match[2] if (match := _PART.fullmatch(text)) else "" for _, text in _members(fact)}
    return units.pop() if len(units) == 1 else ""


def _members(fact: Fact) -> list[tuple[str, str]]:
    """Return (name, value) of each member of a small panel, which together are its value."""
    return [(label, text) for label, text in fact.details if f"{label} {text}" in fact.value]


def _fits(fact: Fact) -> bool:
    """Tell whether a fact may stand in a table: of one time, short, and without a mark that ends a cell."""
    if fact.when is None or fact.until is not None or fact.status is Status.CANCELLED:
        return False
    remarks = _remarks(fact)
    said = (*_column(fact), fact.value, remarks, fact.reference_range, fact.author, *fact.flags)
    is_short = 0 < len(bare(fact, _column(fact))) <= MAX_CELL and len(remarks) <= MAX_CELL
    return is_short and ";" not in fact.value and not any("|" in text for text in said)


def _ranged(facts: Sequence[Fact], column: Column, ranges: Mapping[Column, str]) -> str:
    """`62–118 (96 values)`, `systolic 90–141, diastolic 50–88 (24 values)`; empty unless all are numbers."""
    if any(
        fact.recorded_status != "final" or _remarks(fact) or (fact.reference_range and column not in ranges)
        for fact in facts
    ):
        return ""
    parts = [_numbers(fact, column) for fact in facts]
    names = {tuple(part.name for part in parts_of) for parts_of in parts}
    if len(names) != 1 or not all(parts):
        return ""
    told = []
    for place, name in enumerate(names.pop()):
        values = [part[place] for part in parts]
        low, high = min(values, key=lambda v: v.number), max(values, key=lambda v: v.number)
        ends = low.text if low.number == high.number else f"{low.text}–{high.text}"
        told.append(f"{name} {ends}".strip())
    flags = ",".join(dict.fromkeys(flag for fact in facts for flag in fact.flags))
    return " ".join(part for part in (", ".join(told), flags, f"({len(facts)} values)") if part)


class _Number(NamedTuple):
    name: str
    text: str
    """As recorded, without a unit that the column tells."""
    number: Decimal


def _numbers(fact: Fact, column: Column) -> list[_Number]:
    """Return each part of a value; none unless all are plain numbers of the column's unit."""
    if fact.quantity is not None:
        number = fact.quantity.number
        is_plain = number is not None and not fact.quantity.comparator
        return [_Number("", bare(fact, column), number)] if is_plain and number is not None else []
    found = []
    for label, text in _members(fact):
        match = _PART.fullmatch(text)
        if match is None or match[3] or match[2] != column.unit:
            return []
        found.append(_Number(label, match[1], Decimal(match[1])))
    return found


def _value(fact: Fact, column: Column, ranges: dict[Column, str], *, is_timed: bool) -> str:
    said = [] if fact.recorded_status == "final" else [fact.recorded_status or fact.status.value]
    if fact.reference_range and column not in ranges:
        said.append(f"reference {fact.reference_range}")
    if remarks := _remarks(fact):
        said.append(remarks)
    flags = ",".join(fact.flags)
    at = f"@{fact.when.time}" if is_timed and fact.when and fact.when.time else ""
    inner = f"({'; '.join(said)})" if said else ""
    return " ".join(part for part in (bare(fact, column) + at, flags, inner) if part)


def bare(fact: Fact, column: Column) -> str:
    """Return a value as recorded, without the unit that stands in its column's head."""
    if not column.unit:
        return fact.value
    if fact.quantity is not None:
        return fact.value.removesuffix(f" {column.unit}")
    return fact.value.replace(f" {column.unit}", "")


def _remarks(fact: Fact) -> str:
    """Return what else the record says of a value; the members of a small panel are its value already."""
    kept = [
        f"{label}: {text}"
        for label, text in fact.details
        if label not in ("body site", "part of", "members") and f"{label} {text}" not in fact.value
    ]
    return "; ".join(kept)
