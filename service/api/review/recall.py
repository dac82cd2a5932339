"""Recalls of many documents: one person proposes, another approves, then they are withdrawn (SAFETY 24).

Who proposed a recall cannot approve it. What is withdrawn is what `epicrisis recall` finds, store and server
both; what could not be withdrawn is listed. A recall that was cut off goes on where it is begun again.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from connectors.errors import ConnectorError
from service.api.app import AuditFailedError
from service.api.form import plain_words, read_form
from service.api.gate import visitor_of
from service.api.review.frame import review_page
from service.errors import EpicrisisError, SettingsError
from service.filing.desk import Desk
from service.identity.visitor import Visitor
from service.ports import Action, AuditEntry, AuditLog, Clock, FiledDocument, FilingStore, Wanted
from service.ports.attesting import (
    LONGEST_REASON,
    AttestingStore,
    Proposal,
    ProposalId,
    ProposalState,
)
from service.recall import carry_out, parse_wanted
from service.writeback.moment import show_instant

LIST: Final = "/review/recall"
ONE: Final = "/review/recall/{proposal_id}"
KINDS: Final = {
    "model": "Model, by digest or name",
    "prompt": "Prompt, as history@3",
    "source": "Source, as Observation/7",
    "between": "Days, as 2026-11-01..2026-11-08, the second left out",
}
MOST_SHOWN: Final = 200
_ID: Final = re.compile(r"[0-9a-f]{32}")
_log = logging.getLogger("epicrisis.recall")


@dataclass
class Recalls:
    """The room, over what it needs. Without a `desk` nothing can be withdrawn here."""

    store: FilingStore
    kept: AttestingStore
    audit: AuditLog
    clock: Clock
    desk: Callable[[], AbstractAsyncContextManager[Desk]] | None = None
    _at_work: dict[ProposalId, asyncio.Task[None]] = field(default_factory=dict, init=False)
    _done: dict[ProposalId, tuple[int, int]] = field(default_factory=dict, init=False)

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(LIST, self.show_all, methods=["GET"], response_model=None)
        app.add_api_route(LIST, self.propose, methods=["POST"], response_model=None)
        app.add_api_route(ONE, self.one, methods=["GET"], response_model=None)
        app.add_api_route(ONE + "/{act}", self.act, methods=["POST"], response_model=None)

    async def aclose(self) -> None:
        """Leave what is under way where it is: it goes on when somebody begins it again."""
        for task in self._at_work.values():
            task.cancel()
        await asyncio.gather(*self._at_work.values(), return_exceptions=True)

    async def show_all(self, request: Request) -> Response:
        """Show every recall, and the form that proposes one."""
        await self._note(visitor_of(request), "recall:list", Action.VIEW)
        return await self._listed(request)

    async def _listed(self, request: Request, problem: str = "", status: int = 200) -> Response:
        found = await asyncio.to_thread(self.kept.proposals)
        return review_page(
            request, "recalls.html", status, proposals=[(one, say_wanted(one.wanted)) for one in found],
            kinds=KINDS, problem=problem, show=show_instant, longest=LONGEST_REASON,
        )  # fmt: skip

    async def propose(self, request: Request) -> Response:
        """Keep a recall for somebody else to approve."""
        fields, visitor = await read_form(request), visitor_of(request)
        reason = plain_words(fields.get("reason", ""), LONGEST_REASON)
        kind, value = fields.get("kind", ""), plain_words(fields.get("value", ""), 200)
        if kind not in KINDS:
            raise HTTPException(400)
        try:
            wanted = parse_wanted(**{kind: value})
        except SettingsError:
            return await self._listed(request, f"This cannot be read. Give one thing: {KINDS[kind]}.", 422)
        if not reason:
            return await self._listed(request, "A recall needs a reason.", 422)
        proposal = Proposal(ProposalId(secrets.token_hex(16)), wanted, visitor.actor, self.clock(), reason)
        await self._note(visitor, f"recall:{proposal.id}:propose")
        await asyncio.to_thread(self.kept.propose, proposal)
        return RedirectResponse(f"{LIST}/{proposal.id}", 303)

    async def one(self, request: Request, proposal_id: str) -> Response:
        """Show one recall: what it is about, how far it is, and what could not be withdrawn."""
        proposal = await asyncio.to_thread(self._proposal, proposal_id)
        await self._note(visitor_of(request), f"recall:{proposal.id}", Action.VIEW)
        return await self._shown(request, proposal)

    async def _shown(
        self, request: Request, proposal: Proposal, problem: str = "", status: int = 200
    ) -> Response:
        documents = await asyncio.to_thread(self.store.find_documents, proposal.wanted)
        done, total = self._done.get(proposal.id, (proposal.done, proposal.total))
        return review_page(
            request, "recall.html", status, proposal=proposal, wanted=say_wanted(proposal.wanted),
            documents=_shown_of(documents), count_of=len(documents), done=done, total=total,
            is_running=proposal.id in self._at_work, is_mine=proposal.by == visitor_of(request).actor,
            can=self.desk is not None, problem=problem, show=show_instant,
        )  # fmt: skip

    async def act(self, request: Request, proposal_id: str, act: str) -> Response:
        """Approve, refuse, or go on with a recall. Raises HTTPException (404)."""
        await read_form(request)
        visitor = visitor_of(request)
        proposal = await asyncio.to_thread(self._proposal, proposal_id)
        states = {"approve": ProposalState.APPROVED, "refuse": ProposalState.REFUSED}
        if act not in (*states, "resume"):
            raise HTTPException(404)
        if act != "refuse" and self.desk is None:
            return await self._shown(request, proposal, "No record system is configured here.", 409)
        if act == "resume":
            if proposal.state is not ProposalState.APPROVED:
                return await self._shown(request, proposal, "There is nothing to go on with.", 409)
            await self._note(visitor, f"recall:{proposal.id}:resume")
        else:
            if act == "approve" and proposal.by == visitor.actor:
                await self._note(visitor, f"recall:{proposal.id}:approve", outcome="four_eyes")
                return await self._shown(request, proposal, FOUR_EYES, 403)
            await self._note(visitor, f"recall:{proposal.id}:{act}")
            decided = await asyncio.to_thread(
                self.kept.decide, proposal.id, states[act], visitor.actor, self.clock()
            )
            if decided is None:
                return await self._shown(request, proposal, "This was decided already.", 409)
            proposal = decided
        if proposal.state is ProposalState.APPROVED:
            self._begin(proposal, visitor)
        return RedirectResponse(f"{LIST}/{proposal.id}", 303)

    def _begin(self, proposal: Proposal, visitor: Visitor) -> None:
        """Carry a recall out beside the pages, unless this process does so already."""
        if proposal.id in self._at_work:
            return
        task = asyncio.create_task(self._carry_out(proposal, visitor))
        self._at_work[proposal.id] = task
        task.add_done_callback(lambda _: self._at_work.pop(proposal.id, None))

    async def _carry_out(self, proposal: Proposal, visitor: Visitor) -> None:
        assert self.desk is not None
        try:
            async with self.desk() as desk:
                ended = await carry_out(
                    desk, proposal, by=visitor.fhir_user or "Epicrisis", actor=visitor.actor,
                    tell=lambda done, total: self._done.update({proposal.id: (done, total)}),
                )  # fmt: skip
            await asyncio.to_thread(self.kept.advance, ended)
            self._done.pop(proposal.id, None)
        except (EpicrisisError, ConnectorError) as error:
            _log.warning("Recall %s stopped (%s)", proposal.id, error.code)

    def _proposal(self, proposal_id: str) -> Proposal:
        found = self.kept.proposal(ProposalId(proposal_id)) if _ID.fullmatch(proposal_id) else None
        if found is None:
            raise HTTPException(404)
        return found

    async def _note(
        self, visitor: Visitor, target: str, action: Action = Action.WITHDRAW, outcome: str = "ok"
    ) -> None:
        entry = AuditEntry(
            action, visitor.actor, "", self.clock(), outcome=outcome, target=target, by=visitor.fhir_user
        )
        try:
            await asyncio.to_thread(self.audit.append, entry)
        except Exception:
            raise AuditFailedError from None


FOUR_EYES: Final = "You proposed this recall: somebody else must approve it."


def say_wanted(wanted: Wanted) -> str:
    """Return what a recall is about, in words."""
    if wanted.prompt_id:
        version = f", version {wanted.prompt_version}" if wanted.prompt_version else ""
        return f"Prompt {wanted.prompt_id}{version}"
    if wanted.source:
        version = f", version {wanted.source_version}" if wanted.source_version else ""
        return f"Source {wanted.source}{version}"
    if wanted.model:
        return f"Model {wanted.model}"
    days = [("from", wanted.after), ("before", wanted.before)]
    return f"Written {' '.join(f'{word} {show_instant(day)}' for word, day in days if day)}"


def _shown_of(documents: Sequence[FiledDocument]) -> list[tuple[Any, ...]]:
    return [
        (one.document, one.state.value, one.patient, show_instant(one.filed_at))
        for one in documents[:MOST_SHOWN]
    ]
