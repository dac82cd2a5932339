"""The keys in whole processes: rotation beside a writer, kills in the middle, a master key from outside."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.postgres import PostgresServer
from service.errors import ShreddedError, StoreError
from service.ports import RunId
from service.store.cipher import read_keys
from service.store.database import open_cipher
from service.store.sql import SqlStore
from tests.conftest import CANARY, ROOT
from tests.contract.store.test_patient_keys import (
    ONE,
    OTHER,
    House,
    is_told,
    old_database,
    open_house,
    readable,
    run_of,
    sealed_values,
    versions,
)

WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from service.ports import RunId
from service.store.database import open_cipher
from service.store.sql import SqlStore
from tests.contract.store.test_patient_keys import run_of
url, key = sys.argv[1], Path(sys.argv[2])
store = SqlStore(url, open_cipher(key, url))
for number in range(100_000):
    run = replace(run_of(f"Patient/w{number}"), run_id=RunId(f"w-{number}"))
    store.save(run)
    assert store.get(run.run_id) == run
    print(number, flush=True)
"""
STALLED = """
import sys, time
from pathlib import Path
from datetime import UTC, datetime
from service.store.database import Database, open_cipher
from service.store import keys
from service.store.keys import KeyRoom
url, key, act, after = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
keys.BATCH = 2
database = Database(url, open_cipher(key, url))
room = KeyRoom(database, lambda: datetime.now(UTC), key)
steps = 0

def stall(*_):
    global steps
    steps += 1
    if steps > after:
        print("in the middle", flush=True)
        time.sleep(600)

if act == "rotate":
    room.rotate(stall)
elif act == "reseal":
    room.reseal(stall)
else:
    blank = room._blank_runs
    room._blank_runs = lambda *args: (blank(*args), stall())
    room.shred("Patient/77", "asked for")
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/epicrisis.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_schema()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "key"


@pytest.fixture
def house(url: str, key: Path) -> Iterator[House]:
    opened = open_house(url, key)
    yield opened
    opened.close()


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *(str(one) for one in arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_in_the_middle(url: str, key: Path, act: str, after: int = 0) -> None:
    process = start(STALLED, url, key, act, after)
    assert process.stdout is not None
    assert process.stdout.readline() == "in the middle\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def run_keys(home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, "HOME": str(home)}
    command = [sys.executable, "-m", "service.cli", "--home", str(home), "keys", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_worker_writes_and_reads_while_the_master_key_is_rotated(house: House, url: str, key: Path) -> None:
    writer = start(WRITER, url, key)
    assert writer.stdout is not None
    try:
        for _ in range(5):
            assert writer.stdout.readline()
        ids = {house.keys.state().master}
        for _ in range(4):
            house.keys.rotate()
            ids.add(house.keys.state().master)
            last = int(writer.stdout.readline())
        target = last + 15
        while last < target:
            last = int(writer.stdout.readline())
    finally:
        writer.kill()
        _, errors = writer.communicate()
    assert "Error" not in errors
    assert len(ids) == 5
    assert set(read_keys(key).keys) == {house.keys.state().master}
    for number in range(last + 1):
        assert house.store.get(RunId(f"w-{number}")) is not None
    assert house.keys.state().behind == 0


@pytest.mark.parametrize("after", [0, 2])
def test_a_rotation_killed_in_the_middle_goes_on(house: House, url: str, key: Path, after: int) -> None:
    for number in range(12):
        house.store.save(run_of(f"Patient/{number}"))
    kill_in_the_middle(url, key, "rotate", after)
    coming = house.keys.state()
    assert 0 < coming.behind < 14
    fresh = open_house(url, key)
    fresh.store.save(run_of("Patient/99"))
    for number in (*range(12), 99):
        assert fresh.store.get(RunId(f"run-{number}")) is not None
    assert fresh.keys.rotate() == coming.behind
    assert fresh.keys.state().master == coming.next
    assert set(read_keys(key).keys) == {coming.next}
    fresh.close()


def test_a_rotation_killed_before_it_reached_the_database_uses_the_key_that_is_there(
    house: House, key: Path
) -> None:
    house.fill(ONE)
    coming = house.keys.prepare()
    assert house.keys.rotate() == 3
    assert house.keys.state().master == coming


@pytest.mark.parametrize("after", [0, 3])
def test_a_resealing_killed_in_the_middle_goes_on(url: str, key: Path, after: int) -> None:
    cipher = old_database(url, key)
    before = sorted(readable(url, cipher))
    kill_in_the_middle(url, key, "reseal", after)
    assert versions(url) == {1, 2}
    assert sorted(readable(url, cipher)) == before
    house = open_house(url, key)
    assert house.keys.reseal() > 0
    assert versions(url) == {2}
    assert sorted(readable(url, cipher)) == before
    assert house.audit.verify().is_intact
    house.close()


def test_a_shredding_killed_in_the_middle_left_all_and_is_done_by_the_next(
    house: House, url: str, key: Path
) -> None:
    house.fill(ONE)
    house.fill(OTHER)
    before = len(sealed_values(url))
    kill_in_the_middle(url, key, "shred")
    assert len(sealed_values(url)) == before
    assert house.store.get(RunId("run-77")) is not None
    assert not house.keys.shred(ONE, "asked for").again
    with pytest.raises(ShreddedError):
        house.store.get(RunId("run-77"))
    assert not is_told(ONE, readable(url, house.cipher))
    assert house.store.get(RunId("run-78")) is not None
    assert house.audit.verify().is_intact


def home_with_a_patient(home: Path) -> None:
    home.mkdir()
    house = open_house(f"sqlite:///{home}/epicrisis.db", home / "key")
    house.fill(ONE)
    house.fill(OTHER)
    house.close()


def test_the_commands_rotate_shred_and_readmit(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home_with_a_patient(home)
    state = json.loads(run_keys(home, "state", "--json").stdout)
    assert (state["patients"], state["shredded"], state["behind"], state["old_values"]) == (2, 0, 0, 0)
    assert json.loads(run_keys(home, "rotate", "--json").stdout) == {"resealed": "4"}
    assert json.loads(run_keys(home, "reseal", "--json").stdout) == {"resealed": 0}
    refused = run_keys(home, "shred", "Patient/77")
    assert (refused.returncode, "--reason" in refused.stderr) == (3, True)
    done = run_keys(home, "shred", "77", "--reason", "asked for", "--json")
    assert json.loads(done.stdout) == {"runs": 1, "documents": 1, "snapshots": 2, "again": False}
    command = [sys.executable, "-m", "service.cli", "--home", str(home)]
    shown = subprocess.run(
        [*command, "show", "run-77"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert (shown.returncode, shown.stdout) == (9, "")
    assert "was destroyed" in shown.stderr
    listed = subprocess.run(
        [*command, "runs", "--json"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert [one["patient_name"] == "Shredded" for one in json.loads(listed.stdout)["runs"]] == [False, True]
    verified = subprocess.run(
        [*command, "audit", "verify"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert verified.returncode == 0, verified.stderr
    assert json.loads(run_keys(home, "readmit", "77", "--json").stdout) == {"readmitted": True}
    said = [refused, done, shown, listed, verified]
    assert not any(secret in f"{one.stdout}{one.stderr}" for one in said for secret in ("77/", "MRN-4711"))
    house = open_house(f"sqlite:///{home}/epicrisis.db", home / "key")
    acts = [entry.target for entry in house.audit.entries(20) if entry.target.startswith("keys:")]
    assert acts == ["keys:readmit", "keys:shred", "keys:reseal", "keys:rotate"]
    house.close()


def test_a_master_key_from_the_environment_takes_the_place_of_the_key_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home_with_a_patient(home)
    first, second = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
    one = {"EPICRISIS_MASTER_KEY": first}
    assert run_keys(home, "rotate", **one).returncode == 0
    (home / "key").unlink()
    assert json.loads(run_keys(home, "state", "--json", **one).stdout)["patients"] == 2
    wrong = run_keys(home, "state", EPICRISIS_MASTER_KEY=second)
    assert (wrong.returncode, first in wrong.stderr, second in wrong.stderr) == (9, False, False)
    assert "does not hold the key" in wrong.stderr
    broken = run_keys(home, "state", EPICRISIS_MASTER_KEY=CANARY)
    assert (broken.returncode, CANARY in broken.stderr) == (3, False)
    unchanged = run_keys(home, "rotate", **one)
    assert (unchanged.returncode, "PREVIOUS" in unchanged.stderr) == (9, True)
    both = {"EPICRISIS_MASTER_KEY": second, "EPICRISIS_MASTER_KEY_PREVIOUS": first}
    assert json.loads(run_keys(home, "rotate", "--json", **both).stdout) == {"resealed": "4"}
    assert run_keys(home, "state", EPICRISIS_MASTER_KEY=second).returncode == 0
    assert run_keys(home, "state", **one).returncode == 9
    said = [run_keys(home, "state", EPICRISIS_LOG_LEVEL="debug", **both)]
    assert not any(key in f"{done.stdout}{done.stderr}" for done in said for key in (first, second))


def test_a_new_database_needs_no_key_file_beside_a_master_key(url: str, key: Path) -> None:
    master = base64.b64encode(secrets.token_bytes(32)).decode()
    store = SqlStore(url, open_cipher(key, url, master))
    store.save(run_of(ONE))
    store.close()
    assert not key.exists()
    again = SqlStore(url, open_cipher(key, url, master))
    assert again.get(RunId("run-77")) == run_of(ONE)
    assert [row.patient for row in again.rows()[0]] == [ONE]
    assert again.find_by_patient(ONE) == (RunId("run-77"),)
    again.close()
    other = base64.b64encode(secrets.token_bytes(32)).decode()
    before = sealed_values(url)
    with pytest.raises(StoreError, match="does not hold the key"):
        SqlStore(url, open_cipher(key, url, other))
    assert sealed_values(url) == before


def test_a_backup_of_sqlite_made_afterwards_opens_with_no_key_that_is_left(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home_with_a_patient(home)
    assert run_keys(home, "shred", "77", "--reason", "asked for").returncode == 0
    source, target = sqlite3.connect(home / "epicrisis.db"), sqlite3.connect(tmp_path / "backup.db")
    source.backup(target)
    source.close()
    target.close()
    url = f"sqlite:///{tmp_path}/backup.db"
    opened = readable(url, open_cipher(home / "key", url))
    assert opened
    for secret in (ONE, "secret-77", "Encounter/77"):
        assert not is_told(secret, opened)
    assert is_told(OTHER, opened)
