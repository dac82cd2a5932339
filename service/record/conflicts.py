"""What does not agree in the required facts, told with the facts that it is between (SAFETY 7, 12).

Conflicts are shown and never resolved: each sentence ends by saying that the record does not say which holds.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any, NamedTuple

from service.record.allergies import NONE_KNOWN
from service.record.dates import on_day, span
from service.record.facts import Fact, Kind, PatientRecord, Status
from service.record.rules import Match, RequiredRules, Rule

OVER = (Status.REFUTED, Status.RESOLVED, Status.CANCELLED, Status.STOPPED, Status.COMPLETED, Status.INACTIVE)
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


def find_conflicts(
    facts: Sequence[Fact],
    record: PatientRecord,
    rule: Rule,
    rules: RequiredRules,
    encounter: str | None,
    weighed: Sequence[Fact],
) -> list[Conflict]:
    """Return what does not agree among the facts of one required kind.

    `weighed` are the weights, in one kind of rule, that are compared with each other.
    """
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
        return list(_weight_conflict(weighed))
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
        and f.status not in OVER
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
    if codes_of(allergy) & codes_of(medication):
        return ""
    if _substance_words(allergy.name) & _substance_words(medication.name):
        return ""
    for name, words in watched().classes:
        if words.marks((), allergy.name) and words.marks((), medication.name):
            return f" (both in the class: {name})"
    return None


def codes_of(fact: Fact) -> frozenset[tuple[str, str]]:
    """Return the codes of a fact as (system, code)."""
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
    said_over = [f for f in record.facts if record_of(f) == "statement" and f.status in _SAID_OVER]
    for order in facts:
        if record_of(order) != "order" or order.status is not Status.ACTIVE:
            continue
        said = [f for f in said_over if _is_same_drug(order, f) and not _is_known_older(f, order)]
        if said:
            newest = max(said, key=lambda f: (last_time(f), f.id))
            yield Conflict(
                f"{_quoted(order)} is an active order, and {_quoted(newest)} is stated as"
                f" {_SAID_OVER[newest.status]}; the record does not say which holds.",
                (order, newest),
            )


def _is_same_drug(one: Fact, other: Fact) -> bool:
    if codes_of(one) & codes_of(other):
        return True
    strengths = set(_DIGITS.findall(one.name)), set(_DIGITS.findall(other.name))
    if all(strengths) and strengths[0] != strengths[1]:
        return False
    a, b = _product_words(one.name), _product_words(other.name)
    return bool(a) and bool(b) and (a <= b or b <= a)


def _is_known_older(fact: Fact, order: Fact) -> bool:
    if order.when is None or (fact.until or fact.when) is None:
        return False
    return last_time(fact) < order.when.earliest.timestamp()


def _weight_conflict(weighed: Sequence[Fact]) -> Iterator[Conflict]:
    """Different weights, in one unit, on the newest day that has one. Nothing is converted to compare."""
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


def _quoted(fact: Fact) -> str:
    value = f" {fact.quantity.text}" if fact.quantity else ""
    told = span(fact.when, fact.until) if fact.until else on_day(fact.when)
    return f'"{fact.name}"{value} ({told or "undated"})'


def _none_known_conflict(facts: Sequence[Fact], rule: Rule) -> Iterator[Conflict]:
    """An explicit "none known" beside something that is listed as present."""
    current = [f for f in facts if f.status not in OVER]
    none = [f for f in current if f.category == NONE_KNOWN or rule.none_known.marks(f.codes, f.name)]
    listed = [f for f in current if f not in none]
    if none and listed:
        yield Conflict(
            f'"{none[0].name}" is recorded beside {len(listed)} listed; the record does not say which holds.'
        )


def _differing_conflict(facts: Sequence[Fact], encounter: str | None) -> Iterator[Conflict]:
    """Current directives that say different things; every one of them is shown."""
    standing = [f for f in facts if f.kind is Kind.DIRECTIVE and f.status not in OVER]
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


def record_of(fact: Fact) -> str:
    """Return `order`, `statement`, `administration` or `dispense` for a medication of the patient's own."""
    if fact.kind is not Kind.MEDICATION or fact.person.role != "patient":
        return ""
    return dict(fact.details).get("record", "")


def last_time(fact: Fact) -> float:
    """Return the latest instant of which a fact speaks, in seconds; what has no date is older than all."""
    when = fact.until or fact.when
    return when.latest.timestamp() if when else float("-inf")
