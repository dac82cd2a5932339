"""The labels of the sources stand on what is filed on a real server; what was left out is told by none."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from fixtures.charts import SCT, canary_bundle, concept
from fixtures.servers import SekmetServer
from service.engine.scripted import ScriptedEngine
from service.filing.attest import amend, attest
from service.filing.desk import Desk, Manner
from service.filing.withdraw import withdraw
from service.ports import RunState
from service.proof.check import Prover
from service.record.assemble import Policy
from service.settings import load_settings
from service.signing import Signer
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog
from service.summarize import Outcome, Summarizer
from service.wiring import open_store, utc_now
from tests.integration.writeback.test_validators import Validate, validate

__all__ = ["validate"]

CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
R, V = ({"system": CONFIDENTIALITY, "code": code} for code in "RV")
SUD = {"system": ACT, "code": "SUD"}
PART2 = {"system": ACT, "code": "42CFRPart2"}
SITE = {"system": "urn:site:labels", "code": "wing-3"}
SECRET = "Secretdisease"
DR_ROE = "Practitioner/roe"
_OURS = ("AIAST", "NOPAT")


def load(server: SekmetServer, patient: str, *labels: Sequence[dict[str, str]]) -> None:
    """The canary's chart, and one more problem for each list of labels."""
    bundle = canary_bundle(patient)
    gout = bundle["entry"][1]
    for number, security in enumerate(labels):
        entry = copy.deepcopy(gout)
        ident = f"{patient}-labelled-{number}"
        entry["resource"] |= {
            "id": ident,
            "meta": {"security": list(security)},
            "code": concept(SCT, f"9000{number}", f"{SECRET} {number}"),
        }
        entry["request"]["url"] = f"Condition/{ident}"
        bundle["entry"].append(entry)
    roe = {"resourceType": "Practitioner", "id": "roe"}
    bundle["entry"].append({"resource": roe, "request": {"method": "PUT", "url": DR_ROE}})
    httpx.post(server.base_url, json=bundle, timeout=30).raise_for_status()


@dataclass
class Site:
    """One installation before a real server."""

    client: FhirClient
    store: SqlStore
    audit: SqlAuditLog
    signer: Signer

    async def run(self, patient: str, policy: Policy | None = None) -> Outcome:
        summarizer = Summarizer(
            ehr=FhirEhr(self.client), engine=ScriptedEngine(), store=self.store, audit=self.audit,
            clock=utc_now, software_version="0", policy=policy, manner=self._manner,
        )  # fmt: skip
        return await summarizer.summarize(patient)

    async def _manner(self) -> Manner:
        return Manner("0", sign=self.signer.sign)

    async def desk(self) -> Desk:
        ehr = FhirEhr(self.client)
        return Desk(ehr, self.store, self.store, self.audit, utc_now, await self._manner())

    def get(self, reference: str) -> dict[str, Any]:
        """A plain GET."""
        found: dict[str, Any] = httpx.get(f"{self.client.base_url}/{reference}", timeout=30).json()
        return found

    def found(self, query: str) -> list[dict[str, Any]]:
        return [entry["resource"] for entry in self.get(query).get("entry", [])]


@pytest.fixture
async def site(sekmet: SekmetServer, tmp_path: Path) -> AsyncIterator[Site]:
    store, audit = open_store(load_settings(home=tmp_path / "home"))
    async with FhirClient(sekmet.base_url) as client:
        yield Site(client, store, audit, Signer.from_file(tmp_path / "home" / "signing"))
    store.close()
    audit.close()


def codes(one: dict[str, Any]) -> list[str]:
    return [label["code"] for label in one["meta"]["security"]]


def inner(document: dict[str, Any]) -> dict[str, Any]:
    found = [c["attachment"] for c in document["content"]]
    (data,) = (a["data"] for a in found if a["contentType"] == "application/fhir+json")
    decoded = json.loads(base64.b64decode(data))
    assert isinstance(decoded, dict)
    return decoded


def all_text(document: dict[str, Any]) -> str:
    bodies = [base64.b64decode(c["attachment"]["data"]).decode() for c in document["content"]]
    return "\n".join([json.dumps(document), *bodies])


async def test_without_restricted_sources_a_document_is_ordinary_and_tells_no_kind(
    sekmet: SekmetServer, site: Site
) -> None:
    load(sekmet, "plain", [SUD, R], [V], [SITE])
    done = await site.run("plain")
    assert (done.state, done.skipped) == (RunState.FILED, 3)
    document = site.get(done.document)
    assert codes(document) == ["AIAST", "NOPAT", "N"]
    assert "securityLabel" not in document
    text = all_text(document)
    assert "Some entries are not open to this summary." in text
    for kind in (SECRET, "SUD", "42CFR", "wing-3", "labelled"):
        assert kind not in text
    run = site.store.find_latest("Patient/plain", "history")
    assert run is not None
    assert run.summary.restricted
    assert run.summary.labels == ()


@pytest.mark.node
@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("restricted", [[R]], ["R"]),
        ("part2", [[PART2, SUD], [R]], ["42CFRPart2", "SUD", "R"]),
        ("very", [[SUD, R], [V]], ["SUD", "V"]),
        ("unknown", [[SITE]], ["wing-3", "R"]),
    ],
)
async def test_a_run_that_may_read_them_files_the_highest_label_in_every_place(
    sekmet: SekmetServer,
    site: Site,
    validate: Validate,
    name: str,
    labels: list[list[dict[str, str]]],
    expected: list[str],
) -> None:
    load(sekmet, name, *labels)
    done = await site.run(name, Policy(keep_restricted=True))
    document = site.get(done.document)
    assert f"{SECRET} 0" in all_text(document)
    carried = ["AIAST", "NOPAT", *expected]
    (provenance,) = site.found(f"Provenance?target=DocumentReference/{document['id']}")
    within = inner(document)
    composition = within["entry"][0]["resource"]
    for one in (document, provenance, within, composition):
        assert codes(one) == carried
    assert composition["confidentiality"] == expected[-1]
    assert [c["coding"][0]["code"] for c in document["securityLabel"]] == expected
    for code in expected:
        found = site.found(f"DocumentReference?patient=Patient/{name}&_security={code}")
        assert [one["id"] for one in found] == [document["id"]]
    ended = validate([document, provenance, within])
    assert ended.returncode == 0, ended.stdout


async def test_the_label_stays_through_attestation_amendment_and_withdrawal(
    sekmet: SekmetServer, site: Site
) -> None:
    load(sekmet, "lasting", [SUD, R])
    drafted = await site.run("lasting", Policy(keep_restricted=True))
    desk = await site.desk()
    attested = await attest(desk, drafted.document, by=DR_ROE, actor="user:roe")
    amended = await amend(desk, attested, by=DR_ROE, text="Seen.", actor="user:roe")
    for reference in (attested, amended):
        document = site.get(reference)
        assert codes(document) == ["AIAST", "NOPAT", "SUD", "R"]
        for provenance in site.found(f"Provenance?target=DocumentReference/{document['id']}"):
            assert codes(provenance) == ["AIAST", "NOPAT", "SUD", "R"]
    assert inner(site.get(attested))["entry"][0]["resource"]["confidentiality"] == "R"
    gone = await withdraw(desk, amended, reason="Wrong.", by=DR_ROE, actor="user:roe")
    assert codes(site.get(gone.document)) == ["AIAST", "NOPAT", "SUD", "R"]


async def test_a_restricted_run_is_another_run_than_the_systems_and_neither_finds_the_others_document(
    sekmet: SekmetServer, site: Site
) -> None:
    load(sekmet, "both", [R])
    ordinary = await site.run("both")
    restricted = await site.run("both", Policy(keep_restricted=True))
    assert ordinary.document != restricted.document
    assert codes(site.get(ordinary.document))[-1] == "N"
    assert codes(site.get(restricted.document))[-1] == "R"
    assert (await site.run("both")).state is RunState.UNCHANGED


async def test_a_labelled_patient_labels_every_document_that_bears_its_name_and_is_another_run(
    sekmet: SekmetServer, site: Site
) -> None:
    load(sekmet, "celebrity")
    before = await site.run("celebrity")
    await site.client.update(site.get("Patient/celebrity") | {"meta": {"security": [SUD, R]}})
    after = await site.run("celebrity")
    assert codes(site.get(before.document)) == ["AIAST", "NOPAT", "N"]
    assert codes(site.get(after.document)) == ["AIAST", "NOPAT", "SUD", "R"]


async def test_verify_checks_a_restricted_document_and_names_a_label_that_was_taken_off(
    sekmet: SekmetServer, site: Site
) -> None:
    load(sekmet, "proof", [SUD, R])
    done = await site.run("proof", Policy(keep_restricted=True))
    document = site.get(done.document)
    prover = Prover(site.client, site.signer.jwks(), base_url=site.client.base_url)
    report = await prover.check(document)
    assert report.findings == ()
    lowered = copy.deepcopy(document)
    lowered["meta"]["security"] = [label for label in document["meta"]["security"] if label["code"] in _OURS]
    found = (await prover.check(lowered)).findings
    assert [(f.code, f.detail) for f in found] == [("label_missing", "SUD"), ("label_missing", "R")]
    raised = copy.deepcopy(document)
    raised["meta"]["security"][-1]["code"] = "V"
    assert (await prover.check(raised)).findings == ()
