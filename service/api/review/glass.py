"""Break-glass: what our own rules withhold is opened by one person, for a reason, for a while, and on record.

Reviewers judge quality and treat nobody: a run whose sources carry a label (SAFETY 20), or that something was
left out of by one, is withheld from them. Breaking the glass opens that run's patient to this person alone.
It never widens what a token may read in the record system: no chart is read by it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from service.api.app import AuditFailedError
from service.api.form import plain_words, read_form
from service.api.gate import may, visitor_of
from service.api.review.frame import review_page
from service.identity.visitor import Role, Visitor
from service.ports import Action, AuditEntry, AuditLog, Clock, FilingStore, RunId, StoredRun
from service.ports.attesting import LONGEST_REASON, AttestingStore, Glass
from service.writeback.moment import show_instant

BREAK: Final = "/review/glass/{run_id}"
LIST: Final = "/review/glass"
LASTS: Final = timedelta(minutes=30)
BACK: Final = timedelta(days=90)
"""How far back the auditor's list reaches."""
TARGET: Final = "break-glass"
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_log = logging.getLogger("epicrisis.identity")


class WithheldError(StarletteHTTPException):
    """A run that is withheld from who asks, until they break the glass."""

    def __init__(self, run_id: str) -> None:
        super().__init__(403)
        self.run_id = run_id


def is_restricted(run: StoredRun) -> bool:
    """Tell whether a run rests on labelled sources, or something was left out of it by a label."""
    return run.summary.restricted or bool(run.summary.labels)


@dataclass
class Glasses:
    """The room, and the guard of every route that names a run."""

    store: FilingStore
    kept: AttestingStore
    audit: AuditLog
    clock: Clock

    def add_to(self, app: FastAPI) -> None:
        """Add the routes, and the page that offers them."""
        app.add_api_route(LIST, self.show_all, methods=["GET"], response_model=None)
        app.add_api_route(BREAK, self.ask, methods=["GET"], response_model=None)
        app.add_api_route(BREAK, self.open, methods=["POST"], response_model=None)
        app.add_exception_handler(WithheldError, self._withheld)

    async def guard(self, request: Request) -> None:
        """Raise WithheldError where the run of a path is withheld from who asks."""
        run_id = request.path_params.get("run_id", "")
        path = request.scope["route"].path
        if not run_id or path == BREAK or not _ID.fullmatch(run_id):
            return
        visitor = visitor_of(request)
        if Role.REVIEWER not in visitor.roles or Role.CLINICIAN in visitor.roles:
            return
        if await asyncio.to_thread(self._is_withheld, run_id, visitor):
            raise WithheldError(run_id)

    def withholds(self, run: StoredRun, visitor: Visitor) -> bool:
        """Tell whether a run is withheld from a visitor. Raises StoreError."""
        if Role.REVIEWER not in visitor.roles or Role.CLINICIAN in visitor.roles or not is_restricted(run):
            return False
        return self.kept.glass_of(visitor.actor, run.inputs.patient, self.clock()) is None

    def _is_withheld(self, run_id: str, visitor: Visitor) -> bool:
        run = self.store.get(RunId(run_id))
        return run is not None and self.withholds(run, visitor)

    async def ask(self, request: Request, run_id: str) -> Response:
        """Show the form, without a word about whom the run is."""
        await asyncio.to_thread(self._run, run_id)
        return self._form(request, run_id)

    async def open(self, request: Request, run_id: str) -> Response:
        """Open what is withheld, for a typed reason, once that is on record."""
        fields, visitor = await read_form(request), visitor_of(request)
        run = await asyncio.to_thread(self._run, run_id)
        reason = plain_words(fields.get("reason", ""), LONGEST_REASON)
        if sum(character.isalpha() for character in reason) < 3:
            return self._form(request, run_id, "Say in words why you need to see this.", 422)
        await asyncio.to_thread(self._break, run, visitor, reason)
        console = f"/review/runs/{run_id}"
        return RedirectResponse(
            console if may(request, "GET", "/review/runs/{run_id}") else f"/runs/{run_id}", 303
        )

    def _break(self, run: StoredRun, visitor: Visitor, reason: str) -> None:
        now = self.clock()
        entry = AuditEntry(
            Action.VIEW, visitor.actor, run.inputs.patient, now, run_id=run.run_id, target=TARGET,
            server=run.inputs.server, by=visitor.fhir_user,
        )  # fmt: skip
        try:
            self.audit.append(entry)
        except Exception:
            raise AuditFailedError from None
        _log.warning("Glass broken: %s opened run %s", visitor.actor, run.run_id)
        self.kept.break_glass(
            Glass(visitor.actor, run.inputs.patient, reason, now, now + LASTS, run.run_id, visitor.fhir_user)
        )

    async def show_all(self, request: Request) -> Response:
        """Show the auditor who opened what, when and why."""
        now, visitor = self.clock(), visitor_of(request)
        entry = AuditEntry(Action.VIEW, visitor.actor, "", now, target=f"{TARGET}:list", by=visitor.fhir_user)
        try:
            await asyncio.to_thread(self.audit.append, entry)
        except Exception:
            raise AuditFailedError from None
        found = await asyncio.to_thread(self.kept.glasses, now - BACK, now + LASTS)
        return review_page(request, "glasses.html", glasses=found, show=show_instant, now=now, days=BACK.days)

    def _form(self, request: Request, run_id: str, problem: str = "", status: int = 200) -> Response:
        minutes = int(LASTS.total_seconds() // 60)
        return review_page(
            request, "glass.html", status, run_id=run_id, problem=problem, minutes=minutes,
            longest=LONGEST_REASON,
        )  # fmt: skip

    def _run(self, run_id: str) -> StoredRun:
        """Return a run that is withheld from reviewers. Raises HTTPException (400, 404)."""
        if not _ID.fullmatch(run_id):
            raise HTTPException(400)
        run = self.store.get(RunId(run_id))
        if run is None or not is_restricted(run):
            raise HTTPException(404)
        return run

    async def _withheld(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, WithheldError)
        return self._form(request, error.run_id, status=403)
