"""Generations are counted for the piece of work that asked for them, and for no other."""

from __future__ import annotations

import asyncio

import pytest

from service.engine.counted import CountedEngine, tallied
from service.engine.prompt import Message, Prompt, Sampling
from service.engine.scripted import ScriptedEngine
from service.errors import EngineError

PROMPT = Prompt((Message("user", "Say it."),), Sampling(max_tokens=8))


async def test_what_two_tasks_ask_for_is_told_apart_and_their_own_tasks_count_with_them() -> None:
    engine = CountedEngine(ScriptedEngine(lambda prompt: "said"))

    async def ask(times: int) -> int:
        with tallied() as tally:
            await asyncio.gather(*[engine.generate(PROMPT) for _ in range(times)])
        return tally.calls

    assert list(await asyncio.gather(ask(1), ask(3))) == [1, 3]
    with tallied() as outer:
        with tallied() as inner:
            await engine.generate(PROMPT)
        await engine.generate(PROMPT)
    assert (inner.calls, outer.calls) == (1, 1)
    assert (await engine.generate(PROMPT)).text == "said"


async def test_a_generation_that_fails_was_asked_for_all_the_same() -> None:
    engine = CountedEngine(ScriptedEngine(failures=[EngineError("The engine is away.")]))
    with tallied() as tally, pytest.raises(EngineError):
        await engine.generate(PROMPT)
    assert tally.calls == 1


async def test_the_engine_behind_it_is_described_and_counts_tokens_itself() -> None:
    scripted = ScriptedEngine()
    engine = CountedEngine(scripted)
    assert await engine.describe() == await scripted.describe()
    assert await engine.count_tokens(PROMPT.messages) == await scripted.count_tokens(PROMPT.messages)
