"""Exports of the audit log, retention and legal holds by command, on a real FHIR server's chart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.charts import canary_bundle
from fixtures.servers import SekmetServer
from service.store.database import open_cipher
from service.store.trail import SqlAuditLog
from tests.acceptance.conftest import Run
from tests.conftest import CANARY


@pytest.fixture
def chart(sekmet: SekmetServer, request: pytest.FixtureRequest) -> str:
    patient = f"retained-{abs(hash(request.node.nodeid)) % 16**8:08x}"
    httpx.post(sekmet.base_url, json=canary_bundle(patient), timeout=30).raise_for_status()
    return patient


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def age(home: Path) -> None:
    """Let every summary be of two years ago."""
    url = f"sqlite:///{home}/epicrisis.db"
    log = SqlAuditLog(url, open_cipher(home / "key", url))
    with log.database.writing() as session:
        connection = session.connection()
        for table, name in (("run", "created_at"), ("run_input", "kept_at"), ("input_part", "used_at")):
            connection.exec_driver_sql(f"UPDATE epicrisis_{table} SET {name} = '2024-01-01 00:00:00.000000'")
    log.close()


def test_a_log_is_exported_in_parts_and_names_nobody_until_somebody_chooses_it(
    epicrisis: Run, sekmet: SekmetServer, chart: str, tmp_path: Path
) -> None:
    drafted = epicrisis("summarize", chart, "--fhir-url", sekmet.base_url, "--json")
    assert drafted.code == 0, drafted.stderr
    out = tmp_path / "first.ndjson"
    first = epicrisis("audit", "export", "--out", str(out))
    assert first.code == 0, first.stderr
    assert first.stdout == ""
    assert out.stat().st_mode & 0o777 == 0o600
    entries = lines_of(out.read_text())
    assert [one["number"] for one in entries] == list(range(1, len(entries) + 1))
    assert (entries[-1]["action"], entries[-1]["target"]) == ("export", "trail")
    assert {"read", "generate", "write"} <= {one["action"] for one in entries}
    for secret in (chart, CANARY, "Patient/", "DocumentReference/"):
        assert secret not in out.read_text() + first.stderr
    again = epicrisis("audit", "export", "--out", str(out))
    assert again.code == 3
    assert "File exists" in again.stderr
    more = epicrisis("audit", "export", "--after", str(len(entries)), "--references")
    assert more.code == 0, more.stderr
    assert [one["number"] for one in lines_of(more.stdout)] == [len(entries) + 1]
    assert f"go on with --after {len(entries) + 1}" in " ".join(more.stderr.split())
    named = epicrisis("audit", "export", "--references")
    assert f"Patient/{chart}" in named.stdout
    assert lines_of(epicrisis("audit", "export", "--until", "2020-01-01").stdout) == []
    assert epicrisis("audit", "export", "--since", "yesterday").code == 3
    report = epicrisis("audit", "verify", "--json")
    assert report.json["intact"]
    hashes = {one["number"]: one["hash"] for one in lines_of(epicrisis("audit", "export").stdout)}
    assert hashes[report.json["entries"]] == report.json["head"]


def test_a_held_patient_outlives_the_rule_and_a_shredding_and_then_goes(
    epicrisis: Run, sekmet: SekmetServer, chart: str, tmp_path: Path
) -> None:
    drafted = epicrisis("summarize", chart, "--fhir-url", sekmet.base_url, "--json")
    assert drafted.code == 0, drafted.stderr
    run = drafted.json["run_id"]
    age(tmp_path / "home")
    kept = epicrisis("retain", "--json")
    assert (kept.code, kept.json["days"], kept.json["runs"]) == (0, 0, 0)
    assert epicrisis("hold", "add", chart).code == 3
    held = epicrisis("hold", "add", chart, "--reason", "Claim 7 of 2026.", "--json")
    assert held.code == 0, held.stderr
    listed = epicrisis("hold", "list", "--json")
    assert [(one["patient"], one["reason"]) for one in listed.json["holds"]] == [
        (f"Patient/{chart}", "Claim 7 of 2026.")
    ]
    on = {"EPICRISIS_RETENTION_DAYS": "365"}
    passed_over = epicrisis("retain", "--json", **on)
    assert (passed_over.json["runs"], passed_over.json["held"]) == (0, 1)
    refused = epicrisis("keys", "shred", chart, "--reason", "asked for", "--leave-drafts")
    assert refused.code == 9
    assert "This patient is under a legal hold" in " ".join(refused.stderr.split())
    assert epicrisis("show", run).code == 0

    assert epicrisis("hold", "lift", chart, "--reason", "Settled.").code == 0
    assert epicrisis("hold", "lift", chart, "--reason", "Settled.").code == 3
    counted = epicrisis("retain", "--dry-run", "--json", **on)
    assert counted.json["runs"] == 1
    assert epicrisis("show", run).code == 0
    done = epicrisis("retain", "--json", **on)
    assert (done.code, done.json["runs"], done.json["held"]) == (0, 1, 0), done.stderr
    gone = epicrisis("show", run)
    assert gone.code == 9
    assert "older than this site keeps them" in " ".join(gone.stderr.split())
    replayed = epicrisis("replay", run)
    assert replayed.code not in (0, 1), replayed.stderr
    report = epicrisis("audit", "verify", "--json")
    assert (report.code, report.json["intact"], report.json["shredded"]) == (0, True, 0)
    acts = [one["target"] for one in lines_of(epicrisis("audit", "export").stdout)]
    for act in ("hold:add", "hold:list", "hold:lift", "retain", "keys:shred"):
        assert act in acts
    for ended in (kept, passed_over, refused, counted, done, gone):
        assert CANARY not in ended.stdout + ended.stderr
