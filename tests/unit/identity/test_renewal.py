"""A user's tokens: renewed before they end and after a refusal, once for all who ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.errors import ConnectorError, ServerFailed, TimedOut, Unauthorized
from connectors.fhir.client import FhirClient
from connectors.http import Patience
from connectors.smart.bearer import UserAuth
from connectors.smart.server import Client
from service.identity.refusal import Reason
from service.ports.launches import Launch
from service.store.cipher import Cipher
from tests.conftest import CANARY
from tests.unit.identity.ehr import ISS, PATIENT, Launching

NEARLY = timedelta(seconds=241)
"""After which a token of 300 seconds is due."""
OVER = timedelta(seconds=301)


@pytest.fixture
def site(tmp_path: Path) -> Launching:
    return Launching(Cipher.from_file(tmp_path / "key"))


async def token(site: Launching, launch: Launch, refused: str = "") -> str:
    return await site.renewal.bearer(launch.visit).token(refused)


async def at_once(site: Launching, *asking: Coroutine[Any, Any, Any]) -> list[Any]:
    """Start all before the token endpoint answers the first that asks it."""
    site.ehr.reached.clear()
    site.ehr.go = asyncio.Event()
    tasks = [asyncio.create_task(one) for one in asking]
    await site.ehr.reached.wait()
    for _ in range(20):
        await asyncio.sleep(0.001)
    site.ehr.go.set()
    return await asyncio.gather(*tasks)


async def test_a_good_token_is_shown_as_it_is(site: Launching) -> None:
    _, launch = await site.opened()
    site.now += NEARLY - timedelta(seconds=2)
    assert await token(site, launch) == "access-1"
    assert site.ehr.refreshed == 0


async def test_a_token_is_renewed_before_it_ends_and_the_new_refresh_token_is_kept(site: Launching) -> None:
    browser, launch = await site.opened()
    for n in (2, 3, 4):
        site.now += NEARLY
        assert await token(site, launch) == f"access-{n}"
        kept = await site.launches.find(browser, launch.visit)
        assert kept is not None
        assert kept.tokens.refresh == f"refresh-{n}"
        assert kept.patient == launch.patient
    assert site.ehr.refreshed == 3


async def test_a_short_token_is_not_renewed_at_every_request(site: Launching) -> None:
    site.ehr.said = {"expires_in": 40}
    _, launch = await site.opened()
    for _ in range(3):
        assert await token(site, launch) == "access-1"
    site.now += timedelta(seconds=31)
    assert await token(site, launch) == "access-2"


async def test_a_refused_token_is_renewed_once_and_whoever_comes_with_it_later_gets_the_new_one(
    site: Launching,
) -> None:
    _, launch = await site.opened()
    assert await token(site, launch, "access-1") == "access-2"
    assert await token(site, launch, "access-1") == "access-2"
    assert site.ehr.refreshed == 1


async def test_many_at_once_renew_once(site: Launching) -> None:
    _, launch = await site.opened()
    site.now += OVER
    assert set(await at_once(site, *(token(site, launch) for _ in range(20)))) == {"access-2"}
    assert site.ehr.refreshed == 1
    assert site.store.asked_to_hold == 1, "whoever waits in this process waits for the answer, not for a turn"


async def test_two_processes_at_once_renew_once(site: Launching) -> None:
    _, launch = await site.opened()
    site.now += OVER
    other = Launching(site.cipher, site.ehr, store=site.store, now=site.now)
    assert await at_once(site, token(site, launch), token(other, launch)) == ["access-2", "access-2"]
    assert site.ehr.refreshed == 1


async def test_whoever_gives_up_waiting_does_not_lose_the_new_tokens(site: Launching) -> None:
    """A refresh token that was used and whose successor is lost would end the user's session."""
    _, launch = await site.opened()
    site.now += OVER
    site.ehr.reached.clear()
    site.ehr.go = asyncio.Event()
    waiting = asyncio.create_task(token(site, launch))
    await site.ehr.reached.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    site.ehr.go.set()
    assert await token(site, launch) == "access-2"
    assert site.ehr.refreshed == 1


async def test_a_renewal_that_another_process_never_ends_is_given_up(site: Launching) -> None:
    _, launch = await site.opened()
    site.now += OVER
    assert site.store.hold(launch.visit) is not None
    with pytest.raises(TimedOut):
        await token(site, launch)
    assert site.ehr.refreshed == 0


async def test_an_answer_without_a_refresh_token_leaves_the_one_before(site: Launching) -> None:
    browser, launch = await site.opened()
    site.ehr.said = {"refresh_token": None, "scope": None}
    site.now += OVER
    assert await token(site, launch) == "access-2"
    kept = await site.launches.find(browser, launch.visit)
    assert kept is not None
    assert kept.tokens.refresh == "refresh-1"
    assert kept.scope == launch.scope


async def test_a_narrower_grant_is_another_access_profile_from_then_on(site: Launching) -> None:
    browser, launch = await site.opened()
    site.ehr.said = {"scope": "openid patient/Condition.rs"}
    site.now += OVER
    await token(site, launch)
    kept = await site.launches.find(browser, launch.visit)
    assert kept is not None
    assert kept.scope == "openid patient/Condition.rs"
    assert kept.access_profile != launch.access_profile


async def test_tokens_that_turn_to_another_patient_end_the_launch(site: Launching) -> None:
    browser, launch = await site.opened()
    site.ehr.said = {"patient": f"other-{CANARY}"}
    site.now += OVER
    with pytest.raises(Unauthorized) as ended:
        await token(site, launch)
    assert CANARY not in str(ended.value)
    assert await site.launches.find(browser, launch.visit) is None
    assert site.refused == [(Reason.OTHER_PATIENT, launch.actor)]
    assert site.ehr.revoked == ["refresh-2", "access-2"]


@pytest.mark.parametrize("patient", [None, PATIENT, f"Patient/{PATIENT}"])
async def test_a_renewal_may_say_the_same_patient_or_none(site: Launching, patient: str | None) -> None:
    _, launch = await site.opened()
    site.ehr.said = {"patient": patient}
    site.now += OVER
    assert await token(site, launch) == "access-2"


async def test_a_grant_that_is_over_is_told_and_a_token_that_is_still_good_is_used_to_its_end(
    site: Launching, caplog: pytest.LogCaptureFixture
) -> None:
    _, launch = await site.opened()
    site.ehr.refuses = 400
    site.now += NEARLY
    with caplog.at_level(logging.DEBUG, "epicrisis.identity"):
        assert await token(site, launch) == "access-1"
    site.now += OVER
    with pytest.raises(Unauthorized) as ended:
        await token(site, launch)
    assert "chart" in ended.value.advice
    for secret in ("access-", "refresh-", CANARY):
        assert secret not in caplog.text + repr(ended.value)


async def test_a_network_that_is_away_for_a_moment_ends_nothing(site: Launching) -> None:
    _, launch = await site.opened()
    site.ehr.down = True
    site.now += NEARLY
    assert await token(site, launch) == "access-1"
    site.now += OVER
    with pytest.raises(ServerFailed):
        await token(site, launch)
    site.ehr.down = False
    assert await token(site, launch) == "access-2"


async def test_without_a_refresh_token_the_launch_ends_with_its_access_token(site: Launching) -> None:
    site.ehr.said = {"refresh_token": None}
    _, launch = await site.opened()
    site.now += NEARLY
    assert await token(site, launch) == "access-1"
    assert await token(site, launch, "access-1") == "access-1"
    site.now += OVER
    with pytest.raises(Unauthorized):
        await token(site, launch)


async def test_who_left_meanwhile_gets_no_tokens_and_the_new_ones_are_taken_back(site: Launching) -> None:
    browser, launch = await site.opened()
    site.now += OVER
    site.ehr.reached.clear()
    site.ehr.go = asyncio.Event()
    waiting = asyncio.create_task(token(site, launch))
    await site.ehr.reached.wait()
    await site.launches.end(browser)
    site.ehr.go.set()
    with pytest.raises(Unauthorized):
        await waiting
    assert {"refresh-2", "access-2"} <= set(site.ehr.revoked)


async def test_the_tokens_of_a_launch_that_is_over_are_not_shown(site: Launching) -> None:
    browser, launch = await site.opened()
    await site.launches.end(browser)
    with pytest.raises(Unauthorized):
        await token(site, launch)


class Record:
    """A FHIR server that takes one access token at a time."""

    def __init__(self, good: str) -> None:
        self.good = good
        self.seen: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request.headers.get("authorization", ""))
        if self.seen[-1] != f"Bearer {self.good}":
            return httpx.Response(401, json={"resourceType": "OperationOutcome", "issue": []})
        return httpx.Response(200, json={"resourceType": "Patient", "id": "1"})


def reading(site: Launching, launch: Launch, record: Record, **more: Any) -> FhirClient:
    auth = UserAuth(launch.access_profile, site.renewal.bearer(launch.visit))
    transport = httpx.MockTransport(record.answer)
    return FhirClient(ISS, auth=auth, transport=transport, patience=Patience(sleep=site.rest), **more)


async def test_a_request_is_repeated_once_after_a_401_with_the_new_token(site: Launching) -> None:
    _, launch = await site.opened()
    record = Record("access-2")
    async with reading(site, launch, record) as client:
        assert (await client.read("Patient/1"))["id"] == "1"
    assert record.seen == ["Bearer access-1", "Bearer access-2"]
    record.good = "never"
    async with reading(site, launch, record) as client:
        with pytest.raises(Unauthorized):
            await client.read("Patient/1")
    assert len(record.seen) == 4


async def test_two_requests_that_are_refused_at_once_renew_once(site: Launching) -> None:
    _, launch = await site.opened()
    record = Record("access-2")
    async with reading(site, launch, record) as client:
        await at_once(site, client.read("Patient/1"), client.read("Patient/2"))
    assert site.ehr.refreshed == 1


async def test_a_token_goes_to_no_other_server(site: Launching) -> None:
    _, launch = await site.opened()
    record = Record("access-1")
    async with reading(site, launch, record, allowed_origins=("https://files.example",)) as client:
        with pytest.raises(ConnectorError):
            await client.session.send("GET", "https://evil.example/x", repeatable=True)
        with pytest.raises(ConnectorError):
            await client.session.send("GET", "https://files.example/x", repeatable=True)
    assert record.seen == [""]


async def test_what_carries_tokens_does_not_show_them(site: Launching) -> None:
    auth = UserAuth("user:0a", site.renewal.bearer("v"))
    assert repr(auth) == "<UserAuth user:0a>"
    assert "secret" not in repr(Client("epicrisis", "secret"))
