"""JSON Web Tokens of the provider, checked: signature, issuer, audience, tenant, times, kind.

Every check fails closed. A failure is told as one word, and nothing out of a token is ever repeated.
"""

from __future__ import annotations

import hmac
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from joserfc import jws
from joserfc.errors import JoseError

from service.identity.keys import ALGORITHMS, KeyRing, PublicKey
from service.identity.refusal import Reason, Refused

MAX_LENGTH: Final = 16 * 1024
SKEW_S: Final = 60
"""How far the provider's clock and ours may be apart."""
_FARTHEST_S: Final = 1e12
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_ACCESS_TYPES: Final = ("", "jwt", "at+jwt", "application/at+jwt")
_ID_TYPES: Final = ("", "jwt", "id+jwt")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say. Without a `tenant` none is asked for."""

    issuer: str
    audience: str
    tenant_claim: str = "tid"
    tenant: str = ""


async def read_id_token(
    token: str, keys: KeyRing, expected: Expected, nonce: str, now: float
) -> Mapping[str, Any]:
    """Return the claims of an ID token (OpenID Connect Core 3.1.3.7); the audience is our client id.

    Raises Refused, and ConnectorError where the provider's keys cannot be had.
    """
    kind, claims = await _read(token, keys)
    if kind not in _ID_TYPES:
        raise Refused(Reason.KIND)
    _check(claims, expected, now)
    party = claims.get("azp")
    if (party is None and len(audiences(claims)) > 1) or party not in (None, expected.audience):
        raise Refused(Reason.PARTY)
    said = claims.get("nonce")
    if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
        raise Refused(Reason.NONCE)
    return claims


async def read_access_token(token: str, keys: KeyRing, expected: Expected, now: float) -> Mapping[str, Any]:
    """Return the claims of an access token (RFC 9068); an ID token is none, though it is signed alike.

    Raises Refused, and ConnectorError where the provider's keys cannot be had.
    """
    kind, claims = await _read(token, keys)
    is_id_token = "nonce" in claims or "at_hash" in claims or claims.get("typ") in ("ID", "Refresh", "Logout")
    if kind not in _ACCESS_TYPES or is_id_token:
        raise Refused(Reason.KIND)
    _check(claims, expected, now)
    return claims


async def _read(token: str, keys: KeyRing) -> tuple[str, Mapping[str, Any]]:
    """Return a token's `typ` in lower case, and its claims, once the signature is found good."""
    header = read_header(token)
    algorithm, kid, kind = header.get("alg"), header.get("kid", ""), header.get("typ", "")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Refused(Reason.ALGORITHM)
    if "crit" in header or "b64" in header or not isinstance(kid, str) or not isinstance(kind, str):
        raise Refused(Reason.MALFORMED)
    return kind.lower(), read_claims(token, await keys.find(algorithm, kid), algorithm)


def read_header(token: str) -> Mapping[str, Any]:
    """Return what a token says of itself, which nobody has checked. Raises Refused."""
    if len(token) > MAX_LENGTH or not _COMPACT.fullmatch(token):
        raise Refused(Reason.MALFORMED)
    try:
        header = jws.extract_compact(token.encode(), registry=_lenient()).headers()
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
        raise Refused(Reason.MALFORMED) from None
    return header if isinstance(header, dict) else {}


def read_claims(token: str, key: PublicKey, algorithm: str) -> Mapping[str, Any]:
    """Return the claims of a token that this key signed by this algorithm. Raises Refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            signed = jws.deserialize_compact(
                token, key.key, algorithms=[algorithm], registry=_lenient(algorithm)
            )
    except (JoseError, ValueError, TypeError):
        raise Refused(Reason.SIGNATURE) from None
    try:
        claims = msgspec.json.decode(signed.payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Refused(Reason.MALFORMED) from None
    if not isinstance(claims, dict):
        raise Refused(Reason.MALFORMED)
    return claims


def _lenient(*algorithms: str) -> jws.JWSRegistry:
    """Return joserfc's rules; header parameters that it does not know (`x5t#S256`) are no fault."""
    return jws.JWSRegistry(algorithms=list(algorithms) or None, strict_check_header=False)


def _check(claims: Mapping[str, Any], expected: Expected, now: float) -> None:
    if claims.get("iss") != expected.issuer:
        raise Refused(Reason.ISSUER)
    if expected.audience not in audiences(claims):
        raise Refused(Reason.AUDIENCE)
    if expected.tenant and claims.get(expected.tenant_claim) != expected.tenant:
        raise Refused(Reason.TENANT)
    expires = seconds(claims, "exp")
    if expires is None or now >= expires + SKEW_S:
        raise Refused(Reason.EXPIRED)
    issued, begins = seconds(claims, "iat"), seconds(claims, "nbf")
    if issued is None or max(issued, begins or issued) > now + SKEW_S:
        raise Refused(Reason.NOT_YET)


def audiences(claims: Mapping[str, Any]) -> list[str]:
    """Return whom a token is for."""
    value = claims.get("aud")
    if isinstance(value, str):
        return [value] if value else []
    return [one for one in value if isinstance(one, str) and one] if isinstance(value, list) else []


def seconds(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a NumericDate, or None where there is none. Raises Refused for what is no number."""
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > _FARTHEST_S:
        raise Refused(Reason.MALFORMED)
    return float(value)
