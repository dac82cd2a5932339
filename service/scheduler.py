"""When admissions are summarised: schedules from a file, each tick once. Only here is APScheduler known.

APScheduler only wakes us. Which tick is due is worked out from the last one that is stored: so what was
missed while nothing ran is noticed, an hour that comes twice in autumn runs once, and a clock that jumps back
repeats nothing. A tick's id is its schedule and its local wall time.
"""

from __future__ import annotations

import asyncio
import logging
import re
import tomllib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger

from connectors.admissions.encounter import Ward
from connectors.errors import ConnectorError
from service.errors import EpicrisisError, SettingsError, StoreError
from service.pause import waited
from service.ports import LASTING, AdmissionStore, Clock, Tick

MOST_MISSED = 10_000
"""Ticks that are looked through at a start; a schedule by the minute reaches back a week."""
LEASE = f"{LASTING}scheduler"
LEASE_POLL_S = 5.0
_NUMBERED_WEEKDAY = re.compile(r"\d")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)
_CRON_FIELDS = 5
_ANY = Ward()
_log = logging.getLogger(__name__)


class _Given(msgspec.Struct, forbid_unknown_fields=True):
    """One table of the file, as it is written there."""

    cron: str
    time_zone: str = ""
    kind: str = "admission"
    jitter_s: int = 0
    misfire: Literal["latest", "skip"] = "latest"
    grace_s: int = 3600
    polls: bool = True
    statuses: tuple[str, ...] = _ANY.statuses
    classes: tuple[str, ...] = _ANY.classes
    locations: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule: when, and whom."""

    name: str
    cron: str
    zone: ZoneInfo
    kind: str = "admission"
    ward: Ward = field(default_factory=Ward)
    polls: bool = True
    jitter_s: int = 0
    """A tick begins up to so many seconds late, so that hospitals do not all ask at once."""
    misfire: Literal["latest", "skip"] = "latest"
    """What becomes of ticks that were missed: the latest one is made up for, or none."""
    grace_s: int = 3600
    """With `skip`: how late a tick may still begin."""

    def trigger(self, *, with_jitter: bool = False) -> Any:
        """Return APScheduler's trigger."""
        trigger = CronTrigger.from_crontab(self.cron, timezone=self.zone)
        trigger.jitter = self.jitter_s or None if with_jitter else None
        return trigger

    def tick_id(self, at: datetime) -> str:
        """Return the id of the tick at an instant: wall time without an offset, so 02:30 is one tick."""
        return f"{self.name}@{self._wall(at)}"

    def times(self, after: datetime) -> Iterator[datetime]:
        """Yield the instants of this schedule after an aware instant, for ever; wall time only goes forward.

        APScheduler's trigger goes in a circle in the hour that comes twice: it is asked from later then.
        """
        trigger, at, wall = self.trigger(), after, self._wall(after)
        while True:
            following = trigger.get_next_fire_time(None, at + timedelta(seconds=1))
            if following is None:
                return
            following = following.astimezone(UTC)
            if following <= at or self._wall(following) <= wall:
                at += timedelta(minutes=1)
                continue
            yield following
            at, wall = following, self._wall(following)

    def _wall(self, at: datetime) -> str:
        return f"{at.astimezone(self.zone):%Y-%m-%dT%H:%M}"


def read_schedules(path: Path, default_zone: str = "") -> dict[str, Schedule]:
    """Read a schedules file. Raises SettingsError that names what is wrong with which schedule."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise SettingsError("The schedules file cannot be read.", "Set EPICRISIS_SCHEDULES.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"The schedules file is not TOML: {error}.", "See ops/schedules.toml.") from None
    return {name: _schedule(name, table, default_zone) for name, table in tables.items()}


def _schedule(name: str, table: Any, default_zone: str) -> Schedule:
    def wrong(why: str) -> SettingsError:
        return SettingsError(f"The schedule {name!r} cannot be used: {why}.", "See ops/schedules.toml.")

    if not _NAME.fullmatch(name):
        raise wrong("its name is not of small letters, digits, - and _")
    try:
        given = msgspec.convert(table, _Given)
    except msgspec.ValidationError as error:
        raise wrong(str(error)) from None
    fields = given.cron.split()
    if len(fields) != _CRON_FIELDS:
        raise wrong("cron has five fields: minute hour day month weekday")
    if _NUMBERED_WEEKDAY.search(fields[-1]):
        raise wrong("a weekday is named (mon, tue, …): its number is not the same everywhere")
    if given.jitter_s < 0 or given.grace_s < 0:
        raise wrong("seconds are not negative")
    try:
        zone = ZoneInfo(given.time_zone or default_zone or "UTC")
        CronTrigger.from_crontab(given.cron, timezone=zone)
    except (ValueError, KeyError, OSError) as error:
        raise wrong(str(error)) from None
    ward = Ward(given.statuses, given.classes, given.locations, given.providers, given.services)
    return Schedule(
        name, given.cron, zone, given.kind, ward, given.polls, given.jitter_s, given.misfire, given.grace_s
    )


def due_tick(schedule: Schedule, last: datetime, now: datetime) -> datetime | None:
    """Return the tick that is due now: the latest since the last one, if it may still begin."""
    latest = None
    for number, at in enumerate(schedule.times(last)):
        if at > now or number >= MOST_MISSED:
            break
        latest = at
    if latest is None:
        return None
    is_late = (now - latest).total_seconds() > schedule.grace_s + schedule.jitter_s
    return None if schedule.misfire == "skip" and is_late else latest


Run = Callable[[Schedule, str], Awaitable[None]]
"""Makes one pass of a schedule under a tick's id; called again for a tick that was cut off."""


@dataclass
class Scheduler:
    """Runs every schedule, while this process holds the lease; another waits to take over."""

    schedules: Mapping[str, Schedule]
    store: AdmissionStore
    clock: Clock
    run: Run
    lease_poll_s: float = LEASE_POLL_S
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _began: dict[str, datetime] = field(default_factory=dict)

    async def serve(self, stop: asyncio.Event) -> None:
        """Wait for the lease, then run what is due until `stop` is set. Raises StoreError."""
        lease = None
        while lease is None:
            lease = await asyncio.to_thread(self.store.hold, LEASE)
            if lease is None and await waited(stop, self.lease_poll_s):
                return
        alarm = AsyncIOScheduler(timezone=UTC)
        try:
            for schedule in self.schedules.values():
                alarm.add_job(
                    self.wake, schedule.trigger(with_jitter=True), [schedule], id=schedule.name,
                    misfire_grace_time=None, coalesce=True, max_instances=1,
                )  # fmt: skip
            alarm.start()
            while not stop.is_set():
                if not await asyncio.to_thread(lease.is_held):
                    raise StoreError("The scheduler's lease was lost with the database.")
                for schedule in self.schedules.values():
                    await self.wake(schedule)
                await waited(stop, self.lease_poll_s)
        finally:
            alarm.shutdown(wait=False)
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)
            lease.close()

    async def wake(self, schedule: Schedule) -> None:
        """Begin what is due of a schedule, unless it is paused or still at work."""
        task = self._running.get(schedule.name)
        if task is not None and not task.done():
            return
        try:
            tick_id = await asyncio.to_thread(self._due, schedule)
        except EpicrisisError as error:
            _log.error("The schedule %s could not look for its tick: %s", schedule.name, error)
            return
        if tick_id:
            self._running[schedule.name] = asyncio.create_task(self._run(schedule, tick_id))

    def _due(self, schedule: Schedule) -> str:
        """Return the id of the tick to run: one that was begun and is not done, or the latest that is due.

        Begun is a tick that was cut off, and one that someone asks for on the ward's page.
        """
        last = self.store.last_tick(schedule.name)
        if last is not None and last.finished_at is None:
            return last.id
        if schedule.name in self.store.paused():
            return ""
        now = self.clock()
        at = due_tick(schedule, self._since(schedule, last, now), now)
        return schedule.tick_id(at) if at is not None else ""

    def _since(self, schedule: Schedule, last: Tick | None, now: datetime) -> datetime:
        """Return after when ticks are looked for: the last one, else our start.

        A last tick in the future is of a clock that was ahead: it is not waited for.
        """
        began = self._began[schedule.name] = min(self._began.get(schedule.name, now), now)
        return last.started_at if last is not None and last.started_at <= now else began

    async def _run(self, schedule: Schedule, tick_id: str) -> None:
        try:
            await self.run(schedule, tick_id)
        except (ConnectorError, EpicrisisError) as error:  # the tick stays open, and is gone on with
            _log.error("The tick %s failed: %s", tick_id, error)


def next_tick(schedule: Schedule, now: datetime) -> datetime | None:
    """Return the next instant of a schedule, or None where there is none."""
    return next(schedule.times(now), None)


def hand_tick(name: str, now: datetime) -> str:
    """Return the id of a pass that someone asked for now."""
    return f"{name}@{now.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}+hand"


def wall_of(tick: Tick) -> str:
    """Return the wall time of a tick's id."""
    return tick.id.partition("@")[2]
