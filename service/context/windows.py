"""Cutting a long chart into windows, by encounter and period, that the engine digests one at a time.

Windows are cut from the oldest on, at quarters of the calendar: a fact that arrives changes the window of its
own time, and every other digest can be used again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from service.context.pivot import in_order
from service.record.dates import show_day
from service.record.facts import Fact, FactId, Kind, PatientRecord

CHARACTERS_PER_TOKEN = 3
"""Fewer than any tokenizer packs of clinical lines: a window that is cut by it fits its budget."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the chart: facts of some quarters, those of one encounter together, oldest first."""

    title: str
    """`01-Jan-2019 to 04-May-2019`"""
    facts: tuple[Fact, ...]


def cut_windows(record: PatientRecord, shown: Collection[FactId], budget_tokens: int) -> tuple[Window, ...]:
    """Return the windows that hold something which is not shown, oldest first.

    A window takes as many whole quarters as fit; a quarter that does not fit is cut between encounters, and
    an encounter that does not fit, between facts.
    """
    room = budget_tokens * CHARACTERS_PER_TOKEN
    windows = [_window(facts) for facts in _packed(_quarters(record.facts), room)]
    return tuple(w for w in windows if any(fact.id not in shown for fact in w.facts))


Visits = list[list[Fact]]
"""The facts of one quarter, encounter by encounter."""


def _quarters(facts: Iterable[Fact]) -> list[Visits]:
    visits: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        if fact.kind is not Kind.PATIENT:
            visits[fact.encounter or fact.id].append(fact)
    quarters: dict[tuple[int, int], Visits] = defaultdict(list)
    for visit in sorted((sorted(visit, key=in_order) for visit in visits.values()), key=_begin):
        quarters[_quarter(visit)].append(visit)
    return [quarters[key] for key in sorted(quarters)]


def _begin(visit: Sequence[Fact]) -> tuple[float, str]:
    dated = [fact for fact in visit if fact.when]
    return in_order(dated[0] if dated else visit[0])


def _quarter(visit: Sequence[Fact]) -> tuple[int, int]:
    day = next((fact.when.day for fact in visit if fact.when), None)
    return (day.year, (day.month - 1) // 3) if day else (0, 0)


def _packed(quarters: Iterable[Visits], room: int) -> Iterator[list[Fact]]:
    held: list[Fact] = []
    taken = 0
    for visits in quarters:
        for part in _parts(visits, room):
            size = _size(part)
            if held and taken + size > room:
                yield held
                held, taken = [], 0
            held.extend(part)
            taken += size
    if held:
        yield held


def _parts(visits: Visits, room: int) -> Iterator[list[Fact]]:
    """Yield a quarter whole where it fits, else its encounters, else pieces of one."""
    whole = [fact for visit in visits for fact in visit]
    if _size(whole) <= room:
        yield whole
        return
    for visit in visits:
        piece: list[Fact] = []
        size = 0
        for fact in visit:
            if piece and size + _length(fact) > room:
                yield piece
                piece, size = [], 0
            piece.append(fact)
            size += _length(fact)
        yield piece


def _size(facts: Iterable[Fact]) -> int:
    return sum(map(_length, facts))


def _length(fact: Fact) -> int:
    return len(fact.text) + 8


def _window(facts: Sequence[Fact]) -> Window:
    days = [fact.when for fact in facts if fact.when]
    if not days:
        return Window("undated", tuple(facts))
    first, last = min(days, key=lambda w: w.earliest), max(days, key=lambda w: w.latest)
    ends = dict.fromkeys((show_day(first), show_day(last)))
    return Window(" to ".join(ends), tuple(facts))
