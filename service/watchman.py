"""What a worker does beside the queue: it watches the sources, keeps the schedules, and tidies up.

One worker at a time watches, by a lease; another takes over when it is gone. Each duty goes on when another
one fails: a server that is down stops nothing but the look at it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta

from connectors.admissions.subscription import Hook, ensure_subscription
from connectors.errors import ConnectorError
from connectors.fhir.client import FhirClient
from service.errors import EpicrisisError
from service.pause import waited
from service.ports import LASTING, Admission, AdmissionStore, Clock, Right
from service.scheduler import Scheduler
from service.sweep import Sweep, Watch
from service.worker import Pulse

LEASE = f"{LASTING}watch"
LEASE_POLL_S = 5.0
LISTEN_S = 1.0
"""How often the watcher looks whether somebody asked it to look."""
AGAIN_S = 60.0
"""How often what could not be acted on is tried again."""
TIDY_S = 3600.0
SUBSCRIBE_S = 60.0
"""How often the server is asked whether it still tells us: where nobody polls, a look depends on it."""
RENEW_S = 10.0
"""How soon it is asked again after a notification, which may be the last one."""
_log = logging.getLogger(__name__)


@dataclass
class Watchman:
    """The duties of a worker."""

    sweep: Sweep
    watches: tuple[Watch, ...]
    """Whom the sources are asked about between schedules: those of the schedules, or everybody."""
    pulse: Pulse
    scheduler: Scheduler
    store: AdmissionStore
    client: FhirClient
    clock: Clock
    order: Callable[[Admission, str], Awaitable[object]]
    poll_s: float = 60.0
    keep_days: int = 30
    hook: Hook | None = None
    adt: Callable[[], AbstractAsyncContextManager[object]] | None = None
    """Opens the listener for ADT messages."""
    lease_poll_s: float = LEASE_POLL_S
    listen_s: float = LISTEN_S
    renew_s: float = RENEW_S
    again_s: float = AGAIN_S
    looks: int = 0
    odd: Counter[str] = field(default_factory=Counter)
    _ensure_at: float = 0.0

    async def serve(self, stop: asyncio.Event) -> None:
        """Do all of it until `stop` is set."""
        duties = (self.pulse.keep, self.scheduler.serve, self.watch, self.tidy, self.subscribe)
        async with asyncio.TaskGroup() as group:
            for duty in duties:
                group.create_task(self._go_on(duty, stop))

    async def _go_on(self, duty: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> None:
        """Begin a duty again when it failed, until the worker stops."""
        while not stop.is_set():
            try:
                await duty(stop)
                return
            except (ConnectorError, EpicrisisError) as error:
                _log.error("A duty of this worker was interrupted: %s", error)
            except OSError as error:  # a port that is taken; its text may hold what was sent
                _log.error("A duty of this worker was interrupted (%s).", type(error).__name__)
            await waited(stop, self.lease_poll_s)

    async def watch(self, stop: asyncio.Event) -> None:
        """Look at the sources now and then, and at once when told to, while this worker has the lease."""
        while not stop.is_set():
            lease = await asyncio.to_thread(self.store.hold, LEASE)
            if lease is None:
                await waited(stop, self.lease_poll_s)
                continue
            try:
                async with self.adt() if self.adt is not None else nullcontext():
                    await self._watch(stop, lease)
            finally:
                lease.close()

    async def _watch(self, stop: asyncio.Event, lease: Right) -> None:
        """Look and listen until told to stop, or until the lease is lost with the database."""
        loop = asyncio.get_running_loop()
        heard, next_poll, next_again = -1, 0.0, 0.0
        while not stop.is_set() and await asyncio.to_thread(lease.is_held):
            nudges = await asyncio.to_thread(self.store.nudges)
            is_due = bool(self.poll_s) and loop.time() >= next_poll
            waiting = await asyncio.to_thread(self.store.unheeded, 1)  # what was never tried comes first
            again = loop.time() >= next_again
            if nudges != heard or is_due:
                heard, next_poll = nudges, loop.time() + self.poll_s
                await self.look()
                if loop.time() >= self._ensure_at:
                    await self._ensure()
            elif waiting and (again or not waiting[0].tries):
                next_again = loop.time() + self.again_s if again else next_again
                await self._heed(again)
            await waited(stop, self.listen_s)

    async def look(self) -> None:
        """Ask the sources once, and have everybody visited of whom there is news."""
        self.looks += 1
        for watch in self.watches:
            try:
                await self.sweep.look(watch, self.odd, partial_order(self.order, watch.kind))
            except (ConnectorError, EpicrisisError) as error:
                self.odd[f"failed:{error.code}"] += 1
                _log.warning("The admissions could not be looked at: %s", error)

    async def _heed(self, again: bool) -> None:
        roster = replace(self.sweep.open_roster(), order=partial_order(self.order, self.watches[0].kind))
        await roster.heed_all(again=again)
        self.odd.update(roster.counts)

    async def subscribe(self, stop: asyncio.Event) -> None:
        """See that the server tells us: a Subscription that is off is switched on, a missing one is made."""
        while self.hook is not None and not stop.is_set():
            await self._ensure()
            await waited(stop, SUBSCRIBE_S)

    async def _ensure(self) -> None:
        if self.hook is None:
            return
        self._ensure_at = asyncio.get_running_loop().time() + self.renew_s
        try:
            ensured = await ensure_subscription(self.client, self.hook)
            if ensured.status in ("off", "error"):
                await asyncio.to_thread(self.store.nudge)  # what was missed is found by a look
        except ConnectorError as error:
            _log.warning("The server takes no subscription now (%s); it is asked instead.", error.code)

    async def tidy(self, stop: asyncio.Event) -> None:
        """Delete what is older than is kept."""
        while not stop.is_set():
            before = self.clock() - timedelta(days=self.keep_days)
            await self.sweep.durable.forget_before(before)
            await asyncio.to_thread(self.store.forget_before, before)
            await waited(stop, TIDY_S)


def partial_order(
    order: Callable[[Admission, str], Awaitable[object]], kind: str
) -> Callable[[Admission], Awaitable[None]]:
    """Return what orders a visit of one kind."""

    async def ordered(admission: Admission) -> None:
        await order(admission, kind)

    return ordered
