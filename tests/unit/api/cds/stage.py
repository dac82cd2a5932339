"""The services in an application of their own, over doubles, called by an EHR's real tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
from fastapi import FastAPI

from connectors.auth import BearerAuth
from connectors.fhir.client import FhirClient
from connectors.limits import Limits
from service.api.cds.call import Grant
from service.api.cds.rate import Rate
from service.api.cds.room import CdsHooks
from service.api.gate import Refusals
from service.errors import ShreddedError
from service.identity.cds import Caller, Callers
from service.ports import Stop, StoredRun
from tests.unit.api.cds.ehr import BASE, CALLER, NOW, RUN, SERVER, VIEW, KeyServer, claims, token
from tests.unit.api.in_memory import InMemoryAudit
from tests.unit.filing.in_memory import InMemoryDocuments
from tests.unit.in_memory_admissions import InMemoryAdmissions
from tests.unit.in_memory_hooks import InMemoryHooks


class Drafts(InMemoryDocuments):
    """What of the store a card is made from; asks are kept. `failure` is raised by every one."""

    def __init__(self, *runs: StoredRun) -> None:
        super().__init__()
        self.runs = list(runs)
        self.asked: list[tuple[str, str, str, str]] = []
        self.shredded: set[str] = set()
        self.failure: Exception | None = None

    def newest(self, server: str, patient: str, kind: str, encounter: str = "") -> StoredRun | None:
        self.asked.append((server, patient, kind, encounter))
        if self.failure is not None:
            raise self.failure
        if patient in self.shredded:
            raise ShreddedError
        fit = [
            run
            for run in self.runs
            if server == SERVER
            and (run.inputs.patient, run.inputs.kind) == (patient, kind)
            and encounter in ("", run.inputs.encounter)
        ]
        return fit[-1] if fit else None

    def stops(self) -> list[Stop]:
        return list(self.halted)


@dataclass
class Chart:
    """The EHR's FHIR server for one call; what it is asked, with which token."""

    answers: dict[str, httpx.Response] = field(default_factory=dict)
    """Path below the base URL, with its query → answer; all else is 404."""
    asked: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        asked = str(request.url).removeprefix(SERVER + "/")
        self.asked.append((asked, request.headers.get("authorization", "")))
        return self.answers.get(asked, httpx.Response(404))

    def opener(self, caller: Caller) -> Callable[[Grant], AbstractAsyncContextManager[FhirClient]]:
        @asynccontextmanager
        async def opened(grant: Grant) -> AsyncIterator[FhirClient]:
            transport = httpx.MockTransport(self.answer)
            client = FhirClient(
                caller.server, auth=BearerAuth(grant.token), limits=Limits(retries=0), transport=transport
            )
            async with client:
                yield client

        return opened


@dataclass
class Stage:
    """One application with everything that a test may turn."""

    callers_known: tuple[Caller, ...] = (CALLER,)
    drafts: Drafts = field(default_factory=lambda: Drafts(RUN))
    hooks: InMemoryHooks = field(default_factory=InMemoryHooks)
    audit: InMemoryAudit = field(default_factory=InMemoryAudit)
    keys: KeyServer = field(default_factory=KeyServer)
    chart: Chart = field(default_factory=Chart)
    now: datetime = NOW
    swept: str = SERVER
    app: FastAPI = field(default_factory=lambda: FastAPI(openapi_url=None))

    def __post_init__(self) -> None:
        self.admissions = InMemoryAdmissions(lambda: self.now)
        self.rate = Rate(lambda: 0.0)
        self.room().add_to(self.app)

    def room(self) -> CdsHooks:
        return CdsHooks(
            Callers(
                self.callers_known, self.hooks, lambda: self.now, lambda: 0.0, self.keys.transport
            ),
            self.drafts, self.hooks, self.admissions, self.audit, lambda: self.now,
            Refusals(self.audit, lambda: self.now), self.chart.opener, self.swept, self.rate,
        )  # fmt: skip

    async def post(
        self, said: Any, service: str = VIEW, shown: str | None = None, **headers: str
    ) -> httpx.Response:
        """Call a service, with a good token where none is given."""
        path = f"/cds-services/{service}"
        bearer = token(claims(service)) if shown is None else shown
        return await self.send("POST", path, said, {"authorization": f"Bearer {bearer}", **headers})

    async def send(
        self, method: str, path: str, said: Any = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        content = said if isinstance(said, bytes) else None
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            return await client.request(
                method, path, json=None if content is not None or said is None else said, content=content,
                headers=dict(headers or {}),
            )  # fmt: skip
