"""The demonstration, whole: real FHIR server, real vLLM, small model; then once more on the same data."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.fhir.ehr import FhirEhr
from fixtures.engines import model_cache
from fixtures.servers import SekmetServer
from service.record.assemble import assemble_record
from service.record.facts import PatientRecord
from service.settings import Settings, load_settings
from service.wiring import fhir_client, open_store, utc_now
from service.wiring.replay import open_replaying
from tests.contract.context.published import required_of, told_in

pytestmark = pytest.mark.engine

KEYS = {
    "patient", "resources", "facts", "skipped", "prompt_tokens", "claims_published", "claims_dropped",
    "document", "seconds",
}  # fmt: skip
DEMO_TIMEOUT_S = 900


@dataclass(frozen=True)
class Demonstration:
    """What two runs said, and the EHR they left."""

    first: dict[str, Any]
    second: dict[str, Any]
    home: Path
    client: httpx.Client

    def get(self, reference: str) -> Any:
        answer = self.client.get(reference)
        answer.raise_for_status()
        return answer.json()

    def attachment(self, patient: dict[str, Any], content_type: str) -> bytes:
        document = self.get(patient["document"])
        (found,) = [
            content["attachment"]
            for content in document["content"]
            if content["attachment"]["contentType"].startswith(content_type)
        ]
        data = base64.b64decode(found["data"])
        assert found["size"] == len(data)
        assert base64.b64decode(found["hash"]) == hashlib.sha1(data).digest()
        return data


def run_demo(home: Path) -> dict[str, Any]:
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - a real process needs it
        "HOME": os.environ.get("HOME", "/"),  # noqa: TID251
        "EPICRISIS_HOME": str(home),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "service.cli", "demo", "--no-serve", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEMO_TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demonstration]:
    home = tmp_path_factory.mktemp("demo")
    model_cache().mkdir(parents=True, exist_ok=True)
    (home / "models").symlink_to(model_cache())
    first, second = run_demo(home), run_demo(home)
    port = int(first["fhir_url"].split(":")[2].split("/")[0])
    with (
        SekmetServer(home / "demo" / "ehr", port=port) as server,
        httpx.Client(base_url=server.base_url + "/") as client,
    ):
        yield Demonstration(first, second, home, client)


def test_six_patients_are_summarised_and_every_document_is_readable(demonstration: Demonstration) -> None:
    patients = demonstration.first["patients"]
    assert len(patients) == 6
    assert demonstration.first["new_documents"] == 6
    for patient in patients:
        assert set(patient) >= KEYS
        assert patient["resources"] > 500
        assert patient["facts"] > 0
        assert patient["prompt_tokens"] > 0
        document = demonstration.get(patient["document"])
        assert document["docStatus"] == "preliminary"
        assert document["subject"]["reference"] == patient["patient"]
        assert {label["code"] for label in document["meta"]["security"]} >= {"AIAST", "NOPAT"}


def test_the_model_really_publishes_and_is_really_refused(demonstration: Demonstration) -> None:
    patients = demonstration.first["patients"]
    assert sum(patient["claims_from_model"] for patient in patients) >= 60
    assert sum(patient["claims_dropped"] for patient in patients) > 0


async def read_chart(settings: Settings, base_url: str, patient: str) -> PatientRecord:
    client = fhir_client(settings, base_url)
    try:
        ehr = FhirEhr(client, now=utc_now)
        pull = await ehr.pull(patient.removeprefix("Patient/"), lambda what, n: None, None)
        return assemble_record(pull.resources, pull.patient_id, binaries=pull.binaries, base_url=ehr.base_url)
    finally:
        await client.aclose()


async def test_every_required_fact_of_every_chart_is_in_what_was_published(
    demonstration: Demonstration,
) -> None:
    settings = load_settings(home=demonstration.home)
    store, audit = open_store(settings)
    audit.close()
    told = 0
    for patient in demonstration.first["patients"]:
        record = await read_chart(
            settings, str(demonstration.client.base_url).rstrip("/"), patient["patient"]
        )
        run = store.find_latest(patient["patient"], "history")
        assert run is not None
        required = required_of(record)
        assert [fact.id for fact in required if not told_in(run.summary, fact)] == []
        told += len(required)
    store.close()
    assert told > 60


def test_a_second_run_writes_no_new_document_and_says_so(demonstration: Demonstration) -> None:
    first, second = demonstration.first, demonstration.second
    assert second["new_documents"] == 0
    assert "0 new documents were written" in second["message"]
    assert [p["document"] for p in second["patients"]] == [p["document"] for p in first["patients"]]
    assert {p["state"] for p in second["patients"]} == {"unchanged"}
    for patient in first["patients"]:
        found = demonstration.client.get(
            "DocumentReference", params={"patient": patient["patient"], "_security": "AIAST"}
        ).json()
        assert len(found["entry"]) == 1


async def test_every_run_replays_with_the_same_prompts_and_verdicts(demonstration: Demonstration) -> None:
    settings = load_settings(home=demonstration.home)
    async with open_replaying(settings, generate=False, tell=lambda stage, detail: None) as replaying:
        rows, _ = replaying.replayer.store.rows()
        found = [await replaying.replay(row.run_id, "system:demo") for row in rows]
    assert len(found) == 6
    for one in found:
        assert one is not None
        assert (one.reason, one.versions) == ("", ())
        assert len(one.prompts) > 1
        assert all(prompt.identical for prompt in one.prompts)
        assert one.verdicts is not None
        assert (one.verdicts.changed, one.verdicts.rest) == ((), ())


def test_every_published_citation_names_a_version_that_exists_on_the_server(
    demonstration: Demonstration,
) -> None:
    checked = 0
    for patient in demonstration.first["patients"]:
        form = json.loads(demonstration.attachment(patient, "application/json"))
        numbers = {
            number for section in form["sections"] for s in section["statements"] for number in s["sources"]
        }
        cited = {
            source["reference"]: source["version"]
            for source in form["sources"]
            if source["number"] in numbers
        }
        for reference, version in cited.items():
            assert demonstration.get(f"{reference}/_history/{version}")["meta"]["versionId"] == version
            checked += 1
    assert checked > 60


def test_the_text_is_framed_by_the_banner_and_names_the_patient(demonstration: Demonstration) -> None:
    for patient in demonstration.first["patients"]:
        text = demonstration.attachment(patient, "text/plain").decode()
        lines = text.strip().splitlines()
        assert "AI-GENERATED DRAFT, NOT REVIEWED" in lines[0]
        assert "AI-GENERATED DRAFT, NOT REVIEWED" in lines[-1]
        family = demonstration.get(patient["patient"])["name"][0]["family"]
        assert family.casefold() in text.casefold()


def test_nothing_of_a_patient_is_in_the_engines_log(demonstration: Demonstration) -> None:
    families = {demonstration.get(p["patient"])["name"][0]["family"] for p in demonstration.first["patients"]}
    logs = list((demonstration.home / "engine").rglob("*.log*"))
    assert logs
    for log in logs:
        text = log.read_text(errors="replace")
        assert not [family for family in families if family in text]
        assert "Medication review due" not in text


def test_nothing_is_left_running(demonstration: Demonstration) -> None:
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    mine = [line for line in left.splitlines() if str(demonstration.home) in line]
    assert not [line for line in mine if "vllm" in line]
