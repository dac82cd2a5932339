"""A token endpoint's answer, read strictly: tokens, and the context of the launch beside them.

Whoever answers is the EHR's own authorization server; what it passes on may have been written by anybody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from connectors.auth import lifetime_s
from connectors.errors import BadUrl, BrokenJson, TokenRefused
from connectors.fhir.codec import decode, dicts
from connectors.origin import origin_of

MAX_TOKEN: Final = 16 * 1024
MAX_SCOPE: Final = 8 * 1024
MAX_HANDLE: Final = 1024
MOST_CONTEXT: Final = 20
MAX_CONTEXT: Final = 400
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")
_SCOPE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What came for a code, or for a refresh token."""

    access: str = field(repr=False)
    life_s: float
    refresh: str = field(default="", repr=False)
    id_token: str = field(default="", repr=False)
    scope: str | None = None
    """As granted; None where nothing is said: then all that was asked for (RFC 6749 5.1)."""
    patient: str = field(default="", repr=False)
    """`Patient/1`, or empty."""
    encounter: str = field(default="", repr=False)
    needs_banner: bool = True
    messaging: tuple[str, str] = field(default=("", ""), repr=False)
    context: Mapping[str, str] = field(default_factory=dict, repr=False)


def read_answer(body: bytes) -> TokenAnswer:
    """Return what an answer of 200 says. Raises TokenRefused where there is no token that we can use.

    `intent` and what else may be there is not looked at.
    """
    try:
        said = decode(body)
    except BrokenJson:
        said = None
    if not isinstance(said, dict):
        raise _unusable()
    kind = said.get("token_type", "Bearer")
    access = _token(said, "access_token")
    if not access or not isinstance(kind, str) or kind.lower() != "bearer":
        raise _unusable()
    return TokenAnswer(
        access=access,
        life_s=lifetime_s(said.get("expires_in")),
        refresh=_token(said, "refresh_token"),
        id_token=_token(said, "id_token"),
        scope=_scope(said.get("scope")),
        patient=_reference("Patient", said.get("patient")),
        encounter=_reference("Encounter", said.get("encounter")) or _encounter_of(said.get("fhirContext")),
        needs_banner=said.get("need_patient_banner") is not False,
        messaging=_messaging(said),
        context=_context(said.get("appContext")),
    )


def _unusable() -> TokenRefused:
    return TokenRefused("The EHR's token endpoint gave no token that can be used.")


def _token(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if not isinstance(value, str) or len(value) > MAX_TOKEN or " " in value:
        return ""
    return value if value.isascii() and value.isprintable() else ""


def _scope(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_SCOPE or not _SCOPE.fullmatch(value):
        raise _unusable()
    return " ".join(sorted(set(value.split())))


def _reference(kind: str, value: Any) -> str:
    """Return `Type/id` of an id; some servers write the type before it."""
    name = value.removeprefix(f"{kind}/") if isinstance(value, str) else ""
    return f"{kind}/{name}" if _ID.fullmatch(name) else ""


def _encounter_of(context: Any) -> str:
    """Return the one Encounter of a `fhirContext`; with several nobody can tell which is open."""
    found = {
        _reference("Encounter", one["reference"])
        for one in dicts(context)
        if isinstance(one.get("reference"), str) and one["reference"].startswith("Encounter/")
    } - {""}
    return found.pop() if len(found) == 1 else ""


def _messaging(said: Mapping[str, Any]) -> tuple[str, str]:
    """Return handle and origin of SMART Web Messaging 1.0, both or neither."""
    handle, origin = _token(said, "smart_web_messaging_handle"), said.get("smart_web_messaging_origin")
    if not 0 < len(handle) <= MAX_HANDLE or not isinstance(origin, str) or not _ORIGIN.fullmatch(origin):
        return "", ""
    try:
        origin_of(origin)
    except BadUrl:
        return "", ""
    return handle, origin.lower()


def _context(value: Any) -> Mapping[str, str]:
    """Return the texts of an `appContext`: a JSON object, or one written as text (CDS Hooks 2.0)."""
    if isinstance(value, str):
        try:
            value = decode(value.encode())
        except (BrokenJson, UnicodeEncodeError):
            return {}
    if not isinstance(value, dict) or len(value) > MOST_CONTEXT:
        return {}
    return {
        name: text
        for name, text in value.items()
        if isinstance(text, str) and max(len(name), len(text)) <= MAX_CONTEXT
    }
