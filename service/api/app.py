"""The pages of Epicrisis: a list of summaries, and one summary beside its sources.

Nothing here writes to a chart, and no page of a run is shown before its view is in the audit log.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path as FilePath
from typing import Annotated, Final, Protocol

from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException

from service.api.access import AccessLog, LastResort
from service.api.disputes import marks_of
from service.api.export import export_run
from service.api.feedback import RUN as RUN_FEEDBACK
from service.api.feedback import Feedbacks, Taps
from service.api.freshness import Ask, add_freshness
from service.api.gate import Access, Gate, Launched, Refusals, may, visitor_of
from service.api.keys import Jwks, add_keys
from service.api.pages import build_page, list_runs
from service.api.problem import Problems
from service.api.render import page, plain_page
from service.api.review.frame import has_console
from service.api.security import HostAllowList, SecurityHeaders, check_bind
from service.api.table import check_routes, read_table
from service.api.ward import Ward
from service.errors import ExpiredError, ShreddedError, StoreError
from service.filing.stopped import is_stopped
from service.identity.visitor import Visitor
from service.ports import Action, AuditEntry, AuditLog, Clock, FilingStore, RunId, StoredRun
from service.ports.attesting import AttestingStore
from service.ports.feedback import FeedbackStore

__all__ = ["ROWS_A_PAGE", "check_bind", "create_app"]

ROWS_A_PAGE: Final = 50
LAST_PAGE: Final = 1_000_000
"""Far beyond any list, and small enough for a database's integers."""
READS: Final = ["GET", "HEAD"]
STATIC: Final = FilePath(__file__).parent / "static"

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

_SENTENCES: Final = {
    400: "Epicrisis does not understand this address.",
    404: "There is no such page or summary here.",
    405: "This page can be read, and nothing else.",
    410: "What was stored about this patient was destroyed. The chart is not affected.",
    423: "This summary is stopped: it is not shown until the stop is lifted. The chart is not affected.",
}
_BACK: Final = "Go back to the list of summaries."


class Room(Protocol):
    """Routes that belong together, with what they need."""

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        ...


VIEWER = "/runs/{run_id}/viewer/{n}"
"""Where a source's images are looked at (`service.api.viewer`)."""


class AuditFailedError(Exception):
    """The view could not be recorded, so it does not happen."""


def create_app(
    *,
    store: FilingStore,
    audit: AuditLog,
    clock: Clock,
    access: Access,
    allowed_hosts: tuple[str, ...],
    version: str,
    ask: Ask | None = None,
    jwks: Jwks | None = None,
    ward: Ward | None = None,
    rooms: Sequence[Room] = (),
    launched: Launched | None = None,
    feedback: FeedbackStore | None = None,
    feedbacks: Feedbacks | None = None,
    closing: Sequence[Callable[[], Awaitable[None]]] = (),
    guard: Callable[[Request], Awaitable[None]] | None = None,
    attesting: AttestingStore | None = None,
) -> FastAPI:
    """Return the application. It answers under `allowed_hosts` alone; serve it with `access_log=False`.

    `access` says who a visitor is; what each may do stands in `routes.toml`, and a route without a row there
    raises SettingsError.
    `ask` compares a stored run with its chart; without it no page says whether a summary still holds.
    `jwks` are the public keys that documents are signed with; `ward` is what the ward's page needs.
    `rooms` are what this installation has besides, each with routes of its own.
    `launched` says who came by a launch from an EHR; without it nobody does.
    `feedback` says which statements are disputed; without it none is. `feedbacks` takes what is said of them.
    `closing` is called when the application ends, the last one first.
    `attesting` says what clinicians changed when they attested; without it nothing was.
    `guard` is asked before every route, and raises where what the route names is withheld from who asks.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for close in closing:
                stack.push_async_callback(close)
            yield

    app = FastAPI(
        title="Epicrisis", version=version, docs_url=None, redoc_url=None, openapi_url=None,
        lifespan=lifespan, dependencies=[Depends(guard)] if guard is not None else [],
    )  # fmt: skip
    pages = Pages(
        store, audit, clock, version, has_ward=ward is not None, feedback=feedback, feedbacks=feedbacks,
        attesting=attesting,
    )  # fmt: skip
    pages.add_to(app)
    add_freshness(app, pages.view, ask)
    add_keys(app, jwks)
    if ward is not None:
        ward.add_to(app)
    for room in (*rooms, *([feedbacks] if feedbacks is not None else [])):
        room.add_to(app)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    access.add_to(app)
    _add_errors(app)
    table = read_table()
    check_routes(app.router.routes, table)
    app.add_middleware(
        Gate,
        access=access,
        table=table,
        routes=lambda: app.router.routes,
        refusals=Refusals(audit, clock),
        launched=launched,
    )
    app.add_middleware(HostAllowList, allowed=allowed_hosts)
    app.add_middleware(LastResort)
    app.add_middleware(Problems)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(AccessLog)
    return app


class Pages:
    """The routes, over the store and the audit log that they need."""

    def __init__(
        self,
        store: FilingStore,
        audit: AuditLog,
        clock: Clock,
        version: str,
        *,
        has_ward: bool = False,
        feedback: FeedbackStore | None = None,
        feedbacks: Feedbacks | None = None,
        attesting: AttestingStore | None = None,
    ) -> None:
        self._store = store
        self._attesting = attesting
        self._feedback = feedback
        self._feedbacks = feedbacks
        self._has_ward = has_ward
        self._audit = audit
        self._clock = clock
        self._version = version

    def add_to(self, app: FastAPI) -> None:
        """Add every route for reading; `.json` stands before the route that would swallow it."""
        for path, endpoint in (
            ("/healthz", self.healthz),
            ("/", self.summaries),
            ("/runs/{run_id}.json", self.summary_as_json),
            ("/runs/{run_id}/sources/{n}", self.source),
            ("/runs/{run_id}", self.summary),
        ):
            app.add_api_route(path, endpoint, methods=READS, response_model=None)

    def healthz(self) -> Response:
        """Answer 200 once the store can be read."""
        try:
            self._store.rows(limit=1)
        except Exception:
            return JSONResponse({"status": "the store cannot be read"}, 503)
        return JSONResponse({"status": "ok"})

    def summaries(
        self, request: Request, number: Annotated[int, Query(alias="page", ge=1, le=LAST_PAGE)] = 1
    ) -> Response:
        """Show one page of the list, newest first."""
        before = (number - 1) * ROWS_A_PAGE
        rows, total = self._store.rows(limit=ROWS_A_PAGE, offset=before)
        last = max(1, -(-total // ROWS_A_PAGE))
        if number > last:
            raise HTTPException(404)
        runs = list_runs(rows, self._hides())
        return page(
            "summaries.html",
            runs=runs,
            hidden=len(rows) - len(runs),
            total=total,
            number=number,
            last=last,
            before=before,
            has_ward=self._has_ward,
            has_console=has_console(request),
            version=self._version,
        )

    def _hides(self) -> Callable[[RunId], bool]:
        """Tell of each run whether a stop hides it: the whole run decides, which a row does not hold."""
        stops = self._store.stops()

        def is_hidden(run_id: RunId) -> bool:
            try:
                run = self._store.get(run_id) if stops else None
            except ShreddedError:  # nothing is left that could be hidden
                return False
            return run is not None and is_stopped(run, stops)

        return is_hidden

    def summary(self, request: Request, run_id: str) -> Response:
        """Show one summary beside its sources."""
        run = self.view(run_id, visitor_of(request))
        shown = build_page(run, self._clock(), marks_of(self._feedback, run, self._attesting))
        attest_at = f"/review/attest/{run_id}" if may(request, "GET", "/review/attest/{run_id}") else ""
        taps = self._taps(request, run)
        return page(
            "summary.html", page=shown, version=self._version, taps=taps, attest_at=attest_at,
            review_at=f"/review/runs/{run_id}" if has_console(request) else "",
            viewer_at=_viewer_at(request, run_id),
        )  # fmt: skip

    def _taps(self, request: Request, run: StoredRun) -> Taps | None:
        """Return what this visitor has said and may say of a run; None for who may not."""
        if self._feedbacks is None or not may(request, "POST", RUN_FEEDBACK):
            return None
        action = RUN_FEEDBACK.format(run_id=run.run_id)
        return self._feedbacks.taps(run.run_id, visitor_of(request).actor, action=action)

    def source(self, request: Request, run_id: str, n: Annotated[int, Path(ge=1, le=LAST_PAGE)]) -> Response:
        """Show one source as a page of its own."""
        shown = build_page(self.view(run_id, visitor_of(request)), self._clock())
        found = shown.source(n)
        if found is None:
            raise HTTPException(404)
        viewer_at = _viewer_at(request, run_id)
        return page("source.html", page=shown, source=found, version=self._version, viewer_at=viewer_at)

    def summary_as_json(self, request: Request, run_id: str) -> Response:
        """Return one summary as JSON."""
        run = self.view(run_id, visitor_of(request), Action.EXPORT)
        disputed = marks_of(self._feedback, run).disputed
        return Response(export_run(run, disputed), media_type="application/json")

    def view(self, run_id: str, visitor: Visitor, action: Action = Action.VIEW) -> StoredRun:
        """Return a run whose viewing is on record. Raises 400, 404, StoreError or AuditFailedError."""
        if not _RUN_ID.fullmatch(run_id):
            raise HTTPException(400)
        run = self._store.get(RunId(run_id))
        if run is None:
            raise HTTPException(404)
        if is_stopped(run, self._store.stops()):
            raise HTTPException(423)
        entry = AuditEntry(
            action=action,
            actor=visitor.actor,
            patient=run.inputs.patient,
            at=self._clock(),
            run_id=run.run_id,
            target=run.document,
            server=run.inputs.server,
            by=visitor.fhir_user,
        )
        try:
            self._audit.append(entry)
        except Exception:
            raise AuditFailedError from None
        return run


def _viewer_at(request: Request, run_id: str) -> str:
    """Return where a run's images are looked at; empty where this visitor may not, or nobody can."""
    has_viewer = any(getattr(route, "path", "") == VIEWER for route in request.app.router.routes)
    return f"/runs/{run_id}" if has_viewer and may(request, "GET", VIEWER) else ""


def _add_errors(app: FastAPI) -> None:
    """Answer every error with a page in plain words that repeats nothing of the request."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        text = _SENTENCES.get(error.status_code, "Epicrisis cannot do this.")
        answer = plain_page(error.status_code, text, _BACK)
        answer.headers.update(error.headers or {})
        return answer

    async def misunderstood(request: Request, error: Exception) -> Response:
        return plain_page(400, _SENTENCES[400], _BACK)

    async def destroyed(request: Request, error: Exception) -> Response:
        if isinstance(error, ExpiredError):
            return plain_page(410, error.message, _BACK)
        return plain_page(410, _SENTENCES[410], _BACK)

    async def unreadable(request: Request, error: Exception) -> Response:
        return plain_page(
            503,
            "The store of summaries cannot be read.",
            "Type epicrisis doctor in a terminal to see why. The patient's chart is not affected.",
        )

    async def unrecorded(request: Request, error: Exception) -> Response:
        return plain_page(
            503,
            "This view could not be written to the audit log, so the page is not shown.",
            "Type epicrisis doctor in a terminal to see why. The patient's chart is not affected.",
        )

    app.add_exception_handler(StarletteHTTPException, refused)
    app.add_exception_handler(RequestValidationError, misunderstood)
    app.add_exception_handler(ShreddedError, destroyed)
    app.add_exception_handler(StoreError, unreadable)
    app.add_exception_handler(AuditFailedError, unrecorded)
