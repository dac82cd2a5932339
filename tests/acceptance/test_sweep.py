"""The commands of the night: sweep, schedule, admissions, retry; what they print and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.servers import SekmetServer
from tests.acceptance.conftest import Ended, Run
from tests.acceptance.house import House
from tests.acceptance.test_audit import actions
from tests.acceptance.test_rounds import Gate
from tests.conftest import CANARY

COUNTS = {
    "admissions", "runs", "unchanged", "skipped", "failed", "engine_calls", "fhir_requests", "seconds",
}  # fmt: skip
DRAFT = ("current", "preliminary")


@pytest.fixture
def gate(sekmet: SekmetServer) -> Iterator[Gate]:
    """The way to the server, in a thread of its own."""
    made = Gate(sekmet.base_url)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(made.__aenter__(), loop).result(10)
    yield made
    asyncio.run_coroutine_threadsafe(made.__aexit__(None, None, None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def house(sekmet: SekmetServer, tmp_path: Path) -> House:
    made = House(sekmet.base_url, tmp_path / "home")
    schedule = (
        f'[ward]\ncron = "30 5 * * *"\ntime_zone = "Europe/Berlin"\nlocations = ["{made.ward}"]\n'
        f'[late]\ncron = "0 22 * * mon-fri"\nkind = "handover"\nlocations = ["{made.ward}"]\n'
    )
    (tmp_path / "schedules.toml").write_text(schedule)
    return made


def settings(house: House, **more: str) -> dict[str, str]:
    return {
        "EPICRISIS_FHIR_URL": house.server or house.base,
        "EPICRISIS_SCHEDULES": str(house.home.parent / "schedules.toml"),
        "EPICRISIS_RETRY_SCALE": "0.01",
        **more,
    }


def silent(ended: Ended, house: House) -> Any:
    """Check that nothing of a patient was said, and return the JSON."""
    for text in (CANARY, house.tag):
        assert text not in ended.stdout
        assert text not in ended.stderr
    return ended.json


def test_a_pass_by_hand_prints_its_counts_and_ends_with_18_where_something_failed_until_it_is_retried(
    house: House, gate: Gate, epicrisis: Run
) -> None:
    house.server = gate.base_url
    gate.refused = house.patient(2)
    house.admit(1, 2)
    given = settings(house)

    ended = epicrisis("sweep", "--schedule", "ward", "--json", **given)
    first = silent(ended, house)
    assert ended.code == 18
    assert set(first) >= COUNTS
    assert (first["admissions"], first["runs"], first["unchanged"], first["failed"]) == (2, 1, 0, 1)
    assert first["failures"] == [{"code": "rejected", "count": 1}]
    assert first["skipped"] == []
    assert first["engine_calls"] > 0
    assert first["fhir_requests"] > 4
    assert first["seconds"] > 0

    listed = epicrisis("admissions", "--json", **given).json["admissions"]
    assert [(one["standing"], one["failures"]) for one in listed] == [("fresh", 0), ("failed", 1)]
    failed = epicrisis("admissions", "--standing", "failed", "--json", **given).json["admissions"]
    assert [one["patient"] for one in failed] == [f"Patient/{house.patient(2)}"]
    assert failed[0]["why"].startswith("The record system did not take")

    ended = epicrisis("retry", failed[0]["id"], "--json", **given)
    assert (ended.code, silent(ended, house)) == (18, {"tried": 1, "failed": 1})
    gate.refused = "nobody"
    ended = epicrisis("retry", "--all", "--json", **given)
    assert (ended.code, silent(ended, house)) == (0, {"tried": 1, "failed": 0})
    assert house.documents(2) == [DRAFT]
    assert epicrisis("retry", "--all", "--json", **given).json == {"tried": 0, "failed": 0}
    assert epicrisis("retry", failed[0]["id"], **given).code == 3
    assert epicrisis("retry", **given).code == 3

    ended = epicrisis("schedule", "run", "ward", "--json", **given)
    second = silent(ended, house)
    assert ended.code == 0
    assert (second["runs"], second["unchanged"], second["engine_calls"]) == (0, 2, 0)

    shown = epicrisis("sweep", "--schedule", "ward", **given)
    assert shown.code == 0
    assert "2 admissions" in shown.stdout
    assert "unchanged" in shown.stdout
    table = epicrisis("admissions", **given)
    assert CANARY not in table.stdout + table.stderr
    last = next(one for one in epicrisis("schedule", "list", "--json", **given).json["schedules"])
    assert (last["last"]["runs"], last["last"]["unchanged"]) == (0, 2)
    assert last["last"]["tick"].startswith("ward@")
    asked = [target for action, target in actions(house.home) if action == "configure"]
    assert asked == [f"admission:{failed[0]['id']}:retry", "admission:all:retry", "schedule:ward:run"]
    assert epicrisis("audit", "verify", "--json", **given).json["faults"] == []


def test_every_run_of_a_pass_replays_with_the_same_prompts_and_verdicts(house: House, epicrisis: Run) -> None:
    given = settings(house)
    house.admit(1, 2)
    epicrisis("sweep", "--schedule", "ward", "--json", **given)
    changed = {
        "resourceType": "Condition", "id": f"{house.tag}-new", "code": {"text": "Asthma"},
        "subject": {"reference": f"Patient/{house.patient(1)}"}, "onsetDateTime": "2026-11-02",
    }  # fmt: skip
    house.put(changed)
    epicrisis("sweep", "--schedule", "ward", "--json", **given)
    runs = [row["run_id"] for row in epicrisis("runs", "--json", **given).json["runs"]]
    assert len(runs) == 3
    for run in runs:
        ended = epicrisis("replay", run, "--json", **given)
        found = silent(ended, house)
        assert (ended.code, found["reason"], found["versions"]) == (0, "", [])
        assert found["prompts"]
        assert all(one["identical"] and one["stored"] == one["rebuilt"] for one in found["prompts"])
        assert found["verdicts"] == {"identical": True, "changed": [], "rest": []}
        assert found["generated"] is None
    ended = epicrisis("replay", runs[0], "--generate", **given)
    assert ended.code == 0
    assert "Identical: 2 prompts byte for byte" in ended.stdout
    assert "1 of 1 answers as they are stored" in ended.stdout
    assert CANARY not in ended.stdout + ended.stderr
    assert epicrisis("replay", "none", **given).code == 3
    none = settings(house, EPICRISIS_REPLAY_DAYS="0")
    epicrisis("summarize", house.patient(2), "--attempt", "2", "--json", **none)
    newest = epicrisis("runs", "--json", **none).json["runs"][0]["run_id"]
    ended = epicrisis("replay", newest, "--json", **none)
    assert (ended.code, silent(ended, house)["replayable"]) == (21, False)


def test_a_list_by_hand_is_all_that_is_visited(house: House, epicrisis: Run, tmp_path: Path) -> None:
    house.admit(1, 2, 3, chart=False)
    listed = tmp_path / "list.txt"
    listed.write_text(f"Patient/{house.patient(1)}\nEncounter/{house.stay(3)}\nnonsense\n")
    ended = epicrisis("sweep", "--list", str(listed), "--json", **settings(house))
    report = silent(ended, house)
    assert ended.code == 0
    assert (report["admissions"], report["runs"]) == (2, 2)
    assert [len(house.documents(number)) for number in (1, 2, 3)] == [1, 0, 1]


def test_a_schedule_is_listed_paused_and_resumed(house: House, epicrisis: Run) -> None:
    given = settings(house)
    ward, late = epicrisis("schedule", "list", "--json", **given).json["schedules"]
    assert (ward["name"], ward["cron"], ward["time_zone"], ward["kind"]) == (
        "ward", "30 5 * * *", "Europe/Berlin", "admission",
    )  # fmt: skip
    assert ward["next"]
    assert ward["last"] is None
    assert not ward["paused_by"]
    assert late["kind"] == "handover"
    ward, _ = epicrisis("schedule", "pause", "ward", "--json", **given).json["schedules"]
    assert ward["paused_by"]
    assert ward["paused_since"]
    assert ward["next"] is None
    assert "paused by" in epicrisis("schedule", "list", **given).stdout
    ward, _ = epicrisis("schedule", "resume", "ward", "--json", **given).json["schedules"]
    assert ward["next"]
    assert not ward["paused_by"]
    assert "never" in epicrisis("schedule", "list", **given).stdout


@pytest.mark.parametrize(
    "command",
    [
        ("sweep", "--schedule", "none"),
        ("sweep", "--kind", "none"),
        ("schedule", "pause", "none"),
        ("schedule", "resume", "none"),
        ("schedule", "run", "none"),
        ("sweep", "--list", "none.txt"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_done(
    house: House, epicrisis: Run, command: tuple[str, ...]
) -> None:
    ended = epicrisis(*command, **settings(house))
    assert ended.code == 3
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("text", ["[a]\ncron = '0 0 * * *'\nkind = 'none'", "[a]\ncron = '0 0 * * 1'"])
def test_a_schedule_that_cannot_be_used_is_said_at_once(
    house: House, epicrisis: Run, tmp_path: Path, text: str
) -> None:
    (tmp_path / "schedules.toml").write_text(text)
    ended = epicrisis("schedule", "list", **settings(house))
    assert ended.code == 3
    assert "'a'" in ended.stderr


def test_without_schedules_the_list_says_how_to_make_some(epicrisis: Run) -> None:
    ended = epicrisis("schedule", "list")
    assert ended.code == 0
    assert "EPICRISIS_SCHEDULES" in ended.stdout


def test_a_hook_without_a_good_secret_is_a_setting_that_is_wrong(house: House, epicrisis: Run) -> None:
    given = settings(house, EPICRISIS_HOOK_URL="http://127.0.0.1:1", EPICRISIS_HOOK_SECRET="short")
    ended = epicrisis("work", **given)
    assert ended.code == 3
    assert "EPICRISIS_HOOK_SECRET" in ended.stderr
    assert "short" not in ended.stderr


def test_a_server_that_is_not_there_is_exit_code_4(house: House, epicrisis: Run) -> None:
    given = settings(house, EPICRISIS_FHIR_URL="http://127.0.0.1:1/fhir")
    ended = epicrisis("sweep", "--json", **given)
    assert ended.code == 4
    assert ended.json["error"]["code"] == "connection_refused"


def test_a_pass_that_is_interrupted_ends_with_130_and_the_next_goes_on(
    house: House, gate: Gate, epicrisis: Run
) -> None:
    house.admit(1, 2, chart=False)
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - a real process needs it
        "EPICRISIS_HOME": str(house.home),
        "EPICRISIS_ENGINE": "scripted",
        **settings(house, EPICRISIS_FHIR_URL=gate.base_url),
    }
    command = [sys.executable, "-m", "service.cli", "sweep", "--schedule", "ward", "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while not gate.seen("$everything"):
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    print(err.decode())
    assert b"Traceback" not in err
    assert CANARY.encode() not in out + err
    ended = epicrisis(
        "sweep", "--schedule", "ward", "--json", **settings(house, EPICRISIS_FHIR_URL=gate.base_url)
    )
    assert ended.code == 0
    assert ended.json["admissions"] == 2
    assert [house.documents(number) for number in (1, 2)] == [[DRAFT], [DRAFT]]
