"""Signing in by the authorization-code flow with PKCE (RFC 6749, 7636; OpenID Connect Core 3.1).

What belongs to one attempt travels in a sealed cookie of the browser that began it, so that nobody without
a session makes us keep anything, and an answer that another browser asked for is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlencode

import msgspec

from service.errors import StoreError
from service.identity.keys import KeyRing
from service.identity.provider import Provider
from service.identity.refusal import Reason, Refused
from service.identity.tokens import Expected, read_id_token

ATTEMPT_S: Final = 600
"""How long somebody may take to sign in at the provider."""
PLACE: Final = "epicrisis_login.cookie"
HOME: Final = "/"
_OURS = re.compile(r"/(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*)?")
_OPAQUE = re.compile(r"[\x20-\x7e]{1,2048}")


class Sealer(Protocol):
    """Seals bytes for one place, and opens them there alone."""

    def seal(self, plain: bytes, place: str) -> bytes:
        """Encrypt."""
        ...

    def unseal(self, sealed: bytes, place: str) -> bytes:
        """Decrypt. Raises StoreError for what was not sealed here."""
        ...


class Attempt(msgspec.Struct, frozen=True):
    """One attempt to sign in, as it travels sealed."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    to: str
    began_at: float


class Begun(NamedTuple):
    """Where the browser goes, and what it keeps meanwhile."""

    address: str
    cookie: str


class SignedIn(NamedTuple):
    """Whom the provider vouches for, and the page that was asked for."""

    claims: Mapping[str, Any]
    to: str


@dataclass(frozen=True, slots=True)
class SignIn:
    """The flow with one provider. `now` is seconds since the epoch."""

    provider: Provider
    keys: KeyRing
    expected: Expected
    sealer: Sealer
    now: Callable[[], float] = time.time

    async def begin(self, redirect_uri: str, to: str = HOME) -> Begun:
        """Begin an attempt that ends at one of our own paths. Raises ConnectorError."""
        endpoints = await self.provider.endpoints()
        attempt = Attempt(
            secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48), redirect_uri,
            own_path(to), self.now(),
        )  # fmt: skip
        asked = {
            "response_type": "code",
            "client_id": self.provider.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(("openid", *endpoints.scopes)),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": _challenge(attempt.verifier),
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in endpoints.authorization else "?"
        sealed = self.sealer.seal(msgspec.json.encode(attempt), PLACE)
        return Begun(
            f"{endpoints.authorization}{joint}{urlencode(asked)}",
            base64.urlsafe_b64encode(sealed).decode("ascii"),
        )

    async def finish(self, cookie: str, answer: Mapping[str, str]) -> SignedIn:
        """End an attempt by the provider's answer (its query). Raises Refused, and ConnectorError."""
        attempt = self._attempt(cookie)
        if not hmac.compare_digest(attempt.state.encode(), answer.get("state", "").encode()):
            raise Refused(Reason.STATE)
        if answer.get("iss", self.expected.issuer) != self.expected.issuer:  # RFC 9207: a mix-up
            raise Refused(Reason.ISSUER)
        code = answer.get("code", "")
        if "error" in answer or not _OPAQUE.fullmatch(code):
            raise Refused(Reason.DECLINED)
        token = await self.provider.exchange(code, attempt.verifier, attempt.redirect_uri)
        claims = await read_id_token(token, self.keys, self.expected, attempt.nonce, self.now())
        return SignedIn(claims, attempt.to)

    def _attempt(self, cookie: str) -> Attempt:
        try:
            sealed = base64.urlsafe_b64decode(cookie.encode())
            attempt = msgspec.json.decode(self.sealer.unseal(sealed, PLACE), type=Attempt)
        except (StoreError, ValueError, msgspec.MsgspecError):
            raise Refused(Reason.STATE) from None
        if not 0 <= self.now() - attempt.began_at <= ATTEMPT_S:
            raise Refused(Reason.STATE)
        return attempt


def own_path(to: str) -> str:
    """Return a path of ours to go to, or the first page for anything else: never another site."""
    return to if len(to) <= 200 and _OURS.fullmatch(to) else HOME


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
