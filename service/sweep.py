"""One pass over the admissions: look who is there, have each visited, wait, and count what became of them.

A pass that is cut off loses nothing: its visits are in the queue, and the next pass, or another worker, goes
on.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connectors.admissions.encounter import Ward
from connectors.http import metered
from service.admissions.ears import Ears
from service.admissions.roster import ACTOR, Order, Roster
from service.durable import Durable
from service.filing.desk import Desk
from service.filing.withdraw import expire
from service.ports import LASTING, Admission, AdmissionStore, Clock, Tick
from service.visits import Screen

Tell = Callable[[str, int, int], None]
"""`(what, done, total)`: safe to show on a terminal; it never names a patient."""
_MADE = frozenset({"filed", "generated"})


@dataclass(frozen=True, slots=True)
class Watch:
    """What one schedule looks after."""

    name: str
    kind: str = "admission"
    """The template set."""
    ward: Ward = field(default_factory=Ward)
    polls: bool = True
    """False where the server offers no Encounter search: then other sources must tell who is admitted."""
    group: str = ""
    """`Group/1`: its admissions are taken from a Bulk Data export first."""
    listed: Path | None = None
    """A list by hand: then only those on it are visited, and no other source is asked."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a pass came to. Every admission is a run, unchanged, skipped or failed."""

    admissions: int = 0
    runs: int = 0
    unchanged: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    failed: int = 0
    engine_calls: int = 0
    fhir_requests: int = 0
    seconds: float = 0.0
    failures: Mapping[str, int] = field(default_factory=dict)
    """Error code → how many."""
    odd: Mapping[str, int] = field(default_factory=dict)
    """What was odd about the sources, by reason."""
    withdrawn: int = 0
    """Drafts that had lapsed."""

    def shape(self) -> dict[str, Any]:
        """Return the JSON document that the command line gives."""
        return {
            "admissions": self.admissions,
            "runs": self.runs,
            "unchanged": self.unchanged,
            "skipped": [{"reason": reason, "count": n} for reason, n in sorted(self.skipped.items())],
            "failed": self.failed,
            "engine_calls": self.engine_calls,
            "fhir_requests": self.fhir_requests,
            "seconds": round(self.seconds, 3),
            "failures": [{"code": code, "count": n} for code, n in sorted(self.failures.items())],
            "odd": dict(sorted(self.odd.items())),
            "withdrawn": self.withdrawn,
        }


@dataclass
class Sweep:
    """Passes over the admissions of one server."""

    store: AdmissionStore
    desk: Desk
    screen: Screen
    durable: Durable
    clock: Clock
    open_ears: Callable[[], Ears]
    open_roster: Callable[[], Roster]
    tell: Tell = lambda what, done, total: None

    async def run(self, watch: Watch, tick_id: str) -> Report | None:
        """Make one pass, or go on with one that was cut off.

        None where this tick was finished before, or another process is at it. Raises ConnectorError where the
        server cannot be asked who is admitted, and StoreError.
        """
        lock = await asyncio.to_thread(self.store.hold, f"{LASTING}tick {tick_id}")
        if lock is None:
            return None
        try:
            tick = Tick(tick_id, watch.name, self.clock())
            return await self._run(watch, tick_id) if await asyncio.to_thread(self._begin, tick) else None
        finally:
            lock.close()

    async def _run(self, watch: Watch, tick_id: str) -> Report:
        started = time.monotonic()
        odd: Counter[str] = Counter()
        with metered() as meter:
            is_meant = await self.look(watch, odd)
            withdrawn = await self._withdraw_lapsed(await self.screen.renew())
        admissions = await asyncio.to_thread(self.store.admissions, self.desk.ehr.base_url)
        outcomes = await self._visit([one for one in admissions if is_meant(one)], watch, tick_id)
        report = _report(outcomes, meter.requests, time.monotonic() - started, odd, withdrawn)
        await asyncio.to_thread(self.store.end_tick, tick_id, self.clock(), report.shape())
        return report

    def _begin(self, tick: Tick) -> bool:
        if self.store.begin_tick(tick):
            return True
        last = self.store.last_tick(tick.schedule)
        return last is not None and last.id == tick.id and last.finished_at is None

    async def look(
        self, watch: Watch, odd: Counter[str], order: Order | None = None
    ) -> Callable[[Admission], bool]:
        """Ask who is admitted, act on the news, and return who is to be visited.

        `order` has everybody visited at once of whom there is news; without it they wait for the pass.
        Raises ConnectorError where the server cannot be asked at all, SettingsError and StoreError.
        """
        self.tell("admissions", 0, 0)
        ears = self.open_ears()
        going_on: frozenset[str] = frozenset()
        names: frozenset[str] = frozenset()
        if watch.listed is not None:
            names = await ears.read_list(watch.listed)
        else:
            if watch.group:
                self.tell("waiting for the export", 0, 0)
                await ears.read_group(watch.group, watch.ward)
            going_on = await ears.poll(watch.ward) if watch.polls else frozenset()
            await ears.read_census()
        roster = self.open_roster()
        if order is not None:
            roster.order = order
        await roster.heed_all()
        odd.update(ears.odd + roster.counts)
        if watch.listed is not None:
            return lambda one: bool(names & {one.patient, one.encounter})
        ward = watch.ward
        is_part = bool(ward.locations or ward.providers or ward.services)
        return lambda one: not is_part or one.encounter in going_on or _is_at(one, ward)

    async def _withdraw_lapsed(self, going_on: frozenset[str]) -> int:
        lapsed = await expire(self.desk, self.clock(), actor=ACTOR, going_on=going_on)
        return sum(one.result == "withdrawn" for one in lapsed)

    async def _visit(
        self, admissions: Sequence[Admission], watch: Watch, tick_id: str
    ) -> list[Mapping[str, Any]]:
        visits = []
        for one in admissions:
            visits.append(await self.durable.order(tick_id, one.id, watch.kind))
            self.tell("ordered", len(visits), len(admissions))
        outcomes: list[Mapping[str, Any]] = []
        for number, visit in enumerate(visits, 1):
            outcomes.append(await self.durable.outcome(visit))
            self.tell("visited", number, len(visits))
        return outcomes


def _is_at(admission: Admission, ward: Ward) -> bool:
    """Tell whether a source other than polling says that a stay is at one of a ward's places.

    HL7 v2 names a place by its point of care, room and bed.
    """
    return bool({admission.location, admission.location.partition("^")[0]} & set(ward.locations) - {""})


def _report(
    outcomes: Sequence[Mapping[str, Any]], requests: int, seconds: float, odd: Counter[str], withdrawn: int
) -> Report:
    made = [one for one in outcomes if one.get("state") in _MADE and not one.get("is_shared")]
    skipped = Counter(str(one.get("reason")) for one in outcomes if one.get("state") == "skipped")
    failures = Counter(str(one.get("reason")) for one in outcomes if one.get("state") == "failed")
    return Report(
        admissions=len(outcomes),
        runs=len(made),
        unchanged=len(outcomes) - len(made) - skipped.total() - failures.total(),
        skipped=skipped,
        failed=failures.total(),
        engine_calls=sum(one.get("engine_calls", 0) for one in outcomes),
        fhir_requests=requests + sum(one.get("requests", 0) for one in outcomes),
        seconds=seconds,
        failures=failures,
        odd=odd,
        withdrawn=withdrawn,
    )
