"""One pass over the admissions: look who is there, have each visited, wait, and count what became of them.

A pass that is cut off loses nothing: its visits are in the queue, and the next pass, or another worker, goes
on.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from connectors.admissions.cursor import Cursor, CursorUnreadable
from connectors.admissions.encounter import Ward
from connectors.admissions.polling import Pace, poll_encounters
from connectors.admissions.stays import Phase
from connectors.errors import RequestRejected
from connectors.fhir.client import FhirClient
from connectors.http import metered
from service.admissions.form import dump_events
from service.admissions.roster import ACTOR, Roster
from service.durable import Durable
from service.filing.desk import Desk
from service.filing.withdraw import expire
from service.ports import Admission, AdmissionStore, Clock, Tick
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
    pace: Pace = field(default_factory=Pace)
    polls: bool = True
    """False where the server offers no Encounter search: then other sources must tell who is admitted."""

    @property
    def source(self) -> str:
        """Name where its polling stands: another ward is another cursor."""
        ward = msgspec.json.encode(self.ward, order="sorted")
        return f"poll-{hashlib.sha256(ward).hexdigest()[:16]}"


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

    client: FhirClient
    store: AdmissionStore
    desk: Desk
    screen: Screen
    durable: Durable
    clock: Clock
    open_roster: Callable[[], Roster]
    tell: Tell = lambda what, done, total: None

    async def run(self, watch: Watch, tick_id: str) -> Report | None:
        """Make one pass, and return what it came to; None where this tick was begun before.

        Raises ConnectorError where the server cannot be asked who is admitted, and StoreError.
        """
        started = time.monotonic()
        tick = Tick(tick_id, watch.name, self.clock())
        if not await asyncio.to_thread(self.store.begin_tick, tick):
            return None
        odd: Counter[str] = Counter()
        with metered() as meter:
            going_on = await self.look(watch, odd)
            withdrawn = await self._withdraw_lapsed(going_on)
            await self.screen.renew()
            admissions = await self._watched(watch, going_on)
        outcomes = await self._visit(admissions, watch, tick_id)
        report = _report(outcomes, meter.requests, time.monotonic() - started, odd, withdrawn)
        await asyncio.to_thread(self.store.end_tick, tick_id, self.clock(), report.shape())
        return report

    async def look(self, watch: Watch, odd: Counter[str]) -> frozenset[str]:
        """Ask who is admitted, act on the news, and return the stays that go on as the server says.

        Raises ConnectorError where the server cannot be asked at all, and StoreError.
        """
        self.tell("admissions", 0, 0)
        stays: frozenset[str] = frozenset()
        if watch.polls:
            stays = await self._poll(watch, odd)
        roster = self.open_roster()
        await roster.heed_all()
        odd.update(roster.counts)
        return stays

    async def _poll(self, watch: Watch, odd: Counter[str]) -> frozenset[str]:
        try:
            batch = await poll_encounters(
                self.client, watch.ward, await self._cursor(watch), now=self.clock(), pace=watch.pace
            )
        except RequestRejected:
            odd["no_encounter_search"] += 1
            return frozenset()
        cursor = batch.cursor
        events = dump_events(batch.events)
        await asyncio.to_thread(self.store.hear, events, watch.source, cursor.dump())
        odd.update(batch.odd)
        if not batch.is_complete:
            odd["look_incomplete"] += 1
        return frozenset(stay.id for stay in cursor.stays if stay.phase is Phase.OPEN)

    async def _cursor(self, watch: Watch) -> Cursor:
        kept = await asyncio.to_thread(self.store.cursor, watch.source)
        try:
            return Cursor() if kept is None else Cursor.load(kept)
        except CursorUnreadable:
            return Cursor()

    async def _withdraw_lapsed(self, going_on: frozenset[str]) -> int:
        lapsed = await expire(self.desk, self.clock(), actor=ACTOR, going_on=going_on)
        return sum(one.result == "withdrawn" for one in lapsed)

    async def _watched(self, watch: Watch, going_on: frozenset[str]) -> list[Admission]:
        """Return who is to be visited: of a part of the house, only the stays that its search brings."""
        found = await asyncio.to_thread(self.store.admissions, self.desk.ehr.base_url)
        is_part = bool(watch.ward.locations or watch.ward.providers or watch.ward.services)
        return [one for one in found if not is_part or one.encounter in going_on]

    async def _visit(
        self, admissions: Sequence[Admission], watch: Watch, tick_id: str
    ) -> list[Mapping[str, Any]]:
        visits = [f"{tick_id}/{one.id}" for one in admissions]
        for number, (visit, one) in enumerate(zip(visits, admissions, strict=True), 1):
            await self.durable.order(visit, one.id, watch.kind)
            self.tell("ordered", number, len(visits))
        outcomes: list[Mapping[str, Any]] = []
        for number, visit in enumerate(visits, 1):
            outcomes.append(await self.durable.outcome(visit))
            self.tell("visited", number, len(visits))
        return outcomes


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
