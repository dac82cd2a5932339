"""The whole connector against a real FHIR server: sekmet-fhir, open and with SMART scopes enforced."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey, RSAKey

from connectors.auth import SmartBackendAuth
from connectors.errors import ConnectorError
from connectors.fhir.capabilities import Capabilities
from connectors.fhir.client import FhirClient, identity
from connectors.fhir.ehr import FhirEhr
from connectors.fhir.patient import pull_patient
from connectors.fhir.pull import GapReason, Pull
from connectors.keys import SigningKey
from connectors.limits import Limits
from fixtures.servers import SekmetServer
from service.ports import Ehr
from tests.conftest import CANARY, missing
from tests.integration.connectors.chart import READ_AT

SYSTEM = "urn:epicrisis:run-key"
RSA = RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "sig", "alg": "RS384"}, private=True)
EC = ECKey.generate_key("P-384", {"kid": "ec-1", "use": "sig", "alg": "ES384"}, private=True)


def _smart_client(client_id: str, key: RSAKey | ECKey, scopes: str) -> dict[str, Any]:
    return {"client_id": client_id, "jwks": {"keys": [key.as_dict(private=False)]}, "scopes": scopes}


SMART = {
    "types": ["smart"],
    "token_lifetime": 30,
    "enforce_scopes": True,
    "smart_clients": [
        _smart_client("reader", RSA, "system/*.read"),
        _smart_client("patient-only", EC, "system/Patient.read"),
        _smart_client("writer", EC, "system/*.read system/*.write"),
    ],
}


def _chart() -> dict[str, Any]:
    """A patient with a few resources, as one transaction."""

    def entry(uid: str, kind: str, **fields: Any) -> dict[str, Any]:
        resource = {"resourceType": kind, **fields}
        return {
            "fullUrl": f"urn:uuid:{uid}",
            "resource": resource,
            "request": {"method": "POST", "url": kind},
        }

    patient, medication = str(uuid.uuid4()), str(uuid.uuid4())
    subject = {"reference": f"urn:uuid:{patient}"}
    drug = {"reference": f"urn:uuid:{medication}"}
    lab = {"status": "final", "code": {"text": "HbA1c"}, "subject": subject}
    order = {"status": "active", "intent": "order", "medicationReference": drug, "subject": subject}
    note = {"attachment": {"contentType": "text/plain", "url": "Binary/none"}}
    entries = [
        entry(patient, "Patient", name=[{"family": CANARY}], birthDate="1950-01-01"),
        entry(medication, "Medication", code={"text": "metformin"}),
        entry(str(uuid.uuid4()), "MedicationRequest", **order),
        entry(str(uuid.uuid4()), "DocumentReference", status="current", subject=subject, content=[note]),
        *[entry(str(uuid.uuid4()), "Observation", **lab, valueQuantity={"value": n}) for n in range(25)],
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _load(server: SekmetServer, bundle: dict[str, Any]) -> str:
    """Post a transaction and return the id of its first resource."""
    with httpx.Client(trust_env=False, timeout=60) as http:
        answer = http.post(server.base_url, json=bundle, headers={"Content-Type": "application/fhir+json"})
    assert answer.status_code == 200, answer.status_code
    location = str(answer.json()["entry"][0]["response"]["location"])
    return location.partition("/_history")[0].rsplit("/", 1)[-1]


@pytest.fixture(scope="module")
def sekmet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SekmetServer]:
    pytest.importorskip("sekmet")
    with SekmetServer(tmp_path_factory.mktemp("sekmet")) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(sekmet: SekmetServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SekmetServer]:
    """The same, with SMART Backend Services and scopes enforced; it holds one chart."""
    folder = tmp_path_factory.mktemp("guarded")
    with SekmetServer(folder) as server:
        patient_id = _load(server, _chart())
    (folder / "patient").write_text(patient_id)
    with SekmetServer(folder, settings={"server_auth": SMART}) as server:
        yield server


@pytest.fixture(scope="module")
def patient_id(sekmet: SekmetServer) -> str:
    return _load(sekmet, _chart())


@pytest.fixture
async def client(sekmet: SekmetServer) -> AsyncIterator[FhirClient]:
    async with FhirClient(sekmet.base_url) as opened:
        yield opened


def _filing(key: str, patient_id: str) -> dict[str, Any]:
    def entry(name: str, resource: dict[str, Any], condition: str) -> dict[str, Any]:
        request = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": condition}
        return {"fullUrl": f"urn:uuid:{name}", "resource": resource, "request": request}

    dev, doc, pro = (str(uuid.uuid4()) for _ in range(3))
    device = {"resourceType": "Device", "identifier": [{"system": "urn:epicrisis:model", "value": key}]}
    document = {
        "resourceType": "DocumentReference",
        "status": "current",
        "docStatus": "preliminary",
        "identifier": [{"system": SYSTEM, "value": key}],
        "subject": {"reference": f"Patient/{patient_id}"},
        "author": [{"reference": f"urn:uuid:{dev}"}],
        "content": [{"attachment": {"contentType": "text/plain", "data": "eA=="}}],
    }
    provenance = {
        "resourceType": "Provenance",
        "recorded": "2026-11-24T08:00:00Z",
        "target": [{"reference": f"urn:uuid:{doc}"}],
        "agent": [{"who": {"reference": f"urn:uuid:{dev}"}}],
    }
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            entry(dev, device, f"identifier=urn:epicrisis:model|{key}"),
            entry(doc, document, f"identifier={SYSTEM}|{key}"),
            entry(pro, provenance, f"target:DocumentReference.identifier={SYSTEM}|{key}"),
        ],
    }


async def test_capabilities_are_read(client: FhirClient) -> None:
    found = await client.capabilities()
    assert found.declared
    assert found.fhir_version.startswith("4.")
    assert found.transaction
    assert found.everything
    assert found.of("DocumentReference").conditional_create
    assert found.offers_search("Observation")


async def test_a_chart_comes_whole_by_everything_and_by_searches(
    sekmet: SekmetServer, client: FhirClient, patient_id: str
) -> None:
    whole = await pull_patient(client, patient_id, now=lambda: READ_AT)
    async with FhirClient(sekmet.base_url, amend_capabilities=Capabilities.without_everything) as second:
        searched = await pull_patient(second, patient_id, now=lambda: READ_AT)
    kinds = [sorted(f"{r['resourceType']}/{r['id']}" for r in pull.resources) for pull in (whole, searched)]
    assert kinds[0] == kinds[1]
    assert len(kinds[0]) == 29
    assert any(kind.startswith("Medication/") for kind in kinds[1])
    for pull in (whole, searched):
        reasons = {g.reason for g in pull.gaps if g.resource_type != "DocumentReference"}
        assert reasons <= {GapReason.NOT_SUPPORTED}
        assert [g.reason for g in pull.gaps if g.resource_type == "DocumentReference"] == [GapReason.FAILED]


async def test_searches_are_paged_to_the_end(client: FhirClient, patient_id: str) -> None:
    params = (("patient", f"Patient/{patient_id}"), ("_count", "7"))
    pages = [page async for page in client.pages("Observation", params)]
    assert [len(page.resources) for page in pages] == [7, 7, 7, 4]
    assert {page.total for page in pages} == {25}


async def test_an_unknown_patient_is_not_found(client: FhirClient) -> None:
    with pytest.raises(ConnectorError) as caught:
        await pull_patient(client, "nobody", now=lambda: READ_AT)
    assert (caught.value.code, caught.value.exit_code) == ("unknown_patient", 6)


async def test_a_wrong_path_says_so(sekmet: SekmetServer) -> None:
    async with FhirClient(f"{sekmet.root_url}/no/such/place") as client:
        with pytest.raises(ConnectorError) as caught:
            await pull_patient(client, "1", now=lambda: READ_AT)
    assert caught.value.code == "no_fhir_here"


async def test_filing_twice_stores_one_document(client: FhirClient, patient_id: str) -> None:
    ehr: Ehr = FhirEhr(client)
    key = uuid.uuid4().hex
    first = await ehr.file(_filing(key, patient_id))
    second = await ehr.file(_filing(key, patient_id))
    assert (first.created, second.created) == (True, False)
    assert first.document == second.document
    assert len(first.references) == 3
    assert await ehr.find_document(SYSTEM, key) == first.document
    document = await client.read(first.document)
    assert document["author"][0]["reference"].startswith("Device/")
    assert len(await client.search("Provenance", (("target", first.document.split("/_")[0]),))) == 1


async def test_eight_filings_at_once_store_one_document(client: FhirClient, patient_id: str) -> None:
    ehr = FhirEhr(client)
    key = uuid.uuid4().hex
    filed = await asyncio.gather(*[ehr.file(_filing(key, patient_id)) for _ in range(8)])
    assert len({f.document for f in filed}) == 1
    assert len(await client.search("DocumentReference", (("identifier", f"{SYSTEM}|{key}"),))) == 1
    assert len(await client.search("Provenance", (("target", filed[0].document.split("/_")[0]),))) == 1


async def test_entries_one_by_one_store_the_same(
    sekmet: SekmetServer, client: FhirClient, patient_id: str
) -> None:
    key = uuid.uuid4().hex
    async with FhirClient(sekmet.base_url, amend_capabilities=Capabilities.without_transaction) as second:
        ehr = FhirEhr(second)
        first = await ehr.file(_filing(key, patient_id))
        again = await ehr.file(_filing(key, patient_id))
    assert (first.created, again.created) == (True, False)
    assert first.references == again.references
    document = await client.read(first.document)
    assert document["author"][0]["reference"] == first.references[0].split("/_")[0]
    assert (await FhirEhr(client).file(_filing(key, patient_id))).document == first.document


async def test_a_withdrawn_document_is_not_found_again(client: FhirClient, patient_id: str) -> None:
    key = uuid.uuid4().hex
    ehr = FhirEhr(client)
    filed = await ehr.file(_filing(key, patient_id))
    document = await client.read(filed.document)
    version = document["meta"]["versionId"]
    await client.update({**document, "status": "entered-in-error"}, if_match=version)
    assert await ehr.find_document(SYSTEM, key) is None
    with pytest.raises(ConnectorError) as caught:
        await client.update(document, if_match=version)
    assert caught.value.code == "precondition_failed"


async def test_a_resource_that_was_deleted_is_gone(sekmet: SekmetServer, client: FhirClient) -> None:
    written = await client.create({"resourceType": "Patient", "name": [{"family": CANARY}]})
    async with httpx.AsyncClient(trust_env=False) as http:
        await http.delete(f"{sekmet.base_url}/Patient/{written.reference.id}")
    with pytest.raises(ConnectorError) as caught:
        await pull_patient(client, written.reference.id, now=lambda: READ_AT)
    assert caught.value.code == "gone"


def _auth(server: SekmetServer, client_id: str, key: RSAKey | ECKey, scope: str) -> SmartBackendAuth:
    return SmartBackendAuth(server.base_url, client_id, SigningKey.from_jwk(key.as_dict(private=True)), scope)


def _guarded_patient(server: SekmetServer) -> str:
    return (server.log_file.parent / "patient").read_text()


@pytest.mark.parametrize(
    ("client_id", "key", "scope"),
    [("reader", RSA, "system/*.read"), ("reader", RSA, "system/*.rs"), ("writer", EC, "system/*.read")],
)
async def test_smart_backend_services_read_a_chart(
    guarded: SekmetServer, client_id: str, key: RSAKey | ECKey, scope: str
) -> None:
    async with FhirClient(guarded.base_url, auth=_auth(guarded, client_id, key, scope)) as client:
        pull = await pull_patient(client, _guarded_patient(guarded), now=lambda: READ_AT)
    assert len(pull.resources) == 29


@pytest.mark.parametrize(
    ("client_id", "key", "scope", "is_taken"),
    [("writer", EC, "system/*.read system/*.write", True), ("reader", RSA, "system/*.read", False)],
)
async def test_a_batch_of_reads_wants_the_scope_to_write(
    guarded: SekmetServer, client_id: str, key: RSAKey | ECKey, scope: str, is_taken: bool
) -> None:
    patient = _guarded_patient(guarded)
    async with FhirClient(guarded.base_url, auth=_auth(guarded, client_id, key, scope)) as client:
        known = await FhirEhr(client).pull(patient)
        first, second = [await FhirEhr(client).pull(patient, known=known) for _ in range(2)]
    assert (first.changed, second.changed) == (0, 0)
    if is_taken:
        assert first.requests == second.requests == 2, "one batch, and an attachment that is not there"
    else:
        assert first.requests > second.requests > 20, "refused once, and then not asked again"


async def test_a_scope_that_is_missing_is_a_gap_for_each_type(guarded: SekmetServer) -> None:
    auth = _auth(guarded, "patient-only", EC, "system/Patient.read")
    no_everything = Capabilities.without_everything
    async with FhirClient(guarded.base_url, auth=auth, amend_capabilities=no_everything) as client:
        pull = await pull_patient(client, _guarded_patient(guarded), now=lambda: READ_AT)
    assert [r["resourceType"] for r in pull.resources] == ["Patient"]
    refused = {g.resource_type for g in pull.gaps if g.reason is GapReason.REFUSED}
    assert {"Observation", "MedicationRequest", "AllergyIntolerance", "Condition"} <= refused


async def test_without_a_token_or_with_a_foreign_key_nothing_is_read(guarded: SekmetServer) -> None:
    foreign = ECKey.generate_key("P-384", private=True)
    for auth, code in (
        (None, "unauthorized"),
        (_auth(guarded, "writer", foreign, "system/*.read"), "token_refused"),
        (_auth(guarded, "nobody", EC, "system/*.read"), "token_refused"),
    ):
        async with FhirClient(guarded.base_url, auth=auth) as client:
            with pytest.raises(ConnectorError) as caught:
                await pull_patient(client, _guarded_patient(guarded), now=lambda: READ_AT)
        assert (caught.value.code, caught.value.exit_code) == (code, 5)


async def test_a_reader_may_not_file_and_a_writer_may(guarded: SekmetServer) -> None:
    filing = _filing(uuid.uuid4().hex, _guarded_patient(guarded))
    async with FhirClient(guarded.base_url, auth=_auth(guarded, "reader", RSA, "system/*.read")) as client:
        with pytest.raises(ConnectorError) as caught:
            await FhirEhr(client).file(filing)
        assert caught.value.code == "forbidden"
    both = "system/*.read system/*.write"
    async with FhirClient(guarded.base_url, auth=_auth(guarded, "writer", EC, both)) as client:
        assert (await FhirEhr(client).file(filing)).created


@pytest.mark.shared
async def test_a_synthea_patient_comes_whole(
    sekmet: SekmetServer, client: FhirClient, shared_data: Path
) -> None:
    import gzip

    files = sorted((shared_data / "synthea").glob("[!0]*.json.gz"), key=lambda path: path.stat().st_size)
    loads = [*sorted((shared_data / "synthea").glob("0-*.json.gz")), files[0]]
    bundles = [json.loads(gzip.decompress(path.read_bytes())) for path in loads]
    if not bundles:
        missing("a Synthea bundle")
    ids = [_load(sekmet, bundle) for bundle in bundles]
    pull = await pull_patient(client, ids[-1], now=lambda: READ_AT)
    wanted = {str(entry["resource"]["resourceType"]) for entry in bundles[-1]["entry"]}
    came = {str(resource["resourceType"]) for resource in pull.resources}
    unsupported = {g.resource_type for g in pull.gaps if g.reason is GapReason.NOT_SUPPORTED}
    assert wanted - came <= unsupported | {"Provenance", "Claim", "ExplanationOfBenefit"}
    assert {g.reason for g in pull.gaps} <= {GapReason.NOT_SUPPORTED}


QUICK = Limits(refresh_overlap_s=0)
"""The server's clock is ours, and charts were loaded a moment ago: no need to look back five minutes."""
ORDINARY_BYTES = 20_000


@dataclass
class Refreshing:
    """One patient, read whole, whose chart is then changed."""

    server: SekmetServer
    client: FhirClient
    patient_id: str
    known: Pull
    whole_bytes: int
    http: httpx.AsyncClient

    async def refresh(self) -> Pull:
        """Refresh within the limits in bytes, and hold the outcome against a pull that is whole."""
        refreshed = await self.refresh_unbounded()
        limit = 0.02 * self.whole_bytes if len(self.known.resources) > 3_000 else ORDINARY_BYTES
        assert refreshed.bytes_received < limit
        return refreshed

    async def refresh_unbounded(self) -> Pull:
        """The same without limit: deletions cost a list of what is still there."""
        refreshed = await FhirEhr(self.client).pull(self.patient_id, known=self.known)
        assert refreshed.changed is not None, "it was read whole"
        whole = await FhirEhr(self.client).pull(self.patient_id)
        assert _identities(refreshed) == _identities(whole)
        assert refreshed.gaps == whole.gaps
        return refreshed

    def ids(self, kind: str) -> list[str]:
        return sorted(r["id"] for r in self.known.resources if r["resourceType"] == kind)

    async def create(self, kind: str, **fields: Any) -> str:
        subject = {"reference": f"Patient/{self.patient_id}"}
        written = await self.client.create({"resourceType": kind, "subject": subject, **fields})
        return written.reference.id

    async def delete(self, reference: str) -> None:
        answer = await self.http.delete(f"{self.server.base_url}/{reference}")
        assert answer.status_code in (200, 204)

    async def amend(self, reference: str, **fields: Any) -> None:
        await self.client.update({**await self.client.read(reference), **fields})


def _identities(pull: Pull) -> set[tuple[str, str, str]]:
    return {identity(resource) for resource in pull.resources}


async def _read_whole(server: SekmetServer, client: FhirClient, patient_id: str) -> Refreshing:
    await asyncio.sleep(1.1)
    known = await FhirEhr(client).pull(patient_id)
    await asyncio.sleep(1.1)
    http = httpx.AsyncClient(trust_env=False)
    return Refreshing(server, client, patient_id, Pull.load(known.dump()), known.bytes_received, http)


@pytest.fixture
async def quick(sekmet: SekmetServer) -> AsyncIterator[FhirClient]:
    async with FhirClient(sekmet.base_url, limits=QUICK) as opened:
        yield opened


@pytest.fixture
async def chart(sekmet: SekmetServer, quick: FhirClient) -> AsyncIterator[Refreshing]:
    built = await _read_whole(sekmet, quick, _load(sekmet, _chart()))
    yield built
    await built.http.aclose()


LAB = {"status": "final", "code": {"text": "HbA1c"}, "valueQuantity": {"value": 6}}


async def test_a_refresh_of_an_unchanged_chart_brings_nothing(chart: Refreshing) -> None:
    refreshed = await chart.refresh()
    assert (refreshed.changed, refreshed.dropped) == (0, 0)
    assert refreshed.whole_at == chart.known.read_at


async def test_a_refresh_brings_exactly_the_new_observation(chart: Refreshing) -> None:
    new = await chart.create("Observation", **LAB)
    refreshed = await chart.refresh()
    assert (refreshed.changed, refreshed.dropped) == (1, 0)
    assert _identities(refreshed) - _identities(chart.known) == {("Observation", new, "1")}


async def test_a_refresh_drops_what_was_deleted(chart: Refreshing) -> None:
    await chart.delete(f"Observation/{chart.ids('Observation')[3]}")
    refreshed = await chart.refresh_unbounded()
    assert (refreshed.changed, refreshed.dropped) == (0, 1)


async def test_a_refresh_notices_one_deleted_and_one_added_at_once(chart: Refreshing) -> None:
    await chart.delete(f"Observation/{chart.ids('Observation')[3]}")
    await chart.create("Observation", **LAB)
    refreshed = await chart.refresh_unbounded()
    assert (refreshed.changed, refreshed.dropped) == (1, 1)


async def test_a_refresh_holds_the_version_that_was_entered_in_error(chart: Refreshing) -> None:
    order = chart.ids("MedicationRequest")[0]
    await chart.amend(f"MedicationRequest/{order}", status="entered-in-error")
    refreshed = await chart.refresh()
    held = [r for r in refreshed.resources if r["resourceType"] == "MedicationRequest"]
    assert [(r["status"], r["meta"]["versionId"]) for r in held] == [("entered-in-error", "2")]
    assert refreshed.changed == 1


@pytest.mark.parametrize("seed", [1, 2])
async def test_twenty_changes_end_in_the_same_record_as_a_whole_read(chart: Refreshing, seed: int) -> None:
    chance = random.Random(seed)
    there = chart.ids("Observation")
    for number in range(20):
        what = chance.choice(["create", "amend", "delete", "condition", "document", "patient"])
        if what == "create":
            there.append(await chart.create("Observation", **LAB))
        elif what == "amend":
            await chart.amend(f"Observation/{chance.choice(there)}", valueQuantity={"value": number})
        elif what == "delete":
            await chart.delete(f"Observation/{there.pop(chance.randrange(len(there)))}")
        elif what == "condition":
            await chart.create("Condition", code={"text": "hypertension"})
        elif what == "document":
            note = {"attachment": {"contentType": "text/plain", "data": "bm90ZQ=="}}
            await chart.create("DocumentReference", status="current", content=[note])
        else:
            await chart.amend(f"Patient/{chart.patient_id}", gender=chance.choice(["male", "female"]))
        if number == 9:
            chart.known = await chart.refresh_unbounded()
            await asyncio.sleep(1.1)
    await chart.refresh_unbounded()


@pytest.mark.shared
@pytest.mark.parametrize("place", [-1, 20], ids=["largest", "ordinary"])
async def test_a_refresh_of_a_synthea_chart_costs_what_changed(
    sekmet: SekmetServer, quick: FhirClient, shared_data: Path, place: int
) -> None:
    import gzip

    folder = shared_data / "synthea"
    files = sorted(folder.glob("[!0]*.json.gz"), key=lambda path: path.stat().st_size)
    loads = [*sorted(folder.glob("0-*.json.gz")), files[place]]
    ids = [_load(sekmet, json.loads(gzip.decompress(path.read_bytes()))) for path in loads]
    chart = await _read_whole(sekmet, quick, ids[-1])
    assert (await chart.refresh()).changed == 0
    await chart.create("Observation", **LAB)
    assert (await chart.refresh()).changed == 1
    await chart.delete(f"Condition/{chart.ids('Condition')[0]}")
    assert (await chart.refresh_unbounded()).dropped == 1
    await chart.http.aclose()
