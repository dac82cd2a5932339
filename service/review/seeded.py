"""One planted error: a supported statement with its value, day, denial or side turned.

It stands in a reviewer's console alone, and shows whether reviewers read the sources (SAFETY 23). The same
seed plants the same error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from random import Random
from typing import Final, NamedTuple

from service.grounding.summary import Claim, Summary, Verdict
from service.record.dates import MONTHS
from service.record.facts import Fact, FactId

_DAY: Final = re.compile(r"(?<![\d-])(\d\d)-([A-Z][a-z]{2})-(\d{4})(?![\d-])")
_NUMBER: Final = re.compile(r"(?<![\w.,/*^-])\d{1,5}(?:\.\d+)?(?![\w.,/*^-]*\d)")
"""A number that is a part of no name, unit, day or ratio: not `10*3/uL`, `142/88` or `T2`."""
_SIDES: Final = {"left": "right", "right": "left"}
_TURNS: Final = (
    ("active", "resolved"),
    ("resolved", "active"),
    ("on hold", "active"),
    ("completed", "not done"),
    ("confirmed", "refuted"),
    ("is", "is not"),
    ("was", "was not"),
    ("has", "has no"),
    ("denies", "reports"),
)
"""What denies a statement, the surest first; only the first one that fits is used."""


class Planted(NamedTuple):
    """A statement with an error, and of which claim it was made."""

    ordinal: int
    kind: str
    text: str


def plant(summary: Summary, seed: str) -> Planted | None:
    """Return a published statement with an error planted in it; None where nothing takes one."""
    rng = Random(seed)  # noqa: S311 - a draw that can be repeated, no secret
    facts = {fact.id: fact for fact in summary.facts}
    places = [n for n, claim in enumerate(summary.published) if _is_plain(claim, facts)]
    kinds = list(_PLANTERS)
    rng.shuffle(places)
    rng.shuffle(kinds)
    for kind in kinds:
        for ordinal in places:
            claim = summary.published[ordinal]
            text = _PLANTERS[kind](claim.text, rng)
            if text and not _is_said(text, claim, facts, summary):
                return Planted(ordinal, kind, text)
    return None


def _is_plain(claim: Claim, facts: Mapping[FactId, Fact]) -> bool:
    is_cited = bool(claim.citations) and all(fact_id in facts for fact_id in claim.citations)
    return claim.verdict is Verdict.SUPPORTED and is_cited


def _is_said(text: str, claim: Claim, facts: Mapping[FactId, Fact], summary: Summary) -> bool:
    """Tell whether the turned words stand in a source or in another statement: then they may be true."""
    said = _words(claim.text)
    turned = [word for word in _words(text) if word not in said]
    sources = " ".join(
        part
        for fact_id in claim.citations
        for part in (facts[fact_id].text, facts[fact_id].body, *(b for _, b in facts[fact_id].details))
    )
    is_elsewhere = any(text.casefold() == other.text.casefold() for other in summary.published)
    known = set(_words(sources))
    return is_elsewhere or (bool(turned) and all(word in known for word in turned))


def _words(text: str) -> list[str]:
    return re.findall(r"[\w.-]+", text.casefold().rstrip("."))


def _value(text: str, rng: Random) -> str:
    days = [found.span() for found in _DAY.finditer(text)]
    numbers = [
        found
        for found in _NUMBER.finditer(text)
        if not any(start <= found.start() < end for start, end in days) and not _is_year(found[0])
    ]
    if not numbers:
        return ""
    found = rng.choice(numbers)
    return text[: found.start()] + _other_number(found[0], rng) + text[found.end() :]


def _is_year(number: str) -> bool:
    return len(number) == 4 and number[:2] in ("19", "20")


def _other_number(number: str, rng: Random) -> str:
    old = Decimal(number)
    step = Decimal(1).scaleb(int(old.as_tuple().exponent))
    new = (old * Decimal(rng.choice([60, 70, 130, 150, 200])) / 100).quantize(step)
    return format(new if new != old else old + step, "f")


def _date(text: str, rng: Random) -> str:
    for found in _DAY.finditer(text):
        day, month, year = found.groups()
        if month not in MONTHS:
            continue
        try:
            moved = date(int(year), MONTHS.index(month) + 1, int(day)) + timedelta(
                days=rng.choice([-365, -31, -9, 9])
            )
        except (ValueError, OverflowError):
            continue
        shown = f"{moved.day:02}-{MONTHS[moved.month - 1]}-{moved.year:04}"
        return text[: found.start()] + shown + text[found.end() :]
    return ""


def _negation(text: str, rng: Random) -> str:
    for said, turned in _TURNS:
        found = re.search(rf"(?<![\w-]){said}(?![\w-])", text)
        if found is not None:
            return text[: found.start()] + turned + text[found.end() :]
    return ""


def _side(text: str, rng: Random) -> str:
    found = re.search(r"\b(left|right)\b", text, re.IGNORECASE)
    if found is None:
        return ""
    turned = _SIDES[found[0].lower()]
    shown = turned.capitalize() if found[0][0].isupper() else turned
    return text[: found.start()] + shown + text[found.end() :]


_PLANTERS: Final[Mapping[str, Callable[[str, Random], str]]] = {
    "value": _value,
    "date": _date,
    "negation": _negation,
    "side": _side,
}
