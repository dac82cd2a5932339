"""From a provider's claims to a visitor: who, with which roles. Nothing is let in by default.

A visitor is named by a keyed hash of issuer and subject. Names and e-mail addresses are never read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from service.errors import SettingsError
from service.identity.refusal import Reason, Refused

_REFERENCE = re.compile(r"(?P<type>[A-Z][A-Za-z]{1,40})/(?P<id>[A-Za-z0-9.\-]{1,64})")
_LEGIBLE = re.compile(r"[A-Za-z0-9._-]{1,64}")
STAFF: Final = ("Practitioner", "PractitionerRole")
OUTSIDERS: Final = ("Patient", "RelatedPerson")
NAME_LENGTH: Final = 32
"""Hexadecimal digits of a visitor's name: 128 bits, enough that no two of a hospital are the same."""


class Role(StrEnum):
    """What somebody is here. `service/api/routes.toml` says what each may do."""

    READER = "reader"
    CLINICIAN = "clinician"
    REVIEWER = "reviewer"
    AUDITOR = "auditor"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who was let in, for one request or for a session."""

    actor: str
    """As audit entries name them: `user:local`, `user:<hash>`, `service:<client id>`."""
    roles: frozenset[Role]
    fhir_user: str = ""
    """`Practitioner/7` on the FHIR server that is configured; empty where the provider names nobody there."""
    by_cookie: bool = True
    """Whether a browser sent the credential by itself: another page could then have asked for this."""


LOCAL_USER: Final = "user:local"
"""The one user of an installation without an identity provider."""
LOCAL: Final = Visitor(LOCAL_USER, frozenset(Role))


@dataclass(frozen=True, slots=True)
class Register:
    """How a provider's claims are read at this site.

    `roles` maps a value of the claim `roles_claim` to a role; `keyed_hash` hashes (purpose, value);
    `fhir_url` is the server whose users count.
    """

    issuer: str
    roles_claim: str
    roles: Mapping[str, Role]
    keyed_hash: Callable[[str, str], str]
    fhir_url: str = ""

    def person(self, claims: Mapping[str, Any]) -> Visitor:
        """Return who signed in. Raises Refused: without a subject, a patient, or without a role."""
        return self._visitor(claims, f"user:{self._hash(_subject(claims))}", by_cookie=True)

    def bearer(self, claims: Mapping[str, Any]) -> Visitor:
        """Return who shows an access token: a service where it is its own subject (RFC 9068 2.2)."""
        subject, client = _subject(claims), claims.get("client_id") or claims.get("azp")
        name = f"user:{self._hash(subject)}"
        if client == subject:
            name = f"service:{subject if _LEGIBLE.fullmatch(subject) else self._hash(subject)}"
        return self._visitor(claims, name, by_cookie=False)

    def _visitor(self, claims: Mapping[str, Any], actor: str, *, by_cookie: bool) -> Visitor:
        fhir_user = self._fhir_user(claims.get("fhirUser"))
        roles = frozenset(
            self.roles[value] for value in claimed(claims, self.roles_claim) if value in self.roles
        )
        if not roles:
            raise Refused(Reason.ROLE)
        return Visitor(actor, roles, fhir_user, by_cookie)

    def _fhir_user(self, value: Any) -> str:
        """Return the reference of a member of staff on our server. Raises Refused for a patient's."""
        base, reference = split_fhir_user(value)
        kind = reference.partition("/")[0]
        if kind in OUTSIDERS:
            raise Refused(Reason.PATIENT)
        is_ours = not base or base == self.fhir_url.rstrip("/")
        return reference if kind in STAFF and is_ours else ""

    def _hash(self, subject: str) -> str:
        return self.keyed_hash("subject", f"{self.issuer}\0{subject}")[:NAME_LENGTH]


def split_fhir_user(value: Any) -> tuple[str, str]:
    """Return (base URL or empty, `Type/id`) of a `fhirUser` claim (SMART App Launch 2.2), or two empties."""
    parts = value.split("/") if isinstance(value, str) else []
    if len(parts) > 3 and parts[-2] == "_history":
        parts = parts[:-2]
    reference = "/".join(parts[-2:])
    if not _REFERENCE.fullmatch(reference):
        return "", ""
    return "/".join(parts[:-2]), reference


def claimed(claims: Mapping[str, Any], name: str) -> list[str]:
    """Return a claim's values: a list's items, or the words of a text. `realm_access.roles` looks inside."""
    value: Any = claims.get(name)
    if value is None:
        value = claims
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return value.split()
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def parse_roles(given: Mapping[str, str]) -> dict[str, Role]:
    """Return the mapping of EPICRISIS_OIDC_ROLES. Raises SettingsError for a role that does not exist."""
    try:
        return {value: Role(role) for value, role in given.items()}
    except ValueError:
        known = ", ".join(Role)
        raise SettingsError(
            "EPICRISIS_OIDC_ROLES names a role that does not exist.",
            f'Map the values of the claim to {known}, for example {{"ward-doctors": "clinician"}}.',
        ) from None


def _subject(claims: Mapping[str, Any]) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise Refused(Reason.SUBJECT)
    return subject
