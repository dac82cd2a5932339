"""Scopes in the words of SMART 2, and of SMART 1 for servers that know no others."""

from __future__ import annotations

import re
from typing import Final

PATIENT_OF_LAUNCH: Final = "launch"
PATIENT_TO_CHOOSE: Final = "launch/patient"
_V2 = re.compile(r"(?P<of>(?:patient|user|system)/[A-Za-z*]+)\.(?P<rights>c?r?u?d?s?)(?:\?.*)?")


def scopes_to_ask(scope: str, *, has_v2: bool, is_launched: bool) -> str:
    """Return what is asked for: of an EHR that launched us its patient, else one whom the user chooses."""
    words = scope.split()
    if not is_launched and PATIENT_OF_LAUNCH in words:
        words = [PATIENT_TO_CHOOSE if one == PATIENT_OF_LAUNCH else one for one in words]
    if not has_v2:
        words = [older for one in words for older in _in_v1(one)]
    return " ".join(dict.fromkeys(words))


def _in_v1(scope: str) -> list[str]:
    """Return a SMART 2 scope in SMART 1's words: wider where those know no narrower one.

    A filter (`?category=…`) is dropped; `read` was both reading and searching (SMART 2.2, "Scopes for
    requesting FHIR Resources").
    """
    found = _V2.fullmatch(scope)
    if found is None or not found["rights"]:
        return [scope]
    rights, older = set(found["rights"]), []
    if rights & set("rs"):
        older.append("read")
    if rights & set("cud"):
        older.append("write")
    return [f"{found['of']}.{'*' if len(older) > 1 else older[0]}"]
