"""Sending what a collector of AuditEvents does not have yet: once each in effect, and nothing is lost.

An entry is noted as being sent before it is sent, and as sent once the collector took it. Whatever dies on
the way, or never hears the answer, leaves it noted as being sent: the next time the collector is asked first.
A collector that is down ends the attempt, and what is due stays due.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

from connectors.errors import ConflictError, ConnectorError, RequestRejected
from service.audit.balp import Scene, build_event
from service.errors import EpicrisisError, FilingError
from service.ports import Clock, Closes, DueEntry, Outbox

_log = logging.getLogger("epicrisis.audit")

BATCH = 25
"""Entries noted at once as being sent: after a crash so many searches are made."""
MOST_REFUSED = 5
"""In a row: a collector that takes none of them is wrong as a whole, and asking on helps nobody."""


EVERY_S = 60.0


class Collector(Protocol):
    """Who keeps AuditEvents."""

    @property
    def base_url(self) -> str:
        """The FHIR base URL, without a trailing slash."""
        ...

    async def append(self, event: dict[str, Any], handle: str, *, may_be_there: bool) -> bool:
        """Write an event unless it is there, and tell whether it was written now. Raises ConnectorError."""
        ...


class Sent(NamedTuple):
    """What came of an attempt."""

    sent: int
    """How many events the collector has now that it was not known to have."""
    due: int
    """How many it does not have, those that it refused included."""
    failed: int
    """How many it would not take this time."""
    error: ConnectorError | None = None
    """Why the attempt ended early."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends the entries of one audit log to one collector."""

    outbox: Outbox
    collector: Collector
    clock: Clock
    scene: Scene
    server: str | None = None
    """Only entries of this FHIR server: set where the collector is the EHR itself."""

    async def send(self) -> Sent:
        """Send all that is due, oldest first. Raises StoreError, and nothing else.

        Where another process sends to this collector just now, nothing is sent here.
        """
        done, _ = await self.send_some()
        due = await asyncio.to_thread(self.outbox.count, self.collector.base_url, self.server)
        return done._replace(due=due)

    async def send_some(self, limit: int | None = None, after: int = 0) -> tuple[Sent, int]:
        """Send what is due, at most `limit` entries `after` a number, and return the highest of them too.

        What is still due is not counted. Raises StoreError, and nothing else.
        """
        name = self.collector.base_url
        sent = failed = 0
        error: ConnectorError | None = None
        numbers: Sequence[int] = ()
        held = await self._hold()
        if held is not None:
            try:
                numbers = await asyncio.to_thread(self.outbox.due, name, self.server, limit, after)
                for start in range(0, len(numbers), BATCH):
                    done = await self._batch(numbers[start : start + BATCH])
                    sent, failed, error = sent + done.sent, failed + done.failed, done.error
                    if error is not None:
                        break
            finally:
                held.close()
        return Sent(sent, 0, failed, error), max(numbers, default=after)

    async def _hold(self) -> Closes | None:
        """Return the right to send, or None; whoever is cancelled meanwhile leaves none behind."""
        holding = asyncio.ensure_future(asyncio.to_thread(self.outbox.hold, self.collector.base_url))
        try:
            return await asyncio.shield(holding)
        except asyncio.CancelledError:
            held = await holding
            if held is not None:
                held.close()
            raise

    async def _batch(self, numbers: Sequence[int]) -> Sent:
        name = self.collector.base_url
        entries = await asyncio.to_thread(self.outbox.begin, name, numbers, self.clock())
        sent: list[int] = []
        refused: list[int] = []
        in_a_row: list[ConnectorError] = []
        try:
            for due in entries:
                try:
                    await self._send(due)
                except (FilingError, ValueError):
                    _log.warning("audit entry %d makes no valid AuditEvent", due.number)
                    refused.append(due.number)
                except (RequestRejected, ConflictError) as error:
                    _log.warning("audit entry %d was refused: %s", due.number, error.code)
                    refused.append(due.number)
                    in_a_row.append(error)
                    if len(in_a_row) == MOST_REFUSED:
                        return Sent(len(sent), 0, len(refused), error)
                except ConnectorError as error:
                    return Sent(len(sent), 0, len(refused), error)
                else:
                    sent.append(due.number)
                    in_a_row.clear()
        finally:
            await _to_the_end(partial(self.outbox.settle, name, sent, refused, self.clock()))
        return Sent(len(sent), 0, len(refused))

    async def _send(self, due: DueEntry) -> None:
        event = build_event(due.entry, due.handle, self.scene, self.collector.base_url)
        await self.collector.append(event, due.handle, may_be_there=due.was_tried)


async def _to_the_end(call: Callable[[], None]) -> None:
    """Run a call in a thread, and go on when it has ended, also where that is cancelled."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await running
        raise


async def send_regularly(courier: Courier, every_s: float = EVERY_S) -> None:
    """Send what is due again and again, until cancelled: for whoever holds a collector open for long."""
    while True:
        await asyncio.sleep(every_s)
        await courier(last=True)


class Courier:
    """Sends in passing, at the end of what was recorded: it never raises, and never delays for long.

    After a failure it lets the collector be until it is asked for a last time. Between the first time and the
    last it looks at what is new alone: what others recorded meanwhile under lower numbers goes with the last.
    """

    def __init__(self, sender: Sender, *, limit: int = 200, timeout_s: float = 15.0) -> None:
        self._sender = sender
        self._limit = limit
        self._timeout_s = timeout_s
        self._failed = False
        self._seen = 0

    async def __call__(self, *, last: bool = False) -> None:
        """Send what is due, as far as that goes; the rest stays due for the next time."""
        if self._failed and not last:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                done, self._seen = await self._sender.send_some(self._limit, 0 if last else self._seen)
        except (EpicrisisError, TimeoutError) as error:
            code = error.code if isinstance(error, EpicrisisError) else "timeout"
        else:
            if done.error is None:
                self._failed = False
                return
            code = done.error.code
        self._failed = True
        _log.warning("AuditEvents stay due: %s. `epicrisis audit send` sends them.", code)
