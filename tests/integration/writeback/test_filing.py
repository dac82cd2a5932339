"""Posting the transaction to a real FHIR server, once, twice and by eight clients at once."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from service.writeback.labels import WriteProfile
from service.writeback.transaction import build_transaction
from tests.conftest import missing
from tests.unit.writeback.charts import make_run

TYPES = ("Device", "DocumentReference", "Provenance")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = Path(sys.executable).with_name("sekmet")
    if not program.exists():
        missing("sekmet-fhir, the tests' FHIR server")
    folder, port = tmp_path_factory.mktemp("sekmet"), _free_port()
    base = f"http://127.0.0.1:{port}/fhir"
    settings = {
        "base_url": base,
        "host": "127.0.0.1",
        "port": port,
        "data_dir": str(folder / "data"),
        "simulator": {"enabled": False},
        "validation": {"inbound": "strict"},
        "server_auth": {"types": ["none"]},
    }
    (folder / "settings.yaml").write_text(json.dumps(settings))  # JSON is YAML
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [str(program), "serve", "-c", str(folder / "settings.yaml")], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_up(base, process)
        httpx.put(f"{base}/Patient/77", json={"resourceType": "Patient", "id": "77"}).raise_for_status()
        yield base
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_up(base: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, "the FHIR server stopped"
        try:
            httpx.get(f"{base}/metadata", timeout=5).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the FHIR server did not start")


def post(server: str, bundle: dict[str, Any]) -> list[str]:
    answer = httpx.post(server, json=bundle, timeout=60)
    assert answer.status_code == 200, answer.text
    return [entry["response"]["location"] for entry in answer.json()["entry"]]


def search(server: str, query: str) -> list[dict[str, Any]]:
    found = httpx.get(f"{server}/{query}", timeout=30).raise_for_status().json()
    return [entry["resource"] for entry in found.get("entry", [])]


def stored(server: str, key: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    condition = f"identifier=urn:epicrisis:run-key|{key}"
    documents = search(server, f"DocumentReference?{condition}")
    return documents, search(server, f"Provenance?target:DocumentReference.{condition}")


@pytest.mark.parametrize("way", ["conditional", "put"])
def test_posting_twice_and_eight_times_at_once_stores_one_of_each(
    server: str, way: Literal["conditional", "put"]
) -> None:
    key = ("c" if way == "conditional" else "d") * 64
    bundle = build_transaction(
        make_run(key=key), software_version="0.1.0", profile=WriteProfile(provenance=way)
    )
    first = post(server, bundle)
    with ThreadPoolExecutor(8) as clients:
        repeats = list(clients.map(lambda _: post(server, bundle), range(8)))
    documents, provenances = stored(server, key)
    assert (len(documents), len(provenances)) == (1, 1)
    assert documents[0]["meta"]["versionId"] == "1"
    assert len(search(server, f"Device?identifier=urn:epicrisis:model|{'f' * 64}")) == 1
    if way == "conditional":
        assert all(repeat == first for repeat in repeats)
        assert provenances[0]["meta"]["versionId"] == "1"


def test_a_first_race_stores_one_of_each(server: str) -> None:
    bundle = build_transaction(make_run(key="e" * 64), software_version="0.1.0")
    with ThreadPoolExecutor(8) as clients:
        locations = list(clients.map(lambda _: post(server, bundle), range(8)))
    assert len({tuple(location) for location in locations}) == 1
    documents, provenances = stored(server, "e" * 64)
    assert (len(documents), len(provenances)) == (1, 1)


def test_what_the_server_keeps_still_carries_its_label_and_can_be_recalled(server: str) -> None:
    key = "9" * 64
    device, prompt, card, document, provenance = post(
        server, build_transaction(make_run(key=key), software_version="0.1.0")
    )
    kept = httpx.get(document).json()
    assert kept["docStatus"] == "preliminary"
    assert {label["code"] for label in kept["meta"]["security"]} == {"AIAST", "NOPAT", "N"}
    device_id = device.partition("/fhir/")[2].partition("/_history")[0]
    assert kept["author"] == [{"reference": device_id}]
    provenance_id = httpx.get(provenance).json()["id"]
    prompt_id, card_id = (where.partition("/fhir/")[2].partition("/_history")[0] for where in (prompt, card))
    assert httpx.get(card).json()["subject"] == {"reference": device_id}
    for query in (
        f"agent={device_id}",
        f"entity={prompt_id}",
        f"entity={card_id}",
        "entity=Condition/1",
        "entity=AllergyIntolerance/3",
    ):
        assert provenance_id in {found["id"] for found in search(server, f"Provenance?{query}&_count=200")}
    document_id = kept["id"]
    for query in ("_security=AIAST", "related=Observation/a1c"):
        assert document_id in {
            found["id"] for found in search(server, f"DocumentReference?{query}&_count=200")
        }
