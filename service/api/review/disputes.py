"""One dispute: what was called wrong, by whom and with what words, and the ruling of a reviewer.

Who disputed a statement does not rule on it: that needs a second person.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import FastAPI, HTTPException, Path, Request
from fastapi.responses import RedirectResponse, Response

from service.api.form import plain_words, read_form
from service.api.gate import visitor_of
from service.api.pages import build_page
from service.api.review.desk import MOST_DISPUTES, RUN, Desk
from service.api.review.frame import review_page
from service.api.review.glass import WithheldError
from service.errors import ShreddedError
from service.filing.stopped import is_stopped
from service.identity.visitor import Role, Visitor
from service.ports import Action, AuditEntry, RunId, StoredRun
from service.ports.feedback import LONGEST_WORDS, Feedback, Ruling
from service.writeback.moment import show_instant

PATH: Final = "/review/disputes/{feedback_id}"
FeedbackPath = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


class DisputeRoom:
    """The routes, over what reviewers work with."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(PATH, self.show, methods=["GET", "HEAD"], response_model=None)
        app.add_api_route(PATH, self.rule, methods=["POST"], response_model=None)

    def show(self, request: Request, feedback_id: FeedbackPath) -> Response:
        """Show one dispute without a ruling."""
        visitor = visitor_of(request)
        dispute = self._find(feedback_id)
        run = self._run(dispute, visitor)
        self._record(Action.VIEW, visitor, dispute, "")
        return review_page(
            request,
            "dispute.html",
            page=build_page(run, self._desk.clock()) if run is not None else None,
            dispute=dispute,
            at=show_instant(dispute.at),
            is_mine=dispute.actor == visitor.actor,
            run_id=run.run_id if run is not None else "",
        )

    async def rule(self, request: Request, feedback_id: FeedbackPath) -> Response:
        """Take a ruling on every open dispute of the same statement."""
        visitor, fields = visitor_of(request), await read_form(request)
        try:
            ruling = Ruling(fields.get("ruling", ""))
        except ValueError:
            raise HTTPException(400) from None
        words = plain_words(fields.get("words", ""), LONGEST_WORDS)
        dispute = await asyncio.to_thread(self._settle, feedback_id, visitor, ruling, words)
        if fields.get("item", "").isdecimal():
            place = RUN.format(run_id=dispute.about)
            return RedirectResponse(f"{place}#item-{int(fields['item'])}", status_code=303)
        return RedirectResponse("/review", status_code=303)

    def _settle(self, feedback_id: str, visitor: Visitor, ruling: Ruling, words: str) -> Feedback:
        dispute = self._find(feedback_id)
        self._run(dispute, visitor)
        if dispute.actor == visitor.actor:
            raise HTTPException(403)
        self._record(Action.REVIEW, visitor, dispute, ruling.value)
        self._desk.feedback.settle(
            dispute.server, dispute.patient, dispute.claim, ruling, visitor.actor, self._desk.clock(), words
        )
        return dispute

    def _find(self, feedback_id: str) -> Feedback:
        found = self._desk.feedback.unsettled(MOST_DISPUTES)
        dispute = next((one for one in found if one.id == feedback_id), None)
        if dispute is None:
            raise HTTPException(404)
        return dispute

    def _run(self, dispute: Feedback, visitor: Visitor) -> StoredRun | None:
        """Return the run of a dispute, None for one about an answer. Raises HTTPException, WithheldError.

        An answer was read with its asker's rights, and nothing here tells what it rests on: only a reviewer
        who treats patients is shown it.
        """
        try:
            run = self._desk.store.get(RunId(dispute.about))
        except ShreddedError:
            raise HTTPException(404) from None
        if run is not None and is_stopped(run, self._desk.store.stops()):
            raise HTTPException(423)
        if run is None and Role.CLINICIAN not in visitor.roles:
            raise HTTPException(403)
        if run is not None and self._desk.withheld(run, visitor):
            raise WithheldError(run.run_id)
        return run

    def _record(self, action: Action, visitor: Visitor, dispute: Feedback, target: str) -> None:
        entry = AuditEntry(
            action, visitor.actor, dispute.patient, self._desk.clock(), run_id=dispute.about, target=target,
            server=dispute.server, by=visitor.fhir_user,
        )  # fmt: skip
        self._desk.audit.append(entry)
