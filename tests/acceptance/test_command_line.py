"""The command line on files and on a real server: what each command prints, and how it ends."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import httpx
import pytest

from fixtures.charts import canary_resources
from fixtures.facts import CANARY
from fixtures.servers import SekmetServer
from tests.acceptance.conftest import Run
from tests.acceptance.test_faults import documents, load


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "chart.json"
    entries = [{"resource": resource} for resource in canary_resources("1")]
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}))
    return path


def test_assemble_accounts_for_every_resource(epicrisis: Run, bundle: Path) -> None:
    found = epicrisis("assemble", str(bundle), "--json").json
    assert found["seen"] == found["kept"] + sum(found["skipped"].values()) == 8
    assert "Gout: active, since 04-Mar-2011" in {fact["text"] for fact in found["facts"]}
    assert [kind["state"] for kind in found["required"] if kind["key"] == "allergies"] == ["listed"]
    shown = epicrisis("assemble", str(bundle))
    assert "Colonoscopy: not done" in shown.stdout
    assert "8 resources seen" in shown.stderr


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
    assert "[F1]" in whole["prompt"]
    assert CANARY not in whole["prompt"]
    small = epicrisis("context", str(bundle), "--budget", str(whole["tokens"] - 20), "--json").json
    assert small["tokens"] <= whole["tokens"] - 20
    assert sum(item["count"] for item in small["left_out"]) == len(whole["facts"]) - len(small["facts"])
    refused = epicrisis("context", str(bundle), "--budget", "50", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (3, "budget")
    assert "budget of 50 tokens is too small" in refused.json["error"]["message"]


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
    assert "sign-in is not there yet" in ended.stderr


def test_every_command_teaches_how_it_is_used(epicrisis: Run) -> None:
    for command in ("demo", "serve", "summarize", "assemble", "context", "runs", "show", "doctor"):
        ended = epicrisis(command, "--help")
        assert (ended.code, "Usage" in ended.stdout) == (0, True)
