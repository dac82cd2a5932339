"""Who we are to a server: nobody, a user with a password, the bearer of a token, or a backend service.

Each is an httpx.Auth flow. Secrets never show in a repr, a message or a log; `profile` names the kind of
access for run and cache keys, and holds no secret.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx

from connectors.errors import BrokenJson, TokenRefused, error_of_status
from connectors.fhir.codec import decode, dicts
from connectors.keys import SigningKey
from connectors.origin import origin_of, refuse_plain_http


class Auth(httpx.Auth):
    """How requests are authenticated; `profile` is part of run keys (`system:smart:<client id>`)."""

    profile = "system:none"
    scope: str = ""
    """What was granted, in SMART's words; empty where that is not known."""
    origins: frozenset[str] = frozenset()
    """Origins beyond the server's own that the configuration has it ask: a token endpoint."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.profile}>"


class NoAuth(Auth):
    """An open server."""


class BasicAuth(Auth):
    """User name and password (RFC 7617)."""

    profile = "system:basic"

    def __init__(self, username: str, password: str) -> None:
        pair = f"{username}:{password}".encode()
        self._header = f"Basic {base64.b64encode(pair).decode('ascii')}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the header from the first request on."""
        request.headers["Authorization"] = self._header
        yield request


class BearerAuth(Auth):
    """A token that does not change (RFC 6750)."""

    profile = "system:bearer"

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the header with every request."""
        request.headers["Authorization"] = self._header
        yield request


ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFETIME_S = 240
"""SMART allows 300 s at most; the rest is for a server whose clock is behind ours."""
DEFAULT_LIFETIME_S = 300
"""Of a token whose answer does not say (SMART recommends at most 300 s)."""
MAX_LIFETIME_S = 86_400
EARLY_S = 60.0
"""A token is renewed so long before its end, or in the last quarter of a shorter life."""
OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_OAUTH_ERRORS = frozenset(
    {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
     "invalid_scope", "access_denied", "temporarily_unavailable"}
)  # fmt: skip
"""RFC 6749 5.2: the only words of a token endpoint's error that we repeat."""


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    renew_at: float


class SmartBackendAuth(Auth):
    """SMART Backend Services: `client_credentials` with `private_key_jwt` (SMART App Launch 2.2).

    The token endpoint comes from `.well-known/smart-configuration`, else from the CapabilityStatement's
    `oauth-uris`; one that is not on an allowed origin is not asked. Requests that need a token at the same
    time share one renewal; a 401 renews once.
    """

    def __init__(
        self,
        base_url: str,
        client_id: str,
        key: SigningKey,
        scope: str = "system/*.rs",
        *,
        token_url: str | None = None,
        allow_plain_http: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.profile = f"system:smart:{client_id}"
        self._base_url = base_url.rstrip("/")
        self._client_id = client_id
        self._key = key
        self.scope = scope
        self._asked_scope = scope
        self._token_url = token_url
        self.origins = frozenset({origin_of(token_url)} if token_url else ())
        self._allow_plain_http = allow_plain_http
        self._now = now
        self._token: _Token | None = None
        self._renewing = asyncio.Lock()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send the request with a fresh token; after a 401, once more with a new one."""
        refused: _Token | None = None
        for is_last in (False, True):
            async with self._renewing:
                if self._must_renew(refused):
                    steps = self._token_steps(dict(request.extensions))
                    try:
                        outgoing = next(steps)
                        while True:
                            response = yield outgoing
                            await response.aread()
                            outgoing = steps.send(response)
                    except StopIteration as done:
                        self._token = done.value
                token = self._token
            assert token is not None
            request.headers["Authorization"] = token.header
            response = yield request
            if response.status_code != 401 or is_last:
                return
            refused = token

    def _must_renew(self, refused: _Token | None) -> bool:
        token = self._token
        return token is None or token is refused or self._now() >= token.renew_at

    def _token_steps(self, extensions: dict[str, Any]) -> Generator[httpx.Request, httpx.Response, _Token]:
        url = self._token_url or (yield from self._discover(extensions))
        origin = origin_of(url)
        refuse_plain_http(origin, allow_plain_http=self._allow_plain_http)
        form = {
            "grant_type": "client_credentials",
            "scope": self._asked_scope,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self._key.sign(self._claims(url)),
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        response = yield httpx.Request(
            "POST", url, headers=headers, content=urlencode(form).encode(), extensions=extensions
        )
        self._token_url = url
        return self._read_token(response, origin)

    def _claims(self, token_url: str) -> dict[str, Any]:
        return {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": token_url,
            "jti": secrets.token_urlsafe(24),
            "exp": int(self._now()) + ASSERTION_LIFETIME_S,
        }

    def _discover(self, extensions: dict[str, Any]) -> Generator[httpx.Request, httpx.Response, str]:
        for path, find in (
            (".well-known/smart-configuration", _endpoint_of_configuration),
            ("metadata", _endpoint_of_capabilities),
        ):
            headers = {"Accept": "application/json, application/fhir+json"}
            response = yield httpx.Request(
                "GET", f"{self._base_url}/{path}", headers=headers, extensions=extensions
            )
            url = find(_json_of(response)) if response.is_success else None
            if url:
                return url
        raise TokenRefused(
            f"The server {origin_of(self._base_url)} names no token endpoint.",
            "Give the token URL, or check that the server offers SMART Backend Services.",
        )

    def _read_token(self, response: httpx.Response, origin: str) -> _Token:
        if response.status_code >= 500 or response.status_code == 429:
            raise error_of_status(response.status_code, origin)
        answer = _json_of(response)
        value = answer.get("access_token")
        legible = isinstance(value, str) and value.isascii() and value.isprintable()
        if not response.is_success or not legible:
            raise _token_refused(response.status_code, answer.get("error"), origin)
        life_s = lifetime_s(answer.get("expires_in"))
        granted = answer.get("scope")  # RFC 6749 5.1: left out where it is what was asked for
        self.scope = granted if isinstance(granted, str) and granted.strip() else self._asked_scope
        return _Token(f"Bearer {value}", self._now() + life_s - min(EARLY_S, life_s / 4))


def _token_refused(status: int, error: Any, origin: str) -> TokenRefused:
    word = f": {error}" if isinstance(error, str) and error in _OAUTH_ERRORS else ""
    return TokenRefused(f"The token endpoint {origin} gave no token (HTTP {status}{word}).", status=status)


def lifetime_s(value: Any) -> float:
    """Return how long a token lives by its `expires_in`, in seconds, whatever a server writes there."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_LIFETIME_S
    return min(seconds, MAX_LIFETIME_S) if seconds > 0 else DEFAULT_LIFETIME_S


def _json_of(response: httpx.Response) -> dict[str, Any]:
    try:
        value = decode(response.content)
    except BrokenJson:
        return {}
    return value if isinstance(value, dict) else {}


def _endpoint_of_configuration(document: dict[str, Any]) -> str | None:
    return _http_url(document.get("token_endpoint"))


def _endpoint_of_capabilities(document: dict[str, Any]) -> str | None:
    for rest in dicts(document.get("rest")):
        security = rest.get("security")
        for outer in dicts(security.get("extension") if isinstance(security, dict) else None):
            for inner in dicts(outer.get("extension")) if outer.get("url") == OAUTH_URIS else []:
                if inner.get("url") == "token":
                    return _http_url(inner.get("valueUri"))
    return None


def _http_url(value: Any) -> str | None:
    return value if isinstance(value, str) and value.startswith(("https://", "http://")) else None
