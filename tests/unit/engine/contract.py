"""What every Engine must do, as one suite. A test module subclasses it and gives it a `subject`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from service.engine.prompt import Engine, Message, Prompt, Sampling

LABELS = ("F1", "F2", "F3")
ASK = (
    Message("system", "You write sentences."),
    Message("user", "[F1] Haemoglobin: 13.2 g/dL\n[F2] Asthma: active\n[F3] Colonoscopy: completed"),
)
TALK = (Message("user", "Write a very long story about a lighthouse. Do not stop."),)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "claims": {
            "type": "array",
            "prefixItems": [
                {
                    "type": "object",
                    "properties": {
                        "cites": {"type": "array", "items": {"enum": [label]}, "minItems": 1, "maxItems": 1},
                        "text": {"type": "string", "minLength": 1, "maxLength": 120},
                    },
                    "required": ["cites", "text"],
                    "additionalProperties": False,
                }
                for label in LABELS
            ],
            "items": False,
            "minItems": len(LABELS),
            "maxItems": len(LABELS),
        }
    },
    "required": ["claims"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Subject:
    """An engine, and how many generations run behind it now."""

    engine: Engine
    running: Callable[[], Awaitable[int]]


class EngineContract:
    """Every implementation's tests inherit these, with a fixture `subject` of their own."""

    async def test_it_says_which_model_serves_and_says_it_twice_alike(self, subject: Subject) -> None:
        info = await subject.engine.describe()
        assert info.model
        assert info.digest
        assert info.version
        assert 0 < info.context_tokens <= info.profile.context_tokens
        assert await subject.engine.describe() == info

    async def test_the_answer_obeys_the_schema(self, subject: Subject) -> None:
        done = await subject.engine.generate(Prompt(ASK, Sampling(400), SCHEMA))
        claims = json.loads(done.text)["claims"]
        assert [claim["cites"] for claim in claims] == [[label] for label in LABELS]
        assert all(set(claim) == {"cites", "text"} and claim["text"] for claim in claims)
        assert done.finish_reason == "stop"

    async def test_the_usage_agrees_with_the_count_and_the_limit(self, subject: Subject) -> None:
        done = await subject.engine.generate(Prompt(ASK, Sampling(5)))
        assert done.usage.prompt_tokens == await subject.engine.count_tokens(ASK)
        assert 0 <= done.usage.cached_tokens <= done.usage.prompt_tokens
        assert 0 < done.usage.completion_tokens <= 5
        assert 0 <= done.seconds < 60

    async def test_the_limit_of_tokens_ends_an_answer_with_length(self, subject: Subject) -> None:
        done = await subject.engine.generate(Prompt(TALK, Sampling(7)))
        assert (done.finish_reason, done.usage.completion_tokens) == ("length", 7)

    async def test_the_pieces_make_up_the_text(self, subject: Subject) -> None:
        pieces: list[str] = []
        done = await subject.engine.generate(Prompt(TALK, Sampling(20)), pieces.append)
        assert len(pieces) > 1
        assert "".join(pieces) == done.text

    async def test_cancelling_stops_the_generation_at_the_engine(self, subject: Subject) -> None:
        began = asyncio.Event()
        talking = asyncio.create_task(
            subject.engine.generate(Prompt(TALK, Sampling(1500)), lambda _: began.set())
        )
        await asyncio.wait_for(began.wait(), 120)
        assert await subject.running() == 1
        talking.cancel()
        outcome = await asyncio.gather(talking, return_exceptions=True)
        assert isinstance(outcome[0], asyncio.CancelledError)
        for _ in range(100):
            if await subject.running() == 0:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("five seconds later the generation still runs")

    async def test_several_at_once_each_get_their_own_answer(self, subject: Subject) -> None:
        prompts = [Prompt(ASK, Sampling(400), one_label(label)) for label in LABELS]
        done = await asyncio.gather(*(subject.engine.generate(prompt) for prompt in prompts))
        assert [json.loads(one.text)["cites"] for one in done] == [[label] for label in LABELS]

    async def test_counts_grow_with_the_turns_and_are_about_additive(self, subject: Subject) -> None:
        one = await subject.engine.count_tokens(ASK[:1])
        two = await subject.engine.count_tokens(ASK)
        alone = await subject.engine.count_tokens((Message("system", ""), ASK[1]))
        assert 0 < one < two
        assert abs(two - (one + alone)) <= 40


def one_label(label: str) -> dict[str, Any]:
    """Return the schema of one claim that can cite one label alone."""
    schema: dict[str, Any] = SCHEMA["properties"]["claims"]["prefixItems"][LABELS.index(label)]
    return schema
