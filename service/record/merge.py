"""Saying a thing once: statements that differ in nothing but their date become one that keeps every source.

A drug prescribed again and again, a problem coded at every visit, a note that stands both in a document and
in a report. Medications are merged only where product, dose, route, frequency, intent and status are all the
same (SAFETY 12); nothing is merged because it is merely alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from service.record.dates import show_day
from service.record.facts import Fact, Kind, Precision, ResourceVersion, Status

STANDING = frozenset(
    {
        Kind.PROBLEM,
        Kind.ALLERGY,
        Kind.MEDICATION,
        Kind.DEVICE,
        Kind.FLAG,
        Kind.FAMILY_HISTORY,
        Kind.PLAN,
        Kind.GOAL,
    }
)
"""Kinds that state how things stand: recorded again, they say the same again. All others are events."""
_SINCE = frozenset({Kind.PROBLEM, Kind.ALLERGY})
"""Kinds that are told from their first record on while they last."""
_LASTING = frozenset({Status.ACTIVE, Status.INACTIVE, Status.UNKNOWN})
_UNDATED = datetime.max.replace(tzinfo=UTC)


def merge_alike(facts: Iterable[Fact]) -> list[Fact]:
    """Return the facts with those that say the same merged into one, its further sources in `copies`."""
    groups: dict[Any, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(_sameness(fact), []).append(fact)
    return [group[0] if len(group) == 1 else _merged(group) for group in groups.values()]


def _sameness(fact: Fact) -> Any:
    """Return what must be equal for two facts to say the same."""
    if fact.kind is Kind.PATIENT or fact.span is not None:
        return fact.id
    what = fact.kind, fact.name.casefold(), fact.status, fact.recorded_status
    if fact.kind not in STANDING:
        when = fact.when.recorded if fact.when else ""
        until = fact.until.recorded if fact.until else ""
        # An event may happen twice a day: only the same instant, or the same text of a note, is the same.
        is_same = (fact.when is not None and fact.when.precision is Precision.TIME) or bool(fact.body)
        return (*what, fact.text, when, until, fact.body) if is_same else fact.id
    codes = tuple(sorted((code.system, code.code) for code in fact.codes))
    said = fact.certainty, fact.category, fact.person, fact.details, fact.value, fact.until is None
    return *what, codes, said, _without_dates(fact)


def _without_dates(fact: Fact) -> str:
    """Return the line without its own dates, so that whatever else a reader put there must be equal too."""
    text = fact.text
    for when in (fact.when, fact.until):
        if when is not None:
            text = text.replace(show_day(when), "")
    return text


def _merged(group: Sequence[Fact]) -> Fact:
    """Return one fact for all: the first where it lasts since then, else the newest."""
    ordered = sorted(group, key=_age)
    lasts = ordered[0].kind in _SINCE and ordered[0].status in _LASTING
    dated = [fact for fact in ordered if fact.when] or ordered
    shown, other, word = (dated[0], dated[-1], "latest") if lasts else (dated[-1], dated[0], "first")
    others = [fact for fact in ordered if fact is not shown]
    authors = dict.fromkeys(fact.author for fact in (shown, *reversed(others)) if fact.author)
    return replace(
        shown,
        text=shown.text + _recorded(shown, other, len(group), word),
        author=", ".join(authors),
        copies=_sources(others),
    )


def _recorded(shown: Fact, other: Fact, times: int, word: str) -> str:
    if shown.kind not in STANDING:
        return ""
    day = show_day(other.when) if other.when else ""
    differs = day and (shown.when is None or day != show_day(shown.when))
    return f"; recorded {times} times" + (f", {word} {day}" if differs else "")


def _sources(facts: Iterable[Fact]) -> tuple[ResourceVersion, ...]:
    return tuple(dict.fromkeys(source for fact in facts for source in fact.sources))


def _age(fact: Fact) -> tuple[datetime, str]:
    return (fact.when.earliest if fact.when else _UNDATED), fact.id
