"""Waiting that ends early when the process is told to stop."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def waited(stop: asyncio.Event, seconds: float) -> bool:
    """Wait so long, or until `stop` is set; tell whether it is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()
