"""The API by which programs ask for summaries: where, how far, what is told, and how often one may ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fixtures.facts import NOW
from service.api.app import create_app
from service.api.problem import MEDIA_TYPE as PROBLEM
from service.api.problem import Problems
from service.api.stream import lines
from service.api.summaries import MOST_STREAMS, Reading, Summaries
from service.errors import StoreError
from service.identity.visitor import Role, Visitor
from service.ports import Action
from service.ports.ondemand import GenerationId, GenerationState, Told, ToldKind
from service.store.keys import KeyRoom
from tests.conftest import CANARY
from tests.unit.api.entering import OpenDoor
from tests.unit.test_ondemand import ASKED, Gate, Ward

PATH = "/api/summaries"
ASK = {"patient": "Patient/1"}
CLINICIAN = Visitor("user:1", frozenset({Role.CLINICIAN}), "Practitioner/7", by_cookie=False)


@dataclass
class Site:
    """The application, and the ward behind it."""

    ward: Ward
    now: Any = NOW
    ticks: float = 0.0
    door: OpenDoor = field(default_factory=lambda: OpenDoor(CLINICIAN))

    def __post_init__(self) -> None:
        self.on_demand = self.ward.process()
        self.store = self.ward.made[-1][1]
        reading = Reading(
            ASKED.server, "system:none", lambda by: self.ward.opener, frozenset({"history", "handover"})
        )
        self.room = Summaries(
            self.on_demand, self.store, self.ward.audit, lambda: self.now, reading, "9", lambda: self.ticks
        )
        self.app: FastAPI = create_app(
            store=self.ward.runs, audit=self.ward.audit, clock=lambda: NOW, access=self.door,
            allowed_hosts=("127.0.0.1",), version="9", rooms=[self.room],
        )  # fmt: skip

    async def call(self, method: str, path: str, said: Any = None, **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, json=said, headers=headers)

    async def ask(self, **headers: str) -> str:
        """Ask, and return where it is."""
        answer = await self.call("POST", PATH, ASK, **headers)
        assert answer.status_code == 202
        return str(answer.headers["location"])


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    ward = Ward(tmp_path)
    yield Site(ward)
    await ward.aclose()


def is_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    said: dict[str, Any] = answer.json()
    assert said["status"] == status
    assert {"type", "title", "status", "detail"} <= set(said)
    assert answer.headers["cache-control"] == "no-store"
    return said


def events(text: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Read a stream as a browser does."""
    found = []
    for block in text.split("\n\n"):
        said = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if "event" in said:
            found.append((int(said["id"]), said["event"], json.loads(said["data"])))
    return found


async def test_a_summary_is_asked_for_followed_and_found(site: Site) -> None:
    answer = await site.call("POST", PATH, {**ASK, "encounter": "", "kind": "history"})
    assert answer.status_code == 202
    first = answer.json()
    assert first["state"] == "queued"
    assert answer.headers["location"] == f"{PATH}/{first['id']}"
    stream = await site.call("GET", first["events"])
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.text.startswith("retry: ")
    told = events(stream.text)
    assert [seq for seq, _, _ in told] == list(range(1, len(told) + 1))
    assert {kind for _, kind, _ in told} == {"stage", "claim", "done"}
    found = (await site.call("GET", f"{PATH}/{first['id']}")).json()
    assert (found["state"], found["run_id"]) == ("done", told[-1][2]["run_id"])
    assert (found["patient"], found["kind"], found["error"]) == ("Patient/1", "history", "")
    viewed = [entry for entry in site.ward.audit.entries if entry.action is Action.VIEW]
    assert [(entry.actor, entry.patient, entry.by) for entry in viewed] == [
        ("user:1", "Patient/1", "Practitioner/7")
    ]


async def test_a_client_that_comes_back_is_told_the_rest_and_then_nothing_more(site: Site) -> None:
    where = await site.ask()
    whole = events((await site.call("GET", f"{where}/events")).text)
    rest = await site.call("GET", f"{where}/events", **{"last-event-id": "3"})
    assert events(rest.text) == whole[3:]
    assert (
        await site.call("GET", f"{where}/events", **{"last-event-id": str(whole[-1][0])})
    ).status_code == 204


@pytest.mark.parametrize("said", ["-1", "x", "1.5", "٣", "9" * 30])
async def test_an_event_id_that_is_no_number_is_refused(site: Site, said: str) -> None:
    where = await site.ask()
    headers: Any = {"last-event-id": said.encode()}
    is_problem(await site.call("GET", f"{where}/events", **headers), 400)


async def test_what_is_not_shown_to_the_audit_log_is_shown_to_nobody(site: Site) -> None:
    where = await site.ask()
    site.ward.audit.break_down()
    is_problem(await site.call("GET", f"{where}/events"), 503)


async def test_two_that_ask_for_the_same_are_told_of_one(site: Site) -> None:
    site.ward.engine = gate = Gate()
    one = await site.ask()
    site.door.visitor = replace(CLINICIAN, actor="user:2")
    assert await site.ask() == one
    gate.open.set()


async def test_stop_answers_at_once_and_the_engine_stops(site: Site) -> None:
    site.ward.engine = gate = Gate()
    where = await site.ask()
    await gate.begun.wait()
    assert (await site.call("DELETE", where)).status_code == 204
    told = events((await site.call("GET", f"{where}/events")).text)
    assert told[-1][1] == "cancelled"
    assert gate.running == 0


@pytest.mark.parametrize(
    "body",
    [
        None, [], "x", {}, {"patient": 1}, {"patient": "Patient/1/x"}, {"patient": "Observation/1"},
        {"patient": f"Patient/1\n{CANARY}"}, {**ASK, "encounter": "Patient/1"}, {**ASK, "regenerate": "yes"},
        {**ASK, "kind": "../x"}, {**ASK, "more": CANARY},
    ],
    ids=str,
)  # fmt: skip
async def test_what_is_not_understood_is_a_problem_that_repeats_nothing(site: Site, body: Any) -> None:
    answer = await site.call("POST", PATH, body)
    is_problem(answer, 400)
    assert CANARY not in answer.text


async def test_a_kind_that_there_is_no_template_for_is_refused_with_those_that_there_are(site: Site) -> None:
    said = is_problem(await site.call("POST", PATH, {**ASK, "kind": "question"}), 422)
    assert said["detail"].endswith("handover, history.")


async def test_every_error_under_api_is_a_problem_and_elsewhere_a_page(site: Site) -> None:
    is_problem(await site.call("GET", f"{PATH}/{'0' * 32}"), 404)
    is_problem(await site.call("GET", f"{PATH}/x"), 404)
    is_problem(await site.call("GET", f"{PATH}/{'0' * 32}/events"), 404)
    is_problem(await site.call("DELETE", f"{PATH}/{'0' * 32}"), 404)
    is_problem(await site.call("PUT", PATH, ASK), 405)
    is_problem(await site.call("GET", "/api/nothing"), 404)
    is_problem(await site.call("GET", PATH), 400)
    is_problem(await site.call("GET", f"{PATH}?patient=x"), 400)
    is_problem(await site.call("GET", f"{PATH}?patient=Patient/1&limit=0"), 400)
    is_problem(await site.call("GET", f"{PATH}?patient=Patient/1&cursor=x"), 400)
    is_problem(await site.call("GET", PATH, host="evil.example"), 400)
    is_problem(await site.call("POST", PATH, {**ASK, "encounter": "x" * 20_000}), 413)
    site.door.visitor = replace(CLINICIAN, roles=frozenset({Role.READER}))
    is_problem(await site.call("GET", f"{PATH}?patient=Patient/1"), 403)
    elsewhere = await site.call("GET", "/nothing")
    assert elsewhere.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    ("path", "method", "is_problem"),
    [("/api/x", "GET", True), ("/api/x", "HEAD", True), ("/x", "GET", False)],
)
async def test_of_a_page_that_is_replaced_nothing_else_is_sent(
    path: str, method: str, is_problem: bool
) -> None:
    sent: list[Any] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"x-kept", b"1")]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        for more in (True, False):
            await send({"type": "http.response.body", "body": b"<p>page</p>", "more_body": more})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is received")

    await Problems(page)({"type": "http", "path": path, "method": method}, receive, send)
    start, *bodies = sent
    told = b"".join(body["body"] for body in bodies)
    assert len(bodies) == (1 if is_problem else 2)
    assert not any(body.get("more_body") for body in bodies[-1:])
    headers = dict(start["headers"])
    assert headers[b"x-kept"] == b"1"
    if is_problem:
        assert headers[b"content-type"] == PROBLEM.encode()
        assert b"<p>" not in told
        assert (told == b"") is (method == "HEAD")


async def test_an_error_that_nobody_foresaw_is_a_problem_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> None:
        raise KeyError(CANARY)

    monkeypatch.setattr(site.store, "generations_about", fail)
    answer = await site.call("GET", f"{PATH}?patient=Patient/1")
    is_problem(answer, 500)
    assert CANARY not in answer.text
    monkeypatch.setattr(site.store, "under_way", fail)
    is_problem(await site.call("POST", PATH, ASK), 500)


async def test_a_store_that_fails_is_said_and_a_shredded_patient_is_gone(site: Site, tmp_path: Path) -> None:
    await asyncio.to_thread(site.store.put_answer, "k", "b", "{}", "Patient/9", NOW)
    KeyRoom(site.store.database, lambda: NOW, tmp_path / "key").shred("Patient/9", "asked for")
    is_problem(await site.call("POST", PATH, {"patient": "Patient/9"}), 410)


async def test_the_same_key_and_body_have_the_same_answer_and_another_body_is_refused(site: Site) -> None:
    key = {"idempotency-key": "abc-1"}
    first = await site.call("POST", PATH, {**ASK, "regenerate": True}, **key)
    assert events((await site.call("GET", first.json()["events"])).text)[-1][1] == "done"
    again = await site.call("POST", PATH, {"regenerate": True, **ASK}, **key)
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert len(site.ward.runs.runs) == 1
    is_problem(await site.call("POST", PATH, ASK, **key), 422)
    site.door.visitor = replace(CLINICIAN, actor="user:2")
    other = await site.call("POST", PATH, {**ASK, "regenerate": True}, **key)
    assert other.json()["id"] != first.json()["id"]
    site.door.visitor = CLINICIAN
    site.now = NOW + timedelta(hours=24, seconds=1)
    later = await site.call("POST", PATH, ASK, **key)
    assert later.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256])
async def test_a_key_that_is_none_is_refused(site: Site, key: str) -> None:
    headers: Any = {"idempotency-key": key.encode()}
    is_problem(await site.call("POST", PATH, ASK, **headers), 400)


async def test_who_asks_too_often_waits_and_nobody_else_does(site: Site) -> None:
    site.ward.engine = Gate()
    answers = [await site.call("POST", PATH, ASK) for _ in range(21)]
    assert [answer.status_code for answer in answers[:20]] == [202] * 20
    said = is_problem(answers[20], 429)
    assert CANARY not in said["detail"]
    assert answers[20].headers["retry-after"] == "2"
    site.door.visitor = replace(CLINICIAN, actor="user:2")
    assert (await site.call("POST", PATH, ASK)).status_code == 202
    site.door.visitor = CLINICIAN
    site.ticks = 2.0
    assert (await site.call("POST", PATH, ASK)).status_code == 202


async def test_a_visitor_has_so_many_streams_open_at_a_time(site: Site) -> None:
    where = await site.ask()
    await site.call("GET", f"{where}/events")
    assert not site.room._streams  # one that ended counts no more
    site.room._streams["user:1"] = MOST_STREAMS
    answer = await site.call("GET", f"{where}/events")
    is_problem(answer, 429)
    assert answer.headers["retry-after"]
    site.door.visitor = replace(CLINICIAN, actor="user:2")
    assert (await site.call("GET", f"{where}/events")).status_code == 200


async def test_a_patients_summaries_are_listed_page_by_page(site: Site) -> None:
    for kind in ("history", "handover", "history"):
        answer = await site.call("POST", PATH, {**ASK, "kind": kind, "regenerate": True})
        await site.call("GET", answer.json()["events"])
    page = await site.call("GET", f"{PATH}?patient=Patient/1&limit=2")
    rest = await site.call("GET", page.json()["next"])
    listed = [item["kind"] for item in (*page.json()["items"], *rest.json()["items"])]
    assert listed == ["history", "handover", "history"]
    assert rest.json()["next"] == ""
    assert (await site.call("GET", f"{PATH}?patient=Patient/2")).json()["items"] == []


async def test_what_was_read_as_somebody_else_is_not_here(site: Site) -> None:
    private = await site.on_demand.want(replace(ASKED, access_profile="user:abc"), site.ward.opener)
    for method, more in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
        is_problem(await site.call(method, f"{PATH}/{private.id}{more}"), 404)
    assert (await site.call("GET", f"{PATH}?patient=Patient/1")).json()["items"] == []


async def test_looking_is_a_sign_of_life(site: Site) -> None:
    site.ward.engine = Gate()
    where = await site.ask()
    maker = site.store.maker_of(GenerationId(where.rpartition("/")[2]))
    assert maker is not None
    before = site.store.beats(GenerationId(where.rpartition("/")[2]), maker.name)
    await site.call("GET", where)
    after = site.store.beats(GenerationId(where.rpartition("/")[2]), maker.name)
    assert before is not None
    assert after is not None
    assert after[0] > before[0]


async def test_the_routes_are_described_as_they_are(site: Site) -> None:
    described = (await site.call("GET", "/api/openapi.json")).json()
    assert described["openapi"].startswith("3.")
    offered = {(path, method) for path, methods in described["paths"].items() for method in methods}
    assert offered == {
        (PATH, "post"), (PATH, "get"), (PATH + "/{generation_id}", "get"),
        (PATH + "/{generation_id}", "delete"), (PATH + "/{generation_id}/events", "get"),
    }  # fmt: skip
    asking = described["paths"][PATH]["post"]
    assert set(asking["responses"]) == {"202", "400", "401", "403", "410", "422", "429", "503"}
    for methods in described["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    assert list(answer["content"]) == [PROBLEM]
    body = asking["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert set(described["components"]["schemas"][body]["properties"]) == {
        "patient", "kind", "encounter", "regenerate",
    }  # fmt: skip
    shown = set(described["components"]["schemas"]["ShownSummary"]["properties"])
    assert shown == set((await site.call("POST", PATH, ASK)).json())


HOSTILE = "\n\nid: 9\nevent: done\ndata: {}\r\n\r\u2028\u2029\x85\x00</script><!--\u202e"


async def told_hostile() -> AsyncIterator[Told]:
    yield Told(1, ToldKind.CLAIM, {"section": "problems", "text": HOSTILE, "cites": [HOSTILE]})
    yield Told(2, ToldKind.DONE, {"run_id": "r"})


async def test_hostile_text_stays_one_event_of_json() -> None:
    stream = b"".join([line async for line in lines(told_hostile())])
    assert stream.count(b"\n\n") == 3
    assert b"\r" not in stream
    told = events(stream.decode())
    assert [(seq, kind) for seq, kind, _ in told] == [(1, "claim"), (2, "done")]
    assert told[0][2]["text"] == HOSTILE


async def test_a_stream_in_which_nothing_happens_says_so_and_ends_with_its_log() -> None:
    let_on = asyncio.Event()
    closed: list[bool] = []

    async def slow() -> AsyncIterator[Told]:
        try:
            await let_on.wait()
            yield Told(1, ToldKind.DONE, {})
            raise StoreError("The disk is full.")
        finally:
            closed.append(True)

    stream = lines(slow(), heartbeat_s=0.01)
    first = [await anext(stream) for _ in range(4)]
    assert first == [b"retry: 2000\n\n", b":\n\n", b":\n\n", b":\n\n"]
    let_on.set()
    rest = [line async for line in stream if line != b":\n\n"]
    assert rest == [b"id: 1\nevent: done\ndata: {}\n\n"]
    assert closed == [True]


async def test_a_stream_that_is_closed_stops_following() -> None:
    closed: list[bool] = []

    async def endless() -> AsyncIterator[Told]:
        try:
            await asyncio.Event().wait()
            yield Told(1, ToldKind.DONE, {})
        finally:
            closed.append(True)

    stream = lines(endless(), heartbeat_s=0.01)
    await anext(stream)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert closed == [True]


async def test_one_that_ended_in_the_store_answers_204_where_nothing_is_left_to_tell(site: Site) -> None:
    where = await site.ask()
    await site.call("GET", f"{where}/events")
    found = await site.on_demand.get(GenerationId(where.rpartition("/")[2]))
    assert found is not None
    assert found.state is GenerationState.DONE
    site.store.forget_generations(NOW + timedelta(days=2))
    is_problem(await site.call("GET", f"{where}/events"), 404)
