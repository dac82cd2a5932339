"""The key that signs our documents, and what others check a signature with.

Signatures are JWS in compact form with detached content (RFC 7515, appendix F), algorithm Ed25519
(RFC 9864): the same content and key give the same signature, so that a retry files the same bytes. The key
file is a JWKS with mode 0600; its first key signs, and all its public halves are served, so that a new key
is put before the old ones and documents of the old ones can still be checked. No message holds a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import OKPKey

from service.errors import StoreError
from service.keyfile import read_private, write_private

ALGORITHM = "Ed25519"
KEY_FILE = "signing.key"
"""Its name in the home folder, beside the store's key."""
_RESTORE = "Restore it from its backup; a new one signs, but cannot prove what the old one signed."


@dataclass(frozen=True, slots=True)
class Signer:
    """The keys of one installation: the first one signs, all of them are served."""

    _keys: tuple[OKPKey, ...] = field(repr=False)

    @classmethod
    def from_file(cls, path: Path, *, create: bool = True) -> Signer:
        """Read the key file, or make it on first use. Raises StoreError where it cannot be used."""
        try:
            if create and not path.exists():
                write_private(path, _new_keys())
            return cls(tuple(_private_keys(read_private(path, "signing key file"))))
        except OSError:
            raise StoreError("The signing key file cannot be read or made.", _RESTORE) from None

    @property
    def kid(self) -> str:
        """The RFC 7638 thumbprint of the key that signs."""
        return self._keys[0].thumbprint()

    def sign(self, content: bytes) -> str:
        """Return a compact JWS over the content, without the content: `header..signature`."""
        header = {"alg": ALGORITHM, "kid": self.kid}
        return jws.detach_content(
            jws.serialize_compact(header, content, self._keys[0], algorithms=[ALGORITHM])
        )

    def jwks(self) -> dict[str, list[dict[str, Any]]]:
        """Return the public keys as a JWKS (RFC 7517)."""
        return {"keys": [_public(key) for key in self._keys]}


def check_signature(signature: str, content: bytes, jwks: Any) -> str:
    """Say what is wrong with a detached signature: empty, `unknown_key` or `wrong_signature`. Never raises.

    `jwks` is the JWKS of those who are believed, as JSON; keys that are not Ed25519 are passed over.
    """
    kid = _kid_of(signature)
    if kid is None:
        return "wrong_signature"
    keys = [key for key in _public_keys(jwks) if key.thumbprint() == kid]
    if not keys:
        return "unknown_key"
    try:
        jws.deserialize_compact(signature, keys[0], payload=content, algorithms=[ALGORITHM])
    except (BadSignatureError, JoseError, ValueError, TypeError):
        return "wrong_signature"
    return ""


def _kid_of(signature: str) -> str | None:
    try:
        kid = jws.extract_compact(signature.encode()).headers().get("kid")
    except (JoseError, ValueError, TypeError, AttributeError):
        return None
    return kid if isinstance(kid, str) else None


def _public_keys(jwks: Any) -> list[OKPKey]:
    listed = jwks.get("keys", [jwks]) if isinstance(jwks, dict) else []
    found: list[OKPKey] = []
    for jwk in listed if isinstance(listed, list) else []:
        with suppress(JoseError, ValueError, TypeError, KeyError):
            if isinstance(jwk, dict) and jwk.get("crv") == "Ed25519":
                found.append(OKPKey.import_key({name: jwk[name] for name in ("kty", "crv", "x")}))
    return found


def _public(key: OKPKey) -> dict[str, Any]:
    plain = key.as_dict(private=False)
    shown = {name: plain[name] for name in ("kty", "crv", "x")}
    return {**shown, "kid": key.thumbprint(), "use": "sig", "alg": ALGORITHM}


def _private_keys(data: bytes) -> Sequence[OKPKey]:
    try:
        listed = msgspec.json.decode(data)["keys"]
        keys = [OKPKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "d")}) for jwk in listed]
    except (msgspec.MsgspecError, JoseError, ValueError, TypeError, KeyError):
        keys = []
    if not keys or any(key.curve_name != "Ed25519" for key in keys):
        raise StoreError("The signing key file is damaged.", _RESTORE)
    return keys


def _new_keys() -> bytes:
    return msgspec.json.encode({"keys": [OKPKey.generate_key("Ed25519").as_dict(private=True)]})
