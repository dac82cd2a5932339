"""Connections that clients share: how many pools there are, who shares one, and when they are closed."""

from __future__ import annotations

import asyncio

import httpx

from connectors.lines import POOLS, Lines

SERVER = "https://ehr.example/fhir"


class Dialled(httpx.AsyncBaseTransport):
    """A pool that counts what it was asked, and whether it was closed."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        return httpx.Response(200)

    async def aclose(self) -> None:
        self.is_closed = True


class Site:
    """Lines, and every pool that they opened."""

    def __init__(self) -> None:
        self.dialled: list[Dialled] = []
        self.lines = Lines(self._dial)

    def _dial(self) -> Dialled:
        self.dialled.append(Dialled())
        return self.dialled[-1]


async def ask(line: httpx.AsyncBaseTransport) -> None:
    await line.handle_async_request(httpx.Request("GET", SERVER))


async def test_a_pool_stays_open_for_the_next_client_until_all_are_closed() -> None:
    site = Site()
    for _ in range(3):
        line = site.lines.to(SERVER)
        await ask(line)
        await line.aclose()
    assert [pool.asked for pool in site.dialled] == [3]
    assert not site.dialled[0].is_closed
    await site.lines.aclose()
    assert site.dialled[0].is_closed


async def test_clients_at_the_same_time_have_pools_of_their_own_and_then_share_evenly() -> None:
    site = Site()
    lines = [site.lines.to(SERVER) for _ in range(3 * POOLS)]
    for line in lines:
        await ask(line)
    assert [pool.asked for pool in site.dialled] == [3] * POOLS
    await lines[1].aclose()
    await ask(site.lines.to(SERVER))
    assert [pool.asked for pool in site.dialled] == [3, 4, *[3] * (POOLS - 2)]


async def test_another_server_has_its_own_pools() -> None:
    site = Site()
    for server in (SERVER, "https://other.example/fhir"):
        site.lines.to(server)
    assert len(site.dialled) == 2
    await site.lines.aclose()
    assert all(pool.is_closed for pool in site.dialled)


def test_connections_of_a_loop_that_ended_are_not_used_in_another() -> None:
    site = Site()

    async def once() -> None:
        line = site.lines.to(SERVER)
        await ask(line)
        await line.aclose()

    asyncio.run(once())
    asyncio.run(once())
    assert [pool.asked for pool in site.dialled] == [1, 1]
