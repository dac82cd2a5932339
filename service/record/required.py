"""Required facts (SAFETY 7): what no summary may leave out, and what may be said where there is nothing.

Absence is never inferred (SAFETY 5): "none recorded" needs a type that was fetched and read whole. Conflicts
are shown with the facts that they are between, and never resolved (SAFETY 12).
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, lru_cache
from importlib import resources
from typing import Any, NamedTuple

from connectors.fhir.pull import Gap, GapReason
from service.record.allergies import NONE_KNOWN
from service.record.assemble import READER_FAILED, RESTRICTED, UNREADABLE, WITHOUT_SUBJECT
from service.record.dates import on_day, span
from service.record.facts import (
    Absence,
    Fact,
    FactId,
    Kind,
    PatientRecord,
    Precision,
    RequiredKind,
    Status,
)
from service.record.identity import age_on
from service.record.rules import Limit, Match, RequiredRules, Rule, default_rules

WITHHELD = "part of the record is withheld"
NOT_READ = "a resource of this kind could not be read"
_OVER = (Status.REFUTED, Status.RESOLVED, Status.CANCELLED, Status.STOPPED, Status.COMPLETED, Status.INACTIVE)
_CRITICALITY = {"high": 0, "unable-to-assess": 1, "": 2, "low": 3}
_GIVEN = (Status.COMPLETED, Status.IN_PROGRESS, Status.STOPPED)
"""Of an administration: some of the drug was given."""
_SAID_OVER = {
    Status.STOPPED: "stopped",
    Status.COMPLETED: "completed",
    Status.CANCELLED: "cancelled",
    Status.NOT_DONE: "not taken",
}
_LETTERS = re.compile(r"[^\W\d_]+")
_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")


class Conflict(NamedTuple):
    """A sentence that names what does not agree, and the facts that it is about."""

    sentence: str
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class LastGiven:
    """Drugs whose newest administration is required, although it is over, in the kind `key`."""

    key: str
    match: Match
    window_days: int


@dataclass(frozen=True, slots=True)
class Watched:
    """What is watched across kinds, as `required.toml` describes it below the rules."""

    last_given: tuple[LastGiven, ...]
    least_letters: int
    forms: frozenset[str]
    salts: frozenset[str]
    classes: tuple[tuple[str, Match], ...]
    weights_apart: frozenset[tuple[str, str]]


def required_facts(
    record: PatientRecord, *, encounter: str | None = None, rules: RequiredRules | None = None
) -> tuple[RequiredKind, ...]:
    """Return every required kind in the order in which it is shown, each in one of three states.

    `encounter` (`Encounter/9`) is the encounter at hand: it becomes a kind of its own, and its facts are
    always within every window. Windows count back from `record.as_of`. Weight is left out for adults.
    """
    found: list[RequiredKind] = []
    rules = rules or default_rules()
    for rule in rules.rules:
        if rule.under_age is not None and not _is_under(record, rule.under_age):
            continue
        found.append(_required(record, rule, rules, encounter))
        if rule.key == "identity" and encounter is not None:
            found.append(_encounter_kind(record, encounter))
    return tuple(found)


def _required(record: PatientRecord, rule: Rule, rules: RequiredRules, encounter: str | None) -> RequiredKind:
    matching = [f for f in record.facts if f.kind in rule.kinds and _counts(f, rule, record)]
    facts = _sorted([f for f in matching if _is_within(f, rule, record, encounter)], rule.sort)
    conflicts = _conflicts(facts, record, rule, rules, encounter)
    # No cap hides what was given last, or one side of a conflict.
    kept = {f.id: f for f in (*_last_given(record, rule), *(f for c in conflicts for f in c.facts))}
    others = [f for f in facts if f.id not in kept]
    listed = _sorted([*others[: max(0, rule.cap - len(kept))], *kept.values()], rule.sort)
    reason = missing_reason(record, rule.types, rule.also)
    state = Absence.NOT_RETRIEVED if reason else Absence.LISTED if listed else Absence.NONE_RECORDED
    if state is Absence.NONE_RECORDED and record.skipped.get(RESTRICTED):
        # Said of every empty kind alike, so that it does not tell which kind is withheld (SAFETY 20).
        state, reason = Absence.NOT_RETRIEVED, WITHHELD
    return RequiredKind(
        key=rule.key,
        title=rule.title,
        state=state,
        facts=tuple(f.id for f in listed),
        reason=reason,
        conflict=" ".join(conflict.sentence for conflict in conflicts),
        hidden=len(others) + len(kept) - len(listed),
        essential=rule.essential,
    )


def _encounter_kind(record: PatientRecord, encounter: str) -> RequiredKind:
    facts: tuple[FactId, ...] = tuple(
        f.id for f in record.facts if f.kind is Kind.ENCOUNTER and f.source.reference == encounter
    )
    reason = missing_reason(record, frozenset({"Encounter"}), frozenset())
    if not facts and not reason:
        reason = "the encounter at hand is not among what was read"
    state = Absence.NOT_RETRIEVED if reason else Absence.LISTED
    return RequiredKind("encounter", "This encounter", state, facts, reason, essential=True)


def missing_reason(record: PatientRecord, types: Iterable[str], also: Iterable[str]) -> str:
    """Return why absence may not be stated for these types; empty where all were fetched and read whole.

    A type of `also` that the server does not offer is no gap: another type holds such facts.
    """
    needed, helpful = frozenset(types), frozenset(also)
    reasons = [_gap_words(gap) for gap in record.gaps if _concerns(gap, needed, helpful)]
    for problem in record.problems:
        kind, _, what = problem.partition(": ")
        if kind in needed | helpful and what in (UNREADABLE, READER_FAILED, WITHOUT_SUBJECT):
            reasons.append(NOT_READ)
    return "; ".join(dict.fromkeys(reasons))


def _concerns(gap: Gap, needed: frozenset[str], helpful: frozenset[str]) -> bool:
    if gap.resource_type is None or gap.resource_type in needed:
        return True
    return gap.resource_type in helpful and gap.reason is not GapReason.NOT_SUPPORTED


def _gap_words(gap: Gap) -> str:
    what = gap.resource_type or "the whole record"
    return f"{what}: {gap.reason.value}{f' ({gap.detail})' if gap.detail else ''}"


def _is_under(record: PatientRecord, years: int) -> bool:
    """Tell whether the patient was younger than this at the record's newest time; True where unknown."""
    if record.as_of is None:
        return True
    age = age_on(record.identity.birth_date, record.as_of.day)
    return age is None or age < years


def _counts(fact: Fact, rule: Rule, record: PatientRecord) -> bool:
    """Tell whether a fact is of the required kind: by flags and limits, or by status, codes and words."""
    if fact.span is not None:  # the note itself counts, not each of its sentences
        return False
    if fact.person.role != "patient":
        # A critical finding in a fetus belongs before the reader's eyes; its text says whose it is.
        return _is_flagged(fact, rule)
    if rule.flags or rule.limits:
        return fact.status in rule.statuses or _is_critical(fact, rule, record)
    if rule.statuses and fact.status not in rule.statuses and not _forbids(fact, rule):
        return False
    if not rule.match or fact.kind in rule.whole_kinds:
        return True
    return fact.kind is Kind.DIRECTIVE or rule.match.marks(fact.codes, fact.name)


def _forbids(fact: Fact, rule: Rule) -> bool:
    record = dict(fact.details).get("record", "")
    return fact.status is Status.NOT_DONE and record in rule.not_done


def _is_critical(fact: Fact, rule: Rule, record: PatientRecord) -> bool:
    if fact.status is Status.CANCELLED:
        return False
    return _is_flagged(fact, rule) or any(_is_beyond(fact, limit, record) for limit in rule.limits)


def _is_flagged(fact: Fact, rule: Rule) -> bool:
    return any(flag.lower() in rule.flags for flag in fact.flags)


def _is_beyond(fact: Fact, limit: Limit, record: PatientRecord) -> bool:
    quantity = fact.quantity
    if quantity is None or quantity.number is None or quantity.unit not in limit.units:
        return False
    if not any((code.system, code.code) in limit.codes for code in fact.codes):
        return False
    day = fact.when.day if fact.when else record.as_of.day if record.as_of else None
    age = age_on(record.identity.birth_date, day) if day else None
    if age is not None and age < limit.age_from:
        return False
    too_low = limit.low is not None and (
        quantity.number < limit.low or (quantity.number <= limit.low and "<" in quantity.comparator)
    )
    too_high = limit.high is not None and (
        quantity.number > limit.high or (quantity.number >= limit.high and ">" in quantity.comparator)
    )
    return too_low or too_high


def _is_within(fact: Fact, rule: Rule, record: PatientRecord, encounter: str | None) -> bool:
    if rule.window_days is None or fact.when is None or record.as_of is None:
        return True
    if encounter is not None and fact.encounter == encounter:
        return True
    return fact.when.latest >= record.as_of.earliest - timedelta(days=rule.window_days)


def _sorted(facts: list[Fact], sort: str) -> list[Fact]:
    """Newest first; undated ones before all, since their age is unknown. Allergies: high criticality."""
    ranked = sorted(facts, key=lambda f: f.id)
    ranked.sort(key=lambda f: f.when.earliest.timestamp() if f.when else float("inf"), reverse=True)
    if sort == "criticality":
        ranked.sort(key=lambda f: _CRITICALITY.get(dict(f.details).get("criticality", ""), 2))
        ranked.sort(key=lambda f: f.status in _OVER)
    return ranked


def load_watched(data: Mapping[str, Any]) -> Watched:
    """Read what is watched from a parsed TOML document. Raises KeyError, ValueError or TypeError."""
    substances = data["substances"]
    return Watched(
        last_given=tuple(
            LastGiven(entry["key"], _match(entry), int(entry["window_days"])) for entry in data["last_given"]
        ),
        least_letters=int(substances["least_letters"]),
        forms=frozenset(map(_fold, substances["forms"].split())),
        salts=frozenset(map(_fold, substances["salts"].split())),
        classes=tuple((entry["name"], _match(entry)) for entry in substances["classes"]),
        weights_apart=_match({"codes": data["weights"]["apart"]}).codes,
    )


@cache
def watched() -> Watched:
    """Return what is watched by the data that ships with this package."""
    text = resources.files("service.record").joinpath("required.toml").read_text(encoding="utf-8")
    return load_watched(tomllib.loads(text))


def _match(entry: Mapping[str, Any]) -> Match:
    pairs = ((system, code) for system, _, code in (str(c).rpartition("|") for c in entry.get("codes", ())))
    words = entry.get("words")
    return Match(frozenset(pairs), re.compile(words, re.IGNORECASE) if words else None)


def _last_given(record: PatientRecord, rule: Rule) -> Iterator[Fact]:
    """Yield the newest administration of each product that is watched in this kind."""
    for table in watched().last_given:
        if table.key != rule.key:
            continue
        newest: dict[str, Fact] = {}
        for fact in record.facts:
            if _was_given(fact) and table.match.marks(fact.codes, fact.name):
                other = newest.get(fact.name.casefold())
                if other is None or (_last_time(fact), fact.id) > (_last_time(other), other.id):
                    newest[fact.name.casefold()] = fact
        yield from (f for f in newest.values() if _is_recent(f, table.window_days, record))


def _was_given(fact: Fact) -> bool:
    return _record_of(fact) == "administration" and fact.status in _GIVEN


def _record_of(fact: Fact) -> str:
    """Return `order`, `statement`, `administration` or `dispense` for a medication of the patient's own."""
    if fact.kind is not Kind.MEDICATION or fact.person.role != "patient":
        return ""
    return dict(fact.details).get("record", "")


def _last_time(fact: Fact) -> float:
    """Return the latest instant of which a fact speaks, in seconds; what has no date is older than all."""
    when = fact.until or fact.when
    return when.latest.timestamp() if when else float("-inf")


def _is_recent(fact: Fact, days: int, record: PatientRecord) -> bool:
    if record.as_of is None or (fact.until or fact.when) is None:
        return True
    return _last_time(fact) >= (record.as_of.earliest - timedelta(days=days)).timestamp()


def _conflicts(
    facts: Sequence[Fact], record: PatientRecord, rule: Rule, rules: RequiredRules, encounter: str | None
) -> list[Conflict]:
    if rule.conflict == "none_known":
        return list(_none_known_conflict(facts, rule))
    if rule.conflict == "differing":
        return list(_differing_conflict(facts, encounter))
    if rule.conflict == "medications":
        return [
            *_none_known_conflict(facts, rule),
            *_allergy_conflicts(facts, record, rules),
            *_over_conflicts(facts, record),
        ]
    if rule.conflict == "weights":
        return list(_weight_conflict(record, rule, rules))
    return []


def _allergy_conflicts(
    medications: Sequence[Fact], record: PatientRecord, rules: RequiredRules
) -> Iterator[Conflict]:
    """An allergy or intolerance beside a current medication of the same substance or class."""
    none_known = [rule.none_known for rule in rules.rules if Kind.ALLERGY in rule.kinds]
    allergies = [
        f
        for f in record.facts
        if f.kind is Kind.ALLERGY
        and f.person.role == "patient"
        and f.status not in _OVER
        and f.category != NONE_KNOWN
        and not any(match.marks(f.codes, f.name) for match in none_known)
    ]
    for allergy in allergies:
        for medication in medications:
            shared = None if medication.status is Status.NOT_DONE else _shared(allergy, medication)
            if shared is not None:
                yield Conflict(
                    f"Allergy or intolerance {_quoted(allergy)} is recorded beside the current medication"
                    f" {_quoted(medication)}{shared}; the record does not say which holds.",
                    (medication,),
                )


def _shared(allergy: Fact, medication: Fact) -> str | None:
    """Return in what an allergy and a drug meet, as words for the reader; None where they do not."""
    if _codes(allergy) & _codes(medication):
        return ""
    if _substance_words(allergy.name) & _substance_words(medication.name):
        return ""
    for name, words in watched().classes:
        if words.marks((), allergy.name) and words.marks((), medication.name):
            return f" (both in the class: {name})"
    return None


def _codes(fact: Fact) -> frozenset[tuple[str, str]]:
    return frozenset((code.system, code.code) for code in fact.codes if code.code)


@lru_cache(maxsize=4096)
def _substance_words(name: str) -> frozenset[str]:
    table = watched()
    return frozenset(
        w for w in _product_words(name) if len(w) >= table.least_letters and w not in table.salts
    )


@lru_cache(maxsize=4096)
def _product_words(name: str) -> frozenset[str]:
    """Return the words of a drug's name that tell it from others: no form, no route, no unit."""
    words = (_fold(word) for word in _LETTERS.findall(name))
    return frozenset(word for word in words if len(word) > 3 and word not in watched().forms)


def _fold(word: str) -> str:
    folded = word.casefold()
    return folded[:-1] if len(folded) > 5 and folded.endswith("s") and folded[-2] not in "sui" else folded


def _over_conflicts(facts: Sequence[Fact], record: PatientRecord) -> Iterator[Conflict]:
    """An active order of a drug that a newer statement calls stopped, completed or not taken."""
    said_over = [f for f in record.facts if _record_of(f) == "statement" and f.status in _SAID_OVER]
    for order in facts:
        if _record_of(order) != "order" or order.status is not Status.ACTIVE:
            continue
        said = [f for f in said_over if _is_same_drug(order, f) and not _is_known_older(f, order)]
        if said:
            newest = max(said, key=lambda f: (_last_time(f), f.id))
            yield Conflict(
                f"{_quoted(order)} is an active order, and {_quoted(newest)} is stated as"
                f" {_SAID_OVER[newest.status]}; the record does not say which holds.",
                (order, newest),
            )


def _is_same_drug(one: Fact, other: Fact) -> bool:
    if _codes(one) & _codes(other):
        return True
    strengths = set(_DIGITS.findall(one.name)), set(_DIGITS.findall(other.name))
    if all(strengths) and strengths[0] != strengths[1]:
        return False
    a, b = _product_words(one.name), _product_words(other.name)
    return bool(a) and bool(b) and (a <= b or b <= a)


def _is_known_older(fact: Fact, order: Fact) -> bool:
    if order.when is None or (fact.until or fact.when) is None:
        return False
    return _last_time(fact) < order.when.earliest.timestamp()


def _weight_conflict(record: PatientRecord, rule: Rule, rules: RequiredRules) -> Iterator[Conflict]:
    """Different weights, in one unit, on the newest day that has one. Nothing is converted to compare."""
    weight = next((r for r in rules.rules if r.key == "weight"), None)
    if weight is None or (
        rule is not weight and (weight.under_age is None or _is_under(record, weight.under_age))
    ):
        return  # told with the weight itself
    weighed = [f for f in record.facts if _is_weight(f, weight, record) and _is_within(f, rule, record, None)]
    newest = max((f.when.day for f in weighed if f.when), default=None)
    of_unit: dict[str, dict[Any, Fact]] = defaultdict(dict)
    for fact in weighed:
        if fact.when and fact.when.day == newest and fact.quantity:
            of_unit[fact.quantity.unit.casefold()].setdefault(fact.quantity.number, fact)
    for found in of_unit.values():
        if len(found) > 1:
            shown = "; ".join(_quoted(fact) for fact in found.values())
            yield Conflict(
                f"Different weights are recorded for one day: {shown}. The record does not say which holds.",
                tuple(found.values()),
            )


def _is_weight(fact: Fact, rule: Rule, record: PatientRecord) -> bool:
    if (
        fact.kind not in rule.kinds
        or not _counts(fact, rule, record)
        or _codes(fact) & watched().weights_apart
    ):
        return False
    has_day = fact.when is not None and fact.when.precision in (Precision.DAY, Precision.TIME)
    return has_day and fact.quantity is not None and fact.quantity.number is not None


def _quoted(fact: Fact) -> str:
    value = f" {fact.quantity.text}" if fact.quantity else ""
    told = span(fact.when, fact.until) if fact.until else on_day(fact.when)
    return f'"{fact.name}"{value} ({told or "undated"})'


def _none_known_conflict(facts: Sequence[Fact], rule: Rule) -> Iterator[Conflict]:
    """An explicit "none known" beside something that is listed as present."""
    current = [f for f in facts if f.status not in _OVER]
    none = [f for f in current if f.category == NONE_KNOWN or rule.none_known.marks(f.codes, f.name)]
    listed = [f for f in current if f not in none]
    if none and listed:
        yield Conflict(
            f'"{none[0].name}" is recorded beside {len(listed)} listed; the record does not say which holds.'
        )


def _differing_conflict(facts: Sequence[Fact], encounter: str | None) -> Iterator[Conflict]:
    """Current directives that say different things; every one of them is shown."""
    standing = [f for f in facts if f.kind is Kind.DIRECTIVE and f.status not in _OVER]
    current = [f for f in standing if f.category != "preference"]
    if encounter is not None:
        current = [f for f in current if f.encounter == encounter] or current
    said: dict[str, list[Fact]] = defaultdict(list)
    for fact in current:
        said[_statement(fact)].append(fact)
    if len(said) > 1:
        shown = "; ".join(_dated(group[0]) for group in said.values())
        yield Conflict(f"Different statements are recorded: {shown}. The record does not say which holds.")


def _statement(fact: Fact) -> str:
    forbids = "not " if fact.status is Status.NOT_DONE else ""
    return f"{forbids}{fact.value or fact.name}".lower()


def _dated(fact: Fact) -> str:
    when = on_day(fact.when) or "undated"
    forbids = "NOT " if fact.status is Status.NOT_DONE else ""
    return f"{forbids}{fact.value or fact.name} ({when})"


def is_previous(fact: Fact, encounter: str | None) -> bool:
    """Tell whether a directive is to be shown as "previous": it is not an order of the encounter at hand."""
    return fact.kind is Kind.DIRECTIVE and encounter is not None and fact.encounter != encounter
