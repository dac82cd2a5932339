"""Which facts a question is about: by their names, what else they are called, kinds, dates and words.

Deterministic, and only a choice of what to look at: whether a sentence about these facts stands is the
Checker's to say. What no fact holds is named, so that silence is never read as an answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Final

from service.ask.question import Sought, said, stem
from service.context.pivot import in_order
from service.grounding.source import OBSERVED, Source
from service.grounding.wording import lexicon, plain_name, recorded_forms
from service.grounding.words import DateToken, words_of
from service.record.facts import Fact, Kind, PatientRecord, Status, When

MOST: Final = 60
"""Facts that are looked at for one question."""
_CURRENT: Final = frozenset({Status.ACTIVE, Status.IN_PROGRESS, Status.ON_HOLD, Status.UNKNOWN})
_LEAST_LETTERS: Final = 4
_ADMITTED: Final = ("inpatient", "emergency", "observation", "short stay")
_ENDURE: Final = frozenset(
    {Kind.PROBLEM, Kind.MEDICATION, Kind.ALLERGY, Kind.ORDER, Kind.PLAN, Kind.GOAL, Kind.FLAG, Kind.DEVICE}
)
"""Kinds of which some are current and others are over; a value is not current, it is the newest."""


@dataclass(frozen=True, slots=True)
class Matched:
    """What of a record a question is about, best first."""

    named: tuple[Fact, ...] = ()
    """Facts that the question names: they answer it, or nothing does."""
    touched: tuple[Fact, ...] = ()
    """Further facts that hold some of its words or are of its kinds: shown beside, never as the answer."""
    nowhere: tuple[str, ...] = ()
    """Words of the question that stand in no fact of the record."""
    elsewhere: tuple[str, ...] = ()
    """Words of the question that stand in facts of the record, but in none that it names."""

    @property
    def all(self) -> tuple[Fact, ...]:
        """Both, the named first, as many as are looked at."""
        return (*self.named, *self.touched)[:MOST]


@dataclass(frozen=True, slots=True)
class _Name:
    """One recorded name: what it may be called, and by which words it is found."""

    forms: frozenset[str]
    words: frozenset[str]
    """Stems of the words that a sentence about it must hold."""
    broad: frozenset[str]
    """Stems of all words of its name, its codes and its other names."""

    def said_in(self, text: str, asked: frozenset[str]) -> frozenset[str]:
        """Return the stems of a question that name it; none where the question does not."""
        spoken = [form for form in self.forms if said(form).search(text)]
        if spoken:
            return _stems(max(spoken, key=len))
        return self.words if self.words and self.words <= asked else frozenset()


def match_facts(record: PatientRecord, sought: Sought) -> Matched:
    """Return the facts that a question is about, and the words of it that no fact holds."""
    search = _Search(record.facts, sought)
    answer, over = _at_time(search.named(), sought)
    taken = {fact.id for fact in answer}
    more = [*over, *search.beside(), *search.holding()]
    touched = {fact.id: fact for fact in more if fact.id not in taken}
    nowhere, elsewhere = search.missing(answer)
    return Matched(tuple(answer), tuple(touched.values()), nowhere, elsewhere)


class _Search:
    """One question against the facts of one record."""

    def __init__(self, facts: Sequence[Fact], sought: Sought) -> None:
        self._facts = facts
        self._sought = sought
        self._names = _Names()
        self._words = {fact.id: _stems(fact.text) for fact in facts}

    def named(self) -> list[Fact]:
        """Return the facts that the question names; of a kind, where it asks for kinds.

        Who asks for an allergy to penicillin is not answered by an order of it, nor by another allergy.
        """
        sought = self._sought
        if not sought.terms and not sought.topics:
            return self._of_kinds() if sought.kinds or sought.flagged else []
        found = {fact.id: fact for fact in self._facts if self._names.of(fact).forms & sought.names}
        for group in self._groups():
            found |= {fact.id: fact for fact in self._of_group(group)}
        return [fact for fact in found.values() if self._is_of_kinds(fact)]

    def beside(self) -> list[Fact]:
        """Return facts of the kinds that were asked for, and those of other kinds that are named."""
        sought = self._sought
        named = [fact for group in self._groups() for fact in self._of_group(group)]
        return [*named, *(self._of_kinds() if sought.kinds else ())]

    def holding(self) -> list[Fact]:
        """Return the facts that hold words of the question, those with most of them first, then the newest.

        A word that half of the record holds says nothing.
        """
        needed, held = frozenset(map(stem, self._sought.terms)), self._words.values()
        telling = {word for word in needed if sum(word in words for words in held) * 2 <= len(self._facts)}
        newest = sorted(self._facts, key=in_order, reverse=True)
        counted = [(len(telling & self._words[fact.id]), fact) for fact in newest]
        most = max((count for count, _ in counted), default=0)
        return [fact for count, fact in counted if count and count == most]

    def missing(self, answer: Sequence[Fact]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the words that stand nowhere, and those that stand elsewhere than in what answers."""
        told = [self._held_by(fact) for fact in answer]
        left = [g for g in self._groups() if not any(frozenset(map(stem, g)) <= words for words in told)]
        anywhere = frozenset(word for fact in self._facts for word in self._held_by(fact))
        topics = [
            topic
            for topic, names in self._sought.topics
            if not any(self._names.of(fact).forms & names for fact in self._facts)
        ]
        nowhere = [term for group in left for term in group if stem(term) not in anywhere]
        elsewhere = [" ".join(group) for group in left if all(stem(term) in anywhere for term in group)]
        return (*topics, *nowhere), tuple(elsewhere)

    def _groups(self) -> Sequence[tuple[str, ...]]:
        """Return the groups of words that belong together; all of them, where one fact holds all."""
        groups = self._sought.groups
        if len(groups) > 1 and any(self._of_group(self._sought.terms)):
            return (self._sought.terms,)
        return groups

    def _of_group(self, group: Sequence[str]) -> list[Fact]:
        """Return the facts that these words name; without any, those that hold all of them in their line.

        `Chest pain` is not answered by a pain score, nor `hemoglobin A1c` by a hemoglobin.
        """
        needed = frozenset(map(stem, group))
        holding = [fact for fact in self._facts if needed <= self._held_by(fact)]
        said_by = {f.id: self._names.of(f).said_in(self._sought.text, needed) for f in holding if not f.span}
        sets = {one for one in said_by.values() if one}
        best = {one for one in sets if not any(one < other for other in sets)}
        named = [fact for fact in holding if said_by.get(fact.id) in best]
        by_name = [fact for fact in holding if needed <= self._names.of(fact).broad and fact not in named]
        if not named:
            return by_name or holding
        # `Chronic cough` is a cough; a hemoglobin A1c is no hemoglobin, and a salt of a drug is no sodium.
        return [*named, *(f for f in by_name if f.kind not in OBSERVED and self._is_no_salt(f, needed))]

    def _is_no_salt(self, fact: Fact, needed: frozenset[str]) -> bool:
        return fact.kind is not Kind.MEDICATION or needed <= self._names.of(fact).words

    def _held_by(self, fact: Fact) -> frozenset[str]:
        return self._words[fact.id] | self._names.of(fact).broad

    def _is_of_kinds(self, fact: Fact) -> bool:
        sought = self._sought
        if not sought.kinds or (fact.kind in sought.kinds and self._passes(fact)):
            return True
        # `Medication reconciliation` is no medication: its whole name was said.
        return any(" " in form and said(form).search(sought.text) for form in self._names.of(fact).forms)

    def _of_kinds(self) -> list[Fact]:
        kinds = self._sought.kinds
        return [f for f in self._facts if (not kinds or f.kind in kinds) and self._passes(f)]

    def _passes(self, fact: Fact) -> bool:
        """Say whether a fact is flagged, or of a stay in hospital, where that is asked for."""
        if self._sought.admitted and not fact.category.startswith(_ADMITTED):
            return False
        return bool(fact.flags) or not self._sought.flagged


@cache
def _also_called() -> Mapping[str, frozenset[str]]:
    """Return for each name all names of the same thing, whichever of them a record uses."""
    called: dict[str, frozenset[str]] = defaultdict(frozenset)
    for first, others in lexicon().same.items():
        for name in (first, *others):
            called[name] |= {first, *others}
    return dict(called)


class _Names:
    """The names of one record: a chart repeats a few hundred of them thousands of times."""

    def __init__(self) -> None:
        self._known: dict[tuple[Kind, str], _Name] = {}

    def of(self, fact: Fact) -> _Name:
        """Return what a fact is called."""
        key = fact.kind, fact.name
        if key not in self._known:
            self._known[key] = _name(fact)
        return self._known[key]


def _name(fact: Fact) -> _Name:
    forms = {form.casefold() for form in recorded_forms(fact.name)}
    forms |= {other for form in tuple(forms) for other in _also_called().get(form, ())}
    forms |= {plain_name(code.display) for code in fact.codes if code.display}
    if fact.kind in (Kind.MEDICATION, Kind.ALLERGY, Kind.ORDER):
        for drug in lexicon().drugs:
            if any(said(form).search(fact.name) for form in drug):
                forms |= set(drug)
        # An ingredient names its product; a salt does not.
        forms |= {word for word in Source(fact).name_words if len(word) >= _LEAST_LETTERS}
    words = frozenset(map(stem, Source(fact).name_words))
    plain = plain_name(fact.name)  # `CT of chest` is written `computed tomography of chest`
    within = [
        other for form, others in lexicon().same.items() if said(form).search(plain) for other in others
    ]
    broad = frozenset(word for form in (*forms, *within, fact.category) for word in _stems(form)) | words
    return _Name(frozenset(form for form in forms if len(form) > 1), words, broad)


def _at_time(facts: Sequence[Fact], sought: Sought) -> tuple[list[Fact], list[Fact]]:
    """Return (those of the time that is asked for, the others), each newest first."""
    ordered = sorted(facts, key=in_order, reverse=True)
    wanted = ordered
    if sought.dates:
        wanted = [fact for fact in wanted if any(_within(fact, day) for day in sought.dates)]
    if sought.current:
        wanted = [fact for fact in wanted if fact.kind not in _ENDURE or fact.status in _CURRENT]
    if sought.newest or sought.oldest:
        wanted = list(_ends(wanted, sought))
    kept = {fact.id for fact in wanted}
    return wanted, [fact for fact in ordered if fact.id not in kept]


def _within(fact: Fact, day: DateToken) -> bool:
    return any(day.within(_token(when.day)) for when in (fact.when, fact.until) if when is not None)


def _token(day: date) -> DateToken:
    return DateToken(day.year, day.month, day.day)


def _ends(facts: Sequence[Fact], sought: Sought) -> Iterator[Fact]:
    """Yield the newest, or the oldest, of each name; where only a kind was asked for, of all together."""
    choose: Callable[[Iterable[date]], date] = min if sought.oldest and not sought.newest else max
    days: dict[object, list[date]] = defaultdict(list)

    def series(fact: Fact) -> object:
        return (fact.kind, fact.name) if sought.terms or sought.topics or not sought.kinds else None

    def day_of(when: When | None) -> date:
        return when.day if when is not None else date.min

    dated = [fact for fact in facts if fact.when is not None] or list(facts)
    for fact in dated:
        days[series(fact)].append(day_of(fact.when))
    for fact in dated:
        if day_of(fact.when) == choose(days[series(fact)]):
            yield fact


def _stems(text: str) -> frozenset[str]:
    return frozenset(map(stem, words_of(text)))
