"""The wire to one EHR's authorization server: what it offers, its keys, and tokens for a code.

Its endpoints are taken from the EHR's own discovery, and only where our configuration allows their origin:
nothing that a browser or a token says leads to a request elsewhere.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx

from connectors.auth import ASSERTION_LIFETIME_S, ASSERTION_TYPE
from connectors.errors import (
    BrokenJson,
    ConnectorError,
    NotFoundError,
    NotUnderstoodError,
    RefusedError,
    RequestRejected,
    TokenRefused,
)
from connectors.fhir.codec import decode
from connectors.http import Session
from connectors.keys import SigningKey
from connectors.limits import MIB, Limits
from connectors.origin import origin_of
from connectors.smart.answer import TokenAnswer, read_answer
from connectors.smart.offer import Check, Offer, read_capabilities, read_configuration

LIMITS: Final = Limits(connect_s=5, read_s=10, total_s=15, retries=1, backoff_s=0.2, retry_after_cap_s=2)
"""A person waits for the answer."""
MAX_BYTES: Final = 4 * MIB
"""A CapabilityStatement may be large; the other answers are small."""
FRESH_S: Final = 3_600.0
"""How long an offer is used; an older one is used on where a new one cannot be had."""
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}


@dataclass(frozen=True, slots=True)
class Client:
    """Who we are to an EHR: confidential with a key or a secret, else public."""

    client_id: str
    secret: str = field(default="", repr=False)
    key: SigningKey | None = field(default=None, repr=False)

    def shown(
        self, endpoint: str, now: float, *, in_header: bool = True
    ) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return the headers and form fields that say who we are (RFC 6749 2.3, RFC 7523 2.2)."""
        if self.key is not None:
            return {}, {
                "client_assertion_type": ASSERTION_TYPE,
                "client_assertion": self._assertion(endpoint, now),
            }
        if self.secret and in_header:
            pair = f"{quote(self.client_id, safe='')}:{quote(self.secret, safe='')}"
            return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"}, {}
        if self.secret:
            return {}, {"client_id": self.client_id, "client_secret": self.secret}
        return {}, {"client_id": self.client_id}

    def _assertion(self, endpoint: str, now: float) -> str:
        assert self.key is not None
        return self.key.sign(
            {
                "iss": self.client_id, "sub": self.client_id, "aud": endpoint,
                "jti": secrets.token_urlsafe(24), "exp": int(now) + ASSERTION_LIFETIME_S,
            }
        )  # fmt: skip


@dataclass(slots=True)
class SmartServer:
    """One EHR's authorization server. `check` returns an address that may be asked, or raises BadUrl.

    `base_url` is its FHIR server; `origins` are the others that `check` lets pass.
    """

    base_url: str
    client: Client
    check: Check
    origins: tuple[str, ...] = ()
    known_issuer: str = ""
    """Whom its ID tokens name, where it does not say that itself."""
    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    transport: httpx.AsyncBaseTransport | None = field(default=None, repr=False)
    _found: tuple[float, Offer] | None = field(default=None, init=False, repr=False)

    async def offer(self) -> Offer:
        """Return what the server offers. Raises ConnectorError."""
        if self._found is not None and self.monotonic() - self._found[0] < FRESH_S:
            return self._found[1]
        try:
            found = await self._discover()
        except ConnectorError:
            if self._found is None:
                raise
            found = self._found[1]
        self._found = (self.monotonic(), found)
        return found

    async def issuer(self) -> str:
        """Return whom the server's ID tokens name. Raises ConnectorError."""
        return (await self.offer()).issuer or self.known_issuer or self.base_url

    async def fetch_keys(self) -> Any:
        """Return the keys of its ID tokens as a JWKS. Raises ConnectorError."""
        url = (await self.offer()).jwks
        if not url:
            issuer = await self.issuer()
            address = self.check(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            said = await self._json(address, "application/json")
            if not isinstance(said, dict) or said.get("issuer") != issuer:
                raise NotUnderstoodError("The EHR's OpenID configuration is of another issuer.")
            url = self.check(str(said.get("jwks_uri")))
        return await self._json(url, "application/json")

    async def exchange(self, code: str, verifier: str, redirect_uri: str) -> TokenAnswer:
        """Return the tokens for a code (RFC 6749 4.1.3, RFC 7636 4.5).

        Raises TokenRefused where the server gives none, and ConnectorError.
        """
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri,
                "code_verifier": verifier}  # fmt: skip
        return await self._token(form)

    async def refresh(self, refresh_token: str) -> TokenAnswer:
        """Return new tokens for a refresh token, which many servers take once (RFC 6749 6).

        Raises TokenRefused where the server takes it no more, and ConnectorError.
        """
        return await self._token({"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def revoke(self, token: str, kind: str) -> None:
        """Take a token back (RFC 7009); where the server has no place for that, nothing happens.

        `kind` is `refresh_token` or `access_token`. Raises ConnectorError.
        """
        endpoint = (await self.offer()).revocation
        if endpoint:
            await self._post(endpoint, {"token": token, "token_type_hint": kind})

    async def _discover(self) -> Offer:
        try:
            document = await self._json(
                f"{self.base_url}/.well-known/smart-configuration", "application/json"
            )
        except (NotFoundError, RefusedError, RequestRejected, BrokenJson):  # a server of SMART 1 has none
            document = None
        found = read_configuration(document, self.check)
        if found is None:
            statement = await self._json(f"{self.base_url}/metadata", "application/fhir+json")
            found = read_capabilities(statement, self.check)
        if found is None:
            raise NotUnderstoodError(
                f"The EHR {origin_of(self.base_url)} does not say where one signs in.",
                "Check that iss is the FHIR base URL, and that it offers SMART App Launch.",
            )
        return found

    async def _token(self, form: Mapping[str, str]) -> TokenAnswer:
        endpoint = (await self.offer()).token
        try:
            return read_answer(await self._post(endpoint, form))
        except (RequestRejected, RefusedError) as error:
            if isinstance(error, TokenRefused):
                raise
            raise TokenRefused(
                f"The token endpoint {origin_of(endpoint)} gave no token.", status=error.status
            ) from None

    async def _post(self, endpoint: str, form: Mapping[str, str]) -> bytes:
        in_header = (await self.offer()).basic_is_taken
        headers, fields = self.client.shown(endpoint, self.now(), in_header=in_header)
        content = urlencode({**form, **fields}).encode()
        return await self._send("POST", endpoint, {**_FORM, **headers}, content)

    async def _json(self, url: str, kind: str) -> Any:
        return decode(await self._send("GET", url, {"Accept": kind}))

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> bytes:
        session = Session(
            self.base_url, limits=LIMITS, transport=self.transport, allowed_origins=self.origins
        )
        try:
            answer = await session.send(
                method, url, repeatable=method == "GET", headers=headers, content=content, max_bytes=MAX_BYTES
            )
        finally:
            await session.aclose()
        return answer.body
