"""The sidebar over stores in memory, a chart in this process, and one launch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.responses import Response

from fixtures.sample_run import CREATED, sample_run
from service.api.app import create_app
from service.api.cookies import LAUNCH
from service.api.feedback import Feedbacks
from service.api.render import page
from service.api.sidebar.making import Making
from service.api.sidebar.room import Sidebar
from service.context.templates import open_library
from service.errors import EpicrisisError
from service.identity.visitor import Role, Visitor
from service.ondemand import Opener
from service.ports import StoredRun
from service.ports.launches import Launch, Tokens
from service.ports.ondemand import Asked, Generation, GenerationId, GenerationState, Told, ToldKind
from service.summarize import Progress, Summarizer
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.api.sidebar.chart import SERVER, Chart, sample_chart
from tests.unit.ask.in_memory import InMemoryFeedback, InMemoryQuestions

VISIT = "v" * 22
NOW = CREATED + timedelta(minutes=5)


def a_launch(**more: Any) -> Launch:
    values: dict[str, Any] = {
        "visit": VISIT, "ehr": "general", "server": SERVER, "patient": "Patient/1", "encounter": "",
        "actor": "user:abc", "fhir_user": "Practitioner/7", "scope": "patient/*.rs",
        "access_profile": "user:abc", "needs_banner": True, "context": {}, "messaging": ("", ""),
        "tokens": Tokens("access-token", "refresh-token", NOW + timedelta(hours=1)),
    }  # fmt: skip
    return Launch(**{**values, **more})


@dataclass
class OneLaunch:
    """Knows one launch; who shows no cookie is nobody."""

    launch: Launch

    def frames(self, launch: Launch | None = None) -> tuple[str, ...]:
        return ("http://ehr.localhost",)

    async def find(self, browser: str, visit: str) -> tuple[Launch, Visitor] | None:
        visitor = Visitor(self.launch.actor, frozenset({Role.CLINICIAN}), self.launch.fhir_user)
        return (self.launch, visitor) if visit in ("", self.launch.visit) else None

    def invite(self) -> Response:
        return page("message.html", 401, title="Open the chart", text="There is no launch.", advice="")


class ScriptedMaking:
    """Tells what a test says, and remembers what it was asked."""

    def __init__(self, *told: tuple[ToldKind, dict[str, Any]]) -> None:
        self.told = [Told(n, kind, data) for n, (kind, data) in enumerate(told, 1)]
        self.asked: list[Asked] = []
        self.warmed: list[Asked] = []
        self.cancelled: list[str] = []
        self.followed: list[int] = []
        self.failure: EpicrisisError | None = None
        self.made: Generation | None = None

    async def want(self, asked: Asked, opener: Opener) -> Generation:
        if self.failure is not None:
            raise self.failure
        self.asked.append(asked)
        self.made = Generation(GenerationId("g1"), asked, GenerationState.QUEUED, NOW)
        return self.made

    async def follow(
        self, generation_id: GenerationId, after: int = 0, opener: Opener | None = None
    ) -> AsyncIterator[Told]:
        self.followed.append(after)
        for one in self.told:
            if one.seq > after:
                yield one

    async def get(self, generation_id: GenerationId) -> Generation | None:
        return self.made if self.made and self.made.id == generation_id else None

    async def cancel(self, generation_id: GenerationId) -> None:
        self.cancelled.append(generation_id)

    async def warm(self, asked: Asked, opener: Opener) -> None:
        self.warmed.append(asked)


def no_opener(launch: Launch) -> Opener:
    def open_it(tell: Progress) -> AbstractAsyncContextManager[Summarizer]:
        raise AssertionError("nothing is made here")

    return open_it


@dataclass
class Desk:
    """One application with the sidebar, and everything that a test may turn."""

    runs: tuple[StoredRun, ...] = field(default_factory=lambda: (sample_run(),))
    chart: Chart = field(default_factory=sample_chart)
    launch: Launch = field(default_factory=a_launch)
    making: ScriptedMaking | None = field(default_factory=ScriptedMaking)
    now: datetime = NOW
    limit_s: float = 2.0

    def __post_init__(self) -> None:
        self.store = InMemoryStore(*self.runs)
        self.audit = InMemoryAudit()
        self.feedback = InMemoryFeedback()
        self.questions = InMemoryQuestions()
        self.feedbacks = Feedbacks(self.store, self.questions, self.feedback, self.audit, lambda: self.now)
        making = Making(self.making, no_opener, lambda launch: False) if self.making else None
        self.room = Sidebar(
            store=self.store, audit=self.audit, clock=lambda: self.now, charts=self.chart,
            library=open_library(), feedback=self.feedback, feedbacks=self.feedbacks, making=making,
            limit_s=self.limit_s, version="0.1.0",
        )  # fmt: skip

    @cached_property
    def app(self) -> FastAPI:
        return create_app(
            store=self.store, audit=self.audit, clock=lambda: self.now, access=OpenDoor(),
            allowed_hosts=("127.0.0.1",), version="0.1.0", rooms=[self.room, self.feedbacks],
            launched=OneLaunch(self.launch), feedback=self.feedback,
        )  # fmt: skip

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {
            "sec-fetch-site": "same-origin", "hx-request": "true", "x-epicrisis-visit": VISIT,
            "cookie": f"{LAUNCH}={'s' * 43}", **more.pop("headers", {}),
        }  # fmt: skip

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, headers=headers, **more)

        return asyncio.run(send())

    def get(self, path: str, **more: Any) -> httpx.Response:
        joint = "&" if "?" in path else "?"
        return self.send("GET", f"{path}{joint}visit={VISIT}", **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.send("POST", path, **more)


def of_kind(run: StoredRun, kind: str) -> StoredRun:
    """The same run as another kind of summary."""
    return replace(
        run, inputs=replace(run.inputs, kind=kind), summary=replace(run.summary, kind=kind), run_id=run.run_id
    )
