"""Feedback in one tap: on a statement of a summary or an answer, on a section, or on the whole.

A plain form does it; a script puts the answer in place. Who has tapped sees that at once, and everybody else
with the next page (SAFETY 24). What is tapped on is named by a keyed hash that this installation gave out:
nobody can put words into a statement's mouth.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from service.api.form import is_partial, plain_words, read_form
from service.api.gate import launch_of, visitor_of
from service.api.render import page
from service.errors import ShreddedError
from service.filing.stopped import is_stopped
from service.grounding.summary import Claim
from service.ports import Action, AuditEntry, AuditLog, Clock, FilingStore, RunId
from service.ports.feedback import (
    LONGEST_WORDS,
    ClaimKey,
    Feedback,
    FeedbackId,
    FeedbackStore,
    Mark,
)
from service.ports.questions import QuestionId, QuestionStore

SIDEBAR: Final = "/sidebar/feedback"
RUN: Final = "/runs/{run_id}/feedback"
UNDO: Final = "/undo"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY = re.compile(r"[0-9a-f]{64}")
_SECTION = re.compile(r"[a-z][a-z0-9_-]{0,39}")


@dataclass(frozen=True, slots=True)
class Tapped:
    """What a page shows of the feedback on one statement, section or whole: `_feedback.html` draws it."""

    action: str
    """Where its form leads."""
    visit: str
    """The launch that the form names; empty for who signed in."""
    about: str
    key: str = ""
    section: str = ""
    mine: str = ""
    """What this visitor has said of it, and not taken back; empty for nothing."""
    disputed: bool = False
    """True where the statement is disputed, by whomever."""


@dataclass(frozen=True, slots=True)
class Taps:
    """The feedback of one visitor on a whole run or answer: a page takes each part's from here."""

    action: str
    visit: str
    about: str
    said: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(claim's key, section) → what this visitor has said of it."""

    def claim(self, key: str) -> Tapped:
        """Return that of a statement, by its key."""
        return Tapped(self.action, self.visit, self.about, key, mine=self.said.get((key, ""), ""))

    def section(self, key: str) -> Tapped:
        """Return that of a section, by its key."""
        return Tapped(self.action, self.visit, self.about, "", key, self.said.get(("", key), ""))

    def whole(self) -> Tapped:
        """Return that of the whole."""
        return self.section("")


@dataclass(frozen=True, slots=True)
class _Subject:
    """A run or an answer, as far as feedback needs it."""

    about: str
    server: str
    patient: str
    claims: Sequence[Claim]
    sections: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Visitor:
    """Who taps, and from which page."""

    actor: str
    by: str
    visit: str
    action: str
    back: str


class Feedbacks:
    """The routes, over what they need."""

    def __init__(
        self,
        store: FilingStore,
        questions: QuestionStore,
        feedback: FeedbackStore,
        audit: AuditLog,
        clock: Clock,
    ) -> None:
        self._store = store
        self._questions = questions
        self._feedback = feedback
        self._audit = audit
        self._clock = clock

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        for path, endpoint in (
            (SIDEBAR, self.tap),
            (SIDEBAR + UNDO, self.untap),
            (RUN, self.tap_run),
            (RUN + UNDO, self.untap_run),
            ("/sidebar/off", self.switch_off),
            ("/sidebar/on", self.switch_on),
        ):
            app.add_api_route(path, endpoint, methods=["POST"], response_model=None)

    def taps(self, about: str, actor: str, *, action: str = SIDEBAR, visit: str = "") -> Taps:
        """Return what a page shows one visitor of the feedback on a run or an answer. Raises StoreError."""
        said = {(str(one.claim), one.section): one.mark.value for one in self._said_by(about, actor)}
        return Taps(action, visit, about, said)

    async def tap(self, request: Request) -> Response:
        """Take a tap from a page that an EHR opened."""
        fields = await read_form(request)
        return await self._tap(
            request, await self._of_launch(request, fields), fields, self._by_launch(request)
        )

    async def untap(self, request: Request) -> Response:
        """Take back the last tap of who was launched."""
        fields = await read_form(request)
        return await self._untap(
            request, await self._of_launch(request, fields), fields, self._by_launch(request)
        )

    async def tap_run(self, request: Request, run_id: str) -> Response:
        """Take a tap from the page of a run."""
        subject = await asyncio.to_thread(self._of_run, run_id)
        return await self._tap(request, subject, await read_form(request), self._signed_in(request, run_id))

    async def untap_run(self, request: Request, run_id: str) -> Response:
        """Take back the last tap of who is signed in."""
        subject = await asyncio.to_thread(self._of_run, run_id)
        return await self._untap(request, subject, await read_form(request), self._signed_in(request, run_id))

    async def switch_off(self, request: Request) -> Response:
        """Show this user no summaries; the banner and the live strip stay."""
        launch = launch_of(request)
        await asyncio.to_thread(self._feedback.switch_off, launch.actor, self._clock())
        return _back_to_sidebar(launch.visit)

    async def switch_on(self, request: Request) -> Response:
        """Show this user summaries again."""
        launch = launch_of(request)
        await asyncio.to_thread(self._feedback.switch_on, launch.actor)
        return _back_to_sidebar(launch.visit)

    async def _tap(
        self, request: Request, subject: _Subject, fields: Mapping[str, str], who: _Visitor
    ) -> Response:
        feedback = self._read(subject, fields, who)
        await asyncio.to_thread(self._keep, feedback)
        return await self._answer(request, subject, feedback.claim, feedback.section, who)

    async def _untap(
        self, request: Request, subject: _Subject, fields: Mapping[str, str], who: _Visitor
    ) -> Response:
        claim, section = _claim_named(fields), fields.get("section", "")
        await asyncio.to_thread(self._take_back, subject, who, claim)
        return await self._answer(request, subject, claim, section, who)

    def _read(self, subject: _Subject, fields: Mapping[str, str], who: _Visitor) -> Feedback:
        """Return what a form says. Raises HTTPException (400, 404)."""
        try:
            mark = Mark(fields.get("mark", ""))
        except ValueError:
            raise HTTPException(400) from None
        key, section = _claim_named(fields), fields.get("section", "")
        said = None
        if key:
            keys = self._feedback.claim_keys(subject.server, subject.patient, subject.claims)
            said = next((claim for claim, known in keys.items() if known == key), None)
            if said is None:
                raise HTTPException(404)
        elif mark.disputes or (section and section not in subject.sections):
            raise HTTPException(400)  # only a statement can be wrong
        return Feedback(
            id=FeedbackId(secrets.token_hex(16)),
            about=subject.about,
            server=subject.server,
            patient=subject.patient,
            mark=mark,
            actor=who.actor,
            at=self._clock(),
            claim=key,
            section="" if said is not None else section,
            text=said.text if said is not None else "",
            words=plain_words(fields.get("words", ""), LONGEST_WORDS),
            by=who.by,
        )

    def _keep(self, feedback: Feedback) -> None:
        """Keep a tap; one that only repeats what this user says already changes nothing."""
        said = (feedback.claim, feedback.section, feedback.mark, feedback.words)
        before = self._said_by(feedback.about, feedback.actor)
        if any((one.claim, one.section, one.mark, one.words) == said for one in before):
            return
        self._record(feedback, feedback.mark.value)
        self._feedback.say(feedback)

    def _take_back(self, subject: _Subject, who: _Visitor, claim: ClaimKey) -> None:
        undone = self._feedback.undo(subject.about, who.actor, self._clock(), claim or None)
        if undone is not None:
            self._record(undone, f"{undone.mark.value}:undone")

    def _record(self, feedback: Feedback, target: str) -> None:
        entry = AuditEntry(
            Action.FEEDBACK, feedback.actor, feedback.patient, self._clock(), run_id=feedback.about,
            target=target, server=feedback.server, by=feedback.by,
        )  # fmt: skip
        self._audit.append(entry)

    async def _answer(
        self, request: Request, subject: _Subject, claim: ClaimKey, section: str, who: _Visitor
    ) -> Response:
        """Return the part of the page that changed; without a script, the page."""
        if not is_partial(request):
            return RedirectResponse(who.back, status_code=303)
        mine, disputed = await asyncio.to_thread(self._standing, subject, claim, section, who.actor)
        tapped = Tapped(who.action, who.visit, subject.about, claim, section, mine, disputed)
        return page("sidebar/_tapped.html", tapped=tapped)

    def _standing(self, subject: _Subject, claim: ClaimKey, section: str, actor: str) -> tuple[str, bool]:
        mine = [
            o.mark.value
            for o in self._said_by(subject.about, actor)
            if (o.claim, o.section) == (claim, section)
        ]
        disputed = bool(claim) and claim in self._feedback.disputes_of(subject.server, subject.patient)
        return (mine[-1] if mine else ""), disputed

    def _said_by(self, about: str, actor: str) -> list[Feedback]:
        said = self._feedback.said_of(about)
        return [one for one in said if one.actor == actor and one.undone_at is None and one.ruling is None]

    async def _of_launch(self, request: Request, fields: Mapping[str, str]) -> _Subject:
        """Return what a form is about, if it is this launch's patient. Raises HTTPException (404)."""
        about, launch = fields.get("about", ""), launch_of(request)
        subject = await asyncio.to_thread(self._subject, about)
        if (subject.server.rstrip("/"), subject.patient) != (launch.server, launch.patient):
            raise HTTPException(404)
        return subject

    def _subject(self, about: str) -> _Subject:
        if not _ID.fullmatch(about):
            raise HTTPException(400)
        try:
            question = self._questions.get_question(QuestionId(about))
        except ShreddedError:
            raise HTTPException(410) from None
        if question is None or question.answer is None:
            return self._of_run(about)
        claims = (*question.answer.claims, *question.answer.beside)
        return _Subject(question.id, question.server, question.patient, claims, frozenset())

    def _of_run(self, run_id: str) -> _Subject:
        if not _ID.fullmatch(run_id):
            raise HTTPException(400)
        run = self._store.get(RunId(run_id))
        if run is None:
            raise HTTPException(404)
        if is_stopped(run, self._store.stops()):
            raise HTTPException(423)
        sections = frozenset(section.key for section in run.summary.sections)
        return _Subject(run.run_id, run.inputs.server, run.inputs.patient, run.summary.published, sections)

    def _by_launch(self, request: Request) -> _Visitor:
        launch = launch_of(request)
        back = f"/sidebar?visit={quote(launch.visit)}"
        return _Visitor(launch.actor, launch.fhir_user, launch.visit, SIDEBAR, back)

    def _signed_in(self, request: Request, run_id: str) -> _Visitor:
        visitor = visitor_of(request)
        path = f"/runs/{run_id}"
        return _Visitor(visitor.actor, visitor.fhir_user, "", f"{path}/feedback", path)


def _claim_named(fields: Mapping[str, str]) -> ClaimKey:
    key, section = fields.get("claim", ""), fields.get("section", "")
    if (key and not _KEY.fullmatch(key)) or (section and not _SECTION.fullmatch(section)):
        raise HTTPException(400)
    return ClaimKey(key)


def _back_to_sidebar(visit: str) -> Response:
    return RedirectResponse(f"/sidebar?visit={quote(visit)}", status_code=303)
