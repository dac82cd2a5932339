"""The wire to the OpenID provider: what it offers, its keys, and a code turned into an ID token.

Its endpoints are taken from the issuer's own discovery document, and only on the issuer's origin: nothing
that a browser or a token says leads to a request elsewhere.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx
import msgspec

from connectors.errors import BadUrl, ConnectorError, NotUnderstoodError, RequestRejected, Unauthorized
from connectors.http import Session
from connectors.limits import MIB, Limits
from connectors.origin import check_base_url, origin_of, refuse_plain_http
from service.errors import SettingsError
from service.identity.refusal import Reason, Refused

LIMITS: Final = Limits(connect_s=5, read_s=10, total_s=15, retries=1, backoff_s=0.2, retry_after_cap_s=2)
"""A person waits for the answer."""
MAX_BYTES: Final = MIB
FRESH_S: Final = 3_600.0
"""How long a discovery document is used; an older one is used on where a new one cannot be had."""
WISHED_SCOPES: Final = ("fhirUser", "roles", "groups")
"""Asked for where the provider offers them; names and e-mail addresses never are."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the provider offers (OpenID Connect Discovery 1.0)."""

    authorization: str
    token: str
    jwks: str
    scopes: tuple[str, ...]
    secret_in_form: bool
    """Whether the token endpoint takes our secret in the form alone."""
    end_session: str = ""
    """Where a person ends the provider's own session (RP-Initiated Logout 1.0); empty: nowhere."""


@dataclass(slots=True)
class Provider:
    """One provider, and what we are to it. Without a secret we are a public client, protected by PKCE."""

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    monotonic: Callable[[], float] = time.monotonic
    transport: httpx.AsyncBaseTransport | None = field(default=None, repr=False)
    _found: tuple[float, Endpoints] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            check_base_url(self.issuer)
        except ConnectorError as error:
            raise SettingsError(
                f"EPICRISIS_OIDC_ISSUER cannot be used ({error.code}).",
                "Give the provider's issuer, an https address.",
            ) from None

    async def endpoints(self) -> Endpoints:
        """Return what the provider offers. Raises ConnectorError."""
        if self._found is not None and self.monotonic() - self._found[0] < FRESH_S:
            return self._found[1]
        try:
            document = await self._json(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
            found = read_endpoints(document, self.issuer)
        except ConnectorError:
            if self._found is None:
                raise
            found = self._found[1]
        self._found = (self.monotonic(), found)
        return found

    async def fetch_keys(self) -> Any:
        """Return the provider's JWKS as JSON. Raises ConnectorError."""
        return await self._json((await self.endpoints()).jwks)

    async def exchange(self, code: str, verifier: str, redirect_uri: str) -> str:
        """Return the ID token for a code (RFC 6749 4.1.3, RFC 7636 4.5).

        Raises Refused where the provider gives none, and ConnectorError. The access token is let go.
        """
        endpoints = await self.endpoints()
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri,
                "code_verifier": verifier}  # fmt: skip
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if not self.client_secret:
            form["client_id"] = self.client_id
        elif endpoints.secret_in_form:
            form |= {"client_id": self.client_id, "client_secret": self.client_secret}
        else:
            headers["Authorization"] = self._basic()
        try:
            answer = await self._send("POST", endpoints.token, headers, urlencode(form).encode())
        except (RequestRejected, Unauthorized):
            raise Refused(Reason.CODE) from None
        token = answer.get("id_token") if isinstance(answer, Mapping) else None
        if not isinstance(token, str):
            raise Refused(Reason.CODE)
        return token

    def _basic(self) -> str:
        """RFC 6749 2.3.1: both halves are form-encoded before they are joined."""
        pair = f"{quote(self.client_id, safe='')}:{quote(self.client_secret, safe='')}"
        return f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"

    async def _json(self, url: str) -> Any:
        return await self._send("GET", url, {"Accept": "application/json"})

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> Any:
        session = Session(self.issuer, limits=LIMITS, transport=self.transport)
        try:
            answer = await session.send(
                method, url, repeatable=method == "GET", headers=headers, content=content,
                max_bytes=MAX_BYTES,
            )  # fmt: skip
        finally:
            await session.aclose()
        try:
            return msgspec.json.decode(answer.body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise NotUnderstoodError(f"The answer of {origin_of(url)} is not JSON.") from None


def read_endpoints(document: Any, issuer: str) -> Endpoints:
    """Return the endpoints of a discovery document. Raises NotUnderstoodError.

    It must be the issuer's own (4.3), and its back-channel endpoints must lie on the issuer's origin.
    """
    said = document if isinstance(document, dict) else {}
    if said.get("issuer") != issuer:
        raise NotUnderstoodError(
            "The provider's discovery document is of another issuer.",
            "Set EPICRISIS_OIDC_ISSUER exactly as the provider writes it.",
        )
    methods = said.get("token_endpoint_auth_methods_supported")
    only_form = isinstance(methods, list) and "client_secret_basic" not in methods
    scopes, end_session = said.get("scopes_supported"), said.get("end_session_endpoint")
    return Endpoints(
        authorization=_endpoint(said.get("authorization_endpoint"), None),
        token=_endpoint(said.get("token_endpoint"), issuer),
        jwks=_endpoint(said.get("jwks_uri"), issuer),
        scopes=tuple(one for one in WISHED_SCOPES if isinstance(scopes, list) and one in scopes),
        secret_in_form=only_form,
        end_session=_endpoint(end_session, issuer) if end_session else "",
    )


def _endpoint(url: Any, issuer: str | None) -> str:
    try:
        origin = origin_of(url)
        refuse_plain_http(origin, allow_plain_http=False)
        if not origin.startswith(("https://", "http://")):
            raise BadUrl("")
    except ConnectorError:
        raise NotUnderstoodError("The provider's discovery document names no usable endpoint.") from None
    if issuer is not None and origin != origin_of(issuer):
        raise NotUnderstoodError("An endpoint of the provider lies on another origin than its issuer.")
    return str(url)
