"""The ward's page: whose summary is fresh, stale, failed or missing, since when and why; and the schedules.

What is wrong stands first. A schedule is paused, resumed or run at once by a form, which is shown to whoever
may send it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from fastapi import FastAPI, HTTPException, Path, Request
from fastapi.responses import RedirectResponse, Response

from service.admissions.words import sentence_for
from service.api.gate import may, visitor_of
from service.api.render import page
from service.api.review.frame import has_console
from service.ports import (
    Action,
    Admission,
    AdmissionStore,
    AuditEntry,
    AuditLog,
    Clock,
    RunId,
    Standing,
    Tick,
)
from service.writeback.moment import show_instant

PATH: Final = "/ward"
ORDER: Final = (Standing.FAILED, Standing.MISSING, Standing.STALE, Standing.SKIPPED, Standing.FRESH)
WORDS: Final = {
    Standing.FAILED: "Failed",
    Standing.MISSING: "Not made yet",
    Standing.STALE: "Out of date",
    Standing.SKIPPED: "Left out",
    Standing.FRESH: "Up to date",
}
CHANGE: Final = PATH + "/schedules/{name}/{act}"


@dataclass(frozen=True, slots=True)
class Timed:
    """One schedule as it is configured."""

    name: str
    cron: str
    zone: str
    following: datetime | None


@dataclass(frozen=True, slots=True)
class ShownAdmission:
    """One row: who, how the summary stands, since when and why."""

    name: str
    reference: str
    place: str
    state: str
    kind: str
    since: str
    checked: str
    why: str
    run_id: str


@dataclass(frozen=True, slots=True)
class ShownSchedule:
    """One schedule: when it comes, and what its last pass came to."""

    name: str
    cron: str
    following: str
    paused: str
    last: str


@dataclass(frozen=True, slots=True)
class Ward:
    """What the page needs."""

    store: AdmissionStore
    server: str
    names: Callable[[Sequence[RunId]], Mapping[RunId, str]]
    """The patients' names, as the runs have them."""
    schedules: Callable[[], Sequence[Timed]]
    hand_tick: Callable[[str, datetime], str]
    """The id of a pass of a schedule that is asked for now."""
    clock: Clock
    version: str
    audit: AuditLog

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(PATH, self.show, methods=["GET", "HEAD"], response_model=None)
        app.add_api_route(CHANGE, self.change, methods=["POST"], response_model=None)

    def show(self, request: Request) -> Response:
        """Show who is admitted, what is wrong first."""
        admissions = self.store.admissions(self.server)
        names = self.names([RunId(one.run_id) for one in admissions if one.run_id])
        rows = sorted(admissions, key=lambda one: (ORDER.index(one.standing), one.encounter))
        counts = Counter(one.standing for one in admissions)
        return page(
            "ward.html",
            rows=[show_admission(one, names.get(RunId(one.run_id), "")) for one in rows],
            tally=[(WORDS[one].lower(), counts[one]) for one in ORDER if counts[one]],
            schedules=[self._show_schedule(one) for one in self.schedules()],
            has_console=has_console(request),
            may_change=may(request, "POST", CHANGE),
            now=show_instant(self.clock()),
            version=self.version,
        )

    def change(
        self,
        request: Request,
        name: Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")],
        act: Annotated[str, Path(pattern="^(pause|resume|run)$")],
    ) -> Response:
        """Pause or resume a schedule, or have its pass made now. Raises 404, and StoreError."""
        if name not in {one.name for one in self.schedules()}:
            raise HTTPException(404)
        now = self.clock()
        target = f"schedule:{name}:{act}"
        self.audit.append(AuditEntry(Action.CONFIGURE, visitor_of(request).actor, "", now, target=target))
        if act == "run":
            self.store.begin_tick(Tick(self.hand_tick(name, now), name, now))
        else:
            self.store.pause(name, act == "pause", visitor_of(request).actor, now)
        return RedirectResponse(PATH, status_code=303)

    def _show_schedule(self, timed: Timed) -> ShownSchedule:
        by, since = self.store.paused().get(timed.name, ("", None))
        last = self.store.last_tick(timed.name)
        return ShownSchedule(
            timed.name,
            f"{timed.cron} ({timed.zone})",
            show_instant(timed.following) if timed.following else "never",
            f"Paused by {by} since {show_instant(since)}" if since else "",
            _show_tick(last) if last else "It has not run yet.",
        )


def show_admission(admission: Admission, name: str) -> ShownAdmission:
    """Return one row. Without a summary the patient's name was not read."""
    return ShownAdmission(
        name or "Name not read yet",
        admission.encounter,
        admission.location,
        WORDS[admission.standing],
        admission.standing.value,
        show_instant(admission.since) if admission.since else "",
        show_instant(admission.checked_at) if admission.checked_at else "",
        sentence_for(admission.reason),
        admission.run_id,
    )


def _show_tick(tick: Tick) -> str:
    if tick.finished_at is None:
        return f"At work since {show_instant(tick.started_at)}."
    report = tick.report
    counts = ", ".join(
        f"{report.get(key, 0)} {word}"
        for key, word in (("runs", "filed anew"), ("unchanged", "unchanged"), ("failed", "failed"))
    )
    return f"Last pass ended {show_instant(tick.finished_at)}: {counts}."
