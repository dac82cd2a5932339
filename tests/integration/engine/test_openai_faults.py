"""What the engine client makes of servers that fail, and of what they say."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from connectors.limits import MIB
from fixtures.engine_double import CONTEXT_TOKENS, MODEL, EngineDouble, Fault
from service.engine.openai import ATTEMPTS, LONGEST_ANSWER_BYTES, OpenAIEngine
from service.engine.profiles import profile_for
from service.engine.prompt import Message, Prompt, Sampling
from service.errors import EngineError
from tests.conftest import CANARY
from tests.unit.engine.contract import SCHEMA

PROMPT = Prompt((Message("user", f"{CANARY} has asthma."),), Sampling(50))
TEXT = " ".join(f"word{n}" for n in range(50)) + " "


class Naps:
    """Sleeps that take no time, and how long they would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@asynccontextmanager
async def engine_at(
    double: EngineDouble, naps: Naps | None = None, **settings: Any
) -> AsyncIterator[OpenAIEngine]:
    chosen: dict[str, Any] = {"profile": profile_for("smollm2-135m"), "sleep": naps or Naps()} | settings
    async with double:
        engine = OpenAIEngine(double.base_url, MODEL, **chosen)
        yield engine
        await engine.aclose()


async def failure_of(double: EngineDouble, prompt: Prompt = PROMPT, **settings: Any) -> EngineError:
    """Return the error that one completion ends with; it must not quote the prompt."""
    async with engine_at(double, **settings) as engine:
        with pytest.raises(EngineError) as caught:
            await engine.generate(prompt)
    error = caught.value
    said = f"{error.message} {error.advice} {error!r} {error.__cause__!r}"
    assert CANARY not in said
    assert error.advice
    return error


@pytest.mark.parametrize(
    "fault",
    [
        Fault.NOT_READY,
        Fault.BAD_GATEWAY,
        Fault.CUT,
        Fault.NO_END,
        Fault.GARBAGE,
        Fault.ERROR_EVENT,
        Fault.HTML,
    ],
)
async def test_a_passing_fault_is_overcome_by_asking_again(fault: Fault) -> None:
    naps = Naps()
    async with engine_at(EngineDouble(faults=[fault]), naps) as engine:
        done = await engine.generate(PROMPT)
    assert done.text == TEXT
    assert naps.seconds == [1.0]


async def test_an_answer_that_broke_off_is_made_again_whole_and_the_listener_is_told() -> None:
    pieces: list[str] = []
    async with engine_at(EngineDouble(faults=[Fault.CUT])) as engine:
        done = await engine.generate(PROMPT, pieces.append)
    assert pieces[:3] == ["word0 ", "word1 ", ""]
    assert "".join(pieces[pieces.index("") + 1 :]) == done.text == TEXT


async def test_a_listener_that_heard_nothing_yet_is_not_told_of_a_new_start() -> None:
    pieces: list[str] = []
    async with engine_at(EngineDouble(faults=[Fault.NOT_READY])) as engine:
        await engine.generate(PROMPT, pieces.append)
    assert "" not in pieces


async def test_an_engine_that_stays_away_is_given_up_with_longer_and_longer_waits() -> None:
    naps = Naps()
    error = await failure_of(EngineDouble(faults=[Fault.NOT_READY] * 20), sleep=naps)
    assert "503" in error.message
    assert naps.seconds == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert len(naps.seconds) == ATTEMPTS - 1


async def test_retry_after_is_honoured() -> None:
    naps = Naps()
    answers = iter(
        [httpx.Response(503, headers={"Retry-After": "7"}), httpx.Response(200, json={"count": 3})]
    )
    engine = OpenAIEngine(
        "http://engine",
        MODEL,
        profile=profile_for(""),
        sleep=naps,
        transport=httpx.MockTransport(lambda _: next(answers)),
    )
    assert await engine.count_tokens(PROMPT.messages) == 3
    assert naps.seconds == [7.0]
    await engine.aclose()


async def test_an_engine_that_is_not_there_is_named_by_host_and_port() -> None:
    engine = OpenAIEngine("http://user:pass@127.0.0.1:1/v1", MODEL, profile=profile_for(""), sleep=Naps())
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:1 cannot be reached") as caught:
        await engine.generate(PROMPT)
    assert "pass" not in str(caught.value)
    await engine.aclose()


@pytest.mark.parametrize("url", ["ftp://engine/", "no url at all", "http://[::1", "http://host:notaport"])
async def test_a_url_that_is_none_is_said_at_once(url: str) -> None:
    naps = Naps()
    engine = OpenAIEngine(url, MODEL, profile=profile_for(""), sleep=naps)
    with pytest.raises(EngineError, match="not an http or https URL"):
        await engine.describe()
    assert naps.seconds == []
    await engine.aclose()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault.TOO_LONG, "do not fit the model's context"),
        (Fault.BAD_SCHEMA, "refused the schema"),
        (Fault.REFUSED, "refused the request"),
    ],
)
async def test_a_refusal_is_final_and_says_what_to_do(fault: Fault, words: str) -> None:
    double = EngineDouble(faults=[fault])
    error = await failure_of(double)
    assert words in error.message
    assert len(double.bodies) == 1


async def test_a_wrong_key_is_final_and_says_so() -> None:
    double = EngineDouble(api_key="right")
    error = await failure_of(double, api_key="wrong")
    assert "API key" in error.message
    assert "wrong" not in error.message + error.advice


async def test_a_silent_engine_is_asked_twice_and_then_given_up() -> None:
    double = EngineDouble(faults=[Fault.SILENT] * 9)
    error = await failure_of(double, first_token_s=0.1)
    assert "no token" in error.message
    assert len(double.bodies) == 2


async def test_keep_alive_comments_do_not_feed_the_watchdog() -> None:
    double = EngineDouble(faults=[Fault.STUCK])
    async with engine_at(double, next_token_s=0.1) as engine:
        done = await asyncio.wait_for(engine.generate(PROMPT), 5)
    assert done.text == TEXT
    assert len(double.bodies) == 2


async def test_a_long_answer_whose_tokens_keep_coming_is_not_cut_by_the_watchdog() -> None:
    double = EngineDouble(seconds_per_piece=0.05)
    async with engine_at(double, first_token_s=2.0, next_token_s=2.0) as engine:
        done = await engine.generate(PROMPT)
    assert done.seconds > 2.0
    assert len(double.bodies) == 1


async def test_the_request_says_all_that_shapes_the_answer() -> None:
    double = EngineDouble()
    prompt = Prompt(
        PROMPT.messages, Sampling(50, temperature=0.5, seed=7, stop=("END",)), SCHEMA, priority=10
    )
    async with engine_at(double) as engine:
        await engine.generate(prompt)
    body = double.bodies[0]
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (body["priority"], body["seed"], body["temperature"], body["stop"]) == (10, 7, 0.5, ["END"])
    assert body["stream_options"] == {"include_usage": True}


async def test_a_server_without_priorities_is_asked_without_them_from_then_on() -> None:
    double = EngineDouble(faults=[Fault.NO_PRIORITIES])
    prompt = Prompt(PROMPT.messages, Sampling(5), priority=10)
    async with engine_at(double) as engine:
        await engine.generate(prompt)
        await engine.generate(prompt)
    assert ["priority" in body for body in double.bodies] == [True, False, False]


async def test_the_salt_of_the_cache_goes_with_every_generation_and_with_nothing_else() -> None:
    double = EngineDouble()
    async with engine_at(double, cache_salt="s4lt") as engine:
        await engine.generate(PROMPT)
        await engine.warm(PROMPT)
        await engine.count_tokens(PROMPT.messages)
    assert [body.get("cache_salt") for body in double.bodies] == ["s4lt", "s4lt"]
    async with engine_at(double) as engine:
        await engine.generate(PROMPT)
    assert "cache_salt" not in double.bodies[-1]


async def test_a_server_that_knows_no_salt_is_asked_without_it_from_then_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    double = EngineDouble(faults=[Fault.NO_PRIORITIES, Fault.NO_SALT])
    prompt = Prompt(PROMPT.messages, Sampling(5), priority=10)
    async with engine_at(double, cache_salt="s4lt") as engine:
        await engine.generate(prompt)
        await engine.generate(prompt)
    assert ["cache_salt" in body for body in double.bodies] == [True, True, False, False]
    assert ["priority" in body for body in double.bodies] == [True, False, False, False]
    assert caplog.text.count("shares its prefix cache") == 1
    assert "s4lt" not in caplog.text


async def test_an_endless_answer_that_is_no_stream_is_given_up() -> None:
    sent = 0

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < 1_000 * MIB:
                sent += MIB
                yield bytes(MIB)

    for status in (200, 400):
        sent = 0
        transport = httpx.MockTransport(lambda _, status=status: httpx.Response(status, stream=Endless()))
        engine = OpenAIEngine(
            "http://127.0.0.1:1", MODEL, profile=profile_for("smollm2-135m"), transport=transport
        )
        with pytest.raises(EngineError, match="too large"):
            await engine.describe()
        await engine.aclose()
        assert sent <= LONGEST_ANSWER_BYTES + 2 * MIB


async def test_the_engine_is_asked_where_it_is_set_and_nowhere_else() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(307, headers={"Location": "http://169.254.169.254/latest/meta-data"})

    engine = OpenAIEngine(
        "http://127.0.0.1:1", MODEL, profile=profile_for("smollm2-135m"),
        transport=httpx.MockTransport(answer),
    )  # fmt: skip
    with pytest.raises(EngineError):
        await engine.generate(PROMPT)
    await engine.aclose()
    assert asked == ["127.0.0.1"]


async def test_the_system_turn_is_folded_into_the_first_user_turn_for_medgemma() -> None:
    double = EngineDouble()
    turns = (
        Message("system", "Rules."),
        Message("user", "Example."),
        Message("assistant", "{}"),
        Message("user", "Task."),
    )
    async with engine_at(double, profile=profile_for("medgemma-4b-it")) as engine:
        await engine.generate(Prompt(turns, Sampling(5)))
        counted = await engine.count_tokens(turns)
    said = [(m["role"], m["content"]) for m in double.bodies[0]["messages"]]
    assert said == [("user", "Rules.\n\nExample."), ("assistant", "{}"), ("user", "Task.")]
    assert counted < await count_unfolded(turns)


async def count_unfolded(turns: tuple[Message, ...]) -> int:
    async with engine_at(EngineDouble()) as engine:
        return await engine.count_tokens(turns)


async def test_thinking_and_fences_are_stripped_from_the_text_alone() -> None:
    said = '<unused94>thought\nabout it<unused95>```json\n{"claims": []}\n```'
    pieces: list[str] = []
    async with engine_at(
        EngineDouble(answer=lambda _: said), profile=profile_for("medgemma-27b-it")
    ) as engine:
        done = await engine.generate(PROMPT, pieces.append)
    assert json.loads(done.text) == {"claims": []}
    assert "".join(pieces) == said


async def test_line_separators_inside_a_sentence_do_not_cut_an_event_in_two() -> None:
    said = "one\u2028two\u2029three\x85four"
    async with engine_at(EngineDouble(answer=lambda _: said)) as engine:
        assert (await engine.generate(PROMPT)).text == said


async def test_usage_is_counted_in_pieces_where_the_server_reports_none() -> None:
    async with engine_at(EngineDouble(with_usage=False)) as engine:
        done = await engine.generate(PROMPT)
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (0, 50)


async def test_a_server_that_cannot_count_is_named_as_the_reason() -> None:
    async with engine_at(EngineDouble(with_tokenize=False)) as engine:
        with pytest.raises(EngineError):
            await engine.count_tokens(PROMPT.messages)


async def test_the_context_is_what_is_really_served() -> None:
    async with engine_at(EngineDouble(), profile=profile_for("medgemma-4b-it")) as engine:
        info = await engine.describe()
    assert info.context_tokens == CONTEXT_TOKENS
    assert (info.version, info.digest) == ("vllm 0.0.1", f"unknown:{MODEL}")


async def test_a_model_that_is_not_served_is_said_with_those_that_are() -> None:
    async with EngineDouble() as double:
        engine = OpenAIEngine(double.base_url, "medgemma", profile=profile_for(""))
        with pytest.raises(EngineError, match="does not serve the model medgemma") as caught:
            await engine.describe()
        assert MODEL in caught.value.advice
        await engine.aclose()


async def test_a_listener_that_fails_stops_the_generation_and_is_not_taken_for_a_fault_of_the_engine() -> (
    None
):
    def fail(_: str) -> None:
        raise KeyError("listener")

    double = EngineDouble(seconds_per_piece=0.02)
    async with engine_at(double) as engine:
        with pytest.raises(KeyError):
            await engine.generate(PROMPT, fail)
        await asyncio.sleep(0.1)
        assert double.running == 0
    assert len(double.bodies) == 1


async def test_no_log_line_holds_what_the_prompt_says(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("", "httpx", "httpcore"):  # whatever has quietened them before
        caplog.set_level(logging.DEBUG, logger=name)
    async with engine_at(EngineDouble(faults=[Fault.CUT, Fault.TOO_LONG])) as engine:
        with pytest.raises(EngineError):
            await engine.generate(PROMPT)
    assert caplog.records
    assert CANARY not in caplog.text


def test_one_engine_serves_several_event_loops_one_after_the_other() -> None:
    async def ask() -> str:
        async with EngineDouble() as double:
            urls.append(double.base_url)
            return (await engine.generate(PROMPT)).text

    async def wake() -> str:
        return urls[-1]

    urls: list[str] = []
    engine = OpenAIEngine("", MODEL, profile=profile_for(""), wake=wake)
    assert asyncio.run(ask()) == asyncio.run(ask()) == TEXT
