"""One request that asks whether anything changed: it never says so of what it did not see."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connectors.errors import ConnectorError
from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from connectors.fhir.glance import glance_at
from connectors.fhir.pull import GapReason, Pull
from connectors.fhir.stamp import Held
from connectors.limits import Limits
from tests.integration.connectors.chart import PATIENT, bundle, outcome_entry
from tests.integration.connectors.conftest import IMPATIENT
from tests.integration.connectors.fault_server import FaultServer, HangUp, Reply, Request
from tests.integration.connectors.hospital import (
    LATER,
    LOADED,
    NOT_FOUND,
    READ,
    TYPES,
    Hospital,
    held,
)

QUICK = Limits(read_s=0.3)
SINCE = READ - timedelta(minutes=5)
ALL = frozenset({"Patient", *TYPES})


@pytest.fixture
def hospital(server: FaultServer) -> Hospital:
    built = Hospital(server, batches=True)
    built.open()
    for number in range(3):
        built.put("Observation", f"o{number}", LOADED, status="final")
    built.put("Condition", "c1", LOADED)
    built.put("AllergyIntolerance", "a1", LOADED)
    return built


@pytest.fixture
async def client(server: FaultServer) -> AsyncIterator[FhirClient]:
    async with FhirClient(server.base_url, limits=QUICK, patience=IMPATIENT) as opened:
        yield opened


@pytest.fixture
def ehr(client: FhirClient) -> FhirEhr:
    return _ehr(client)


def _ehr(client: FhirClient) -> FhirEhr:
    clock = iter([READ, *[LATER + timedelta(minutes=n) for n in range(500)]])
    return FhirEhr(client, now=lambda: next(clock))


def _batches(hospital: Hospital) -> list[Request]:
    return hospital.server.asked("POST", "/fhir")


@contextmanager
def _counted(hospital: Hospital) -> Iterator[list[Request]]:
    """Collect the requests of this block."""
    before, asked = len(hospital.server.requests), list[Request]()
    yield asked
    asked += hospital.server.requests[before:]


async def _unchanged(client: FhirClient, known: Pull) -> frozenset[str]:
    return (await glance_at(client, known, Held.of(known.resources), SINCE)).unchanged


async def test_an_unchanged_chart_costs_one_request(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    with _counted(hospital) as asked:
        refreshed = await ehr.pull("p1", known=known)
    assert [(r.method, r.path) for r in asked] == [("POST", "/fhir")]
    assert asked[0].headers["accept"] == asked[0].headers["content-type"] == "application/fhir+json"
    assert "prefer" not in asked[0].headers, "with return=minimal some servers leave the results out"
    assert (refreshed.requests, refreshed.changed, refreshed.dropped) == (1, 0, 0)
    assert (refreshed.read_at, refreshed.seen_until, refreshed.whole_at) == (LATER, LATER, READ)
    assert list(refreshed.resources) == list(known.resources)
    assert (refreshed.gaps, refreshed.broken) == (known.gaps, known.broken)
    assert refreshed.bytes_received > 0


async def test_a_new_client_that_knows_a_pull_asks_once(server: FaultServer, hospital: Hospital) -> None:
    async def pull(known: Pull | None) -> Pull:
        async with FhirClient(server.base_url, patience=IMPATIENT) as client:
            return await FhirEhr(client, now=lambda: LATER if known else READ).pull("p1", known=known)

    refreshed = await pull(Pull.load((await pull(None)).dump()))
    assert (refreshed.requests, refreshed.changed) == (1, 0)


async def test_each_type_is_asked_for_what_changed_and_counted(
    client: FhirClient, ehr: FhirEhr, hospital: Hospital
) -> None:
    known = await ehr.pull("p1")
    assert await _unchanged(client, known) == ALL
    entries = [entry["request"] for entry in _batches(hospital)[0].json["entry"]]
    assert {entry["method"] for entry in entries} == {"GET"}
    urls = [entry["url"] for entry in entries]
    assert urls[0] == "Observation?patient=Patient/p1&_lastUpdated=ge2999-01-01T00:00:00Z&_count=1"
    assert entries[1] == {"method": "GET", "url": "Patient/p1", "ifNoneMatch": 'W/"1"'}
    changes = "_lastUpdated=ge2026-11-24T07:55:00Z&_count=500"
    for kind in ("Observation", "Condition", "AllergyIntolerance"):
        assert f"{kind}?patient=Patient/p1&{changes}" in urls
        assert f"{kind}?patient=Patient/p1&_summary=count" in urls
    assert "Encounter?patient=Patient/p1&_count=1" in urls, "vital: a count would not say what was hidden"
    for kind in ("DocumentReference", "CarePlan"):
        assert f"{kind}?patient=Patient/p1&_summary=count" in urls
    assert len(urls) == 2 + 2 * 3 + 1 + 2


async def test_changes_that_come_along_are_not_asked_for_again(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    hospital.put("Observation", "o9")
    hospital.put("Condition", "c1", verificationStatus={"text": "entered in error"})
    refreshed = await ehr.pull("p1", known=known)
    assert (refreshed.requests, refreshed.changed, held(refreshed)) == (1, 2, hospital.held())
    assert list(refreshed.resources)[-1] == hospital.chart["Observation", "o9"]
    hospital.put("CarePlan", "cp1", LATER + timedelta(hours=1))
    with _counted(hospital) as asked:
        refreshed = await ehr.pull("p1", known=refreshed)
    assert (refreshed.changed, held(refreshed)) == (1, hospital.held())
    assert {r.path for r in asked} == {"/fhir", "/fhir/CarePlan"}, "of this type nothing was known"
    assert "ge2999" not in str([r.json for r in asked if r.body]), "proved before"


async def test_a_deletion_costs_the_list_of_its_type(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    hospital.put("Observation", "o9")
    hospital.delete("Observation", "o1")
    with _counted(hospital) as asked:
        refreshed = await ehr.pull("p1", known=known)
    assert (refreshed.changed, refreshed.dropped, held(refreshed)) == (1, 1, hospital.held())
    assert [r.path.removeprefix("/fhir") for r in asked] == ["", "/Observation", "/Observation/o1"]


async def test_what_the_overlap_brings_again_is_recognised(ehr: FhirEhr, hospital: Hospital) -> None:
    hospital.put("Observation", "o1", READ - timedelta(minutes=1))
    known = await ehr.pull("p1")
    refreshed = await ehr.pull("p1", known=known)
    assert (refreshed.requests, refreshed.changed) == (1, 0)
    urls = [entry["request"]["url"] for entry in _batches(hospital)[-1].json["entry"]]
    assert [url.partition("?")[0] for url in urls if "&_elements=id%2Cmeta&" in url] == ["Observation"]


async def test_a_second_version_within_the_overlap_is_noticed(ehr: FhirEhr, hospital: Hospital) -> None:
    hospital.put("Observation", "o1", READ - timedelta(minutes=1))
    known = await ehr.pull("p1")
    hospital.put("Observation", "o1", READ - timedelta(minutes=1))
    refreshed = await ehr.pull("p1", known=known)
    assert (refreshed.changed, held(refreshed)) == (1, hospital.held())


@pytest.mark.parametrize(("page_size", "is_settled"), [(6, True), (5, False)])
async def test_an_uncounted_page_that_is_full_may_not_be_all(
    server: FaultServer, hospital: Hospital, page_size: int, is_settled: bool
) -> None:
    for number in range(5):
        hospital.put("CarePlan", f"n{number}", READ - timedelta(minutes=1))

    def answer(request: Request) -> Reply:
        reply = hospital.answer_batch(request)
        for said, asked in zip(reply.json["entry"], request.json["entry"], strict=True):
            if "_elements" in asked["request"]["url"]:
                del said["resource"]["total"]
        return reply

    server.on("POST", "/fhir", answer)
    limits = Limits(page_size=page_size)
    async with FhirClient(server.base_url, limits=limits, patience=IMPATIENT) as client:
        known = await _ehr(client).pull("p1")
        assert len(known.resources) == 11
        assert ("CarePlan" in await _unchanged(client, known)) is is_settled


def _entry_of(entries: list[dict[str, Any]], asked: list[dict[str, Any]], part: str) -> dict[str, Any]:
    """Return the answer to the question about Condition whose URL holds `part`."""
    return next(
        said
        for said, entry in zip(entries, asked, strict=True)
        if part in entry["request"]["url"] and "Condition" in entry["request"]["url"]
    )


def _spoil(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda said: said.update(fields)


def _spoil_bundle(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda said: said["resource"].update(fields)


ISSUE = {"severity": "warning", "code": "suppressed"}
HELD = {
    "resourceType": "Condition",
    "id": "c1",
    "meta": {"versionId": "1", "lastUpdated": LOADED.isoformat()},
}
RECENT = {**HELD, "meta": {"versionId": "1", "lastUpdated": LATER.isoformat()}}


@pytest.mark.parametrize("part", ["_lastUpdated", "_summary"])
@pytest.mark.parametrize(
    "spoil",
    [
        _spoil(response={}),
        _spoil(response={"status": "404 Not Found"}),
        _spoil(response={"status": "304 Not Modified"}),
        _spoil(response={"status": "2000"}),
        _spoil(response={"status": "200", "outcome": {"resourceType": "OperationOutcome", "issue": [ISSUE]}}),
        _spoil(response={"status": "200", "outcome": {"resourceType": "OperationOutcome"}}),
        _spoil(response="200"),
        _spoil(resource=None),
        _spoil(resource=HELD),
        _spoil_bundle(type="collection"),
        _spoil_bundle(total="1"),
        _spoil_bundle(total=True),
        _spoil_bundle(total=7),
        _spoil_bundle(entry=[outcome_entry("suppressed")]),
        _spoil_bundle(entry=[outcome_entry("informational")]),
        _spoil_bundle(entry=[{}]),
        _spoil_bundle(entry={"resource": RECENT}),
        _spoil_bundle(entry=[{"resource": RECENT, "search": {"mode": "include"}}]),
        _spoil_bundle(link=[{"relation": "next", "url": "?page=2"}]),
    ],
)
async def test_an_odd_answer_about_a_type_leaves_that_type_to_the_refresh(
    client: FhirClient, ehr: FhirEhr, hospital: Hospital, part: str, spoil: Callable[[dict[str, Any]], None]
) -> None:
    known = await ehr.pull("p1")

    def answer(request: Request) -> Reply:
        reply = hospital.answer_batch(request)
        spoil(_entry_of(reply.json["entry"], request.json["entry"], part))
        return reply

    hospital.server.on("POST", "/fhir", answer)
    assert await _unchanged(client, known) == ALL - {"Condition"}
    refreshed = await ehr.pull("p1", known=known)
    assert (refreshed.changed, held(refreshed)) == (0, hospital.held())


@pytest.mark.parametrize(
    "listed",
    [
        {**RECENT, "meta": {"versionId": "2", "lastUpdated": LATER.isoformat()}},
        {**RECENT, "meta": {"versionId": "0", "lastUpdated": LATER.isoformat()}},
        {**RECENT, "id": "c2"},
        {**RECENT, "resourceType": "Observation", "id": "o1"},
        {**RECENT, "meta": {"versionId": "1"}},
        {**RECENT, "meta": {"lastUpdated": LATER.isoformat()}},
        HELD,
    ],
    ids=["newer", "older", "new", "another type", "no date", "no version", "not asked for"],
)
async def test_only_the_held_version_is_no_change(
    client: FhirClient, ehr: FhirEhr, hospital: Hospital, listed: dict[str, Any]
) -> None:
    known = await ehr.pull("p1")

    def answer(request: Request) -> Reply:
        reply = hospital.answer_batch(request)
        said = _entry_of(reply.json["entry"], request.json["entry"], "_lastUpdated")
        said["resource"] = bundle(listed, total=1)
        return reply

    hospital.server.on("POST", "/fhir", answer)
    assert await _unchanged(client, known) == ALL - {"Condition"}


@pytest.mark.parametrize(
    "said",
    [
        {"response": {"status": "404"}},
        {"response": {"status": "200"}, "resource": {**PATIENT, "meta": {"versionId": "2"}}},
        {"response": {"status": "200"}, "resource": {**PATIENT, "meta": {"versionId": "1"}, "id": "p2"}},
        {"response": {"status": "200"}},
        {"response": {}, "resource": PATIENT},
    ],
)
async def test_a_patient_that_is_not_the_known_one_is_read_again(
    client: FhirClient, ehr: FhirEhr, hospital: Hospital, said: dict[str, Any]
) -> None:
    known = await ehr.pull("p1")

    def answer(request: Request) -> Reply:
        reply = hospital.answer_batch(request)
        urls = [entry["request"]["url"] for entry in request.json["entry"]]
        reply.json["entry"][urls.index("Patient/p1")] = said
        return reply

    hospital.server.on("POST", "/fhir", answer)
    assert await _unchanged(client, known) == ALL - {"Patient"}
    with _counted(hospital) as asked:
        assert (await ehr.pull("p1", known=known)).changed == 0
    assert [r.path for r in asked] == ["/fhir", "/fhir/Patient/p1"]


async def test_a_server_that_says_all_ok_beside_each_answer_is_believed(
    client: FhirClient, ehr: FhirEhr, hospital: Hospital
) -> None:
    known = await ehr.pull("p1")
    issue = {"severity": "information", "code": "informational", "details": {"text": "All OK"}}

    def answer(request: Request) -> Reply:
        reply = hospital.answer_batch(request)
        for said in reply.json["entry"]:
            if said["response"]["status"].startswith("2"):
                said["response"] |= {"outcome": {"resourceType": "OperationOutcome", "issue": [issue]}}
        return reply

    hospital.server.on("POST", "/fhir", answer)
    assert await _unchanged(client, known) == ALL


async def test_a_server_that_ignores_if_none_match_is_believed_by_version(
    client: FhirClient, ehr: FhirEhr, hospital: Hospital
) -> None:
    known = await ehr.pull("p1")
    hospital.server.on("GET", "/fhir/Patient/p1", lambda _: Reply(json=hospital.chart["Patient", "p1"]))
    assert await _unchanged(client, known) == ALL
    hospital.put("Patient", "p1")
    hospital.server.on("GET", "/fhir/Patient/p1", lambda _: Reply(json=hospital.chart["Patient", "p1"]))
    assert await _unchanged(client, known) == ALL - {"Patient"}


def _response(entries: Callable[[list[Any]], Any], **fields: Any) -> Callable[[Hospital], Any]:
    def build(hospital: Hospital) -> Callable[[Request], Reply]:
        def answer(request: Request) -> Reply:
            whole = hospital.answer_batch(request).json
            return Reply(json={**whole, "entry": entries(whole["entry"]), **fields})

        return answer

    return build


def _always(answer: Reply) -> Callable[[Hospital], Any]:
    return lambda _: answer


REFUSALS = {
    **{f"HTTP {status}": _always(Reply(status, json=NOT_FOUND)) for status in (400, 403, 404, 405, 413, 501)},
    "redirect": _always(Reply(307, headers={"Location": "/elsewhere"})),
    "a page": _always(Reply(body=b"<html>Sign in</html>", content_type="text/html")),
    "another resource": _always(Reply(json=PATIENT)),
    "the batch itself": lambda _: lambda request: Reply(json=request.json),
    "a searchset": _response(lambda entries: entries, type="searchset"),
    "one missing": _response(lambda entries: entries[:-1]),
    "one too many": _response(lambda entries: [*entries, entries[-1]]),
    "one that is none": _response(lambda entries: [*entries[:-1], "x"]),
    "no entries": _response(lambda _: None),
    "silence": _always(Reply(json=PATIENT, delay_s=1.0)),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_server_without_batches_is_asked_once_for_each_client(
    ehr: FhirEhr, hospital: Hospital, refusal: str
) -> None:
    known = await ehr.pull("p1")
    hospital.server.on("POST", "/fhir", REFUSALS[refusal](hospital))
    for _ in range(2):
        refreshed = await ehr.pull("p1", known=known)
        assert (refreshed.changed, held(refreshed)) == (0, hospital.held())
    assert len(_batches(hospital)) == 1
    hospital.put("Condition", "c9")
    refreshed = await ehr.pull("p1", known=known)
    assert (refreshed.changed, held(refreshed)) == (1, hospital.held())


LONG = Reply(body=b" " * (5 * 1024 * 1024))


@pytest.mark.parametrize(
    "answer", [Reply(503), Reply(429), Reply(401), HangUp(), Reply(json={}, cut_after=1), LONG]
)
async def test_a_failure_that_may_pass_is_not_remembered(
    client: FhirClient, ehr: FhirEhr, hospital: Hospital, answer: Reply | HangUp
) -> None:
    known = await ehr.pull("p1")
    hospital.server.on("POST", "/fhir", answer)
    refreshed = await ehr.pull("p1", known=known)
    assert (refreshed.changed, held(refreshed)) == (0, hospital.held())
    hospital.server.on("POST", "/fhir", hospital.answer_batch)
    assert await _unchanged(client, known) == ALL


async def test_a_batch_that_is_refused_later_leaves_all_to_the_refresh(
    client: FhirClient, ehr: FhirEhr, hospital: Hospital
) -> None:
    known = await ehr.pull("p1")
    assert await _unchanged(client, known) == ALL
    hospital.server.on("POST", "/fhir", Reply(413, json=NOT_FOUND))
    assert await _unchanged(client, known) == frozenset()
    hospital.server.on("POST", "/fhir", _response(lambda entries: entries[:-1])(hospital))
    assert await _unchanged(client, known) == frozenset()
    assert (await ehr.pull("p1", known=known)).changed == 0


async def test_a_batch_that_is_not_declared_is_not_tried(ehr: FhirEhr, hospital: Hospital) -> None:
    hospital.batches = False
    hospital.open()
    known = await ehr.pull("p1")
    assert (await ehr.pull("p1", known=known)).changed == 0
    assert _batches(hospital) == []


async def test_a_server_that_declares_nothing_is_tried(ehr: FhirEhr, hospital: Hospital) -> None:
    hospital.server.on("GET", "/fhir/metadata", Reply(404, json=NOT_FOUND))
    known = await ehr.pull("p1")
    assert known.capabilities is not None
    assert not known.capabilities.declared
    with _counted(hospital) as asked:
        refreshed = await ehr.pull("p1", known=Pull.load(known.dump()))
    assert refreshed.changed == 0
    assert len(asked) > 2, "types that the server does not know are a gap, so they are searched"
    assert not {"/fhir/Observation", "/fhir/Condition"} & {r.path for r in asked}


async def test_a_large_batch_is_split(server: FaultServer, hospital: Hospital) -> None:
    limits = Limits(batch_entries=5)
    async with FhirClient(server.base_url, limits=limits, patience=IMPATIENT) as client:
        ehr = _ehr(client)
        known = await ehr.pull("p1")
        refreshed = await ehr.pull("p1", known=known)
        assert (refreshed.requests, refreshed.changed) == (3, 0)
        assert [len(r.json["entry"]) for r in _batches(hospital)] == [5, 5, 1]
        hospital.put("CarePlan", "last")
        refreshed = await ehr.pull("p1", known=known)
        assert (refreshed.changed, held(refreshed)) == (1, hospital.held())
        real, calls = hospital.answer_batch, iter(range(9))
        server.on("POST", "/fhir", lambda r: real(r) if next(calls) < 1 else Reply(404, json=NOT_FOUND))
        assert await _unchanged(client, known) == frozenset(), "half an answer is none"


@pytest.mark.parametrize("teams", [3, Limits().max_rereads + 1])
async def test_types_without_a_search_are_asked_for_one_by_one(
    client: FhirClient, ehr: FhirEhr, hospital: Hospital, teams: int
) -> None:
    hospital.everything = True
    hospital.open()
    for number in range(teams):
        hospital.put("CareTeam", f"t{number}", LOADED)
    hospital.put("Goal", "g1", LOADED)
    known = await ehr.pull("p1")
    found = await _unchanged(client, known)
    if teams > Limits().max_rereads:
        assert found == ALL, "too many to be read again: left to the refresh"
        return
    assert found == {*ALL, "CareTeam", "Goal"}
    assert (await ehr.pull("p1", known=known)).requests == 1
    hospital.put("CareTeam", "t0", note=[])
    assert await _unchanged(client, known) == {*ALL, "Goal"}
    hospital.delete("CareTeam", "t1")
    refreshed = await ehr.pull("p1", known=known)
    assert (refreshed.changed, refreshed.dropped, held(refreshed)) == (1, 1, hospital.held())


async def test_an_illegal_id_is_not_put_into_a_url(
    client: FhirClient, ehr: FhirEhr, hospital: Hospital
) -> None:
    hospital.everything = True
    hospital.open()
    hospital.put("CareTeam", "t1/../../Patient?x", LOADED)
    hospital.put("Goal", "g1", LOADED)
    assert await _unchanged(client, await ehr.pull("p1")) == {*ALL, "Goal"}
    assert b"CareTeam" not in _batches(hospital)[-1].body


async def test_a_vital_type_without_a_search_is_not_glanced_at(ehr: FhirEhr, hospital: Hospital) -> None:
    hospital.everything, hospital.searchable = True, ("Observation",)
    hospital.open()
    known = await ehr.pull("p1")
    hospital.put("AllergyIntolerance", "a2")
    refreshed = await ehr.pull("p1", known=known)
    assert (refreshed.changed, held(refreshed)) == (1, hospital.held())
    assert _batches(hospital) == []


async def test_a_type_with_a_gap_is_searched_whole_the_others_are_not(
    ehr: FhirEhr, hospital: Hospital
) -> None:
    hospital.answers["Condition"] = Reply(403, json=NOT_FOUND)
    known = await ehr.pull("p1")
    hospital.answers.clear()
    with _counted(hospital) as asked:
        refreshed = await ehr.pull("p1", known=known)
    assert (refreshed.changed, held(refreshed)) == (1, hospital.held())
    assert {r.path for r in asked} == {"/fhir", "/fhir/Condition"}


async def test_results_that_are_hidden_now_are_a_gap(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    hospital.answers["CarePlan"] = Reply(json={**bundle(total=0), "entry": [outcome_entry("suppressed")]})
    refreshed = await ehr.pull("p1", known=known)
    hidden = [g.resource_type for g in refreshed.gaps if g.reason is GapReason.SUPPRESSED]
    assert hidden == ["CarePlan"]


async def test_a_server_that_ignores_last_updated_is_asked_once(
    client: FhirClient, ehr: FhirEhr, hospital: Hospital
) -> None:
    known = await ehr.pull("p1")
    hospital.ignores_last_updated = True
    hospital.put("Observation", "o9")
    for _ in range(2):
        assert await _unchanged(client, known) == frozenset()
        refreshed = await ehr.pull("p1", known=known)
        assert (refreshed.changed, held(refreshed)) == (None, hospital.held())
    assert len(_batches(hospital)) == 1


async def test_without_proof_only_what_was_never_there_is_unchanged(
    client: FhirClient, ehr: FhirEhr, hospital: Hospital
) -> None:
    known = await ehr.pull("p1")

    def answer(request: Request) -> Reply:
        reply = hospital.answer_batch(request)
        reply.json["entry"][0] = {"response": {"status": "403"}}
        return reply

    hospital.server.on("POST", "/fhir", answer)
    assert await _unchanged(client, known) == {"Patient", "Encounter", "DocumentReference", "CarePlan"}


async def test_a_chart_of_a_patient_alone_is_recognised(client: FhirClient, server: FaultServer) -> None:
    hospital = Hospital(server, batches=True)
    hospital.open()
    ehr = _ehr(client)
    known = await ehr.pull("p1")
    assert (await ehr.pull("p1", known=known)).requests == 1
    hospital.put("Encounter", "e1", LOADED - timedelta(days=9))
    assert await _unchanged(client, known) == ALL - {"Encounter"}
    assert held(await ehr.pull("p1", known=known)) == hospital.held()


async def test_an_attachment_that_was_refused_is_asked_for_again(ehr: FhirEhr, hospital: Hospital) -> None:
    content = [{"attachment": {"contentType": "text/plain", "url": "Binary/late"}}]
    hospital.put("DocumentReference", "d1", LOADED, content=content)
    hospital.server.on("GET", "/fhir/Binary/late", Reply(403))
    known = await ehr.pull("p1")
    assert "DocumentReference" in {gap.resource_type for gap in known.gaps}
    hospital.server.on("GET", "/fhir/Binary/late", Reply(body=b"late", content_type="text/plain"))
    refreshed = await ehr.pull("p1", known=known)
    assert (refreshed.requests, refreshed.changed, refreshed.binaries) == (2, 0, {"Binary/late": b"late"})


@pytest.mark.parametrize("batches", [True, False])
async def test_a_clock_that_is_behind_is_remembered_by_the_pull(
    server: FaultServer, hospital: Hospital, batches: bool
) -> None:
    now = datetime.now(UTC)
    behind = now - timedelta(hours=2)
    headers = {"Date": behind.strftime("%a, %d %b %Y %H:%M:%S GMT")}
    hospital.batches = batches
    hospital.open()
    real, batch = hospital._read, hospital.answer_batch
    server.on("GET", "/fhir/Patient/p1", lambda r: Reply(real(r).status, json=real(r).json, headers=headers))
    server.on("POST", "/fhir", lambda r: Reply(json=batch(r).json, headers=headers))
    known: Pull | None = None
    for _ in range(3):
        async with FhirClient(server.base_url, patience=IMPATIENT) as client:
            known = await FhirEhr(client, now=lambda: now).pull("p1", known=known)
        assert known.seen_until is not None
        assert abs(known.seen_until - behind) < timedelta(seconds=60)
    hospital.put("Condition", "c9", behind + timedelta(minutes=1))
    async with FhirClient(server.base_url, patience=IMPATIENT) as client:
        refreshed = await FhirEhr(client, now=lambda: now).pull("p1", known=known)
    assert (refreshed.changed, held(refreshed)) == (1, hospital.held())


async def test_a_clock_that_falls_behind_is_noticed_by_a_batch(
    server: FaultServer, hospital: Hospital
) -> None:
    now = datetime.now(UTC)
    behind = now - timedelta(hours=2)
    headers = {"Date": behind.strftime("%a, %d %b %Y %H:%M:%S GMT")}
    async with FhirClient(server.base_url, patience=IMPATIENT) as client:
        ehr = FhirEhr(client, now=lambda: now)
        known = await ehr.pull("p1")
        assert known.seen_until == now
        batch = hospital.answer_batch
        server.on("POST", "/fhir", lambda r: Reply(json=batch(r).json, headers=headers))
        refreshed = await ehr.pull("p1", known=known)
    assert refreshed.requests == 1
    assert refreshed.seen_until is not None
    assert abs(refreshed.seen_until - behind) < timedelta(seconds=60)


async def test_a_server_that_is_gone_is_an_error_at_once(hospital: Hospital) -> None:
    async with FhirClient(hospital.server.base_url, patience=IMPATIENT) as client:
        known = await _ehr(client).pull("p1")
    async with FhirClient("http://127.0.0.1:9/fhir", patience=IMPATIENT) as client:
        with pytest.raises(ConnectorError) as caught:
            await FhirEhr(client, now=lambda: LATER).pull("p1", known=known)
    assert caught.value.code == "connection_refused"


def _change(hospital: Hospital, chance: random.Random, number: int) -> str:
    """Do something to the chart; return the type that it happened to."""
    at = LATER + timedelta(seconds=number)
    kind = chance.choice([*TYPES, "Patient"])
    there = sorted(i for k, i in hospital.chart if k == kind)
    what = chance.choice(["create", "update", "delete"])
    if kind == "Patient":
        hospital.put("Patient", "p1", at, gender=chance.choice(["male", "female"]))
    elif what == "create" or not there:
        hospital.put(kind, f"n{number}", at)
    elif what == "update":
        hospital.put(kind, chance.choice(there), at)
    else:
        hospital.delete(kind, chance.choice(there))
    return kind


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_changes_no_changed_type_is_called_unchanged(
    client: FhirClient, ehr: FhirEhr, hospital: Hospital, seed: int
) -> None:
    chance = random.Random(seed)
    known = await ehr.pull("p1")
    for round_number in range(4):
        start = hospital.held()
        for number in range(chance.randint(0, 3)):
            _change(hospital, chance, round_number * 10 + number)
        changed = {kind for kind, _, _ in start ^ hospital.held()}
        found = (await glance_at(client, known, Held.of(known.resources), SINCE)).unchanged
        assert found == ALL - changed
        known = Pull.load((await ehr.pull("p1", known=known)).dump())
        assert held(known) == hospital.held()
