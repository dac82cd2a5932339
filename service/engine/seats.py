"""A continuous batch without a model: who is served, who waits, and how long each step takes.

It keeps the rules of vLLM's scheduler that a night and a sidebar meet: seats are given by priority, then by
arrival; a step decodes one token for each seat, and reads of prompts what its size leaves; nobody loses a
seat to a more urgent request; what is cached of a prompt need not be read.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

BLOCK = 16
"""Tokens that are cached together, as in vLLM."""
CACHED_BLOCKS = 65_536
JITTER = 0.05


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the batch works: a step costs `1 / decode` s, and `1 / prefill` s a token past its first.

    So one stream alone decodes at `decode_tokens_per_s`, and a full batch is bounded by
    `prefill_tokens_per_s`. Infinite rates take no time.
    """

    prefill_tokens_per_s: float = float("inf")
    decode_tokens_per_s: float = float("inf")
    step_tokens: int = 2048
    """vLLM's `--max-num-batched-tokens`: how much one step reads and decodes at most."""

    def step_s(self, tokens: int) -> float:
        """Return the seconds of a step over so many tokens."""
        return 1 / self.decode_tokens_per_s + max(0, tokens - 1) / self.prefill_tokens_per_s


@dataclass(eq=False)
class _Guest:
    """One request, from its arrival to its last token."""

    priority: int
    number: int
    prompt: Sequence[str]
    to_write: int
    unread: int = 0
    cached: int = 0
    written: int = 0
    tokens: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    left: bool = False

    def __lt__(self, other: _Guest) -> bool:
        return (self.priority, self.number) < (other.priority, other.number)

    @property
    def is_done(self) -> bool:
        return self.left or self.written >= self.to_write


class Seats:
    """`size` seats and the queue before them. Bound to the event loop that it is used in."""

    def __init__(
        self,
        size: int = 64,
        pace: Pace = Pace(),
        *,
        seed: int = 0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._size = size
        self._pace = pace
        self._random = random.Random(seed)  # noqa: S311 - how much one step differs from the next
        self._sleep = sleep
        self._numbers = itertools.count()
        self._seated: list[_Guest] = []
        self._queue: list[_Guest] = []
        self._cache: OrderedDict[int, None] = OrderedDict()
        self._stepping: asyncio.Task[None] | None = None
        self._due = 0.0
        self.generated = 0
        """Tokens written since the start."""
        self.read = 0
        """Tokens of prompts read since the start, those from the cache left out."""

    @property
    def running(self) -> int:
        """How many requests have a seat."""
        return len(self._seated)

    @property
    def waiting(self) -> int:
        """How many requests wait for one."""
        return sum(not guest.left for guest in self._queue)

    async def serve(
        self, prompt: Sequence[str], to_write: int, priority: int = 0
    ) -> AsyncGenerator[int, None]:
        """Yield once for the prompt that is read, with its cached tokens; then once a token, with its number.

        Closing the iterator, or cancelling who waits for it, frees the seat at once.
        """
        guest = _Guest(priority, next(self._numbers), prompt, to_write)
        heapq.heappush(self._queue, guest)
        self._step_on()
        try:
            yield await guest.tokens.get()
            for _ in range(to_write):
                yield await guest.tokens.get()
        finally:
            guest.left = True
            if guest in self._seated:
                self._seated.remove(guest)

    async def aclose(self) -> None:
        """Stop; who is still served or waits gets no further token."""
        if self._stepping is not None:
            self._stepping.cancel()
            await asyncio.gather(self._stepping, return_exceptions=True)

    def _step_on(self) -> None:
        if self._stepping is None or self._stepping.done():
            self._due = asyncio.get_running_loop().time()
            self._stepping = asyncio.create_task(self._steps())

    async def _steps(self) -> None:
        while self._admit():
            plan = self._plan()
            await self._pass(self._pace.step_s(sum(tokens for _, tokens in plan)))
            for guest, tokens in plan:
                if not guest.left:
                    self._advance(guest, tokens)
            self._seated = [guest for guest in self._seated if not guest.is_done]

    async def _pass(self, seconds: float) -> None:
        """Let a step's time pass; what the machine took longer for the last one is not made up for."""
        now = asyncio.get_running_loop().time()
        varied = seconds * (1 + self._random.uniform(-JITTER, JITTER))
        self._due = max(self._due, now - seconds) + varied
        await self._sleep(max(0.0, self._due - now))

    def _admit(self) -> bool:
        """Give free seats away; False where nobody is served and nobody waits."""
        while self._queue and len(self._seated) < self._size:
            guest = heapq.heappop(self._queue)
            if not guest.left:
                guest.cached = self._cached(guest.prompt)
                guest.unread = len(guest.prompt) - guest.cached
                self._seated.append(guest)
        return bool(self._seated)

    def _plan(self) -> list[tuple[_Guest, int]]:
        """Return who gets how many tokens of this step: first those that decode, then prompts by arrival."""
        plan = [(guest, 1) for guest in self._seated if not guest.unread]
        left = max(1, self._pace.step_tokens - len(plan))
        for guest in self._seated:
            if guest.unread and left:
                tokens = min(guest.unread, left)
                plan.append((guest, tokens))
                left -= tokens
        return plan

    def _advance(self, guest: _Guest, tokens: int) -> None:
        if guest.unread:
            guest.unread -= tokens
            self.read += tokens
            if guest.unread:
                return
            self._keep(guest.prompt)
            guest.tokens.put_nowait(guest.cached)
        # the step that reads the end of a prompt writes the first token of its answer
        guest.written += 1
        self.generated += 1
        guest.tokens.put_nowait(guest.written)

    def _cached(self, prompt: Sequence[str]) -> int:
        """Count the tokens at the beginning that need not be read; the last one always must."""
        found = 0
        for key in _blocks(prompt):
            if key not in self._cache:
                break
            self._cache.move_to_end(key)
            found += BLOCK
        return min(found, max(0, (len(prompt) - 1) // BLOCK * BLOCK))

    def _keep(self, prompt: Sequence[str]) -> None:
        for key in _blocks(prompt):
            self._cache[key] = None
            self._cache.move_to_end(key)
        while len(self._cache) > CACHED_BLOCKS:
            self._cache.popitem(last=False)


def _blocks(prompt: Sequence[str]) -> list[int]:
    """Return a key for each whole block, which stands for all that comes before it too."""
    keys, above = [], 0
    for start in range(0, len(prompt) - BLOCK + 1, BLOCK):
        above = hash((above, tuple(prompt[start : start + BLOCK])))
        keys.append(above)
    return keys
