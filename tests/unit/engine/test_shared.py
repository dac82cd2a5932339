"""One engine for many readers: each has a cache of prompts of its own, and all have one connection."""

from __future__ import annotations

import json
from typing import Any

import httpx

from service.engine.openai import OpenAIEngine
from service.engine.prompt import Message, Prompt, Sampling
from service.engine.scripted import SCRIPTED_PROFILE
from service.engine.shared import SharedEngine

PROMPT = Prompt((Message("user", "Say yes."),), Sampling(4))


class Server:
    """An engine's server that notes what it is asked, and may know no salt."""

    def __init__(self, *, knows_salt: bool = True) -> None:
        self.knows_salt = knows_salt
        self.asked: list[dict[str, Any]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.asked.append(body)
        if "cache_salt" in body and not self.knows_salt:
            return httpx.Response(400, json={"error": {"message": "Unknown field: cache_salt", "code": 400}})
        choice = {"index": 0, "delta": {"content": "yes"}, "finish_reason": "stop"}
        event = json.dumps({"choices": [choice]})
        return httpx.Response(200, text=f"data: {event}\n\ndata: [DONE]\n\n")

    def engine(self) -> OpenAIEngine:
        return OpenAIEngine(
            "http://127.0.0.1:1", "m", profile=SCRIPTED_PROFILE, cache_salt="own",
            transport=httpx.MockTransport(self.answer),
        )  # fmt: skip


async def test_each_reader_asks_under_a_salt_of_their_own() -> None:
    server = Server()
    engine = server.engine()
    one, other = SharedEngine(engine, "one"), SharedEngine(engine, "other")
    pieces: list[str] = []
    for reader in (one, other, one):
        assert (await reader.generate(PROMPT, pieces.append)).text == "yes"
    await engine.generate(PROMPT)
    await engine.aclose()
    assert [body["cache_salt"] for body in server.asked] == ["one", "other", "one", "own"]
    assert pieces == ["yes"] * 3
    assert "one" not in repr(one).replace("cache_salt", "")


async def test_a_server_that_knows_no_salt_is_asked_without_one_from_then_on() -> None:
    server = Server(knows_salt=False)
    engine = server.engine()
    for salt in ("one", "other"):
        await SharedEngine(engine, salt).generate(PROMPT)
    await engine.aclose()
    assert [body.get("cache_salt") for body in server.asked] == ["one", None, None]
