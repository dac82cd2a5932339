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

from service.grounding import phrases
from service.grounding.summary import Verdict
from service.grounding.wording import recorded_forms
from service.grounding.words import take_apart
from service.record.dates import days_between
from service.record.facts import Fact, Kind, PatientRecord, Precision, Status, When
from service.record.identity import age_on

Finding = tuple[Verdict, str]

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

    @cached_property
    def by_source(self) -> dict[str, list[Fact]]:
        """Every fact by the resource that it was read from."""
        found: dict[str, list[Fact]] = {}
        for fact in self.record.facts:
            found.setdefault(fact.source.reference, []).append(fact)
        return found

    def has_all_of(self, fact: Fact) -> bool:
        """False where resources of this fact's type were not fetched whole."""
        return not any(
            gap.resource_type is None or fact.source.reference.startswith(f"{gap.resource_type}/")
            for gap in self.record.gaps
        )

    def series(self, fact: Fact) -> list[Fact]:
        """Return every value of the same thing, in the same person: by name, or by a code that both have."""
        found = {
            other.id: other
            for key in _keys(fact)
            for other in self._by_key.get(key, ())
            if other.person == fact.person
        }
        return list(found.values())

    @cached_property
    def _by_key(self) -> dict[tuple[Kind, str], list[Fact]]:
        found: dict[tuple[Kind, str], list[Fact]] = {}
        for fact in self.record.facts:
            if fact.status is not Status.CANCELLED:
                for key in _keys(fact):
                    found.setdefault(key, []).append(fact)
        return found


def _keys(fact: Fact) -> set[tuple[Kind, str]]:
    coded = {f"{code.system}|{code.code}" for code in fact.codes}
    return {(fact.kind, name) for name in {fact.name.casefold(), *coded}}


class _Rule(NamedTuple):
    pattern: re.Pattern[str]
    check: Callable[[Fact, re.Match[str], Whole], Finding | None]
    kinds: frozenset[Kind]


def computed(text: str, facts: Sequence[Fact], whole: Whole) -> tuple[str, list[Finding]]:
    """Return a sentence without what was derived rightly, and a finding for each that was derived wrongly.

    Only sentences about one fact are computed; of several it is not clear what is derived from which.
    """
    findings: list[Finding] = []
    told = [fact for fact in facts if fact.kind is not Kind.PATIENT]  # who is cited for the birth date
    if len(told) != 1:
        return text, findings
    (fact,) = told
    whole_text = text
    for rule in _RULES:
        for _ in range(_MOST_TOLD):
            match = _first(rule, text, fact)
            if match is None:
                break
            finding = rule.check(fact, match, whole)
            if finding is not None:
                findings.append(finding)
            if rule.check is _is_current:
                break  # the words are borne out by the cited fact too, and are judged there
            if phrases.DENIED.search(text[: match.start()]):
                findings.append(
                    (Verdict.NOT_CHECKED, "negation_not_in_source")
                )  # `not only`, `never the last`
            kept = match.groupdict().get("kept") or ""
            text = f"{text[: match.start()]} {kept} {text[match.end() :]} {_over(rule, fact, text)}"
    if fact.kind in _OBSERVED and text == whole_text and _tells_the_present(text):
        overtaken = _overtaken(fact, whole)  # a value that is, without a day, is the latest
        return text, [overtaken] if overtaken else []
    return text, findings


def _tells_the_present(text: str) -> bool:
    """Say whether a value is told as the present one: by `is` or `has`, or with neither day nor past."""
    told = f" {text} "
    return bool(phrases.IS.search(told)) or not (take_apart(text).dates or phrases.PAST.search(told))


def _first(rule: _Rule, text: str, fact: Fact) -> re.Match[str] | None:
    """Return where a rule first applies, passed over what stands in the recorded name itself."""
    if fact.kind not in rule.kinds:
        return None
    names = [
        match.span()
        for form in recorded_forms(fact.name)
        for match in re.finditer(re.escape(form), text, re.I)
    ]
    return next(
        (
            match
            for match in rule.pattern.finditer(text)
            if not any(start <= match.start() and match.end() <= end for start, end in names)
        ),
        None,
    )


def _is_latest(fact: Fact, match: re.Match[str], whole: Whole) -> Finding | None:
    return _overtaken(fact, whole)


def _overtaken(fact: Fact, whole: Whole) -> Finding | None:
    return _unknown(fact, whole) or next(_beyond(fact, whole, _is_newer, "a_newer_one_is_recorded"), None)


def _is_first(fact: Fact, match: re.Match[str], whole: Whole) -> Finding | None:
    return _unknown(fact, whole) or next(_beyond(fact, whole, _is_older, "an_older_one_is_recorded"), None)


def _is_only(fact: Fact, match: re.Match[str], whole: Whole) -> Finding | None:
    if len(whole.series(fact)) > 1:
        return Verdict.SUPERSEDED, "others_are_recorded"
    return _unknown(fact, whole)


def _is_highest(fact: Fact, match: re.Match[str], whole: Whole) -> Finding | None:
    return _is_extreme(fact, whole, max)


def _is_lowest(fact: Fact, match: re.Match[str], whole: Whole) -> Finding | None:
    return _is_extreme(fact, whole, min)


def _is_extreme(fact: Fact, whole: Whole, end: Callable[[list[Decimal]], Decimal]) -> Finding | None:
    do_not_compare = Verdict.NOT_CHECKED, "values_that_do_not_compare"
    own = fact.quantity
    if own is None:
        return do_not_compare
    numbers = []
    for other in (fact, *whole.series(fact)):  # a cancelled value is no part of its series
        quantity = other.quantity
        if quantity is None or quantity.number is None or quantity.comparator or quantity.unit != own.unit:
            return do_not_compare
        numbers.append(quantity.number)
    if own.number != end(numbers):
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
    if phrases.ENDED.search(match.string[: match.start()]):  # the age at the end is another
        return Verdict.NOT_CHECKED, "age_not_computable"
    if when is None or when.precision not in _TO_THE_DAY or len(born) != len("1951-05-04"):
        return Verdict.NOT_CHECKED, "age_not_computable"
    is_so = age_on(born, when.day) == _number(match)
    return None if is_so else (Verdict.UNSUPPORTED, "age_is_another")


def _has_lasted(fact: Fact, match: re.Match[str], whole: Whole) -> Finding | None:
    days = days_between(fact.when, fact.until)
    tells_sequence = re.search(r"\b(?:later|after)\b", match.group(), re.IGNORECASE)
    if tells_sequence and not phrases.ENDED.search(match.string[: match.start()]):
        return Verdict.NOT_CHECKED, "duration_not_computable"  # `21 days later` than what?
    if days is None:
        return Verdict.NOT_CHECKED, "duration_not_computable"
    unit = 7 if match["unit"].casefold().startswith("week") else 1
    return None if days == unit * _number(match) else (Verdict.UNSUPPORTED, "duration_is_another")


def _number(match: re.Match[str]) -> int:
    text = next(told for told in match.groups() if told).casefold()
    return phrases.NUMBERS.index(text) + 1 if text in phrases.NUMBERS else int(text)


def _unknown(fact: Fact, whole: Whole) -> Finding | None:
    if not whole.is_read_whole:
        return Verdict.NOT_CHECKED, "record_not_read_whole"
    if fact.when is None or any(other.when is None for other in whole.series(fact)):
        return Verdict.NOT_CHECKED, "undated_values"
    return None


def _is_newer(one: When, other: When) -> bool:
    return one.latest > other.latest


def _is_older(one: When, other: When) -> bool:
    return one.earliest < other.earliest


def _beyond(
    fact: Fact, whole: Whole, is_beyond: Callable[[When, When], bool], reason: str
) -> Iterator[Finding]:
    """Yield a finding where another value is newer (or older), or as new."""
    assert fact.when is not None
    for other in whole.series(fact):
        if other.id == fact.id or other.when is None:
            continue
        if is_beyond(other.when, fact.when):
            yield Verdict.SUPERSEDED, reason
        elif other.when.latest >= fact.when.earliest and other.when.earliest <= fact.when.latest:
            yield Verdict.NOT_CHECKED, "another_of_the_same_time"


def _rule(
    pattern: re.Pattern[str],
    check: Callable[[Fact, re.Match[str], Whole], Finding | None],
    *kinds: Kind,
) -> _Rule:
    return _Rule(pattern, check, frozenset(kinds) or _OBSERVED)


_OVER = frozenset({Status.STOPPED, Status.NOT_DONE, Status.CANCELLED, Status.RESOLVED, Status.REFUTED,
                   Status.INACTIVE, Status.COMPLETED})  # fmt: skip
_MOST_TOLD = 3
"""How often one thing is told in a sentence: `the only one, measured once`."""
_LASTING = (Kind.PROBLEM, Kind.ENCOUNTER)
_BEGINNING = (Kind.PROBLEM, Kind.PROCEDURE, Kind.ENCOUNTER, Kind.IMMUNIZATION)
_CURRENT = (Kind.MEDICATION, Kind.PROBLEM, Kind.ALLERGY)
_RULES = (
    _rule(phrases.CURRENT, _is_current, *_CURRENT),
    _rule(phrases.LATEST, _is_latest),
    _rule(phrases.NO_NEWER, _is_latest),
    _rule(phrases.FIRST, _is_first),
    _rule(phrases.HIGHEST, _is_highest),
    _rule(phrases.LOWEST, _is_lowest),
    _rule(phrases.OTHER_THAN, _is_only),
    _rule(phrases.ONLY, _is_only),
    _rule(phrases.AGED, _is_aged, *_BEGINNING),
    _rule(phrases.LASTED, _has_lasted, *_LASTING),
)


def _over(rule: _Rule, fact: Fact, text: str) -> str:
    """Return the status that a sentence implies: what lasted is over, and so is what was at an age."""
    is_over = fact.kind is Kind.PROBLEM and fact.status in (Status.RESOLVED, Status.INACTIVE)
    told = rule.check in (_has_lasted, _is_aged) and not phrases.PRESENT.search(text)
    return fact.status.value if is_over and told else ""
