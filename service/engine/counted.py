"""How many generations a piece of work asked for, whoever asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from service.engine.prompt import Completion, Engine, EngineInfo, Message, Prompt


@dataclass(slots=True)
class Tally:
    """Generations that were begun."""

    calls: int = 0


_TALLY: ContextVar[Tally | None] = ContextVar("epicrisis_engine_tally", default=None)


@contextmanager
def tallied() -> Iterator[Tally]:
    """Count the generations of this block and of the tasks it starts."""
    tally = Tally()
    token = _TALLY.set(tally)
    try:
        yield tally
    finally:
        _TALLY.reset(token)


@dataclass(frozen=True, slots=True)
class CountedEngine:
    """An Engine that counts what is asked of another."""

    engine: Engine

    async def describe(self) -> EngineInfo:
        """Say which model serves. Raises EngineError."""
        return await self.engine.describe()

    async def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Count the tokens of a rendered chat. Raises EngineError."""
        return await self.engine.count_tokens(messages)

    async def generate(self, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Completion:
        """Answer one prompt. Raises EngineError."""
        tally = _TALLY.get()
        if tally is not None:
            tally.calls += 1
        return await self.engine.generate(prompt, on_text)
