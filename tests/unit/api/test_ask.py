"""Asking over HTTP: a question taken, how far its answer is, the answer, and who sees it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from fixtures.answers import copy_lines
from fixtures.facts import NOW
from fixtures.hostile import HOSTILE
from service.api.answers import ADVICE
from service.api.app import create_app
from service.api.ask import AT_ONCE, LOST_AFTER, AskRoom
from service.api.cookies import LAUNCH
from service.api.feedback import Feedbacks
from service.ask.asking import Asking, Opener
from service.engine.prompt import Prompt
from service.engine.scripted import ScriptedEngine
from service.ports import Action, Stop, StopScope
from service.ports.launches import Launch, Tokens
from service.ports.questions import QuestionState
from service.summarize import Progress, Summarizer
from tests.conftest import CANARY
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.api.test_feedback import HERE, Launchers
from tests.unit.ask.in_memory import InMemoryFeedback, InMemoryQuestions
from tests.unit.in_memory_vault import InMemoryVault
from tests.unit.test_summarize import EhrDouble


def nothing(prompt: Prompt) -> str:
    return '{"claims": []}'


class Site:
    """The application with questions, over one chart in memory."""

    def __init__(self, engine: ScriptedEngine | None = None, ehr: EhrDouble | None = None) -> None:
        self.engine, self.ehr = engine or ScriptedEngine(copy_lines), ehr or EhrDouble()
        self.audit, self.store, self.vault = InMemoryAudit(), InMemoryStore(), InMemoryVault()
        self.questions, self.said = InMemoryQuestions(), InMemoryFeedback()
        self.now = NOW
        feedbacks = Feedbacks(self.store, self.questions, self.said, self.audit, self.clock)
        asking = Asking(store=self.questions, audit=self.audit, clock=self.clock, look_s=0.01)
        self.room = AskRoom(
            asking=asking,
            questions=self.questions,
            feedback=self.said,
            feedbacks=feedbacks,
            audit=self.audit,
            clock=self.clock,
            opener=self.opener,
            stops=self.store.stops,
        )
        one = Launch(
            visit="one",
            ehr="general",
            server=self.ehr.base_url,
            patient="Patient/1",
            encounter="",
            actor="user:one",
            fhir_user="Practitioner/7",
            scope="patient/*.rs",
            access_profile="user:p",
            needs_banner=True,
            context={},
            messaging=("", ""),
            tokens=Tokens("a", "", NOW + timedelta(hours=1)),
        )
        self.launchers = Launchers(
            {
                "one": one,
                "again": replace(one, visit="again"),
                "other": replace(one, visit="other", actor="user:other"),
                "less": replace(one, visit="less", access_profile="user:less"),
                "elsewhere": replace(one, visit="elsewhere", patient="Patient/2"),
            }
        )
        app = create_app(
            store=self.store,
            audit=self.audit,
            clock=self.clock,
            access=OpenDoor(),
            allowed_hosts=("127.0.0.1",),
            version="0",
            rooms=[self.room],
            launched=self.launchers,
            feedback=self.said,
            feedbacks=feedbacks,
        )
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=HERE)

    def clock(self) -> Any:
        return self.now

    def opener(self, launch: Launch) -> Opener:
        @asynccontextmanager
        async def open_chart(tell: Progress) -> AsyncIterator[Summarizer]:
            yield Summarizer(
                ehr=self.ehr,
                engine=self.engine,
                store=self.store,
                audit=self.audit,
                clock=self.clock,
                software_version="0",
                vault=self.vault,
            )

        return open_chart

    async def send(self, method: str, path: str, visit: str = "one", **more: Any) -> httpx.Response:
        partial = more.pop("partial", True)
        headers = {"sec-fetch-site": "same-origin", "cookie": f"{LAUNCH}=secret", "x-epicrisis-visit": visit}
        headers |= {"hx-request": "true"} if partial else {}
        return await self.client.request(method, path, headers=headers, params={"visit": visit}, **more)

    async def ask(self, question: str, visit: str = "one", **more: Any) -> httpx.Response:
        data = {"visit": visit, "question": question, **more.pop("fields", {})}
        return await self.send("POST", "/sidebar/ask", visit, data=data, **more)

    async def answered(self, question: str, visit: str = "one", **more: Any) -> str:
        """Ask, and return the part of the page once the answer is there."""
        await self.ask(question, visit, **more)
        await asyncio.gather(*self.room._tasks)
        last = list(self.questions.kept)[-1]
        return (await self.send("GET", f"/sidebar/ask/{last}", visit)).text


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    one = Site()
    yield one
    await one.room.aclose()


async def test_a_question_is_taken_at_once_and_its_answer_follows_in_place(site: Site) -> None:
    taken = await site.ask("What was the last urate?")
    (question,) = site.questions.kept.values()
    assert taken.status_code == 200
    assert f'hx-get="/sidebar/ask/{question.id}?visit=one"' in taken.text
    assert f'name="former" value="{question.id}"' in taken.text
    assert "Stop" in taken.text
    await asyncio.gather(*site.room._tasks)
    there = await site.send("GET", f"/sidebar/ask/{question.id}")
    assert "hx-trigger" not in there.text
    assert "8.2 mg/dL" in there.text
    assert re.search(r"\d+ statements from 8 items searched. Values match the source.", there.text)
    assert f"#answer-{question.id}-source-1" in there.text
    assert f'id="answer-{question.id}-source-1"' in there.text
    told = [
        (entry.action, entry.actor, entry.by) for entry in site.audit.entries if entry.run_id == question.id
    ]
    assert told == [
        (Action.GENERATE, "user:one", "Practitioner/7"),
        (Action.VIEW, "user:one", "Practitioner/7"),
    ]


async def test_what_is_not_there_is_said_with_what_was_searched(site: Site) -> None:
    site.engine._answer = nothing
    text = await site.answered("Is she allergic to latex?")
    assert "<strong>Not found in the 8 items searched: “latex”.</strong>" in text
    assert "Not found in the 8 items searched: “latex”." in text.replace('<span class="amount">', "").replace(
        "</span>", ""
    )
    assert "They may not answer it." in text
    assert "Allergy or intolerance to Penicillin" in text
    assert "does not say" not in text


async def test_advice_is_not_given(site: Site) -> None:
    text = await site.answered("Should we stop allopurinol?")
    assert ADVICE in text
    assert "active order" in text


@pytest.mark.parametrize("question", ["", "x" * 301, "a\u202eb", "a\x00b"])
async def test_a_question_that_is_none_is_not_taken(site: Site, question: str) -> None:
    answer = await site.ask(question)
    assert (answer.status_code, answer.headers["hx-retarget"]) == (200, "#ask-refused")
    assert (await site.ask(question, partial=False)).status_code == 422
    assert site.questions.kept == {}
    assert "\u202e" not in answer.text


@pytest.mark.parametrize("name", sorted(HOSTILE))
async def test_no_text_of_a_question_becomes_markup(site: Site, name: str) -> None:
    answer = await site.ask(HOSTILE[name].encode("utf-8", "replace").decode()[:300])
    for markup in ("<script", "<img", "<b>bold"):
        assert markup not in answer.text


async def test_a_question_without_a_script_has_a_page_of_its_own(site: Site) -> None:
    taken = await site.ask("gout?", partial=False)
    (question,) = site.questions.kept.values()
    assert (taken.status_code, taken.headers["location"]) == (303, f"/sidebar/ask/{question.id}?visit=one")
    waiting = await site.send("GET", f"/sidebar/ask/{question.id}", partial=False)
    assert '<meta http-equiv="refresh" content="3">' in waiting.text
    await asyncio.gather(*site.room._tasks)
    there = await site.send("GET", f"/sidebar/ask/{question.id}", partial=False)
    assert "refresh" not in there.text
    assert "Gout: active, since" in there.text


@pytest.mark.parametrize("visit", ["other", "less", "elsewhere"])
async def test_an_answer_is_for_who_asked_with_the_rights_that_it_was_read_with(
    site: Site, visit: str
) -> None:
    await site.answered("gout?")
    (question,) = site.questions.kept
    for method, path in (("GET", ""), ("POST", "/cancel")):
        answer = await site.send(
            method, f"/sidebar/ask/{question}{path}", visit, data={"visit": visit} if path else None
        )
        assert answer.status_code == 404
        assert "Gout" not in answer.text
    assert site.room.view(site.launchers.known[visit]).answers == ()
    assert len(site.room.view(site.launchers.known["again"]).answers) == 1


async def test_a_question_is_stopped_at_the_engine(site: Site) -> None:
    site.engine._seconds_per_piece = 3600
    await site.ask("gout?")
    while not site.engine.running:  # noqa: ASYNC110 - the double has no event
        await asyncio.sleep(0.01)
    (question,) = site.questions.kept
    stopped = await site.send("POST", f"/sidebar/ask/{question}/cancel", data={"visit": "one"})
    assert "Stopped. Nothing was answered." in stopped.text
    await asyncio.gather(*site.room._tasks)
    assert site.engine.running == 0
    assert site.questions.kept[question].state is QuestionState.CANCELLED


async def test_who_asks_too_much_at_once_is_told_so_and_others_are_served(site: Site) -> None:
    site.engine._seconds_per_piece = 3600
    for _ in range(AT_ONCE):
        assert (await site.ask("gout?")).status_code == 200
    assert "You have asked two questions already" in (await site.ask("gout?")).text
    assert (await site.ask("gout?", partial=False)).status_code == 429
    assert len(site.questions.kept) == AT_ONCE
    assert (await site.ask("gout?", "other")).status_code == 200


async def test_a_question_whose_process_ended_is_told_as_not_answered(site: Site) -> None:
    site.engine._seconds_per_piece = 3600
    await site.ask("gout?")
    site.now += LOST_AFTER + timedelta(seconds=1)
    (question,) = site.questions.kept
    text = (await site.send("GET", f"/sidebar/ask/{question}")).text
    assert "could not be answered. The patient&#39;s chart is not affected." in text
    assert "hx-trigger" not in text


async def test_a_failure_says_what_happened_and_nothing_of_the_patient() -> None:
    site = Site(ehr=EhrDouble(inactive=True))
    text = await site.answered("gout?")
    assert "not the patient&#39;s current record" in text
    assert CANARY not in text


async def test_an_answer_that_cannot_be_recorded_is_not_shown(site: Site) -> None:
    await site.answered("gout?")
    (question,) = site.questions.kept
    site.audit.break_down()
    answer = await site.send("GET", f"/sidebar/ask/{question}")
    assert answer.status_code == 503
    assert "Gout" not in answer.text


async def test_a_follow_up_is_about_the_question_before(site: Site) -> None:
    await site.answered("What was the last urate?")
    (first,) = site.questions.kept
    text = await site.answered("And when was that?", fields={"former": first})
    assert "Urate: " in text
    assert list(site.questions.kept.values())[-1].former == first


async def test_nobody_follows_another_users_question(site: Site) -> None:
    await site.answered("What was the last urate?", "other")
    (first,) = site.questions.kept
    site.engine._answer = nothing
    assert "Not found in the 8 items" in await site.answered("And when was that?", fields={"former": first})


async def test_a_statement_of_an_answer_is_disputed_like_any_other(site: Site) -> None:
    await site.answered("gout?")
    ((identity, question),) = site.questions.kept.items()
    assert question.answer is not None
    key = site.said.claim_key(question.server, question.patient, question.answer.claims[0])
    data = {"visit": "other", "about": identity, "claim": key, "mark": "wrong"}
    assert (await site.send("POST", "/sidebar/feedback", "other", data=data)).status_code == 200
    text = (await site.send("GET", f"/sidebar/ask/{identity}")).text
    assert "disputed by a colleague, check the chart" in text


async def test_programs_ask_in_one_call(site: Site) -> None:
    answer = await site.send(
        "POST", "/api/questions", json={"patient": "Patient/1", "question": "last urate?"}
    )
    body = answer.json()
    assert (body["found"], body["searched"], body["state"]) == (True, 8, "answered")
    assert body["claims"][0]["text"] == "Urate: 8.2 mg/dL on 20-Nov-2026"
    assert body["sources"][0]["reference"].startswith("Observation/1-urate")
    assert body["claims"][0]["sources"] == [body["sources"][0]["number"]]
    assert body["label"] == "AI-GENERATED DRAFT, NOT REVIEWED"
    absent = await site.send("POST", "/api/questions", json={"patient": "1", "question": "epilepsy?"})
    assert absent.json()["not_found"] == ["epilepsy"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"patient": "Patient/2", "question": "gout?"}, 403),
        ({"patient": "Patient/1", "question": ""}, 422),
        ({"patient": "Patient/1"}, 400),
        ({"patient": "Patient/1", "question": "gout?", "sql": ""}, 400),
        ([], 400),
    ],
)
async def test_what_programs_send_wrongly_is_a_problem_document(site: Site, body: Any, status: int) -> None:
    answer = await site.send("POST", "/api/questions", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status
    assert site.questions.kept == {}


async def test_an_engine_that_is_down_leaves_the_records_own_lines(site: Site) -> None:
    site.engine._die_after_pieces = 0
    from service.errors import EngineError

    site.engine._failures.append(EngineError("down"))
    text = await site.answered("last urate?")
    assert "The model gave no answer in words: these are the record&#39;s own lines." in text
    assert "added from the record" in text


def test_suggested_questions_come_from_what_the_user_sees(site: Site) -> None:
    from fixtures.facts import A1C, GOUT

    view = site.room.view(site.launchers.known["one"], [A1C, GOUT], "run1")
    assert view.suggested == ("What was the last hemoglobin a1c?", "Which problems are active?")
    assert view.run_id == "run1"


@pytest.mark.parametrize(
    ("scope", "value"), [(StopScope.ALL, ""), (StopScope.MODEL, "scripted"), (StopScope.PROMPT, "question")]
)
async def test_what_is_stopped_is_not_shown_until_the_stop_is_lifted(
    site: Site, scope: StopScope, value: str
) -> None:
    site.store.add_stop(Stop(scope, value, NOW, "user:local", "it errs"))
    text = await site.answered("gout?")
    assert "This answer is stopped" in text
    assert "Gout: " not in re.sub("<[^>]+>", "", text)
    body = {"patient": "Patient/1", "question": "gout?"}
    assert (await site.send("POST", "/api/questions", json=body)).status_code == 423
    site.store.lift_stop(scope, value, "user:local", NOW)
    (question, *_) = site.questions.kept
    shown = (await site.send("GET", f"/sidebar/ask/{question}")).text
    assert "Gout: active" in re.sub("<[^>]+>", "", shown)


async def test_what_half_of_a_question_asks_in_vain_is_told_beside_the_answer(site: Site) -> None:
    text = re.sub("<[^>]+>", "", await site.answered("urate and warfarin?"))
    assert "Urate: 8.2 mg/dL on 20-Nov-2026" in text
    assert "Not found in the 8 items searched: “warfarin”." in text
