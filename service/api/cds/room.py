"""The routes of CDS Hooks: discovery, one call of a hook, and what became of its cards.

The caller is checked before a body is read. A card is shown only after its view stands in the audit log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response

from connectors.admissions.events import Admitted, Source, Subject, Visit
from connectors.errors import ConnectorError
from service.admissions.form import dump_events
from service.api.body import BodyRefusedError
from service.api.cds.call import Call, read_call
from service.api.cds.card import Told, build_card
from service.api.cds.feedback import read_feedback
from service.api.cds.outcome import CallRefused, outcome
from service.api.cds.prefetch import Opener, compare, fetch_missing, is_same_person, read_prefetch
from service.api.cds.rate import Rate
from service.api.cds.services import SERVICES, Service, discovery
from service.api.gate import Refusals
from service.ehrs import is_same_server
from service.errors import ShreddedError, StoreError
from service.filing.stopped import is_stopped
from service.identity.cds import Caller, Callers
from service.identity.refusal import Refused
from service.ports import (
    Action,
    AdmissionStore,
    AuditEntry,
    AuditLog,
    Clock,
    DocumentState,
    FiledDocument,
    Stop,
    StoredRun,
)
from service.ports.hooks import CardFeedback, HookStore, ShownCard

PATH: Final = "/cds-services"
SERVICE_PATH: Final = PATH + "/{service_id}"
FEEDBACK_PATH: Final = SERVICE_PATH + "/feedback"
LAUNCH: Final = "/launch"
NOT_VERIFIED: Final = " (not verified)"
"""Behind the user whom an EHR names: its own word, and not ours."""
_KEEP_PREFLIGHT_S: Final = 600
STAY: Final = "admission"
HISTORY: Final = "history"


class Summaries(Protocol):
    """What of the store a card is made from. Every method raises StoreError."""

    def newest(self, server: str, patient: str, kind: str, encounter: str = "") -> StoredRun | None:
        """Return the newest run that may be shown, or None."""
        ...

    def stops(self) -> Sequence[Stop]:
        """Return what is halted now."""
        ...

    def get_document(self, server: str, document: str) -> FiledDocument | None:
        """Return what is known of a document of ours."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """A summary that may be shown, and where its document stands."""

    run: StoredRun
    state: DocumentState | None


@dataclass
class CdsHooks:
    """The services. `opener` reads an EHR with what it granted for one call.

    `swept` is the server whose admissions are summarised by schedules: for its patients a visit is asked for
    where there is no summary yet.
    """

    callers: Callers
    store: Summaries
    kept: HookStore
    admissions: AdmissionStore
    audit: AuditLog
    clock: Clock
    refusals: Refusals
    opener: Callable[[Caller], Opener]
    swept: str = ""
    rate: Rate = field(default_factory=lambda: Rate(time.monotonic))

    def __post_init__(self) -> None:
        self._origins = frozenset(origin for caller in self.callers.known for origin in caller.origins)

    def add_to(self, app: FastAPI) -> None:
        """Add the routes; a browser of an EHR asks with OPTIONS first."""
        for path, endpoint, method in (
            (PATH, self.discover, "GET"),
            (SERVICE_PATH, self.called, "POST"),
            (FEEDBACK_PATH, self.told, "POST"),
        ):
            app.add_api_route(path, endpoint, methods=[method], response_model=None)
            app.add_api_route(path, self.preflight, methods=["OPTIONS"], response_model=None)

    async def discover(self, request: Request) -> Response:
        """Say which services there are. It names no patient, and asks for no caller."""
        return self._shared(request, _json(discovery()))

    async def preflight(self, request: Request) -> Response:
        """Say to a page of a configured EHR what it may send."""
        answer = self._shared(request, Response(status_code=204))
        if "access-control-allow-origin" in answer.headers:
            answer.headers["Access-Control-Allow-Methods"] = "GET, POST"
            answer.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
            answer.headers["Access-Control-Max-Age"] = str(_KEEP_PREFLIGHT_S)
        return answer

    async def called(self, request: Request, service_id: str) -> Response:
        """Answer one call of a hook."""
        return await self._guarded(request, service_id, "", self._cards)

    async def told(self, request: Request, service_id: str) -> Response:
        """Keep what became of cards."""
        return await self._guarded(request, service_id, "/feedback", self._keep_feedback)

    async def _guarded(
        self,
        request: Request,
        service_id: str,
        below: str,
        answer: Callable[[Service, Caller, Request], Awaitable[Response]],
    ) -> Response:
        """Check the caller, read the body, answer; and refuse in words that hold nothing of the call."""
        try:
            caller = await self._caller(request, service_id, below)
            service = SERVICES.get(service_id)
            if service is None:
                raise CallRefused(404, "not-found", "There is no such service here.")
            found = await answer(service, caller, request)
        except CallRefused as refused:
            headers = _HEADERS.get(refused.status, {})
            found = outcome(refused.status, refused.code, refused.words, headers)
        except BodyRefusedError as refused:
            found = outcome(refused.status, "too-long", "The call is too large, or came too slowly.")
        except StoreError:
            found = outcome(503, "transient", "The store of summaries cannot be used.", _HEADERS[503])
        return self._shared(request, found)

    async def _caller(self, request: Request, service_id: str, below: str) -> Caller:
        """Return who calls. Raises CallRefused, and StoreError.

        A token is for the address that was called, which is one of the names that we answer to.
        """
        service = f"{_base_of(request)}{PATH}/{service_id}"
        try:
            caller = await self.callers.check(_bearer(request), list({service, service + below}))
        except Refused as refused:
            await asyncio.to_thread(self.refusals.record, refused.reason)
            raise CallRefused(401, "login", "The caller's token was not accepted.") from None
        except ConnectorError:
            raise CallRefused(503, "transient", "The caller's keys cannot be had at the moment.") from None
        if not self.rate.take(caller.ehr):
            raise CallRefused(429, "throttled", "There are too many calls of this EHR at the moment.")
        return caller

    async def _cards(self, service: Service, caller: Caller, request: Request) -> Response:
        call = read_call(await request.body(), service, caller)
        chart = read_prefetch(call, caller.server)
        if not call.user:  # a patient or a relative: summaries are not for them
            return _json({"cards": []})
        found = await asyncio.to_thread(self._find, caller, call)
        if found is None:
            return _json({"cards": []})
        chart = await fetch_missing(call, chart, self.opener(caller))
        if not is_same_person(found.run, chart.patient):
            return _json({"cards": []})
        told = Told(
            found.run,
            found.state is DocumentState.ATTESTED,
            compare(found.run, chart),
            self.kept.card_of(caller.ehr, found.run.run_id),
            _base_of(request) + LAUNCH,
        )
        try:
            async with self.callers.turn:
                await asyncio.to_thread(self._record, caller, call, told)
        except ShreddedError:  # destroyed while the call was answered
            return _json({"cards": []})
        return _json({"cards": [build_card(told, self.clock())]})

    def _find(self, caller: Caller, call: Call) -> Found | None:
        """Return the summary to speak of; where there is none yet, ask for a visit of the next pass."""
        try:
            run = self._newest(caller, call)
        except ShreddedError:
            return None
        if run is None:
            self._ask_for_visit(caller, call)
            return None
        if is_stopped(run, self.store.stops()):
            return None
        state = self._state_of(run)
        return None if state is DocumentState.WITHDRAWN else Found(run, state)

    def _newest(self, caller: Caller, call: Call) -> StoredRun | None:
        """Return the summary of the stay that is named, else of the patient."""
        of_stay, of_patient = (STAY, call.encounter), (HISTORY, "")
        for kind, encounter in (of_stay, of_patient) if call.encounter else (of_patient, of_stay):
            run = self.store.newest(caller.server, call.patient, kind, encounter)
            if run is not None:
                return run
        return None

    def _state_of(self, run: StoredRun) -> DocumentState | None:
        reference = run.document.partition("/_history/")[0]
        known = self.store.get_document(run.inputs.server, reference) if reference else None
        return None if known is None else known.state

    def _ask_for_visit(self, caller: Caller, call: Call) -> None:
        """Put a stay on the list of the next pass, once a day; whether it is eligible is decided there."""
        if not is_same_server(caller.server, self.swept):
            return
        now = self.clock()
        event = Admitted(
            patient=Subject(call.patient),
            visit=Visit(call.encounter),
            source=Source.HAND,
            key=f"cds/{call.encounter or call.patient}/{now:%Y-%m-%d}",
        )
        if self.admissions.hear(dump_events([event])):
            self.admissions.nudge()

    def _record(self, caller: Caller, call: Call, told: Told) -> None:
        """Record that a card is shown, in the name that the EHR gave. Raises StoreError: it is then not."""
        run = told.run
        card = ShownCard(told.card_id, caller.ehr, caller.server, call.patient, run.run_id)
        self.kept.keep_card(card)
        self.audit.append(
            AuditEntry(
                Action.VIEW, caller.actor, call.patient, self.clock(), run_id=run.run_id, target=run.document,
                server=caller.server, by=call.user + NOT_VERIFIED, counts={"cards": 1},
            )
        )  # fmt: skip

    async def _keep_feedback(self, service: Service, caller: Caller, request: Request) -> Response:
        said = read_feedback(await request.body())
        kept = await asyncio.to_thread(self._keep, caller, said)
        if not kept:
            raise CallRefused(404, "not-found", "None of these cards is known here.")
        return _json({})

    def _keep(self, caller: Caller, said: Sequence[CardFeedback]) -> int:
        """Keep what was said of cards that this EHR was shown, and return of how many that is."""
        known = 0
        for card_id in dict.fromkeys(one.card for one in said):
            card = self.kept.find_card(card_id)
            if card is None or card.ehr != caller.ehr:
                continue
            known += 1
            about = [one for one in said if one.card == card_id]
            with suppress(ShreddedError):
                new = self.kept.keep_feedback(card, about, self.clock())
                self._record_feedback(caller, card, about, new)
        return known

    def _record_feedback(
        self, caller: Caller, card: ShownCard, about: Sequence[CardFeedback], new: int
    ) -> None:
        counts = {
            outcome: sum(one.outcome == outcome for one in about) for outcome in ("accepted", "overridden")
        }
        self.audit.append(
            AuditEntry(
                Action.FEEDBACK, caller.actor, card.patient, self.clock(), run_id=card.run_id,
                server=card.server, counts={**counts, "new": new},
            )
        )  # fmt: skip

    def _shared(self, request: Request, answer: Response) -> Response:
        """Let a page of a configured EHR read the answer (CORS), and no other page."""
        answer.headers["Vary"] = "Origin"
        origin = request.headers.get("origin", "")
        if origin in self._origins:
            answer.headers["Access-Control-Allow-Origin"] = origin
        return answer


_HEADERS: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": 'Bearer error="invalid_token"'},
    429: {"Retry-After": "1"},
    503: {"Retry-After": "10"},
}


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _bearer(request: Request) -> str:
    """Return the one token of a request; empty where there is none, or more than one."""
    shown = request.headers.getlist("authorization")
    scheme, _, token = shown[0].partition(" ") if len(shown) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else ""


def _base_of(request: Request) -> str:
    """Return our own address as the caller wrote it."""
    return f"{request.url.scheme}://{request.headers.get('host', '')}"
