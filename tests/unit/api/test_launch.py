"""Pages behind a launch: who comes in, what may change something, and who may frame them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response

from service.api.app import create_app
from service.api.cookies import LAUNCH, SESSION
from service.api.gate import Gate, is_launched, launch_of, visitor_of
from service.api.security import HEADERS, SecurityHeaders
from service.api.table import Rule, read_table
from service.errors import SettingsError, ShreddedError, StoreError
from service.identity.visitor import Role, Visitor
from service.ports import Action
from tests.conftest import CANARY
from tests.unit.api.entering import OpenDoor
from tests.unit.api.house import House
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.identity.ehr import EHR, HOST, IDLE, ISS, PATIENT

HERE = "https://127.0.0.1"
TABLE = """
[[route]]
path = "/page"
methods = ["GET", "POST", "DELETE"]
who = "launch"
[[route]]
path = "/both"
methods = ["GET", "POST"]
who = ["launch", "clinician"]
[[route]]
path = "/review"
methods = ["GET"]
who = ["launch", "reviewer"]
[[route]]
path = "/plain"
methods = ["GET"]
who = ["clinician"]
"""
FROM_HERE = {"sec-fetch-site": "same-origin"}


async def show(request: Request) -> Response:
    form = dict(await request.form()) if request.method == "POST" else {}
    said = launch_of(request).patient if is_launched(request) else "by a sign-in"
    return PlainTextResponse(f"{said} {visitor_of(request).actor} {form.get('word', '')}")


@dataclass
class Site:
    """The door and a few pages behind it, and a browser that keeps the cookie as browsers do in a frame."""

    house: House
    cookies: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        app = FastAPI()
        self.house.door.add_to(app)
        for path in ("/page", "/both", "/review", "/plain"):
            app.add_api_route(path, show, methods=["GET", "POST", "DELETE"])
        table = dict(read_table()) | dict(read_table(TABLE))
        gate = Gate(
            app, access=self.house_door(), table=table, routes=lambda: app.router.routes,
            refusals=self.house.refusals, launched=self.house.door,
        )  # fmt: skip
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=SecurityHeaders(gate)), base_url=HERE
        )

    def house_door(self) -> OpenDoor:
        return Closed()

    async def ask(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        kept = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await self.client.request(
            method, path, headers={**(headers or {}), **({"cookie": kept} if kept else {})}, **more
        )
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
            if "Max-Age=0" in line:
                del self.cookies[name]
        self.client.cookies.clear()
        return answer

    async def launched(self, **said: object) -> str:
        """Launch, and return the visit."""
        self.house.launching.ehr.said = dict(said)
        begun = await self.ask(f"/launch?{urlencode({'iss': ISS, 'launch': 'xyz'})}")
        assert begun.status_code == 303
        answer = self.house.launching.ehr.authorize(begun.headers["location"])
        back = await self.ask(f"/launch/callback?{urlencode(answer)}")
        assert back.status_code == 303
        path, _, visit = back.headers["location"].partition("?visit=")
        assert path == "/sidebar"
        return visit

    def reasons(self) -> list[str]:
        return [entry.outcome for entry in self.house.audit.entries if entry.action is Action.REFUSED]


class Closed(OpenDoor):
    """An Access that knows one clinician, by a session."""

    async def visitor_of(self, request: Request) -> Visitor | None:
        is_known = request.cookies.get(SESSION) == "good"
        return Visitor("user:signed-in", frozenset({Role.CLINICIAN})) if is_known else None

    def invite(self, request: Request) -> Response:
        return PlainTextResponse("sign in", 401)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    opened = Site(House(tmp_path))
    yield opened
    await opened.client.aclose()


async def test_the_cookie_reaches_us_in_a_frame_and_no_script(site: Site) -> None:
    begun = await site.ask(f"/launch?{urlencode({'iss': ISS, 'launch': 'xyz'})}")
    (line,) = begun.headers.get_list("set-cookie")
    name, _, attributes = line.partition("; ")
    assert name.startswith("__Host-epicrisis-launch=")
    assert len(name.partition("=")[2]) == 43
    assert attributes == "Path=/; Secure; HttpOnly; SameSite=None; Partitioned"


async def test_a_launch_leads_to_the_sidebar_with_a_visit_and_is_on_record(site: Site) -> None:
    visit = await site.launched()
    shown = await site.ask(f"/page?visit={visit}")
    assert shown.status_code == 200
    assert shown.text.startswith(f"Patient/{PATIENT} user:")
    (entry,) = site.house.audit.entries
    assert entry.action is Action.LOGIN
    assert (entry.patient, entry.server, entry.by) == (f"Patient/{PATIENT}", ISS, "Practitioner/roe")
    assert entry.actor in shown.text


@pytest.mark.parametrize("iss", ["https://evil.example/fhir", "javascript:alert(1)", f"{ISS}/x"])
async def test_an_ehr_that_is_not_configured_is_refused_with_a_plain_page_and_recorded(
    site: Site, iss: str
) -> None:
    answer = await site.ask(f"/launch?{urlencode({'iss': iss, 'launch': 'xyz'})}")
    assert answer.status_code == 403
    assert "location" not in answer.headers
    assert "evil" not in answer.text
    assert "alert" not in answer.text
    assert site.reasons() == ["issuer"]
    assert site.house.launching.ehr.asked == []


@pytest.mark.parametrize(
    "query", ["", "iss=", "launch=x", f"iss={ISS}&iss=https://evil.example", f"launch=x&launch=y&iss={ISS}"]
)
async def test_an_address_that_no_ehr_opens_is_not_understood(site: Site, query: str) -> None:
    answer = await site.ask(f"/launch?{query}")
    assert answer.status_code == 400
    assert site.house.launching.ehr.asked == []


async def test_no_address_that_is_brought_along_is_gone_to(site: Site) -> None:
    """An open redirect: we lead to the configured EHR's endpoint and to our own page, nowhere else."""
    evil = {"redirect_uri": "https://evil.example", "to": "//evil.example", "next": "https://evil.example"}
    begun = await site.ask(f"/launch?{urlencode({'iss': ISS, 'launch': 'xyz', **evil})}")
    assert begun.headers["location"].startswith("https://login.hospital.example/authorize?")
    assert "evil" not in begun.headers["location"]
    answer = site.house.launching.ehr.authorize(begun.headers["location"])
    back = await site.ask(f"/launch/callback?{urlencode({**answer, **evil})}")
    assert back.headers["location"].startswith("/sidebar?visit=")
    assert "evil" not in back.headers["location"]


async def test_our_callback_is_named_by_our_own_address_alone(site: Site) -> None:
    begun = await site.ask(
        f"/launch?{urlencode({'iss': ISS, 'launch': 'x', 'redirect_uri': 'https://e.example'})}"
    )
    wanted = urlencode({"redirect_uri": f"{HERE}/launch/callback"})
    assert wanted in begun.headers["location"]


@pytest.mark.parametrize(
    ("said", "claims", "reason", "status", "word"),
    [
        ({"patient": None}, {}, "no_patient", 400, "without a patient"),
        ({}, {"fhirUser": "Patient/1"}, "patient", 403, "may not open"),
        ({}, {"fhirUser": None}, "role", 403, "may not open"),
        ({}, {"nonce": "x"}, "nonce", 400, "did not come to an end"),
        ({}, {"aud": "x"}, "audience", 400, "did not come to an end"),
    ],
)
async def test_who_is_refused_is_told_so_and_on_record(
    site: Site, said: dict[str, object], claims: dict[str, object], reason: str, status: int, word: str
) -> None:
    ehr = site.house.launching.ehr
    ehr.said, ehr.claims = dict(said), dict(claims)
    begun = await site.ask(f"/launch?{urlencode({'iss': ISS, 'launch': 'xyz'})}")
    back = await site.ask(f"/launch/callback?{urlencode(ehr.authorize(begun.headers['location']))}")
    assert (back.status_code, site.reasons()) == (status, [reason])
    assert word in back.text
    assert CANARY not in back.text
    assert site.house.launching.store.rows == {}


async def test_a_browser_that_keeps_no_cookie_is_told_what_to_do(site: Site) -> None:
    begun = await site.ask(f"/launch?{urlencode({'iss': ISS, 'launch': 'xyz'})}")
    site.cookies.clear()
    answer = site.house.launching.ehr.authorize(begun.headers["location"])
    back = await site.ask(f"/launch/callback?{urlencode(answer)}")
    assert back.status_code == 400
    assert "cookie" in back.text
    assert site.reasons() == ["state"]


async def test_a_replayed_answer_opens_nothing(site: Site) -> None:
    begun = await site.ask(f"/launch?{urlencode({'iss': ISS, 'launch': 'xyz'})}")
    answer = urlencode(site.house.launching.ehr.authorize(begun.headers["location"]))
    assert (await site.ask(f"/launch/callback?{answer}")).status_code == 303
    assert (await site.ask(f"/launch/callback?{answer}")).status_code == 400
    assert site.reasons() == ["state"]


async def test_an_answer_whose_names_stand_in_it_twice_is_refused(site: Site) -> None:
    begun = await site.ask(f"/launch?{urlencode({'iss': ISS, 'launch': 'xyz'})}")
    answer = urlencode(site.house.launching.ehr.authorize(begun.headers["location"]))
    assert (await site.ask(f"/launch/callback?{answer}&code=code-2")).status_code == 400


async def test_a_launch_that_cannot_be_recorded_does_not_happen(site: Site) -> None:
    site.house.audit.break_down()
    begun = await site.ask(f"/launch?{urlencode({'iss': ISS, 'launch': 'xyz'})}")
    answer = urlencode(site.house.launching.ehr.authorize(begun.headers["location"]))
    with pytest.raises(StoreError):
        await site.ask(f"/launch/callback?{answer}")
    assert site.house.launching.store.rows == {}
    assert site.house.launching.ehr.revoked == ["refresh-1", "access-1"]


async def test_an_ehr_that_does_not_answer_is_told_as_such(site: Site) -> None:
    site.house.launching.ehr.down = True
    assert (await site.ask(f"/launch?{urlencode({'iss': ISS})}")).status_code == 503
    assert site.reasons() == []


async def test_without_a_visit_the_newest_launch_is_shown_and_two_tabs_never_mix(site: Site) -> None:
    first = await site.launched(patient="one")
    site.house.now += timedelta(seconds=1)
    second = await site.launched(patient="two")
    for path, wanted in (
        ("/page", "two"), (f"/page?visit={first}", "one"), (f"/page?visit={second}", "two"), ("/page", "two"),
    ):  # fmt: skip
        assert (await site.ask(path)).text.startswith(f"Patient/{wanted} ")


async def test_the_visit_of_another_browser_is_refused_and_recorded(site: Site) -> None:
    visit = await site.launched()
    theirs, site.cookies = site.cookies, {}
    await site.launched()
    answer = await site.ask(f"/page?visit={visit}")
    assert answer.status_code == 403
    assert PATIENT not in answer.text
    assert site.reasons() == ["browser"]
    site.cookies = theirs
    assert (await site.ask(f"/page?visit={visit}")).status_code == 200


async def test_without_a_launch_the_chart_must_be_opened(site: Site) -> None:
    assert (await site.ask("/page")).status_code == 401
    assert "patient's chart" in (await site.ask("/page")).text.replace("&#39;", "'")
    visit = await site.launched()
    site.house.now += IDLE
    answer = await site.ask(f"/page?visit={visit}")
    assert answer.status_code == 401
    assert PATIENT not in answer.text
    site.cookies = {LAUNCH: "x" * 43}
    assert (await site.ask("/page")).status_code == 401


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_what_changes_something_names_its_visit_and_comes_from_a_page_of_ours(
    site: Site, method: str
) -> None:
    visit = await site.launched()
    named = {"x-epicrisis-visit": visit}
    for headers, path, wanted in (
        ({**FROM_HERE, **named}, "/page", 200),
        (named | {"sec-fetch-site": "cross-site"}, "/page", 403),
        (named | {"sec-fetch-site": "same-site"}, "/page", 403),
        (named | {"sec-fetch-site": "none"}, "/page", 403),
        (named | {"origin": "https://evil.example"}, "/page", 403),
        (named, "/page", 403),
        (FROM_HERE, "/page", 403),
        (FROM_HERE, f"/page?visit={visit}", 403),
        ({**FROM_HERE, "x-epicrisis-visit": "x" * 22}, "/page", 401),
    ):
        answer = await site.ask(path, method, headers)
        assert answer.status_code == wanted, (headers, path)
    assert set(site.reasons()) == {"elsewhere"}


async def test_a_form_names_its_visit_in_a_field_and_the_route_still_reads_it(site: Site) -> None:
    visit = await site.launched()
    answer = await site.ask("/page", "POST", FROM_HERE, data={"visit": visit, "word": "wrong"})
    assert answer.status_code == 200
    assert answer.text.endswith(" wrong")
    for fields in ({"word": "wrong"}, {"visit": "", "word": "wrong"}):
        assert (await site.ask("/page", "POST", FROM_HERE, data=fields)).status_code == 403
    large = {"visit": visit, "word": "x" * 20_000}
    assert (await site.ask("/page", "POST", FROM_HERE, data=large)).status_code == 413


async def test_the_body_of_who_has_no_launch_is_not_read(site: Site) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = await site.ask("/page", "POST", {**FROM_HERE, **form}, content=never())
    assert answer.status_code == 401
    await site.launched()
    answer = await site.ask("/page", "POST", {"sec-fetch-site": "cross-site", **form}, content=never())
    assert answer.status_code == 403


async def test_a_route_may_open_to_a_launch_and_to_a_sign_in(site: Site) -> None:
    site.cookies[SESSION] = "good"
    assert (await site.ask("/both")).text.startswith("by a sign-in user:signed-in")
    assert (await site.ask("/page")).status_code == 403
    visit = await site.launched()
    assert (await site.ask(f"/both?visit={visit}")).text.startswith(f"Patient/{PATIENT}")
    shown = {"authorization": "Bearer of-a-service"}
    assert (await site.ask(f"/both?visit={visit}", headers=shown)).text.startswith("by a sign-in")
    assert (await site.ask("/plain")).text.startswith("by a sign-in")


async def test_a_launch_that_is_over_does_not_stand_in_the_way_of_a_sign_in(site: Site) -> None:
    visit = await site.launched()
    site.cookies[SESSION] = "good"
    site.house.now += IDLE
    assert (await site.ask("/both")).text.startswith("by a sign-in")
    assert (await site.ask(f"/both?visit={visit}")).status_code == 401
    assert (await site.ask("/both", "POST", FROM_HERE)).text.startswith("by a sign-in")
    assert (await site.ask("/both", "POST", {"sec-fetch-site": "cross-site"})).status_code == 403
    del site.cookies[SESSION]
    assert (await site.ask("/both")).status_code == 401
    assert (await site.ask("/both", "POST", FROM_HERE)).status_code == 401


async def test_a_launch_opens_no_page_that_asks_for_another_role_or_for_a_sign_in(site: Site) -> None:
    visit = await site.launched()
    assert (await site.ask(f"/review?visit={visit}")).status_code == 403
    assert site.reasons() == ["role"]
    assert (await site.ask(f"/plain?visit={visit}")).status_code == 401


async def test_only_pages_of_a_launch_may_be_framed_and_only_by_its_ehr(site: Site) -> None:
    visit = await site.launched()
    for path in ("/launch", f"/page?visit={visit}", "/page?visit=" + "x" * 22, "/launch/callback"):
        policy = (await site.ask(path)).headers["content-security-policy"]
        assert f"frame-ancestors {HOST};" in policy, path
        assert "connect-src 'self';" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
    for path in ("/plain", "/nothing"):
        answer = await site.ask(path)
        assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


async def test_each_ehr_frames_its_own_launches_alone(tmp_path: Path) -> None:
    house = House(tmp_path)
    other = replace(EHR, name="other", iss="https://o.example/fhir", frame_ancestors=("https://o.example",))
    launching = house.launching
    launching.launches = replace(launching.launches, sites=(*launching.launches.sites, launching.site(other)))
    house.door = replace(house.door, launches=launching.launches)
    site = Site(house)
    assert (
        f"frame-ancestors https://o.example {HOST};"
        in (await site.ask("/launch")).headers["content-security-policy"]
    )
    visit = await site.launched()
    framed = (await site.ask(f"/page?visit={visit}")).headers["content-security-policy"]
    assert f"frame-ancestors {HOST};" in framed
    nowhere = replace(EHR, frame_ancestors=())
    launching.launches = replace(launching.launches, sites=(launching.site(nowhere),))
    lonely = replace(house.door, launches=launching.launches)
    assert lonely.frames() == ()


async def test_who_leaves_is_out_in_every_tab_and_the_cookie_is_gone(site: Site) -> None:
    first = await site.launched()
    second = await site.launched()
    kept = dict(site.cookies)
    answer = await site.ask("/launch/logout", "POST", FROM_HERE, data={"visit": first})
    assert answer.status_code == 200
    (line,) = answer.headers.get_list("set-cookie")
    assert line == f"{LAUNCH}=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=None; Partitioned"
    site.cookies = kept
    for visit in (first, second):
        assert (await site.ask(f"/page?visit={visit}")).status_code == 401
    assert len(site.house.launching.ehr.revoked) == 4
    assert [entry.action for entry in site.house.audit.entries][-1] is Action.LOGOUT


async def test_another_site_cannot_make_somebody_leave(site: Site) -> None:
    visit = await site.launched()
    answer = await site.ask("/launch/logout", "POST", {"sec-fetch-site": "cross-site"}, data={"visit": visit})
    assert answer.status_code == 403
    await site.ask(f"/launch/logout?visit={visit}")
    assert (await site.ask(f"/page?visit={visit}")).status_code == 200


async def test_a_broken_store_lets_nobody_in(site: Site) -> None:
    visit = await site.launched()
    site.house.launching.store.is_broken = True
    assert (await site.ask(f"/page?visit={visit}")).status_code == 503


async def test_no_token_code_state_or_patient_is_in_a_log_a_page_or_an_address_of_ours(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        begun = await site.ask(f"/launch?{urlencode({'iss': ISS, 'launch': 'launch-secret'})}")
        answer = site.house.launching.ehr.authorize(begun.headers["location"])
        back = await site.ask(f"/launch/callback?{urlencode(answer)}")
        replayed = await site.ask(f"/launch/callback?{urlencode(answer)}")
        site.house.launching.ehr.claims = {"nonce": "x"}
        begun = await site.ask(f"/launch?{urlencode({'iss': ISS, 'launch': 'launch-secret'})}")
        failed = await site.ask(
            f"/launch/callback?{urlencode(site.house.launching.ehr.authorize(begun.headers['location']))}"
        )
    ours = [
        record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "asyncio"))
    ]
    said = " ".join(ours) + back.headers["location"] + replayed.text + failed.text
    for secret in ("access-", "refresh-", "code-", answer["state"], CANARY, "launch-secret", "sub-7"):
        assert secret not in said


def test_a_table_says_who_comes_by_a_launch() -> None:
    table = read_table(TABLE)
    page, both = table["/page", "GET"], table["/both", "GET"]
    assert isinstance(page, Rule)
    assert (page.by_launch, page.who, page.open_to) == (True, frozenset(), "")
    assert (both.by_launch, both.who) == (True, frozenset({Role.CLINICIAN}))
    assert not page.admits(frozenset(Role))
    assert page.admits_launched(frozenset())
    assert not both.admits_launched(frozenset({Role.READER}))
    assert not table["/plain", "GET"].admits_launched(frozenset(Role))
    with pytest.raises(SettingsError):
        read_table('[[route]]\npath = "/x"\nmethods = ["GET"]\nwho = ["launch", "boss"]')


async def test_without_an_ehr_nobody_comes_by_a_launch(tmp_path: Path) -> None:
    house = House(tmp_path)
    app = create_app(
        store=InMemoryStore(), audit=InMemoryAudit(), clock=house.clock, access=OpenDoor(),
        allowed_hosts=("127.0.0.1",), version="0",
    )  # fmt: skip
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=HERE) as client:
        assert (await client.get(f"/launch?iss={ISS}")).status_code == 404


async def test_a_launch_on_a_patient_who_was_destroyed_keeps_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise ShreddedError

    monkeypatch.setattr(site.house.launching.store, "put_launch", gone)
    begun = await site.ask(f"/launch?{urlencode({'iss': ISS, 'launch': 'xyz'})}")
    answer = urlencode(site.house.launching.ehr.authorize(begun.headers["location"]))
    with pytest.raises(ShreddedError):
        await site.ask(f"/launch/callback?{answer}")
    assert site.house.launching.ehr.revoked == ["refresh-1", "access-1"]
