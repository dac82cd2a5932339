"""Coming in: by the one-time token of a first start, and by the identity provider; and going out."""

from __future__ import annotations

import logging
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.ports import Action
from tests.conftest import CANARY
from tests.unit.api.house import RUN, House, browser
from tests.unit.api.markup import Markup
from tests.unit.identity.issuer import ISSUER, id_claims


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def cookies_of(answer: httpx.Response) -> SimpleCookie:
    found = SimpleCookie()
    for line in answer.headers.get_list("set-cookie"):
        found.load(line)
    return found


def acts(house: House) -> list[tuple[Action, str, str]]:
    return [(e.action, e.actor, e.outcome) for e in house.audit.entries]


async def test_the_token_is_swapped_for_a_cookie_at_once_and_opens_nothing_afterwards(house: House) -> None:
    token = house.one_time.value
    app = house.local()
    async with browser(app) as client:
        assert (await client.get("/")).status_code == 401
        answer = await client.get(f"/login?token={token}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert token not in answer.text + str(answer.headers)
        assert (await client.get("/")).status_code == 200
    async with browser(app) as other:
        assert (await other.get(f"/login?token={token}")).status_code == 401
        assert (await other.get("/")).status_code == 401
    assert acts(house) == [
        (Action.LOGIN, "user:local", "ok"),
        (Action.REFUSED, "user:unknown", "one_time"),
    ]


async def test_the_next_token_is_told_when_one_was_used(house: House) -> None:
    app = house.local()
    async with browser(app) as client:
        await client.get(f"/login?token={house.one_time.value}")
    (following,) = house.told
    async with browser(app) as other:
        assert (await other.get(f"/login?token={following}")).status_code == 303
        assert (await other.get("/")).status_code == 200


async def test_a_browser_that_looks_ahead_or_asks_for_the_head_does_not_use_the_token_up(
    house: House,
) -> None:
    token = house.one_time.value
    async with browser(house.local()) as client:
        for name in ("sec-purpose", "purpose"):
            for value in ("prefetch", "prefetch;prerender"):
                answer = await client.get(f"/login?token={token}", headers={name: value})
                assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
        assert (await client.head(f"/login?token={token}")).status_code == 401
        assert (await client.get(f"/login?token={token}")).status_code == 303


async def test_the_local_user_opens_a_summary_and_is_on_record(house: House) -> None:
    async with browser(house.local()) as client:
        await client.get(f"/login?token={house.one_time.value}")
        assert (await client.get(f"/runs/{RUN.run_id}")).status_code == 200
        assert (await client.post("/ward/schedules/morning/pause")).status_code == 303
    assert [(act, who) for act, who, _ in acts(house)[1:]] == [
        (Action.VIEW, "user:local"),
        (Action.CONFIGURE, "user:local"),
    ]
    assert house.admissions.paused()["morning"][0] == "user:local"


@pytest.mark.parametrize(("scheme", "name"), [("http", "epicrisis-80"), ("https", "__Host-epicrisis")])
async def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(
    house: House, scheme: str, name: str
) -> None:
    async with browser(house.local(), scheme) as client:
        answer = await client.get(f"/login?token={house.one_time.value}")
    cookie = cookies_of(answer)[name]
    assert cookie["httponly"]
    assert cookie["samesite"].lower() == "strict"
    assert cookie["path"] == "/"
    assert not cookie["domain"]
    assert not cookie["max-age"]
    assert bool(cookie["secure"]) is (scheme == "https")
    assert ("strict-transport-security" in answer.headers) is (scheme == "https")


async def test_signing_out_ends_the_session_on_the_server_too(house: House) -> None:
    async with browser(house.local()) as client:
        await client.get(f"/login?token={house.one_time.value}")
        kept = dict(client.cookies)
        answer = await client.post("/logout")
        assert "You are signed out" in answer.text
        assert (await client.get("/")).status_code == 401
        client.cookies.update(kept)
        assert (await client.get("/")).status_code == 401
    assert house.kept.kept == {}
    assert acts(house)[-1] == (Action.LOGOUT, "user:local", "ok")


async def test_a_sign_in_that_cannot_be_recorded_does_not_happen(house: House) -> None:
    house.audit.break_down()
    async with browser(house.local()) as client:
        answer = await client.get(f"/login?token={house.one_time.value}")
        assert (answer.status_code, "set-cookie" in answer.headers) == (503, False)
    assert house.kept.kept == {}


async def test_no_token_is_in_a_log(house: House, caplog: pytest.LogCaptureFixture) -> None:
    token = house.one_time.value
    with caplog.at_level(logging.DEBUG, "epicrisis"):
        async with browser(house.local()) as client:
            await client.get(f"/login?token={token}")
            session = next(iter(house.kept.kept))
            await client.get(f"/login?token={CANARY}")
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("epicrisis"))
    assert "GET /login 303" in ours
    assert token not in ours
    assert session not in ours
    assert CANARY not in ours


async def sign_in(house: House, client: httpx.AsyncClient, path: str = "/login") -> httpx.Response:
    begun = await client.get(path)
    assert begun.status_code == 303
    return await client.get("/callback", params=house.issuer.authorize(begun.headers["location"]))


async def test_whoever_signs_out_is_led_to_the_end_of_the_providers_session_too(house: House) -> None:
    async with browser(house.oidc()) as client:
        await sign_in(house, client)
        links = [a["href"] for a in Markup((await client.post("/logout")).text).all("a", "button")]
        assert links == [f"{ISSUER}/logout", "/"]
    async with browser(house.local()) as client:
        await client.get(f"/login?token={house.one_time.value}")
        assert [a["href"] for a in Markup((await client.post("/logout")).text).all("a", "button")] == ["/"]


async def test_a_person_signs_in_at_the_provider_and_lands_where_they_wanted_to_go(house: House) -> None:
    house.issuer.claims = id_claims(fhirUser="Practitioner/roe")
    async with browser(house.oidc()) as client:
        asked = Markup((await client.get(f"/runs/{RUN.run_id}")).text)
        (link,) = [a["href"] for a in asked.all("a", "button")]
        answer = await sign_in(house, client, link)
        assert f"url=/runs/{RUN.run_id}" in answer.text
        assert (await client.get(f"/runs/{RUN.run_id}")).status_code == 200
    login, view = house.audit.entries
    assert (login.action, login.patient, login.by) == (Action.LOGIN, "", "Practitioner/roe")
    assert (view.action, view.by) == (Action.VIEW, "Practitioner/roe")
    assert login.actor == view.actor
    assert login.actor.startswith("user:")


async def test_the_cookie_of_an_attempt_is_sent_back_by_the_provider_and_dropped_then(house: House) -> None:
    async with browser(house.oidc()) as client:
        begun = await client.get("/login")
        cookie = cookies_of(begun)["epicrisis-login-80"]
        assert (cookie["samesite"].lower(), bool(cookie["httponly"])) == ("lax", True)
        answer = await client.get("/callback", params=house.issuer.authorize(begun.headers["location"]))
        assert cookies_of(answer)["epicrisis-login-80"].value == ""
        assert cookies_of(answer)["epicrisis-80"]["samesite"].lower() == "strict"


async def test_an_id_of_before_the_sign_in_is_worth_nothing_after_it(house: House) -> None:
    async with browser(house.oidc()) as client:
        await sign_in(house, client)
        first = client.cookies["epicrisis-80"]
        await sign_in(house, client)
        assert client.cookies["epicrisis-80"] != first
        assert list(house.kept.kept) == [client.cookies["epicrisis-80"]]
        client.cookies.clear()
        client.cookies.set("epicrisis-80", "A" * 43, domain="127.0.0.1")  # planted by somebody else
        await sign_in(house, client)
        assert "A" * 43 not in house.kept.kept


@pytest.mark.parametrize(
    ("claims", "reason", "said"),
    [
        ({"roles": ["choir"]}, "role", "may not open this"),
        ({"fhirUser": "Patient/1"}, "patient", "may not open this"),
        ({"tid": "other-hospital"}, "tenant", "did not come to an end"),
        ({"aud": "other"}, "audience", "did not come to an end"),
    ],
)
async def test_whom_the_provider_knows_and_this_house_does_not_gets_no_session(
    house: House, claims: dict[str, Any], reason: str, said: str
) -> None:
    house.issuer.claims = id_claims(**claims, name=CANARY)
    async with browser(house.oidc()) as client:
        answer = await sign_in(house, client)
        assert answer.status_code in (401, 403)
        assert said in answer.text
        assert CANARY not in answer.text
        assert (await client.get("/")).status_code == 401
    assert house.kept.kept == {}
    assert acts(house) == [(Action.REFUSED, "user:unknown", reason)]


@pytest.mark.parametrize(
    "query", ["", "?state=x&code=y", "?state=x&state=y&code=z", "?error=access_denied", f"?code={CANARY}"]
)
async def test_an_answer_that_nobody_asked_for_opens_nothing(house: House, query: str) -> None:
    async with browser(house.oidc()) as client:
        answer = await client.get(f"/callback{query}")
        assert answer.status_code == 401
        assert CANARY not in answer.text
    assert acts(house) == [(Action.REFUSED, "user:unknown", "state")]


async def test_an_answer_that_says_something_twice_is_refused(house: House) -> None:
    async with browser(house.oidc()) as client:
        begun = await client.get("/login")
        back = house.issuer.authorize(begun.headers["location"])
        twice = httpx.QueryParams([("code", "another"), *back.items()])
        assert (await client.get("/callback", params=twice)).status_code == 401
    assert house.kept.kept == {}


async def test_a_provider_that_is_down_is_told_and_opens_nothing(house: House) -> None:
    async with browser(house.oidc()) as client:
        begun = await client.get("/login")
        house.issuer.down = True
        back = house.issuer.authorize(begun.headers["location"])
        assert (await client.get("/callback", params=back)).status_code == 503
    house.issuer.down = True
    async with browser(House(house.folder, issuer=house.issuer).oidc()) as client:
        assert (await client.get("/login")).status_code == 503
    assert house.kept.kept == {}


async def test_another_site_is_never_gone_to_after_a_sign_in(house: House) -> None:
    async with browser(house.oidc()) as client:
        answer = await sign_in(house, client, "/login?to=//evil.example")
        assert "evil" not in answer.text
        assert "url=/" in answer.text
