"""Open connections to servers that many clients share, each request with its own client's credentials."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import httpx

POOLS: Final = 4
"""Pools of connections to one server. Clients beyond as many share them, and so wait for each other.

Several small pools, not a large one: httpx's looks at every connection it has, and asks the kernel about each
idle one, whenever a request begins or ends.
"""


@dataclass(slots=True)
class Lines:
    """The open connections of one process, by server. They stay open between clients, until `aclose`."""

    dial: Callable[[], httpx.AsyncBaseTransport]
    """Opens a pool of connections."""
    _pools: dict[str, list[_Pool]] = field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop | None = None

    def to(self, server: str) -> httpx.AsyncBaseTransport:
        """Return the way to a server for one client, who closes it; the connections outlast that."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # connections of another loop cannot be used, nor closed, in this one
            self._pools, self._loop = {}, loop
        pools = self._pools.setdefault(server, [])
        free = min(pools, key=lambda pool: pool.clients, default=None)
        if free is None or (free.clients and len(pools) < POOLS):
            free = _Pool(self.dial())
            pools.append(free)
        return _Line(free)

    async def aclose(self) -> None:
        """Close every connection."""
        pools, self._pools = self._pools, {}
        for pool in (pool for some in pools.values() for pool in some):
            await pool.transport.aclose()


@dataclass(slots=True)
class _Pool:
    transport: httpx.AsyncBaseTransport
    clients: int = 0


class _Line(httpx.AsyncBaseTransport):
    """One client's use of a pool."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        pool.clients += 1

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        return await self._pool.transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Count one client less."""
        self._pool.clients -= 1
