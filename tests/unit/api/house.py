"""The whole application with every route, behind the two real doors, over stores in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from fastapi import FastAPI

from connectors.admissions.subscription import Hook
from connectors.errors import TimedOut
from connectors.fhir.client import FhirClient
from fixtures.sample_run import sample_run
from service.api.app import create_app
from service.api.ask import AskRoom
from service.api.cds.room import CdsHooks
from service.api.door import Book, LocalDoor, OidcDoor
from service.api.feedback import Feedbacks
from service.api.gallery import Gallery
from service.api.gate import Access, Refusals
from service.api.hooks import Hooks
from service.api.launch import LaunchDoor
from service.api.review.agreement import AgreementRoom
from service.api.review.attesting import Attesting
from service.api.review.desk import Desk
from service.api.review.disputes import DisputeRoom
from service.api.review.glass import Glasses
from service.api.review.pictures import PicturesRoom
from service.api.review.quality import Quality
from service.api.review.queue import QueueRoom
from service.api.review.recall import Recalls
from service.api.review.scoring import ScoringRoom
from service.api.review.trail import TrailRoom
from service.api.sidebar.room import Sidebar
from service.api.summaries import Reading, Summaries
from service.api.viewer import Viewer
from service.api.ward import Timed, Ward
from service.ask.asking import Asking, Opener
from service.context.templates import open_library
from service.errors import StoreError
from service.identity.cds import Callers
from service.identity.keys import KeyRing
from service.identity.onetime import OneTimeToken
from service.identity.provider import Provider
from service.identity.sessions import Sessions
from service.identity.signin import SignIn
from service.identity.tokens import Expected
from service.identity.visitor import Register, Role
from service.imaging.reader import PictureReader
from service.ondemand import OnDemand
from service.ports import KeptSession
from service.ports.launches import Launch
from service.quality.thresholds import DriftLimits
from service.review.sampling import Sampling
from service.scheduler import hand_tick
from service.store.cipher import Cipher
from service.wiring.cds import open_granted
from tests.unit.api.cds.ehr import CALLER, KeyServer
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.ask.in_memory import InMemoryFeedback, InMemoryQuestions
from tests.unit.identity.ehr import Launching
from tests.unit.identity.issuer import AUDIENCE, CLIENT, ISSUER, NOW, TENANT, Issuer
from tests.unit.in_memory_admissions import InMemoryAdmissions
from tests.unit.in_memory_attesting import InMemoryAttesting
from tests.unit.in_memory_generations import NoGenerations
from tests.unit.in_memory_hooks import InMemoryHooks
from tests.unit.in_memory_ledger import InMemoryLedger
from tests.unit.in_memory_reviews import InMemoryReviews
from tests.unit.quality.in_memory import InMemoryQuality

AT = datetime.fromtimestamp(NOW, UTC)
EHR = "https://ehr.example.org/fhir"
HOST = "127.0.0.1"
SECRET = "0123456789abcdef0123456789abcdef"
RUN = sample_run()
IDLE, LONGEST = timedelta(minutes=30), timedelta(hours=12)


class InMemorySessions:
    """A SessionStore in a dict."""

    def __init__(self) -> None:
        self.kept: dict[str, KeptSession] = {}
        self.is_broken = False

    def _check(self) -> None:
        if self.is_broken:
            raise StoreError("the database cannot be read")

    def put_session(self, session_id: str, session: KeptSession) -> None:
        self._check()
        self.kept[session_id] = session

    def get_session(self, session_id: str) -> KeptSession | None:
        self._check()
        return self.kept.get(session_id)

    def use_session(self, session_id: str, at: datetime) -> None:
        self._check()

    def end_session(self, session_id: str) -> None:
        self._check()
        self.kept.pop(session_id, None)

    def forget_sessions(self, began_before: datetime, used_before: datetime) -> int:
        self._check()
        return 0


@dataclass
class House:
    """One application, and everything that a test may turn."""

    folder: Path
    issuer: Issuer = field(default_factory=Issuer)
    audit: InMemoryAudit = field(default_factory=InMemoryAudit)
    kept: InMemorySessions = field(default_factory=InMemorySessions)
    now: datetime = AT
    told: list[str] = field(default_factory=list)
    one_time: OneTimeToken = field(default_factory=OneTimeToken)
    has_services: bool = True

    def __post_init__(self) -> None:
        self.cipher = Cipher.from_file(self.folder / "key")
        self.admissions = InMemoryAdmissions(self.clock)
        self.refusals = Refusals(self.audit, self.clock)
        self.launching = Launching(self.cipher, clock=self.clock)
        self.door = LaunchDoor(self.launching.launches, self.audit, self.clock, self.refusals)

    def clock(self) -> datetime:
        return self.now

    def sessions(self, issuer: str = ISSUER) -> Sessions:
        return Sessions(self.kept, self.clock, IDLE, LONGEST, issuer)

    def local(self) -> FastAPI:
        """Behind the one-time token."""
        book = Book(self.sessions(""), self.audit, self.clock, self.refusals)
        return self.build(LocalDoor(book, self.one_time, self.told.append))

    def oidc(self) -> FastAPI:
        """Behind the identity provider."""
        provider = Provider(ISSUER, CLIENT, transport=self.issuer.transport)
        sign_in = SignIn(
            provider, KeyRing(provider.fetch_keys, lambda: 0.0), Expected(ISSUER, CLIENT, "tid", TENANT),
            self.cipher, lambda: self.clock().timestamp(),
        )  # fmt: skip
        roles = {f"is-{role}": role for role in Role} | {"ward-doctors": Role.CLINICIAN}
        register = Register(ISSUER, "roles", roles, self.cipher.keyed_hash, EHR)
        book = Book(self.sessions(), self.audit, self.clock, self.refusals)
        services = Expected(ISSUER, AUDIENCE, "tid", TENANT) if self.has_services else None
        return self.build(OidcDoor(book, sign_in, register, services))

    def build(self, access: Access) -> FastAPI:
        timed = [Timed("morning", "30 5 * * *", "UTC", None)]
        return create_app(
            store=InMemoryStore(RUN),
            audit=self.audit,
            clock=self.clock,
            access=access,
            allowed_hosts=(HOST,),
            version="0",
            launched=self.door,
            rooms=(
                Hooks(Hook(f"https://{HOST}/hooks/fhir", SECRET), self.admissions.nudge, self.clock, EHR),
                self.door,
                self.cds(),
                *self.asking(),
                self.sidebar(),
                self.summaries(),
                *self.clinicians(),
                *self.reviewers(),
                self.quality(),
                self.trail(),
                PicturesRoom(InMemoryStore(RUN), self.audit, self.clock, None, "No encoder is configured."),
                self.viewer(),
            ),
            ward=Ward(
                self.admissions, EHR, lambda runs: {}, lambda: timed, hand_tick, self.clock, "0", self.audit
            ),
        )  # fmt: skip

    def asking(self) -> tuple[Feedbacks, AskRoom]:
        """What clinicians say and ask; no chart can be opened here."""
        questions, said = InMemoryQuestions(), InMemoryFeedback()
        feedbacks = Feedbacks(InMemoryStore(RUN), questions, said, self.audit, self.clock)
        asking = Asking(store=questions, audit=self.audit, clock=self.clock)
        room = AskRoom(
            asking=asking, questions=questions, feedback=said, feedbacks=feedbacks, audit=self.audit,
            clock=self.clock, opener=no_chart,
        )  # fmt: skip
        return feedbacks, room

    def summaries(self) -> Summaries:
        """The API; no chart can be opened here, and nothing is under way."""
        store = NoGenerations()
        on_demand = OnDemand(store=store, runs=InMemoryStore(RUN), clock=self.clock)
        reading = Reading(EHR, "system:none", no_reader, frozenset({"history"}))
        return Summaries(on_demand, store, self.audit, self.clock, reading, "0", lambda: 0.0)

    def clinicians(self) -> tuple[Attesting, Recalls, Glasses]:
        """What clinicians do; nothing can be filed here."""
        store, kept = InMemoryStore(RUN), InMemoryAttesting()
        return (
            Attesting(store, kept, self.audit, self.clock, lambda server: server == EHR),
            Recalls(store, kept, self.audit, self.clock),
            Glasses(store, kept, self.audit, self.clock),
        )

    def reviewers(self) -> tuple[QueueRoom, ScoringRoom, DisputeRoom, AgreementRoom]:
        """What reviewers do; everything waits for them."""
        desk = Desk(
            InMemoryStore(RUN), InMemoryReviews([RUN]), InMemoryFeedback(), self.audit, self.clock,
            Sampling(), self.cipher.keyed_hash,
        )  # fmt: skip
        return QueueRoom(desk), ScoringRoom(desk), DisputeRoom(desk), AgreementRoom(desk)

    def quality(self) -> Quality:
        """The pages of quality, over one run."""
        nothing = InMemoryReviews([RUN]).reviews
        return Quality(
            InMemoryStore(RUN), InMemoryQuality(), nothing, InMemoryAttesting().attestations, DriftLimits,
            self.clock, UTC,
        )  # fmt: skip

    def trail(self) -> TrailRoom:
        """The auditor's pages, over one run and what is on record here."""
        return TrailRoom(
            InMemoryLedger(self.audit), lambda: None, InMemoryStore(RUN), InMemoryAttesting(),
            InMemoryReviews([RUN]).reviews_of, self.audit, self.clock,
        )  # fmt: skip

    def sidebar(self) -> Sidebar:
        """The sidebar; no chart can be opened here."""
        return Sidebar(
            store=InMemoryStore(RUN), audit=self.audit, clock=self.clock, charts=NoCharts(),
            library=open_library(),
        )  # fmt: skip

    def viewer(self) -> Viewer:
        """The viewer of images, without an archive and without anybody's record."""
        gallery = Gallery(None, PictureReader())
        return Viewer(gallery, InMemoryStore(RUN), self.audit, self.clock, lambda run: None, NoCharts())

    def cds(self) -> CdsHooks:
        """The services for the EHR of `tests.unit.api.cds.ehr`."""
        hooks = InMemoryHooks()
        callers = Callers((CALLER,), hooks, self.clock, lambda: 0.0, KeyServer().transport)
        return CdsHooks(
            callers, InMemoryStore(RUN), hooks, self.admissions, self.audit, self.clock, self.refusals,
            open_granted,
        )  # fmt: skip


class NoCharts:
    """Opens no chart: the server does not answer."""

    @asynccontextmanager
    async def open(self, launch: Launch) -> AsyncIterator[FhirClient]:
        raise TimedOut("The chart did not answer in time.")
        yield  # pragma: no cover - what makes it a generator


def no_chart(launch: Launch) -> Opener:
    """Refuse to open a chart."""
    raise StoreError("the chart cannot be opened")


def no_reader(by: str) -> Opener:
    """Refuse to open a chart."""
    raise StoreError("the chart cannot be opened")


def browser(app: FastAPI, scheme: str = "http") -> httpx.AsyncClient:
    """A client that keeps cookies and says that its forms come from here."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),
        base_url=f"{scheme}://{HOST}",
        headers={"sec-fetch-site": "same-origin"},
    )
