"""The scripted engine as a process: the engine contract over a real socket, its seats, and who goes away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest

from fixtures.charts import canary_resources
from fixtures.engine_double import answer
from service.engine.copying import answer_by_copying
from service.engine.openai import OpenAIEngine
from service.engine.profiles import profile_for
from service.engine.prompt import Message, Prompt, Sampling
from service.engine.scripted_server import ScriptedServer
from service.engine.seats import Pace, Seats
from service.grounding.summary import Origin
from tests.contract.context.published import publish
from tests.unit.engine.contract import SCHEMA, EngineContract, Subject

PROMPT = Prompt((Message("user", "[F1] Asthma: active"),), Sampling(60))
SLOW = Pace(decode_tokens_per_s=100.0)


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[tuple[ScriptedServer, OpenAIEngine]]:
    async with ScriptedServer(**({"answer": words} | settings)) as server:
        engine = OpenAIEngine(server.base_url + "/v1", "scripted", profile=profile_for("scripted"))
        try:
            yield server, engine
        finally:
            await engine.aclose()


def words(_: Prompt) -> str:
    return " ".join(f"word{number}" for number in range(60))


async def gauges(base_url: str) -> dict[str, float]:
    """Return the metrics by their bare names."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{base_url}/metrics")).text
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return {line.partition("{")[0].removeprefix("vllm:"): float(line.rpartition(" ")[2]) for line in lines}


async def until(base_url: str, name: str, value: float) -> None:
    """Wait until a metric has a value."""
    async with asyncio.timeout(5):
        while (await gauges(base_url))[name] != value:  # noqa: ASYNC110 - another process tells no event
            await asyncio.sleep(0.01)


class TestTheScriptedServerKeepsTheContract(EngineContract):
    @pytest.fixture
    async def subject(self) -> AsyncIterator[Subject]:
        pace = Pace(decode_tokens_per_s=500.0)
        async with served(answer=answer, seats=Seats(8, pace)) as (server, engine):

            async def running() -> int:
                return int((await gauges(server.base_url))["num_requests_running"])

            yield Subject(engine, running)


@contextmanager
def process(*flags: str) -> Iterator[str]:
    """Yield the base URL of the server as its own process, started as its page says."""
    command = [sys.executable, "-m", "service.engine.scripted_server", "--port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as one:
        try:
            assert one.stdout is not None
            yield one.stdout.readline().split()[-1]
        finally:
            one.terminate()
            one.wait(10)
            assert one.returncode == 0


async def test_as_a_process_it_answers_and_says_that_it_is_no_model() -> None:
    with process("--seats", "2", "--decode-tokens-per-s", "2000", "--seed", "7") as base_url:
        engine = OpenAIEngine(base_url, "scripted", profile=profile_for("scripted"))
        info = await engine.describe()
        done = await engine.generate(Prompt(PROMPT.messages, Sampling(60), SCHEMA))
        await engine.aclose()
        assert (info.model, info.digest, info.version) == ("scripted", "unknown:scripted", "vllm scripted-1")
        assert json.loads(done.text)["claims"][0] == {"cites": ["F1"], "text": "Asthma: active"}
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{base_url}/health")).status_code == 200


async def test_what_it_writes_about_a_chart_is_published_as_a_model_s_claims() -> None:
    async with served(answer=answer_by_copying) as (_, engine):
        made = await publish(canary_resources("1"), engine)
    claims = [claim for claim in made.summary.published if claim.origin is Origin.MODEL]
    assert len(claims) >= 5


async def test_an_answer_is_whole_where_no_stream_is_asked_for() -> None:
    async with served() as (server, _), httpx.AsyncClient() as client:
        body = {"model": "scripted", "messages": [{"role": "user", "content": "?"}], "max_tokens": 5}
        answer = (await client.post(f"{server.base_url}/v1/chat/completions", json=body)).json()
    choice = answer["choices"][0]
    assert choice["message"]["content"] == "word0 word1 word2 word3 word4 "
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 5


async def test_a_second_prompt_with_the_same_beginning_is_served_from_the_cache() -> None:
    chart = " ".join(f"line{number}" for number in range(200))
    async with served() as (server, engine):
        first = await engine.generate(Prompt((Message("user", f"{chart} one"),), Sampling(5)))
        second = await engine.generate(Prompt((Message("user", f"{chart} two"),), Sampling(5)))
        read = (await gauges(server.base_url))["prompt_tokens_total"]
    assert first.usage.cached_tokens == 0
    assert second.usage.cached_tokens > 0.9 * second.usage.prompt_tokens
    assert read == first.usage.prompt_tokens + second.usage.prompt_tokens - second.usage.cached_tokens


async def test_more_requests_than_seats_wait_and_the_most_urgent_is_seated_first() -> None:
    order: list[int] = []

    async def ask(engine: OpenAIEngine, priority: int, tokens: int = 2) -> None:
        await engine.generate(Prompt(PROMPT.messages, Sampling(tokens), priority=priority))
        order.append(priority)

    async with served(seats=Seats(1, SLOW)) as (server, engine):
        asking = [asyncio.create_task(ask(engine, 1, 60))]
        await until(server.base_url, "num_requests_running", 1)
        for waiting, priority in enumerate((10, 5, 7), 1):
            asking.append(asyncio.create_task(ask(engine, priority)))
            await until(server.base_url, "num_requests_waiting", waiting)
        await asyncio.gather(*asking)
    assert order == [1, 5, 7, 10]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_frees_its_seat_and_its_place_in_the_queue(stream: bool) -> None:
    body = {
        "model": "scripted",
        "messages": [{"role": "user", "content": "?"}],
        "max_tokens": 60,
        "stream": stream,
    }
    async with served(seats=Seats(1, Pace(decode_tokens_per_s=5.0))) as (server, _):
        async with httpx.AsyncClient() as client:
            url = f"{server.base_url}/v1/chat/completions"
            asking = [asyncio.create_task(client.post(url, json=body)) for _ in range(2)]
            await until(server.base_url, "num_requests_waiting", 1)
            for one in asking:
                one.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await one
        await until(server.base_url, "num_requests_running", 0)
        seen = await gauges(server.base_url)
    assert seen["num_requests_waiting"] == 0
    assert seen["generation_tokens_total"] < 10


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b'{"messages": []}', 400),
        (b'{"messages": [{"role": "user", "content": 3}]}', 400),
        (b'{"model": "medgemma", "messages": [{"role": "user", "content": "?"}]}', 404),
        (b'{"model": "scripted", "max_tokens": 99999, "messages": [{"role": "user", "content": "?"}]}', 400),
    ],
)
async def test_what_is_no_request_of_its_own_is_refused(body: bytes, status: int) -> None:
    async with served() as (server, _), httpx.AsyncClient() as client:
        answer = await client.post(f"{server.base_url}/v1/chat/completions", content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
