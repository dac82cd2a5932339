"""Where a reading of a picture and a report do not agree: shown to a human, never resolved.

Deterministic and narrow: the same finding by its name, on another side or denied by one of the two. What one
of them does not speak of is no disagreement.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from service.grounding.words import NEGATIONS, words_of
from service.record.facts import Fact, Kind

_SENTENCE = re.compile(r"(?<=[.;!?])\s+|\n")
_TURN = re.compile(r"\b(?:but|however|although|there (?:is|are)|with)\b", re.IGNORECASE)
"""Where what was denied ends: `no effusion, but a small pneumothorax`."""
_CLAUSE = re.compile(r"[,;:]|\band\b", re.IGNORECASE)
_OF_PICTURES = re.compile(
    r"radiolog|imaging|x-?ray|radiograph|\bct\b|tomograph|\bmri?\b|resonance|ultraso|sonogra|mammogra|echo",
    re.IGNORECASE,
)
_SIDES = {"left": "left", "right": "right", "bilateral": "both", "bilaterally": "both", "both": "both"}
_RULED_OUT = frozenset({"excluded", "resolved", "cleared", "free"})


@dataclass(frozen=True, slots=True)
class Said:
    """What one sentence says of one finding."""

    finding: str
    denied: bool
    side: str
    """`left`, `right`, `both`, or empty where none is said."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A finding that a report tells otherwise, and in what."""

    report: Fact
    finding: str
    what: str
    """`side` or `presence`"""


def disagreement(text: str, pictures: Sequence[Fact], reports: Iterable[Fact]) -> Disagreement | None:
    """Return the first report of these pictures' days that tells a finding otherwise, or None.

    A report that also tells it as the reading does is in agreement: it speaks of several places.
    """
    days = {fact.when.day for fact in pictures if fact.when is not None}
    for said in _said(text):
        told = [
            (report, one)
            for report in reports
            if report.when is not None and report.when.day in days
            for one in _said(report.value or report.text)
            if one.finding == said.finding
        ]
        against = [(report, what) for report, one in told if (what := _differs(said, one))]
        if against and len(against) == len(told):
            report, what = against[0]
            return Disagreement(report, said.finding, what)
    return None


def reports_among(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """Return what the record says of pictures: reports, and notes that are called after a picture."""
    return tuple(
        fact
        for fact in facts
        if fact.kind is Kind.REPORT
        or (fact.kind is Kind.NOTE and _OF_PICTURES.search(f"{fact.name} {fact.category}"))
    )


def _differs(reading: Said, report: Said) -> str:
    if reading.denied != report.denied:
        apart = {reading.side, report.side} == {"left", "right"}  # each may be right, on its own side
        return "" if apart else "presence"
    if not reading.denied and {reading.side, report.side} == {"left", "right"}:
        return "side"
    return ""


def _said(text: str) -> Iterator[Said]:
    for sentence in _SENTENCE.split(text):
        for part in _TURN.split(sentence):
            words = words_of(part)
            sides = {_SIDES[word] for word in words if word in _SIDES}
            for clause in _CLAUSE.split(part):
                for finding in dict.fromkeys(_findings(words_of(clause))):
                    own = {_SIDES[word] for word in words_of(clause) if word in _SIDES} or sides
                    yield Said(finding, _is_denied(finding, part), own.pop() if len(own) == 1 else "")


def _is_denied(finding: str, part: str) -> bool:
    """A negation holds from where it stands to the end of its part: `no effusion, consolidation or mass`."""
    words = words_of(part)
    place = next((n for n, word in enumerate(words) if _names().get(word) == finding), 0)
    return any(word in NEGATIONS for word in words[:place]) or any(word in _RULED_OUT for word in words)


def _findings(words: Iterable[str]) -> Iterator[str]:
    return (_names()[word] for word in words if word in _names())


@cache
def _names() -> Mapping[str, str]:
    text = resources.files("service.grounding").joinpath("findings.toml").read_text(encoding="utf-8")
    return {word: row[0] for row in tomllib.loads(text)["findings"] for word in row}
