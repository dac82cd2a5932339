"""The engine without a model: it answers from a script, and can fail on demand.

It ships in the product, for tests and for `--engine scripted`: everything around the model can be tried
without one. It must never be taken for a model: its digest says that it is scripted.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from service.engine.prompt import Completion, EngineInfo, Message, Profile, Prompt, Usage
from service.errors import EngineError

MODEL = "scripted"
TOKENS_PER_TURN = 4
"""What a chat template adds to a turn, about."""
PIECE = re.compile(r"\s*\S+\s*|\s+")
TOKEN = re.compile(r"[A-Za-z]{1,6}|\d{1,3}|[^\sA-Za-z\d]")

Answer = Callable[[Prompt], str]
"""What the engine says to a prompt."""

IMAGE_TOKENS = 260
"""What a picture takes in Gemma 3: 256 tokens, the two around them, and a blank line on either side."""
SCRIPTED_PROFILE = Profile(
    name="scripted", mode="free", context_tokens=32_768, max_output_tokens=4096, temperature=0.0,
    image_tokens=IMAGE_TOKENS,
)  # fmt: skip


def answer_by_schema(prompt: Prompt) -> str:
    """Return the smallest JSON that the prompt's schema admits; `scripted` where it has none."""
    if prompt.schema is None:
        return MODEL
    return json.dumps(smallest(prompt.schema), separators=(",", ":"), ensure_ascii=False)


def smallest(schema: Mapping[str, Any]) -> Any:
    """Return the smallest value that a JSON schema of our own answers admits.

    Reads `const`, `enum`, `type`, `properties`, `required`, `prefixItems`, `items`, `minItems`,
    `minLength` and `minimum`; knows no patterns and no references.
    """
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: smallest(schema["properties"][name]) for name in schema.get("required", ())}
        case "array":
            return _smallest_array(schema)
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case "null":
            return None
    return "x" * int(schema.get("minLength", 0))


def _smallest_array(schema: Mapping[str, Any]) -> list[Any]:
    least = int(schema.get("minItems", 0))
    items = [smallest(item) for item in list(schema.get("prefixItems", ()))[:least]]
    while len(items) < least:
        items.append(smallest(schema["items"]))
    return items


def count_scripted_tokens(text: str) -> int:
    """Count tokens by rule: up to six letters, up to three digits, or one other sign each."""
    return len(TOKEN.findall(text))


class ScriptedEngine:
    """An Engine that answers by a function, or from a list in turn.

    `prompts` holds every prompt it was given, in order, unless it keeps none: then a process that serves for
    days does not grow by every chart that it tells of. Each entry of `failures` is raised by one
    call, after `die_after_pieces` pieces of its answer; `seconds_per_piece` makes it slow.
    """

    def __init__(
        self,
        answers: Answer | Iterable[str] = answer_by_schema,
        *,
        profile: Profile = SCRIPTED_PROFILE,
        failures: Iterable[EngineError] = (),
        die_after_pieces: int = 0,
        seconds_per_piece: float = 0.0,
        keeps_prompts: bool = True,
    ) -> None:
        self.prompts: list[Prompt] = []
        self.running = 0
        """How many generations are under way."""
        self._answer = answers if callable(answers) else _in_turn(answers)
        self._profile = profile
        self._failures = deque(failures)
        self._die_after_pieces = die_after_pieces
        self._seconds_per_piece = seconds_per_piece
        self._keeps_prompts = keeps_prompts

    async def describe(self) -> EngineInfo:
        """Say that no model serves here."""
        return EngineInfo(
            model=MODEL,
            digest=f"unknown:{MODEL}",
            version=f"{MODEL} 1",
            profile=self._profile,
            context_tokens=self._profile.context_tokens,
        )

    async def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Count by rule, with a constant a turn and a picture: deterministic, and additive over turns."""
        return sum(
            TOKENS_PER_TURN + count_scripted_tokens(message.text) + IMAGE_TOKENS * len(message.images)
            for message in messages
        )

    async def generate(self, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Completion:
        """Answer from the script, piece by piece. Raises the next of `failures` where one is left."""
        if self._keeps_prompts:
            self.prompts.append(prompt)
        started = asyncio.get_running_loop().time()
        pieces, finish_reason = self._pieces(prompt)
        failure = self._failures.popleft() if self._failures else None
        told = pieces if failure is None else pieces[: self._die_after_pieces]
        self.running += 1
        try:
            for piece in told:
                await asyncio.sleep(self._seconds_per_piece)
                if on_text is not None:
                    on_text(piece)
        finally:
            self.running -= 1
        if failure is not None:
            raise failure
        images = IMAGE_TOKENS * sum(len(message.images) for message in prompt.messages)
        usage = Usage(await self.count_tokens(prompt.messages), len(pieces), image_tokens=images)
        return Completion("".join(pieces), finish_reason, usage, asyncio.get_running_loop().time() - started)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _pieces(self, prompt: Prompt) -> tuple[list[str], str]:
        """Cut the answer into words, one token each; past `max_tokens` it ends with `length`."""
        pieces = PIECE.findall(self._answer(prompt))
        limit = prompt.sampling.max_tokens
        return (pieces, "stop") if len(pieces) <= limit else (pieces[:limit], "length")


def _in_turn(answers: Iterable[str]) -> Answer:
    left = iter(answers)

    def answer(prompt: Prompt) -> str:
        try:
            return next(left)
        except StopIteration:
            raise EngineError("The script has no further answer.", "Give it more answers.") from None

    return answer
