"""Calls of CDS services from end to end: who is let in, what is answered, what is recorded and kept."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from connectors.admissions.events import Admitted
from fixtures.sample_run import sample_run
from service.admissions.form import load_event
from service.errors import StoreError
from service.ports import Action, DocumentState, FiledDocument, RunId, Stop, StopScope
from service.ports.hooks import CardFeedback
from tests.conftest import CANARY
from tests.unit.api.cds.ehr import (
    BASE,
    CALLER,
    DISCHARGE,
    ISS,
    NOW,
    RUN,
    SERVER,
    TOKEN,
    VIEW,
    bundle,
    call,
    claims,
    grant,
    patient,
    token,
    unchanged,
    whole_prefetch,
)
from tests.unit.api.cds.stage import Drafts, Stage

AT = NOW.timestamp()


def issue(answer: httpx.Response) -> dict[str, Any]:
    """The one issue of an OperationOutcome."""
    said = answer.json()
    assert said["resourceType"] == "OperationOutcome"
    assert answer.headers["content-type"] == "application/fhir+json"
    (found,) = said["issue"]
    assert CANARY not in answer.text
    return dict(found)


def only_card(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    (card,) = answer.json()["cards"]
    return dict(card)


async def test_a_chart_that_is_opened_shows_the_card_of_its_summary() -> None:
    stage = Stage()
    card = only_card(await stage.post(call(prefetch=whole_prefetch())))
    assert card["summary"] == (
        "History (AI draft, not reviewed), read 4 h ago (24-Nov-2026 14:05 UTC) · 2 contradictions"
    )
    assert card["indicator"] == "info"
    assert card["source"] == {"label": "Epicrisis"}
    (link,) = card["links"]
    assert (link["url"], link["type"]) == (f"{BASE}/launch", "smart")
    assert link["appContext"] == '{"view":"history"}'
    assert {one["code"] for one in card["overrideReasons"]} == {"wrong", "outdated", "missing", "unhelpful"}
    assert "as they were" in card["detail"]
    assert stage.chart.asked == []


async def test_each_card_shown_stands_in_the_audit_log_with_a_user_that_nobody_has_verified() -> None:
    stage = Stage()
    await stage.post(call())
    (entry,) = stage.audit.entries
    assert (entry.action, entry.actor, entry.by) == (
        Action.VIEW, f"service:{ISS}", "Practitioner/7 (not verified)",
    )  # fmt: skip
    assert (entry.patient, entry.run_id, entry.server) == ("Patient/1", RUN.run_id, SERVER)


async def test_a_card_that_cannot_be_recorded_is_not_shown() -> None:
    for breaking in ("audit", "hooks"):
        stage = Stage()
        if breaking == "audit":
            stage.audit.break_down()
        else:
            stage.drafts.failure = StoreError("The database cannot be used.")
        answer = await stage.post(call())
        assert (answer.status_code, issue(answer)["code"]) == (503, "transient")
        assert answer.headers["retry-after"]


async def test_the_same_summary_is_the_same_card_at_one_ehr() -> None:
    stage = Stage()
    first, second = [only_card(await stage.post(call()))["uuid"] for _ in range(2)]
    assert first == second
    assert list(stage.hooks.cards) == [first]
    assert first != stage.hooks.card_of("county", RUN.run_id)


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        ("", "malformed"),
        ("x.y.z", "malformed"),
        (token(claims(iss="https://evil.example")), "issuer"),
        (token(claims(aud=BASE)), "audience"),
        (token(claims(exp=AT - 61)), "expired"),
        (token(claims(), alg="ES384", kid="no"), "unknown_key"),
    ],
)
async def test_a_caller_who_is_not_known_is_refused_before_anything_is_read(shown: str, reason: str) -> None:
    stage = Stage()
    answer = await stage.post(b"not even looked at", shown=shown)
    assert (answer.status_code, issue(answer)["code"]) == (401, "login")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert [(e.action, e.outcome, e.patient) for e in stage.audit.entries] == [(Action.REFUSED, reason, "")]
    assert stage.drafts.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "Basic YTpi")],
        [("authorization", token())],
        [("authorization", f"Bearer {token()}"), ("authorization", f"Bearer {token()}")],
    ],
)
async def test_one_bearer_token_is_wanted(headers: list[tuple[str, str]]) -> None:
    stage = Stage()
    transport = httpx.ASGITransport(app=stage.app)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        answer = await client.post(f"/cds-services/{VIEW}", json=call(), headers=headers)
    assert answer.status_code == 401


async def test_a_call_that_is_sent_again_is_refused() -> None:
    stage = Stage()
    shown = token(claims())
    assert (await stage.post(call(), shown=shown)).status_code == 200
    assert (await stage.post(call(), shown=shown)).status_code == 401
    assert stage.audit.entries[-1].outcome == "replayed"


async def test_while_keys_or_uses_cannot_be_had_nobody_is_let_in() -> None:
    stage = Stage()
    stage.keys.down = True
    assert (await stage.post(call())).status_code == 503
    stage = Stage()
    stage.hooks.broken = True
    answer = await stage.post(call())
    assert (answer.status_code, issue(answer)["code"]) == (503, "transient")


async def test_a_service_that_does_not_exist_is_not_found() -> None:
    answer = await Stage().post(call(), service="epicrisis-order-sign")
    assert (answer.status_code, issue(answer)["code"]) == (404, "not-found")


async def test_an_ehr_that_calls_without_end_waits() -> None:
    stage = Stage()
    stage.rate.burst, stage.rate.per_s = 2, 0
    assert [(await stage.post(call())).status_code for _ in range(3)] == [200, 200, 429]
    answer = await stage.post(call())
    assert (issue(answer)["code"], answer.headers["retry-after"]) == ("throttled", "1")


@pytest.mark.parametrize("said", [b"", b"\xff", b"[]", b"7", b'{"hook":' * 5000])
async def test_a_body_that_is_no_call_is_refused_in_words_of_our_own(said: bytes) -> None:
    answer = await Stage().post(said)
    assert (answer.status_code, issue(answer)["code"]) == (400, "invalid")


async def test_no_error_repeats_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    with caplog.at_level(logging.DEBUG):
        for said in (
            call(hook=CANARY), call(context={"userId": CANARY, "patientId": CANARY}),
            call(prefetch={"patient": patient(id=CANARY)}), call(fhirServer=f"https://{CANARY}.example"),
            call(fhirAuthorization=grant(subject=CANARY)), call(hookInstance=CANARY), CANARY.encode(),
        ):  # fmt: skip
            answer = await stage.post(said)
            assert answer.status_code in (400, 403)
            issue(answer)
    assert CANARY not in caplog.text
    assert TOKEN not in caplog.text


async def test_a_patient_or_a_relative_is_shown_nothing() -> None:
    for user in ("Patient/1", "RelatedPerson/3"):
        stage = Stage()
        answer = await stage.post(call(context={"userId": user, "patientId": "1"}))
        assert answer.json() == {"cards": []}
        assert stage.drafts.asked == []
        assert stage.audit.entries == []


async def test_nothing_stored_is_no_card_and_a_visit_of_the_next_pass() -> None:
    stage = Stage(drafts=Drafts())
    for _ in range(2):
        answer = await stage.post(call("encounter-discharge"), DISCHARGE)
        assert (answer.status_code, answer.json()) == (200, {"cards": []})
    (heard,) = stage.admissions.unheeded()
    event = load_event(heard.content)
    assert isinstance(event, Admitted)
    assert (event.patient.reference, event.visit.reference) == ("Patient/1", "Encounter/9")
    assert stage.admissions.nudges() == 1
    assert stage.audit.entries == []
    stage.now += timedelta(days=1)
    later = claims(DISCHARGE, iat=stage.now.timestamp(), exp=stage.now.timestamp() + 300)
    await stage.post(call("encounter-discharge"), DISCHARGE, shown=token(later))
    assert len(stage.admissions.unheeded()) == 2


async def test_without_an_encounter_the_patient_is_put_on_the_list() -> None:
    stage = Stage(drafts=Drafts())
    await stage.post(call())
    (heard,) = stage.admissions.unheeded()
    event = load_event(heard.content)
    assert (event.patient.reference, event.visit.reference) == ("Patient/1", "")


async def test_of_a_server_that_no_schedule_reads_nobody_is_put_on_a_list() -> None:
    stage = Stage(drafts=Drafts(), swept="https://other.example/fhir")
    assert (await stage.post(call())).json() == {"cards": []}
    assert stage.admissions.unheeded() == []


async def test_a_summary_that_is_stopped_withdrawn_or_shredded_gives_no_card_and_asks_for_none() -> None:
    stopped, withdrawn, shredded = Stage(), Stage(), Stage()
    stopped.drafts.add_stop(Stop(StopScope.ALL, "", NOW, "user:local"))
    withdrawn.drafts.put_document(document(DocumentState.WITHDRAWN))
    shredded.drafts.shredded.add("Patient/1")
    for stage in (stopped, withdrawn, shredded):
        assert (await stage.post(call())).json() == {"cards": []}
        assert stage.admissions.unheeded() == []
        assert stage.audit.entries == []


async def test_a_patient_shredded_while_the_call_is_answered_gives_no_card() -> None:
    stage = Stage()
    stage.hooks.shredded.add("Patient/1")
    answer = await stage.post(call())
    assert CANARY not in answer.text
    assert answer.json() == {"cards": []}
    assert stage.audit.entries == []


def document(state: DocumentState) -> FiledDocument:
    return FiledDocument(
        "DocumentReference/907", RUN.inputs.server, "1", RUN.run_id, "Patient/1", state, RUN.created_at
    )


async def test_an_attested_summary_says_so() -> None:
    stage = Stage()
    stage.drafts.put_document(document(DocumentState.ATTESTED))
    card = only_card(await stage.post(call()))
    assert "(attested)" in card["summary"]
    assert "Not reviewed" not in card["detail"]


async def test_at_discharge_the_summary_of_the_stay_comes_first() -> None:
    history = replace(RUN, inputs=replace(RUN.inputs, server=SERVER))
    stay = replace(
        history,
        run_id=RunId("run_of_the_stay"),
        inputs=replace(history.inputs, kind="admission", encounter="Encounter/9"),
        summary=replace(history.summary, kind="admission"),
    )
    stage = Stage(drafts=Drafts(history, stay))
    card = only_card(await stage.post(call("encounter-discharge"), DISCHARGE))
    assert card["summary"].startswith("Admission (AI draft")
    assert card["links"][0]["appContext"] == '{"view":"admission"}'
    card = only_card(await stage.post(call()))
    assert card["summary"].startswith("History (AI draft")
    assert stage.drafts.asked[0] == (SERVER, "Patient/1", "admission", "Encounter/9")


async def test_an_incomplete_summary_and_a_changed_chart_are_warnings() -> None:
    stage = Stage(drafts=Drafts(sample_run(incomplete=True)))
    card = only_card(await stage.post(call()))
    assert card["indicator"] == "warning"
    assert card["summary"].endswith("· INCOMPLETE")
    new = {
        "resourceType": "AllergyIntolerance", "id": "new", "patient": {"reference": "Patient/1"},
        "meta": {"versionId": "1", "lastUpdated": NOW.isoformat()},
    }  # fmt: skip
    changed = whole_prefetch(allergies=bundle(*unchanged("AllergyIntolerance"), new))
    card = only_card(await Stage().post(call(prefetch=changed)))
    assert card["indicator"] == "warning"
    assert card["summary"].endswith("· chart changed since")


async def test_without_prefetch_and_without_a_grant_the_card_says_that_nothing_was_compared() -> None:
    stage = Stage()
    card = only_card(await stage.post(call()))
    assert (
        "Not compared with the chart as it is now: allergies, problems, medication orders." in card["detail"]
    )
    assert stage.chart.asked == []


async def test_what_was_not_sent_is_read_with_the_grant_from_that_server_alone() -> None:
    stage = Stage()
    stage.chart.answers = {
        "AllergyIntolerance?patient=1": httpx.Response(200, json=bundle(*unchanged("AllergyIntolerance"))),
        "MedicationRequest?patient=1": httpx.Response(200, json=bundle(*unchanged("MedicationRequest"))),
    }
    sent = {"patient": patient(), "conditions": bundle(*unchanged("Condition"))}
    card = only_card(await stage.post(call(prefetch=sent, fhirAuthorization=grant())))
    assert "as they were" in card["detail"]
    assert sorted(stage.chart.asked) == [
        ("AllergyIntolerance?patient=1", f"Bearer {TOKEN}"),
        ("MedicationRequest?patient=1", f"Bearer {TOKEN}"),
    ]
    assert TOKEN not in repr(stage.audit.entries) + repr(stage.hooks.__dict__)


async def test_what_the_grant_does_not_cover_is_not_asked_for() -> None:
    stage = Stage()
    narrow = grant(
        scope="patient/Condition.rs patient/AllergyIntolerance.c user/MedicationRequest.rs?status=x"
    )
    card = only_card(await stage.post(call(fhirAuthorization=narrow)))
    assert [asked for asked, _ in stage.chart.asked] == ["Condition?patient=1"]
    assert (
        "Not compared with the chart as it is now: allergies, problems, medication orders." in card["detail"]
    )


async def test_a_patient_whom_the_ehr_does_not_know_is_a_failed_precondition() -> None:
    stage = Stage()
    answer = await stage.post(call(fhirAuthorization=grant()))
    assert (answer.status_code, issue(answer)["code"]) == (412, "not-found")
    for sent in (None, {"resourceType": "OperationOutcome", "issue": []}):
        answer = await Stage().post(call(prefetch={"patient": sent}))
        assert answer.status_code == 412
    assert stage.audit.entries == []


async def test_what_is_of_another_patient_refuses_the_call() -> None:
    foreign = unchanged("Condition", of="Patient/2")
    for sent in ({"patient": patient(id="2")}, {"conditions": bundle(*foreign)}):
        stage = Stage()
        assert (await stage.post(call(prefetch=sent))).status_code == 400
        assert stage.audit.entries == []


async def test_a_chart_that_is_of_another_person_now_shows_no_card() -> None:
    for now in (
        patient(birthDate="1990-01-01"),
        patient(active=False),
        patient(link=[{"type": "replaced-by", "other": {"reference": "Patient/2"}}]),
    ):
        stage = Stage()
        assert (await stage.post(call(prefetch={"patient": now}))).json() == {"cards": []}
        assert stage.audit.entries == []


async def test_discovery_lists_both_services_to_anybody() -> None:
    answer = await Stage().send("GET", "/cds-services")
    assert answer.status_code == 200
    services = {one["id"]: one for one in answer.json()["services"]}
    assert {name: one["hook"] for name, one in services.items()} == {
        VIEW: "patient-view", DISCHARGE: "encounter-discharge",
    }  # fmt: skip
    for one in services.values():
        assert one["description"]
        assert one["title"]
        assert one["prefetch"] == {
            "patient": "Patient/{{context.patientId}}",
            "allergies": "AllergyIntolerance?patient={{context.patientId}}",
            "conditions": "Condition?patient={{context.patientId}}",
            "medications": "MedicationRequest?patient={{context.patientId}}",
        }


@pytest.mark.parametrize("path", ["/cds-services", f"/cds-services/{VIEW}", f"/cds-services/{VIEW}/feedback"])
async def test_a_page_of_a_configured_ehr_may_call_and_no_other_page(path: str) -> None:
    stage = Stage()
    answer = await stage.send("OPTIONS", path, headers={"origin": ISS})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == ISS
    assert answer.headers["access-control-allow-headers"] == "Authorization, Content-Type"
    assert answer.headers["vary"] == "Origin"
    for origin in ("https://evil.example", f"{ISS}.evil.example", "null", "*", ""):
        answer = await stage.send("OPTIONS", path, headers={"origin": origin})
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "access-control-allow-credentials" not in answer.headers


async def test_an_answer_may_be_read_by_a_page_of_the_ehr() -> None:
    answer = await Stage().post(call(), origin=ISS)
    assert answer.headers["access-control-allow-origin"] == ISS
    refused = await Stage().post(call(), shown="x", origin=ISS)
    assert refused.headers["access-control-allow-origin"] == ISS
    assert (
        "access-control-allow-origin" not in (await Stage().post(call(), origin="https://e.example")).headers
    )


async def send_feedback(stage: Stage, *said: dict[str, Any], shown: str = "") -> httpx.Response:
    bearer = shown or token(claims(f"{VIEW}/feedback"))
    return await stage.send(
        "POST",
        f"/cds-services/{VIEW}/feedback",
        {"feedback": list(said)},
        {"authorization": f"Bearer {bearer}"},
    )


def act(card: str, /, **more: Any) -> dict[str, Any]:
    return {"card": card, "outcome": "overridden", "outcomeTimestamp": "2026-11-24T17:10:00Z"} | more


async def test_what_became_of_a_card_is_kept_once_with_its_reason() -> None:
    stage = Stage()
    card = only_card(await stage.post(call()))["uuid"]
    reason = {
        "reason": {"code": "outdated", "system": "urn:epicrisis:override-reason"},
        "userComment": CANARY,
    }
    for _ in range(2):
        answer = await send_feedback(stage, act(card, overrideReason=reason), act(card, outcome="accepted"))
        assert answer.status_code == 200
    assert stage.hooks.outcomes() == {"overridden:outdated": 1, "accepted": 1}
    kept = next(one for one in stage.hooks.said.values() if one.outcome == "overridden")
    assert kept == CardFeedback(card, "overridden", kept.acted_at, "outdated", CANARY)
    entries = [entry for entry in stage.audit.entries if entry.action is Action.FEEDBACK]
    assert [dict(entry.counts) for entry in entries] == [
        {"accepted": 1, "overridden": 1, "new": 2}, {"accepted": 1, "overridden": 1, "new": 0},
    ]  # fmt: skip
    assert {(entry.patient, entry.run_id) for entry in entries} == {("Patient/1", RUN.run_id)}
    assert CANARY not in repr(entries)


async def test_a_card_that_this_ehr_was_not_shown_is_not_known() -> None:
    county = replace(CALLER, ehr="county", iss="https://county.example")
    stage = Stage(callers_known=(CALLER, county))
    card = only_card(await stage.post(call()))["uuid"]
    theirs = token(claims(f"{VIEW}/feedback", iss=county.iss))
    for answer in (
        await send_feedback(stage, act(str(uuid4()))), await send_feedback(stage, act(card), shown=theirs),
    ):  # fmt: skip
        assert (answer.status_code, issue(answer)["code"]) == (404, "not-found")
    stage.hooks.shredded.add("Patient/1")
    assert (await send_feedback(stage, act(card))).status_code == 404
    assert not stage.hooks.said


async def test_feedback_needs_the_callers_token_for_this_service() -> None:
    stage = Stage()
    card = only_card(await stage.post(call()))["uuid"]
    assert (await send_feedback(stage, act(card), shown=token(claims(VIEW)))).status_code == 200
    assert (await send_feedback(stage, act(card), shown=token(claims(DISCHARGE)))).status_code == 401
    assert (await stage.post(call(), shown=token(claims(f"{VIEW}/feedback")))).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        {"card": "x"},
        {"card": None},
        {"outcome": "ignored"},
        {"outcomeTimestamp": "yesterday"},
        {"outcomeTimestamp": "2026-11-24T17:10:00"},
        {"outcomeTimestamp": None},
        {"overrideReason": "because"},
        {"overrideReason": {"userComment": 7}},
    ],
)
async def test_feedback_that_breaks_the_specification_is_refused(change: dict[str, Any]) -> None:
    stage = Stage()
    card = only_card(await stage.post(call()))["uuid"]
    answer = await send_feedback(stage, act(card), act(card, **change))
    assert (answer.status_code, issue(answer)["code"]) == (400, "invalid")
    assert not stage.hooks.said


async def test_feedback_that_is_no_list_or_too_long_a_one_is_refused() -> None:
    stage = Stage()
    shown = {"authorization": f"Bearer {token(claims(f'{VIEW}/feedback'))}"}
    answer = await stage.send("POST", f"/cds-services/{VIEW}/feedback", {"feedback": []}, shown)
    assert answer.status_code == 400
    assert (await send_feedback(stage, *[act(str(uuid4()))] * 101)).status_code == 400


async def test_a_reason_of_the_ehrs_own_is_kept_in_its_words() -> None:
    stage = Stage()
    card = only_card(await stage.post(call()))["uuid"]
    own = {"reason": {"code": "d7", "system": "https://ehr.example/reasons", "display": "Too long"}}
    await send_feedback(stage, act(card, overrideReason=own))
    (kept,) = stage.hooks.said.values()
    assert (kept.reason, kept.words) == ("other", "https://ehr.example/reasons|d7 Too long")
