"""Who waits for the engine now, told between processes by the database that they share.

Whoever waits has a row, and raises its beat while it waits. A row whose beat stands still says nothing any
more: its process is gone. That is judged by the reader's own clock, so no two clocks are ever compared.
Making room is a courtesy: where the database fails, nobody waits for it and nothing fails.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sqlalchemy import delete, update
from sqlmodel import col, select

from service.errors import StoreError
from service.store.database import Database
from service.store.tables import UrgentTable

_log = logging.getLogger("epicrisis.store")

BEAT_S = 1.0
STILL_S = 5.0
"""A row whose beat has stood still for so long is nobody's."""
CLEAR_S = 60.0
"""After so long, whoever sees it removes it."""
TAKE_LEAVE_S = 0.5
"""How long the removal of a row is waited for; after that it goes on beside."""


class SqlUrgency:
    """The Urgency of all processes on one database. One instance a process, or more.

    The database stays its owner's to close.
    """

    def __init__(
        self,
        database: Database,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._monotonic = monotonic
        self._sleep = sleep
        self._beating: set[asyncio.Task[None]] = set()
        self._seen: dict[str, tuple[int, float]] = {}
        """Each row's beat, and when it was first seen here."""

    @asynccontextmanager
    async def hold(self, priority: int) -> AsyncIterator[None]:
        """Say, while the block runs, that somebody of this priority waits. Never fails, and hardly delays."""
        beating = asyncio.create_task(self._beat(secrets.token_hex(16), priority))
        self._beating.add(beating)
        beating.add_done_callback(self._beating.discard)
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.wait({beating}, timeout=TAKE_LEAVE_S)

    async def waits(self, before: int) -> bool:
        """Say whether somebody waits who is more urgent than this priority. Raises StoreError."""
        rows = await asyncio.to_thread(self._rows)
        now = self._monotonic()
        known, self._seen = self._seen, {}
        for name, _, beat in rows:
            last = known.get(name)
            self._seen[name] = last if last is not None and last[0] == beat else (beat, now)
        gone = [name for name, (_, since) in self._seen.items() if now - since > CLEAR_S]
        if gone:
            await asyncio.to_thread(self._remove, *gone)
        return any(priority < before and now - self._seen[name][1] <= STILL_S for name, priority, _ in rows)

    async def _beat(self, name: str, priority: int) -> None:
        """Keep a row alive until cancelled, and remove it then."""
        inserting = asyncio.create_task(self._quietly(self._insert, name, priority))
        try:
            await asyncio.shield(inserting)
            while True:
                await self._sleep(BEAT_S)
                await self._quietly(self._raise, name)
        finally:
            await asyncio.wait({inserting})  # a thread that inserts cannot be called back
            await self._quietly(self._remove, name)

    async def _quietly(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            await asyncio.to_thread(work, *arguments)
        except StoreError as error:
            _log.warning("Others cannot be told that somebody waits for the engine (%s)", error.code)

    def _rows(self) -> list[tuple[str, int, int]]:
        with self._database.reading() as session:
            found = session.exec(select(UrgentTable.id, UrgentTable.priority, UrgentTable.beat))
            return [(name, priority, beat) for name, priority, beat in found]

    def _insert(self, name: str, priority: int) -> None:
        with self._database.writing(alone=False) as session:
            session.add(UrgentTable(id=name, priority=priority, beat=0))

    def _raise(self, name: str) -> None:
        with self._database.writing(alone=False) as session:
            session.exec(
                update(UrgentTable).where(col(UrgentTable.id) == name).values(beat=col(UrgentTable.beat) + 1)
            )

    def _remove(self, *names: str) -> None:
        with self._database.writing(alone=False) as session:
            session.exec(delete(UrgentTable).where(col(UrgentTable.id).in_(names)))
