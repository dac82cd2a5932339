"""Reading a whole patient from a server that fails in parts: what came is kept, what is missing is said."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from connectors.auth import BearerAuth
from connectors.fhir.client import FhirClient
from connectors.fhir.compartment import COMPARTMENT
from connectors.fhir.patient import pull_patient
from connectors.fhir.pull import Gap, GapReason, Pull
from connectors.limits import Limits
from tests.conftest import CANARY
from tests.integration.connectors.chart import (
    PATIENT,
    READ_AT,
    bundle,
    capability_statement,
    outcome_entry,
    resource,
    serve_chart,
)
from tests.integration.connectors.conftest import IMPATIENT, SHORT
from tests.integration.connectors.fault_server import FaultServer, HangUp, Reply, Request

EVERYTHING = "/fhir/Patient/p1/$everything"


async def _pull(client: FhirClient) -> Pull:
    pull = await pull_patient(client, "Patient/p1", now=lambda: READ_AT)
    for gap in pull.gaps:
        assert CANARY not in gap.detail
        assert "p1" not in gap.detail
    return pull


def _ids(pull: Pull) -> list[str]:
    return [f"{r['resourceType']}/{r['id']}" for r in pull.resources]


def _gaps(pull: Pull) -> list[tuple[str | None, GapReason]]:
    """The gaps of the types that the test's server offers."""
    return [(g.resource_type, g.reason) for g in pull.gaps if g.reason is not GapReason.NOT_SUPPORTED]


async def test_a_chart_is_read_by_one_search_per_offered_type(
    server: FaultServer, client: FhirClient
) -> None:
    serve_chart(server, "Observation", "Condition")
    server.on("GET", "/fhir/Observation", Reply(json=bundle(resource("Observation", "o1"))))
    pull = await _pull(client)
    assert sorted(_ids(pull)) == ["Observation/o1", "Patient/p1"]
    assert (pull.patient_id, pull.read_at) == ("p1", READ_AT)
    assert pull.requests == len(server.requests) == 4
    assert pull.bytes_received > 0
    assert server.asked("GET", "/fhir/Observation")[0].query == (("patient", "Patient/p1"), ("_count", "10"))
    assert server.asked("GET", "/fhir/Goal") == []


async def test_a_type_that_is_not_offered_is_named(server: FaultServer, client: FhirClient) -> None:
    serve_chart(server, "Observation")
    pull = await _pull(client)
    missing = {g.resource_type for g in pull.gaps if g.reason is GapReason.NOT_SUPPORTED}
    assert missing == set(COMPARTMENT) - {"Observation"}


async def test_without_a_capability_statement_every_type_is_tried(
    server: FaultServer, client: FhirClient
) -> None:
    server.on("GET", "/fhir/Patient/p1", Reply(json=PATIENT))
    for kind in COMPARTMENT:
        server.on("GET", f"/fhir/{kind}", Reply(json=bundle()))
    pull = await _pull(client)
    assert pull.gaps == ()
    assert len(server.requests) == 2 + len(COMPARTMENT)


async def test_everything_is_paged_to_its_end(server: FaultServer, client: FhirClient) -> None:
    serve_chart(server, everything=True)
    second = f"{server.base_url}?page=2"
    server.on("GET", EVERYTHING, Reply(json=bundle(PATIENT, resource("Observation", "o1"), next_link=second)))
    server.on("GET", "/fhir", Reply(json=bundle(resource("Observation", "o2"), resource("Goal", "g1"))))
    seen: list[tuple[str, int]] = []
    pull = await pull_patient(client, "p1", now=lambda: READ_AT, on_progress=lambda *step: seen.append(step))
    assert _ids(pull) == ["Patient/p1", "Observation/o1", "Observation/o2", "Goal/g1"]
    assert seen == [("Patient", 1), ("record", 1), ("record", 3)]
    assert "Goal" not in {g.resource_type for g in pull.gaps}


async def test_where_everything_breaks_searches_complete_it(server: FaultServer, client: FhirClient) -> None:
    serve_chart(server, "Observation", everything=True)
    server.on("GET", EVERYTHING, Reply(json=bundle(resource("Observation", "o1"), next_link="?page=2")))
    server.on("GET", f"{EVERYTHING}", Reply(500))
    server.on(
        "GET",
        "/fhir/Observation",
        Reply(json=bundle(resource("Observation", "o1"), resource("Observation", "o2"))),
    )
    pull = await _pull(client)
    assert _ids(pull) == ["Patient/p1", "Observation/o1", "Observation/o2"]
    assert _gaps(pull) == []


async def test_the_same_version_is_kept_once_and_another_version_too(
    server: FaultServer, client: FhirClient
) -> None:
    serve_chart(server, "Observation")
    newer = {**resource("Observation", "o1"), "meta": {"versionId": "2"}}
    server.on(
        "GET",
        "/fhir/Observation",
        Reply(json=bundle(resource("Observation", "o1"), resource("Observation", "o1"), newer)),
    )
    assert _ids(await _pull(client)) == ["Patient/p1", "Observation/o1", "Observation/o1"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Reply(401), GapReason.REFUSED),
        (Reply(403), GapReason.REFUSED),
        (Reply(500), GapReason.FAILED),
        (Reply(400), GapReason.FAILED),
        (Reply(429), GapReason.FAILED),
        (Reply(body=b"<html>"), GapReason.FAILED),
        (Reply(body=b'{"resourceType":"Bundle","entry":[{"res'), GapReason.FAILED),
        (Reply(json={"resourceType": "OperationOutcome"}), GapReason.FAILED),
        (Reply(json=bundle(), delay_s=1.0), GapReason.TIMED_OUT),
        (Reply(body=b" " * 300_000), GapReason.TOO_LARGE),
        (HangUp(), GapReason.FAILED),
    ],
)
async def test_one_type_that_fails_does_not_lose_the_rest(
    server: FaultServer, client: FhirClient, answer: Reply, reason: GapReason
) -> None:
    serve_chart(server, "Observation", "Condition")
    server.on("GET", "/fhir/Condition", Reply(json=bundle(resource("Condition", "c1"))))
    server.on("GET", "/fhir/Observation", answer)
    pull = await _pull(client)
    assert _ids(pull) == ["Patient/p1", "Condition/c1"]
    assert _gaps(pull) == [("Observation", reason)]


async def test_a_type_the_server_knows_nothing_of_is_not_supported(
    server: FaultServer, client: FhirClient
) -> None:
    serve_chart(server, "Observation", "Condition")
    server.on("GET", "/fhir/Observation", Reply(404, json={"resourceType": "OperationOutcome"}))
    pull = await _pull(client)
    assert [g.reason for g in pull.gaps if g.resource_type == "Observation"] == [GapReason.NOT_SUPPORTED]


async def test_everything_but_the_patient_failing_is_a_pull_with_gaps(
    server: FaultServer, client: FhirClient
) -> None:
    serve_chart(server, "Observation", "Condition", everything=True)
    for path in (EVERYTHING, "/fhir/Observation", "/fhir/Condition"):
        server.on("GET", path, Reply(403))
    pull = await _pull(client)
    assert _ids(pull) == ["Patient/p1"]
    assert sorted(_gaps(pull)) == [("Condition", GapReason.REFUSED), ("Observation", GapReason.REFUSED)]


def _paged(server: FaultServer, third: Reply) -> None:
    def page(request: Request) -> Reply:
        number = int(dict(request.query).get("page", "1"))
        if number == 3:
            return third
        link = f"{server.base_url}/Observation?page={number + 1}"
        return Reply(json=bundle(resource("Observation", f"o{number}"), next_link=link))

    server.on("GET", "/fhir/Observation", page)


async def test_a_connection_cut_in_the_middle_of_page_three_keeps_two_pages(
    server: FaultServer, client: FhirClient
) -> None:
    serve_chart(server, "Observation")
    _paged(server, Reply(json=bundle(resource("Observation", "o3")), cut_after=60))
    pull = await _pull(client)
    assert _ids(pull) == ["Patient/p1", "Observation/o1", "Observation/o2"]
    assert _gaps(pull) == [("Observation", GapReason.PAGING)]
    assert "cut" in next(g for g in pull.gaps if g.resource_type == "Observation").detail


async def _paging_gap(server: FaultServer, client: FhirClient, next_link: str) -> Gap:
    serve_chart(server, "Observation")
    server.on(
        "GET", "/fhir/Observation", Reply(json=bundle(resource("Observation", "o1"), next_link=next_link))
    )
    pull = await _pull(client)
    assert _ids(pull) == ["Patient/p1", "Observation/o1"]
    assert _gaps(pull) == [("Observation", GapReason.PAGING)]
    assert len(server.asked("GET", "/fhir/Observation")) <= 2
    return next(g for g in pull.gaps if g.resource_type == "Observation")


async def test_a_page_that_links_to_itself_ends(server: FaultServer, client: FhirClient) -> None:
    link = f"{server.base_url}/Observation?patient=Patient%2Fp1&_count=10"
    gap = await _paging_gap(server, client, link)
    assert "already read" in gap.detail
    assert len(server.asked("GET", "/fhir/Observation")) == 1


async def test_a_page_with_the_same_content_under_a_new_url_ends(
    server: FaultServer, client: FhirClient
) -> None:
    assert "repeats" in (await _paging_gap(server, client, "?page=2")).detail


async def test_a_link_to_a_foreign_host_is_not_followed(server: FaultServer, client: FhirClient) -> None:
    async with FaultServer() as foreign:
        gap = await _paging_gap(server, client, f"{foreign.base_url}/Observation?page=2")
        assert foreign.requests == []
    assert foreign.root_url in gap.detail


async def test_pages_without_an_end_are_given_up(server: FaultServer) -> None:
    serve_chart(server, "Observation")

    def page(request: Request) -> Reply:
        number = int(dict(request.query).get("page", "1"))
        return Reply(json=bundle(resource("Observation", f"o{number}"), next_link=f"?page={number + 1}"))

    server.on("GET", "/fhir/Observation", page)
    limits = Limits(max_pages=5)
    async with FhirClient(server.base_url, limits=limits, patience=IMPATIENT) as client:
        pull = await _pull(client)
    assert len(pull.resources) == 6
    assert _gaps(pull) == [("Observation", GapReason.PAGING)]


async def test_results_hidden_inside_a_200_are_a_gap(server: FaultServer, client: FhirClient) -> None:
    serve_chart(server, "Observation", "Condition")
    answer = bundle(resource("Observation", "o1"))
    answer["entry"].append(outcome_entry("suppressed"))
    server.on("GET", "/fhir/Observation", Reply(json=answer))
    pull = await _pull(client)
    assert _ids(pull) == ["Patient/p1", "Observation/o1"]
    assert _gaps(pull) == [("Observation", GapReason.SUPPRESSED)]


@pytest.mark.parametrize("second", [Reply(json=bundle()), Reply(500)])
async def test_results_hidden_in_everything_are_a_gap(
    server: FaultServer, client: FhirClient, second: Reply
) -> None:
    serve_chart(server, everything=True)
    answer = bundle(resource("Observation", "o1"), next_link=f"{server.base_url}?page=2")
    answer["entry"].append(outcome_entry("suppressed"))
    server.on("GET", EVERYTHING, Reply(json=answer))
    server.on("GET", "/fhir", second)
    pull = await _pull(client)
    assert "Observation/o1" in _ids(pull)
    assert (None, GapReason.SUPPRESSED) in _gaps(pull)


async def test_fewer_results_than_counted_are_a_gap(server: FaultServer, client: FhirClient) -> None:
    serve_chart(server, "Observation")
    server.on("GET", "/fhir/Observation", Reply(json=bundle(resource("Observation", "o1"), total=2)))
    assert _gaps(await _pull(client)) == [("Observation", GapReason.PAGING)]


async def test_a_full_page_without_count_and_link_is_a_gap(server: FaultServer, client: FhirClient) -> None:
    serve_chart(server, "Observation")
    full = [resource("Observation", f"o{i}") for i in range(SHORT.page_size)]
    server.on("GET", "/fhir/Observation", Reply(json=bundle(*full)))
    assert _gaps(await _pull(client)) == [("Observation", GapReason.PAGING)]
    server.on("GET", "/fhir/Observation", Reply(json=bundle(*full, total=SHORT.page_size)))
    assert _gaps(await _pull(client)) == []


@pytest.mark.parametrize(
    "odd",
    [
        {"resourceType": "Bundle"},
        {"resourceType": "Bundle", "entry": "x", "link": "y", "total": "z"},
        {
            "resourceType": "Bundle",
            "entry": [1, None, {}, {"resource": 5}],
            "link": [None, {"relation": "next"}],
        },
        {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Observation"}, "search": 5}]},
        {"resourceType": "Bundle", "entry": [{"resource": {"id": {}, "meta": [], "resourceType": []}}]},
    ],
)
async def test_an_odd_bundle_is_no_reason_to_stop(server: FaultServer, client: FhirClient, odd: Any) -> None:
    serve_chart(server, "Observation")
    server.on("GET", "/fhir/Observation", Reply(json=odd))
    assert _gaps(await _pull(client)) == []


async def test_no_more_requests_at_once_than_allowed(server: FaultServer) -> None:
    now = most = 0
    real = asyncio.sleep

    def slow(_request: Request) -> Reply:
        nonlocal now, most
        now += 1
        most = max(most, now)
        asyncio.get_running_loop().call_later(0.02, leave)
        return Reply(json=bundle(), delay_s=0.03)

    def leave() -> None:
        nonlocal now
        now -= 1

    await real(0)
    serve_chart(server, *COMPARTMENT)
    for kind in COMPARTMENT:
        server.on("GET", f"/fhir/{kind}", slow)
    async with FhirClient(server.base_url, limits=Limits(concurrency=3), patience=IMPATIENT) as client:
        await _pull(client)
    assert most == 3


async def test_a_medication_that_a_prescription_refers_to_is_read(
    server: FaultServer, client: FhirClient
) -> None:
    serve_chart(server, "MedicationRequest")
    orders = [
        resource("MedicationRequest", "m1", medicationReference={"reference": "Medication/d1"}),
        resource(
            "MedicationRequest", "m2", medicationReference={"reference": f"{server.base_url}/Medication/d1"}
        ),
        resource("MedicationRequest", "m3", medicationReference={"reference": "Medication/d2"}),
        resource("MedicationRequest", "m4", medicationReference={"reference": "#contained"}),
        resource(
            "MedicationRequest", "m5", medicationReference={"reference": "https://evil.example/Medication/d3"}
        ),
    ]
    server.on("GET", "/fhir/MedicationRequest", Reply(json=bundle(*orders)))
    server.on("GET", "/fhir/Medication/d1", Reply(json=resource("Medication", "d1")))
    server.on("GET", "/fhir/Medication/d2", Reply(403))
    pull = await _pull(client)
    assert _ids(pull)[-1] == "Medication/d1"
    assert len(server.asked("GET", "/fhir/Medication/d1")) == 1
    assert _gaps(pull) == [("Medication", GapReason.REFUSED)]


def _document(doc_id: str, **attachment: Any) -> dict[str, Any]:
    return resource("DocumentReference", doc_id, content=[{"attachment": attachment}])


async def _documents(server: FaultServer, client: FhirClient, *documents: dict[str, Any]) -> Pull:
    serve_chart(server, "DocumentReference")
    server.on("GET", "/fhir/DocumentReference", Reply(json=bundle(*documents)))
    return await _pull(client)


async def test_attachments_are_read_raw_or_as_binary(server: FaultServer, client: FhirClient) -> None:
    note = base64.b64encode(b"as a resource").decode()
    server.on("GET", "/fhir/Binary/b1", Reply(body=b"raw text", content_type="text/plain; charset=utf-8"))
    server.on(
        "GET",
        "/fhir/Binary/b2",
        Reply(json={"resourceType": "Binary", "contentType": "text/plain", "data": note}),
    )
    server.on("GET", "/files/x", Reply(body=b"%PDF", content_type="application/pdf"))
    elsewhere = f"{server.root_url}/files/x"
    pull = await _documents(
        server,
        client,
        _document("d1", url="Binary/b1", contentType="text/plain"),
        _document("d2", url=f"{server.base_url}/Binary/b2", contentType="text/plain"),
        _document("d3", url=elsewhere, contentType="application/pdf"),
        _document("d4", url="Binary/inline", data="eA==", contentType="text/plain"),
    )
    assert pull.binaries == {
        "Binary/b1": b"raw text",
        f"{server.base_url}/Binary/b2": b"as a resource",
        elsewhere: b"%PDF",
    }
    assert _gaps(pull) == []


async def test_a_binary_that_came_along_is_not_asked_for_again(
    server: FaultServer, client: FhirClient
) -> None:
    serve_chart(server, everything=True)
    binary = {**resource("Binary", "b1"), "contentType": "text/plain", "data": "aGVsbG8="}
    document = _document("d1", url="Binary/b1", contentType="text/plain")
    server.on("GET", EVERYTHING, Reply(json=bundle(PATIENT, document, binary)))
    pull = await _pull(client)
    assert pull.binaries == {"Binary/b1": b"hello"}
    assert server.asked("GET", "/fhir/Binary/b1") == []


async def test_urls_out_of_the_record_go_to_allowed_origins_only(server: FaultServer) -> None:
    async with FaultServer() as files, FaultServer() as evil:
        files.on("GET", "/note", Reply(body=b"note", content_type="text/plain"))
        allowed = f"{files.root_url}/note"
        async with FhirClient(
            server.base_url,
            auth=BearerAuth("s3cret"),
            limits=SHORT,
            patience=IMPATIENT,
            allowed_origins=(files.root_url,),
        ) as client:
            pull = await _documents(
                server,
                client,
                _document("d1", url=allowed, contentType="text/plain"),
                _document("d2", url=f"{evil.root_url}/note", contentType="text/plain"),
                _document("d3", url="file:///etc/passwd", contentType="text/plain"),
                _document("d4", url="https://[bad", contentType="text/plain"),
            )
        assert pull.binaries == {allowed: b"note"}
        assert evil.requests == []
    assert {reason for _, reason in _gaps(pull)} == {GapReason.NOT_ALLOWED}
    assert {kind for kind, _ in _gaps(pull)} == {"DocumentReference"}


@pytest.mark.parametrize(
    ("answer", "attachment", "reason"),
    [
        (Reply(body=b"x", content_type="image/png"), {"contentType": "text/plain"}, GapReason.NOT_ALLOWED),
        (Reply(body=b"x"), {"contentType": "image/png"}, GapReason.NOT_ALLOWED),
        (Reply(json=resource("Patient", "p9")), {"contentType": "text/plain"}, GapReason.NOT_ALLOWED),
        (
            Reply(body=b"x" * 2_000, content_type="text/plain"),
            {"contentType": "text/plain"},
            GapReason.TOO_LARGE,
        ),
        (
            Reply(body=b"x", content_type="text/plain"),
            {"contentType": "text/plain", "size": 5000},
            GapReason.TOO_LARGE,
        ),
        (Reply(403), {"contentType": "text/plain"}, GapReason.REFUSED),
        (Reply(404), {"contentType": "text/plain"}, GapReason.FAILED),
        (Reply(delay_s=1.0), {"contentType": "text/plain"}, GapReason.TIMED_OUT),
    ],
)
async def test_an_attachment_that_is_not_read_is_a_gap(
    server: FaultServer, answer: Reply, attachment: dict[str, Any], reason: GapReason
) -> None:
    server.on("GET", "/fhir/Binary/b1", answer)
    limits = Limits(read_s=0.3, max_attachment_bytes=500)
    async with FhirClient(server.base_url, limits=limits, patience=IMPATIENT) as client:
        pull = await _documents(server, client, _document("d1", url="Binary/b1", **attachment))
    assert pull.binaries == {}
    assert _gaps(pull) == [("DocumentReference", reason)]


async def test_attachments_together_are_bounded(server: FaultServer) -> None:
    documents = []
    for number in range(6):
        server.on("GET", f"/fhir/Binary/b{number}", Reply(body=b"x" * 400, content_type="text/plain"))
        documents.append(_document(f"d{number}", url=f"Binary/b{number}", contentType="text/plain"))
    limits = Limits(concurrency=1, max_attachments_bytes=1_000)
    async with FhirClient(server.base_url, limits=limits, patience=IMPATIENT) as client:
        pull = await _documents(server, client, *documents)
    assert len(pull.binaries) == 3
    assert _gaps(pull) == [("DocumentReference", GapReason.TOO_LARGE)]


async def test_the_forms_of_a_report_are_read_too(server: FaultServer, client: FhirClient) -> None:
    serve_chart(server, "DiagnosticReport")
    report = resource(
        "DiagnosticReport", "r1", presentedForm=[{"url": "Binary/b1", "contentType": "text/html"}]
    )
    server.on("GET", "/fhir/DiagnosticReport", Reply(json=bundle(report)))
    server.on("GET", "/fhir/Binary/b1", Reply(body=b"<p>", content_type="text/html"))
    assert (await _pull(client)).binaries == {"Binary/b1": b"<p>"}


async def test_capabilities_are_asked_for_once(server: FaultServer, client: FhirClient) -> None:
    server.on("GET", "/fhir/metadata", Reply(json=capability_statement("Goal")))
    found = await asyncio.gather(*[client.capabilities() for _ in range(5)])
    assert {c.offers_search("Goal") for c in found} == {True}
    assert len(server.requests) == 1
