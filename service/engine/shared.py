"""One engine of a process for many readers, each with a cache of prompts of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from service.engine.prompt import Completion, Engine, EngineInfo, Message, Prompt


class SaltedEngine(Engine, Protocol):
    """An Engine that takes with each request whose prompts it may serve from its cache."""

    async def generate(
        self, prompt: Prompt, on_text: Callable[[str], None] | None = None, *, cache_salt: str | None = None
    ) -> Completion:
        """Answer one prompt. Only requests with the same `cache_salt` share what is kept of prompts."""
        ...


@dataclass(frozen=True)
class SharedEngine:
    """An Engine as one reader has it: what another reader asked makes no answer of theirs faster."""

    engine: SaltedEngine
    cache_salt: str = field(repr=False)

    async def describe(self) -> EngineInfo:
        """Say which model serves. Raises EngineError."""
        return await self.engine.describe()

    async def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Count the tokens of a rendered chat. Raises EngineError."""
        return await self.engine.count_tokens(messages)

    async def generate(self, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Completion:
        """Answer one prompt. Raises EngineError."""
        return await self.engine.generate(prompt, on_text, cache_salt=self.cache_salt)
