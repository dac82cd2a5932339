"""What an EHR's authorization server offers, by its smart-configuration or its CapabilityStatement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from connectors.auth import OAUTH_URIS
from connectors.errors import NotUnderstoodError
from connectors.fhir.codec import dicts

MOST_CAPABILITIES: Final = 200
Check = Callable[[str], str]
"""Returns an address that may be used; raises BadUrl for one that may not."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Where an authorization server takes what, and what it can do. Every address was checked."""

    authorization: str
    token: str
    revocation: str = ""
    """Empty: tokens cannot be taken back."""
    issuer: str = ""
    """As its ID tokens name it; empty where the EHR does not say."""
    jwks: str = ""
    """Where the keys of ID tokens are; empty: where OpenID Connect Discovery says, below the issuer."""
    capabilities: frozenset[str] = frozenset()
    names_itself: bool = False
    """Whether every answer to a browser says whose it is (RFC 9207)."""
    basic_is_taken: bool = True
    """Whether a secret may stand in the header; else in the form alone."""

    @property
    def has_v2(self) -> bool:
        """Tell whether scopes are understood in the words of SMART 2."""
        return "permission-v2" in self.capabilities


def read_configuration(document: Any, check: Check) -> Offer | None:
    """Return the offer of a `smart-configuration`; None where it is none.

    Raises NotUnderstoodError where it lacks what we need, and BadUrl.
    """
    said = document if isinstance(document, dict) else {}
    token, authorization = said.get("token_endpoint"), said.get("authorization_endpoint")
    if not isinstance(token, str) or not isinstance(authorization, str):
        return None
    methods = said.get("code_challenge_methods_supported")
    if isinstance(methods, list) and "S256" not in methods:
        raise NotUnderstoodError(
            "The EHR's authorization server does not offer PKCE with S256.",
            "SMART App Launch 2 requires it: ask the EHR's vendor.",
        )
    ways = said.get("token_endpoint_auth_methods_supported")
    listed = said.get("capabilities")
    capabilities = listed[:MOST_CAPABILITIES] if isinstance(listed, list) else []
    return Offer(
        authorization=check(authorization),
        token=check(token),
        revocation=_checked(said, "revocation_endpoint", check),
        issuer=_text(said, "issuer"),
        jwks=_checked(said, "jwks_uri", check),
        capabilities=frozenset(one for one in capabilities if isinstance(one, str)),
        names_itself=said.get("authorization_response_iss_parameter_supported") is True,
        basic_is_taken=not isinstance(ways, list)
        or "client_secret_basic" in ways
        or "client_secret_post" not in ways,
    )


def read_capabilities(statement: Any, check: Check) -> Offer | None:
    """Return the offer of a CapabilityStatement's `oauth-uris` (SMART 1); None where it has none."""
    found: dict[str, Any] = {}
    for rest in dicts(statement.get("rest") if isinstance(statement, dict) else None):
        security = rest.get("security")
        for outer in dicts(security.get("extension") if isinstance(security, dict) else None):
            if outer.get("url") == OAUTH_URIS:
                found |= {
                    str(inner.get("url")): inner.get("valueUri") for inner in dicts(outer.get("extension"))
                }
    if not all(isinstance(found.get(one), str) for one in ("authorize", "token")):
        return None
    return Offer(
        authorization=check(found["authorize"]),
        token=check(found["token"]),
        revocation=_checked(found, "revoke", check),
    )


def _checked(said: Mapping[str, Any], name: str, check: Check) -> str:
    url = _text(said, name)
    return check(url) if url else ""


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    return value if isinstance(value, str) else ""
