"""Calls of CDS services over real HTTP, on a real database, with keys and a chart on another server."""

from __future__ import annotations

import logging
from pathlib import Path

import httpx
import pytest

from connectors.admissions.events import Admitted
from service.admissions.form import load_event
from service.doctor import examine
from service.ports import Action
from service.store.hook_calls import SqlHookCalls
from service.store.sweeps import SqlAdmissions
from service.wiring import open_store, utc_now
from service.wiring.installation import database_of
from tests.conftest import CANARY
from tests.integration.cds.conftest import Site, serving
from tests.integration.connectors.fault_server import Reply
from tests.unit.api.cds.ehr import DISCHARGE, TOKEN, VIEW, grant, whole_prefetch


async def test_a_card_is_shown_and_stands_in_the_audit_log(site: Site) -> None:
    answer = await site.post(site.call(prefetch=whole_prefetch()))
    assert answer.status_code == 200
    (card,) = answer.json()["cards"]
    assert card["summary"].startswith("History (AI draft, not reviewed), read ")
    assert card["links"][0]["url"] == f"{site.addresses[0]}/launch"
    assert "as they were" in card["detail"]
    assert [one.path for one in site.ehr.requests] == ["/jwks.json"]
    _, audit = open_store(site.settings)
    (entry,) = [one for one in audit.entries() if one.action is Action.VIEW]
    assert (entry.actor, entry.patient) == ("service:https://ehr.hospital.example", "Patient/1")
    assert entry.by == "Practitioner/7 (not verified)"


async def test_a_grant_is_shown_to_the_ehr_alone_and_kept_nowhere(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = await site.post(site.call(fhirAuthorization=grant()))
    (card,) = answer.json()["cards"]
    assert "as they were" in card["detail"]
    reads = [one for one in site.ehr.requests if one.path.startswith("/fhir/")]
    assert sorted(one.path for one in reads) == [
        "/fhir/AllergyIntolerance", "/fhir/Condition", "/fhir/MedicationRequest", "/fhir/Patient/1",
    ]  # fmt: skip
    assert {one.headers["authorization"] for one in reads} == {f"Bearer {TOKEN}"}
    keys = [one for one in site.ehr.requests if one.path == "/jwks.json"]
    assert all("authorization" not in one.headers for one in keys)
    assert TOKEN not in caplog.text
    assert CANARY not in caplog.text
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()


async def test_a_token_used_at_one_process_is_used_up_at_another(site: Site) -> None:
    with serving(site.settings) as other:
        shown = site.token(other, aud=[f"{one}/cds-services/{VIEW}" for one in (other, site.addresses[0])])
        assert (await site.post(site.call(), shown=shown)).status_code == 200
        refused = await site.post(site.call(), address=other, shown=shown)
        assert refused.status_code == 401
        assert (await site.post(site.call(), address=other)).status_code == 200


async def test_a_token_for_another_address_of_a_service_is_refused(site: Site) -> None:
    for aud in (
        f"{site.addresses[0]}/cds-services/{DISCHARGE}",
        f"https://epicrisis.example/cds-services/{VIEW}",
    ):
        answer = await site.post(site.call(), shown=site.token(site.addresses[0], aud=aud))
        assert answer.status_code == 401
        assert answer.json()["resourceType"] == "OperationOutcome"


async def test_nothing_stored_is_no_card_and_one_visit_on_the_list(site: Site) -> None:
    for _ in range(3):
        said = site.call("encounter-discharge", "none-yet")
        assert (await site.post(said, DISCHARGE)).json() == {"cards": []}
    admissions = SqlAdmissions(*database_of(site.settings), utc_now)
    (heard,) = admissions.unheeded()
    event = load_event(heard.content)
    assert isinstance(event, Admitted)
    assert (event.patient.reference, event.visit.reference) == ("Patient/none-yet", "Encounter/9")
    assert admissions.nudges() == 1
    admissions.close()


async def test_an_unknown_patient_is_a_failed_precondition(site: Site) -> None:
    answer = await site.post(site.call(prefetch={"patient": None}))
    assert answer.status_code == 412
    site.ehr.on("GET", "/fhir/Patient/1")
    answer = await site.post(site.call(fhirAuthorization=grant()))
    assert answer.status_code == 412


async def test_a_body_that_is_too_large_is_refused_in_the_ehrs_own_form(site: Site) -> None:
    answer = await site.post(b"[" + b" " * (4 * 1024 * 1024) + b"]")
    assert answer.status_code == 413
    assert answer.json()["resourceType"] == "OperationOutcome"


async def test_feedback_is_kept_sealed(site: Site, tmp_path: Path) -> None:
    (card,) = (await site.post(site.call())).json()["cards"]
    act = {
        "card": card["uuid"], "outcome": "overridden", "outcomeTimestamp": "2026-11-28T09:00:00.5Z",
        "overrideReason": {
            "reason": {"code": "wrong", "system": "urn:epicrisis:override-reason"},
            "userComment": f"{CANARY} has no such allergy",
        },
    }  # fmt: skip
    answer = await site.post({"feedback": [act]}, f"{VIEW}/feedback")
    assert answer.status_code == 200
    kept = SqlHookCalls(*database_of(site.settings))
    assert kept.outcomes() == {"overridden:wrong": 1}
    assert [one.words for one in kept.feedback_of(site.run.run_id)] == [f"{CANARY} has no such allergy"]
    kept.close()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes()


async def test_doctor_says_whether_keys_can_be_had_and_what_became_of_cards(site: Site) -> None:
    async def told() -> list[tuple[str, str, str]]:
        found = await examine(site.settings)
        return [(one.name, one.state, one.detail) for one in found if one.name.startswith("CDS")]

    assert await told() == [
        ("CDS caller general", "ok", "2 keys"), ("CDS cards", "ok", "no feedback yet"),
    ]  # fmt: skip
    (card,) = (await site.post(site.call())).json()["cards"]
    act = {"card": card["uuid"], "outcome": "accepted", "outcomeTimestamp": "2026-11-28T09:00:00Z"}
    await site.post({"feedback": [act]}, f"{VIEW}/feedback")
    site.ehr.on("GET", "/jwks.json", Reply(json={"keys": []}))
    assert await told() == [
        ("CDS caller general", "failed", "no key for ES384 or RS384"), ("CDS cards", "ok", "accepted: 1"),
    ]  # fmt: skip


async def test_discovery_is_open_and_shared_with_pages_of_the_ehr_alone(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.addresses[0], trust_env=False) as client:
        answer = await client.get("/cds-services", headers={"origin": site.ehr.root_url})
        assert [one["hook"] for one in answer.json()["services"]] == ["patient-view", "encounter-discharge"]
        assert answer.headers["access-control-allow-origin"] == site.ehr.root_url
        asked = {"origin": site.ehr.root_url, "access-control-request-method": "POST"}
        assert (await client.options(f"/cds-services/{VIEW}", headers=asked)).status_code == 204
        elsewhere = await client.get("/cds-services", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in elsewhere.headers
