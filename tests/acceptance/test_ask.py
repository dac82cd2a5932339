"""Questions to the application as it is wired: real OAuth server, gateway, FHIR server; scripted engine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from connectors.fhir.ehr import FhirEhr
from fixtures.charts import canary_bundle
from fixtures.servers import SekmetServer
from fixtures.smart import CLIENTS, SmartEhr, missing_parts
from service.engine.scripted import ScriptedEngine
from service.ports import Action
from service.ports.launches import Launch
from service.ports.questions import QuestionState
from service.settings import load_settings
from service.store.feedback import SqlFeedback
from service.store.questions import SqlQuestions
from service.summarize import Summarizer
from service.wiring import open_store, utc_now
from service.wiring.installation import database_of
from tests.acceptance.test_launch import FROM_HERE, HERE, Site
from tests.conftest import CANARY, missing

pytestmark = pytest.mark.node

CHARTS = ("1", "2")


@pytest.fixture(scope="module")
def sekmet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SekmetServer]:
    with SekmetServer(tmp_path_factory.mktemp("sekmet")) as server:
        for patient in CHARTS:
            httpx.post(server.base_url, json=canary_bundle(patient), trust_env=False).raise_for_status()
        yield server


@pytest.fixture(scope="module")
def ehr(sekmet: SekmetServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmartEhr]:
    if missing_parts():
        missing(missing_parts())
    with SmartEhr(tmp_path_factory.mktemp("smart"), sekmet.base_url, HERE) as server:
        yield server


@asynccontextmanager
async def browser_at(ehr: SmartEhr, home: Path) -> AsyncIterator[Site]:
    """One browser at an application of its own process; all share the store in `home`."""
    async with AsyncExitStack() as stack:
        settings = load_settings(home=home, ehrs=ehr.write_config(CLIENTS[0]), engine="scripted")
        site = Site(ehr, settings, stack)
        yield site
        await site.client.aclose()


async def post(site: Site, launch: Launch, path: str, **fields: str) -> httpx.Response:
    headers = {**FROM_HERE, "content-type": "application/x-www-form-urlencoded", "hx-request": "true"}
    headers["cookie"] = f"__Host-epicrisis-launch={site.cookie}"
    body = urlencode({"visit": launch.visit, **fields})
    return await site.client.post(path, content=body, headers=headers)


async def ask(site: Site, launch: Launch, question: str) -> Any:
    headers = {
        **FROM_HERE,
        "x-epicrisis-visit": launch.visit,
        "cookie": f"__Host-epicrisis-launch={site.cookie}",
    }
    body = {"patient": launch.patient, "question": question}
    answer = await site.client.post("/api/questions", json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_launched_user_asks_and_is_answered_from_the_chart_as_they_may_read_it(
    ehr: SmartEhr, tmp_path: Path
) -> None:
    async with browser_at(ehr, tmp_path) as site:
        launch = await site.opened(ehr.launch_url("1"))
        found = await ask(site, launch, "What was the last urate?")
        assert [claim["text"] for claim in found["claims"]] == ["Urate: 8.2 mg/dL on 20-Nov-2026"]
        assert found["sources"][0]["reference"].startswith("Observation/1-urate")
        read = len(ehr.asked)
        allergies = await ask(site, launch, "Which allergies are recorded?")
        assert len(ehr.asked) == read  # the chart was read a moment ago
        assert "Penicillin" in allergies["claims"][0]["text"]
        absent = await ask(site, launch, "Is there a history of epilepsy?")
        assert (absent["found"], absent["not_found"]) == (False, ["epilepsy"])
        assert absent["statement"] == f"Not found in the {absent['searched']} items searched: “epilepsy”."
        acts = [(act.action, act.by) for act in site.acts() if act.run_id == found["id"]]
        assert acts == [(Action.GENERATE, "Practitioner/roe"), (Action.VIEW, "Practitioner/roe")]
        doubted = await ehr_without_allergies(ehr, tmp_path)
        assert doubted["found"] is False
        assert [one["state"] for one in doubted["standings"]] == ["NOT RETRIEVED"]
        assert "Penicillin" not in repr(doubted)


async def ehr_without_allergies(ehr: SmartEhr, home: Path) -> Any:
    """Ask the same as a user who may not read allergies."""
    async with browser_at(ehr, home) as site:
        launch = await site.opened(ehr.launch_url("1", user="doe"))
        return await ask(site, launch, "Which allergies are recorded?")


async def test_a_page_asks_and_any_process_shows_the_answer_to_the_asker_alone(
    ehr: SmartEhr, tmp_path: Path
) -> None:
    async with browser_at(ehr, tmp_path) as site, browser_at(ehr, tmp_path) as other:
        launch = await site.opened(ehr.launch_url("1"))
        stranger = await other.opened(ehr.launch_url("1", user="doe"))
        taken = await post(site, launch, "/sidebar/ask", question="Does she have gout?")
        found = re.search(r'id="answer-([0-9a-f]{32})"', taken.text)
        assert found is not None
        identity = found[1]
        questions = SqlQuestions(*database_of(site.settings))
        while (kept := questions.get_question(identity)) and kept.state is QuestionState.ASKED:  # type: ignore[arg-type] # noqa: ASYNC110
            await asyncio.sleep(0.05)
        questions.close()
        path = f"/sidebar/ask/{identity}?visit="
        other.cookie, mine = site.cookie, other.cookie
        shown = await other.ask(f"{path}{launch.visit}")
        assert "Gout: active, since 04-Mar-2011" in re.sub("<[^>]+>", "", shown.text)
        other.cookie = mine
        assert (await other.ask(f"{path}{stranger.visit}")).status_code == 404


async def test_what_one_disputes_in_a_stored_summary_is_disputed_for_all(
    ehr: SmartEhr, tmp_path: Path
) -> None:
    async with browser_at(ehr, tmp_path) as one, browser_at(ehr, tmp_path) as two:
        first = await one.opened(ehr.launch_url("2"))
        second = await two.opened(ehr.launch_url("2", user="doe"))
        store, audit = open_store(one.settings)
        async with one.chart(first) as client:
            made = await Summarizer(
                ehr=FhirEhr(client, now=utc_now),
                engine=ScriptedEngine(),
                store=store,
                audit=audit,
                clock=utc_now,
                software_version="0",
            ).summarize("2", dry_run=True)
        run = store.get(made.run_id)  # type: ignore[arg-type]
        assert run is not None
        gout = next(claim for claim in run.summary.published if claim.text.startswith("Gout"))
        feedback = SqlFeedback(*database_of(one.settings))
        key = feedback.claim_key(ehr.iss, "Patient/2", gout)
        tapped = await post(one, first, "/sidebar/feedback", about=run.run_id, claim=key, mark="wrong")
        assert "Marked as disputed for every viewer" in tapped.text
        assert feedback.disputes_of(ehr.iss, "Patient/2") == {key}
        undone = await post(two, second, "/sidebar/feedback/undo", about=run.run_id, claim=key)
        assert undone.status_code == 200
        assert feedback.disputes_of(ehr.iss, "Patient/2") == {key}  # nobody takes back what another said
        elsewhere = await two.opened(ehr.launch_url("1", user="doe"))
        refused = await post(two, elsewhere, "/sidebar/feedback", about=run.run_id, claim=key, mark="wrong")
        assert refused.status_code == 404
        await post(one, first, "/sidebar/feedback/undo", about=run.run_id, claim=key)
        assert feedback.disputes_of(ehr.iss, "Patient/2") == frozenset()
        for edge in (store, audit, feedback):
            edge.close()


async def test_a_question_is_not_taken_from_another_site_or_for_another_patient(
    ehr: SmartEhr, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with browser_at(ehr, tmp_path) as site:
        launch = await site.opened(ehr.launch_url("1"))
        headers = {"cookie": f"__Host-epicrisis-launch={site.cookie}", "x-epicrisis-visit": launch.visit}
        body = {"patient": "Patient/1", "question": "gout?"}
        for more in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example.org"}):
            answer = await site.client.post("/api/questions", json=body, headers={**headers, **more})
            assert answer.status_code == 403
        other = {"patient": "Patient/2", "question": f"Has {CANARY} gout?"}
        answer = await site.client.post("/api/questions", json=other, headers={**headers, **FROM_HERE})
        assert answer.status_code == 403
        assert CANARY not in answer.text + caplog.text
