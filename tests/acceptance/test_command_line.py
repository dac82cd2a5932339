"""The command line on files and on a real server: what each command prints, and how it ends."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import re
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.charts import canary_resources
from fixtures.facts import CANARY
from fixtures.servers import SekmetServer
from tests.acceptance.conftest import Run
from tests.acceptance.test_faults import documents, load
from tests.conftest import ROOT
from tests.unit.texts import portables


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "chart.json"
    entries = [{"resource": resource} for resource in canary_resources("1")]
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}))
    return path


def write(path: Path, resources: list[dict[str, Any]]) -> Path:
    entries = [{"resource": resource} for resource in resources]
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}))
    return path


def on_its_own(*arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run one command in a process of its own, with nothing set but what is given."""
    command = [sys.executable, "-m", "service.cli", *arguments]
    surroundings = {"PATH": "/usr/bin:/bin", "EPICRISIS_ENGINE": "scripted"} | environment
    return subprocess.run(
        command, check=False, input=stdin, capture_output=True, env=surroundings, timeout=60, cwd=ROOT
    )


def versioned(resource: dict[str, Any], number: int) -> dict[str, Any]:
    return {**resource, "meta": {"versionId": str(number), "lastUpdated": "2026-01-02T03:04:05Z"}}


def test_assemble_accounts_for_every_resource(epicrisis: Run, bundle: Path) -> None:
    found = epicrisis("assemble", str(bundle), "--json").json
    assert found["seen"] == found["kept"] + len(found["skipped"]) == 8
    assert "Gout: active, since 04-Mar-2011" in {fact["text"] for fact in found["facts"]}
    assert [kind["state"] for kind in found["required"] if kind["key"] == "allergies"] == ["listed"]
    shown = epicrisis("assemble", str(bundle))
    assert "Colonoscopy: not done" in shown.stdout
    assert "8 resources seen" in shown.stderr


def test_assemble_prints_what_it_promises_in_a_process_of_its_own(tmp_path: Path) -> None:
    resources = canary_resources("1")
    twin = {**versioned(resources[1], 7), "id": "1-gout-again"}
    other = {**resources[1], "id": "other", "subject": {"reference": "Patient/2"}}
    strays: list[dict[str, Any]] = [{"resourceType": "Claim", "id": "c"}, other]
    chart = write(
        tmp_path / "chart.json", [versioned(r, n) for n, r in enumerate(resources)] + [twin, *strays]
    )
    ended = on_its_own("assemble", str(chart), "--json", EPICRISIS_HOME=str(tmp_path / "home"))
    assert (ended.returncode, ended.stderr) == (0, b"")
    found = json.loads(ended.stdout)
    assert set(found) >= {"seen", "kept", "skipped", "facts", "complete"}
    assert (found["seen"], found["kept"]) == (11, 9)
    assert {item["reference"] for item in found["skipped"]} == {"Claim/c", "Condition/other"}
    assert all(set(item) == {"reference", "reason"} and item["reason"] for item in found["skipped"])
    assert found["complete"]["allergies"] == "listed"
    assert set(found["complete"].values()) <= {"listed", "none-recorded", "not-retrieved"}
    assert len({fact["label"] for fact in found["facts"]}) == len(found["facts"])
    for fact in found["facts"]:
        assert set(fact) >= {"label", "kind", "text", "date", "sources"}
        for source in fact["sources"]:
            assert set(source) == {"reference", "version", "sha256", "read_at"}
            assert re.fullmatch(r"[0-9a-f]{64}", source["sha256"])
            assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+(Z|\+00:00)", source["read_at"])
    gout = next(fact for fact in found["facts"] if fact["text"].startswith("Gout"))
    assert gout["date"] == "2011-03-04"
    versions = {source["reference"]: source["version"] for source in gout["sources"]}
    assert versions == {"Condition/1-gout": "1", "Condition/1-gout-again": "7"}
    assert not (tmp_path / "home").exists()


def test_a_source_is_named_by_its_content_whatever_its_version(epicrisis: Run, tmp_path: Path) -> None:
    resources = canary_resources("1")
    plain = epicrisis("assemble", str(write(tmp_path / "a.json", resources)), "--json").json
    newer = [versioned(resource, 3) for resource in resources]
    again = epicrisis("assemble", str(write(tmp_path / "b.json", newer)), "--json").json
    by_reference = {f"{one['resourceType']}/{one['id']}": one for one in resources}
    for first, second in zip(plain["facts"], again["facts"], strict=True):
        assert [source["version"] for source in first["sources"]] == [None]
        assert [source["version"] for source in second["sources"]] == ["3"]
        source = first["sources"][0]
        content = json.dumps(by_reference[source["reference"]], sort_keys=True, separators=(",", ":"))
        assert source["sha256"] == hashlib.sha256(content.encode()).hexdigest()
        assert second["sources"][0]["sha256"] == source["sha256"]


def test_a_gzipped_file_and_a_bare_list_are_read_too(epicrisis: Run, bundle: Path, tmp_path: Path) -> None:
    packed = tmp_path / "chart.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(canary_resources("1")).encode()))
    one, two = (epicrisis("assemble", str(path), "--json").json for path in (bundle, packed))
    assert one["digest"] == two["digest"]


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"resourceType": "Bund', b"\x1f\x8bnot gzip"])
def test_a_file_that_is_not_json_is_refused_in_words(epicrisis: Run, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd"
    path.write_bytes(content)
    ended = epicrisis("assemble", str(path), "--json")
    assert ended.code == 7
    assert "not JSON" in ended.json["error"]["message"]
    assert epicrisis("assemble", str(tmp_path / "none"), "--json").code == 3


def test_context_stays_within_its_budget_and_says_what_it_left_out(epicrisis: Run, bundle: Path) -> None:
    whole = epicrisis("context", str(bundle), "--budget", "4000", "--json").json
    assert whole["tokens"] <= 4000
    assert set(whole["facts"].values()) >= {"Condition/1-gout", "AllergyIntolerance/1-penicillin"}
    assert all(f"[{label}]" in whole["prompt"] for label in ("P1", "A1", "M1"))
    assert CANARY not in whole["prompt"]
    small = epicrisis("context", str(bundle), "--budget", str(whole["tokens"] - 20), "--json").json
    assert small["tokens"] <= whole["tokens"] - 20
    assert sum(item["count"] for item in small["left_out"]) == len(whole["facts"]) - len(small["facts"])
    refused = epicrisis("context", str(bundle), "--budget", "50", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (3, "budget")
    assert "budget of 50 tokens is too small" in refused.json["error"]["message"]


def test_context_prints_what_it_promises_and_the_least_budget_is_exact(
    epicrisis: Run, bundle: Path, tmp_path: Path
) -> None:
    refused = on_its_own("context", str(bundle), "--budget", "1", "--json")
    assert refused.returncode == 3
    least = int(re.findall(r"\d+", json.loads(refused.stdout)["error"]["advice"])[0])
    assert str(least) in json.loads(refused.stdout)["error"]["message"]
    assert str(least).encode() in refused.stderr
    below = epicrisis("context", str(bundle), "--budget", str(least - 1), "--json")
    assert (below.code, below.json["error"]["code"]) == (3, "budget")
    found = json.loads(on_its_own("context", str(bundle), "--budget", str(least), "--json").stdout)
    assert set(found) >= {"prompt", "tokens", "budget", "shown", "left_out", "required"}
    assert (found["tokens"], found["budget"]) == (least, least)
    assert found["required"]["shown"] == found["required"]["total"] > 0
    assert found["shown"] == len(found["facts"])
    for item in found["left_out"]:
        assert set(item) >= {"kind", "count", "reason"}
        assert item["count"] > 0
        assert item["reason"]


def test_the_same_chart_gives_the_same_bytes_in_whatever_order_it_arrives(bundle: Path) -> None:
    resources = canary_resources("1")
    arguments = ("context", "--budget", "1200", "--json")
    outputs = {on_its_own(*arguments, str(bundle)).stdout for _ in range(2)}
    for seed in range(2):
        shuffled = resources[:]
        random.Random(seed).shuffle(shuffled)
        outputs.add(on_its_own(*arguments, "-", stdin=json.dumps(shuffled).encode()).stdout)
    assert len(outputs) == 1
    assert json.loads(outputs.pop())["shown"] > 0


@pytest.mark.parametrize("kind", ["history", "admission", "handover", "problems"])
def test_every_kind_gives_a_prompt_of_its_own(epicrisis: Run, bundle: Path, kind: str) -> None:
    found = epicrisis("context", str(bundle), "--budget", "4000", "--kind", kind, "--json").json
    other = "history" if kind != "history" else "handover"
    assert found["prompt"] != epicrisis(
        "context", str(bundle), "--budget", "4000", "--kind", other, "--json"
    ).json["prompt"]  # fmt: skip
    assert found["required"]["shown"] == found["required"]["total"]


def test_the_encounter_at_hand_can_be_named(epicrisis: Run, tmp_path: Path) -> None:
    stays = [
        {
            "resourceType": "Encounter", "id": f"stay-{year}", "subject": {"reference": "Patient/1"},
            "status": "finished", "period": {"start": f"{year}-01-02", "end": f"{year}-01-09"},
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
            "type": [{"text": "Admission"}],
        }
        for year in (2024, 2025)
    ]  # fmt: skip
    chart = write(tmp_path / "stays.json", [*canary_resources("1"), *stays])
    arguments = ("context", str(chart), "--budget", "4000", "--kind", "admission", "--json")
    assert epicrisis(*arguments).json["encounter"] == "Encounter/stay-2025"
    named = epicrisis(*arguments, "--encounter", "Encounter/stay-2024").json
    assert named["encounter"] == "Encounter/stay-2024"
    unknown = epicrisis(*arguments, "--encounter", "Encounter/none")
    assert (unknown.code, unknown.json["error"]["code"]) == (6, "record")


OWN_SET = """id = "clinic"
extends = "history"
version = "1.0.0"
title = "Clinic letter"

[[changes]]
version = "1.0.0"
date = 2026-11-01
reason = "First version."
"""


def test_a_sites_own_template_set_is_used_and_a_bad_one_is_refused_at_its_line(
    epicrisis: Run, bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "sets" / "clinic"
    folder.mkdir(parents=True)
    (folder / "prompt.toml").write_text(OWN_SET)
    (folder / "task.j2").write_text("TASK: Write a letter to the clinic.")
    arguments = ("context", str(bundle), "--budget", "4000", "--kind", "clinic", "--json")
    own = {"EPICRISIS_PROMPTS": str(tmp_path / "sets")}
    assert "Write a letter to the clinic." in epicrisis(*arguments, **own).json["prompt"]
    findings = {one["name"]: one for one in epicrisis("doctor", "--json", **own).json["findings"]}
    assert (findings["prompts"]["state"], "clinic 1.0.0" in findings["prompts"]["detail"]) == ("ok", True)
    (folder / "prompt.toml").write_text(OWN_SET.replace('extends = "history"', 'extends = "novel"'))
    refused = epicrisis(*arguments, **own)
    assert (refused.code, refused.json["error"]["code"]) == (3, "template")
    assert "clinic/prompt.toml, line 2: " in refused.json["error"]["message"]
    doctor = epicrisis("doctor", "--json", **own)
    findings = {one["name"]: one for one in doctor.json["findings"]}
    assert (doctor.code, findings["prompts"]["state"]) == (1, "failed")
    assert "prompt.toml, line 2" in findings["prompts"]["detail"]


def attached(number: int, content: bytes, content_type: str) -> dict[str, Any]:
    attachment = {"contentType": content_type, "data": b64encode(content).decode()}
    return {
        "resourceType": "DocumentReference", "id": f"note-{number}", "status": "current",
        "subject": {"reference": "Patient/1"}, "type": {"text": "Progress note"},
        "date": f"2026-11-0{number}T10:00:00Z", "content": [{"attachment": attachment}],
    }  # fmt: skip


def test_notes_in_every_format_are_read_and_a_hostile_one_costs_only_itself(
    epicrisis: Run, tmp_path: Path
) -> None:
    notes = [
        attached(1, b"<html><body><p>Wound is clean and dry.</p></body></html>", "text/html"),
        attached(2, rb"{\rtf1\ansi Sutures were removed without pain.}", "application/rtf"),
        attached(3, portables.of_lines("Dressing was changed at noon."), "application/pdf"),
        attached(
            4, b"%PDF-1.7\n" + b"1 0 obj << /Type /Pages /Kids [1 0 R] >> endobj\n" * 50, "application/pdf"
        ),
    ]
    chart = write(tmp_path / "notes.json", [*canary_resources("1"), *notes])
    found = epicrisis("assemble", str(chart), "--json").json
    texts = " ".join(fact["text"] for fact in found["facts"])
    for sentence in ("Wound is clean and dry", "Sutures were removed", "Dressing was changed at noon"):
        assert sentence in texts
    assert found["seen"] == found["kept"] + len(found["skipped"]) == 12
    hostile = [f for f in found["facts"] if f["sources"][0]["reference"] == "DocumentReference/note-4"]
    assert len(hostile) == 1
    assert "not read" in hostile[0]["text"]


def test_a_chart_can_be_piped_in(bundle: Path) -> None:
    plain = json.loads(on_its_own("assemble", str(bundle), "--json").stdout)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        file.write(bundle.read_bytes())
    piped = json.loads(on_its_own("assemble", "-", "--json", stdin=packed.getvalue()).stdout)
    assert piped["digest"] == plain["digest"]


def test_a_setting_left_empty_is_one_that_is_not_set(epicrisis: Run, bundle: Path) -> None:
    empty = {"EPICRISIS_PROMPTS": "", "EPICRISIS_TOKENIZER": "", "EPICRISIS_DIGEST_WINDOWS": ""}
    arguments = ("context", str(bundle), "--budget", "4000", "--json")
    assert epicrisis(*arguments, **empty).json["shown"] == 7


def test_an_unknown_kind_of_summary_names_the_known_ones(epicrisis: Run, bundle: Path) -> None:
    ended = epicrisis("context", str(bundle), "--budget", "4000", "--kind", "novel", "--json")
    assert ended.code == 3
    assert "history" in ended.json["error"]["message"]


def test_a_chart_is_filed_once_shown_and_listed(epicrisis: Run, sekmet: SekmetServer) -> None:
    load(sekmet, "once")
    first = epicrisis("summarize", "once", "--fhir-url", sekmet.base_url, "--json").json
    again = epicrisis("summarize", "once", "--fhir-url", sekmet.base_url, "--json").json
    assert (first["state"], again["state"]) == ("filed", "unchanged")
    assert first["document"] == again["document"]
    assert len(documents(sekmet, "once")) == 1
    listed = epicrisis("runs", "--json").json
    assert [run["run_id"] for run in listed["runs"]] == [first["run_id"]]
    shown = epicrisis("show", first["run_id"])
    assert shown.stdout.startswith("AI-GENERATED DRAFT, NOT REVIEWED")
    assert "Gout: active, since 04-Mar-2011 [" in shown.stdout
    assert first["run_id"] in epicrisis("runs").stdout


def test_a_changed_chart_gets_a_new_draft_and_so_does_a_wanted_one(
    epicrisis: Run, sekmet: SekmetServer
) -> None:
    load(sekmet, "changed")
    arguments = ("summarize", "changed", "--fhir-url", sekmet.base_url, "--json")
    first = epicrisis(*arguments).json
    gout = next(r for r in canary_resources("changed") if r["id"] == "changed-gout")
    changed = {**gout, "onsetDateTime": "2012-03-04"}
    httpx.put(f"{sekmet.base_url}/Condition/changed-gout", json=changed).raise_for_status()
    second = epicrisis(*arguments).json
    third = epicrisis(*arguments, "--attempt", "2").json
    assert len({first["document"], second["document"], third["document"]}) == 3


def test_a_dry_run_writes_nothing_and_is_filed_as_stored_later(epicrisis: Run, sekmet: SekmetServer) -> None:
    load(sekmet, "dry")
    dry = epicrisis("summarize", "dry", "--fhir-url", sekmet.base_url, "--dry-run", "--json").json
    assert (dry["state"], dry["document"], documents(sekmet, "dry")) == ("dry", "", [])
    filed = epicrisis("summarize", "dry", "--fhir-url", sekmet.base_url, "--json").json
    assert filed["state"] == "filed"
    assert filed["run_id"] == dry["run_id"]


def test_a_document_that_was_lost_to_our_store_is_still_found(
    epicrisis: Run, sekmet: SekmetServer, tmp_path: Path
) -> None:
    load(sekmet, "lost")
    first = epicrisis("summarize", "lost", "--fhir-url", sekmet.base_url, "--json").json
    (tmp_path / "home" / "epicrisis.db").unlink()
    (tmp_path / "home" / "key").unlink()
    again = epicrisis("summarize", "lost", "--fhir-url", sekmet.base_url, "--json").json
    assert (again["state"], again["document"]) == ("unchanged", first["document"])


def test_a_merged_patient_is_refused(epicrisis: Run, sekmet: SekmetServer) -> None:
    load(sekmet, "merged")
    patient = canary_resources("merged")[0]
    merged = {**patient, "active": False}
    httpx.put(f"{sekmet.base_url}/Patient/merged", json=merged).raise_for_status()
    ended = epicrisis("summarize", "merged", "--fhir-url", sekmet.base_url, "--json")
    assert ended.code == 6
    assert CANARY not in ended.stdout + ended.stderr


def test_a_deceased_patients_draft_is_not_filed(epicrisis: Run, sekmet: SekmetServer) -> None:
    load(sekmet, "deceased")
    patient = {**canary_resources("deceased")[0], "deceasedDateTime": "2026-10-01"}
    httpx.put(f"{sekmet.base_url}/Patient/deceased", json=patient).raise_for_status()
    ended = epicrisis("summarize", "deceased", "--fhir-url", sekmet.base_url, "--json")
    assert (ended.code, ended.json["state"]) == (10, "withheld")
    assert "deceased" in ended.json["reason"]
    assert documents(sekmet, "deceased") == []


def test_doctor_says_what_is_missing_and_fails_only_on_what_is_broken(
    epicrisis: Run, sekmet: SekmetServer
) -> None:
    bare = epicrisis("doctor", "--json")
    states = {finding["name"]: finding["state"] for finding in bare.json["findings"]}
    assert (bare.code, states["FHIR server"], states["store"]) == (0, "missing", "ok")
    good = epicrisis("doctor", "--json", EPICRISIS_FHIR_URL=sekmet.base_url)
    assert {f["name"]: f["state"] for f in good.json["findings"]}["FHIR server"] == "ok"
    kept = {f["name"]: f["detail"] for f in bare.json["findings"]}["snapshots"]
    assert "30 days" in kept
    none = epicrisis("doctor", "--json", EPICRISIS_SNAPSHOT_DAYS="0")
    assert "nothing is kept" in {f["name"]: f["detail"] for f in none.json["findings"]}["snapshots"]
    unread = epicrisis("doctor", "--json", EPICRISIS_TOKENIZER="nowhere")
    assert {f["name"]: f["state"] for f in unread.json["findings"]}["tokenizer"] == "failed"
    broken = epicrisis("doctor", "--json", EPICRISIS_FHIR_URL="http://127.0.0.1:9/fhir")
    assert broken.code == 1


def test_settings_that_are_wrong_are_named_without_their_value(epicrisis: Run) -> None:
    ended = epicrisis("runs", "--json", EPICRISIS_TIME_ZONE=f"Mars/{CANARY}")
    assert ended.code == 3
    assert "EPICRISIS_TIME_ZONE" in ended.json["error"]["message"]
    assert CANARY not in ended.stdout + ended.stderr


def test_pages_are_refused_beyond_loopback(epicrisis: Run) -> None:
    ended = epicrisis("serve", "--host", "0.0.0.0")
    assert ended.code == 3
    assert "not served to other machines without TLS" in " ".join(ended.stderr.split())


def test_every_command_teaches_how_it_is_used(epicrisis: Run) -> None:
    for command in ("demo", "serve", "summarize", "assemble", "context", "runs", "show", "doctor"):
        ended = epicrisis(command, "--help")
        assert (ended.code, "Usage" in ended.stdout) == (0, True)
