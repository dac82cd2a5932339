"""Tokens of callers of CDS services: what is taken, and each thing that is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from connectors.errors import ConnectorError
from service.errors import SettingsError, StoreError
from service.identity.cds import LIFE_S, Caller, Callers, staff_of
from service.identity.refusal import Reason, Refused
from service.identity.tokens import SKEW_S
from tests.unit.api.cds.ehr import BASE, CALLER, ISS, JKU, KEYS, NOW, VIEW, KeyServer, claims, jwks, token
from tests.unit.identity.issuer import encode
from tests.unit.in_memory_hooks import InMemoryHooks

ADDRESSES = [f"{BASE}/cds-services/{VIEW}"]
AT = NOW.timestamp()


class Desk:
    """Callers over a key server and a store in memory, with clocks that a test turns."""

    def __init__(self, *known: Caller) -> None:
        self.server, self.store = KeyServer(), InMemoryHooks()
        self.now, self.ticks = NOW, 0.0
        self.callers = Callers(
            known or (CALLER,), self.store, lambda: self.now, lambda: self.ticks, self.server.transport
        )

    async def reason(self, shown: str, addresses: list[str] = ADDRESSES) -> str:
        """Return why a token is refused; empty where it is not."""
        try:
            await self.callers.check(shown, addresses)
        except Refused as refused:
            return refused.reason
        return ""


@pytest.mark.parametrize("kid", ["ec", "rsa"])
async def test_a_token_that_is_right_says_who_calls(kid: str) -> None:
    desk = Desk()
    assert await desk.callers.check(token(by=kid), ADDRESSES) == CALLER
    assert desk.server.asked == [JKU]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"iss": "https://evil.example"}, Reason.ISSUER),
        ({"iss": None}, Reason.ISSUER),
        ({"iss": ["https://ehr.hospital.example"]}, Reason.ISSUER),
        ({"aud": "https://other.example/cds-services/epicrisis-patient-view"}, Reason.AUDIENCE),
        ({"aud": BASE}, Reason.AUDIENCE),
        ({"aud": f"{BASE}/cds-services/epicrisis-encounter-discharge"}, Reason.AUDIENCE),
        ({"aud": None}, Reason.AUDIENCE),
        ({"aud": {"0": ADDRESSES[0]}}, Reason.AUDIENCE),
        ({"exp": AT - SKEW_S}, Reason.EXPIRED),
        ({"exp": None}, Reason.EXPIRED),
        ({"exp": "tomorrow"}, Reason.MALFORMED),
        ({"exp": True}, Reason.MALFORMED),
        ({"exp": float("1e300")}, Reason.MALFORMED),
        ({"iat": AT + SKEW_S + 1}, Reason.NOT_YET),
        ({"iat": None}, Reason.NOT_YET),
        ({"nbf": AT + SKEW_S + 1}, Reason.NOT_YET),
        ({"iat": AT - LIFE_S - SKEW_S, "exp": AT + 10**6}, Reason.EXPIRED),
        ({"jti": None}, Reason.NO_ID),
        ({"jti": ""}, Reason.NO_ID),
        ({"jti": 7}, Reason.NO_ID),
        ({"jti": "x" * 256}, Reason.NO_ID),
        ({"tenant": "other-hospital"}, ""),
        ({"tenant": 7}, Reason.TENANT),
    ],
)
async def test_each_claim_is_checked(said: dict[str, Any], why: str) -> None:
    desk = Desk()
    assert await desk.reason(token(claims(**said))) == why
    assert bool(desk.store.used) == (not why)


@pytest.mark.parametrize(
    "said",
    [{"exp": AT - SKEW_S + 1}, {"iat": AT + SKEW_S}, {"nbf": AT + SKEW_S}, {"aud": ["x", ADDRESSES[0]]}],
)
async def test_clocks_may_be_a_minute_apart_and_one_audience_of_several_is_enough(
    said: dict[str, Any],
) -> None:
    assert await Desk().reason(token(claims(**said))) == ""


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"kid": None}, Reason.MALFORMED),
        ({"kid": ""}, Reason.MALFORMED),
        ({"kid": 7}, Reason.MALFORMED),
        ({"kid": "unknown"}, Reason.UNKNOWN_KEY),
        ({"kid": "rsa"}, Reason.UNKNOWN_KEY),
        ({"typ": "at+jwt"}, Reason.KIND),
        ({"typ": 7}, Reason.KIND),
        ({"crit": ["exp"]}, Reason.MALFORMED),
        ({"jku": "https://evil.example/jwks.json"}, Reason.KEY_OFFERED),
        ({"jku": JKU + "?x"}, Reason.KEY_OFFERED),
        ({"jku": 7}, Reason.KEY_OFFERED),
        ({"jwk": KEYS["ec"].as_dict(private=False)}, Reason.KEY_OFFERED),
        ({"x5u": JKU}, Reason.KEY_OFFERED),
        ({"x5c": []}, Reason.KEY_OFFERED),
    ],
)
async def test_each_header_parameter_is_checked(header: dict[str, Any], why: str) -> None:
    desk = Desk()
    assert await desk.reason(token(**header)) == why
    assert set(desk.server.asked) <= {JKU}
    assert not desk.store.used


async def test_without_a_jku_the_configured_keys_are_used() -> None:
    assert await Desk().reason(token(jku=None)) == ""
    assert await Desk().reason(token(typ=None)) == ""


def unsigned(algorithm: str) -> str:
    parts = [
        msgspec.json.encode({"alg": algorithm, "kid": "ec", "typ": "JWT"}),
        msgspec.json.encode(claims()),
    ]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


def shared_secret(algorithm: str, digest: str) -> str:
    """A token keyed with what everybody knows: the public key."""
    key = KEYS["rsa"]
    assert isinstance(key, RSAKey)
    said = unsigned(algorithm).removesuffix(".")
    mac = hmac.new(key.as_pem(private=False), said.encode(), getattr(hashlib, digest)).digest()
    return f"{said}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "shown",
    [
        unsigned("none"),
        unsigned("None"),
        shared_secret("HS256", "sha256"),
        shared_secret("HS384", "sha384"),
        encode({"alg": "HS384", "kid": "ec", "typ": "JWT"}, claims(), OctKey.generate_key(384)),
        encode({"alg": "RS256", "kid": "rsa", "typ": "JWT"}, claims(), KEYS["rsa"]),
        encode({"alg": "PS384", "kid": "rsa", "typ": "JWT"}, claims(), KEYS["rsa"]),
        encode({"alg": "ES256", "kid": "p", "typ": "JWT"}, claims(), ECKey.generate_key("P-256")),
    ],
)
async def test_no_other_algorithm_is_taken(shown: str) -> None:
    desk = Desk()
    assert await desk.reason(shown) == Reason.ALGORITHM
    assert desk.server.asked == []


@pytest.mark.parametrize("kid", ["ec", "rsa"])
async def test_a_signature_by_another_key_is_refused_and_uses_nothing_up(kid: str) -> None:
    desk = Desk()
    other = ECKey.generate_key("P-384") if kid == "ec" else RSAKey.generate_key(2048)
    assert await desk.reason(token(by=kid, key=other)) == Reason.SIGNATURE
    head, body, signature = token(by=kid).split(".")
    other_body = token(claims(jti="x")).split(".")[1]
    assert await desk.reason(f"{head}.{other_body}.{signature}") == Reason.SIGNATURE
    assert await desk.reason(f"{head}.{body}.") == Reason.SIGNATURE
    assert not desk.store.used


@pytest.mark.parametrize(
    "shown", ["", "x", "a.b", "a.b.c.d", "é.b.c", " . . ", f"{'a' * 17_000}.b.c", "e30.e30.e30", "e30.!.e30"]
)
async def test_what_is_no_token_is_refused(shown: str) -> None:
    desk = Desk()
    assert await desk.reason(shown) in (Reason.MALFORMED, Reason.ALGORITHM)
    assert desk.server.asked == []


@pytest.mark.parametrize("payload", [b"", b"[]", b"7", b"\xff", b'{"iss":' * 5000])
async def test_claims_that_are_none_are_refused(payload: bytes) -> None:
    head = {"alg": "ES384", "kid": "ec", "typ": "JWT"}
    assert await Desk().reason(encode(head, payload, KEYS["ec"])) in (Reason.MALFORMED, Reason.ISSUER)


async def test_a_token_opens_one_call() -> None:
    desk = Desk()
    one = token()
    assert await desk.reason(one) == ""
    assert await desk.reason(one) == Reason.REPLAYED
    same_id = claims(jti="same")
    assert await desk.reason(token(same_id)) == ""
    assert await desk.reason(token({**same_id, "exp": AT + 200})) == Reason.REPLAYED


async def test_a_used_token_is_remembered_until_it_has_expired_by_all_clocks() -> None:
    desk = Desk()
    short, long = token(claims(exp=AT + 30)), token(claims(exp=AT + 10**6))
    for one in (short, long):
        assert await desk.reason(one) == ""
    ends = sorted(desk.store.used.values())
    assert ends == [NOW + timedelta(seconds=30 + SKEW_S), NOW + timedelta(seconds=LIFE_S + SKEW_S - 5)]
    for one, end in zip((short, long), ends, strict=True):
        desk.now = end - timedelta(seconds=1)
        assert await desk.reason(one) == Reason.REPLAYED
        desk.now = end
        assert await desk.reason(one) == Reason.EXPIRED


async def test_the_id_of_one_issuer_says_nothing_of_anothers() -> None:
    desk = Desk(CALLER, replace(CALLER, ehr="county", iss="https://county.example"))
    assert await desk.reason(token(claims(jti="1"))) == ""
    assert await desk.reason(token(claims(jti="1", iss="https://county.example"))) == ""


async def test_of_several_hospitals_of_one_issuer_the_tenant_says_which() -> None:
    north, south = (
        replace(CALLER, ehr=name, tenant=name, server=f"{ISS}/{name}") for name in ("north", "south")
    )
    desk = Desk(north, south)
    assert await desk.callers.check(token(claims(tenant="south")), ADDRESSES) == south
    assert await desk.callers.check(token(claims(tenant="north")), ADDRESSES) == north
    for tenant in (None, "", "west"):
        assert await desk.reason(token(claims(tenant=tenant))) == Reason.TENANT
    twice = Desk(replace(CALLER, ehr="one"), replace(CALLER, ehr="two"))
    assert await twice.reason(token()) == Reason.TENANT


async def test_one_issuer_with_keys_in_two_places_must_say_which() -> None:
    other = "https://ehr.hospital.example/other.json"
    desk = Desk(replace(CALLER, tenant="a"), replace(CALLER, tenant="b", jku=other))
    assert await desk.reason(token(claims(tenant="a"), jku=None)) == Reason.KEY_OFFERED
    assert await desk.reason(token(claims(tenant="b"), jku=other)) == ""
    assert await desk.reason(token(claims(tenant="b"))) == Reason.TENANT
    assert desk.server.asked == [other, JKU]


async def test_keys_are_fetched_once_and_again_when_they_change() -> None:
    desk = Desk()
    for _ in range(3):
        assert await desk.reason(token()) == ""
    assert len(desk.server.asked) == 1
    new = ECKey.generate_key("P-384")
    desk.server.keys = jwks(new=new)
    assert await desk.reason(token(kid="new", key=new)) == Reason.UNKNOWN_KEY
    desk.ticks += 11
    assert await desk.reason(token(kid="new", key=new)) == ""
    assert len(desk.server.asked) == 2
    assert await desk.reason(token()) == Reason.UNKNOWN_KEY


async def test_an_ehr_whose_keys_cannot_be_had_is_not_believed() -> None:
    desk = Desk()
    desk.server.down = True
    with pytest.raises(ConnectorError):
        await desk.callers.check(token(), ADDRESSES)
    assert not desk.store.used


@pytest.mark.parametrize("answer", [b"<html>", b"[", b"\xff"])
async def test_keys_that_are_no_json_are_no_keys(answer: bytes) -> None:
    desk = Desk()
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=answer))
    callers = replace(desk.callers, transport=transport)
    with pytest.raises(ConnectorError):
        await callers.check(token(), ADDRESSES)


async def test_keys_elsewhere_are_not_asked_for() -> None:
    desk = Desk()

    def away(request: httpx.Request) -> httpx.Response:
        desk.server.asked.append(str(request.url))
        return httpx.Response(302, headers={"location": "https://evil.example/jwks.json"})

    callers = replace(desk.callers, transport=httpx.MockTransport(away))
    with pytest.raises(ConnectorError):
        await callers.check(token(), ADDRESSES)
    assert desk.server.asked == [JKU]


async def test_while_uses_cannot_be_kept_nobody_is_let_in() -> None:
    desk = Desk()
    desk.store.broken = True
    with pytest.raises(StoreError):
        await desk.callers.check(token(), ADDRESSES)


@pytest.mark.parametrize("jku", ["http://ehr.example/jwks.json", "jwks.json", ""])
def test_an_address_that_is_not_encrypted_is_refused_at_the_start(jku: str) -> None:
    with pytest.raises(SettingsError, match="general"):
        Desk(replace(CALLER, jku=jku))


@pytest.mark.parametrize(
    ("claimed", "staff"),
    [
        ("Practitioner/7", "Practitioner/7"),
        ("PractitionerRole/7", "PractitionerRole/7"),
        ("Patient/1", ""),
        ("RelatedPerson/1", ""),
        ("https://elsewhere.example/Practitioner/7", ""),
        ("Practitioner/", ""),
        ("", ""),
    ],
)
def test_the_user_is_a_member_of_staff_or_nobody(claimed: str, staff: str) -> None:
    assert staff_of(claimed) == staff


def test_whom_an_entry_names_is_the_issuer() -> None:
    assert CALLER.actor == f"service:{ISS}"
    assert datetime.fromtimestamp(AT, NOW.tzinfo) == NOW
