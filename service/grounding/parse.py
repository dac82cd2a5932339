"""From the engine's answer to draft claims. Lenient: what was decoded before a cut is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from typing import Any

from service.context.chosen import Label
from service.grounding.summary import DraftClaim

_SURROGATE = re.compile("[\ud800-\udfff]")
_CLAIM_START = re.compile(r"\{\s*\"(?:section|cites|text)\"")
_decoder = JSONDecoder()


def parse_claims(text: str, section: str | None) -> tuple[DraftClaim, ...]:
    """Return the claims of one answer, in order.

    `section` is the heading a guided request was about; a free answer names it in each claim. Whatever
    is not a claim object with a text is passed over; an answer cut in the middle yields its whole claims.
    """
    return parse_whole(text, section)[0]


def parse_whole(text: str, section: str | None, start: int = 0) -> tuple[tuple[DraftClaim, ...], int]:
    """Return the claims that stand whole in an answer so far, from a place on, and where the last one ends.

    One that is cut off at the end is none yet: it is looked for again from that place, once more has come.
    """
    found, end = [], start
    for item, end in _objects(text, start):  # noqa: B007 - the last end is what remains
        claim = _claim(item, section)
        if claim is not None:
            found.append(claim)
    return tuple(found), end


def objects_of(text: str) -> Iterator[dict[str, Any]]:
    """Yield each object of an answer that begins as a claim does."""
    return (item for item, _ in _objects(text, 0))


def _objects(text: str, position: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each object that begins as a claim does, and where it ends."""
    while match := _CLAIM_START.search(text, position):
        try:
            value, position = _decoder.raw_decode(text, match.start())
        except (JSONDecodeError, RecursionError):
            position = match.end()
            continue
        yield value, position


def _claim(item: dict[str, Any], section: str | None) -> DraftClaim | None:
    text, cites, named = item.get("text"), item.get("cites"), item.get("section")
    if not isinstance(text, str) or not text.strip() or _SURROGATE.search(text):
        return None  # half a character is no text: no document could hold it
    labels = (
        tuple(Label(label) for label in cites if isinstance(label, str)) if isinstance(cites, list) else ()
    )
    heading = section if section is not None else named if isinstance(named, str) else ""
    return DraftClaim(heading, " ".join(text.split()), tuple(dict.fromkeys(labels)))
