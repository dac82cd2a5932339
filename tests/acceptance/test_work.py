"""Workers as they run: told by the record system or by messages, stopped politely, silent about patients."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from connectors.admissions.subscription import Hook
from connectors.fhir.client import FhirClient
from fixtures.servers import SekmetServer, free_port
from service.filing.withdraw import DISCHARGED, MERGED
from service.ports import Admission, FiledDocument, Standing
from service.scheduler import Scheduler
from service.sweep import Sweep
from service.watchman import Watchman
from service.wiring import utc_now
from service.worker import Pulse
from tests.acceptance.house import House
from tests.acceptance.soak.stage import Process
from tests.conftest import CANARY
from tests.integration.connectors.conftest import IMPATIENT
from tests.unit.connectors.test_admissions_adt import adt, segment
from tests.unit.in_memory_admissions import InMemoryAdmissions

SECRET = "0123456789abcdef" * 3
DRAFT, OUT = ("current", "preliminary"), ("entered-in-error", "entered-in-error")
PATIENCE_S = 90.0


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SekmetServer]:
    """A server that gives up on a notification soon."""
    folder = tmp_path_factory.mktemp("telling")
    with SekmetServer(folder, settings={"subscriptions": {"retries": 1}}) as server:
        yield server


def until(condition: Callable[[], bool], what: str) -> float:
    """Wait for what other processes do, and return how long that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < PATIENCE_S, f"waited in vain for: {what}"
        time.sleep(0.1)
    return time.monotonic() - start


@dataclass
class Crew:
    """The processes of one installation."""

    house: House
    more: Mapping[str, str] = field(default_factory=dict)
    made: list[Process] = field(default_factory=list)

    def process(self, name: str, *arguments: str, ready: str) -> Process:
        """One command, not started yet."""
        environment = {
            "PATH": os.environ["PATH"],  # noqa: TID251 - a real process needs it
            "EPICRISIS_HOME": str(self.house.home),
            "EPICRISIS_FHIR_URL": self.house.base,
            "EPICRISIS_ENGINE": "scripted",
            "EPICRISIS_LOG_LEVEL": "debug",
            "EPICRISIS_POLL_S": "0",
            "EPICRISIS_SCHEDULES": str(self.house.home.parent / "schedules.toml"),
            **self.more,
        }
        command = (sys.executable, "-m", "service.cli", *arguments)
        process = Process(name, command, environment, self.house.home.parent / f"{name}.log", ready)
        self.made.append(process)
        return process

    def start(self, name: str, *arguments: str, ready: str) -> Process:
        """One command, at work."""
        process = self.process(name, *arguments, ready=ready)
        process.start()
        process.wait_ready()
        return process

    def end(self) -> None:
        """Leave nothing behind."""
        for process in self.made:
            process.kill()

    def said(self) -> str:
        """All that all of them printed."""
        return "\n".join(process.log.read_text(errors="replace") for process in self.made)


def crew_of(server: SekmetServer, folder: Path, **more: str) -> Crew:
    house = House(server.base_url, folder / "home")
    schedule = f'[rare]\ncron = "0 0 1 1 *"\nlocations = ["{house.ward}"]\n'
    (folder / "schedules.toml").write_text(schedule)
    return Crew(house, more)


def has_draft(house: House, *numbers: int) -> Callable[[], bool]:
    return lambda: all(house.documents(number) == [DRAFT] for number in numbers)


def held_by_files(home: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in home.glob("*.db*") if file.is_file()}


@dataclass
class Told:
    """What happened while the record system told us of admissions."""

    house: House
    subscriptions: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    missed: list[list[tuple[str, str]]] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    """How the server had the subscription when nobody took its calls."""
    ended: int = -1
    said: str = ""
    files: dict[str, bytes] = field(default_factory=dict)


@pytest.fixture(scope="module")
def told(telling: SekmetServer, tmp_path_factory: pytest.TempPathFactory) -> Told:
    port = free_port()
    hook = {"EPICRISIS_HOOK_URL": f"http://127.0.0.1:{port}", "EPICRISIS_HOOK_SECRET": SECRET}
    crew = crew_of(telling, tmp_path_factory.mktemp("told"), **hook)
    house = crew.house
    result = Told(house)
    try:
        pages = crew.start("pages", "serve", "--port", str(port), ready="The pages are at")
        worker = crew.start("worker", "work", ready="Working as")

        def mine() -> list[dict[str, Any]]:
            found = house.get("Subscription?_count=100").get("entry", [])
            every = [entry["resource"] for entry in found]
            return [one for one in every if str(port) in one["channel"]["endpoint"]]

        until(lambda: [one["status"] for one in mine()] == ["active"], "an active subscription")
        result.subscriptions = mine()
        house.admit(1)
        result.seconds = until(has_draft(house, 1), "a draft after a notification")
        pages.stop()
        house.admit(*range(2, 12), chart=False)
        time.sleep(1.0)
        result.missed = [house.documents(number) for number in range(2, 12)]
        result.given_up = [one["status"] for one in mine()]
        pages.start()
        pages.wait_ready()
        until(has_draft(house, *range(1, 12)), "the ten that were missed")
        until(lambda: [one["status"] for one in mine()] == ["active"], "a subscription that is renewed")
        house.admit(12)
        until(has_draft(house, 12), "a draft after the next notification")
        result.ended = worker.stop()
    finally:
        crew.end()
    result.said, result.files = crew.said(), held_by_files(house.home)
    return result


def test_a_notification_leads_to_a_filed_draft_without_polling(told: Told) -> None:
    assert told.house.documents(1) == [DRAFT]
    assert told.house.admission(1).standing is Standing.FRESH
    print(f"notification to filed draft | {told.seconds:.1f} s")


def test_one_subscription_is_made_and_its_secret_is_asked_back(told: Told) -> None:
    (one,) = told.subscriptions
    assert one["channel"]["endpoint"].endswith("/hooks/fhir")
    assert one["channel"]["header"] == [f"X-Epicrisis-Hook: {SECRET}"]


def test_ten_notifications_that_were_missed_are_recovered(told: Told) -> None:
    assert told.missed == [[]] * 10
    for number in range(2, 12):
        assert told.house.documents(number) == [DRAFT]


def test_a_subscription_that_the_server_gave_up_is_renewed_and_tells_again(told: Told) -> None:
    assert told.given_up in (["error"], ["active"])
    assert told.house.documents(12) == [DRAFT]


async def test_a_subscription_that_was_switched_off_is_switched_on_again_and_what_was_missed_is_looked_for(
    telling: SekmetServer,
) -> None:
    hook = Hook(f"http://127.0.0.1:{free_port()}/hooks/fhir", SECRET)
    store = InMemoryAdmissions()
    async with FhirClient(telling.base_url) as client:
        watchman = Watchman(
            cast(Sweep, None), (), cast(Pulse, None), cast(Scheduler, None), store, client, utc_now,
            cast(Any, None), hook=hook, renew_s=0.0,
        )  # fmt: skip
        await watchman._ensure()
        assert store.nudges() == 0
        (found,) = await client.search("Subscription", (("url", hook.endpoint),))
        await client.update({**found, "status": "off"})
        await watchman._ensure()
        assert store.nudges() == 1
        (again,) = await client.search("Subscription", (("url", hook.endpoint),))
        assert again["status"] in ("requested", "active")
        await watchman._ensure()
        assert store.nudges() == 1


async def test_a_server_that_takes_no_subscription_is_asked_instead(caplog: pytest.LogCaptureFixture) -> None:
    hook = Hook(f"http://127.0.0.1:{free_port()}/hooks/fhir", SECRET)
    store = InMemoryAdmissions()
    async with FhirClient(f"http://127.0.0.1:{free_port()}/fhir", patience=IMPATIENT) as client:
        watchman = Watchman(
            cast(Sweep, None), (), cast(Pulse, None), cast(Scheduler, None), store, client, utc_now,
            cast(Any, None), hook=hook,
        )  # fmt: skip
        await watchman._ensure()
    assert "takes no subscription now" in caplog.text
    assert store.nudges() == 0


def test_a_worker_that_is_told_to_stop_ends_well(told: Told) -> None:
    assert told.ended == 0
    assert "Stopping" in told.said


def test_no_process_says_anything_of_a_patient(told: Told) -> None:
    for text in (CANARY, told.house.tag, SECRET):
        assert text not in told.said


def test_no_database_holds_anything_of_a_patient_in_the_open(told: Told) -> None:
    assert any("queue" in name for name in told.files)
    for name, content in told.files.items():
        for text in (CANARY, told.house.tag):
            assert text.encode() not in content, (name, text)


@dataclass
class Heard:
    """What happened while messages told us of admissions."""

    house: House
    answers: list[str] = field(default_factory=list)
    after_a03: tuple[Admission, list[FiledDocument]] | None = None
    after_a13: tuple[Admission, list[FiledDocument]] | None = None
    after_a40: tuple[Admission, list[FiledDocument]] | None = None
    early: list[tuple[str, str]] = field(default_factory=list)
    interrupted: int = -1
    said: str = ""


@dataclass
class Sender:
    """Sends ADT messages over MLLP, and notes the answers."""

    house: House
    port: int
    answers: list[str] = field(default_factory=list)

    def send(self, trigger: str, number: int, *segments: str) -> None:
        """Tell of one patient."""
        tag = self.house.tag
        pid = segment("PID", f3=f"M{tag}{number}^^^HOSP^MR", f5=f"{CANARY}^Jane")
        visit = segment("PV1", f2="I", f3="W1^101^A^HOSP", f19=f"V{tag}{number}^^^HOSP^VN")
        control = f"C{len(self.answers)}"
        message = adt(trigger, pid, *(segments or (visit,)), control_id=control)
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(b"\x0b" + message + b"\x1c\r")
            answer = b""
            while not answer.endswith(b"\x1c\r"):
                answer += connection.recv(4096)
        self.answers.append(answer.decode("ascii").split("\r")[1].split("|")[1])


@pytest.fixture(scope="module")
def heard(telling: SekmetServer, tmp_path_factory: pytest.TempPathFactory) -> Heard:
    port = free_port()
    crew = crew_of(telling, tmp_path_factory.mktemp("heard"), EPICRISIS_HL7_PORT=str(port))
    house = crew.house
    result, sender = Heard(house), Sender(house, port)

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def look(number: int) -> tuple[Admission, list[FiledDocument]]:
        return house.admission(number), house.rows(number)

    try:
        worker = crew.start("worker", "work", ready="Working as")
        until(listens, "the listener")
        time.sleep(1.5)  # the look at the start is over: from here on only messages tell
        house.admit(1, 2)
        sender.send("A01", 1)
        until(has_draft(house, 1), "a draft after A01")
        result.early = house.documents(2)
        sender.send("A03", 1)
        until(lambda: house.documents(1) == [OUT], "the draft to be withdrawn after A03")
        result.after_a03 = look(1)
        sender.send("A13", 1)
        until(lambda: sorted(house.documents(1)) == sorted([OUT, DRAFT]), "a new draft after A13")
        until(lambda: house.admission(1).standing is Standing.FRESH, "the admission to be fresh")
        result.after_a13 = look(1)
        merge = segment("MRG", f1=f"M{house.tag}1^^^HOSP^MR")
        sender.send("A40", 2, merge)
        until(lambda: house.documents(1) == [OUT, OUT], "the drafts of the retired record to be withdrawn")
        until(has_draft(house, 2), "a draft of the surviving record")
        until(lambda: not house.admission(1).is_open, "the end of the retired record's stay")
        result.after_a40 = look(1)
        assert worker.running is not None
        worker.running.send_signal(signal.SIGINT)
        result.interrupted = worker.running.wait(PATIENCE_S)
    finally:
        crew.end()
    result.answers, result.said = sender.answers, crew.said()
    return result


def test_an_admission_by_message_leads_to_a_draft_of_that_patient_alone(heard: Heard) -> None:
    assert heard.answers == ["AA"] * 4
    assert heard.early == []


def test_a_discharge_by_message_ends_the_admission_and_withdraws_the_draft(heard: Heard) -> None:
    assert heard.after_a03 is not None
    admission, (row,) = heard.after_a03
    assert (admission.standing, admission.reason) == (Standing.ENDED, "discharged")
    assert row.reason == DISCHARGED


def test_a_discharge_that_is_taken_back_makes_the_draft_anew(heard: Heard) -> None:
    assert heard.after_a13 is not None
    admission, (newer, older) = heard.after_a13
    assert admission.standing is Standing.FRESH
    assert newer.run_id != older.run_id
    assert (newer.reason, older.reason) == ("", DISCHARGED)


def test_a_merge_by_message_withdraws_the_drafts_of_the_retired_record(heard: Heard) -> None:
    assert heard.after_a40 is not None
    admission, (newer, _) = heard.after_a40
    assert (admission.standing, admission.reason) == (Standing.ENDED, "merged")
    assert newer.reason in (MERGED, DISCHARGED)
    assert heard.house.admission(2).standing is Standing.FRESH


def test_a_worker_that_is_interrupted_by_hand_ends_well_and_silent(heard: Heard) -> None:
    assert heard.interrupted == 0
    for text in (CANARY, heard.house.tag):
        assert text not in heard.said
