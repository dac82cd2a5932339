"""What a sentence derives from the record: the latest, first, highest or only one, an age, a duration.

Each is computed again, from the whole record where it speaks of the whole (SAFETY 8), and then passed over,
so that the rest of the sentence is judged as it stands. What is not computed here stays in the sentence and
is refused there as words that no source bears.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

from service.grounding.summary import Verdict
from service.grounding.words import take_apart
from service.record.dates import days_between
from service.record.facts import Fact, Kind, PatientRecord, Precision, Status
from service.record.identity import age_on

Finding = tuple[Verdict, str]

NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()
_COUNT = rf"(?P<n>\d{{1,5}}|{'|'.join(NUMBERS)})"
_COUNT_2, _COUNT_3, _COUNT_4 = (_COUNT.replace("<n>", f"<{name}>") for name in "mkl")
_TO_THE_DAY = (Precision.DAY, Precision.TIME)
_OBSERVED = frozenset({Kind.RESULT, Kind.VITAL})


@dataclass(frozen=True)
class Whole:
    """The whole record, for what is said of the present or of all of it."""

    record: PatientRecord

    @cached_property
    def is_read_whole(self) -> bool:
        """False where observations were not fetched whole: then nothing is the latest or the only one."""
        return not any(gap.resource_type in (None, "Observation") for gap in self.record.gaps)

    def has_all_of(self, fact: Fact) -> bool:
        """False where resources of this fact's type were not fetched whole."""
        own = fact.source.reference.partition("/")[0]
        return not any(gap.resource_type in (None, own) for gap in self.record.gaps)

    def series(self, fact: Fact) -> list[Fact]:
        """Return every value of the same thing, in the same person: by name, or by a code that both have."""
        codes = {(code.system, code.code) for code in fact.codes}
        return [
            other
            for other in self.record.facts
            if other.kind is fact.kind
            and other.status is not Status.CANCELLED
            and other.person == fact.person
            and (
                other.name.casefold() == fact.name.casefold()
                or any((code.system, code.code) in codes for code in other.codes)
            )
        ]


class _Rule(NamedTuple):
    pattern: re.Pattern[str]
    check: Callable[[Fact, re.Match[str], Whole], Finding | None]
    kinds: frozenset[Kind]
    stays: bool = False
    """True where the words are borne out by the cited fact too, and are judged there."""


def computed(text: str, facts: Sequence[Fact], whole: Whole) -> tuple[str, list[Finding]]:
    """Return a sentence without what was derived rightly, and a finding for each that was derived wrongly.

    Only sentences about one fact are computed; of several it is not clear what is derived from which.
    """
    findings: list[Finding] = []
    told = [fact for fact in facts if fact.kind is not Kind.PATIENT]  # who is cited for the birth date
    if len(told) != 1:
        return text, findings
    (fact,) = told
    speaks_of_all = False
    for rule in _RULES:
        match = rule.pattern.search(text) if fact.kind in rule.kinds else None
        if match is None:
            continue
        finding = rule.check(fact, match, whole)
        if finding is not None:
            findings.append(finding)
        if rule.stays:
            continue
        speaks_of_all = True
        # What lasted so long is over: the sentence says the status.
        over = Status.RESOLVED.value if rule.check is _has_lasted and fact.status is Status.RESOLVED else ""
        kept = match.groupdict().get("kept") or ""
        text = f"{text[: match.start()]} {kept} {text[match.end() :]} {over}"
    if fact.kind in _OBSERVED and not speaks_of_all and _IS.search(text) and not take_apart(text).dates:
        overtaken = _unknown(fact, whole) or next(_beyond(fact, whole, newer=True), None)
        findings += [overtaken] if overtaken else []  # a value that is, without a day, is the latest
    return text, findings


def _is_latest(fact: Fact, match: re.Match[str], whole: Whole) -> Finding | None:
    return _unknown(fact, whole) or next(_beyond(fact, whole, newer=True), None)


def _is_first(fact: Fact, match: re.Match[str], whole: Whole) -> Finding | None:
    return _unknown(fact, whole) or next(_beyond(fact, whole, newer=False), None)


def _is_only(fact: Fact, match: re.Match[str], whole: Whole) -> Finding | None:
    if len(whole.series(fact)) > 1:
        return Verdict.SUPERSEDED, "others_are_recorded"
    return _unknown(fact, whole)


def _is_highest(fact: Fact, match: re.Match[str], whole: Whole) -> Finding | None:
    return _is_extreme(fact, whole, max)


def _is_lowest(fact: Fact, match: re.Match[str], whole: Whole) -> Finding | None:
    return _is_extreme(fact, whole, min)


def _is_extreme(fact: Fact, whole: Whole, end: Callable[[list[Decimal]], Decimal]) -> Finding | None:
    numbers = []
    for other in whole.series(fact):
        quantity, own = other.quantity, fact.quantity
        if (
            own is None
            or quantity is None
            or quantity.number is None
            or quantity.comparator
            or (quantity.unit != own.unit)
        ):
            return Verdict.NOT_CHECKED, "values_that_do_not_compare"
        numbers.append(quantity.number)
    if fact.quantity is None or fact.quantity.number != end(numbers):
        return Verdict.SUPERSEDED, "another_value_is_further_out"
    return _unknown(fact, whole)


def _is_current(fact: Fact, match: re.Match[str], whole: Whole) -> Finding | None:
    """Say whether a newer entry on the same thing has another status: then it is not so any more."""
    for other in whole.series(fact):
        newest = other.until or other.when
        is_newer = newest is not None and fact.when is not None and newest.earliest > fact.when.latest
        if is_newer and other.status is not fact.status and other.status in _OVER:
            return Verdict.SUPERSEDED, "a_newer_status_is_recorded"
    return None


def _is_aged(fact: Fact, match: re.Match[str], whole: Whole) -> Finding | None:
    born, when = whole.record.identity.birth_date, fact.when
    if when is None or when.precision not in _TO_THE_DAY or len(born) != len("1951-05-04"):
        return Verdict.NOT_CHECKED, "age_not_computable"
    is_so = age_on(born, when.day) == _number(match)
    return None if is_so else (Verdict.UNSUPPORTED, "age_is_another")


def _has_lasted(fact: Fact, match: re.Match[str], whole: Whole) -> Finding | None:
    days = days_between(fact.when, fact.until)
    if days is None:
        return Verdict.NOT_CHECKED, "duration_not_computable"
    return None if days == _number(match) else (Verdict.UNSUPPORTED, "duration_is_another")


def _number(match: re.Match[str]) -> int:
    text = next(group for group in match.groups() if group).casefold()
    return NUMBERS.index(text) + 1 if text in NUMBERS else int(text)


def _unknown(fact: Fact, whole: Whole) -> Finding | None:
    if not whole.is_read_whole:
        return Verdict.NOT_CHECKED, "record_not_read_whole"
    if fact.when is None or any(other.when is None for other in whole.series(fact)):
        return Verdict.NOT_CHECKED, "undated_values"
    return None


def _beyond(fact: Fact, whole: Whole, *, newer: bool) -> Iterator[Finding]:
    """Yield a finding where another value is newer (or older), or as new."""
    assert fact.when is not None
    for other in whole.series(fact):
        if other.id == fact.id or other.when is None:
            continue
        is_beyond = (
            other.when.latest > fact.when.latest if newer else other.when.earliest < fact.when.earliest
        )
        if is_beyond:
            yield Verdict.SUPERSEDED, "a_newer_one_is_recorded" if newer else "an_older_one_is_recorded"
        elif other.when.latest >= fact.when.earliest and other.when.earliest <= fact.when.latest:
            yield Verdict.NOT_CHECKED, "another_of_the_same_time"


def _rule(pattern: str, check: Callable[[Fact, re.Match[str], Whole], Finding | None], *kinds: Kind) -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE), check, frozenset(kinds) or _OBSERVED)


_OVER = frozenset({Status.STOPPED, Status.NOT_DONE, Status.CANCELLED, Status.RESOLVED, Status.REFUTED,
                   Status.INACTIVE, Status.COMPLETED})  # fmt: skip
_LASTING = (Kind.PROBLEM, Kind.ENCOUNTER)
_IS = re.compile(r"\b(?:is|are)\b", re.IGNORECASE)
_RULES = (
    _Rule(re.compile(r"\b(?:active|current|currently|ongoing|still|continues)\b", re.I), _is_current,
          frozenset({Kind.MEDICATION, Kind.PROBLEM, Kind.ALLERGY}), stays=True),
    _rule(r"\b(?:as of(?= \S*\d)|most recently|most recent|last recorded|latest|newest|last)\b", _is_latest),
    _rule(r"\b(?:most recently|most recent|last recorded|latest|newest)\b", _is_latest),
    _rule(r"\b(?:first recorded|first measured|first documented at|first measurement of|earliest recorded|"
          r"earliest|first)\b", _is_first),
    _rule(r"\b(?:highest|maximum)(?: recorded)?(?: value)?(?: of)?(?: ever recorded)?\b", _is_highest),
    _rule(r"\b(?:lowest|minimum)(?: recorded)?(?: value)?(?: of)?(?: ever recorded)?\b", _is_lowest),
    _rule(r"\bno (?P<kept>.{2,120}?) other than\b", _is_only),
    _rule(r"\b(?:there is no other|apart from|only one|the sole|once only|sole)\b", _is_only),
    _rule(r"\b(?:no other value is on record|no other|on record than)\b", _is_only),
    _rule(rf"\b(?:at (?:the )?age(?: of)?|aged|age) {_COUNT}\b|\b(?:was|at) {_COUNT_2} years (?:old|of age)\b"
          rf"|\bwas {_COUNT_3}(?= when\b)", _is_aged,
          Kind.PROBLEM, Kind.PROCEDURE, Kind.ENCOUNTER, Kind.IMMUNIZATION),
    _rule(rf"\b(?:lasted|for|duration|stay of|length of stay|persisted for|was|stayed) {_COUNT} days?\b"
          rf"|\({_COUNT_4} days?\)|(?<=discharged) {_COUNT_2} days? later\b|(?<=resolved) {_COUNT_3} days? after its\b",
          _has_lasted, *_LASTING),
)  # fmt: skip
