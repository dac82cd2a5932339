"""One call of a hook, read strictly: what is asked, for whom, by whom, and with which rights to look further.

An EHR's access token stays in the Grant: it is never shown, stored or sent anywhere but to that EHR.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import msgspec

from connectors.fhir.reference import parse_reference
from service.api.cds.outcome import CallRefused, not_understood
from service.api.cds.services import Service
from service.ehrs import is_same_server
from service.identity.cds import Caller, staff_of
from service.identity.visitor import OUTSIDERS, STAFF

_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")
"""What may stand in an Authorization header (RFC 6750 2.1): no blank and no line break."""
_SCOPE = re.compile(r"(?:patient|user|system)/(\*|[A-Z][A-Za-z]+)\.(\*|read|[cruds]+)")
"""SMART scopes, version 1 and 2. One with a `?` behind it grants a part, which looks like all."""
_MOST_SCOPES: Final = 500


@dataclass(frozen=True, slots=True)
class Grant:
    """What an EHR lets us read for this one call."""

    token: str = field(repr=False)
    scopes: frozenset[str]

    def may_read(self, resource_type: str) -> bool:
        """Tell whether this type may be read and searched."""
        for scope in self.scopes:
            found = _SCOPE.fullmatch(scope)
            if found is not None and found[1] in ("*", resource_type) and _reads(found[2]):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one hook."""

    instance: str
    patient: str = field(repr=False)
    """`Patient/1`"""
    encounter: str = field(repr=False)
    """`Encounter/9`, or empty."""
    user: str
    """`Practitioner/7` as the EHR claims; empty for a patient or a relative."""
    grant: Grant | None
    prefetch: Mapping[str, Any] = field(repr=False)


def read_call(body: bytes, service: Service, caller: Caller) -> Call:
    """Return the call that a body makes of a service. Raises CallRefused."""
    said = _object(_decoded(body), "The call is not a JSON object.")
    if said.get("hook") != service.hook:
        raise not_understood("The hook is not the one that this service is for.")
    context = _object(said.get("context"), "The call has no context.")
    patient = _reference(context, "patientId", "Patient")
    _check_server(said, caller)
    return Call(
        instance=_instance(said.get("hookInstance")),
        patient=patient,
        encounter=_encounter(context, service),
        user=_user(context.get("userId")),
        grant=_grant(said, caller, patient),
        prefetch=_object(said.get("prefetch", {}), "The prefetch is not an object."),
    )


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise not_understood("The call is not JSON.") from None


def _object(value: Any, words: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise not_understood(words)
    return value


def _instance(value: Any) -> str:
    try:
        return str(UUID(value))
    except (ValueError, TypeError, AttributeError):
        raise not_understood("The hookInstance is not a UUID.") from None


def _reference(context: Mapping[str, Any], name: str, resource_type: str) -> str:
    """Return `Type/id` of an id in the context."""
    value = context.get(name)
    found = parse_reference(f"{resource_type}/{value}") if isinstance(value, str) else None
    if found is None or found.version:
        raise not_understood(f"The context's {name} is missing, or no FHIR id.")
    return str(found)


def _encounter(context: Mapping[str, Any], service: Service) -> str:
    if "encounterId" not in context and not service.needs_encounter:
        return ""
    return _reference(context, "encounterId", "Encounter")


def _user(value: Any) -> str:
    found = parse_reference(value) if isinstance(value, str) else None
    if found is None or found.version or found.resource_type not in (*STAFF, *OUTSIDERS):
        raise not_understood("The context's userId is missing, or names no user.")
    return staff_of(str(found))


def _check_server(said: Mapping[str, Any], caller: Caller) -> None:
    """Refuse a call about another FHIR server than the caller's own: its patients are other people."""
    server = said.get("fhirServer")
    if server is None:
        if said.get("fhirAuthorization") is not None:
            raise not_understood("There is a fhirAuthorization, and no fhirServer that it is for.")
        return
    if not isinstance(server, str) or not is_same_server(server, caller.server):
        raise CallRefused(403, "forbidden", "The fhirServer is not the one configured for this caller.")


def _grant(said: Mapping[str, Any], caller: Caller, patient: str) -> Grant | None:
    """Return what may be read; None where nothing was granted, or it has run out."""
    if said.get("fhirAuthorization") is None:
        return None
    given = _object(said["fhirAuthorization"], "The fhirAuthorization is not an object.")
    token, kind, scope = (given.get(name) for name in ("access_token", "token_type", "scope"))
    lasts = given.get("expires_in")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise not_understood("The fhirAuthorization has no access_token that can be sent.")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise not_understood("The fhirAuthorization is not a Bearer token.")
    if not isinstance(scope, str) or not isinstance(lasts, int) or isinstance(lasts, bool):
        raise not_understood("The fhirAuthorization does not say its scope and for how long it lasts.")
    _check_owner(given, caller, patient)
    scopes = frozenset(scope.split()[:_MOST_SCOPES])
    return Grant(token, scopes) if lasts > 0 else None


def _check_owner(given: Mapping[str, Any], caller: Caller, patient: str) -> None:
    subject, of_patient = given.get("subject"), given.get("patient")
    if not isinstance(subject, str) or (caller.client_id and subject != caller.client_id):
        raise CallRefused(403, "forbidden", "The fhirAuthorization was given to another client.")
    if of_patient is not None and f"Patient/{of_patient}" != patient:
        raise CallRefused(403, "forbidden", "The fhirAuthorization is for another patient.")


def _reads(rights: str) -> bool:
    return rights in ("*", "read") or {"r", "s"} <= set(rights)
