from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from joserfc.jwk import ECKey

from connectors.errors import ServerFailed
from service.identity.keys import KeyRing
from service.identity.refusal import Reason, Refused
from service.identity.tokens import MAX_LENGTH, SKEW_S, Expected, read_access_token, read_id_token
from tests.conftest import CANARY
from tests.unit.identity.issuer import (
    AUDIENCE,
    CLIENT,
    ISSUER,
    KEYS,
    NOW,
    TENANT,
    access_claims,
    access_token,
    encode,
    forged,
    id_claims,
    id_token,
    jwks,
    signed_with_the_public_key,
    unsigned,
)

SERVICE = Expected(ISSUER, AUDIENCE, "tid", TENANT)
PERSON = Expected(ISSUER, CLIENT, "tid", TENANT)


async def fetch() -> Any:
    return jwks()


def ring() -> KeyRing:
    return KeyRing(fetch, lambda: 0.0)


async def why(token: str, expected: Expected = SERVICE, now: float = NOW) -> Reason:
    with pytest.raises(Refused) as refused:
        await read_access_token(token, ring(), expected, now)
    assert CANARY not in str(refused.value)
    return refused.value.reason


async def why_not_in(token: str, nonce: str = "n-1") -> Reason:
    with pytest.raises(Refused) as refused:
        await read_id_token(token, ring(), PERSON, nonce, NOW)
    return refused.value.reason


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "ES256", "ES384", "EdDSA", "Ed25519"])
async def test_a_token_of_each_allowed_algorithm_is_read(algorithm: str) -> None:
    claims = await read_access_token(access_token(algorithm=algorithm), ring(), SERVICE, NOW)
    assert claims["sub"] == "sub-7"


@pytest.mark.parametrize("algorithm", ["RS512", "PS256"])
async def test_a_good_signature_of_another_algorithm_is_refused(algorithm: str) -> None:
    assert await why(access_token(algorithm=algorithm)) is Reason.ALGORITHM


async def test_no_signature_and_a_shared_secret_are_refused_before_any_key_is_looked_up() -> None:
    async def never() -> Any:
        raise AssertionError("asked for keys")

    for token in (unsigned(), signed_with_the_public_key()):
        with pytest.raises(Refused) as refused:
            await read_access_token(token, KeyRing(never, lambda: 0.0), SERVICE, NOW)
        assert refused.value.reason is Reason.ALGORITHM


async def test_another_key_of_the_same_name_is_a_forgery() -> None:
    assert await why(forged()) is Reason.SIGNATURE


@pytest.mark.parametrize("part", [0, 1, 2])
async def test_one_changed_character_anywhere_is_refused(part: int) -> None:
    parts = access_token().split(".")
    at = len(parts[part]) // 2
    parts[part] = parts[part][:at] + ("A" if parts[part][at] != "A" else "B") + parts[part][at + 1 :]
    await why(".".join(parts))


async def test_the_key_that_a_token_brings_along_is_never_used() -> None:
    own = ECKey.generate_key("P-256")
    brought = own.as_dict(private=False)
    for offer in ({"jwk": brought}, {"jku": "https://evil.example/jwks"}, {"x5u": "https://evil.example/c"}):
        token = encode({"alg": "ES256", "kid": "P-256", **offer}, access_claims(), own)
        assert await why(token) is Reason.SIGNATURE
        token = encode({"alg": "ES256", "kid": "theirs", **offer}, access_claims(), own)
        assert await why(token) is Reason.UNKNOWN_KEY


async def test_a_key_is_not_used_with_the_algorithm_of_another_kind() -> None:
    token = encode({"alg": "ES256", "kid": "RSA"}, access_claims(), KEYS["P-256"])
    assert await why(token) is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("extra", [{"crit": ["exp"], "exp": 1}, {"b64": True}])
async def test_a_header_that_must_be_understood_is_not(extra: dict[str, Any]) -> None:
    parts = access_token().split(".")
    header = msgspec.json.encode({"alg": "ES256", "kid": "P-256", **extra})
    parts[0] = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
    assert await why(".".join(parts)) is Reason.MALFORMED


async def test_header_parameters_of_other_vendors_are_no_fault() -> None:
    more: dict[str, Any] = {"x5t#S256": "abc", "nonsense": 1}
    token = encode({"alg": "ES256", "kid": "P-256", **more}, access_claims(), KEYS["P-256"])
    assert (await read_access_token(token, ring(), SERVICE, NOW))["sub"] == "sub-7"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"iss": ISSUER + "/"}, Reason.ISSUER),
        ({"iss": None}, Reason.ISSUER),
        ({"aud": "https://other.example"}, Reason.AUDIENCE),
        ({"aud": None}, Reason.AUDIENCE),
        ({"aud": []}, Reason.AUDIENCE),
        ({"aud": [AUDIENCE + "x", CLIENT]}, Reason.AUDIENCE),
        ({"aud": {AUDIENCE: 1}}, Reason.AUDIENCE),
        ({"tid": "other-hospital"}, Reason.TENANT),
        ({"tid": None}, Reason.TENANT),
        ({"tid": [TENANT]}, Reason.TENANT),
        ({"exp": NOW - SKEW_S}, Reason.EXPIRED),
        ({"exp": None}, Reason.EXPIRED),
        ({"exp": str(NOW + 300)}, Reason.MALFORMED),
        ({"exp": True}, Reason.MALFORMED),
        ({"exp": 1e300}, Reason.MALFORMED),
        ({"nbf": NOW + SKEW_S + 1}, Reason.NOT_YET),
        ({"iat": NOW + SKEW_S + 1}, Reason.NOT_YET),
        ({"iat": None}, Reason.NOT_YET),
        ({"iat": NOW + SKEW_S + 1, "nbf": NOW - 10}, Reason.NOT_YET),
        ({"nonce": "n-1"}, Reason.KIND),
        ({"at_hash": "x"}, Reason.KIND),
        ({"typ": "ID"}, Reason.KIND),
        ({"typ": "Refresh"}, Reason.KIND),
    ],
)
async def test_each_claim_that_is_wrong_is_told_apart(more: dict[str, Any], reason: Reason) -> None:
    assert await why(access_token(access_claims(**more))) is reason


@pytest.mark.parametrize(
    "more",
    [
        {"exp": NOW - SKEW_S + 1},
        {"nbf": NOW + SKEW_S},
        {"iat": NOW + SKEW_S},
        {"aud": ["x", AUDIENCE]},
        {"typ": "Bearer"},
    ],
)
async def test_clocks_may_be_a_minute_apart_and_a_token_may_be_for_several(more: dict[str, Any]) -> None:
    claims = access_claims(**more)
    assert await read_access_token(access_token(claims), ring(), SERVICE, NOW) == claims


async def test_without_a_tenant_none_is_asked_for() -> None:
    token = access_token(access_claims(tid=None))
    assert await read_access_token(token, ring(), Expected(ISSUER, AUDIENCE), NOW)


@pytest.mark.parametrize("kind", ["logout+jwt", "dpop+jwt", "id+jwt"])
async def test_a_token_of_another_kind_is_no_access_token(kind: str) -> None:
    assert await why(access_token(typ=kind)) is Reason.KIND


async def test_an_access_token_is_no_id_token() -> None:
    assert await why_not_in(id_token(typ="at+jwt")) is Reason.KIND


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"azp": "other-client"}, Reason.PARTY),
        ({"aud": [CLIENT, "other-client"]}, Reason.PARTY),
        ({"aud": AUDIENCE}, Reason.AUDIENCE),
        ({"nonce": "n-2"}, Reason.NONCE),
        ({"nonce": None}, Reason.NONCE),
        ({"nonce": 1}, Reason.NONCE),
    ],
)
async def test_an_id_token_for_another_client_or_another_attempt_is_refused(
    more: dict[str, Any], reason: Reason
) -> None:
    assert await why_not_in(id_token(id_claims(**more))) is reason


@pytest.mark.parametrize("more", [{}, {"azp": CLIENT}, {"aud": [CLIENT, "other"], "azp": CLIENT}])
async def test_an_id_token_that_is_ours_is_read(more: dict[str, Any]) -> None:
    claims = id_claims(**more)
    assert await read_id_token(id_token(claims), ring(), PERSON, "n-1", NOW) == claims


@pytest.mark.parametrize(
    "token",
    ["", "a", "a.b", "a.b.c", "...", "é.é.é", f"{CANARY}.{CANARY}.{CANARY}", "e30.e30.",
     "bnVsbA.e30.", "W10.e30.",
     "a" * (MAX_LENGTH + 1), "eyJhbGciOjF9.e30.AA", "eyJhbGciOlsiRVMyNTYiXX0.e30.AA", "a.b.c.d.e"],
)  # fmt: skip
async def test_what_is_no_token_is_refused(token: str) -> None:
    assert await why(token) in (Reason.MALFORMED, Reason.ALGORITHM)


async def test_a_token_of_enormous_length_is_refused_however_well_signed() -> None:
    assert await why(access_token(access_claims(groups="g" * MAX_LENGTH))) is Reason.MALFORMED


@pytest.mark.parametrize("content", [b"[]", b"null", b"{", b"\xff", b"[" * 5000])
async def test_signed_content_that_is_no_object_is_refused(content: bytes) -> None:
    token = encode({"alg": "ES256", "kid": "P-256"}, content, KEYS["P-256"])
    assert await why(token) is Reason.MALFORMED


async def test_a_provider_that_is_down_is_no_refusal() -> None:
    async def down() -> Any:
        raise ServerFailed("down")

    with pytest.raises(ServerFailed):
        await read_access_token(access_token(), KeyRing(down, lambda: 0.0), SERVICE, NOW)
