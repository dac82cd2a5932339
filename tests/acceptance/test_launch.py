"""A launch at a real OAuth server, through a gateway that enforces tokens, onto a real FHIR server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from connectors.errors import Forbidden, Unauthorized
from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from connectors.fhir.pull import GapReason
from fixtures.servers import SekmetServer, free_port
from fixtures.smart import CLIENTS, SCOPE_V1, SmartEhr, missing_parts
from service.api.cookies import LAUNCH
from service.doctor import Finding, examine
from service.ports import Action, AuditEntry
from service.ports.launches import Launch
from service.settings import Settings, load_settings
from service.store.trail import SqlAuditLog
from service.wiring import build_app, open_store
from service.wiring.launches import LaunchRooms, open_launches
from tests.conftest import CANARY, missing

pytestmark = pytest.mark.node

HERE = f"http://127.0.0.1:{free_port()}"
FROM_HERE = {"sec-fetch-site": "same-origin"}
PATIENTS = ("1", "2")


@pytest.fixture(scope="module")
def sekmet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SekmetServer]:
    with SekmetServer(tmp_path_factory.mktemp("sekmet")) as server:
        for patient in PATIENTS:
            put(server, {"resourceType": "Patient", "id": patient, "name": [{"family": CANARY}]})
            put(
                server,
                {
                    "resourceType": "AllergyIntolerance", "id": f"a{patient}",
                    "patient": {"reference": f"Patient/{patient}"}, "code": {"text": "Penicillin"},
                },
            )  # fmt: skip
        yield server


def put(server: SekmetServer, resource: dict[str, Any]) -> None:
    path = f"{resource['resourceType']}/{resource['id']}"
    httpx.put(f"{server.base_url}/{path}", json=resource, trust_env=False).raise_for_status()


@pytest.fixture(scope="module")
def ehr(sekmet: SekmetServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmartEhr]:
    if missing_parts():
        missing(missing_parts())
    with SmartEhr(tmp_path_factory.mktemp("smart"), sekmet.base_url, HERE) as server:
        yield server


async def shut(app: FastAPI) -> None:
    """Close what an application holds open, as its server does when it ends."""
    async with app.router.lifespan_context(app):
        pass


@dataclass
class Site:
    """The application as it is wired, one browser, and a second process's view of the same store."""

    ehr: SmartEhr
    settings: Settings
    stack: AsyncExitStack
    cookie: str = ""
    rooms: LaunchRooms = field(init=False)
    audit: SqlAuditLog = field(init=False)

    def __post_init__(self) -> None:
        app = build_app(self.settings)
        self.stack.push_async_callback(shut, app)
        transport = httpx.ASGITransport(app=app)
        self.client = httpx.AsyncClient(transport=transport, base_url=HERE)
        store, self.audit = open_store(self.settings)
        self.stack.callback(store.close)
        self.stack.callback(self.audit.close)
        self.rooms = self.another_process()

    def another_process(self) -> LaunchRooms:
        rooms = open_launches(self.settings, self.audit)
        assert rooms is not None
        self.stack.push_async_callback(rooms.charts.lines.aclose)
        return rooms

    async def ask(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        answer = await self.client.request(
            method,
            path,
            headers={**headers, **({"cookie": f"{LAUNCH}={self.cookie}"} if self.cookie else {})},
        )
        for line in answer.headers.get_list("set-cookie"):
            self.cookie = line.partition(";")[0].partition("=")[2]
        self.client.cookies.clear()
        return answer

    async def back(self, address: str) -> httpx.Response:
        """Go from an address of ours over the EHR's sign-in to our callback; return what that answers."""
        begun = await self.ask(address)
        assert begun.status_code == 303, begun.text
        return await self.ask(await asyncio.to_thread(self.ehr.authorize, begun.headers["location"]))

    async def opened(self, address: str) -> Launch:
        answer = await self.back(address)
        assert answer.status_code == 303, answer.text
        path, _, visit = answer.headers["location"].partition("?visit=")
        assert path == "/sidebar"
        launch = await self.rooms.door.launches.find(self.cookie, visit)
        assert launch is not None
        return launch

    @asynccontextmanager
    async def chart(self, launch: Launch) -> AsyncIterator[FhirClient]:
        async with self.rooms.charts.open(launch) as client:
            yield client

    def acts(self) -> list[AuditEntry]:
        return list(reversed(self.audit.entries()))


@asynccontextmanager
async def site_of(ehr: SmartEhr, home: Path, client: str = CLIENTS[0], **more: Any) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        site = Site(ehr, load_settings(home=home, ehrs=ehr.write_config(client, **more)), stack)
        yield site
        await site.client.aclose()


@pytest.fixture
async def site(ehr: SmartEhr, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_of(ehr, tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("client", CLIENTS)
async def test_every_kind_of_client_is_launched_renews_and_leaves(
    ehr: SmartEhr, tmp_path: Path, client: str
) -> None:
    async with site_of(ehr, tmp_path, client) as site:
        launch = await site.opened(ehr.launch_url("1", encounter="e9"))
        assert (launch.patient, launch.encounter, launch.fhir_user) == (
            "Patient/1", "Encounter/e9", "Practitioner/roe",
        )  # fmt: skip
        assert launch.server == ehr.iss
        assert "patient/*.rs" in launch.scope.split()
        assert launch.needs_banner
        assert launch.messaging == ("handle-1", ehr.host)
        async with site.chart(launch) as chart:
            assert (await chart.read("Patient/1"))["id"] == "1"
            ehr.refuse_tokens()
            assert (await chart.read("Patient/1"))["id"] == "1"
        newer = await site.rooms.door.launches.current(launch.visit)
        assert newer is not None
        assert newer.tokens.access != launch.tokens.access
        assert newer.tokens.refresh != launch.tokens.refresh
        left = await site.ask("/launch/logout", "POST", **FROM_HERE, **{"x-epicrisis-visit": launch.visit})
        assert left.status_code == 200
        assert await site.rooms.door.launches.current(launch.visit) is None
        server = site.rooms.door.launches.sites[0].server
        with pytest.raises(Unauthorized):
            async with site.chart(launch) as chart:
                await chart.read("Patient/1")
        with pytest.raises(Exception, match="gave no token"):
            await server.refresh(newer.tokens.refresh)
        acts = site.acts()
        assert [one.action for one in acts] == [Action.LOGIN, Action.LOGOUT]
        for one in acts:
            assert (one.patient, one.server, one.by) == ("Patient/1", ehr.iss, "Practitioner/roe")
            assert one.actor == launch.actor


async def test_two_tabs_stay_on_their_own_patients(site: Site) -> None:
    first = await site.opened(site.ehr.launch_url("1"))
    second = await site.opened(site.ehr.launch_url("2"))
    assert (first.patient, second.patient) == ("Patient/1", "Patient/2")
    newest = await site.rooms.door.launches.find(site.cookie)
    assert newest is not None
    assert newest.visit == second.visit
    for launch, theirs in ((first, "Patient/2"), (second, "Patient/1")):
        async with site.chart(launch) as chart:
            assert (await chart.read(launch.patient))["resourceType"] == "Patient"
            with pytest.raises(Forbidden):
                await chart.read(theirs)


async def test_what_a_user_may_not_read_the_chart_does_not_give(site: Site) -> None:
    launch = await site.opened(site.ehr.launch_url("1", user="doe"))
    assert launch.fhir_user == "PractitionerRole/doe"
    assert "patient/Condition.rs" in launch.scope.split()
    assert "AllergyIntolerance" not in launch.scope
    async with site.chart(launch) as chart:
        with pytest.raises(Forbidden):
            await chart.read("AllergyIntolerance/a1")
    other = await site.opened(site.ehr.launch_url("1"))
    async with site.chart(other) as chart:
        assert (await chart.read("AllergyIntolerance/a1"))["code"]["text"] == "Penicillin"
    assert other.access_profile != launch.access_profile
    assert await site.rooms.door.launches.current(launch.visit) is None, "another user came to this browser"


async def test_what_a_server_leaves_out_in_silence_counts_as_not_retrieved(
    sekmet: SekmetServer, tmp_path: Path
) -> None:
    with SmartEhr(tmp_path / "smart", sekmet.base_url, HERE, everything="filter") as ehr:
        async with site_of(ehr, tmp_path / "home") as site:
            launch = await site.opened(ehr.launch_url("1", user="doe"))
            async with site.chart(launch) as client:
                pull = await FhirEhr(client).pull("1")
                again = await FhirEhr(client).pull("1", known=pull)
    for found in (pull, again):
        assert {one["resourceType"] for one in found.resources} == {"Patient"}
        gaps = [gap for gap in found.gaps if gap.resource_type == "AllergyIntolerance"]
        assert [gap.reason for gap in gaps] == [GapReason.REFUSED]


async def test_two_processes_renew_once_at_a_server_that_takes_a_refresh_token_once(site: Site) -> None:
    launch = await site.opened(site.ehr.launch_url("1"))
    others = [site.rooms, site.another_process()]
    for _ in range(3):
        async with AsyncExitStack() as stack:
            charts = [await stack.enter_async_context(rooms.charts.open(launch)) for rooms in others * 3]
            await charts[0].read("Patient/1")
            site.ehr.refuse_tokens()
            found = await asyncio.gather(*(chart.read("Patient/1") for chart in charts))
            assert [one["id"] for one in found] == ["1"] * 6


async def test_who_comes_without_a_launch_chooses_the_patient_there(site: Site) -> None:
    site.ehr.sit_down("roe")
    launch = await site.opened(f"{HERE}/launch?{urlencode({'iss': site.ehr.iss})}")
    assert launch.patient == "Patient/1"
    assert launch.fhir_user == "Practitioner/roe"


@pytest.mark.parametrize(
    ("user", "reason", "status"),
    [("own", "patient", 403), ("kin", "patient", 403), ("who", "role", 403)],
)
async def test_who_is_not_of_the_staff_is_not_let_in(site: Site, user: str, reason: str, status: int) -> None:
    answer = await site.back(site.ehr.launch_url("1", user=user))
    assert answer.status_code == status
    assert [(one.action, one.outcome) for one in site.acts()] == [(Action.REFUSED, reason)]
    assert site.rooms.door.launches.store.visits_of(site.cookie) == ()


async def test_a_launch_without_a_patient_says_so(site: Site) -> None:
    answer = await site.back(site.ehr.launch_url(""))
    assert answer.status_code == 400
    assert "without a patient" in answer.text


@pytest.mark.parametrize("change", [{"aud": "https://other.example/fhir"}, {"launch": "made-up"}])
async def test_what_the_authorization_server_refuses_opens_nothing(
    site: Site, change: dict[str, str]
) -> None:
    begun = await site.ask(site.ehr.launch_url("1"))
    parts = urlsplit(begun.headers["location"])
    asked = {**dict(parse_qsl(parts.query)), **change}
    back = await asyncio.to_thread(
        site.ehr.authorize, f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode(asked)}"
    )
    answer = await site.ask(back)
    assert answer.status_code == 400
    assert [one.outcome for one in site.acts()] == ["declined"]


async def test_an_answer_is_taken_once_and_from_its_own_browser(site: Site) -> None:
    begun = await site.ask(site.ehr.launch_url("1"))
    back = await asyncio.to_thread(site.ehr.authorize, begun.headers["location"])
    mine, site.cookie = site.cookie, "x" * 43
    assert (await site.ask(back)).status_code == 400
    site.cookie = mine
    assert (await site.ask(back)).status_code == 303
    assert (await site.ask(back)).status_code == 400
    assert [one.outcome for one in site.acts()] == ["state", "ok", "state"]


async def test_a_server_of_smart_1_grants_in_its_own_words(sekmet: SekmetServer, tmp_path: Path) -> None:
    if missing_parts():
        missing(missing_parts())
    with SmartEhr(tmp_path / "v1", sekmet.base_url, HERE, is_v1=True) as ehr:
        async with site_of(ehr, tmp_path) as site:
            launch = await site.opened(ehr.launch_url("1"))
            assert set(launch.scope.split()) == set(SCOPE_V1.split())
            async with site.chart(launch) as chart:
                assert (await chart.read("AllergyIntolerance/a1"))["id"] == "a1"
        ehr.discovery = "metadata"
        async with site_of(ehr, tmp_path / "metadata") as site:
            begun = await site.ask(ehr.launch_url("1"))
            assert begun.headers["location"].startswith(f"{ehr.issuer}/auth?")
            assert dict(parse_qsl(urlsplit(begun.headers["location"]).query))["scope"] == SCOPE_V1


async def test_nothing_of_a_launch_is_said_in_a_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        launch = await site.opened(site.ehr.launch_url("1"))
        async with site.chart(launch) as chart:
            await chart.read("Patient/1")
            site.ehr.refuse_tokens()
            await chart.read("Patient/1")
        await site.back(site.ehr.launch_url("1", user="own"))
    ours = " ".join(
        one.getMessage()
        for one in caplog.records
        if one.name.partition(".")[0] not in ("httpx", "asyncio", "httpcore")
    )
    newer = await site.rooms.door.launches.find(site.cookie)
    assert newer is not None
    secrets = [one for tokens in (launch.tokens, newer.tokens) for one in (tokens.access, tokens.refresh)]
    assert len(set(secrets)) == 4
    for secret in (*secrets, site.cookie, CANARY, "Patient/1", "Practitioner/roe"):
        assert secret not in ours
        assert secret not in repr(launch) + repr(newer)


async def test_the_doctor_says_whether_an_ehr_can_launch_us(ehr: SmartEhr, tmp_path: Path) -> None:
    def found(finding: str, findings: list[Finding]) -> Finding:
        return next(one for one in findings if one.name == finding)

    settings = load_settings(home=tmp_path, ehrs=ehr.write_config(), engine="scripted")
    told = found("EHR general", await examine(settings))
    assert (told.state, "SMART 2" in told.detail) == ("ok", True)
    ehr.write_config(allowed_origins=[])
    told = found("EHR general", await examine(settings))
    assert told.state == "failed"
    assert "allowed_origins" in told.advice
    ehr.write_config(roles=["boss"])
    assert "roles" in found("EHR launches", await examine(settings)).detail
