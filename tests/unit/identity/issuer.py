"""An identity provider in memory: real keys, real tokens, no network of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import msgspec
from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

ISSUER = "https://login.hospital.example/realm"
CLIENT = "epicrisis"
AUDIENCE = "https://epicrisis.hospital.example"
TENANT = "st-elsewhere"
NOW = 1_795_000_000.0
OF_ALGORITHM = {
    "RS256": "RSA", "RS384": "RSA", "ES256": "P-256", "ES384": "P-384", "EdDSA": "Ed25519",
    "Ed25519": "Ed25519", "RS512": "RSA", "PS256": "RSA", "ES256K": "secp256k1",
}  # fmt: skip


def new_key(kind: str) -> Key:
    if kind == "RSA":
        return RSAKey.generate_key(2048)
    if kind == "Ed25519":
        return OKPKey.generate_key("Ed25519")
    return ECKey.generate_key(kind)


KEYS: dict[str, Key] = {kind: new_key(kind) for kind in ("RSA", "P-256", "P-384", "Ed25519")}


def encode(header: Mapping[str, Any], claims: Any, key: Key) -> str:
    """Sign without joserfc's own ideas of what is wise."""
    content = claims if isinstance(claims, bytes) else msgspec.json.encode(claims)
    registry = jws.JWSRegistry(algorithms=[header["alg"]], strict_check_header=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jws.serialize_compact(dict(header), content, key, registry=registry)


def access_claims(**more: Any) -> dict[str, Any]:
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "sub-7", "iat": NOW - 10, "exp": NOW + 300, "tid": TENANT,
        "roles": ["ward-doctors"],
    }  # fmt: skip
    return {name: value for name, value in {**claims, **more}.items() if value is not None}


def id_claims(**more: Any) -> dict[str, Any]:
    return access_claims(**{"aud": CLIENT, "nonce": "n-1", **more})


def access_token(claims: Mapping[str, Any] | None = None, algorithm: str = "ES256", **header: Any) -> str:
    kind = OF_ALGORITHM[algorithm]
    return encode(
        {"alg": algorithm, "kid": kind, "typ": "at+jwt", **header}, claims or access_claims(), KEYS[kind]
    )


def id_token(claims: Mapping[str, Any] | None = None, **header: Any) -> str:
    return encode({"alg": "ES256", "kid": "P-256", **header}, claims or id_claims(), KEYS["P-256"])


def forged(claims: Mapping[str, Any] | None = None) -> str:
    """A token whose signature was made with another key of the same kind."""
    return encode(
        {"alg": "ES256", "kid": "P-256", "typ": "at+jwt"},
        claims or access_claims(),
        ECKey.generate_key("P-256"),
    )


def unsigned(claims: Mapping[str, Any] | None = None) -> str:
    """`alg: none`."""
    head = _part(msgspec.json.encode({"alg": "none", "kid": "P-256"}))
    return f"{head}.{_part(msgspec.json.encode(claims or access_claims()))}."


def signed_with_the_public_key(claims: Mapping[str, Any] | None = None) -> str:
    """HS256, keyed with what everybody knows: the classic confusion of a public key with a secret."""
    head = _part(msgspec.json.encode({"alg": "HS256", "kid": "RSA"}))
    body = _part(msgspec.json.encode(claims or access_claims()))
    key = KEYS["RSA"]
    assert isinstance(key, RSAKey)
    public = key.as_pem(private=False)
    mac = hmac.new(public, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{_part(mac)}"


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwks(**keys: Key) -> dict[str, Any]:
    """The public halves, each under its name as `kid`."""
    found = keys or KEYS
    return {"keys": [{**key.as_dict(private=False), "kid": kid, "use": "sig"} for kid, key in found.items()]}


@dataclass
class Issuer:
    """The provider's HTTP side, for httpx.MockTransport. `down` makes it fail; `claims` go into ID tokens."""

    claims: dict[str, Any] = field(default_factory=id_claims)
    document: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=jwks)
    down: bool = False
    public_client: bool = False
    asked: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    forms: list[httpx.Request] = field(default_factory=list)

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.answer)

    def authorize(self, address: str) -> dict[str, str]:
        """What a browser brings back from the provider's page."""
        asked = dict(parse_qsl(urlsplit(address).query))
        self.codes["code-1"] = asked
        return {"code": "code-1", "state": asked["state"]}

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if self.down:
            return httpx.Response(503)
        if request.url.path.endswith("/.well-known/openid-configuration"):
            return httpx.Response(200, json={**DISCOVERY, **self.document})
        if request.url.path.endswith("/jwks"):
            return httpx.Response(200, json=self.keys)
        return self._exchange(request)

    def _exchange(self, request: httpx.Request) -> httpx.Response:
        self.forms.append(request)
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        asked = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest())
        if (
            asked is None
            or asked["redirect_uri"] != form["redirect_uri"]
            or asked["code_challenge"] != challenge.rstrip(b"=").decode()
        ):
            return httpx.Response(400, json={"error": "invalid_grant"})
        return httpx.Response(
            200, json={"access_token": "a", "id_token": id_token({**self.claims, "nonce": asked["nonce"]})}
        )


DISCOVERY = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/jwks",
    "end_session_endpoint": f"{ISSUER}/logout",
    "scopes_supported": ["openid", "profile", "email", "fhirUser"],
}
