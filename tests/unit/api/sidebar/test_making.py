from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from service.api.sidebar.making import BEAT, stream
from service.errors import StoreError
from service.ports.ondemand import Told, ToldKind

DONE = Told(2, ToldKind.DONE, {"run_id": "r"})


async def test_a_silent_stream_says_that_it_lives_by_an_event() -> None:
    goes_on = asyncio.Event()

    async def told() -> AsyncIterator[Told]:
        yield Told(1, ToldKind.STAGE, {"stage": "generate"})
        await goes_on.wait()
        yield DONE

    heard: list[bytes] = []
    async for piece in stream(told(), {}, beat_s=0.01):
        heard.append(piece)
        if heard.count(BEAT) == 2:
            goes_on.set()
    assert heard[0].startswith(b"id: 1\nevent: stage\n")
    assert heard[1:3] == [BEAT, BEAT]
    assert heard[-1].startswith(b"id: 2\nevent: done\n")


async def test_who_leaves_a_stream_leaves_nothing_waiting() -> None:
    closed = asyncio.Event()

    async def told() -> AsyncIterator[Told]:
        try:
            await asyncio.Event().wait()
            yield DONE
        finally:
            closed.set()

    following = stream(told(), {}, beat_s=0.01)
    assert await anext(following) == BEAT
    await following.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(closed.wait(), 5)


async def test_a_store_that_fails_ends_the_stream_so_that_the_browser_comes_again() -> None:
    async def told() -> AsyncIterator[Told]:
        yield Told(1, ToldKind.STAGE, {"stage": "fetch"})
        raise StoreError("broken")

    heard = [piece async for piece in stream(told(), {})]
    assert len(heard) == 1


async def test_a_section_is_told_by_its_title() -> None:
    async def told() -> AsyncIterator[Told]:
        yield Told(1, ToldKind.CLAIM, {"section": "allergies", "text": "x", "cites": []})
        yield Told(2, ToldKind.CLAIM, {"section": "unknown", "text": "y", "cites": []})

    heard = b"".join([piece async for piece in stream(told(), {"allergies": "Allergies"})])
    assert b'"section":"Allergies"' in heard
    assert b'"section":"unknown"' in heard
