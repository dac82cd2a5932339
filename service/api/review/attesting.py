"""Attesting: one patient at a time, statement by statement, until a clinician can answer for the text.

Who verifies is the `fhirUser` of the validated token, never a field of a form; when the page was opened is
known to the server alone. The machine's text stays as it is stored. In the EHR the same room opens within the
launch, for there nobody signs in twice. Any clinician can hide a summary at once (SAFETY 24).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from connectors.errors import ConnectorError
from service.api.app import AuditFailedError
from service.api.disputes import marks_of
from service.api.form import plain_words, read_form
from service.api.gate import forbidden, launch_of, visitor_of
from service.api.pages import Source, build_banner, build_page, number_sources
from service.api.render import page
from service.api.review.frame import places_of
from service.errors import EpicrisisError, FilingError
from service.filing.attest import attest, attest_run
from service.filing.desk import Desk
from service.filing.stopped import find_stop
from service.filing.withdraw import withdraw
from service.identity.visitor import STAFF, Role
from service.ports import (
    Action,
    AuditEntry,
    AuditLog,
    Clock,
    DocumentState,
    FilingStore,
    RunId,
    StopScope,
    StoredRun,
)
from service.ports.attesting import (
    LONGEST_EDIT,
    LONGEST_REASON,
    Act,
    Attested,
    AttestingStore,
    Disposal,
    Edit,
    Hidden,
)
from service.ports.feedback import FeedbackStore
from service.ports.launches import Launch
from service.review.attesting import (
    Item,
    Piece,
    changes_of,
    decided,
    edit_distance,
    items_of,
    measure,
    still_open,
    word_diff,
)
from service.writeback.moment import show_instant
from service.writeback.pictures import as_filed
from service.writeback.transaction import refusal

CONSOLE: Final = "/review/attest/{run_id}"
SIDEBAR: Final = "/sidebar/attest"
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SAYS: Final = {Act.ACCEPTED: "accepted", Act.EDITED: "edited", Act.REJECTED: "rejected"}

Seen = Callable[[Launch, StoredRun], Awaitable[str]]
"""Says why a launch's user cannot answer for all of a run's text; empty where they can."""
OpenDesk = Callable[[], AbstractAsyncContextManager[Desk]]


@dataclass(frozen=True, slots=True)
class Seat:
    """Who sits before a run, and how they came."""

    actor: str
    by: str
    """`Practitioner/7` by the token that let them in; empty where it names nobody."""
    run: StoredRun
    launch: Launch | None = None

    @property
    def visit(self) -> str:
        """The launch that a form names; empty for who signed in."""
        return self.launch.visit if self.launch is not None else ""

    @property
    def here(self) -> str:
        """Where the page is."""
        if self.launch is None:
            return CONSOLE.format(run_id=self.run.run_id)
        return f"{SIDEBAR}?visit={quote(self.visit)}&run={quote(self.run.run_id)}"

    @property
    def acts(self) -> str:
        """Where the forms lead, without the act."""
        return CONSOLE.format(run_id=self.run.run_id) if self.launch is None else SIDEBAR

    @property
    def sources(self) -> str:
        """Where a source is shown alone, with `{}` for its number."""
        if self.launch is None:
            return f"/runs/{self.run.run_id}/sources/{{}}"
        return f"/sidebar/sources/{{}}?visit={quote(self.visit)}&run={quote(self.run.run_id)}"

    @property
    def is_clinician(self) -> bool:
        """True where the token names a member of staff of the record system."""
        return self.by.partition("/")[0] in STAFF


@dataclass(frozen=True, slots=True)
class ShownItem:
    """One item as the page shows it."""

    item: Item
    sources: tuple[Source, ...]
    act: str = ""
    """What was decided; empty while nothing is."""
    reason: str = ""
    own: str = ""
    """The clinician's own words."""
    pieces: tuple[Piece, ...] = ()
    distance: int = 0

    @property
    def is_open(self) -> bool:
        """True where it must be decided on before anybody can attest."""
        return bool(self.item.why) and not self.act


class NotNowError(Exception):
    """What was asked for cannot be done now; the words are for the page."""


@dataclass
class Attesting:
    """The room, over what it needs. Without a `desk` nothing can be attested or withdrawn here."""

    store: FilingStore
    kept: AttestingStore
    audit: AuditLog
    clock: Clock
    is_ours: Callable[[str], bool]
    """Whether a server is the one that we file to."""
    desk: OpenDesk | None = None
    feedback: FeedbackStore | None = None
    seen: Seen | None = None
    version: str = ""

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(CONSOLE, self.of_run, methods=["GET"], response_model=None)
        app.add_api_route(CONSOLE + "/{act}", self.act_on_run, methods=["POST"], response_model=None)
        app.add_api_route(SIDEBAR, self.of_launch, methods=["GET"], response_model=None)
        app.add_api_route(SIDEBAR + "/{act}", self.act_in_launch, methods=["POST"], response_model=None)

    async def of_run(self, request: Request, run_id: str) -> Response:
        """Show the page to a clinician who signed in."""
        return await self._show(request, await self._signed_in(request, run_id))

    async def of_launch(self, request: Request, run: str) -> Response:
        """Show the page within a launch."""
        return await self._show(request, await self._launched(request, run))

    async def act_on_run(self, request: Request, run_id: str, act: str) -> Response:
        """Do what a clinician who signed in asks for."""
        fields = await read_form(request)
        return await self._act(request, await self._signed_in(request, run_id), act, fields)

    async def act_in_launch(self, request: Request, act: str) -> Response:
        """Do what a launched clinician asks for."""
        fields = await read_form(request)
        return await self._act(request, await self._launched(request, fields.get("run", "")), act, fields)

    async def _signed_in(self, request: Request, run_id: str) -> Seat:
        visitor = visitor_of(request)
        run = await asyncio.to_thread(self._run, run_id)
        # `fhirUser` is of our server: on another one the same id is somebody else.
        by = visitor.fhir_user if self.is_ours(run.inputs.server) else ""
        return Seat(visitor.actor, by, run)

    async def _launched(self, request: Request, run_id: str) -> Seat:
        launch = launch_of(request)
        if Role.CLINICIAN not in visitor_of(request).roles:
            raise HTTPException(403)
        run = await asyncio.to_thread(self._run, run_id)
        is_theirs = (run.inputs.server.rstrip("/"), run.inputs.patient) == (launch.server, launch.patient)
        if not is_theirs or not run.is_read_for(launch.access_profile):
            raise HTTPException(404)
        return Seat(launch.actor, launch.fhir_user, run, launch)

    def _run(self, run_id: str) -> StoredRun:
        """Return a run, hidden ones too: here they are shown again. Raises 400, 404, 423."""
        if not _ID.fullmatch(run_id):
            raise HTTPException(400)
        run = self.store.get(RunId(run_id))
        if run is None:
            raise HTTPException(404)
        stop = find_stop(run, self.store.stops())
        if stop is not None and stop.scope is not StopScope.RUN:
            raise HTTPException(423)
        return run

    async def _show(
        self, request: Request, seat: Seat, problem: str = "", status: int = 200, words: str = ""
    ) -> Response:
        """Return the page; the view is on record first."""
        await self._note(seat, Action.VIEW, seat.run.document)
        unseen = await self._unseen(seat)
        values = await asyncio.to_thread(self._values, seat, unseen or self._why_not(seat), bool(unseen))
        return page(
            "review/attest.html", status,
            frame="review/attest_launch.html" if seat.launch else "review/base.html",
            problem=problem, words=words, version=self.version,
            places=() if seat.launch else places_of(request), launch=seat.launch, **values,
        )  # fmt: skip

    def _values(self, seat: Seat, why_not: str, is_unseen: bool) -> dict[str, Any]:
        run = seat.run
        hidden, attested = self.kept.hidden_of(run.run_id), self.kept.attested_of(run.run_id)
        items = [] if hidden is not None or is_unseen else self._items(seat, attested)
        if not why_not and hidden is None and attested is None:
            self.kept.open(run.run_id, run.inputs.patient, seat.actor, self.clock())
        left = [one for one in items if one.is_open]
        return {
            "seat": seat,
            "banner": None if is_unseen else build_banner(run.summary.identity, self.clock().date()),
            "items": [one for one in items if one.item.why] + [one for one in items if not one.item.why],
            "left": left,
            "must": sum(bool(one.item.why) for one in items),
            "done": sum(bool(one.act) for one in items),
            "why_not": why_not,
            "hidden": hidden,
            "attested": attested,
            "show": show_instant,
            "limits": (LONGEST_EDIT, LONGEST_REASON),
            "notes": build_page(run, self.clock()).notes,
            "read_at": show_instant(run.read_at),
        }

    def _items(self, seat: Seat, attested: Attested | None) -> list[ShownItem]:
        run = seat.run
        actor = attested.actor if attested is not None else seat.actor
        items = self._of_run(run)
        decisions = decided(items, self.kept.disposals(run.run_id, actor))
        edits = {edit.ordinal: edit for edit in self.kept.edits_of(run.run_id, actor)}
        by_fact = _sources_of(run, self.clock)
        return [_shown(item, decisions.get(item.key), edits, by_fact) for item in items]

    def _of_run(self, run: StoredRun) -> tuple[Item, ...]:
        """Return what there is to decide on; what is not filed (SAFETY 26) is not attested either."""
        filed = {section.key for section in as_filed(run).summary.sections}
        items = items_of(run.summary, marks_of(self.feedback, run).disputed)
        return tuple(item for item in items if item.section.key in filed)

    async def _unseen(self, seat: Seat) -> str:
        """Return why a launched user may not see the whole text, which is then not shown (SAFETY 21)."""
        if seat.launch is None:
            return ""
        return await self.seen(seat.launch, seat.run) if self.seen else "What you may read is not known."

    def _why_not(self, seat: Seat) -> str:
        """Return why this person cannot attest this run; empty where they can, once all is decided on."""
        run = seat.run
        if self.desk is None or not self.is_ours(run.inputs.server):
            return "Epicrisis does not write to the record system that this summary is of."
        if not seat.is_clinician:
            return "Your sign-in does not name you as a clinician of the record system."
        if run.is_of_user and (seat.launch is None or run.is_narrowed):
            return "This summary was read with the rights of one user alone, and is not filed."
        return refusal(run.summary) or ""

    async def _act(self, request: Request, seat: Seat, act: str, fields: Mapping[str, str]) -> Response:
        """Do one thing, and show the page again. Raises HTTPException (400, 404)."""
        acts = {
            "decide": self._decide, "undo": self._undo, "attest": self._attest, "hide": self._hide,
            "lift": self._lift, "withdraw": self._withdraw,
        }  # fmt: skip
        if act not in acts:
            raise HTTPException(404)
        if act in ("decide", "undo", "attest", "withdraw") and not seat.is_clinician:
            await self._note(seat, Action.REFUSED, act, outcome="no_fhir_user")
            return forbidden()
        try:
            anchor = await acts[act](seat, fields)
        except NotNowError as why:
            return await self._show(request, seat, str(why), 409, fields.get("text", ""))
        except (FilingError, ConnectorError) as error:
            told = (
                error.message if isinstance(error, EpicrisisError) else "The record system did not take it."
            )
            return await self._show(request, seat, f"{told} Nothing else was changed.", 409)
        return RedirectResponse(seat.here + anchor, status_code=303)

    async def _decide(self, seat: Seat, fields: Mapping[str, str]) -> str:
        """Keep one decision; return where the page goes on."""
        await self._check_open(seat)
        items = await asyncio.to_thread(self._of_run, seat.run)
        item = next((one for one in items if one.key == fields.get("item")), None)
        try:
            act = Act(fields.get("act", ""))
        except ValueError:
            raise HTTPException(400) from None
        if item is None or act not in item.acts:
            raise HTTPException(400)
        disposal, edit = self._read(seat, item, act, fields)
        await self._note(seat, Action.FEEDBACK, f"{act.value}:{item.key}")
        await asyncio.to_thread(self.kept.dispose, disposal, edit)
        disposals = await asyncio.to_thread(self.kept.disposals, seat.run.run_id, seat.actor)
        left = still_open(items, disposals)
        return f"#{left[0].key if left else item.key}"

    def _read(
        self, seat: Seat, item: Item, act: Act, fields: Mapping[str, str]
    ) -> tuple[Disposal, Edit | None]:
        """Return what a form decides. Words that are the machine's own are no edit."""
        now, run = self.clock(), seat.run
        reason = plain_words(fields.get("reason", ""), LONGEST_REASON)
        edit = None
        if act is Act.EDITED and item.ordinal is not None:
            own = " ".join(plain_words(fields.get("text", ""), LONGEST_EDIT).split())
            if not any(character.isalnum() for character in own):
                raise NotNowError("Write what should stand there, or reject the statement.")
            if own == " ".join(item.text.split()):
                act = Act.ACCEPTED
            else:
                distance = edit_distance(item.text, own)
                edit = Edit(run.run_id, item.ordinal, item.text, own, distance, seat.by, now, seat.actor)
        section = item.section.key if item.claim is None else ""
        disposal = Disposal(
            run.run_id, run.inputs.patient, seat.actor, seat.by, act, now, item.ordinal, section, reason
        )
        return disposal, edit

    async def _undo(self, seat: Seat, fields: Mapping[str, str]) -> str:
        await self._check_open(seat)
        undone = await asyncio.to_thread(self.kept.undo, seat.run.run_id, seat.actor, self.clock())
        if undone is None:
            return ""
        key = f"claim-{undone.ordinal}" if undone.ordinal is not None else f"conflict-{undone.section}"
        await self._note(seat, Action.FEEDBACK, f"{undone.act.value}:{key}:undone")
        return f"#{key}"

    async def _check_open(self, seat: Seat) -> None:
        """Refuse to change decisions on what is attested or hidden."""
        if await asyncio.to_thread(self.kept.attested_of, seat.run.run_id) is not None:
            raise NotNowError("This summary is attested: what was decided stands.")
        if await asyncio.to_thread(self.kept.hidden_of, seat.run.run_id) is not None:
            raise NotNowError("This summary is hidden: show it again first.")

    async def _attest(self, seat: Seat, fields: Mapping[str, str]) -> str:
        """File the text as final in this clinician's name, once all is decided on."""
        why_not = await self._unseen(seat) or self._why_not(seat)
        if why_not or self.desk is None:
            raise NotNowError(why_not)
        await self._check_open(seat)
        run = seat.run
        opened = await asyncio.to_thread(self.kept.opened_at, run.run_id, seat.actor)
        items = await asyncio.to_thread(self._of_run, run)
        disposals = await asyncio.to_thread(self.kept.disposals, run.run_id, seat.actor)
        left = still_open(items, disposals)
        if left or opened is None:
            raise NotNowError(f"{len(left)} must be decided on first. Nothing was attested.")
        edits = await asyncio.to_thread(self.kept.edits_of, run.run_id, seat.actor)
        changes = changes_of(disposals, edits)
        async with self.desk() as desk:
            if await asyncio.to_thread(_has_draft, desk, run):
                filed = await attest(desk, run.document, by=seat.by, actor=seat.actor, changes=changes)
            else:
                filed = await attest_run(desk, run, by=seat.by, actor=seat.actor, changes=changes)
        found = measure(run.summary, disposals, edits)
        attested = Attested(
            run.run_id, run.inputs.patient, filed, seat.by, seat.actor, opened, self.clock(), found.edits,
            found.distance, found.machine_characters, found.rejected,
        )  # fmt: skip
        await asyncio.to_thread(self.kept.keep_attested, attested)
        return "#content"

    async def _hide(self, seat: Seat, fields: Mapping[str, str]) -> str:
        """Show the run to nobody from now on; withdraw its document too only where that is asked for."""
        reason = plain_words(fields.get("reason", ""), LONGEST_REASON)
        if not reason:
            raise NotNowError("Say in a few words why, for those who look at this next.")
        run = seat.run
        await self._note(seat, Action.STOP, run.document, outcome="stopped:run")
        hidden = Hidden(
            run.run_id, run.inputs.patient, seat.by, seat.actor, self.clock(), reason, run.document
        )
        await asyncio.to_thread(self.kept.hide, hidden)
        if fields.get("withdraw"):
            if not seat.is_clinician:
                raise NotNowError("It is hidden. To withdraw it, your sign-in must name you as a clinician.")
            await self._withdraw(seat, fields)
        return ""

    async def _lift(self, seat: Seat, fields: Mapping[str, str]) -> str:
        await self._note(seat, Action.STOP, seat.run.document, outcome="lifted:run")
        await asyncio.to_thread(self.kept.lift, seat.run.run_id, seat.actor, self.clock())
        return ""

    async def _withdraw(self, seat: Seat, fields: Mapping[str, str]) -> str:
        """Withdraw the document that stands in the EHR: the attested one, else the draft."""
        reason = plain_words(fields.get("reason", ""), LONGEST_REASON)
        if not reason:
            raise NotNowError("A withdrawal needs a reason.")
        attested = await asyncio.to_thread(self.kept.attested_of, seat.run.run_id)
        document = attested.document if attested is not None else seat.run.document
        if not document or self.desk is None or not self.is_ours(seat.run.inputs.server):
            raise NotNowError("Nothing of this summary stands in the record system.")
        async with self.desk() as desk:
            done = await withdraw(desk, document, reason=reason, by=seat.by, actor=seat.actor)
        if done.not_withdrawn:
            raise NotNowError(f"Not withdrawn: {', '.join(done.not_withdrawn)}.")
        return ""

    async def _note(self, seat: Seat, action: Action, target: str, outcome: str = "ok") -> None:
        run = seat.run
        entry = AuditEntry(
            action, seat.actor, run.inputs.patient, self.clock(), outcome=outcome, run_id=run.run_id,
            target=target, server=run.inputs.server, by=seat.by,
        )  # fmt: skip
        try:
            await asyncio.to_thread(self.audit.append, entry)
        except Exception:
            raise AuditFailedError from None


def _has_draft(desk: Desk, run: StoredRun) -> bool:
    """Tell whether a draft of a run was filed.

    One that was kept until attested has none, and after a crash its document may be the attested one already.
    """
    row = desk.known(run.document.partition("/_history")[0]) if run.document else None
    return bool(run.document) and (row is None or row.state is not DocumentState.ATTESTED)


def _sources_of(run: StoredRun, clock: Clock) -> Mapping[str, Source]:
    """Return each source as the pages show it, by the fact's id."""
    shown = build_page(run, clock())
    by_number = {source.number: source for source in shown.sources}
    facts = {fact.id: fact for fact in run.summary.facts}
    numbers = number_sources(run.summary, facts)
    return {fact_id: by_number[number] for fact_id, number in numbers.items() if number in by_number}


def _shown(
    item: Item, disposal: Disposal | None, edits: Mapping[int, Edit], sources: Mapping[str, Source]
) -> ShownItem:
    claims = item.section.claims if item.claim is None else (item.claim,)
    cited = [fact_id for claim in claims for fact_id in claim.citations]
    found = tuple(sources[one] for one in dict.fromkeys(cited) if one in sources)
    if disposal is None:
        return ShownItem(item, found)
    edit = edits.get(item.ordinal) if item.ordinal is not None else None
    return ShownItem(
        item, found, _SAYS[disposal.act], disposal.reason,
        edit.after if edit else "", word_diff(edit.before, edit.after) if edit else (),
        edit.distance if edit else 0,
    )  # fmt: skip
