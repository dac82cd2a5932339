"""The private key that signs our assertions: read from a JWK or JWKS file, never shown."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from connectors.errors import KeyUnusable

MIN_RSA_BITS = 2_048


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One private key for RS384 or ES384 (SMART App Launch 2.2, asymmetric client authentication)."""

    algorithm: str
    """`RS384` or `ES384`."""
    kid: str
    _key: RSAKey | ECKey = field(repr=False)

    @classmethod
    def from_file(cls, path: Path, kid: str | None = None) -> Self:
        """Read a JWK or JWKS; `kid` chooses among several. Raises KeyUnusable."""
        try:
            document = msgspec.json.decode(path.read_bytes())
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
            raise KeyUnusable("The signing key file cannot be read as JSON.") from None
        return cls.from_jwk(document, kid)

    @classmethod
    def from_jwk(cls, document: Any, kid: str | None = None) -> Self:
        """Take the first usable private key, or the one with this `kid`. Raises KeyUnusable."""
        keys = document.get("keys", [document]) if isinstance(document, dict) else []
        for jwk in keys if isinstance(keys, list) else []:
            if isinstance(jwk, dict) and kid in (None, jwk.get("kid")):
                found = _import(jwk)
                if found is not None:
                    algorithm, key = found
                    return cls(algorithm, kid or str(jwk.get("kid") or key.thumbprint()), key)
        raise KeyUnusable("The signing key file holds no private key that can sign RS384 or ES384.")

    def sign(self, claims: dict[str, Any]) -> str:
        """Return a compact JWT over the claims, with `kid` in its header."""
        header = {"alg": self.algorithm, "kid": self.kid, "typ": "JWT"}
        return jwt.encode(header, claims, self._key, algorithms=[self.algorithm])


def _import(jwk: dict[str, Any]) -> tuple[str, RSAKey | ECKey] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if jwk.get("kty") == "RSA":
                rsa = RSAKey.import_key(jwk)
                fit = rsa.is_private and rsa.raw_value.key_size >= MIN_RSA_BITS
                return ("RS384", rsa) if fit and jwk.get("alg") in (None, "RS384") else None
            if jwk.get("kty") == "EC" and jwk.get("crv") == "P-384":
                curve = ECKey.import_key(jwk)
                return ("ES384", curve) if curve.is_private and jwk.get("alg") in (None, "ES384") else None
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return None
