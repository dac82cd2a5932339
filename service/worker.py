"""A worker's life: a place of its own, signs of life, and an eye on the others.

A place (`host-1`) is held by a lock that ends with the process, so a worker that starts again finds its own
work under the same name, and another worker sees that a place is empty whose work is not done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from service.durable import Durable
from service.errors import EpicrisisError, StoreError
from service.pause import waited
from service.ports import LASTING, AdmissionStore, Clock, Right, WorkerRow

BEAT_S = 5.0
HUNG_S = 120.0
"""A worker that holds its place and gives no sign of life for so long is stuck: its work is given away."""
QUIET_BEATS = 3
"""After a restart of the database all places look empty: so many beats long nobody is taken for dead."""
MOST_PLACES = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """A worker's name, for as long as it lives."""

    name: str
    lock: Right


def take_place(store: AdmissionStore, host: str) -> Place:
    """Take the first free place of a host. Raises StoreError where there is none."""
    for number in range(1, MOST_PLACES + 1):
        name = f"{host}-{number}"
        lock = store.hold(f"{LASTING}worker {name}")
        if lock is not None:
            return Place(name, lock)
    raise StoreError(f"There are {MOST_PLACES} workers on this host already.", "Stop some of them.")


def arrive(place: Place, store: AdmissionStore, clock: Clock, version: str) -> None:
    """Give a first sign of life, before any work is taken: who dies at once is missed too.

    Raises StoreError.
    """
    now = clock()
    store.beat(WorkerRow(place.name, 0, now, now, version))


@dataclass
class Pulse:
    """Gives signs of life, and has the work of dead workers done."""

    place: Place
    store: AdmissionStore
    durable: Durable
    clock: Clock
    version: str
    monotonic: Callable[[], float] = time.monotonic
    beat_s: float = BEAT_S
    hung_s: float = HUNG_S
    taken_over: int = 0
    _beats: int = 0
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Worker → its last count of beats, and when it was first seen so, by our own clock."""
    _quiet_until: float = 0.0

    async def keep(self, stop: asyncio.Event) -> None:
        """Beat and look until `stop` is set; a database that is away is waited for.

        The row stays at the end: whoever lives takes over what was not done, and removes it.
        """
        started_at = self.clock()
        while not stop.is_set():
            try:
                if not await asyncio.to_thread(self.place.lock.is_held) and not await self._take_again():
                    _log.error("Another worker has this one's place by now (%s): it ends.", self.place.name)
                    stop.set()
                    return
                self._beats += 1
                row = WorkerRow(self.place.name, self._beats, started_at, self.clock(), self.version)
                await asyncio.to_thread(self.store.beat, row)
                await self.look()
            except EpicrisisError as error:
                _log.warning("The signs of life could not be written: %s", error)
            await waited(stop, self.beat_s)

    async def _take_again(self) -> bool:
        """Take our place again after a restart of the database; False where another was faster."""
        lock = await asyncio.to_thread(self.store.hold, f"{LASTING}worker {self.place.name}")
        if lock is None:
            return False
        self.place = Place(self.place.name, lock)
        self._quiet_until = self.monotonic() + QUIET_BEATS * self.beat_s
        return True

    async def look(self) -> None:
        """Take over from every worker that is dead. Raises StoreError."""
        if self.monotonic() < self._quiet_until:
            return
        for worker in await asyncio.to_thread(self.store.workers):
            if worker.id != self.place.name:
                await self._look_at(worker)

    async def _look_at(self, worker: WorkerRow) -> None:
        beats, since = self._seen.get(worker.id, (-1, 0.0))
        if beats != worker.beats:
            since = self.monotonic()
            self._seen[worker.id] = (worker.beats, since)
        is_hung = self.monotonic() - since > self.hung_s
        lock = await asyncio.to_thread(self.store.hold, f"{LASTING}worker {worker.id}")
        if lock is None and not is_hung:
            return
        try:
            count = await self.durable.take_over(worker.id)
            await asyncio.to_thread(self.store.dismiss, worker.id)
        finally:
            if lock is not None:
                lock.close()
        self._seen.pop(worker.id, None)
        self.taken_over += count
        if count:
            _log.warning("The worker %s is gone; %d pieces of its work go on here.", worker.id, count)
