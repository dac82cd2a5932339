"""Servers that refuse what Oracle and Epic refuse: with the right profile a draft is filed, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from connectors.fhir.client import FhirClient
from connectors.fhir.write_offer import read_offer, validate_bundle
from service.errors import FilingError
from service.filing.attest import attest
from service.filing.withdraw import withdraw
from service.ports import RunState
from service.writeback.profiles import choose_profile, profile_named
from service.writeback.transaction import build_transaction
from tests.acceptance.filing import ACTOR, Hands, hands_on
from tests.integration.connectors.fault_server import FaultServer, Reply, Request
from tests.unit.writeback.charts import make_run

ENCOUNTER = {"encounter": "Encounter/9"}


class Vendor(FaultServer):
    """Takes patients and DocumentReferences alone, one by one, as a large vendor's server does."""

    def __init__(self, software: str, media_types: set[str], unknown: str) -> None:
        super().__init__()
        self.documents: dict[str, dict[str, Any]] = {}
        self._software, self._media_types = software, media_types
        self._unknown = unknown
        """`ignored` or `refused`"""

    def answer(self, request: Request) -> Reply:
        kind, _, number = request.path.removeprefix("/fhir/").partition("/")
        if request.path == "/fhir/metadata":
            return Reply(json=self._statement())
        if kind == "Patient":
            return Reply(json={**request.json, "id": "77"}) if request.method == "PUT" else Reply(404)
        if kind != "DocumentReference":
            return Reply(404, json={"resourceType": "OperationOutcome"})
        if request.method == "POST":
            return self._create(request.json)
        if request.method == "PUT":
            return self._store(number, request.json)
        return self._found(number) if number else self._search(dict(request.query))

    def _statement(self) -> dict[str, Any]:
        interactions = [{"code": code} for code in ("create", "update", "read", "search-type")]
        resource = {"type": "DocumentReference", "interaction": interactions}
        rest = {"mode": "server", "resource": [resource]}
        software = {"name": self._software}
        statement = {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "software": software}
        return {**statement, "rest": [rest]}

    def _create(self, document: dict[str, Any]) -> Reply:
        kinds = {c["attachment"]["contentType"].partition(";")[0] for c in document["content"]}
        authors = [a["reference"] for a in document.get("author", [])]
        if not document.get("context", {}).get("encounter") or not kinds <= self._media_types or authors:
            return Reply(422, json={"resourceType": "OperationOutcome", "issue": [{"code": "business-rule"}]})
        if self._unknown == "refused" and {"docStatus", "relatesTo", "authenticator"} & set(document):
            return Reply(422, json={"resourceType": "OperationOutcome", "issue": [{"code": "invalid"}]})
        return self._store(str(len(self.documents) + 1), document)

    def _store(self, number: str, document: dict[str, Any]) -> Reply:
        before = self.documents.get(number)
        version = str(int(before["meta"]["versionId"]) + 1) if before else "1"
        self.documents[number] = {**document, "id": number, "meta": {"versionId": version}}
        location = f"{self.base_url}/DocumentReference/{number}/_history/{version}"
        return Reply(201 if before is None else 200, headers={"Location": location})

    def _found(self, number: str) -> Reply:
        return Reply(json=self.documents[number]) if number in self.documents else Reply(404)

    def _search(self, query: dict[str, str]) -> Reply:
        wanted = query.get("identifier", "")
        found = [
            document
            for document in self.documents.values()
            if f"{document['identifier'][0]['system']}|{document['identifier'][0]['value']}" == wanted
        ]
        entries = [{"resource": document} for document in found]
        return Reply(json={"resourceType": "Bundle", "type": "searchset", "entry": entries})


VENDORS = {
    "oracle-millennium": ("Oracle Health Millennium", {"text/plain", "application/xhtml+xml"}, "ignored"),
    "epic": ("Epic", {"text/plain"}, "refused"),
}


@pytest.fixture(params=VENDORS)
async def vendor(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, Vendor]]:
    async with Vendor(*VENDORS[request.param]) as running:
        yield request.param, running


async def test_it_is_known_by_its_statement_and_nothing_is_filed_until_the_risk_is_signed(
    vendor: tuple[str, Vendor], tmp_path: Path
) -> None:
    name, server = vendor
    async with FhirClient(server.base_url) as client:
        offer = await read_offer(client)
    assert choose_profile(offer.software, offer.guides, offer.creates) == name
    async with hands_on(server.base_url, tmp_path / "home", profile=profile_named(name)) as hands:
        with pytest.raises(FilingError, match="finished document"):
            await hands.publish(hands.draft("1", inputs=ENCOUNTER))
    assert server.documents == {}


async def test_with_a_signed_risk_one_document_is_filed_and_what_was_left_out_is_kept(
    vendor: tuple[str, Vendor], tmp_path: Path
) -> None:
    name, server = vendor
    profile = profile_named(name, risk_signed_by="Dr. Roe")
    async with hands_on(server.base_url, tmp_path / "home", profile=profile) as hands:
        run = hands.draft("1", inputs=ENCOUNTER)
        assert (await hands.publish(run)).state is RunState.FILED
        assert (await hands.publish(run)).state is RunState.UNCHANGED
        assert len(server.documents) == 1
        row = hands.store.get_document(server.base_url, "DocumentReference/1")
        assert row is not None
        assert {"Device", "Provenance", "attachment application/json"} <= set(row.dropped)
        await check_life(name, hands, server)


async def check_life(name: str, hands: Hands, server: Vendor) -> None:
    if name == "oracle-millennium":
        final = await attest(hands.desk, "DocumentReference/1", by="Practitioner/7", actor=ACTOR)
        assert final == "DocumentReference/2/_history/1"
        assert [d["status"] for d in server.documents.values()] == ["superseded", "current"]
        assert server.documents["2"]["authenticator"] == {"reference": "Practitioner/7"}
    await withdraw(hands.desk, "DocumentReference/1", reason="x", by="Epicrisis", actor=ACTOR)
    assert server.documents["1"]["status"] == "entered-in-error"


async def test_a_dry_run_check_names_elements_and_codes_and_nothing_else() -> None:
    outcome = {
        "resourceType": "OperationOutcome",
        "issue": [
            {"severity": "error", "code": "required", "expression": ["Device.type", "Ada's words"]},
            {"severity": "warning", "code": "value", "expression": ["Device.status"]},
        ],
    }
    bundle = build_transaction(make_run(), software_version="0")
    fine = {"resourceType": "OperationOutcome", "issue": []}
    async with FaultServer() as server, FhirClient(server.base_url) as client:
        assert await validate_bundle(client, bundle) is None
        server.on("POST", "/fhir/Device/$validate", Reply(json=outcome))
        for kind in ("DocumentReference", "Provenance"):
            server.on("POST", f"/fhir/{kind}/$validate", Reply(json=fine))
        (complaint,) = await validate_bundle(client, bundle) or []
        assert complaint.resource_type == "Device"
        assert (complaint.codes, complaint.paths) == (("required",), ("Device.type",))
        assert all(r.path.endswith("$validate") for r in server.requests)
