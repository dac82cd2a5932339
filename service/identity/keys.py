"""The provider's public keys (RFC 7517), fetched when they are needed and again when they change.

A token that names a key which is not known has them fetched again, seldom enough that nobody can make us ask
the provider at will. What a token's own header offers (`jwk`, `jku`, `x5u`, `x5c`) is never looked at.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from connectors.errors import ConnectorError
from service.identity.refusal import Reason, Refused

ALGORITHMS: Final = {
    "RS256": "RSA",
    "RS384": "RSA",
    "ES256": "P-256",
    "ES384": "P-384",
    "EdDSA": "Ed25519",
    "Ed25519": "Ed25519",
}
"""What a token may be signed with, and the kind of key that it takes. A shared secret is none of them."""
MIN_RSA_BITS: Final = 2_048
ASK_AGAIN_S: Final = 10.0
"""How soon the provider is asked again after it was asked, whatever a token says."""
FRESH_S: Final = 3_600.0
"""After so long keys are asked for anew: one that the provider took back is then forgotten."""
KEEP_S: Final = 24 * 3_600.0
"""How long known keys are used while the provider does not answer."""
MOST_KEYS: Final = 100

PublicKeyOf = RSAKey | ECKey | OKPKey


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key that checks signatures."""

    kid: str
    kind: str
    """`RSA`, `P-256`, `P-384` or `Ed25519`."""
    algorithm: str
    """The only one that it is for; empty: any of its kind."""
    key: PublicKeyOf = field(repr=False)


class KeyRing:
    """The keys of one provider. `fetch` returns its JWKS or raises ConnectorError; `monotonic` is seconds."""

    def __init__(self, fetch: Callable[[], Awaitable[Any]], monotonic: Callable[[], float]) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._keys: tuple[PublicKey, ...] = ()
        self._known_at: float | None = None
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()

    async def find(self, algorithm: str, kid: str) -> PublicKey:
        """Return the key that a token names; without a `kid` the only one that could have signed it.

        Raises Refused, and ConnectorError where no keys are known and none can be fetched.
        """
        found = self._match(algorithm, kid)
        if found is None or self._age_s(self._known_at) > FRESH_S:
            await self._ask()
            found = self._match(algorithm, kid)
        if found is None:
            raise Refused(Reason.UNKNOWN_KEY)
        return found

    async def _ask(self) -> None:
        """Fetch the keys, unless that was tried a moment ago."""
        async with self._asking:
            if self._age_s(self._asked_at) < ASK_AGAIN_S:
                return
            self._asked_at = self._monotonic()
            try:
                self._keys = read_keys(await self._fetch())
                self._known_at = self._monotonic()
            except ConnectorError:
                if self._age_s(self._known_at) > KEEP_S:
                    self._keys, self._known_at = (), None
                    raise

    def _match(self, algorithm: str, kid: str) -> PublicKey | None:
        fit = [
            one
            for one in self._keys
            if one.kind == ALGORITHMS[algorithm] and one.algorithm in ("", algorithm) and kid in ("", one.kid)
        ]
        return fit[0] if len(fit) == 1 else None

    def _age_s(self, since: float | None) -> float:
        return float("inf") if since is None else self._monotonic() - since


def read_keys(jwks: Any) -> tuple[PublicKey, ...]:
    """Return the keys of a JWKS that can check a signature; the others are passed over, never an error."""
    listed = jwks.get("keys") if isinstance(jwks, dict) else None
    found: list[PublicKey] = []
    for jwk in listed[:MOST_KEYS] if isinstance(listed, list) else []:
        with suppress(JoseError, ValueError, TypeError, KeyError):
            if isinstance(jwk, dict) and jwk.get("use") in (None, "sig"):
                kind, key = _import(jwk)
                found.append(PublicKey(_text(jwk, "kid"), kind, _text(jwk, "alg"), key))
    return tuple(found)


def _import(jwk: dict[str, Any]) -> tuple[str, PublicKeyOf]:
    """Import the public half alone. Raises ValueError for a kind or a size that is not taken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if jwk["kty"] == "RSA":
            rsa = RSAKey.import_key({name: jwk[name] for name in ("kty", "n", "e")})
            if rsa.raw_value.key_size < MIN_RSA_BITS:
                raise ValueError
            return "RSA", rsa
        if jwk["kty"] == "EC" and jwk["crv"] in ("P-256", "P-384"):
            return jwk["crv"], ECKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "y")})
        if jwk["kty"] == "OKP" and jwk["crv"] == "Ed25519":
            return "Ed25519", OKPKey.import_key({name: jwk[name] for name in ("kty", "crv", "x")})
    raise ValueError


def _text(jwk: dict[str, Any], name: str) -> str:
    value = jwk.get(name)
    return value if isinstance(value, str) else ""
