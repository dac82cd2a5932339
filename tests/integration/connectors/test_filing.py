"""Filing exactly once, on servers with and without transactions, and when answers are lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from connectors.errors import ConnectorError
from connectors.fhir.client import FhirClient
from connectors.fhir.documents import Filed, file_transaction, find_document
from connectors.fhir.ehr import FhirEhr
from tests.conftest import CANARY
from tests.integration.connectors.chart import bundle, capability_statement, resource
from tests.integration.connectors.fault_server import FaultServer, HangUp, Reply, Request

SYSTEM, KEY = "urn:epicrisis:run-key", "abc"
DOCUMENT = "DocumentReference/7/_history/1"


def _entry(name: str, kind: str, condition: str, **fields: Any) -> dict[str, Any]:
    request = {"method": "POST", "url": kind}
    if condition:
        request["ifNoneExist"] = condition
    return {
        "fullUrl": f"urn:uuid:{name}",
        "resource": {"resourceType": kind, **fields},
        "request": request,
    }


def _filing(provenance_condition: str = "target:DocumentReference.identifier=x") -> dict[str, Any]:
    identifier = [{"system": SYSTEM, "value": KEY}]
    device = [{"system": "urn:epicrisis:model", "value": "m"}]
    target = [{"reference": "urn:uuid:doc"}]
    author = [{"reference": "urn:uuid:dev"}]
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            _entry("dev", "Device", "identifier=urn:epicrisis:model|m", identifier=device),
            _entry(
                "doc", "DocumentReference", f"identifier={SYSTEM}|{KEY}", identifier=identifier, author=author
            ),
            _entry("pro", "Provenance", provenance_condition, target=target),
        ],
    }


class SmallEhr:
    """Stores what is written, as a server with conditional create would; `lose` drops that many answers."""

    def __init__(
        self, server: FaultServer, *, transaction: bool = True, conditional_create: bool = True
    ) -> None:
        self.stored: dict[str, list[dict[str, Any]]] = {
            "Device": [],
            "DocumentReference": [],
            "Provenance": [],
        }
        self.lose = 0
        self.conflicts = 0
        self.fail_at: str | None = None
        self.ignores_condition_of: str | None = None
        self.search_lags = False
        self.refuses_updates = False
        self._conditional = conditional_create
        self._server = server
        statement = capability_statement(
            *self.stored, transaction=transaction, conditional_create=conditional_create
        )
        server.on("GET", "/fhir/metadata", Reply(json=statement))
        server.on("POST", "/fhir", self.transact)
        for kind in self.stored:
            server.on("GET", f"/fhir/{kind}", self.search)
            server.on("POST", f"/fhir/{kind}", self.create)

    def transact(self, request: Request) -> Reply | HangUp:
        if self.conflicts:
            self.conflicts -= 1
            return Reply(409, json={"resourceType": "OperationOutcome", "issue": []})
        answers, body = [], request.body.decode()
        for number in range(len(request.json["entry"])):
            entry = json.loads(body)["entry"][number]
            answers.append(self._store(entry["resource"], bool(entry["request"].get("ifNoneExist"))))
            where = answers[-1]["response"]["location"].partition("/_history")[0]
            body = body.replace(f'"reference":"{entry["fullUrl"]}"', f'"reference":"{where}"')
        if self.lose:
            self.lose -= 1
            return HangUp()
        return Reply(json={"resourceType": "Bundle", "type": "transaction-response", "entry": answers})

    def create(self, request: Request) -> Reply:
        written = request.json
        if self.fail_at == written["resourceType"]:
            return Reply(403)
        is_conditional = self._conditional and "if-none-exist" in request.headers
        is_conditional = is_conditional and self.ignores_condition_of != written["resourceType"]
        response = self._store(written, is_conditional)["response"]
        return Reply(int(response["status"][:3]), headers={"Location": response["location"]})

    def search(self, request: Request) -> Reply:
        found = [] if self.search_lags else self.stored[request.path.removeprefix("/fhir/")]
        return Reply(json=bundle(*found))

    def _store(self, new: dict[str, Any], conditional: bool) -> dict[str, Any]:
        kind = new["resourceType"]
        there = self.stored[kind]
        if not (conditional and there):
            there.append({"status": "current", **new, "id": str(7 + len(there)), "meta": {"versionId": "1"}})
            self._serve(f"/fhir/{kind}/{there[-1]['id']}", there, len(there) - 1)
            return {"response": {"status": "201 Created", "location": f"{kind}/{there[-1]['id']}/_history/1"}}
        return {"response": {"status": "200 OK", "location": f"{kind}/{there[0]['id']}/_history/1"}}

    def _serve(self, path: str, there: list[dict[str, Any]], index: int) -> None:
        def update(request: Request) -> Reply:
            version = there[index]["meta"]["versionId"]
            if self.refuses_updates:
                return Reply(405)
            if request.headers.get("if-match", f'W/"{version}"') != f'W/"{version}"':
                return Reply(412)
            there[index] = {**request.json, "meta": {"versionId": str(int(version) + 1)}}
            return Reply(headers={"Location": f"{path}/_history/{int(version) + 1}"})

        self._server.on("GET", path, lambda _request: Reply(json=there[index]))
        self._server.on("PUT", path, update)

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(len(found) for found in self.stored.values())


ALL = ("Device/7/_history/1", DOCUMENT, "Provenance/7/_history/1")


async def test_a_transaction_is_posted_once(server: FaultServer, client: FhirClient) -> None:
    ehr = SmallEhr(server)
    assert await file_transaction(client, _filing()) == Filed(DOCUMENT, True, ALL)
    assert ehr.counts == (1, 1, 1)
    assert len(server.asked("POST", "/fhir")) == 1


async def test_filing_twice_says_that_it_was_there(server: FaultServer, client: FhirClient) -> None:
    ehr = SmallEhr(server)
    await file_transaction(client, _filing())
    again = await file_transaction(client, _filing())
    assert (again.document, again.created, again.references[:2]) == (DOCUMENT, False, ALL[:2])
    assert ehr.counts == (1, 1, 1)


async def test_a_lost_answer_is_looked_up_not_repeated(server: FaultServer, client: FhirClient) -> None:
    ehr = SmallEhr(server)
    ehr.lose = 1
    filed = await file_transaction(client, _filing(provenance_condition=""))
    assert (filed.document, filed.created) == (DOCUMENT, True)
    assert ehr.counts == (1, 1, 1)
    assert len(server.asked("POST", "/fhir")) == 1


async def test_a_write_whose_answer_was_lost_counts_as_ours(server: FaultServer, client: FhirClient) -> None:
    ehr = SmallEhr(server)
    ehr.lose, ehr.search_lags = 1, True
    assert await file_transaction(client, _filing()) == Filed(DOCUMENT, True, ALL)
    assert ehr.counts == (1, 1, 1)


async def test_a_provenance_is_looked_for_where_its_condition_is_ignored(
    server: FaultServer, client: FhirClient
) -> None:
    ehr = SmallEhr(server, transaction=False)
    ehr.ignores_condition_of = "Provenance"
    for _ in range(2):
        await file_transaction(client, _filing())
    assert ehr.counts == (1, 1, 1)


async def test_an_answer_that_cannot_be_read_is_looked_up_too(
    server: FaultServer, client: FhirClient
) -> None:
    ehr = SmallEhr(server)

    def too_much(request: Request) -> Reply:
        ehr.transact(request)
        return Reply(body=b"x" * 300_000)

    server.on("POST", "/fhir", too_much)
    assert (await file_transaction(client, _filing())).document == DOCUMENT
    assert ehr.counts == (1, 1, 1)
    assert len(server.asked("POST", "/fhir")) == 1


async def test_a_request_that_never_arrived_is_sent_once_more(
    server: FaultServer, client: FhirClient
) -> None:
    ehr = SmallEhr(server)
    server.on("POST", "/fhir", HangUp(), ehr.transact)
    assert (await file_transaction(client, _filing())).created
    assert ehr.counts == (1, 1, 1)
    assert len(server.asked("POST", "/fhir")) == 2


async def test_what_cannot_be_repeated_is_not(server: FaultServer, client: FhirClient) -> None:
    SmallEhr(server)
    server.on("POST", "/fhir", HangUp())
    with pytest.raises(ConnectorError) as caught:
        await file_transaction(client, _filing(provenance_condition=""))
    assert caught.value.code == "cut_off"
    assert len(server.asked("POST", "/fhir")) == 1


@pytest.mark.parametrize("lost", [HangUp(), Reply(503), Reply(json={}, delay_s=1.0), Reply(body=b"<html>")])
async def test_a_server_that_stays_silent_is_an_error(
    server: FaultServer, client: FhirClient, lost: Reply
) -> None:
    ehr = SmallEhr(server)
    server.on("POST", "/fhir", lost)
    with pytest.raises(ConnectorError):
        await file_transaction(client, _filing())
    assert ehr.counts == (0, 0, 0)
    assert len(server.asked("POST", "/fhir")) == 2


async def test_a_conflict_with_another_filing_finds_its_document(
    server: FaultServer, client: FhirClient
) -> None:
    ehr = SmallEhr(server)
    await file_transaction(client, _filing())
    ehr.conflicts = 1
    filed = await file_transaction(client, _filing())
    assert (filed.document, filed.created) == (DOCUMENT, False)


async def test_a_rejected_transaction_is_not_sent_again(server: FaultServer, client: FhirClient) -> None:
    ehr = SmallEhr(server)
    outcome = {"resourceType": "OperationOutcome", "issue": [{"code": "invalid", "diagnostics": CANARY}]}
    server.on("POST", "/fhir", Reply(422, json=outcome))
    with pytest.raises(ConnectorError) as caught:
        await file_transaction(client, _filing())
    assert (caught.value.code, caught.value.exit_code) == ("rejected", 7)
    assert CANARY not in str(caught.value)
    assert ehr.counts == (0, 0, 0)
    assert len(server.asked("POST", "/fhir")) == 1


@pytest.mark.parametrize("conditional_create", [True, False])
async def test_without_transactions_entries_are_written_one_by_one(
    server: FaultServer, client: FhirClient, conditional_create: bool
) -> None:
    ehr = SmallEhr(server, transaction=False, conditional_create=conditional_create)
    for created in (True, False):
        assert await file_transaction(client, _filing()) == Filed(DOCUMENT, created, ALL)
        assert ehr.counts == (1, 1, 1)
    assert ehr.stored["DocumentReference"][0]["author"] == [{"reference": "Device/7"}]
    assert ehr.stored["Provenance"][0]["target"] == [{"reference": DOCUMENT}]
    assert server.asked("POST", "/fhir") == []


@pytest.mark.parametrize("status", [403, 404, 405, 501])
async def test_a_server_that_only_claims_transactions(
    server: FaultServer, client: FhirClient, status: int
) -> None:
    ehr = SmallEhr(server)
    server.on("POST", "/fhir", Reply(status))
    assert (await file_transaction(client, _filing())).created
    assert ehr.counts == (1, 1, 1)


async def test_an_interrupted_filing_is_resumed(server: FaultServer, client: FhirClient) -> None:
    ehr = SmallEhr(server, transaction=False)
    ehr.fail_at = "Provenance"
    with pytest.raises(ConnectorError):
        await file_transaction(client, _filing())
    assert ehr.counts == (1, 1, 0)
    ehr.fail_at = None
    await file_transaction(client, _filing())
    assert ehr.counts == (1, 1, 1)


async def test_a_resource_at_a_derived_id_is_put_once(server: FaultServer, client: FhirClient) -> None:
    SmallEhr(server, transaction=False)
    there = resource("Provenance", "derived")
    server.on(
        "GET",
        "/fhir/Provenance/derived",
        Reply(404, json={"resourceType": "OperationOutcome"}),
        Reply(json=there),
    )
    server.on(
        "PUT", "/fhir/Provenance/derived", Reply(201, headers={"Location": "Provenance/derived/_history/1"})
    )
    filing = _filing()
    filing["entry"][2]["request"] = {"method": "PUT", "url": "Provenance/derived"}
    for _ in range(2):
        filed = await file_transaction(client, filing)
        assert filed.references[2] == "Provenance/derived/_history/1"
    puts = server.asked("PUT", "/fhir/Provenance/derived")
    assert [put.json["id"] for put in puts] == ["derived"]


async def test_eight_filings_at_once_store_one_document(server: FaultServer, client: FhirClient) -> None:
    ehr = SmallEhr(server)
    filed = await asyncio.gather(*[file_transaction(client, _filing()) for _ in range(8)])
    assert {f.document for f in filed} == {DOCUMENT}
    assert sum(f.created for f in filed) == 1
    assert ehr.counts == (1, 1, 1)


def _found(status: str = "current", doc_id: str = "7", **fields: Any) -> dict[str, Any]:
    identifier = [{"system": SYSTEM, "value": KEY}]
    return resource("DocumentReference", doc_id, status=status, identifier=identifier, **fields)


@pytest.mark.parametrize(
    ("documents", "reference"),
    [
        ([], None),
        ([_found()], DOCUMENT),
        ([_found("entered-in-error")], None),
        ([_found(docStatus="entered-in-error")], None),
        ([_found("superseded", "6"), _found(), _found("entered-in-error", "8")], DOCUMENT),
        ([resource("DocumentReference", "9", identifier=[{"system": SYSTEM, "value": "other"}])], None),
        ([{**_found(), "id": "not legal!"}], None),
    ],
)
async def test_our_document_is_found_by_its_identifier(
    server: FaultServer, client: FhirClient, documents: list[dict[str, Any]], reference: str | None
) -> None:
    server.on("GET", "/fhir/DocumentReference", Reply(json=bundle(*documents)))
    assert await find_document(client, SYSTEM, KEY) == reference
    assert server.requests[0].query == (("identifier", f"{SYSTEM}|{KEY}"),)


async def test_the_ehr_is_the_client_with_a_clock(server: FaultServer, client: FhirClient) -> None:
    SmallEhr(server)
    ehr = FhirEhr(client)
    assert (ehr.base_url, ehr.access_profile) == (server.base_url, "system:none")
    filed = await ehr.file(_filing())
    assert await ehr.find_document(SYSTEM, KEY) == filed.document == DOCUMENT


async def test_an_update_with_a_version_may_be_repeated(server: FaultServer, client: FhirClient) -> None:
    server.on(
        "PUT", "/fhir/Device/7", HangUp(), Reply(200, headers={"ETag": 'W/"2"', "Location": "Device/7"})
    )
    written = await client.update(resource("Device", "7"), if_match="1")
    assert (str(written.reference), written.created) == ("Device/7/_history/2", False)
    assert [r.headers.get("if-match") for r in server.requests] == ['W/"1"', 'W/"1"']


async def test_a_write_without_a_condition_is_not_repeated(server: FaultServer, client: FhirClient) -> None:
    server.on("POST", "/fhir/Device", HangUp())
    server.on("PUT", "/fhir/Device/7", HangUp())
    with pytest.raises(ConnectorError):
        await client.create({"resourceType": "Device"})
    with pytest.raises(ConnectorError):
        await client.update(resource("Device", "7"))
    assert len(server.requests) == 2


async def test_a_stale_version_is_a_failed_precondition(server: FaultServer, client: FhirClient) -> None:
    server.on("PUT", "/fhir/Device/7", Reply(412))
    with pytest.raises(ConnectorError) as caught:
        await client.update(resource("Device", "7"), if_match="1")
    assert (caught.value.code, caught.value.exit_code) == ("precondition_failed", 11)


async def test_someone_elses_change_stops_all_of_it_before_the_first_write(
    server: FaultServer, client: FhirClient
) -> None:
    ehr = SmallEhr(server, transaction=False)
    await file_transaction(client, _filing())
    there = dict(ehr.stored["DocumentReference"][0])
    update = {
        "fullUrl": "urn:epicrisis:update:7",
        "resource": {**there, "status": "superseded"},
        "request": {"method": "PUT", "url": "DocumentReference/7", "ifMatch": 'W/"0"'},
    }
    filing = _filing()
    filing["entry"][0]["resource"]["identifier"][0]["value"] = "another"
    filing["entry"].insert(2, update)
    server.requests.clear()
    with pytest.raises(ConnectorError) as caught:
        await file_transaction(client, filing)
    assert caught.value.code == "precondition_failed"
    assert [request.method for request in server.requests if request.method != "GET"] == []
    assert ehr.stored["DocumentReference"][0]["status"] == there.get("status")


async def test_a_server_that_lets_nobody_update_a_provenance_is_no_error(
    server: FaultServer, client: FhirClient
) -> None:
    ehr = SmallEhr(server)
    ehr.refuses_updates = True
    filed = await file_transaction(client, _filing())
    assert (filed.created, filed.pinned) == (True, False)
    assert ehr.stored["Provenance"][0]["target"] == [{"reference": "DocumentReference/7"}]
