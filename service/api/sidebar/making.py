"""A summary made for a reader who waits, read from the chart as that reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

from service.api.stream import written
from service.errors import StoreError
from service.ondemand import Opener
from service.ports.launches import Launch
from service.ports.ondemand import Asked, Generation, GenerationId, Told, ToldKind

BEAT: Final = b"event: beat\ndata: {}\n\n"
HEARTBEAT_S: Final = 10.0
"""How often a stream says that it lives: a page that hears nothing for thirty seconds says so."""


class OnDemand(Protocol):
    """Makes summaries for those who wait; all who ask for the same share one."""

    async def want(self, asked: Asked, opener: Opener) -> Generation:
        """Return the generation of what is asked for, which may run already. Raises EpicrisisError."""
        ...

    def follow(
        self, generation_id: GenerationId, after: int = 0, opener: Opener | None = None
    ) -> AsyncIterator[Told]:
        """Yield what is told of it, from an event on, to its end; where its maker is gone, make it here."""
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

    def follow(self, launch: Launch, generation_id: GenerationId, after: int) -> AsyncIterator[Told]:
        """Yield what is told of a generation, from an event on."""
        return self.on_demand.follow(generation_id, after, self.opener_of(launch))

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


async def stream(
    told: AsyncIterator[Told], titles: Mapping[str, str], beat_s: float = HEARTBEAT_S
) -> AsyncIterator[bytes]:
    """Yield each event, with its section's title in place of its key, and a beat wherever nothing is said.

    A beat is an event: a script does not see the comments of a stream, and is to notice when it falls silent.
    """
    waiting = asyncio.ensure_future(anext(told, None))
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=beat_s)
            if not done:
                yield BEAT
                continue
            try:
                event = waiting.result()
            except StoreError:  # a browser that comes again is told what it missed
                return
            if event is None:
                return
            yield written(_titled(event, titles))
            waiting = asyncio.ensure_future(anext(told, None))
    finally:
        waiting.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await waiting


def _titled(event: Told, titles: Mapping[str, str]) -> Told:
    if event.kind is not ToldKind.CLAIM:
        return event
    key = str(event.data.get("section", ""))
    return replace(event, data={**event.data, "section": titles.get(key, key)})
