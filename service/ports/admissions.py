"""Admissions that are watched, what was heard of them, passes, and who works."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from service.ports.held import Right

SHREDDED = "shredded"
"""Reason of an admission whose patient's data key was destroyed: the stay has ended for us."""


class Standing(StrEnum):
    """Where an admission's summary stands."""

    MISSING = "missing"
    """None was made yet."""
    FRESH = "fresh"
    STALE = "stale"
    """Something happened since, and the chart was not read again yet."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """None is made, for the reason given."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Admission:
    """One stay that is watched, and what became of its summary."""

    id: str
    """Random hexadecimal, without patient data: queues and logs name it."""
    server: str
    patient: str = field(repr=False)
    """`Patient/1`"""
    encounter: str = field(repr=False)
    """`Encounter/9`"""
    encounter_class: str = ""
    location: str = field(default="", repr=False)
    """Reference of the current place, or what the source calls it."""
    standing: Standing = Standing.MISSING
    since: datetime | None = None
    """When it came to stand so."""
    reason: str = ""
    """Why it is skipped or failed, in one word: an error code, or why nobody is to be summarised."""
    checked_at: datetime | None = None
    """When the chart was last read and the summary found to hold, or made anew."""
    tried_at: datetime | None = None
    run_id: str = ""
    failures: int = 0
    """How often in a row it failed."""
    epoch: int = 0
    """Part of the workflow id of the next run: raised when a run came to no end that lasts."""

    @property
    def is_open(self) -> bool:
        """Tell whether the stay goes on, as far as was heard."""
        return self.standing is not Standing.ENDED


@dataclass(frozen=True, slots=True)
class Heard:
    """One event that was stored before its source was told so. `content` is patient data."""

    id: int
    content: bytes = field(repr=False)
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """One pass of a schedule: at most one for each local wall time."""

    id: str
    """`morning@2026-11-28T05:30`, or `hand@…` for one that was asked for."""
    schedule: str
    started_at: datetime
    finished_at: datetime | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    """Counts alone."""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker as the others see it."""

    id: str
    beats: int
    """Counts up while it lives: who watches compares counts, never clocks."""
    started_at: datetime
    beat_at: datetime
    version: str


class AdmissionStore(Protocol):
    """Stays that are watched, what was heard of them, and who works. Every method raises StoreError."""

    def find_admission(self, server: str, encounter: str) -> Admission | None:
        """Return the admission of this stay (`Encounter/9`), or None."""
        ...

    def get_admission(self, admission_id: str) -> Admission | None:
        """Return an admission by its id, or None."""
        ...

    def put_admission(self, admission: Admission) -> None:
        """Keep an admission, in place of what was known of it."""
        ...

    def change_admission(self, admission_id: str, change: Callable[[Admission], Admission]) -> Admission:
        """Read, change and keep an admission in one transaction. Raises StoreError where there is none."""
        ...

    def admissions(self, server: str, *, is_open: bool = True) -> Sequence[Admission]:
        """Return every admission of a server, those that ended too with `is_open=False`, oldest first."""
        ...

    def hear(self, events: Sequence[tuple[str, bytes]], source: str = "", cursor: bytes | None = None) -> int:
        """Keep events (key, content) and the next cursor in one transaction; return how many are new.

        An event whose key was heard before is left out; one without a key never is.
        """
        ...

    def unheeded(self, limit: int = 100) -> Sequence[Heard]:
        """Return events that nobody acted on yet, oldest first."""
        ...

    def heed(self, heard_id: int, *, again: bool = False) -> None:
        """Note that an event was acted on; with `again`, that it could not be, and is to be tried again."""
        ...

    def cursor(self, source: str) -> bytes | None:
        """Return where a source stands, or None at its beginning."""
        ...

    def nudge(self) -> None:
        """Ask whoever watches the admissions to look now."""
        ...

    def nudges(self) -> int:
        """Return how often that was asked for, ever."""
        ...

    def begin_tick(self, tick: Tick) -> bool:
        """Keep a tick that begins; False where there was one of this id."""
        ...

    def end_tick(self, tick_id: str, at: datetime, report: Mapping[str, Any]) -> None:
        """Note how a tick ended."""
        ...

    def last_tick(self, schedule: str) -> Tick | None:
        """Return the newest tick of a schedule, or None."""
        ...

    def pause(self, schedule: str, is_paused: bool, by: str, at: datetime) -> None:
        """Pause a schedule, or let it go on."""
        ...

    def paused(self) -> Mapping[str, tuple[str, datetime]]:
        """Return what is paused: schedule → by whom, since when."""
        ...

    def beat(self, worker: WorkerRow) -> None:
        """Keep a sign of life."""
        ...

    def workers(self) -> Sequence[WorkerRow]:
        """Return every worker that gave a sign of life and was not dismissed."""
        ...

    def dismiss(self, worker_id: str) -> None:
        """Forget a worker: it ended, or its work was taken over."""
        ...

    def hold(self, key: str) -> Right | None:
        """Return a right that ends with the process, or None where another has it."""
        ...

    def forget_before(self, before: datetime) -> int:
        """Delete ended admissions, heeded events and ticks that are older, and return how many."""
        ...
