"""A summary made for a reader who waits, read from the chart as that reader."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from service.ports.launches import Launch
from service.ports.ondemand import Asked, Generation, GenerationId, Told
from service.summarize import Progress, Summarizer

HEARTBEAT_S: Final = 10.0
"""How often a stream says that it lives: a page that hears nothing for thirty seconds says so."""
Opener = Callable[[Progress], AbstractAsyncContextManager[Summarizer]]
"""Opens a summarizer that reads the chart as one user."""


class OnDemand(Protocol):
    """Makes summaries for those who wait; all who ask for the same share one."""

    async def want(self, asked: Asked, opener: Opener) -> Generation:
        """Return the generation of what is asked for, which may run already. Raises EpicrisisError."""
        ...

    def follow(self, generation_id: GenerationId, after: int = 0) -> AsyncIterator[Told]:
        """Yield what is told of it, from an event on, to its end."""
        ...

    async def get(self, generation_id: GenerationId) -> Generation | None:
        """Return one, or None."""
        ...

    async def cancel(self, generation_id: GenerationId) -> None:
        """End it for all who follow it."""
        ...

    async def warm(self, asked: Asked, opener: Opener) -> None:
        """Have the engine read the chart before anybody asks. It never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Making:
    """How a launch's summaries are made."""

    on_demand: OnDemand
    opener_of: Callable[[Launch], Opener]
    may_file: Callable[[Launch], bool]
    """Tells whether what is made may be filed, by our own connection (SAFETY 17)."""

    async def start(self, launch: Launch, kind: str, *, again: bool) -> Generation:
        """Make a summary of this kind, or join who makes it. Raises EpicrisisError, ConnectorError."""
        return await self.on_demand.want(self._asked(launch, kind, again=again), self.opener_of(launch))

    async def warm(self, launch: Launch, kind: str) -> None:
        """Have the engine read the chart in the background."""
        await self.on_demand.warm(self._asked(launch, kind, again=False), self.opener_of(launch))

    async def find(self, launch: Launch, generation_id: str) -> Generation | None:
        """Return a generation about this launch's patient that reads as this launch's user, or None."""
        found = await self.on_demand.get(GenerationId(generation_id))
        if found is None:
            return None
        asked = found.asked
        wanted = (launch.server, launch.patient, launch.access_profile)
        return found if (asked.server, asked.patient, asked.access_profile) == wanted else None

    def _asked(self, launch: Launch, kind: str, *, again: bool) -> Asked:
        return Asked(
            server=launch.server, patient=launch.patient, kind=kind, encounter=launch.encounter,
            access_profile=launch.access_profile, actor=launch.actor, by=launch.fhir_user,
            attempt_wanted=again, only_kept=not self.may_file(launch),
        )  # fmt: skip


async def stream(told: AsyncIterator[Told], beat_s: float = HEARTBEAT_S) -> AsyncIterator[bytes]:
    """Yield server-sent events (HTML Living Standard, 9.2), each with its number, and a beat in pauses."""
    waiting: asyncio.Future[Told] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(told))
            done, _ = await asyncio.wait({waiting}, timeout=beat_s)
            if not done:
                yield b"event: beat\ndata: {}\n\n"
                continue
            try:
                event = waiting.result()
            except StopAsyncIteration:
                return
            finally:
                waiting = None
            yield _written(event)
    finally:
        if waiting is not None:
            waiting.cancel()


def _written(event: Told) -> bytes:
    data = json.dumps(dict(event.data), ensure_ascii=True)  # ASCII JSON holds no line break
    return f"id: {event.seq}\nevent: {event.kind.value}\ndata: {data}\n\n".encode("ascii")
