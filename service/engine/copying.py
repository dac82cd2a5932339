"""What the engine without a model writes: the lines that it was shown, each under its own label.

A sentence that is a line of the record, word for word, passes the checks that every sentence passes: so a
scripted engine leads to real claims, and judges nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.engine.prompt import Prompt
from service.engine.scripted import answer_by_schema

CLAIMS = 24
"""How many lines of a whole chart are told: about what a history holds."""
_LINE = re.compile(r"^\[([A-Z](?:\d+|@[\w-]+))\] (.+)$", re.MULTILINE)
_LONGEST = 400
_BESIDE = re.compile(
    r"; (?:by|method|evidence|category|note|reason|priority|service|body site|description)\b.*"
)
"""Who did it, how and why: what a summary's sentence need not say, and a short one does not."""
_ROW, _NOTE = "|", "N"
UNSEEN = "something that no model has looked at"
"""What is said of a picture where there is no model."""


def answer_by_copying(prompt: Prompt) -> str:
    """Return claims that copy lines of the last turn, as far as the prompt's schema admits them.

    A prompt that asks for no claims gets the smallest answer that its schema admits.
    """
    claims = _claims(prompt)
    if not claims:
        return answer_by_schema(prompt)
    return json.dumps({"claims": claims}, separators=(",", ":"), ensure_ascii=False)


def _claims(prompt: Prompt) -> list[dict[str, Any]]:
    asked = ((prompt.schema or {}).get("properties") or {}).get("claims") or {}
    lines = dict(_lines(prompt))
    if asked.get("prefixItems"):
        return [_one_of(item, lines) for item in asked["prefixItems"]]
    claim = (asked.get("items") or {}) if isinstance(asked.get("items"), Mapping) else {}
    if not claim:
        return []
    labels = _enum(claim, "cites")
    if "sees" in claim["properties"]:  # pictures: nobody looked at them
        return [{"cites": [label], "sees": "may show", "text": UNSEEN} for label in labels]
    told = [label for label in lines if label in labels and _is_sentence(label, lines[label])]
    told = told or [label for label in lines if label in labels]
    heading = {"section": section} if (section := _first(claim)) else {}
    return [{**heading, "cites": [label], "text": lines[label]} for label in _spread(told, CLAIMS)]


def _lines(prompt: Prompt) -> Iterator[tuple[str, str]]:
    for label, text in _LINE.findall(prompt.messages[-1].content):
        said = _BESIDE.sub("", text).strip()
        if len(said) <= _LONGEST:
            yield label, said


def _is_sentence(label: str, text: str) -> bool:
    """Leave out rows of a table, which name nothing, and words of a note, which want its day beside them."""
    return _ROW not in text and not label.startswith(_NOTE)


def _one_of(item: Mapping[str, Any], lines: Mapping[str, str]) -> dict[str, Any]:
    """Return the claim on the one line that a guided schema asks about."""
    labels = [label for label in _enum(item, "cites") if label in lines] or list(_enum(item, "cites"))
    return {"cites": labels[:1], "text": lines.get(labels[0], labels[0])}


def _enum(claim: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = claim["properties"][name]
    return tuple(found["items"]["enum"])


def _first(claim: Mapping[str, Any]) -> str:
    headings = (claim["properties"].get("section") or {}).get("enum") or ("",)
    return str(headings[0])


def _spread(labels: Sequence[str], most: int) -> list[str]:
    """Return at most so many of the labels, from the first to the last in equal steps."""
    if len(labels) <= most:
        return list(labels)
    return [labels[place * len(labels) // most] for place in range(most)]
