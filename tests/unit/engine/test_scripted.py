"""The engine without a model."""

from __future__ import annotations

import asyncio

import pytest

from fixtures.engine_double import answer
from service.engine.prompt import Message, Prompt, Sampling
from service.engine.scripted import ScriptedEngine, smallest
from service.errors import EngineError
from tests.unit.engine.contract import ASK, SCHEMA, EngineContract, Subject


class TestScriptedEngineKeepsTheContract(EngineContract):
    @pytest.fixture
    def subject(self) -> Subject:
        engine = ScriptedEngine(answer, seconds_per_piece=0.002)

        async def running() -> int:
            return engine.running

        return Subject(engine, running)


async def test_it_answers_from_a_list_in_turn_and_then_says_that_the_script_is_over() -> None:
    engine = ScriptedEngine(["one", "two"])
    said = [(await engine.generate(Prompt(ASK, Sampling(9)))).text for _ in range(2)]
    assert said == ["one", "two"]
    with pytest.raises(EngineError, match="no further answer"):
        await engine.generate(Prompt(ASK, Sampling(9)))


async def test_it_remembers_every_prompt_in_order() -> None:
    engine = ScriptedEngine()
    prompts = [Prompt((Message("user", str(n)),), Sampling(9)) for n in range(3)]
    for prompt in prompts:
        await engine.generate(prompt)
    assert engine.prompts == prompts


async def test_it_dies_in_the_middle_of_one_answer_and_gives_the_next() -> None:
    engine = ScriptedEngine(lambda _: "a b c d", failures=[EngineError("gone")], die_after_pieces=2)
    pieces: list[str] = []
    with pytest.raises(EngineError, match="gone"):
        await engine.generate(Prompt(ASK, Sampling(9)), pieces.append)
    assert "".join(pieces) == "a b "
    assert (await engine.generate(Prompt(ASK, Sampling(9)))).text == "a b c d"


async def test_it_is_slow_on_demand() -> None:
    engine = ScriptedEngine(lambda _: "a b c d", seconds_per_piece=0.02)
    done = await engine.generate(Prompt(ASK, Sampling(9)))
    assert done.seconds >= 0.06
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.generate(Prompt(ASK, Sampling(9))), 0.01)


async def test_it_cannot_be_taken_for_a_model() -> None:
    info = await ScriptedEngine().describe()
    assert info.digest == "unknown:scripted"


def test_the_smallest_value_of_a_schema_is_admitted_by_it() -> None:
    assert smallest(SCHEMA)["claims"][1] == {"cites": ["F2"], "text": "x"}
    assert smallest({"type": "array", "items": {"type": "integer", "minimum": 3}, "minItems": 2}) == [3, 3]
    assert smallest({"type": "object", "properties": {"a": {"type": "null"}}}) == {}
    assert smallest({"const": 7}) == 7
    assert smallest({"type": "boolean"}) is False
