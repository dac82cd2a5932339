"""What of a record a token was granted, and what is missing where that is less than all of it.

Some servers answer `$everything`, or a search, with what the token may read and say nothing of the rest: an
answer that looks whole is no proof. What the scope does not cover counts as not retrieved (SAFETY 5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from connectors.fhir.compartment import COMPARTMENT
from connectors.fhir.pull import Gap, GapReason, Pull

NARROW: Final = "The access token was not granted this type."
FILTERED: Final = "The access token was granted a part of this type."
_SCOPE = re.compile(r"(?:patient|user|system)/(?P<kind>[A-Za-z]+|\*)\.(?P<rights>[a-z*]+)(?P<filter>\?.*)?")
_V1_RIGHTS: Final = {"read": "rs", "write": "cud", "*": "cruds"}


def granted_of(scope: str, kind: str) -> str:
    """Return what of a type a scope lets one search: `whole`, `part` (a filter: `?category=…`) or `none`.

    A scope that speaks of no resources says nothing, and the server is asked.
    """
    matches = [found for word in scope.split() if (found := _SCOPE.fullmatch(word))]
    if not matches:
        return "whole"
    ours = [one for one in matches if one["kind"] in ("*", kind) and "s" in _rights(one["rights"])]
    if not ours:
        return "none"
    return "part" if all(one["filter"] for one in ours) else "whole"


def mark_ungranted(pull: Pull, scope: str) -> Pull:
    """Return a pull whose gaps name every type that the scope does not cover, each once."""
    known = {(gap.resource_type, gap.reason) for gap in pull.gaps}
    more = [gap for gap in _ungranted(scope) if (gap.resource_type, gap.reason) not in known]
    return replace(pull, gaps=(*pull.gaps, *more)) if more else pull


def _ungranted(scope: str) -> Iterable[Gap]:
    for kind in COMPARTMENT:
        granted = granted_of(scope, kind)
        if granted != "whole":
            yield Gap(kind, GapReason.REFUSED, NARROW if granted == "none" else FILTERED)


def _rights(said: str) -> str:
    return _V1_RIGHTS.get(said, said)
