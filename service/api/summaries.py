"""Summaries for programs: asked for, followed, stopped. `POST /api/summaries` answers at once with where.

They are read with this installation's own connection, as the schedule's are, for those whom it knows as
clinicians or reviewers. What an EHR's user asks for in the sidebar is read as that user, and is not here.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Final

import msgspec
from fastapi import Body, FastAPI, HTTPException, Query, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from service.api.allowance import Allowance
from service.api.gate import visitor_of
from service.api.problem import MEDIA_TYPE as PROBLEM
from service.api.problem import problem
from service.api.stream import MEDIA_TYPE as STREAM
from service.api.stream import event_stream, last_event_id
from service.identity.visitor import Visitor
from service.ondemand import OnDemand, Opener
from service.ports import Action, AuditEntry, AuditLog, Clock
from service.ports.ondemand import Asked, Generation, GenerationId, GenerationStore, Told

PATH: Final = "/api/summaries"
ONE: Final = PATH + "/{generation_id}"
EVENTS: Final = ONE + "/events"
DESCRIPTION: Final = "/api/openapi.json"
KEEP_ANSWERS: Final = timedelta(hours=24)
MOST_STREAMS: Final = 16
"""Streams that one visitor may have open: a page needs one, and a browser opens six to one server."""
ROWS: Final = 20
_ID = re.compile(r"[0-9a-f]{32}")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_REFERENCE: Final = r"/[A-Za-z0-9.-]{1,64}$"


class WantedSummary(BaseModel):
    """What is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    patient: str = Field(pattern="^Patient" + _REFERENCE, examples=["Patient/1"])
    kind: str = Field(default="history", pattern=r"^[a-z][a-z0-9-]{0,31}$")
    encounter: str = Field(default="", pattern="^$|^Encounter" + _REFERENCE, examples=["Encounter/9"])
    regenerate: bool = Field(
        default=False, description="Write anew although nothing has changed, as the next attempt."
    )


class ShownSummary(BaseModel):
    """One summary under way, or made."""

    id: str
    state: str = Field(description="queued, running, done, failed or cancelled")
    stage: str = Field(description="The stage of the work that was told last.")
    patient: str
    kind: str
    encounter: str
    attempt: int
    created_at: str
    run_id: str = Field(description="The stored run once it is done: it is shown at /runs/{run_id}.")
    error: str = Field(description="Error code of a failed one.")
    events: str = Field(description="Where its events are told.")


class SummaryPage(BaseModel):
    """One page of a patient's summaries, newest first."""

    items: list[ShownSummary]
    next: str = Field(description="Where the next page is; empty at the end.")


@dataclass(frozen=True, slots=True)
class Reading:
    """As whom charts are read for the API."""

    server: str
    """Base URL of the FHIR server, without a trailing slash."""
    access_profile: str
    opener: Callable[[str], Opener]
    """Given who answers for it (`Practitioner/7` or empty), returns what opens the use case."""
    kinds: frozenset[str]


@dataclass
class Summaries:
    """The routes. Each visitor may ask so often, and follow so many at a time."""

    on_demand: OnDemand
    store: GenerationStore
    audit: AuditLog
    clock: Clock
    reading: Reading
    version: str
    monotonic: Callable[[], float] = time.monotonic
    asks: Allowance = field(init=False)
    looks: Allowance = field(init=False)
    _streams: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self.asks = Allowance(self.monotonic, per_s=0.5, burst=20)
        self.looks = Allowance(self.monotonic, per_s=10, burst=100)

    def add_to(self, app: FastAPI) -> None:
        """Add the routes, and what describes them."""
        routes: tuple[tuple[str, str, Callable[..., Any], dict[int | str, dict[str, Any]]], ...] = (
            (PATH, "POST", self.ask, {202: {"model": ShownSummary}, **_problems(410, 422, 429)}),
            (PATH, "GET", self.list_of, {200: {"model": SummaryPage}, **_problems(429)}),
            (ONE, "GET", self.look, {200: {"model": ShownSummary}, **_problems(404, 429)}),
            (ONE, "DELETE", self.stop, {204: {"description": "It is being stopped."}, **_problems(404, 429)}),
            (EVENTS, "GET", self.events, {200: _STREAMED, 204: _NOTHING_MORE, **_problems(404, 429)}),
        )
        for path, method, endpoint, responses in routes:
            app.add_api_route(
                path, endpoint, methods=[method], response_model=None, responses=responses,
                status_code=next(code for code in responses if isinstance(code, int)),
            )  # fmt: skip
        described = [
            route
            for route in app.router.routes
            if isinstance(route, APIRoute) and route.path.startswith(PATH)
        ]
        text = msgspec.json.encode(_described(described, self.version))

        def describe() -> Response:
            return Response(text, media_type="application/json")

        app.add_api_route(DESCRIPTION, describe, methods=["GET"], response_model=None)

    async def ask(self, request: Request, wanted: Annotated[WantedSummary, Body()]) -> Response:
        """Ask for a summary. One that is under way for the same inputs is joined.

        It goes on as long as somebody follows its events or looks at it every few seconds. The header
        `Idempotency-Key` makes a second call with the same key and body have the first one's answer, for 24
        hours.
        """
        visitor = visitor_of(request)
        refused = self._limited(self.asks, visitor)
        if refused is not None:
            return refused
        if wanted.kind not in self.reading.kinds:
            known = ", ".join(sorted(self.reading.kinds))
            return problem(422, f"There is no such kind of summary. There are: {known}.")
        key = request.headers.get("idempotency-key")
        if key is not None and not _KEY.fullmatch(key):
            return problem(400, "An Idempotency-Key has 1 to 255 visible ASCII characters.")
        if key is None:
            return _accepted(await self._shown(wanted, visitor))
        return await self._once(f"{visitor.actor}\n{key}", wanted, visitor)

    async def list_of(
        self,
        request: Request,
        patient: Annotated[str, Query(pattern="^Patient" + _REFERENCE)],
        limit: Annotated[int, Query(ge=1, le=100)] = ROWS,
        cursor: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    ) -> Response:
        """List a patient's summaries of the last day, newest first."""
        refused = self._limited(self.looks, visitor_of(request))
        if refused is not None:
            return refused
        found, then = await asyncio.to_thread(
            self.store.generations_about, self.reading.server, patient, self.reading.access_profile, limit,
            cursor,
        )  # fmt: skip
        more = f"{PATH}?patient={patient}&limit={limit}&cursor={then}" if then is not None else ""
        return _json(200, {"items": [shown(one) for one in found], "next": more})

    async def look(self, request: Request, generation_id: str) -> Response:
        """Tell how far a summary is. Looking is a sign of life, as following is."""
        visitor = visitor_of(request)
        refused = self._limited(self.looks, visitor)
        if refused is not None:
            return refused
        found = await self._find(generation_id)
        await self.on_demand.attend(found.id, self.reading.opener(visitor.fhir_user))
        return _json(200, shown(found))

    async def stop(self, request: Request, generation_id: str) -> Response:
        """Stop a summary that is under way, for everybody who follows it."""
        refused = self._limited(self.looks, visitor_of(request))
        if refused is not None:
            return refused
        await self.on_demand.cancel((await self._find(generation_id)).id)
        return Response(status_code=204)

    async def events(self, request: Request, generation_id: str) -> Response:
        """Tell what happens to a summary as server-sent events: stage, claim, then done, failed or cancelled.

        A claim passed its rules and is still being checked as a part of the whole. `Last-Event-ID` goes on
        after an event; where nothing more will come the answer is 204, at which a browser stops asking.
        """
        visitor = visitor_of(request)
        after = last_event_id(request)
        if after is None:
            return problem(400, "Last-Event-ID is the number of an event.")
        refused = self._limited(self.looks, visitor)
        if refused is not None:
            return refused
        found = await self._find(generation_id)
        if self._streams[visitor.actor] >= MOST_STREAMS:
            return problem(429, "Too many streams are open.", headers={"Retry-After": "5"})
        await asyncio.to_thread(self._note, found, visitor)
        told, state = await asyncio.to_thread(self.store.told, found.id, after)
        if not told and (state is None or state.is_final):
            return Response(status_code=204)
        following = self.on_demand.follow(found.id, after, self.reading.opener(visitor.fhir_user))
        return event_stream(self._counted(visitor.actor, following))

    async def _counted(self, actor: str, told: AsyncIterator[Told]) -> AsyncIterator[Told]:
        self._streams[actor] += 1
        try:
            async for one in told:
                yield one
        finally:
            self._streams[actor] -= 1
            if not self._streams[actor]:
                del self._streams[actor]

    async def _once(self, key: str, wanted: WantedSummary, visitor: Visitor) -> Response:
        """Answer as the first call with this key was answered. Another body is another request: 422."""
        body = hashlib.sha256(wanted.model_dump_json().encode()).hexdigest()
        kept = await asyncio.to_thread(self.store.get_answer, key, self.clock() - KEEP_ANSWERS)
        if kept is None:
            first = await self._shown(wanted, visitor)
            said = msgspec.json.encode(first).decode()
            await asyncio.to_thread(self.store.put_answer, key, body, said, wanted.patient, self.clock())
            kept = await asyncio.to_thread(self.store.get_answer, key, self.clock() - KEEP_ANSWERS)
        if kept is None:  # destroyed meanwhile
            raise HTTPException(410)
        if kept[0] != body:
            return problem(422, "This Idempotency-Key was used for another request.")
        return _accepted(msgspec.json.decode(kept[1]))

    async def _shown(self, wanted: WantedSummary, visitor: Visitor) -> dict[str, Any]:
        asked = Asked(
            server=self.reading.server, patient=wanted.patient, kind=wanted.kind, encounter=wanted.encounter,
            access_profile=self.reading.access_profile, actor=visitor.actor, by=visitor.fhir_user,
            attempt_wanted=wanted.regenerate,
        )  # fmt: skip
        return shown(await self.on_demand.want(asked, self.reading.opener(visitor.fhir_user)))

    async def _find(self, generation_id: str) -> Generation:
        """Return a generation that was read as the API reads. Raises 404."""
        if not _ID.fullmatch(generation_id):
            raise HTTPException(404)
        found = await self.on_demand.get(GenerationId(generation_id))
        wanted = (self.reading.server, self.reading.access_profile)
        if found is None or (found.asked.server, found.asked.access_profile) != wanted:
            raise HTTPException(404)
        return found

    def _limited(self, allowance: Allowance, visitor: Visitor) -> Response | None:
        wait_s = allowance.take(visitor.actor)
        if not wait_s:
            return None
        headers = {"Retry-After": str(math.ceil(wait_s))}
        return problem(429, "You ask too often.", title="Too many requests", headers=headers)

    def _note(self, generation: Generation, visitor: Visitor) -> None:
        """Record that what is written is shown. Raises StoreError, at which nothing is."""
        asked = generation.asked
        self.audit.append(
            AuditEntry(
                Action.VIEW, visitor.actor, asked.patient, self.clock(), run_id=generation.id,
                server=asked.server, by=visitor.fhir_user,
            )
        )  # fmt: skip


def shown(generation: Generation) -> dict[str, Any]:
    """Return a generation as the API shows it."""
    asked = generation.asked
    return {
        "id": generation.id,
        "state": generation.state.value,
        "stage": generation.stage,
        "patient": asked.patient,
        "kind": asked.kind,
        "encounter": asked.encounter,
        "attempt": generation.attempt,
        "created_at": generation.created_at.isoformat(),
        "run_id": generation.run_id,
        "error": generation.error,
        "events": EVENTS.format(generation_id=generation.id),
    }


def _described(routes: list[APIRoute], version: str) -> dict[str, Any]:
    """Return the description (OpenAPI 3.1). What is not understood is answered 400 here, not 422."""
    found = get_openapi(title="Epicrisis", version=version, description=__doc__, routes=routes)
    for methods in found["paths"].values():
        for operation in methods.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        found["components"]["schemas"].pop(name, None)
    return found


def _accepted(body: dict[str, Any]) -> Response:
    return _json(202, body, {"Location": ONE.format(generation_id=body["id"])})


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, "application/json")


_STREAMED: Final[dict[str, Any]] = {
    "description": "Server-sent events.", "content": {STREAM: {"schema": {"type": "string"}}},
}  # fmt: skip
_NOTHING_MORE: Final[dict[str, Any]] = {"description": "It has ended, and every event was told."}
_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("type", "title", "detail")}
    | {"status": {"type": "integer"}},
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problems of a route, with those that any route may answer."""
    told = {"description": "A problem (RFC 9457).", "content": {PROBLEM: {"schema": _SCHEMA}}}
    return dict.fromkeys(sorted((400, 401, 403, 503, *statuses)), told)
