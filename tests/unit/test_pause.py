"""Waiting that ends early."""

from __future__ import annotations

import asyncio

from service.pause import waited


async def test_a_wait_ends_after_its_time_or_when_it_is_told_to() -> None:
    stop = asyncio.Event()
    assert not await waited(stop, 0.001)
    asyncio.get_running_loop().call_soon(stop.set)
    async with asyncio.timeout(5):
        assert await waited(stop, 60)
    assert await waited(stop, 0)
