"""Notes → citable sentences: each with its place in the note's text, its section, and where it was copied to.

A sentence that later notes repeat is kept once, at its first appearance, with every later note as a further
source: copied-forward text counts from the day on which it was first written (SAFETY 13).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from service.record.copies import Appearance, Note, first_appearances
from service.record.dates import show_day
from service.record.echo import ELIDED
from service.record.facts import Fact, FactId, Kind, ResourceVersion
from service.record.fhirjson import one_line

_SAID = ("current", "final", "")
"""Recorded statuses of a document that need no word."""


def read_passages(facts: Iterable[Fact]) -> list[Fact]:
    """Return the facts and the sentences of their texts; a text that stands twice on one day is held once."""
    plain: list[Fact] = []
    texts: dict[str, list[Fact]] = {}
    for fact in facts:
        if fact.body:
            texts.setdefault(fact.body, []).append(fact)
        else:
            plain.append(fact)
    notes: dict[str, Fact] = {}
    for group in texts.values():
        for first, others in _same_days(group):
            copies = (source for other in others for source in other.sources)
            notes[first.id] = replace(first, copies=_without(first.source, (*first.copies, *copies)))
            # A report that says nothing beside its text is held by the note.
            plain += [replace(other, body="") for other in others if _says_more(other, first)]
    told = first_appearances(
        [Note(key, note.when.earliest if note.when else None, note.body) for key, note in notes.items()]
    )
    passages = (_passage(appearance, notes) for appearance in told)
    return [*plain, *notes.values(), *(fact for fact in passages if fact.value != ELIDED)]


def _same_days(group: Sequence[Fact]) -> Iterator[tuple[Fact, list[Fact]]]:
    """Yield, for each day on which a text was written, the note that holds it and what repeats it."""
    by_day: dict[str, list[Fact]] = {}
    for fact in group:
        by_day.setdefault(show_day(fact.when) if fact.when else fact.id, []).append(fact)
    for facts in by_day.values():
        first, *others = sorted(facts, key=lambda fact: (fact.kind is not Kind.NOTE, fact.id))
        yield first, others


def _says_more(report: Fact, note: Fact) -> bool:
    """Tell whether a report says anything that the note with its text does not: a preliminary one does."""
    if report.kind is not Kind.REPORT:
        return False
    if report.recorded_status not in _SAID or (report.author and report.author != note.author):
        return True
    return any(label in ("conclusion", "coded conclusion", "results", "note") for label, _ in report.details)


def _passage(appearance: Appearance, notes: dict[str, Fact]) -> Fact:
    note, passage = notes[appearance.note], appearance.passage
    sentence = one_line(note.body[passage.start : passage.end])
    later = (source for key in appearance.copies for source in notes[key].sources)
    day = f"of {show_day(note.when)}" if note.when else "without date"
    status = "" if note.recorded_status in _SAID else f" ({note.recorded_status})"
    by = f" by {note.author}" if note.author else ""
    section = f", {passage.section}" if passage.section else ""
    return Fact(
        id=FactId(f"{note.id}{'.' if '#' in note.id else '#'}c{passage.start}-{passage.end}"),
        kind=Kind.NOTE,
        source=note.source,
        text=f"{note.name}{status} {day}{by}{section}: “{sentence}”",
        name=note.name,
        codes=note.codes,
        status=note.status,
        recorded_status=note.recorded_status,
        when=note.when,
        value=sentence,
        person=note.person,
        encounter=note.encounter,
        author=note.author,
        category=passage.section,
        copies=_without(note.source, (*note.copies, *later)),
        span=(passage.start, passage.end),
    )


def _without(source: ResourceVersion, others: Iterable[ResourceVersion]) -> tuple[ResourceVersion, ...]:
    return tuple(other for other in dict.fromkeys(others) if other != source)
