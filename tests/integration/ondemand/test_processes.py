"""Two page servers on one database, with a real FHIR server and the scripted engine's own process."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from fixtures.charts import canary_bundle
from fixtures.postgres import PostgresServer
from fixtures.servers import SekmetServer, free_port
from tests.acceptance.soak.stage import Process
from tests.conftest import CANARY

PATIENCE_S = 120.0
FOLLOW_S = 3.0
"""In place of fifteen seconds, where a test waits for it."""
ENDS = ("done", "failed", "cancelled")


class Event(NamedTuple):
    """One event as it came."""

    seq: int
    kind: str
    data: dict[str, Any]


@dataclass
class Server:
    """One page server, and a client that is signed in there."""

    process: Process
    client: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False))
    seen: list[Event] = field(default_factory=list)

    def sign_in(self) -> None:
        self.process.wait_ready()
        found = re.search(r"http://127\S+login\?token=\S+", self.process.said)
        assert found is not None
        self.client.close()
        self.client = httpx.Client(
            base_url=found[0].partition("/login")[0], trust_env=False, timeout=PATIENCE_S,
            headers={"sec-fetch-site": "same-origin"},
        )  # fmt: skip
        assert self.client.get(found[0]).status_code in (200, 303)

    def ask(self, **more: Any) -> str:
        answer = self.client.post("/api/summaries", json={"patient": "Patient/1", **more})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def follow(self, generation: str, after: int = 0, until: str = "") -> list[Event]:
        """Follow to the end, or to the first event of a kind; `seen` grows meanwhile."""
        self.seen = []
        headers = {"Last-Event-ID": str(after)} if after else {}
        with self.client.stream("GET", f"/api/summaries/{generation}/events", headers=headers) as stream:
            said: dict[str, str] = {}
            for line in stream.iter_lines():
                name, _, value = line.partition(": ")
                if line:
                    said[name] = value
                    continue
                if "event" in said:
                    self.seen.append(Event(int(said["id"]), said["event"], json.loads(said["data"])))
                    if said["event"] == until:
                        return self.seen
                said = {}
        return self.seen


@dataclass
class Site:
    """Everything that runs."""

    folder: Path
    database_url: str
    follow_s: float = 60.0
    decode_per_s: float = 12.0

    def __enter__(self) -> Site:
        self.sekmet = SekmetServer(self.folder / "ehr")
        self.engine_port = free_port()
        self.environment = {
            "PATH": os.environ["PATH"],  # noqa: TID251 - a real process needs it
            "EPICRISIS_HOME": str(self.folder / "home"),
            "EPICRISIS_FHIR_URL": self.sekmet.base_url,
            "EPICRISIS_ENGINE_URL": f"http://127.0.0.1:{self.engine_port}/v1",
            "EPICRISIS_MODEL": "scripted",
            "EPICRISIS_SECOND_PASS": "off",
            "EPICRISIS_FOLLOW_S": str(self.follow_s),
            "EPICRISIS_LOG_LEVEL": "debug",
            **({"EPICRISIS_DATABASE_URL": self.database_url} if self.database_url else {}),
        }
        engine = [
            sys.executable, "-m", "service.engine.scripted_server", "--port", str(self.engine_port),
            "--prefill-tokens-per-s", "50000", "--decode-tokens-per-s", str(self.decode_per_s),
        ]  # fmt: skip
        pages = [sys.executable, "-m", "service.cli", "serve", "--port", "0"]
        self.engine = Process(
            "engine", engine, self.environment, self.folder / "engine.log", "scripted engine"
        )
        self.servers = [
            Server(
                Process(f"pages {n}", pages, self.environment, self.folder / f"pages-{n}.log", "login?token")
            )
            for n in range(2)
        ]
        try:
            self.sekmet.start()
            loaded = httpx.post(self.sekmet.base_url, json=canary_bundle("1"), trust_env=False, timeout=60)
            loaded.raise_for_status()
            self.engine.start()
            self.engine.wait_ready()
            for server in self.servers:
                server.process.start()
                server.sign_in()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for server in self.servers:
            server.client.close()
            server.process.kill()
        self.engine.kill()
        self.sekmet.stop()

    def engine_says(self, name: str) -> float:
        said = httpx.get(f"http://127.0.0.1:{self.engine_port}/metrics", trust_env=False).text
        found = re.search(rf"^vllm:{name}\{{[^}}]*\}} (\S+)$", said, re.MULTILINE)
        assert found is not None
        return float(found[1])

    def documents(self) -> list[dict[str, Any]]:
        found = httpx.get(
            f"{self.sekmet.base_url}/DocumentReference?patient=Patient/1", trust_env=False
        ).json()
        return [one["resource"] for one in found.get("entry", []) if "docStatus" in one["resource"]]

    def said(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    url = ""
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.new_schema()
    is_left_alone = "nobody_follows" in request.node.name
    with Site(tmp_path, url, *((FOLLOW_S, 3.0) if is_left_alone else ())) as one:
        yield one


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def in_order(told: list[Event]) -> None:
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert [event.kind in ENDS for event in told] == [False] * (len(told) - 1) + [True]
    texts = [event.data["text"] for event in told if event.kind == "claim"]
    assert len(set(texts)) == len(texts)


def test_two_tabs_on_two_processes_see_one_generation_and_a_lost_connection_loses_nothing(
    site: Site, threads: ThreadPoolExecutor
) -> None:
    one, other = site.servers
    asking = [threads.submit(server.ask) for server in site.servers]
    first, second = (ask.result() for ask in asking)
    assert first == second
    following: Future[list[Event]] = threads.submit(one.follow, first)
    begun = other.follow(first, until="claim")  # the connection is lost here
    rest = other.follow(first, begun[-1].seq)
    told = following.result()
    assert begun + rest == told
    in_order(told)
    assert told[-1].kind == "done"
    assert len([event for event in told if event.kind == "claim"]) >= 5
    assert site.engine_says("request_success_total") == 1
    (document,) = site.documents()
    assert document["docStatus"] == "preliminary"
    seen = other.client.get(f"/runs/{told[-1].data['run_id']}.json")
    assert seen.status_code == 200
    assert other.client.get(f"/api/summaries/{first}/events", headers={
        "Last-Event-ID": str(told[-1].seq)}).status_code == 204  # fmt: skip
    again = other.follow(other.ask())
    assert again[-1].data["run_id"] == told[-1].data["run_id"]
    assert site.engine_says("request_success_total") == 1
    assert CANARY not in site.said()


def test_when_the_process_that_makes_it_is_killed_the_one_that_follows_makes_it(
    site: Site, threads: ThreadPoolExecutor
) -> None:
    one, other = site.servers
    generation = one.ask()
    assert other.ask() == generation
    following = threads.submit(other.follow, generation)
    until(lambda: any(event.kind == "claim" for event in other.seen))
    one.process.kill()
    told = following.result(PATIENCE_S)
    in_order(told)
    assert told[-1].kind == "done"
    assert len(site.documents()) == 1
    assert CANARY not in site.said()


def test_a_generation_that_nobody_follows_any_more_is_cancelled_at_the_engine(site: Site) -> None:
    one, other = site.servers
    generation = one.ask()
    begun = other.follow(generation, until="claim")  # and gone
    assert site.engine_says("num_requests_running") == 1
    until(lambda: site.engine_says("num_requests_running") == 0)
    assert site.engine_says("request_success_total") == 0
    rest = other.follow(generation, begun[-1].seq)
    in_order([*begun, *rest])
    assert rest[-1].kind == "cancelled"
    assert one.client.get(f"/api/summaries/{generation}").json()["state"] == "cancelled"
    assert site.documents() == []
    generation = one.ask()  # and once more, stopped by hand
    other.follow(generation, until="claim")
    assert site.engine_says("num_requests_running") == 1
    assert other.client.delete(f"/api/summaries/{generation}").status_code == 204
    until(lambda: site.engine_says("num_requests_running") == 0)


def test_a_server_that_is_told_to_end_ends_and_leaves_its_work_to_the_other(
    site: Site, threads: ThreadPoolExecutor
) -> None:
    one, other = site.servers
    generation = one.ask()
    other.ask()
    following = threads.submit(other.follow, generation)
    until(lambda: any(event.kind == "claim" for event in other.seen))
    assert one.process.stop() in (0, -15)
    told = following.result(PATIENCE_S)
    in_order(told)
    assert told[-1].kind == "done"
