"""The console over doubles, with visitors whom a header names."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import httpx
from fastapi import FastAPI
from starlette.requests import Request

from fixtures.sample_run import CREATED, sample_run
from service.api.app import create_app
from service.api.review.agreement import AgreementRoom
from service.api.review.desk import Desk
from service.api.review.disputes import DisputeRoom
from service.api.review.glass import is_restricted
from service.api.review.queue import QueueRoom
from service.api.review.scoring import ScoringRoom
from service.identity.visitor import Role, Visitor
from service.ports import RunId, StoredRun
from service.ports.attesting import Attested
from service.ports.feedback import Feedback, FeedbackId, Mark
from service.ports.reviews import Review, Score, Support
from service.review.items import items_of
from service.review.sampling import Sampling
from tests.conftest import CANARY
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.ask.in_memory import InMemoryFeedback
from tests.unit.in_memory_attesting import InMemoryAttesting
from tests.unit.in_memory_reviews import InMemoryReviews

HERE = "https://127.0.0.1"
ROLES = {
    "reader": frozenset({Role.READER}),
    "clinician": frozenset({Role.READER, Role.CLINICIAN}),
    "auditor": frozenset({Role.AUDITOR}),
    "admin": frozenset({Role.ADMIN}),
    "outsider": frozenset({Role.REVIEWER}),
}
EVERY = Sampling(random_share=0, seeded_share=0, two_reviewers_share=0)
"""All of the first twenty runs of a version, without planted errors."""


def keyed(purpose: str, value: str) -> str:
    """Draw the same in every run of the tests."""
    return hmac.new(b"a key of tests", f"{purpose}\0{value}".encode(), hashlib.sha256).hexdigest()


class NamedDoor(OpenDoor):
    """Everybody comes in as who their browser says; whoever has another name reviews."""

    async def visitor_of(self, request: Request) -> Visitor | None:
        name = request.headers.get("x-test-user", "one")
        roles = ROLES.get(name, frozenset({Role.READER, Role.CLINICIAN, Role.REVIEWER}))
        return Visitor(f"user:{name}", roles, f"Practitioner/{name}")


@dataclass
class Console:
    """One application, its stores, and its audit log."""

    runs: tuple[StoredRun, ...] = (sample_run(run_id="filed"),)
    sampling: Sampling = EVERY
    now: datetime = CREATED + timedelta(hours=3)
    said: InMemoryFeedback = field(default_factory=InMemoryFeedback)
    audit: InMemoryAudit = field(default_factory=InMemoryAudit)
    app: FastAPI = field(init=False)

    def __post_init__(self) -> None:
        self.store, self.reviews = InMemoryStore(*self.runs), InMemoryReviews(self.runs)
        self.attesting = InMemoryAttesting()
        self.desk = Desk(
            self.store,
            self.reviews,
            self.said,
            self.audit,
            self.clock,
            self.sampling,
            keyed,
            self.attesting,
            withheld=lambda run, visitor: Role.CLINICIAN not in visitor.roles and is_restricted(run),
        )
        self.app = create_app(
            store=self.store, audit=self.audit, clock=self.clock, access=NamedDoor(),
            allowed_hosts=("127.0.0.1",), version="9.8.7", feedback=self.said,
            rooms=[room(self.desk) for room in (QueueRoom, AgreementRoom, DisputeRoom, ScoringRoom)],
        )  # fmt: skip

    def clock(self) -> datetime:
        return self.now

    def attest(self, run_id: str, seconds: int) -> None:
        """Let a clinician have attested a run so many seconds after opening it."""
        opened = self.now - timedelta(hours=1)
        self.attesting.keep_attested(
            Attested(
                RunId(run_id), "Patient/1", f"DocumentReference/{run_id}/_history/1", "Practitioner/9",
                "user:clinician", opened, opened + timedelta(seconds=seconds), 0, 0, 100,
            )
        )  # fmt: skip

    async def get(self, path: str, user: str = "one") -> httpx.Response:
        return await self._ask("GET", path, user)

    async def post(
        self, path: str, fields: Mapping[str, str] | None = None, user: str = "one", *, partial: bool = False
    ) -> httpx.Response:
        return await self._ask("POST", path, user, fields or {"begin": "yes"}, partial=partial)

    async def _ask(
        self,
        method: str,
        path: str,
        user: str,
        fields: Mapping[str, str] | None = None,
        *,
        partial: bool = False,
    ) -> httpx.Response:
        headers = {"x-test-user": user, "origin": HERE, "sec-fetch-site": "same-origin"}
        if partial:
            headers["hx-request"] = "true"
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url=HERE, headers=headers) as client:
            return await client.request(method, path, data=dict(fields) if fields else None)

    def review(self, user: str = "one", run_id: str = "filed") -> Review:
        found = [one for one in self.reviews.reviews_of(RunId(run_id)) if one.reviewer == f"user:{user}"]
        assert len(found) == 1
        return found[0]

    def score_all(self, user: str, support: Support = Support.SUPPORTED, run_id: str = "filed") -> None:
        """Score everything that is open, as the pages would."""
        run, review = self.store.get(RunId(run_id)), self.review(user, run_id)
        assert run is not None
        for item in items_of(run.summary, review.seeded):
            if item.is_seeded:
                self.reviews.keep_seeded(review.run_id, review.reviewer, support, self.now)
            else:
                score = Score(review.run_id, item.ordinal, review.reviewer, self.now, support)
                self.reviews.keep_score(score)

    def dispute(self, number: int, actor: str = "user:clinician", run_id: str = "filed") -> str:
        """Dispute a published statement as a clinician; return the path of the dispute."""
        run = self.store.get(RunId(run_id))
        assert run is not None
        server, patient = run.inputs.server, run.inputs.patient
        claim = run.summary.published[number - 1]
        key = self.said.claim_key(server, patient, claim)
        self.said.say(
            Feedback(
                FeedbackId(f"{number:032x}"), run.run_id, server, patient, Mark.WRONG, actor, CREATED,
                claim=key, text=claim.text, words=f"{CANARY} never had it",
            )
        )  # fmt: skip
        return f"/review/disputes/{number:032x}"


def seeded(sampling: Sampling = EVERY) -> Sampling:
    """The same with an error planted into every review."""
    return replace(sampling, seeded_share=1)
