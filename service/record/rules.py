"""The rules of required facts (SAFETY 7), read from `required.toml`: data that a safety officer can read."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from service.record.facts import Code, Kind, Status
from service.record.fhirjson import Concept


@dataclass(frozen=True, slots=True)
class Match:
    """Codes and words of which either marks a fact. An empty match marks nothing."""

    codes: frozenset[tuple[str, str]] = frozenset()
    words: re.Pattern[str] | None = None

    def __bool__(self) -> bool:
        return bool(self.codes) or self.words is not None

    def marks(self, codes: Iterable[Code], name: str) -> bool:
        """Tell whether one of the codes is listed, or the name holds one of the words."""
        if any((code.system, code.code) in self.codes for code in codes):
            return True
        return self.words is not None and bool(name) and _holds(self.words, name)


@lru_cache(maxsize=4096)
def _holds(words: re.Pattern[str], name: str) -> bool:
    """Search a name once: a chart repeats a few hundred names thousands of times."""
    return words.search(name) is not None


@dataclass(frozen=True, slots=True)
class Limit:
    """Beyond which a result is critical, in exactly these units, from this age on."""

    codes: frozenset[tuple[str, str]]
    units: frozenset[str]
    low: Decimal | None
    high: Decimal | None
    age_from: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of required facts, as `required.toml` describes its fields."""

    key: str
    title: str
    kinds: frozenset[Kind]
    types: frozenset[str]
    also: frozenset[str]
    statuses: frozenset[Status]
    match: Match
    none_known: Match
    preference: Match
    whole_kinds: frozenset[Kind]
    not_done: frozenset[str]
    flags: frozenset[str]
    limits: tuple[Limit, ...]
    window_days: int | None
    under_age: int | None
    sort: str
    cap: int
    conflict: str
    essential: bool


@dataclass(frozen=True, slots=True)
class RequiredRules:
    """All rules in the order in which their kinds are shown."""

    version: str
    rules: tuple[Rule, ...]

    def rule(self, key: str) -> Rule:
        """Return the rule of a kind. Raises KeyError where there is none."""
        for rule in self.rules:
            if rule.key == key:
                return rule
        raise KeyError(key)


@cache
def default_rules() -> RequiredRules:
    """Return the rules that ship with this package."""
    text = resources.files("service.record").joinpath("required.toml").read_text(encoding="utf-8")
    return load_rules(tomllib.loads(text))


def load_rules(data: Mapping[str, Any]) -> RequiredRules:
    """Read rules from a parsed TOML document. Raises KeyError, ValueError or TypeError where it is wrong."""
    return RequiredRules(str(data["rules_version"]), tuple(_rule(entry) for entry in data["required"]))


def _rule(entry: Mapping[str, Any]) -> Rule:
    return Rule(
        key=entry["key"],
        title=entry["title"],
        kinds=frozenset(Kind(k) for k in entry["kinds"]),
        types=frozenset(entry["types"]),
        also=frozenset(entry.get("also", ())),
        statuses=frozenset(Status(s) for s in entry["statuses"]),
        match=_match(entry),
        none_known=_match(entry.get("none_known", {})),
        preference=_match(entry.get("preference", {})),
        whole_kinds=frozenset(Kind(k) for k in entry.get("whole_kinds", ())),
        not_done=frozenset(entry.get("not_done", ())),
        flags=frozenset(f.lower() for f in entry.get("flags", ())),
        limits=tuple(_limit(limit) for limit in entry.get("limits", ())),
        window_days=entry.get("window_days"),
        under_age=entry.get("under_age"),
        sort=entry["sort"],
        cap=int(entry["cap"]),
        conflict=entry["conflict"],
        essential=bool(entry.get("essential", False)),
    )


def _match(entry: Mapping[str, Any]) -> Match:
    words = entry.get("words")
    return Match(_pairs(entry.get("codes", ())), re.compile(words, re.IGNORECASE) if words else None)


def _limit(entry: Mapping[str, Any]) -> Limit:
    low, high = entry.get("low"), entry.get("high")
    return Limit(
        _pairs(entry["codes"]),
        frozenset(entry["units"]),
        None if low is None else Decimal(str(low)),
        None if high is None else Decimal(str(high)),
        int(entry.get("age_from", 0)),
    )


def _pairs(codes: Any) -> frozenset[tuple[str, str]]:
    return frozenset((system, code) for system, _, code in (str(c).rpartition("|") for c in codes))


def is_none_known(key: str, concept: Concept, name: str) -> bool:
    """Tell whether a statement says explicitly that nothing of this kind is known."""
    return default_rules().rule(key).none_known.marks(concept.codes, name)


def is_directive(concept: Concept, name: str) -> bool:
    """Tell whether a code or name speaks of code status, resuscitation or advance directives."""
    return default_rules().rule("directives").match.marks(concept.codes, name)


def is_preference(concept: Concept, name: str) -> bool:
    """Tell whether a directive is a preference, which is not an order."""
    return default_rules().rule("directives").preference.marks(concept.codes, name)
