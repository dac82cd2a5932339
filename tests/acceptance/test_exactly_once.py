"""One trigger, one document and one Provenance: killed at every write, and triggered eight times at once."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from connectors.errors import ConnectorError
from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from connectors.limits import Limits
from fixtures.charts import canary_resources
from fixtures.servers import SekmetServer
from service.filing.attest import attest, find_attested
from service.settings import load_settings
from service.wiring import open_summarizer
from tests.acceptance.filing import hands_on
from tests.integration.connectors.conftest import IMPATIENT
from tests.integration.connectors.cut_proxy import CutProxy, When


class Real(NamedTuple):
    name: str
    base: str
    transactions: bool


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Real:
    name = request.param
    found = request.getfixturevalue(name.split()[0])
    base = found.base_url if isinstance(found, SekmetServer) else found
    return Real(name, base, name == "sekmet")


@pytest.fixture
async def proxy(real: Real) -> AsyncIterator[CutProxy]:
    async with CutProxy(real.base, transactions=real.transactions) as running:
        yield running


def load(real: Real, patient: str) -> None:
    """Put a small chart on the server, under the patient's own id."""
    for resource in canary_resources(patient):
        url = f"{real.base}/{resource['resourceType']}/{resource['id']}"
        httpx.put(url, json=resource, trust_env=False).raise_for_status()


def everything(real: Real, kind: str) -> list[dict[str, Any]]:
    found = httpx.get(f"{real.base}/{kind}", params={"_count": "1000"}, trust_env=False).json()
    return [entry["resource"] for entry in found.get("entry", [])]


def check_one_set(real: Real, patient: str) -> None:
    """One document of ours, one Provenance of exactly its first version, and each shared resource once."""
    documents = [
        d
        for d in everything(real, "DocumentReference")
        if d.get("subject", {}).get("reference") == f"Patient/{patient}" and "docStatus" in d
    ]
    assert [(d["status"], d["docStatus"]) for d in documents] == [("current", "preliminary")]
    ours = [
        p["target"][0]["reference"]
        for p in everything(real, "Provenance")
        if documents[0]["id"] in p["target"][0]["reference"]
    ]
    assert ours == [f"DocumentReference/{documents[0]['id']}/_history/{documents[0]['meta']['versionId']}"]
    shared = [*everything(real, "Device"), *everything(real, "DocumentReference")]
    named = Counter((r["resourceType"], json.dumps(r["identifier"][0])) for r in shared if "identifier" in r)
    assert set(named.values()) == {1}


async def start(home: Path, *arguments: str) -> asyncio.subprocess.Process:
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - a real process needs it
        "EPICRISIS_HOME": str(home),
        "EPICRISIS_ENGINE": "scripted",
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service.cli", *arguments,
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


CUTS: list[tuple[str, int, When]] = [
    *[("sekmet", at, when) for at in (1, 2) for when in ("before", "after")],
    ("sekmet without transactions", 1, "after"),
    ("sekmet without transactions", 4, "after"),
    ("sekmet without transactions", 5, "before"),
    ("sekmet without transactions", 5, "after"),
    ("medplum", 4, "after"),
    ("medplum", 5, "after"),
]


@pytest.mark.parametrize(("real", "at", "when"), CUTS, indirect=["real"])
async def test_a_process_killed_at_a_write_leaves_one_set_after_the_next_start(
    real: Real, proxy: CutProxy, at: int, when: When, tmp_path: Path
) -> None:
    patient = f"kill-{len(real.name)}-{at}-{when}"
    load(real, patient)
    command = ("summarize", patient, "--fhir-url", proxy.base_url, "--json")
    fresh = not any(
        d.get("type", {}).get("text") == "AI prompt template" for d in everything(real, "DocumentReference")
    )
    if not fresh and not real.transactions:
        # What all runs share is there already: found without a write, the others move up.
        at = max(1, at - (3 if real.name == "medplum" else 0))
    proxy.cut(at, when, freezes=True)
    process = await start(tmp_path / "home", *command)
    waiting = asyncio.create_task(proxy.reached.wait())
    ended = asyncio.create_task(process.wait())
    await asyncio.wait({waiting, ended}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    assert proxy.reached.is_set(), "the write was never met"
    process.kill()
    await ended
    proxy.heal()
    again = await start(tmp_path / "home", *command)
    stdout, stderr = await asyncio.wait_for(again.communicate(), 60)
    assert again.returncode == 0, stderr.decode()
    assert json.loads(stdout)["document"].startswith("DocumentReference/")
    check_one_set(real, patient)
    settings = load_settings(home=tmp_path / "home", engine="scripted", fhir_url=proxy.base_url)
    async with open_summarizer(settings, None, lambda stage, detail: None) as summarizer:
        assert (await summarizer.summarize(patient)).state.value == "unchanged"
    check_one_set(real, patient)


@pytest.mark.parametrize("real", ["sekmet", "sekmet without transactions", "medplum"], indirect=True)
async def test_eight_triggers_at_once_are_one_document(real: Real, proxy: CutProxy, tmp_path: Path) -> None:
    patient = f"eight-{len(real.name)}"
    load(real, patient)
    settings = load_settings(home=tmp_path / "home", engine="scripted", fhir_url=proxy.base_url)
    async with open_summarizer(settings, None, lambda stage, detail: None) as summarizer:
        outcomes = await asyncio.gather(*[summarizer.summarize(patient) for _ in range(8)])
    assert len({outcome.document for outcome in outcomes}) == 1
    assert Counter(outcome.state.value for outcome in outcomes) == {"filed": 1, "unchanged": 7}
    check_one_set(real, patient)


@pytest.mark.parametrize("real", ["medplum"], indirect=True)
async def test_three_processes_at_once_are_one_document(real: Real, proxy: CutProxy, tmp_path: Path) -> None:
    load(real, "three")
    command = ("summarize", "three", "--fhir-url", proxy.base_url, "--json")
    first = await start(tmp_path / "home", "runs", "--json")  # makes the key and the database
    await first.communicate()
    processes = [await start(tmp_path / "home", *command) for _ in range(3)]
    answers = await asyncio.gather(*[process.communicate() for process in processes])
    assert [p.returncode for p in processes] == [0, 0, 0], b"".join(e for _, e in answers).decode()
    found = [json.loads(stdout)["document"].partition("/_history")[0] for stdout, _ in answers]
    assert len(set(found)) == 1
    check_one_set(real, "three")


@pytest.mark.parametrize("real", ["sekmet", "sekmet without transactions", "medplum"], indirect=True)
async def test_an_attestation_cut_at_every_write_is_completed_by_the_next(
    real: Real, proxy: CutProxy, tmp_path: Path
) -> None:
    limits = Limits(read_s=30, total_s=60)
    async with (
        hands_on(real.base, tmp_path / "home") as hands,
        FhirClient(proxy.base_url, limits=limits, patience=IMPATIENT) as client,
    ):
        hands.put({"resourceType": "Practitioner", "id": "roe"})
        weak = replace(hands.desk, ehr=FhirEhr(client))
        before, number = "", 0
        while True:
            at, when = number // 2 + 1, ("before", "after")[number % 2]
            name = f"{len(real.name)}a{number}"
            draft = await hands.file(name)
            proxy.cut(at, when)  # type: ignore[arg-type]
            cut = ""
            try:
                await attest(weak, draft, by="Practitioner/roe", actor="system:test")
            except ConnectorError as error:
                cut = error.code
            proxy.heal()
            seen = [reference for reference in (before, draft) if reference]
            if cut and real.transactions is False:
                there = await find_attested(hands.desk, name.rjust(64, "0"))
                superseded = [status for status, _ in hands.states(*seen) if status == "superseded"]
                assert there is not None or not superseded, "superseded before what replaces it is there"
            final = await attest(hands.desk, draft, by="Practitioner/roe", actor="system:test")
            final = final.partition("/_history")[0]
            assert hands.states(*seen, final) == [
                *[("superseded", "final")] * bool(before),
                ("superseded", "preliminary"),
                ("current", "final"),
            ]
            assert hands.provenances(final) == ["LA"]
            assert (
                len(
                    hands.search(f"DocumentReference?identifier=urn:epicrisis:attested|{name.rjust(64, '0')}")
                )
                == 1
            )
            print(f"attest | {real.name} | write {at} | {when} | {cut or 'not reached'} | one set")
            before, number = final, number + 1
            if not cut:
                break
    assert number >= 4
