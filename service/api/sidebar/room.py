"""The routes of the sidebar, over the store, the audit log and the record as the launch's user reads it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Path, Query, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from connectors.errors import ConnectorError, RefusedError, TimedOut
from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from connectors.fhir.partial import ENDED, pull_part
from connectors.fhir.patient import Search, read_patient
from connectors.fhir.pull import Pull
from connectors.fhir.sight import LIMIT_S, FhirSight, ids_by_type
from service.api.answers import AskView
from service.api.app import AuditFailedError
from service.api.ask import AskRoom
from service.api.disputes import marks_of
from service.api.feedback import SIDEBAR, Feedbacks, Taps
from service.api.form import is_partial
from service.api.freshness import Ask
from service.api.gate import launch_of, visitor_of
from service.api.pages import TITLES, build_banner, build_page, number_sources
from service.api.render import page
from service.api.sidebar.changes import tell_changes
from service.api.sidebar.evidence import build_evidence
from service.api.sidebar.making import Making, stream
from service.api.sidebar.sheet import NOTICES, Sheet, Standing, View, build_sheet, notice
from service.api.sidebar.strip import build_strip, failed_strip
from service.api.stream import MEDIA_TYPE, last_event_id
from service.context.templates import Library
from service.errors import EpicrisisError, ShreddedError
from service.filing.stopped import find_stop, is_stopped
from service.identity.visitor import STAFF, Role
from service.live import LIMIT_S as LIVE_LIMIT_S
from service.live import read_live
from service.ports import (
    Action,
    AuditEntry,
    AuditLog,
    Clock,
    DocumentState,
    FiledDocument,
    FilingStore,
    RunId,
    StopScope,
    StoredRun,
)
from service.ports.attesting import AttestingStore
from service.ports.feedback import FeedbackStore
from service.ports.launches import Charts, Launch
from service.record.assemble import Policy, assemble_record, stop_reason
from service.record.facts import Fact, Identity
from service.sight import Sight, cited_facts, look, seen_by, sources_seen
from service.staleness import Freshness, Lookout, Staleness

LAST_NUMBER: Final = 1_000_000
FIRST: Final = "history"
"""The view that opens where nobody says which."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
LOOKS_AT_A_TIME: Final = 4
"""Pages of one process that ask one record system at the same time. More would only wait for each other, and
what a page waits for is limited in time: it would say of some sources that they could not be checked."""
_PATIENT_IS_UNKNOWN: Final = Identity("", "", "", "", "")
Visit = Annotated[str, Query(max_length=64)]


@dataclass(frozen=True, slots=True)
class Opened:
    """What opening a chart brought: who the patient is, what this user may read, or why neither is known."""

    identity: Identity | None = None
    sight: Sight = field(default_factory=lambda: Sight({}))
    stop: str = ""
    error: ConnectorError | None = None

    @property
    def has_ended(self) -> bool:
        """Tell whether the user's token is not good any more."""
        return self.sight.has_ended or isinstance(self.error, ENDED)


@dataclass(frozen=True, slots=True)
class Shown:
    """One view as it is shown, and the run behind it where that may be named."""

    opened: Opened
    sheet: Sheet
    run: StoredRun | None = None

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Facts of the run that this user can read now: what may be suggested to ask about."""
        if self.run is None:
            return ()
        seen = (sources_seen(fact, self.opened.sight) for fact in cited_facts(self.run.summary))
        return tuple(fact for fact in seen if fact is not None)


@dataclass
class Sidebar:
    """The sidebar of one installation. `library` holds the kinds of summary that may be looked at."""

    store: FilingStore
    audit: AuditLog
    clock: Clock
    charts: Charts
    library: Library
    policy: Policy = field(default_factory=Policy)
    version: str = ""
    feedback: FeedbackStore | None = None
    feedbacks: Feedbacks | None = None
    attesting: AttestingStore | None = None
    asks: AskRoom | None = None
    making: Making | None = None
    ask: Ask | None = None
    """Compares a run of our own connection with its chart."""
    has_viewer: bool = False
    """Whether the images of a source can be looked at."""
    limit_s: float = LIMIT_S
    kinds: Mapping[str, str] = field(init=False)
    """The views: a template set's id → its title."""
    _warming: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _looks: dict[str, asyncio.Semaphore] = field(default_factory=dict, init=False)
    """By server: a slow one holds up nobody else's pages."""

    def __post_init__(self) -> None:
        first = sorted(self.library.available(), key=lambda kind: (kind != FIRST, kind))
        self.kinds = {kind: self.library.load(kind).title for kind in first}

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        for path, endpoint in (
            ("/sidebar", self.page),
            ("/sidebar/summary", self.summary),
            ("/sidebar/live", self.live),
            ("/sidebar/freshness", self.freshness),
            ("/sidebar/sources/{n}", self.source),
            ("/sidebar/stream", self.stream),
        ):
            app.add_api_route(path, endpoint, methods=["GET"], response_model=None)
        app.add_api_route("/sidebar/generate", self.generate, methods=["POST"], response_model=None)
        app.add_api_route("/sidebar/stop", self.stop, methods=["POST"], response_model=None)

    async def page(self, request: Request, view: str = "") -> Response:
        """Show the whole sidebar: the stored summary stands in the first answer, the rest follows at once."""
        launch = launch_of(request)
        kind = self._kind(launch, view)
        shown = await self._shown(launch, kind)
        if shown is None:
            return _over()
        self._warm(launch, kind)
        identity = shown.opened.identity or _PATIENT_IS_UNKNOWN
        banner = build_banner(identity, self.clock().date())
        attests = _may_attest(request, shown)
        values = await self._values(launch, kind, shown)
        return page("sidebar/page.html", banner=banner, attests=attests, **values)

    async def summary(self, request: Request, view: str = "") -> Response:
        """Show one view below the live strip."""
        launch = launch_of(request)
        kind = self._kind(launch, view)
        shown = await self._shown(launch, kind)
        if shown is None:
            return _over()
        attests = _may_attest(request, shown)
        return page("sidebar/view.html", attests=attests, **await self._values(launch, kind, shown))

    async def live(self, request: Request, view: str = "") -> Response:
        """Show what is read live before the stored text (SAFETY 22)."""
        launch = launch_of(request)
        kind = self._kind(launch, view)
        try:
            run = await asyncio.to_thread(self._newest, launch, kind)
        except ShreddedError:
            run = None
        try:
            async with self.charts.open(launch) as client:
                found = await read_live(
                    _Part(client, launch.patient, self.clock), launch.patient,
                    now=self.clock(), summary=run.summary if run else None,
                    read_up_to=run.read_at if run else None, encounter=launch.encounter,
                    policy=self.policy, base_url=launch.server,
                )  # fmt: skip
        except ConnectorError as error:
            await self._note_read(launch, error.code)
            if isinstance(error, ENDED):
                return _over()
            return page("sidebar/_live.html", strip=failed_strip(self.clock()), stop="")
        await self._note_read(launch)
        return page("sidebar/_live.html", strip=build_strip(found), stop=found.stop)

    async def freshness(self, request: Request, run: str) -> Response:
        """Say what changed in the chart since a summary was made."""
        launch = launch_of(request)
        stored = await asyncio.to_thread(self._run, launch, run)
        try:
            async with self.charts.open(launch) as client:
                found = await self._compared(launch, stored, client)
                changed = (change.reference for change in found.changes)
                sight = await self._sight_of(launch, client, changed)
        except ConnectorError as error:
            if isinstance(error, ENDED):
                return _over()
            found = _unknown(stored, f"the chart could not be read ({error.code})")
            sight = Sight({})
        return page("sidebar/_freshness.html", changes=tell_changes(found, sight))

    async def source(
        self, request: Request, n: Annotated[int, Path(ge=1, le=LAST_NUMBER)], run: str
    ) -> Response:
        """Show the evidence of one citation, as far as this user can read it now."""
        launch = launch_of(request)
        stored = await asyncio.to_thread(self._run, launch, run)
        facts = {fact.id: fact for fact in stored.summary.facts}
        numbers = {number: fact_id for fact_id, number in number_sources(stored.summary, facts).items()}
        if n not in numbers:
            raise HTTPException(404)
        fact = facts[numbers[n]]
        live = await self._read_now(launch, fact.source.reference)
        await self._note_view(launch, stored, fact.source.reference)
        shown = build_page(_without_copies(stored), self.clock())
        policy = replace(self.policy, keep_restricted=True)
        evidence = build_evidence(shown, n, fact, stored.summary.facts, live, policy)
        alone = not is_partial(request)
        return page(
            "sidebar/source.html" if alone else "sidebar/_source.html",
            evidence=evidence, launch=launch, run_id=stored.run_id,
            viewer_at="/sidebar" if self.has_viewer else "",
        )  # fmt: skip

    async def generate(self, request: Request, view: str = "", again: bool = False) -> Response:
        """Begin a summary for this reader, or join the one that is being made."""
        launch = launch_of(request)
        kind = self._kind(launch, view)
        if self.making is None:
            raise HTTPException(404)
        try:
            made = await self.making.start(launch, kind, again=again)
        except (EpicrisisError, ConnectorError) as error:
            return page("sidebar/_failed.html", code=error.code, launch=launch, kind=kind)
        if not is_partial(request):
            return RedirectResponse(f"/sidebar?visit={launch.visit}&view={kind}", status_code=303)
        return page("sidebar/_generating.html", generation=made, launch=launch, kind=kind)

    async def stream(self, request: Request, generation: str) -> Response:
        """Tell, as server-sent events, how far a summary is and what of it passed the rules."""
        launch = launch_of(request)
        if self.making is None or not _ID.fullmatch(generation):
            raise HTTPException(404)
        found = await self.making.find(launch, generation)
        if found is None:
            raise HTTPException(404)
        told = self.making.follow(launch, found.id, last_event_id(request) or 0)
        titles = {rule.key: rule.title for rule in self.library.load(found.asked.kind).sections}
        return StreamingResponse(
            stream(told, titles), media_type=MEDIA_TYPE, headers={"X-Accel-Buffering": "no"}
        )

    async def stop(self, request: Request, generation: str) -> Response:
        """Stop a summary that is being made."""
        launch = launch_of(request)
        found = (
            await self.making.find(launch, generation) if self.making and _ID.fullmatch(generation) else None
        )
        if self.making is None or found is None:
            raise HTTPException(404)
        await self.making.on_demand.cancel(found.id)
        return Response(status_code=204)

    def _kind(self, launch: Launch, view: str) -> str:
        """Return the view that is asked for, or that a card named (anybody may have), or the first."""
        if view and view not in self.kinds:
            raise HTTPException(404)
        said = launch.context.get("view", "")
        return view or (said if said in self.kinds else next(iter(self.kinds)))

    async def _stored(self, launch: Launch, kind: str) -> tuple[StoredRun | None, Sheet | None]:
        """Return the run to show; or the notice that stands in its place."""
        title = self.kinds[kind]
        if self.feedback is not None and await asyncio.to_thread(self.feedback.is_off, launch.actor):
            return None, notice(kind, title, Standing.OFF)
        try:
            run = await asyncio.to_thread(self._newest, launch, kind)
            if run is None:
                return None, notice(kind, title, Standing.NONE, may_make=self.making is not None)
            stops = await asyncio.to_thread(self.store.stops)
        except ShreddedError:
            return None, notice(kind, title, Standing.DESTROYED)
        stop = find_stop(run, stops)
        if stop is not None and stop.scope is StopScope.RUN:
            return None, replace(notice(kind, title, Standing.HIDDEN), hidden_run=run.run_id)
        if stop is not None:
            return None, notice(kind, title, Standing.STOPPED)
        return run, None

    def _newest(self, launch: Launch, kind: str) -> StoredRun | None:
        return self.store.newest(launch.server, launch.patient, kind, launch.encounter, launch.access_profile)

    def _run(self, launch: Launch, run_id: str) -> StoredRun:
        """Return a run about this launch's patient that is not stopped. Raises 404, 423."""
        run = self.store.get(RunId(run_id)) if _ID.fullmatch(run_id) else None
        if run is None or (run.inputs.server.rstrip("/"), run.inputs.patient) != (
            launch.server,
            launch.patient,
        ):
            raise HTTPException(404)
        if is_stopped(run, self.store.stops()):
            raise HTTPException(423)
        return run

    async def _open(self, launch: Launch, run: StoredRun | None) -> Opened:
        """Read, as the user and at once, who the patient is and what of a stored run they may see."""
        try:
            turn = self._looks.setdefault(launch.server, asyncio.Semaphore(LOOKS_AT_A_TIME))
            async with turn, self.charts.open(launch) as client:
                reads = FhirSight(client, launch.patient, launch.scope, self.limit_s)
                sight, patient = await asyncio.gather(
                    look(reads, run.summary) if run else _nothing(), self._patient(client, launch)
                )
        except ConnectorError as error:
            await self._note_read(launch, error.code)
            return Opened(error=error)
        if isinstance(patient, ConnectorError):
            await self._note_read(launch, patient.code)
            return Opened(sight=sight, error=patient)
        await self._note_read(launch)
        record = assemble_record([patient], launch.patient.removeprefix("Patient/"), policy=self.policy)
        stop = stop_reason([patient], launch.patient.removeprefix("Patient/")) or ""
        return Opened(record.identity, sight, stop)

    async def why_not_whole(self, launch: Launch, run: StoredRun) -> str:
        """Return why this user cannot answer for a run's text; empty where they see all that it rests on."""
        opened = await self._open(launch, run)
        why = Standing.UNCHECKED if opened.has_ended else _hindrance(run, opened)
        if why is not None:
            return f"{NOTICES[why][0]}."
        _, withheld = seen_by(run.summary, opened.sight)
        return "Some of what this summary rests on cannot be read by your account." if withheld else ""

    async def _patient(self, client: FhirClient, launch: Launch) -> dict[str, Any] | ConnectorError:
        try:
            async with asyncio.timeout(self.limit_s):
                return await read_patient(client, launch.patient.removeprefix("Patient/"))
        except TimeoutError:
            return TimedOut("The chart did not answer in time.")
        except ConnectorError as error:
            return error

    async def _shown(self, launch: Launch, kind: str) -> Shown | None:
        """Return what is shown of a kind; None where the user's session with the EHR is over."""
        run, sheet = await self._stored(launch, kind)
        opened = await self._open(launch, run)
        if opened.has_ended:
            return None
        why = _hindrance(run, opened)
        if why is not None:
            return Shown(opened, notice(kind, self.kinds[kind], why, opened.stop))
        if sheet is not None or run is None:
            return Shown(opened, sheet or notice(kind, self.kinds[kind], Standing.NONE))
        return Shown(opened, await self._sheet(launch, kind, run, opened.sight), run)

    async def _sheet(self, launch: Launch, kind: str, run: StoredRun, sight: Sight) -> Sheet:
        """Return a stored run as this user may see it; the view is on record first."""
        await self._note_view(launch, run, run.document)
        marks = await asyncio.to_thread(marks_of, self.feedback, run, self.attesting)
        documents = await asyncio.to_thread(self._attested, launch, kind)
        return build_sheet(
            run, sight, marks, self.clock(), view=kind, title=self.kinds[kind], documents=documents,
            may_make=self.making is not None,
        )  # fmt: skip

    def _attested(self, launch: Launch, kind: str) -> Sequence[FiledDocument]:
        """Return this patient's attested documents of a kind on this server, newest first."""
        found = []
        for one in self.store.documents_of(launch.patient):
            if one.state is DocumentState.ATTESTED and one.server.rstrip("/") == launch.server:
                run = self.store.get(one.run_id)
                if run is not None and run.inputs.kind == kind:
                    found.append(one)
        return found

    async def _compared(self, launch: Launch, run: StoredRun, client: FhirClient) -> Staleness:
        """Compare a run with its chart, with the same rights that it was made with."""
        if run.inputs.access_profile == client.session.auth.profile:
            lookout = Lookout(FhirEhr(client, now=self.clock), self.audit, self.clock, self.policy)
            return await lookout.ask(run, launch.actor)
        if self.ask is None:
            return _unknown(run, "it was made with other rights to read than yours")
        return await self.ask(run, launch.actor)

    async def _sight_of(self, launch: Launch, client: FhirClient, references: Any) -> Sight:
        return Sight(
            await FhirSight(client, launch.patient, launch.scope, self.limit_s).see(ids_by_type(references))
        )

    async def _read_now(self, launch: Launch, reference: str) -> dict[str, Any] | ConnectorError:
        try:
            async with self.charts.open(launch) as client, asyncio.timeout(self.limit_s):
                return await client.read(reference)
        except TimeoutError:
            return TimedOut("The chart did not answer in time.")
        except ConnectorError as error:
            return error

    async def _note_view(self, launch: Launch, run: StoredRun, target: str) -> None:
        await self._note(
            AuditEntry(
                Action.VIEW, launch.actor, launch.patient, self.clock(), run_id=run.run_id, target=target,
                server=launch.server, by=launch.fhir_user,
            )
        )  # fmt: skip

    async def _note_read(self, launch: Launch, outcome: str = "ok") -> None:
        await self._note(
            AuditEntry(
                Action.READ, launch.actor, launch.patient, self.clock(), outcome=outcome,
                server=launch.server, by=launch.fhir_user,
            )
        )  # fmt: skip

    async def _note(self, entry: AuditEntry) -> None:
        try:
            await asyncio.to_thread(self.audit.append, entry)
        except Exception:
            raise AuditFailedError from None

    def _warm(self, launch: Launch, kind: str) -> None:
        """Have the engine read the chart meanwhile: whoever opens a patient may ask for something."""
        if self.making is None:
            return
        task = asyncio.create_task(self.making.warm(launch, kind))
        self._warming.add(task)
        task.add_done_callback(self._warming.discard)

    async def _values(self, launch: Launch, kind: str, shown: Shown) -> dict[str, Any]:
        run, sheet = shown.run, shown.sheet
        return {
            "launch": launch,
            "sheet": sheet,
            "kind": kind,
            "views": tuple(View(key, _short(key), key == kind) for key in self.kinds),
            "run_id": run.run_id if run is not None else "",
            "version": self.version,
            "asking": await self._asking(launch, shown),
            "taps": await self._taps(launch, shown),
        }

    async def _asking(self, launch: Launch, shown: Shown) -> AskView | None:
        """Return the box for questions, where this user sees the patient at all."""
        if self.asks is None or shown.sheet.standing not in (Standing.STORED, Standing.NONE):
            return None
        run_id = shown.run.run_id if shown.run else ""
        return await asyncio.to_thread(self.asks.view, launch, shown.facts, run_id)

    async def _taps(self, launch: Launch, shown: Shown) -> Taps | None:
        """Return the feedback of this user on what is shown; None where none is taken."""
        if self.feedbacks is None or shown.run is None:
            return None
        read = partial(
            self.feedbacks.taps, shown.run.run_id, launch.actor, action=SIDEBAR, visit=launch.visit
        )
        return await asyncio.to_thread(read)


@dataclass(frozen=True, slots=True)
class _Part:
    """Reads a part of the record with one user's client."""

    client: FhirClient
    patient: str
    clock: Clock

    async def pull(self, searches: Sequence[Search]) -> Pull:
        return await pull_part(self.client, self.patient, searches, now=self.clock, limit_s=LIVE_LIMIT_S)


async def _nothing() -> Sight:
    return Sight({})


def _without_copies(run: StoredRun) -> StoredRun:
    """Return a run whose facts name no further sources: nobody looked whether this user can read them."""
    facts = tuple(replace(fact, copies=()) for fact in run.summary.facts)
    return replace(run, summary=replace(run.summary, facts=facts))


def _hindrance(run: StoredRun | None, opened: Opened) -> Standing | None:
    """Return why nothing that is stored is shown to this user; None where it may be."""
    if isinstance(opened.error, RefusedError):
        return Standing.FORBIDDEN
    if opened.stop:
        return Standing.UNUSABLE
    if opened.identity is None or opened.sight.has_failed:
        return Standing.UNCHECKED
    if run is None:
        return None
    then, now = run.summary.identity, opened.identity
    is_same = (then.record_number, then.birth_date) == (now.record_number, now.birth_date)
    return None if is_same else Standing.ANOTHER


def _may_attest(request: Request, shown: Shown) -> bool:
    """Tell whether to offer attesting: to a clinician whom the token names, of a text that they see."""
    by, roles = launch_of(request).fhir_user, visitor_of(request).roles
    return shown.run is not None and by.partition("/")[0] in STAFF and Role.CLINICIAN in roles


def _unknown(run: StoredRun, reason: str) -> Staleness:
    return Staleness(run.run_id, Freshness.UNKNOWN, run.read_at, None, reason=reason)


def _short(kind: str) -> str:
    return TITLES.get(kind, kind.capitalize())


def _over() -> Response:
    """Say that the user's session with the EHR is over."""
    return page("sidebar/over.html", 401)
