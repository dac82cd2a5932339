"""A user's token on requests: looked up once for those that begin together."""

from __future__ import annotations

import asyncio

import httpx

from connectors.errors import Unauthorized
from connectors.smart.bearer import UserAuth


class Slow:
    """Whoever keeps the tokens, in no hurry; each look brings another one."""

    def __init__(self, *, is_over: bool = False) -> None:
        self.looks = 0
        self.is_over = is_over
        self.opened = asyncio.Event()

    async def token(self, refused: str = "") -> str:
        self.looks += 1
        name = f"access-{self.looks}"
        await self.opened.wait()
        if self.is_over:
            raise Unauthorized("What the EHR allowed has ended.", status=401)
        return name


def client(bearer: Slow, seen: list[str]) -> httpx.AsyncClient:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(200)

    return httpx.AsyncClient(
        transport=httpx.MockTransport(answer), auth=UserAuth("user:0a", bearer), base_url="http://127.0.0.1"
    )


async def test_requests_that_begin_together_look_once_and_later_ones_again() -> None:
    bearer, seen = Slow(), list[str]()
    async with client(bearer, seen) as http:
        asking = [asyncio.create_task(http.get("/")) for _ in range(3)]
        await asyncio.sleep(0.01)
        bearer.opened.set()
        await asyncio.gather(*asking)
        assert seen == ["Bearer access-1"] * 3
        await http.get("/")
    assert seen[-1] == "Bearer access-2"


async def test_one_that_gives_up_takes_the_token_from_nobody() -> None:
    bearer, seen = Slow(), list[str]()
    async with client(bearer, seen) as http:
        first, second = (asyncio.create_task(http.get("/")) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        bearer.opened.set()
        assert (await second).status_code == 200
    assert (first.cancelled(), bearer.looks) == (True, 1)


async def test_all_who_wait_are_told_of_a_launch_that_is_over() -> None:
    bearer, seen = Slow(is_over=True), list[str]()
    bearer.opened.set()
    async with client(bearer, seen) as http:
        found = await asyncio.gather(*(http.get("/") for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in found] == [Unauthorized] * 3
        bearer.is_over = False
        assert (await http.get("/")).status_code == 200
    assert bearer.looks == 2


def test_it_shows_no_token() -> None:
    assert repr(UserAuth("user:0a", Slow())) == "<UserAuth user:0a>"
