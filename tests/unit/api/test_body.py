from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.types import Message

from connectors.admissions.notification import MAX_BYTES
from connectors.admissions.subscription import HOOK_HEADER
from service.api.body import BodyRefusedError, bounded
from service.api.table import MAX_BODY, read_table
from service.ports import Action
from tests.unit.api.house import SECRET, House, browser
from tests.unit.identity.issuer import access_claims, access_token


async def drip(count: int, size: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size


async def test_a_body_larger_than_a_route_takes_is_refused_whether_it_says_so_or_not(tmp_path: Path) -> None:
    house = House(tmp_path)
    token = access_token(access_claims(roles=["is-admin"]))
    headers = {"authorization": f"Bearer {token}"}
    path = "/ward/schedules/morning/pause"
    async with browser(house.oidc()) as client:
        answer = await client.post(path, headers=headers, content=b"x" * (MAX_BODY + 1))
        assert answer.status_code == 413
        assert house.admissions.paused() == {}
        lying = {**headers, "content-length": "-5"}
        assert (await client.post(path, headers=lying, content=b"")).status_code == 413
        assert (await client.post(path, headers=headers, content=b"x" * MAX_BODY)).status_code == 303


async def test_the_hook_takes_what_it_can_use_and_no_more(tmp_path: Path) -> None:
    limit = read_table()["/hooks/fhir", "POST"].max_body
    assert limit > MAX_BYTES
    headers = {HOOK_HEADER: SECRET}
    async with browser(House(tmp_path).oidc()) as client:
        answer = await client.post("/hooks/fhir", headers=headers, content=b"x" * (limit + 1))
        assert answer.status_code == 413
        streamed = await client.post("/hooks/fhir", headers=headers, content=drip(64, limit // 32))
        assert streamed.status_code == 413


async def test_nobody_unknown_has_a_body_read(tmp_path: Path) -> None:
    house = House(tmp_path)

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async with browser(house.oidc()) as client:
        assert (await client.post("/logout", content=never())).status_code == 401
    assert [e.action for e in house.audit.entries if e.action is not Action.REFUSED] == []


async def test_a_body_that_does_not_say_its_size_is_cut_off_at_the_limit() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"x" * 10, "more_body": True}

    watched = bounded(receive, 25)
    assert [len((await watched())["body"]) for _ in range(2)] == [10, 10]
    with pytest.raises(BodyRefusedError) as refused:
        await watched()
    assert refused.value.status == 413


async def test_a_body_that_trickles_is_given_up_when_its_time_is_over() -> None:
    async def receive() -> Message:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    watched = bounded(receive, 10**6, within_s=0.05)

    async def read_all() -> None:
        for _ in range(50):
            await watched()

    with pytest.raises(BodyRefusedError) as refused:
        await read_all()
    assert refused.value.status == 408


async def test_a_whole_body_may_be_worked_on_for_as_long_as_it_takes() -> None:
    pieces: list[Message] = [
        {"type": "http.request", "body": b"x", "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        if len(pieces) == 1:
            await asyncio.sleep(0.05)
        return pieces.pop(0)

    watched = bounded(receive, 1, within_s=0.01)
    assert (await watched())["body"] == b"x"
    assert (await watched())["type"] == "http.disconnect"
