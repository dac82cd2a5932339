"""What a small form says: `application/x-www-form-urlencoded`, each name once, text alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from fastapi import HTTPException, Request

MOST_FIELDS: Final = 20
_UNSEEN = frozenset({"Cc", "Cs", "Co", "Cn"})


async def read_form(request: Request) -> Mapping[str, str]:
    """Return the fields of a form. Raises HTTPException (400) for none, or for a name given twice."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(400)
    try:
        pairs = parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise HTTPException(400) from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise HTTPException(400)
    return fields


def plain_words(text: str, longest: int) -> str:
    """Return words that somebody added, without control characters. Raises HTTPException (400)."""
    words = "".join(c if c in "\n\t" or unicodedata.category(c) not in _UNSEEN else " " for c in text)
    words = "\n".join(line.strip() for line in words.splitlines()).strip()
    if len(words) > longest:
        raise HTTPException(400)
    return words


def is_partial(request: Request) -> bool:
    """Tell whether a script of ours asks for a part of a page, to put it in place."""
    return request.headers.get("hx-request", "") == "true"
