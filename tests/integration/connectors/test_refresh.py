"""Refreshing a known record on servers that do not all do what they should: nothing stale, nothing lost."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connectors.errors import ConnectorError, Gone
from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from connectors.fhir.pull import GapReason, Pull
from connectors.fhir.refresh import refresh_patient
from connectors.limits import Limits
from tests.conftest import CANARY
from tests.integration.connectors.chart import PATIENT, bundle, outcome_entry
from tests.integration.connectors.conftest import IMPATIENT
from tests.integration.connectors.fault_server import FaultServer, Reply, Request
from tests.integration.connectors.hospital import (
    LATER,
    LOADED,
    NOT_FOUND,
    READ,
    TYPES,
    Hospital,
    held,
)


@pytest.fixture(params=[False, True], ids=["singly", "batches"])
def hospital(server: FaultServer, request: pytest.FixtureRequest) -> Hospital:
    built = Hospital(server, batches=request.param)
    built.open()
    for number in range(3):
        built.put("Observation", f"o{number}", LOADED, status="final")
    built.put("Condition", "c1", LOADED)
    built.put("AllergyIntolerance", "a1", LOADED)
    return built


@pytest.fixture
async def ehr(server: FaultServer) -> FhirEhr:
    clock = iter([READ, *[LATER + timedelta(minutes=n) for n in range(50)]])
    client = FhirClient(server.base_url, limits=Limits(read_s=2.0), patience=IMPATIENT)
    return FhirEhr(client, now=lambda: next(clock))


@pytest.fixture(autouse=True)
async def _closed(ehr: FhirEhr) -> Any:
    yield
    await ehr.aclose()


def _gaps(pull: Pull) -> list[tuple[str | None, GapReason]]:
    return [(g.resource_type, g.reason) for g in pull.gaps if g.reason is not GapReason.NOT_SUPPORTED]


async def _refresh(ehr: FhirEhr, hospital: Hospital, known: Pull | None = None) -> tuple[Pull, Pull]:
    """Return a refresh of `known`, which is read first unless it is given, and a pull that is whole."""
    known = known or await ehr.pull("p1")
    refreshed = await ehr.pull("Patient/p1", known=known)
    assert held(refreshed) == hospital.held()
    for gap in refreshed.gaps:
        assert CANARY not in gap.detail
    return known, refreshed


async def test_nothing_changed(ehr: FhirEhr, hospital: Hospital) -> None:
    known, refreshed = await _refresh(ehr, hospital)
    assert (known.changed, refreshed.changed, refreshed.dropped) == (None, 0, 0)
    assert (known.whole_at, refreshed.whole_at) == (READ, READ)
    assert refreshed.read_at == LATER
    assert refreshed.gaps == known.gaps
    assert refreshed.bytes_received < known.bytes_received * 2


async def test_a_pull_loaded_from_its_bytes_is_refreshed_alike(ehr: FhirEhr, hospital: Hospital) -> None:
    known = Pull.load((await ehr.pull("p1")).dump())
    hospital.put("Observation", "o9")
    _, refreshed = await _refresh(ehr, hospital, known)
    assert refreshed.changed == 1


async def test_a_new_client_does_not_ask_again_what_the_server_offers(
    server: FaultServer, hospital: Hospital
) -> None:
    async def pull(known: Pull | None) -> Pull:
        async with FhirClient(server.base_url, patience=IMPATIENT) as client:
            return await FhirEhr(client, now=lambda: READ if known is None else LATER).pull("p1", known=known)

    def asked() -> int:
        return sum(request.path == "/fhir/metadata" for request in server.requests)

    known = await pull(None)
    assert asked() == 1
    refreshed = await pull(Pull.load(known.dump()))
    assert (refreshed.changed, asked()) == (0, 1)
    hospital.ignores_last_updated = True  # so that the record is read whole, after an update of the server
    hospital.put("Condition", "c9")
    assert (await pull(refreshed)).changed is None
    assert asked() == 2


async def test_new_changed_and_deleted_resources(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    hospital.put("Observation", "o9")
    hospital.put("Condition", "c1", verificationStatus={"coding": [{"code": "entered-in-error"}]})
    hospital.put("Encounter", "e1")
    hospital.put("CarePlan", "cp1")
    hospital.delete("Observation", "o1")
    hospital.put("Patient", "p1", active=False, name=PATIENT["name"])
    _, refreshed = await _refresh(ehr, hospital, known)
    assert (refreshed.changed, refreshed.dropped) == (5, 1)
    condition = next(r for r in refreshed.resources if r["resourceType"] == "Condition")
    assert condition["verificationStatus"]["coding"][0]["code"] == "entered-in-error"
    assert next(iter(refreshed.resources))["active"] is False
    assert len(known.resources) == 6, "the known pull stays as it was"


async def test_what_came_and_went_of_one_type_is_told_apart(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    hospital.put("Observation", "o9")
    hospital.delete("Observation", "o0")
    _, refreshed = await _refresh(ehr, hospital, known)
    assert (refreshed.changed, refreshed.dropped) == (1, 1)


async def test_refreshes_follow_each_other(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    for number in range(4):
        hospital.put("Observation", f"n{number}", LATER + timedelta(minutes=number))
        _, known = await _refresh(ehr, hospital, known)
        assert known.changed == 1, "what the overlap brings again is not new"


@pytest.mark.parametrize("refusal", [None, Reply(400, json=NOT_FOUND)])
async def test_a_server_that_ignores_or_refuses_last_updated_is_read_whole(
    ehr: FhirEhr, hospital: Hospital, refusal: Reply | None
) -> None:
    known = await ehr.pull("p1")
    hospital.ignores_last_updated = True
    hospital.put("Observation", "o9")
    if refusal:
        real = hospital._search

        def refuse(request: Request) -> Reply:
            return refusal if "_lastUpdated" in dict(request.query) else real(request)

        hospital.server.on("GET", "/fhir/Observation", refuse)
    for _ in range(2):
        _, refreshed = await _refresh(ehr, hospital, known)
        assert refreshed.changed is None
    proofs = [
        r for r in hospital.server.requests if dict(r.query).get("_lastUpdated", "").startswith("ge2999")
    ]
    assert len(proofs) == 1, "asked once for each client"


async def test_a_type_that_ignores_last_updated_for_itself_is_noticed(
    ehr: FhirEhr, hospital: Hospital
) -> None:
    known = await ehr.pull("p1")
    old = hospital.chart["Condition", "c1"]
    hospital.answers["Condition"] = Reply(json=bundle(old, total=1))
    assert (await ehr.pull("p1", known=known)).changed is None


async def test_a_server_that_tells_no_dates_must_prove_itself(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    hospital.ignores_last_updated = True
    for kind in TYPES:
        found = [{**r, "meta": {"versionId": "1"}} for (k, _), r in hospital.chart.items() if k == kind]
        hospital.answers[kind] = Reply(json=bundle(*found, total=len(found)))
    assert (await ehr.pull("p1", known=known)).changed is None


async def test_a_type_that_refuses_last_updated_for_itself_is_read_whole(
    ehr: FhirEhr, hospital: Hospital
) -> None:
    known = await ehr.pull("p1")

    def refuse(request: Request) -> Reply:
        refused = "_lastUpdated" in dict(request.query)
        return Reply(400, json=NOT_FOUND) if refused else hospital._search(request)

    hospital.server.on("GET", "/fhir/Condition", refuse)
    _, refreshed = await _refresh(ehr, hospital, known)
    assert (refreshed.changed, _gaps(refreshed)) == (None, [])


async def test_a_gap_of_the_whole_read_is_filled(ehr: FhirEhr, hospital: Hospital) -> None:
    hospital.answers["Condition"] = Reply(403, json=NOT_FOUND)
    known = await ehr.pull("p1")
    assert _gaps(known) == [("Condition", GapReason.REFUSED)]
    hospital.answers.clear()
    _, refreshed = await _refresh(ehr, hospital, known)
    assert (refreshed.changed, _gaps(refreshed)) == (1, [])


async def test_of_two_known_versions_only_the_newest_stays(ehr: FhirEhr, hospital: Hospital) -> None:
    first = hospital.chart["Observation", "o1"]
    hospital.put("Observation", "o1", LOADED)
    both = [r for (kind, _), r in hospital.chart.items() if kind == "Observation"]
    hospital.answers["Observation"] = Reply(json=bundle(first, *both, total=3))
    known = await ehr.pull("p1")
    assert len(known.resources) == 7
    hospital.answers.clear()
    hospital.put("Observation", "o1")
    _, refreshed = await _refresh(ehr, hospital, known)
    assert (refreshed.changed, len(refreshed.resources)) == (1, 6)


async def test_a_server_without_totals_is_read_whole(ehr: FhirEhr, hospital: Hospital) -> None:
    hospital.counts = False
    _, refreshed = await _refresh(ehr, hospital)
    assert refreshed.changed is None


@pytest.mark.parametrize("wrong", [0, 2, 7])
async def test_a_wrong_count_loses_nothing(ehr: FhirEhr, hospital: Hospital, wrong: int) -> None:
    known = await ehr.pull("p1")
    real = hospital._search

    def count_wrong(request: Request) -> Reply:
        if dict(request.query).get("_summary") == "count":
            return Reply(json=bundle(total=wrong))
        return real(request)

    hospital.server.on("GET", "/fhir/Observation", count_wrong)
    _, refreshed = await _refresh(ehr, hospital, known)
    assert (refreshed.changed, refreshed.dropped) == (0, 0)


async def test_a_change_that_last_updated_hides_is_found_by_the_count(
    ehr: FhirEhr, hospital: Hospital
) -> None:
    known = await ehr.pull("p1")
    hospital.put("Observation", "imported", LOADED - timedelta(days=400))
    _, refreshed = await _refresh(ehr, hospital, known)
    assert refreshed.changed is None, "read whole"


async def test_what_moved_to_another_patient_is_not_kept(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    moved = hospital.chart["Observation", "o1"]
    hospital.delete("Observation", "o1")
    hospital.server.on("GET", "/fhir/Observation/o1", Reply(json=moved))
    _, refreshed = await _refresh(ehr, hospital, known)
    assert refreshed.changed is None, "still there, but not found: read whole"


async def test_a_paging_loop_in_a_refresh_is_a_gap(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    hospital.put("Observation", "o9")
    page = bundle(hospital.chart["Observation", "o9"], next_link="?page=2")
    real = hospital._search

    def loop(request: Request) -> Reply:
        query = dict(request.query)
        return Reply(json=page) if "page" in query or query.get("_count") == "500" else real(request)

    hospital.server.on("GET", "/fhir/Observation", loop)
    _, refreshed = await _refresh(ehr, hospital, known)
    assert refreshed.changed == 1
    assert _gaps(refreshed) == [("Observation", GapReason.PAGING)]


async def test_a_type_that_is_refused_is_a_gap_until_it_answers(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    hospital.answers["Condition"] = Reply(403, json=NOT_FOUND)
    hospital.answers["CarePlan"] = Reply(403, json=NOT_FOUND)
    _, refused = await _refresh(ehr, hospital, known)
    assert refused.changed == 0
    assert sorted(_gaps(refused)) == [("CarePlan", GapReason.REFUSED), ("Condition", GapReason.REFUSED)]
    hospital.answers.clear()
    hospital.put("Condition", "c2", LOADED - timedelta(days=1))
    hospital.put("CarePlan", "cp2", LOADED - timedelta(days=1))
    hospital.delete("Condition", "c1")
    _, again = await _refresh(ehr, hospital, Pull.load(refused.dump()))
    assert (again.changed, again.dropped, _gaps(again)) == (2, 1, [])


async def test_results_that_are_hidden_now_are_a_gap(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    entries = [outcome_entry("suppressed")]
    hospital.answers["AllergyIntolerance"] = Reply(json={**bundle(total=1), "entry": entries})
    hospital.answers["CarePlan"] = Reply(json={**bundle(total=0), "entry": entries})

    def silent_count(request: Request) -> Reply:
        """A count has no entries, so a vital type is searched although nothing of it is known."""
        counting = dict(request.query).get("_summary") == "count"
        return Reply(json={**bundle(total=0), "entry": [] if counting else entries})

    hospital.server.on("GET", "/fhir/Encounter", silent_count)
    _, refreshed = await _refresh(ehr, hospital, known)
    assert {kind for kind, reason in _gaps(refreshed) if reason is GapReason.SUPPRESSED} == {
        "AllergyIntolerance",
        "Encounter",
        "CarePlan",
    }


async def test_a_record_whose_gaps_concern_all_of_it_is_read_whole(ehr: FhirEhr, hospital: Hospital) -> None:
    hospital.everything = True
    hospital.open()
    answer = bundle(*hospital.chart.values())
    answer["entry"].append(outcome_entry("suppressed"))
    hospital.server.on("GET", "/fhir/Patient/p1/$everything", Reply(json=answer))
    _, refreshed = await _refresh(ehr, hospital)
    assert refreshed.changed is None


@pytest.mark.parametrize(
    "read_at", [READ + timedelta(hours=25), READ - timedelta(hours=1)], ids=["too old", "clock set back"]
)
async def test_a_record_that_is_too_old_or_from_the_future_is_read_whole(
    ehr: FhirEhr, hospital: Hospital, read_at: datetime
) -> None:
    known = await ehr.pull("p1")
    assert await refresh_patient(ehr._client, known, now=lambda: read_at) is None
    assert await refresh_patient(ehr._client, known, now=lambda: READ + timedelta(hours=24)) is not None


async def test_another_patients_record_is_not_built_on(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    hospital.server.on("GET", "/fhir/Patient/p2", Reply(json={**PATIENT, "id": "p2"}))
    other = await ehr.pull("p2", known=known)
    assert (other.patient_id, other.changed) == ("p2", None)


async def test_a_patient_that_was_deleted_is_said(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    hospital.delete("Patient", "p1")
    with pytest.raises(Gone):
        await ehr.pull("p1", known=known)


async def test_types_without_a_search_are_read_one_by_one(ehr: FhirEhr, hospital: Hospital) -> None:
    hospital.everything = True
    hospital.open()
    for number in range(3):
        hospital.put("CareTeam", f"t{number}", LOADED)
    known = await ehr.pull("p1")
    hospital.put("CareTeam", "t0", note=[])
    hospital.delete("CareTeam", "t1")
    hospital.put("CareTeam", "t9")
    hospital.put("CarePlan", "cp1", careTeam=[{"reference": "CareTeam/t9"}, {"reference": "CareTeam/none"}])
    _, refreshed = await _refresh(ehr, hospital, known)
    assert (refreshed.changed, refreshed.dropped) == (3, 1)
    assert len(hospital.server.asked("GET", "/fhir/Patient/p1/$everything")) == 1


async def test_too_many_without_a_search_are_read_whole(ehr: FhirEhr, hospital: Hospital) -> None:
    hospital.everything = True
    hospital.open()
    for number in range(Limits().max_rereads + 1):
        hospital.put("CareTeam", f"t{number}", LOADED)
    _, refreshed = await _refresh(ehr, hospital)
    assert refreshed.changed is None


def _without_search(hospital: Hospital, ignores_since: bool) -> None:
    hospital.everything, hospital.ignores_since = True, ignores_since
    hospital.searchable = ("Observation",)
    hospital.open()


async def test_everything_since_brings_what_no_search_would(ehr: FhirEhr, hospital: Hospital) -> None:
    _without_search(hospital, ignores_since=False)
    known = await ehr.pull("p1")
    hospital.put("AllergyIntolerance", "a2")
    hospital.put("Observation", "o9")
    hospital.delete("Observation", "o0")
    hospital.delete("Condition", "c1")
    _, refreshed = await _refresh(ehr, hospital, known)
    assert (refreshed.changed, refreshed.dropped) == (2, 2)


async def test_everything_that_ignores_since_is_read_whole(ehr: FhirEhr, hospital: Hospital) -> None:
    _without_search(hospital, ignores_since=True)
    known = await ehr.pull("p1")
    hospital.put("AllergyIntolerance", "a2")
    _, refreshed = await _refresh(ehr, hospital, known)
    assert refreshed.changed is None


def _document(text: str) -> dict[str, Any]:
    return {"content": [{"attachment": {"contentType": "text/plain", "url": f"Binary/{text}"}}]}


async def test_attachments_of_new_documents_are_fetched_and_known_ones_kept(
    ehr: FhirEhr, hospital: Hospital
) -> None:
    for text in ("old", "gone", "late", "new"):
        hospital.server.on(
            "GET", f"/fhir/Binary/{text}", Reply(body=text.encode(), content_type="text/plain")
        )
    hospital.server.on("GET", "/fhir/Binary/late", Reply(403))
    for text in ("old", "gone", "late"):
        hospital.put("DocumentReference", text, LOADED, **_document(text))
    known = await ehr.pull("p1")
    assert (set(known.binaries), _gaps(known)) == (
        {"Binary/old", "Binary/gone"},
        [("DocumentReference", GapReason.REFUSED)],
    )
    hospital.put("DocumentReference", "new", **_document("new"))
    hospital.delete("DocumentReference", "gone")
    hospital.server.on("GET", "/fhir/Binary/late", Reply(body=b"late", content_type="text/plain"))
    _, refreshed = await _refresh(ehr, hospital, known)
    assert refreshed.binaries == {f"Binary/{t}": t.encode() for t in ("old", "late", "new")}
    assert _gaps(refreshed) == []
    assert len(hospital.server.asked("GET", "/fhir/Binary/old")) == 1


async def test_a_medication_that_a_new_order_refers_to_is_read(ehr: FhirEhr, hospital: Hospital) -> None:
    hospital.searchable = (*TYPES, "MedicationRequest")
    hospital.open()
    known = await ehr.pull("p1")
    hospital.put("Medication", "d1")
    hospital.put("MedicationRequest", "m1", medicationReference={"reference": "Medication/d1"})
    _, refreshed = await _refresh(ehr, hospital, known)
    assert refreshed.changed == 2


async def test_a_server_whose_clock_is_behind_misses_nothing(server: FaultServer, hospital: Hospital) -> None:
    now = datetime.now(UTC)
    behind = now - timedelta(hours=2)
    headers = {"Date": behind.strftime("%a, %d %b %Y %H:%M:%S GMT")}
    for resource in hospital.chart.values():
        resource["meta"]["lastUpdated"] = (behind - timedelta(hours=3)).isoformat()
    real = hospital._read

    def read(request: Request) -> Reply:
        answer = real(request)
        return Reply(answer.status, json=answer.json, headers=headers)

    server.on("GET", "/fhir/Patient/p1", read)
    async with FhirClient(server.base_url, patience=IMPATIENT) as client:
        ehr = FhirEhr(client, now=lambda: now)
        known = await ehr.pull("p1")
        hospital.put("Observation", "o9", behind + timedelta(minutes=1))
        _, refreshed = await _refresh(ehr, hospital, known)
    assert refreshed.changed == 1


async def test_progress_is_told(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    hospital.put("Observation", "o9")
    seen: list[tuple[str, int]] = []
    await ehr.pull("p1", lambda *step: seen.append(step), known)
    assert seen[0] == ("Patient", 1)
    assert ("Observation", 1) in seen


async def test_a_refresh_that_is_cancelled_leaves_nothing_running(
    server: FaultServer, ehr: FhirEhr, hospital: Hospital
) -> None:
    known = await ehr.pull("p1")
    asked = asyncio.Event()

    def slow(_request: Request) -> Reply:
        asked.set()
        return Reply(json=bundle(total=0), delay_s=1.0)

    server.on("GET", "/fhir/Condition", slow)
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(ehr.pull("p1", known=known))
    await asyncio.wait_for(asked.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {t for t in asyncio.all_tasks() - before if "_serve" not in repr(t)} == set()
    server.on("GET", "/fhir/Condition", hospital._search)
    _, refreshed = await _refresh(ehr, hospital, known)
    assert refreshed.changed == 0


async def test_a_server_that_is_gone_is_an_error(ehr: FhirEhr, hospital: Hospital) -> None:
    known = await ehr.pull("p1")
    hospital.server.on("GET", "/fhir/Patient/p1", Reply(500))
    with pytest.raises(ConnectorError):
        await ehr.pull("p1", known=known)
