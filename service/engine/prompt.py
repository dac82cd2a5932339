"""What goes into the engine and what comes out of it. Values only; no transport here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant"]
PLACE = "\ufffc"
"""Where in a turn's text a picture stands (OBJECT REPLACEMENT CHARACTER); in a turn without pictures it is
a character like any other."""


@dataclass(frozen=True, slots=True)
class Image:
    """One picture of a prompt, named by its digest. The bytes are sent and never stored with a run."""

    digest: str
    """SHA-256 (hex) of the PNG."""
    png: bytes = field(default=b"", repr=False, compare=False)
    """Empty in what was stored."""


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn. With pictures, each stands where its PLACE does in the text, in order."""

    role: Role
    content: str
    images: tuple[Image, ...] = ()

    @property
    def text(self) -> str:
        """The turn without its pictures."""
        return self.content.replace(PLACE, "") if self.images else self.content


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. All of it is part of the run key."""

    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to the engine: instructions, patient, task last; and the grammar of the answer."""

    messages: tuple[Message, ...]
    sampling: Sampling
    schema: Mapping[str, Any] | None = None
    """JSON schema that the decoder enforces; None for free text."""
    priority: int = 0
    """Lower is served first: sidebar 0, digests of a chart 1, schedule 10."""

    def without_pixels(self) -> Prompt:
        """Return it as it is stored: each picture by its digest alone."""
        if not any(message.images for message in self.messages):
            return self
        turns = (
            replace(turn, images=tuple(Image(image.digest) for image in turn.images))
            for turn in self.messages
        )
        return replace(self, messages=tuple(turns))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one completion."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    image_tokens: int = 0
    """How many of the prompt's tokens are pictures, where the server says it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the engine answered, whole."""

    text: str
    finish_reason: str
    """`stop` or `length`; anything else is passed through."""
    usage: Usage
    seconds: float


@dataclass(frozen=True, slots=True)
class Profile:
    """The facts of a model family that shape a request, apart from any transport.

    `guided` models (small ones) are asked section by section, one claim a fact; `free` ones get the
    whole task and combine facts.
    """

    name: str
    mode: Literal["guided", "free"]
    context_tokens: int
    max_output_tokens: int
    temperature: float
    facts_per_request: int = 10
    """guided only: how many facts one request asks about."""
    digest_windows: int = 0
    """How many parts of a chart beyond the budget may be digested in one run; 0 leaves them out instead."""
    system_in_user_turn: bool = False
    """True where the chat template wants strict user/assistant turns (MedGemma)."""
    tokenizer: str = ""
    """Folder of the model's tokenizer files on this machine: tokens are then counted here, and `/tokenize`
    is asked once whether it agrees. Empty: the served model's own folder, else `/tokenize` every time."""
    image_tokens: int = 0
    """Tokens that one picture takes in a prompt, its markers included; 0 for a model that sees none."""
    strip: tuple[str, ...] = ()
    """Patterns (re) removed from an answer: thinking blocks, code fences."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Which model serves, exactly enough to find every document it wrote."""

    model: str
    digest: str
    """SHA-256 (hex) over the weights and tokenizer files, or `unknown:<name>` for a remote engine that
    cannot say."""
    version: str
    """The serving software, for example `vllm 0.32.0`."""
    profile: Profile
    context_tokens: int
    """What the server really serves; at most the profile's."""
    extra: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """The seam to the model. Three methods; everything else is policy above it."""

    async def describe(self) -> EngineInfo:
        """Say which model serves. Starts a supervised engine lazily. Raises EngineError."""
        ...

    async def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Count the tokens of a rendered chat, by the served model's own tokenizer and template.

        Never in the event loop's own threads: those may all be waiting for a count.
        """
        ...

    async def generate(self, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Completion:
        """Answer one prompt. `on_text` receives each piece as it is decoded.

        Cancelling the task stops the generation at the engine. Raises EngineError after its retries.
        """
        ...
