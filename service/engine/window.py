"""The night's place at the engine: fewer requests in flight than it has seats, and out of a clinician's way.

vLLM takes no seat away from a running request for a more urgent one, and every stream in flight slows all
others. So who can wait keeps few requests in flight, and gives up the youngest while somebody more urgent
waits. What is given up is asked again from its start; its prompt then comes from the engine's cache.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from service.engine.prompt import Completion, Engine, EngineInfo, Message, Prompt
from service.errors import EpicrisisError

_log = logging.getLogger("epicrisis.engine")

SIDEBAR, AUDIT, SCHEDULE = 0, 5, 10
"""Priorities of those who ask: a clinician who waits, a review, the night."""
SIZE = 8
BESIDE = 2
"""How many requests go on beside one that is more urgent: some, so that no night starves."""
RESTARTS = 3
"""After so many restarts a request is not given up any more."""
LOOK_S = 0.1

Waiting = Callable[[], Awaitable[bool]]
"""Says whether somebody more urgent waits for the engine now."""


class Urgency(Protocol):
    """Where those who wait for the engine say so, and those who can wait look. One a database or process."""

    def hold(self, priority: int) -> AbstractAsyncContextManager[None]:
        """Say, while the block runs, that somebody of this priority waits. Never fails, and never delays."""
        ...

    async def waits(self, before: int) -> bool:
        """Say whether somebody waits who is more urgent than this priority. Raises EpicrisisError."""
        ...


class UrgencyHere:
    """An Urgency within one process."""

    def __init__(self) -> None:
        self._held: Counter[int] = Counter()

    @asynccontextmanager
    async def hold(self, priority: int) -> AsyncIterator[None]:
        """Say, while the block runs, that somebody of this priority waits."""
        self._held[priority] += 1
        try:
            yield
        finally:
            self._held[priority] -= 1

    async def waits(self, before: int) -> bool:
        """Say whether somebody waits who is more urgent than this priority."""
        return any(count and priority < before for priority, count in self._held.items())


class Pressing:
    """An Engine for those whom others make room for: it says for each request that somebody waits."""

    def __init__(self, engine: Engine, urgency: Urgency, priority: int = SIDEBAR) -> None:
        self._engine = engine
        self._urgency = urgency
        self._priority = priority

    async def describe(self) -> EngineInfo:
        """Say which model serves. Raises EngineError."""
        return await self._engine.describe()

    async def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Count the tokens of a rendered chat. Raises EngineError."""
        return await self._engine.count_tokens(messages)

    async def generate(self, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Completion:
        """Answer one prompt, with room made for it. Raises EngineError."""
        async with self._urgency.hold(self._priority):
            return await self._engine.generate(_with_priority(prompt, self._priority), on_text)


@dataclass(eq=False)
class _Request:
    """One request, from its place in the queue to its answer. The lower number was here first."""

    number: int
    seated: asyncio.Event
    restarts: int = 0
    task: asyncio.Task[Completion] | None = None
    gives_way: bool = False

    def __lt__(self, other: _Request) -> bool:
        return self.number < other.number

    def give_way(self) -> None:
        """Stop the generation; it is asked again once there is room."""
        self.gives_way = True
        if self.task is not None:
            self.task.cancel()


class Window:
    """An Engine for those who can wait, before another Engine.

    At most `size` requests are in flight. While `waiting` says that somebody more urgent waits, it is
    `beside`: the youngest are given up and queued again before all that have not begun. One that was given
    up `restarts` times is left to finish. On the listener of a request that begins again an empty piece is
    called first, as `OpenAIEngine` does.
    """

    def __init__(
        self,
        engine: Engine,
        size: int = SIZE,
        waiting: Waiting | None = None,
        *,
        priority: int = SCHEDULE,
        beside: int = BESIDE,
        restarts: int = RESTARTS,
        look_s: float = LOOK_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`waiting` is asked every `look_s` while there is work. Without it nobody is ever more urgent."""
        self._engine = engine
        self._size = size
        self._waiting = waiting
        self._priority = priority
        self._beside = min(beside, size)
        self._restarts = restarts
        self._look_s = look_s
        self._sleep = sleep
        self._numbers = itertools.count()
        self._in_flight: list[_Request] = []
        self._queue: list[_Request] = []
        self._is_urgent: bool | None = None if waiting else False
        """None until it was asked."""
        self._looking: asyncio.Task[None] | None = None
        self.given_up = 0
        """How many generations were given up for somebody more urgent."""

    @property
    def in_flight(self) -> int:
        """How many requests the engine has from here now."""
        return len(self._in_flight)

    @property
    def queued(self) -> int:
        """How many requests wait here: the measure of back-pressure."""
        return len(self._queue)

    async def describe(self) -> EngineInfo:
        """Say which model serves. Raises EngineError."""
        return await self._engine.describe()

    async def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Count the tokens of a rendered chat. Raises EngineError."""
        return await self._engine.count_tokens(messages)

    async def generate(self, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Completion:
        """Answer one prompt when there is room, from its start as often as it gives way. Raises EngineError.

        Cancelling stops the generation, or leaves the queue.
        """
        prompt = _with_priority(prompt, self._priority)
        request = _Request(next(self._numbers), asyncio.Event())
        told = _Told(on_text)
        while True:
            await self._seat(request)
            try:
                done = await self._attempt(request, prompt, told)
            finally:
                self._in_flight.remove(request)
                self._give_seats()
            if done is not None:
                return done
            told.begin_again()

    async def _attempt(self, request: _Request, prompt: Prompt, told: _Told) -> Completion | None:
        """Ask the engine; None where the request gave way, which it may before it has begun."""
        if request.gives_way:
            return None
        request.task = task = asyncio.create_task(self._engine.generate(prompt, told.listener))
        try:
            await asyncio.wait({task})
        finally:
            if not task.done():  # we are cancelled: the engine is to know before the seat is free
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            request.task = None
        if request.gives_way and task.cancelled():
            request.restarts += 1
            return None
        return task.result()

    async def _seat(self, request: _Request) -> None:
        """Wait for room, those who were here first before the others."""
        request.seated.clear()
        heapq.heappush(self._queue, request)
        self._look_on()
        try:
            await request.seated.wait()
        except BaseException:
            if request in self._queue:
                self._queue.remove(request)
                heapq.heapify(self._queue)
            else:  # a seat came at the same moment
                self._in_flight.remove(request)
                self._give_seats()
            raise

    def _give_seats(self) -> None:
        if self._is_urgent is None:
            return
        limit = self._beside if self._is_urgent else self._size
        while self._queue and len(self._in_flight) < limit:
            request = heapq.heappop(self._queue)
            request.gives_way = False
            self._in_flight.append(request)
            request.seated.set()

    def _make_room(self) -> None:
        """Give up the youngest requests beyond those that may go on; not those that gave way often enough."""
        staying = [one for one in self._in_flight if not one.gives_way]
        too_many = len(staying) - self._beside
        youngest = sorted(staying, reverse=True)
        for request in [one for one in youngest if one.restarts < self._restarts][: max(0, too_many)]:
            request.give_way()
            self.given_up += 1

    def _look_on(self) -> None:
        """Keep looking whether somebody waits, in this event loop, for as long as there is work.

        What was seen less than `look_s` ago holds for who comes now.
        """
        looking = self._looking
        is_looking = looking is not None and not looking.done() and _is_of_this_loop(looking)
        if self._waiting is None or is_looking:
            self._give_seats()
        else:
            self._is_urgent = None
            self._looking = asyncio.create_task(self._look(self._waiting))

    async def _look(self, waiting: Waiting) -> None:
        while self._queue or self._in_flight:
            self._is_urgent = await _asked(waiting)
            if self._is_urgent:
                self._make_room()
            self._give_seats()
            await self._sleep(self._look_s)


class _Told:
    """What a listener was told of one answer."""

    def __init__(self, on_text: Callable[[str], None] | None) -> None:
        self._on_text = on_text
        self._any = False

    @property
    def listener(self) -> Callable[[str], None] | None:
        """Whom the engine tells; None where nobody listens."""
        return None if self._on_text is None else self._tell

    def begin_again(self) -> None:
        """Say that what came before is void, to one who heard any of it."""
        if self._any and self._on_text is not None:
            self._any = False
            self._on_text("")

    def _tell(self, piece: str) -> None:
        assert self._on_text is not None
        self._any = bool(piece)
        self._on_text(piece)


async def _asked(waiting: Waiting) -> bool:
    """Ask; where that cannot be asked the night goes on: it is fewer than all seats in any case."""
    try:
        return await waiting()
    except EpicrisisError as error:
        _log.warning("Whether somebody more urgent waits cannot be asked (%s)", error.code)
        return False


def _is_of_this_loop(task: asyncio.Task[None]) -> bool:
    return task.get_loop() is asyncio.get_running_loop()


def _with_priority(prompt: Prompt, priority: int) -> Prompt:
    """Keep what a run's own requests have between each other: digests of a chart come after its summary."""
    return replace(prompt, priority=priority + prompt.priority)
