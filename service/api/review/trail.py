"""The auditor's pages: the trail and its state, a document followed to every input, and back from a source.

Auditors see who did what to which record, and from what it was made: references, versions, digests, counts.
No page shows a word of a summary. What is asked for is sent in a form, so that no address names a patient.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import Response

from service.api.app import AuditFailedError
from service.api.form import read_form
from service.api.gate import visitor_of
from service.api.review.frame import review_page
from service.audit.chain import Anchor
from service.errors import SettingsError, ShreddedError
from service.identity.visitor import Visitor
from service.ports import Action, AuditEntry, AuditLog, Clock, FiledDocument, RunId, StoredRun, Wanted
from service.ports.attesting import Attested, Glass, Proposal
from service.ports.reviews import Review
from service.ports.trail import Ledger, Recorded, Sought
from service.recall import parse_wanted
from service.writeback.moment import show_instant

LIST: Final = "/review/trail"
RUN: Final = "/review/trail/runs/{run_id}"
SOURCES: Final = "/review/trail/sources"
ROWS: Final = 50
BACK: Final = timedelta(days=90)
"""How far back the top of the page looks."""
AHEAD: Final = timedelta(minutes=5)
"""How far the clocks of processes that share a database may differ."""
MOST_ACTS: Final = 500
"""Acts on one run that its page shows."""
MOST_SHOWN: Final = 200
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ACTOR = re.compile(r"[A-Za-z0-9:._-]{1,200}")
_PATIENT = re.compile(r"(?:Patient/)?([A-Za-z0-9.-]{1,64})")
_FIELDS: Final = ("actor", "action", "patient", "run", "since", "until")


class Runs(Protocol):
    """What of the store of runs and documents these pages ask."""

    def get(self, run_id: RunId) -> StoredRun | None:
        """Return one run whole, or None."""
        ...

    def find_runs(self, wanted: Wanted) -> Sequence[RunId]:
        """Return the runs that are wanted, newest first."""
        ...

    def find_documents(self, wanted: Wanted) -> Sequence[FiledDocument]:
        """Return the documents of the runs that are wanted, oldest first."""
        ...

    def documents_of(self, patient: str) -> Sequence[FiledDocument]:
        """Return a patient's documents, newest first."""
        ...


class Attestations(Protocol):
    """What of the clinicians' store these pages ask."""

    def attested_of(self, run_id: RunId) -> Attested | None:
        """Return the attestation of a run, or None."""
        ...

    def attestations(self, since: datetime, until: datetime) -> Sequence[Attested]:
        """Return the attestations of a span."""
        ...

    def glasses(self, since: datetime, until: datetime) -> Sequence[Glass]:
        """Return what was opened in a span although it was withheld, newest first."""
        ...

    def proposals(self, limit: int = 50) -> Sequence[Proposal]:
        """Return recalls of two people, newest first."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What an auditor typed, as it stands in the form again, and what it means."""

    typed: Mapping[str, str]
    sought: Sought
    problem: str = ""
    before: int = 0

    @property
    def is_empty(self) -> bool:
        """Tell whether everything is asked for."""
        return not any(self.typed.values())


@dataclass(frozen=True, slots=True)
class State:
    """How the chain stands, in words, and whether somebody must look."""

    lines: tuple[str, ...]
    is_alarm: bool


@dataclass(frozen=True)
class TrailRoom:
    """The routes, over what they need."""

    ledger: Ledger
    anchor: Callable[[], Anchor | None]
    runs: Runs
    attestations: Attestations
    reviews_of: Callable[[RunId], Sequence[Review]]
    audit: AuditLog
    clock: Clock

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(LIST, self.show, methods=["GET", "HEAD"], response_model=None)
        app.add_api_route(LIST, self.search, methods=["POST"], response_model=None)
        app.add_api_route(SOURCES, self.ask_source, methods=["GET", "HEAD"], response_model=None)
        app.add_api_route(SOURCES, self.find_source, methods=["POST"], response_model=None)
        app.add_api_route(RUN, self.follow, methods=["GET", "HEAD"], response_model=None)

    async def show(self, request: Request) -> Response:
        """Show the newest entries of all."""
        return await asyncio.to_thread(self._listed, request, _read_question({}))

    async def search(self, request: Request) -> Response:
        """Show the entries that are asked for."""
        return await asyncio.to_thread(self._listed, request, _read_question(await read_form(request)))

    async def ask_source(self, request: Request) -> Response:
        """Show the form that asks for a source."""
        return review_page(request, "trail_sources.html", source="", problem="", found=None)

    async def find_source(self, request: Request) -> Response:
        """Show every summary and every document that rests on a source."""
        typed = (await read_form(request)).get("source", "").strip()[:200]
        return await asyncio.to_thread(self._of_source, request, typed)

    def follow(self, request: Request, run_id: str) -> Response:
        """Show what a run was made from and by, and every act on it."""
        if not _ID.fullmatch(run_id):
            raise HTTPException(400)
        acts = self.ledger.newest(Sought(run_id=run_id), MOST_ACTS)
        try:
            run, gone = self.runs.get(RunId(run_id)), ""
        except ShreddedError as error:
            run, gone = None, error.message
        if run is None and not gone and not acts:
            raise HTTPException(404)
        self._note(request, "trail:run", patient=run.inputs.patient if run else "", run_id=run_id)
        return review_page(
            request, "trail_run.html", run_id=run_id, gone=gone, acts=acts, show=show_instant,
            most=MOST_ACTS, made=_made(run) if run else None, documents=self._documents(run),
            attested=self.attestations.attested_of(RunId(run_id)),
            reviews=self.reviews_of(RunId(run_id)),
        )  # fmt: skip

    def _listed(self, request: Request, question: Question) -> Response:
        rows: Sequence[Recorded] = ()
        if not question.problem:
            rows = self.ledger.newest(question.sought, ROWS + 1, question.before)
        # Of whom nothing is on record nothing is to be begun: an entry about a patient makes them a key.
        self._note(request, "trail:list", patient=question.sought.patient if rows else "")
        now = self.clock()
        shown = rows[:ROWS]
        return review_page(
            request, "trail.html", 400 if question.problem else 200, rows=shown, question=question,
            older=shown[-1].number if len(rows) > ROWS else 0, actions=[one.value for one in Action],
            state=self._state(), show=show_instant, days=BACK.days,
            glasses=self.attestations.glasses(now - BACK, now + AHEAD),
            hasty=[one for one in self.attestations.attestations(now - BACK, now + AHEAD) if one.is_hasty],
            recalls=[one for one in self.attestations.proposals() if one.at >= now - BACK],
        )  # fmt: skip

    def _of_source(self, request: Request, typed: str) -> Response:
        try:
            wanted = parse_wanted(source=typed or "-")
        except SettingsError as error:
            return review_page(
                request, "trail_sources.html", 400, source=typed, problem=error.message, found=None
            )
        runs, documents = self.runs.find_runs(wanted), self.runs.find_documents(wanted)
        self._note(request, "trail:source", counts={"runs": len(runs), "documents": len(documents)})
        by_run: dict[str, list[FiledDocument]] = {}
        for one in documents:
            by_run.setdefault(one.run_id, []).append(one)
        return review_page(
            request, "trail_sources.html", source=typed, problem="", show=show_instant,
            found=[(run_id, by_run.get(run_id, [])) for run_id in runs[:MOST_SHOWN]],
            total=len(runs), documents=len(documents), most=MOST_SHOWN,
        )  # fmt: skip

    def _documents(self, run: StoredRun | None) -> Sequence[FiledDocument]:
        if run is None:
            return ()
        return [one for one in self.runs.documents_of(run.inputs.patient) if one.run_id == run.run_id]

    def _state(self) -> State:
        """Say what the last check of the chain came to, and whether the last anchor is in it."""
        checked, anchor = self.ledger.last_check(), self.anchor()
        number, _ = self.ledger.head()
        lines = [f"{number:,} entries."]
        if checked is None:
            lines.append("Never checked here: type epicrisis audit verify in a terminal.")
        elif checked.is_intact:
            lines.append(f"Checked {show_instant(checked.at)}: all {checked.entries:,} entries were intact.")
        else:
            lines.append(f"Checked {show_instant(checked.at)}: BROKEN, {checked.faults:,} faults.")
        is_lost = anchor is not None and self.ledger.hash_at(anchor.number) != anchor.hash
        if anchor is None:
            lines.append("There is no anchor: nobody can tell whether the end was cut off.")
        elif is_lost:
            lines.append(f"The anchor of {show_instant(anchor.at)} is NOT in this trail.")
        else:
            lines.append(f"Anchored {show_instant(anchor.at)} at entry {anchor.number:,}, which is in it.")
        return State(
            tuple(lines), is_lost or anchor is None or (checked is not None and bool(checked.faults))
        )

    def _note(self, request: Request, target: str, **more: Any) -> None:
        """Put a look at the trail into it, before it is shown. Raises AuditFailedError."""
        visitor: Visitor = visitor_of(request)
        patient = more.pop("patient", "")
        entry = AuditEntry(
            Action.VIEW, visitor.actor, patient, self.clock(), target=target, by=visitor.fhir_user, **more
        )
        try:
            self.audit.append(entry)
        except Exception:
            raise AuditFailedError from None


def _made(run: StoredRun) -> dict[str, Any]:
    """Return what a run was made from and by: versions, digests and counts, and no word of a chart."""
    summary = run.summary
    sources = sorted({
        (source.reference, source.version or "", source.digest)
        for fact in summary.facts
        for source in fact.sources
    })  # fmt: skip
    claims = (*summary.published, *summary.refused)
    return {
        "run": run,
        "inputs": run.inputs,
        "sources": sources,
        "verdicts": sorted(Counter(claim.verdict.value for claim in claims).items()),
        "published": len(summary.published),
        "refused": len(summary.refused),
        "completions": [(len(one.text), one.usage, one.finish_reason) for one in run.completions],
        "prompts": len(run.prompts),
    }


def _read_question(form: Mapping[str, str]) -> Question:
    """Return what a form asks for; what cannot be meant is a problem to be told, and never repeated."""
    typed = {name: form.get(name, "").strip()[:200] for name in _FIELDS}
    try:
        patient = _matched(_PATIENT, typed["patient"], "The patient is no id, for example Patient/17.")
        sought = Sought(
            _matched(_ACTOR, typed["actor"], "The actor is no name of one, for example system:cli."),
            Action(typed["action"]).value if typed["action"] else "",
            f"Patient/{patient.removeprefix('Patient/')}" if patient else "",
            _matched(_ID, typed["run"], "The summary is no id of one."),
            _day(typed["since"]),
            _day(typed["until"], timedelta(days=1)),
        )
    except ValueError as error:
        return Question(typed, Sought(), str(error) if error.args else "Something cannot be meant.")
    before = form.get("before", "")
    return Question(typed, sought, before=int(before) if before.isdecimal() and len(before) < 16 else 0)


def _matched(pattern: re.Pattern[str], text: str, problem: str) -> str:
    if text and not pattern.fullmatch(text):
        raise ValueError(problem)
    return text


def _day(text: str, more: timedelta = timedelta(0)) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + more
    except (ValueError, OverflowError):
        raise ValueError("A day is no day, for example 2026-11-28.") from None
