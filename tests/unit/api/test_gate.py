"""Every route, every role, every kind of credential: what happens is what `routes.toml` says."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import WebSocketRoute
from starlette.types import Message, Scope

from connectors.admissions.subscription import HOOK_HEADER
from service.api.cookies import SESSION
from service.api.gate import NOBODY, Refusals
from service.api.table import CDS, HOOK, PUBLIC, Rule, check_routes, offered, read_table
from service.errors import SettingsError
from service.identity.refusal import Reason
from service.identity.visitor import LOCAL, Role, Visitor
from service.ports import Action
from tests.unit.api.cds import ehr
from tests.unit.api.entering import OpenDoor
from tests.unit.api.house import IDLE, LONGEST, RUN, SECRET, House, browser
from tests.unit.identity.issuer import (
    AUDIENCE,
    CLIENT,
    NOW,
    access_claims,
    access_token,
    forged,
    id_claims,
    id_token,
    signed_with_the_public_key,
    unsigned,
)

TABLE = read_table()
RULES = sorted(TABLE.values(), key=lambda rule: (rule.path, rule.method))
VALUES = {
    "run_id": RUN.run_id, "n": "1", "name": "morning", "act": "pause", "resource_type": "Encounter",
    "resource_id": "1", "generation_id": "0" * 32, "service_id": ehr.VIEW, "question_id": "0" * 32,
    "proposal_id": "0" * 32, "evaluation_id": "0" * 32, "feedback_id": "0" * 32,
    "number": "1",
}  # fmt: skip
NO_TURN = (200, 303, 400, 404)
"""What a route itself answers here: the gate answers 401 and 403."""


def credentials(role: Role | None) -> dict[str, tuple[str | None, str]]:
    """Each kind of credential: the header that carries it, and why it is refused (empty: it is good)."""
    claims = access_claims(roles=[f"is-{role}"] if role else ["choir"])

    def changed(**more: Any) -> dict[str, Any]:
        return {**claims, **more}

    return {
        "none": (None, "nobody"),
        "good": (access_token(claims), ""),
        "expired": (access_token(changed(exp=NOW - 61)), "expired"),
        "forged": (forged(claims), "signature"),
        "alg none": (unsigned(claims), "algorithm"),
        "HS256 with the public key": (signed_with_the_public_key(claims), "algorithm"),
        "wrong issuer": (access_token(changed(iss="https://evil.example")), "issuer"),
        "wrong audience": (access_token(changed(aud="https://other.example")), "audience"),
        "wrong tenant": (access_token(changed(tid="other-hospital")), "tenant"),
        "not yet valid": (access_token(changed(nbf=NOW + 61)), "not_yet"),
        "an ID token": (id_token(id_claims(roles=[f"is-{role}"], aud=[AUDIENCE, CLIENT])), "kind"),
    }


def expected(rule: Rule, role: Role | None, why: str) -> int | None:
    """What the gate answers by the table; None where the route itself does."""
    if rule.open_to:
        return None
    if why or role is None:
        return 401
    return None if role in rule.who else 403


def address(rule: Rule) -> str:
    return "/static/page.css" if rule.path == "/static" else rule.path.format_map(VALUES)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    house = House(tmp_path)
    house.refusals.most = 10**6
    async with browser(house.oidc()) as client:
        yield house, client


@pytest.mark.parametrize("role", [*Role, None], ids=str)
async def test_every_route_answers_every_credential_as_the_table_says(
    site: tuple[House, httpx.AsyncClient], role: Role | None
) -> None:
    _, client = site
    walked = 0
    for rule in RULES:
        for name, (token, why) in credentials(role).items():
            headers = {"authorization": f"Bearer {token}"} if token is not None else {}
            answer = await client.request(rule.method, address(rule), headers=headers)
            walked += 1
            told = (rule.method, rule.path, name, answer.status_code)
            if rule.open_to in (HOOK, CDS):
                assert answer.status_code == 401, told  # its own secret is missing, whoever asks
                continue
            wanted = expected(rule, role, why)
            if wanted is not None:
                assert answer.status_code == wanted, told
                assert RUN.summary.identity.name not in answer.text
            elif rule.path != "/callback":
                assert answer.status_code not in (401, 403), told
    assert walked == len(RULES) * 11


@pytest.mark.parametrize("role", list(Role))
async def test_every_route_answers_every_session_as_the_table_says(
    site: tuple[House, httpx.AsyncClient], role: Role
) -> None:
    house, client = site
    for rule in RULES:
        if rule.open_to:
            continue
        house.now = start = house.now
        one = house.sessions().begin(Visitor("user:0a", frozenset({role})))
        other_provider = house.sessions("https://other.example").begin(LOCAL)
        for session_id, wanted in (
            (one, expected(rule, role, "")), (one[::-1], 401), ("", 401), (other_provider, 401),
        ):  # fmt: skip
            cookies = {"cookie": f"{SESSION}-80={session_id}"}
            answer = await client.request(rule.method, address(rule), headers=cookies)
            told = (rule.method, rule.path, answer.status_code)
            assert answer.status_code == wanted if wanted else answer.status_code in NO_TURN, told
        again = house.sessions().begin(Visitor("user:0a", frozenset({role})))
        for later in (IDLE, LONGEST):
            house.now = start + later
            answer = await client.request(
                rule.method, address(rule), headers={"cookie": f"{SESSION}-80={again}"}
            )
            assert answer.status_code == 401
        house.now = start


async def test_the_hook_opens_to_its_own_secret_alone(site: tuple[House, httpx.AsyncClient]) -> None:
    _, client = site
    hooks = [rule for rule in RULES if rule.open_to == HOOK]
    assert len(hooks) == 4
    for rule in hooks:
        answer = await client.request(rule.method, address(rule), headers={HOOK_HEADER: SECRET})
        assert answer.status_code == 200


async def test_a_cds_service_opens_to_the_token_of_a_configured_ehr_alone(
    site: tuple[House, httpx.AsyncClient],
) -> None:
    _, client = site
    services = [rule for rule in RULES if rule.open_to == CDS]
    assert len(services) == 2
    for rule in services:
        said = ehr.claims(aud=str(client.base_url.join(address(rule))), iat=NOW, exp=NOW + 300)
        one = ehr.token(said)
        for shown, wanted in ((one, 400), (one, 401), (ehr.token({**said, "jti": rule.path}), 400)):
            answer = await client.request(
                rule.method, address(rule), headers={"authorization": f"Bearer {shown}"}
            )
            assert answer.status_code == wanted
            assert answer.json()["resourceType"] == "OperationOutcome"


def test_what_is_open_to_all_is_exactly_this() -> None:
    assert {rule.path for rule in RULES if rule.open_to == PUBLIC} == {
        "/healthz", "/.well-known/jwks.json", "/static", "/login", "/callback", "/launch", "/launch/callback",
        "/cds-services", "/cds-services/{service_id}", "/cds-services/{service_id}/feedback",
    }  # fmt: skip
    assert {rule.path for rule in RULES if rule.open_to == HOOK} == {
        "/hooks/fhir", "/hooks/fhir/{resource_type}/{resource_id}",
    }  # fmt: skip
    others = {(rule.path, rule.method) for rule in RULES if rule.open_to == PUBLIC and "cds" in rule.path}
    assert others == {
        ("/cds-services", "GET"), ("/cds-services", "OPTIONS"), ("/cds-services/{service_id}", "OPTIONS"),
        ("/cds-services/{service_id}/feedback", "OPTIONS"),
    }  # fmt: skip


def test_every_route_has_a_row_and_every_row_a_route(tmp_path: Path) -> None:
    house = House(tmp_path)
    app = house.oidc()
    found = {one for route in app.router.routes for one in offered(route)}
    assert found == set(TABLE)
    local = {one for route in house.local().router.routes for one in offered(route)}
    assert found - local == {("/callback", "GET")}


def test_a_route_without_a_row_keeps_the_application_from_starting(tmp_path: Path) -> None:
    class Careless(OpenDoor):
        def add_to(self, app: FastAPI) -> None:
            app.add_api_route("/export", lambda: "everything", methods=["GET"])

    house = House(tmp_path)
    with pytest.raises(SettingsError, match="GET /export"):
        house.build(Careless())


def test_a_method_without_a_row_and_a_socket_keep_it_from_starting(tmp_path: Path) -> None:
    house = House(tmp_path)
    app = house.oidc()
    app.add_api_route("/ward", lambda: "", methods=["DELETE"])
    with pytest.raises(SettingsError, match="DELETE /ward"):
        check_routes(app.router.routes, TABLE)
    with pytest.raises(SettingsError, match="no row can speak of"):
        check_routes([WebSocketRoute("/live", lambda socket: None)], TABLE)


async def test_a_route_that_comes_later_without_a_row_is_nobodys(tmp_path: Path) -> None:
    house = House(tmp_path)
    app = house.build(OpenDoor())
    app.add_api_route("/export", lambda: "everything", methods=["GET"])
    async with browser(app) as client:
        assert (await client.get("/export")).status_code == 403


@pytest.mark.parametrize(
    "row",
    [
        '[[route]]\npath="/x"\nmethods=["GET"]\nwho=["superuser"]',
        '[[route]]\npath="/x"\nmethods=["GET","GET"]\nwho="public"',
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(row: str) -> None:
    with pytest.raises(SettingsError):
        read_table(row)


async def test_what_does_not_exist_is_told_to_those_who_are_signed_in_alone(
    site: tuple[House, httpx.AsyncClient],
) -> None:
    _, client = site
    good = {"authorization": f"Bearer {access_token()}"}
    for method, path, inside in (
        ("GET", "/nothing", 404), ("POST", "/ward", 405), ("GET", "/docs", 404), ("POST", "/static/x", 403),
    ):  # fmt: skip
        assert (await client.request(method, path)).status_code == 401
        assert (await client.request(method, path, headers=good)).status_code == inside


@pytest.mark.parametrize(
    "shown", ["Basic YTpi", "Bearer", "Bearer ", "bearer x", "Token x", "", "Bearer a.b.c d"]
)
async def test_a_header_that_is_no_bearer_token_opens_nothing(
    site: tuple[House, httpx.AsyncClient], shown: str
) -> None:
    house, client = site
    one = house.sessions().begin(LOCAL)
    answer = await client.get("/", headers={"authorization": shown, "cookie": f"{SESSION}-80={one}"})
    assert answer.status_code == 401
    assert "invalid_token" in answer.headers["www-authenticate"]


async def test_two_tokens_are_one_too_many(site: tuple[House, httpx.AsyncClient]) -> None:
    _, client = site
    good = f"Bearer {access_token()}"
    assert (await client.get("/", headers=[("authorization", good)])).status_code == 200
    assert (await client.get("/", headers=[("authorization", good)] * 2)).status_code == 401


async def test_without_an_audience_no_access_token_opens_anything(tmp_path: Path) -> None:
    house = House(tmp_path, has_services=False)
    async with browser(house.oidc()) as client:
        headers = {"authorization": f"Bearer {access_token()}"}
        assert (await client.get("/", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["/ward/schedules/morning/pause", "/logout"])
async def test_a_form_from_elsewhere_changes_nothing_for_a_session(
    site: tuple[House, httpx.AsyncClient], headers: Mapping[str, str], path: str
) -> None:
    house, client = site
    one = house.sessions().begin(LOCAL)
    answer = await client.post(path, headers={"cookie": f"{SESSION}-80={one}", **headers})
    assert answer.status_code == 403
    assert house.admissions.paused() == {}
    assert house.sessions().find(one) is not None
    assert [(e.action, e.outcome) for e in house.audit.entries] == [(Action.REFUSED, "elsewhere")]


async def test_a_service_needs_no_page_to_change_something(site: tuple[House, httpx.AsyncClient]) -> None:
    house, client = site
    token = access_token(access_claims(roles=["is-admin"], sub="night-job", client_id="night-job"))
    answer = await client.post(
        "/ward/schedules/morning/pause",
        headers={"authorization": f"Bearer {token}", "sec-fetch-site": "cross-site"},
    )
    assert answer.status_code == 303
    assert house.admissions.paused()["morning"][0] == "service:night-job"


async def test_a_page_offers_a_change_to_those_alone_who_may_make_it(
    site: tuple[House, httpx.AsyncClient],
) -> None:
    _, client = site
    for role, count in (("is-admin", 3), ("is-reader", 1)):
        headers = {"authorization": f"Bearer {access_token(access_claims(roles=[role]))}"}
        assert (await client.get("/ward", headers=headers)).text.count("<form") == count


async def test_what_is_turned_away_is_recorded_without_a_patient_a_path_or_a_token(
    site: tuple[House, httpx.AsyncClient], caplog: pytest.LogCaptureFixture
) -> None:
    house, client = site
    token = forged()
    with caplog.at_level(logging.DEBUG, "epicrisis"):
        await client.get(f"/runs/{RUN.run_id}", headers={"authorization": f"Bearer {token}"})
        auditor = access_token(access_claims(roles=["is-auditor"]))
        await client.get(f"/runs/{RUN.run_id}", headers={"authorization": f"Bearer {auditor}"})
        await client.get("/")
    entries = house.audit.entries
    assert [(e.action, e.outcome, e.patient, e.target, e.run_id) for e in entries] == [
        (Action.REFUSED, "signature", "", "", ""),
        (Action.REFUSED, "role", "", "", ""),
    ]
    assert entries[0].actor == NOBODY
    assert entries[1].actor.startswith("user:")
    assert token not in caplog.text + repr(entries)
    assert RUN.run_id not in caplog.text
    assert "GET /runs/{run_id} 401" in caplog.text


async def test_who_knocks_without_end_does_not_fill_the_audit_log(tmp_path: Path) -> None:
    house = House(tmp_path)
    refusals = Refusals(house.audit, house.clock, most=5)
    for _ in range(50):
        refusals.record(Reason.SIGNATURE)
    assert len(house.audit.entries) == 5
    house.now += timedelta(minutes=1)
    refusals.record(Reason.SIGNATURE)
    assert house.audit.entries[-1].counts == {"more": 45}


async def test_a_refusal_that_cannot_be_recorded_is_refused_all_the_same(
    site: tuple[House, httpx.AsyncClient],
) -> None:
    house, client = site
    house.audit.break_down()
    answer = await client.get("/", headers={"authorization": f"Bearer {forged()}"})
    assert answer.status_code == 401


async def test_nobody_comes_in_while_sessions_or_keys_cannot_be_looked_up(
    site: tuple[House, httpx.AsyncClient],
) -> None:
    house, client = site
    house.kept.is_broken = True
    answer = await client.get("/", headers={"cookie": f"{SESSION}-80={'0' * 43}"})
    assert answer.status_code == 503
    house.issuer.down = True
    answer = await client.get("/", headers={"authorization": f"Bearer {access_token()}"})
    assert answer.status_code == 503
    assert "cannot be checked" in answer.text
    assert (await client.get("/healthz")).status_code == 200


async def test_a_view_is_recorded_in_the_visitors_name(site: tuple[House, httpx.AsyncClient]) -> None:
    house, client = site
    token = access_token(access_claims(fhirUser="Practitioner/roe"))
    await client.get(f"/runs/{RUN.run_id}", headers={"authorization": f"Bearer {token}"})
    (entry,) = house.audit.entries
    assert (entry.action, entry.by, entry.patient) == (Action.VIEW, "Practitioner/roe", "Patient/1")
    assert entry.actor.startswith("user:")
    assert "sub-7" not in entry.actor


async def test_a_socket_is_closed_before_anybody_answers(tmp_path: Path) -> None:
    house = House(tmp_path)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope: Scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"127.0.0.1")], "scheme": "ws"}
    await house.oidc()(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
