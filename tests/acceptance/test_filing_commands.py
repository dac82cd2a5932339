"""The commands of a document's life, typed one after the other."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from fixtures.charts import canary_bundle
from fixtures.servers import SekmetServer
from tests.acceptance.conftest import Run
from tests.conftest import CANARY


@pytest.fixture
def chart(sekmet: SekmetServer, request: pytest.FixtureRequest) -> str:
    patient: str = request.node.name.replace("_", "-")[-40:].strip("-")
    httpx.post(sekmet.base_url, json=canary_bundle(patient), timeout=30).raise_for_status()
    for number in ("roe", "poe"):
        url = f"{sekmet.base_url}/Practitioner/{number}"
        httpx.put(url, json={"resourceType": "Practitioner", "id": number}).raise_for_status()
    return patient


def states(sekmet: SekmetServer, document: str) -> tuple[str, str]:
    found: dict[str, Any] = httpx.get(f"{sekmet.base_url}/{document.partition('/_history')[0]}").json()
    return found["status"], found["docStatus"]


def test_drafted_attested_amended_recalled(
    epicrisis: Run, sekmet: SekmetServer, chart: str, tmp_path: Any
) -> None:
    url = ("--fhir-url", sekmet.base_url, "--json")
    drafted = epicrisis("summarize", chart, *url).json
    attested = epicrisis("attest", drafted["document"], "--by", "Practitioner/roe", *url).json
    assert states(sekmet, drafted["document"]) == ("superseded", "preliminary")
    assert states(sekmet, attested["document"]) == ("current", "final")
    again = epicrisis("summarize", chart, *url).json
    assert states(sekmet, attested["document"]) == ("current", "final"), again["state"]

    refused = epicrisis("attest", drafted["run_id"], "--by", "Practitioner/poe", *url)
    assert refused.code == 11
    assert "someone else" in refused.json["error"]["message"]

    (tmp_path / "words.txt").write_text("Seen with the daughter.")
    text = ("--text", str(tmp_path / "words.txt"))
    amended = epicrisis("amend", attested["document"], "--by", "Practitioner/roe", *text, *url).json
    assert states(sekmet, attested["document"]) == ("superseded", "final")
    assert states(sekmet, amended["document"]) == ("current", "amended")

    listed = epicrisis("recall", "--prompt", "history", *url).json
    plain = {
        d.partition("/_history")[0] for d in (drafted["document"], attested["document"], amended["document"])
    }
    assert {d["document"] for d in listed["documents"]} >= plain
    assert epicrisis("recall", "--prompt", "history", "--withdraw", *url).code == 11
    done = epicrisis("recall", "--prompt", "history", "--withdraw", "--reason", "Wrong template.", *url)
    assert done.code == 0, done.stderr
    assert done.json["not_withdrawn"] == []
    assert {states(sekmet, one) for one in plain} == {("entered-in-error", "entered-in-error")}
    assert CANARY not in done.stdout + done.stderr


def test_a_draft_withdrawn_by_hand_and_nothing_to_expire(
    epicrisis: Run, sekmet: SekmetServer, chart: str
) -> None:
    url = ("--fhir-url", sekmet.base_url, "--json")
    first = epicrisis("summarize", chart, *url)
    assert first.code == 0, first.stderr
    drafted = first.json
    assert epicrisis("expire", *url).json == {"drafts": []}
    done = epicrisis("withdraw", drafted["document"], "--reason", "Test.", *url)
    assert done.code == 0, done.stderr
    assert done.json["done_now"] is True
    assert states(sekmet, drafted["document"]) == ("entered-in-error", "entered-in-error")
    again = epicrisis("summarize", chart, *url)
    assert again.json["document"] != drafted["document"] or again.json["state"] == "unchanged"
    anew = epicrisis("summarize", chart, "--attempt", "2", *url).json
    assert states(sekmet, anew["document"]) == ("current", "preliminary")


def test_publishing_stopped_and_lifted(epicrisis: Run, sekmet: SekmetServer, chart: str) -> None:
    url = ("--fhir-url", sekmet.base_url, "--json")
    assert epicrisis("stop", "--json").json == {"stopped": []}
    stopped = epicrisis("stop", "--all", "--reason", "Odd texts.", "--json").json["stopped"]
    assert [(one["scope"], one["reason"]) for one in stopped] == [("all", "Odd texts.")]
    ended = epicrisis("summarize", chart, *url)
    held = ended.json
    assert (ended.code, held["state"], held["document"]) == (17, "generated", "")
    assert held["is_stopped"] is True
    assert epicrisis("show", held["run_id"]).code == 11
    assert "stopped (all, since" in held["reason"]
    said = epicrisis("summarize", chart, "--fhir-url", sekmet.base_url)
    assert said.code == 17
    assert "Publishing is stopped" in said.stdout
    assert epicrisis("stop", "--ward", "Elsewhere", "--lift", "--json").code == 3
    assert epicrisis("stop", "--all", "--lift", "--json").json == {"stopped": []}
    assert epicrisis("summarize", chart, *url).json["state"] == "filed"


def test_a_site_that_files_when_attested(epicrisis: Run, sekmet: SekmetServer, chart: str) -> None:
    url = ("--fhir-url", sekmet.base_url, "--json")
    ended = epicrisis("summarize", chart, *url, EPICRISIS_FILE_WHEN="attested")
    kept = ended.json
    assert (ended.code, kept["is_stopped"]) == (0, False)
    assert (kept["state"], kept["document"]) == ("generated", "")
    filed = epicrisis("attest", kept["run_id"], "--by", "Practitioner/roe", *url).json
    assert states(sekmet, filed["document"]) == ("current", "final")


def test_a_profile_set_by_hand_refuses_until_its_risk_is_signed(
    epicrisis: Run, sekmet: SekmetServer, chart: str
) -> None:
    url = ("--fhir-url", sekmet.base_url, "--json")
    refused = epicrisis("summarize", chart, *url, EPICRISIS_WRITE_PROFILE="minimal")
    assert refused.code == 11, refused.stderr
    assert "docStatus" in refused.json["error"]["message"]
    filed = epicrisis("summarize", chart, *url, EPICRISIS_WRITE_RISK_SIGNED_BY="Dr. Roe, 2026-11-20")
    assert filed.json["state"] == "filed"
    (document,) = [
        entry["resource"]
        for entry in httpx.get(f"{sekmet.base_url}/DocumentReference", params={"patient": chart}).json()[
            "entry"
        ]
        if entry["resource"].get("description", "").startswith("AI-GENERATED")
    ]
    assert "docStatus" not in document
