"""Signing in at a provider that the project did not write, through the application as it is wired."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from fastapi import FastAPI

from service.identity.keys import ASK_AGAIN_S, KeyRing
from service.identity.provider import Provider
from service.identity.refusal import Reason, Refused
from service.identity.tokens import Expected, read_access_token
from service.ports import Action
from service.settings import Settings, load_settings
from service.wiring import build_app, open_store, utc_now
from tests.integration.identity.conftest import AUDIENCE, SECRET, TENANT, OidcServer, oidc_server

pytestmark = pytest.mark.node

HERE = "http://127.0.0.1:8080"
CALLBACK = f"{HERE}/callback"


@dataclass
class Site:
    server: OidcServer
    settings: Settings
    app: FastAPI

    def browser(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app),
            base_url=HERE,
            headers={"sec-fetch-site": "same-origin"},
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with oidc_server(tmp_path_factory.mktemp("oidc"), CALLBACK) as server:
        settings = load_settings(
            home=tmp_path_factory.mktemp("home"),
            oidc_issuer=server.issuer,
            oidc_client_id="epicrisis",
            oidc_client_secret=SECRET,
            oidc_audience=AUDIENCE,
            oidc_tenant=TENANT,
            oidc_roles={"is-clinician": "clinician", "is-reader": "reader"},
        )
        yield Site(server, settings, build_app(settings))


def sign_in_there(address: str, login: str) -> str:
    """Do what a person does on the provider's pages; return the address that they are sent back to."""
    with httpx.Client(trust_env=False) as person:
        answer = person.get(address)
        for _ in range(12):
            if answer.is_redirect:
                target = str(answer.next_request.url) if answer.next_request else ""
                if target.startswith(CALLBACK):
                    return target
                answer = person.get(target)
                continue
            assert answer.status_code == 200
            action = html.unescape(re.findall(r'<form[^>]* action="([^"]+)"', answer.text)[0])
            prompt = re.findall(r'name="prompt" value="(\w+)"', answer.text)[0]
            answer = person.post(action, data={"prompt": prompt, "login": login, "password": "x"})
    raise AssertionError("the provider did not send the person back")


async def signed_in(client: httpx.AsyncClient, login: str) -> httpx.Response:
    begun = await client.get("/login?to=/ward")
    assert begun.status_code == 303
    return await client.get(sign_in_there(begun.headers["location"], login))


async def test_a_clinician_signs_in_with_pkce_and_sees_the_pages(site: Site) -> None:
    async with site.browser() as client:
        assert (await client.get("/")).status_code == 401
        answer = await signed_in(client, "roe")
        assert answer.status_code == 200
        assert "url=/ward" in answer.text
        assert (await client.get("/")).status_code == 200
        assert (await client.post("/ward/schedules/x/pause")).status_code == 403
        assert (await client.post("/logout")).status_code == 200
        assert (await client.get("/")).status_code == 401
    _, audit = open_store(site.settings)
    entries = [entry for entry in audit.entries() if entry.by == "Practitioner/roe"]
    assert [entry.action for entry in entries] == [Action.LOGOUT, Action.LOGIN]
    assert "roe" not in entries[0].actor


@pytest.mark.parametrize("login", ["doe", "own", "nobody-knows-me"])
async def test_who_has_no_role_here_or_is_a_patient_does_not_come_in(site: Site, login: str) -> None:
    async with site.browser() as client:
        assert (await signed_in(client, login)).status_code == 403
        assert (await client.get("/")).status_code == 401


async def test_an_answer_that_was_taken_once_is_worth_nothing_again(site: Site) -> None:
    async with site.browser() as client:
        begun = await client.get("/login")
        back = sign_in_there(begun.headers["location"], "roe")
        attempt = dict(client.cookies)
        assert (await client.get(back)).status_code == 200
        client.cookies.clear()
        for name, value in attempt.items():
            client.cookies.set(name, value, domain="127.0.0.1")
        assert (await client.get(back)).status_code == 401


async def test_a_service_comes_in_with_its_access_token(site: Site) -> None:
    async with site.browser() as client:
        headers = {"authorization": f"Bearer {site.server.service_token()}"}
        assert (await client.get("/", headers=headers)).status_code == 200
        assert (await client.post("/ward/schedules/x/pause", headers=headers)).status_code == 403
        spoilt = {"authorization": headers["authorization"][:-6] + "AAAAAA"}
        assert (await client.get("/", headers=spoilt)).status_code == 401


async def test_a_key_that_the_provider_changed_is_found_and_the_old_one_is_forgotten(site: Site) -> None:
    ticks = [0.0]
    provider = Provider(site.server.issuer, "epicrisis", SECRET)
    ring = KeyRing(provider.fetch_keys, lambda: ticks[0])
    expected = Expected(site.server.issuer, AUDIENCE, "tid", TENANT)
    now = utc_now().timestamp()
    old = site.server.service_token()
    assert (await read_access_token(old, ring, expected, now))["client_id"] == "night-job"
    site.server.rotate("second")
    ticks[0] += ASK_AGAIN_S
    assert await read_access_token(site.server.service_token(), ring, expected, now)
    with pytest.raises(Refused) as refused:
        await read_access_token(old, ring, expected, now)
    assert refused.value.reason is Reason.UNKNOWN_KEY
