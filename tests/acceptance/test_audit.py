"""The audit log by command: what is on record, that it is whole, and that a change of it is found."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import httpx
import pytest

from fixtures.charts import canary_bundle
from fixtures.servers import SekmetServer
from service.store.database import open_cipher
from service.store.trail import SqlAuditLog
from tests.acceptance.conftest import Run
from tests.conftest import CANARY

SHAPE = {"intact", "entries", "head", "anchored_at", "faults", "found", "shredded", "torn_anchors"}


@pytest.fixture
def chart(sekmet: SekmetServer, request: pytest.FixtureRequest) -> str:
    patient = f"trailed-{abs(hash(request.node.nodeid)) % 16**8:08x}"
    httpx.post(sekmet.base_url, json=canary_bundle(patient), timeout=30).raise_for_status()
    return patient


def actions(home: Path) -> list[tuple[str, str]]:
    """What is on record, oldest first: the act, and what it was done to."""
    url = f"sqlite:///{home}/epicrisis.db"
    log = SqlAuditLog(url, open_cipher(home / "key", url))
    entries = log.entries(1000)
    log.close()
    return [(entry.action.value, entry.target) for entry in reversed(entries)]


def tamper(home: Path, statement: str) -> None:
    """Change the database as its owner can, without the triggers."""
    raw = sqlite3.connect(home / "epicrisis.db")
    for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        raw.execute(f"DROP TRIGGER {name}")
    raw.execute(statement)
    raw.commit()
    raw.close()


def test_every_act_is_on_record_and_whoever_changes_one_is_found_out(
    epicrisis: Run, sekmet: SekmetServer, chart: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    empty = epicrisis("audit", "verify", "--json")
    assert (empty.code, empty.json["intact"], empty.json["entries"]) == (0, True, 0)
    drafted = epicrisis("summarize", chart, "--fhir-url", sekmet.base_url, "--json")
    assert drafted.code == 0, drafted.stderr
    run = drafted.json["run_id"]
    for more in ((), ("--json",)):
        assert epicrisis("show", run, *more).code == 0
    recorded = [action for action, _ in actions(home)]
    assert recorded[0] == "read"
    assert {"generate", "write"} <= set(recorded)
    assert recorded[-2:] == ["view", "export"]
    intact = epicrisis("audit", "verify", "--json")
    assert intact.code == 0, intact.stderr
    assert set(intact.json) == SHAPE
    assert (intact.json["intact"], intact.json["entries"], intact.json["faults"]) == (
        True,
        len(recorded),
        [],
    )
    anchors = [json.loads(line) for line in (home / "audit-anchors").read_text().splitlines()]
    assert anchors[0]["entries"] == 0
    assert (anchors[-1]["entries"], anchors[-1]["head"]) == (len(recorded), intact.json["head"])
    assert intact.json["anchored_at"] == anchors[-1]["at"]

    tamper(home, "UPDATE epicrisis_audit_entry SET actor = 'nobody' WHERE action = 'export'")
    broken = epicrisis("audit", "verify", "--json")
    assert broken.code == 19
    assert broken.json["intact"] is False
    assert broken.json["faults"] == [{"kind": "edited", "at": len(recorded)}]
    told = epicrisis("audit", "verify")
    assert told.code == 19
    assert "BROKEN" in told.stdout
    assert "This entry is not what was recorded." in " ".join(told.stdout.split())
    for ended in (intact, broken, told):
        assert CANARY not in ended.stdout + ended.stderr
        assert chart not in ended.stdout + ended.stderr


def test_what_is_cut_off_after_a_command_ended_is_found(epicrisis: Run, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for _ in range(2):
        assert epicrisis("stop", "--ward", "7 West", "--json").code == 0
    tamper(home, "DELETE FROM epicrisis_audit_link WHERE number = 2")
    tamper(home, "DELETE FROM epicrisis_audit_entry WHERE id = (SELECT max(id) FROM epicrisis_audit_entry)")
    cut = epicrisis("audit", "verify", "--json")
    assert (cut.code, cut.json["faults"]) == (19, [{"kind": "truncated", "at": 2}])


def test_anchors_go_where_the_setting_says(epicrisis: Run, tmp_path: Path) -> None:
    worm = tmp_path / "worm" / "anchors"
    on = {"EPICRISIS_AUDIT_ANCHORS": str(worm)}
    assert epicrisis("stop", "--ward", "7 West", "--json", **on).code == 0
    assert len(worm.read_text().splitlines()) == 2
    assert not (tmp_path / "home" / "audit-anchors").exists()
    verified = epicrisis("audit", "verify", "--json", **on)
    assert (verified.code, verified.json["entries"]) == (0, 1)


def test_what_is_done_to_a_schedule_is_on_record(epicrisis: Run, tmp_path: Path) -> None:
    timed = tmp_path / "schedules.toml"
    timed.write_text('[rare]\ncron = "0 0 1 1 *"\n')
    on = {"EPICRISIS_SCHEDULES": str(timed), "EPICRISIS_TIME_ZONE": "Europe/Berlin"}
    for act in ("pause", "resume"):
        ended = epicrisis("schedule", act, "rare", "--json", **on)
        assert ended.code == 0, ended.stderr
    assert epicrisis("schedule", "pause", "unknown", "--json", **on).code == 3
    assert actions(tmp_path / "home") == [
        ("configure", "schedule:rare:pause"),
        ("configure", "schedule:rare:resume"),
    ]
