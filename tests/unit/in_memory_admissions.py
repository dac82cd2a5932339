"""An AdmissionStore that keeps everything in lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from fixtures.facts import NOW
from service.errors import StoreError
from service.ports import Admission, Clock, Heard, Tick, WorkerRow
from tests.unit.filing.in_memory import InMemoryDocuments, _Held

MOST_TRIES = 20


class InMemoryAdmissions:
    """Admissions, events, ticks and workers; `broken` makes every call fail as a lost database would."""

    def __init__(self, clock: Clock = lambda: NOW) -> None:
        self.stays: dict[str, Admission] = {}
        self.events: list[tuple[str, Heard, bool, datetime]] = []
        self.cursors: dict[str, bytes] = {}
        self.ticks: dict[str, Tick] = {}
        self.resting: dict[str, tuple[str, datetime]] = {}
        self.rows: dict[str, WorkerRow] = {}
        self.nudged = 0
        self.locks = InMemoryDocuments()
        self.broken = False
        self.clock = clock

    def _check(self) -> None:
        if self.broken:
            raise StoreError("The database cannot be used.")

    def find_admission(self, server: str, encounter: str) -> Admission | None:
        self._check()
        found = (one for one in self.stays.values() if (one.server, one.encounter) == (server, encounter))
        return next(found, None)

    def get_admission(self, admission_id: str) -> Admission | None:
        self._check()
        return self.stays.get(admission_id)

    def put_admission(self, admission: Admission) -> None:
        self._check()
        same = self.find_admission(admission.server, admission.encounter)
        if same is not None and same.id != admission.id:
            raise StoreError("This stay is kept under another id.")
        self.stays[admission.id] = admission

    def change_admission(self, admission_id: str, change: Callable[[Admission], Admission]) -> Admission:
        before = self.get_admission(admission_id)
        if before is None:
            raise StoreError("This admission is not known.")
        self.put_admission(change(before))
        return self.stays[admission_id]

    def admissions(self, server: str, *, is_open: bool = True) -> Sequence[Admission]:
        self._check()
        return [one for one in self.stays.values() if one.server == server and (one.is_open or not is_open)]

    def hear(self, events: Sequence[tuple[str, bytes]], source: str = "", cursor: bytes | None = None) -> int:
        self._check()
        new = 0
        for key, content in events:
            if not key or key not in {one[0] for one in self.events}:
                new += 1
                self.events.append((key, Heard(len(self.events) + 1, content), False, self.clock()))
        if source and cursor is not None:
            self.cursors[source] = cursor
        return new

    def unheeded(self, limit: int = 100) -> Sequence[Heard]:
        self._check()
        waiting = [heard for _, heard, is_heeded, _ in self.events if not is_heeded]
        return sorted(waiting, key=lambda heard: (heard.tries, heard.id))[:limit]

    def heed(self, heard_id: int, *, again: bool = False) -> None:
        self._check()
        for index, (key, heard, _, at) in enumerate(self.events):
            if heard.id == heard_id:
                tried = replace(heard, tries=heard.tries + 1)
                self.events[index] = (key, tried, not again or tried.tries >= MOST_TRIES, at)

    def cursor(self, source: str) -> bytes | None:
        self._check()
        return self.cursors.get(source)

    def nudge(self) -> None:
        self._check()
        self.nudged += 1

    def nudges(self) -> int:
        self._check()
        return self.nudged

    def begin_tick(self, tick: Tick) -> bool:
        self._check()
        if tick.id in self.ticks:
            return False
        self.ticks[tick.id] = tick
        return True

    def end_tick(self, tick_id: str, at: datetime, report: Mapping[str, Any]) -> None:
        self._check()
        if tick_id in self.ticks:
            self.ticks[tick_id] = replace(self.ticks[tick_id], finished_at=at, report=report)

    def last_tick(self, schedule: str) -> Tick | None:
        self._check()
        mine = [tick for tick in self.ticks.values() if tick.schedule == schedule]
        return max(mine, key=lambda tick: (tick.started_at, tick.id), default=None)

    def pause(self, schedule: str, is_paused: bool, by: str, at: datetime) -> None:
        self._check()
        if is_paused:
            self.resting[schedule] = (by, at)
        else:
            self.resting.pop(schedule, None)

    def paused(self) -> Mapping[str, tuple[str, datetime]]:
        self._check()
        return dict(self.resting)

    def beat(self, worker: WorkerRow) -> None:
        self._check()
        self.rows[worker.id] = worker

    def workers(self) -> Sequence[WorkerRow]:
        self._check()
        return [self.rows[name] for name in sorted(self.rows)]

    def dismiss(self, worker_id: str) -> None:
        self._check()
        self.rows.pop(worker_id, None)

    def hold(self, key: str) -> _Held | None:
        self._check()
        return self.locks.hold(key)

    def forget_before(self, before: datetime) -> int:
        self._check()
        ended = [
            one.id for one in self.stays.values() if not one.is_open and one.since and one.since < before
        ]
        for one in ended:
            del self.stays[one]
        kept = [event for event in self.events if not (event[2] and event[3] < before)]
        gone = len(self.events) - len(kept)
        self.events = kept
        newest = {tick.schedule: self.last_tick(tick.schedule) for tick in self.ticks.values()}
        old = [t.id for t in self.ticks.values() if t.started_at < before and newest[t.schedule] != t]
        for tick_id in old:
            del self.ticks[tick_id]
        return len(ended) + gone + len(old)
