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
from service.grounding.wording import recorded_forms
from service.grounding.words import take_apart
from service.record.dates import days_between
from service.record.facts import Fact, Kind, PatientRecord, Precision, Status
from service.record.identity import age_on

Finding = tuple[Verdict, str]

NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()
_COUNT = rf"(?P<n>\d{{1,5}}|{'|'.join(NUMBERS)})"
_COUNT_2, _COUNT_3, _COUNT_4, _COUNT_5 = (_COUNT.replace("<n>", f"<{name}>") for name in "mklj")
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
        for _ in range(_MOST_TOLD):
            match = _first(rule, text, fact)
            if match is None:
                break
            finding = rule.check(fact, match, whole)
            if finding is not None:
                findings.append(finding)
            if rule.stays:
                break
            speaks_of_all = True
            kept = match.groupdict().get("kept") or ""
            text = f"{text[: match.start()]} {kept} {text[match.end() :]} {_over(rule, fact, text)}"
    if fact.kind in _OBSERVED and not speaks_of_all and _IS.search(text) and not take_apart(text).dates:
        overtaken = _unknown(fact, whole) or next(_beyond(fact, whole, newer=True), None)
        findings += [overtaken] if overtaken else []  # a value that is, without a day, is the latest
    return text, findings


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
    unit = 7 if match["unit"].casefold().startswith("week") else 1
    return None if days == unit * _number(match) else (Verdict.UNSUPPORTED, "duration_is_another")


def _number(match: re.Match[str]) -> int:
    text = next(match[name] for name in "nmklj" if match.groupdict().get(name)).casefold()
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
_MOST_TOLD = 3
"""How often one thing is told in a sentence: `the only one, measured once`."""
_LASTING = (Kind.PROBLEM, Kind.ENCOUNTER)
_IS = re.compile(r"\b(?:is|are)\b", re.IGNORECASE)
_PRESENT = re.compile(
    r"\b(?:is|are|has|have|since|remains?|continu\w+|ongoing|still|current\w*|now|active|lives|suffers)\b",
    re.IGNORECASE,
)
_ONE = (
    r"(?:value|result|measurement|reading|recording|record|entry|one|determination|observation|test|occasion)"
)
_YEARS = r"[- ]?(?:years?|yrs?|y/o|yo)(?:[- ](?:of age|old))?"
_RULES = (
    _Rule(re.compile(r"\b(?:active|current|currently|ongoing|still|continues|remains|now)\b", re.I), _is_current,
          frozenset({Kind.MEDICATION, Kind.PROBLEM, Kind.ALLERGY}), stays=True),
    _rule(r"\b(?:as of(?= \S*\d)|most recently|most recent|most up[- ]to[- ]date|last recorded|latest|newest|"
          r"current(?:ly)?|presently|at present|now|last)\b", _is_latest),
    _rule(r"\bno (?:newer|later|more recent|subsequent) (?P<kept>.{0,120}?)(?: has been| was| is)? "
          r"(?:recorded|measured|on record|available|exists?|documented)(?: since)?\b", _is_latest),
    _rule(r"\b(?:first (?=recorded|measured|documented|noted|seen|obtained|checked)|earliest|first ever|for the first "
          r"time|oldest|initially|initial|first)\b", _is_first),
    _rule(r"\b(?:(?:all-time |record )?high(?=[ ,:]+(?:of|was|on record))|highest|maximum|maximal|peak(?:ed)?|greatest|largest)"
          r"(?: recorded)?(?: value)?(?: of)?(?: ever recorded)?\b", _is_highest),
    _rule(r"\b(?:never (?:been )?(?:measured |recorded )?(?:higher|above|over|greater)(?: than)?|never exceeded)\b", _is_highest),
    _rule(r"\b(?:(?:all-time |record )?low(?=[ ,:]+(?:of|was|on record))|lowest|minimum|minimal|nadir|smallest)"
          r"(?: recorded)?(?: value)?(?: of)?(?: ever recorded)?\b", _is_lowest),
    _rule(r"\b(?:never (?:been )?(?:measured |recorded )?(?:lower|below|under|less)(?: than)?)\b", _is_lowest),
    _rule(r"\bno (?:other |further |additional |second )?(?P<kept>.{0,120}?) ?\b(?:other than|besides|except(?: for)?|apart from|"
          r"aside from|beyond|but)\b", _is_only),
    _rule(r"\b(?:there (?:is|are) no other|no other (?:\w+ )?(?:values?|results?|measurements?|readings?|entry|entries)"
          r"(?: (?:is|are|was|were|has been|have been) (?:on record|recorded|available|documented|found))?|"
          r"no other|on record than|(?:apart|aside) from|besides|except for|"
          r"no (?:further|additional|repeat|subsequent|second|more) (?:\w+ )?(?:values?|results?|measurements?|readings?)|"
          r"(?:has |was )?(?:not|never) (?:been )?(?:repeated|measured again|recorded again|checked again)|"
          rf"(?:the |a |only |just |exactly |but )*(?:only|sole|single|solitary|unique|lone)(?: (?:one|single|a single))?(?: {_ONE})?|"
          r"(?:only |just |exactly |but )*(?:once|one time)(?: only)?|(?:only|just|exactly) one)\b", _is_only),
    _rule(rf"\b(?:at (?:the )?age(?: of)?|aged|age(?: (?:at|of)(?: onset)?)?:?(?: was| of)?) {_COUNT}\b(?:{_YEARS})?"
          rf"|\b(?:at|was|were|is|when|being|as an?|a)? ?{_COUNT_2}(?:[- ]?(?:years?|yrs?)[- ](?:old|of age)|[- ]?(?:y/o|yo))\b"
          rf"|\bwas {_COUNT_3}(?=,? (?:when|at the time|at onset|at diagnosis)\b)|\bat {_COUNT_4} years\b|\bwhen (?:\w+ )?\w+ was {_COUNT_5}\b", _is_aged,
          Kind.PROBLEM, Kind.PROCEDURE, Kind.ENCOUNTER, Kind.IMMUNIZATION),
    _rule(rf"\b(?:(?:last(?:ed|ing)|for|duration(?: of| was|:)?|stay(?:ed)?(?: of)?|length(?: of stay)?(?: of| was|:)?|persist(?:ed|ing)"
          rf"(?: for)?|was|after|within|took|spanning|spanned|totall?ing|a|of|total of) )*(?:a total of )?{_COUNT}[- ](?:full )?(?P<unit>days?|weeks?)"
          r"(?: (?:later|long|in (?:duration|length|total)|in all|after(?: its?)?(?: the)?(?= (?:onset|start|beginning|admission)\b)))?\b",
          _has_lasted, *_LASTING),
)  # fmt: skip


def _over(rule: _Rule, fact: Fact, text: str) -> str:
    """Return the status that a sentence implies: what lasted so long is over, and so is what was, at an age."""
    is_over = fact.kind is Kind.PROBLEM and fact.status in (Status.RESOLVED, Status.INACTIVE)
    told = rule.check is _has_lasted or (rule.check is _is_aged and not _PRESENT.search(text))
    return fact.status.value if is_over and told else ""
