from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from connectors.errors import ServerFailed
from service.identity.keys import ASK_AGAIN_S, FRESH_S, KEEP_S, KeyRing, read_keys
from service.identity.refusal import Reason, Refused
from tests.unit.identity.issuer import KEYS, jwks, new_key


class Provider:
    """A JWKS that changes, and a clock."""

    def __init__(self) -> None:
        self.now, self.asked = 1000.0, 0
        self.keys: Any = jwks(old=KEYS["P-256"])
        self.down = False
        self.ring = KeyRing(self.fetch, lambda: self.now)

    async def fetch(self) -> Any:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise ServerFailed("down")
        return self.keys

    async def knows(self, kid: str) -> bool:
        try:
            return (await self.ring.find("ES256", kid)).kid == kid
        except Refused:
            return False


async def test_keys_are_fetched_once_for_many_who_ask_at_a_time() -> None:
    provider = Provider()
    assert all(await asyncio.gather(*(provider.knows("old") for _ in range(20))))
    assert provider.asked == 1


async def test_a_new_key_is_found_and_one_that_was_taken_back_is_gone() -> None:
    provider = Provider()
    assert await provider.knows("old")
    provider.keys = jwks(new=new_key("P-256"))
    provider.now += ASK_AGAIN_S
    assert await provider.knows("new")
    assert provider.asked == 2
    assert not await provider.knows("old")


async def test_unknown_keys_have_the_provider_asked_seldom() -> None:
    provider = Provider()
    for number in range(50):
        assert not await provider.knows(f"made-up-{number}")
    assert provider.asked == 1
    provider.now += ASK_AGAIN_S
    assert not await provider.knows("made-up")
    assert provider.asked == 2


async def test_old_keys_are_asked_for_anew() -> None:
    provider = Provider()
    assert await provider.knows("old")
    provider.now += FRESH_S + 1
    provider.keys = jwks(new=new_key("P-256"))
    assert not await provider.knows("old")


async def test_a_provider_that_is_down_leaves_known_keys_for_a_day() -> None:
    provider = Provider()
    assert await provider.knows("old")
    provider.down = True
    provider.now += KEEP_S
    assert await provider.knows("old")
    provider.now += ASK_AGAIN_S
    with pytest.raises(ServerFailed):
        await provider.knows("old")
    provider.down = False
    provider.now += ASK_AGAIN_S
    assert await provider.knows("old")


async def test_a_provider_that_never_answered_is_told_as_such() -> None:
    provider = Provider()
    provider.down = True
    with pytest.raises(ServerFailed):
        await provider.knows("old")


async def test_without_a_kid_the_only_fitting_key_is_taken_and_of_two_none() -> None:
    provider = Provider()
    assert (await provider.ring.find("ES256", "")).kid == "old"
    provider.keys = jwks(old=KEYS["P-256"], other=new_key("P-256"))
    provider.now += FRESH_S + 1
    with pytest.raises(Refused) as refused:
        await provider.ring.find("ES256", "")
    assert refused.value.reason is Reason.UNKNOWN_KEY


def number(value: int) -> str:
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_keys_that_cannot_check_a_signature_are_passed_over() -> None:
    good = jwks(good=KEYS["RSA"])["keys"][0]
    weak = generate_private_key(65537, 1024).public_key().public_numbers()
    small = {"kty": "RSA", "kid": "small", "n": number(weak.n), "e": number(weak.e)}
    odd: list[Any] = [
        {**good, "use": "enc"}, {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "EC", "crv": "P-521", "x": "a", "y": "b"}, {}, 1, None, {"kty": "RSA"},
        {**good, "n": "!"}, small,
    ]  # fmt: skip
    assert [key.kid for key in read_keys({"keys": [*odd, good]})] == ["good"]
    assert read_keys({"keys": 1}) == read_keys([]) == read_keys(None) == ()


def test_a_key_that_is_for_one_algorithm_is_known_as_such_and_none_is_private() -> None:
    (key,) = read_keys({"keys": [{**KEYS["RSA"].as_dict(private=True), "kid": "a", "alg": "RS384"}]})
    assert key.algorithm == "RS384"
    assert not key.key.is_private
    assert "key=" not in repr(key)
