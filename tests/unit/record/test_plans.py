"""Plans, goals, devices, directives, answers and the patient as lines of text."""

from __future__ import annotations

from typing import Any

from service.record.assemble import assemble_record
from service.record.facts import Kind, Status
from tests.unit.record.charts import fact_of, facts_of, named, patient, record_of, resource, text_of


def code(value: str) -> dict[str, Any]:
    return {"coding": [{"code": value}]}


def test_a_care_plan_and_its_activities() -> None:
    plan = resource(
        "CarePlan",
        status="active",
        intent="plan",
        title="Wound care",
        description="d",
        period={"start": "2020-01-01"},
        addresses=[{"display": "wound"}],
        activity=[
            {"detail": {"code": named("Dressing"), "status": "in-progress", "scheduledString": "daily"}},
            {
                "detail": {
                    "code": named("Swimming"),
                    "status": "not-started",
                    "doNotPerform": True,
                    "description": "pool",
                }
            },
            {"reference": {"display": "Physiotherapy"}, "progress": [{"text": "slow"}]},
            {},
        ],
    )
    by_name = {f.name: f for f in facts_of(plan)}
    assert {n: f.text for n, f in by_name.items()} == {
        "Wound care": "Wound care: care plan, active (plan) from 01-Jan-2020; description: d; for: wound",
        "Dressing": "Dressing: care plan activity, in progress; plan: Wound care; scheduled: daily",
        "Swimming": (
            "Swimming: care plan activity, NOT to be done (not started); plan: Wound care; description: pool"
        ),
        "Physiotherapy": (
            "Physiotherapy: care plan activity, status in the activity's own"
            " record; plan: Wound care; progress: slow"
        ),
    }
    assert by_name["Swimming"].status is Status.NOT_DONE
    assert text_of("CarePlan", status="active", category=[code("assess-plan")]).startswith("assess-plan: ")


def test_a_goal() -> None:
    target = [
        {"measure": named("Weight"), "detailQuantity": {"value": 70, "unit": "kg"}, "dueDate": "2021-01-01"}
    ]
    assert text_of(
        "Goal",
        lifecycleStatus="active",
        achievementStatus=named("improving"),
        description=named("Lose weight"),
        startDate="2020-01-01",
        target=target,
    ) == (
        "Lose weight: goal, active from 01-Jan-2020; achievement: improving;"
        " target: Weight 70 kg by 01-Jan-2021"
    )
    assert text_of("Goal", status="rejected", description="Run") == "Run: goal, rejected"
    assert record_of(resource("Goal")).skipped == {"no_statement": 1}


def test_devices() -> None:
    name = [{"name": "model x", "type": "model-name"}, {"name": "Pacemaker", "type": "user-friendly-name"}]
    fact = fact_of(
        "Device",
        status="active",
        deviceName=name,
        manufacturer="M",
        lotNumber="7",
        udiCarrier=[{"carrierHRF": "(01)5"}],
    )
    assert fact.text == "Pacemaker: device, active; manufacturer: M"
    assert dict(fact.details) == {"manufacturer": "M", "udi": "(01)5", "lot": "7"}
    pump = {**resource("Device", type=named("Pump")), "id": "d"}
    use = {"device": {"reference": "Device/d"}, "bodySite": named("arm"), "recordedOn": "2020"}
    assert text_of("DeviceUseStatement", pump, status="active", **use) == (
        "Pump: device use, active; body site: arm; recorded 2020"
    )
    assert text_of(
        "DeviceUseStatement", pump, status="completed", timingPeriod={"start": "2019", "end": "2020"}, **use
    ) == ("Pump: device use, completed from 2019 to 2020; body site: arm")
    by_udi = text_of("Device", status="active", udiCarrier=[{"carrierHRF": "(01)5"}])
    assert by_udi == "Device without a recorded name: device, active; UDI: (01)5"
    unnamed = {**resource("Device"), "id": "u"}
    assert record_of(unnamed, resource("DeviceUseStatement")).skipped == {"no_statement": 2}
    assert record_of({"resourceType": "Device", "id": "shelf"}).skipped == {"supporting": 1}


def test_consents_and_flags() -> None:
    scope = "http://terminology.hl7.org/CodeSystem/consentscope"
    living_will = fact_of(
        "Consent",
        status="active",
        scope=named("Advance Directive", scope, "adr"),
        dateTime="2020-01-01",
        category=[named("Living will")],
        provision={"type": "deny", "code": [named("intubation")]},
        sourceAttachment={"title": "Will"},
    )
    assert living_will.text == (
        "Living will, Advance Directive: consent or directive, active on 01-Jan-2020; decision: deny;"
        " about: intubation; source: Will"
    )
    wish = fact_of("Consent", status="active", scope=named("Treatment", scope, "treatment"))
    assert (wish.category, wish.kind) == ("preference", Kind.DIRECTIVE)
    assert "not an order" in wish.text
    privacy = resource("Consent", status="active", scope=named("Privacy", scope, "patient-privacy"))
    assert record_of(privacy).skipped == {"administrative": 1}
    assert text_of(
        "Flag", status="active", code=named("Fall risk"), category=[named("Safety")], period={"start": "2020"}
    ) == ("Fall risk: flag, active since 2020; category: Safety")
    assert text_of(
        "Flag", status="inactive", category=[named("MRSA")], period={"start": "2020", "end": "2021"}
    ) == ("MRSA: flag, inactive from 2020 to 2021")
    assert fact_of("Flag", status="active", code=named("DNR")).kind is Kind.DIRECTIVE
    assert record_of(resource("Flag")).skipped == {"no_statement": 1}


def test_answers_are_read_at_any_depth() -> None:
    deepest = {"linkId": "1.1", "text": "How many?", "answer": [{"valueInteger": 3}, {"valueString": "or 4"}]}
    items = [
        {
            "text": "Habits",
            "item": [{"text": "Smoking?", "answer": [{"valueBoolean": True, "item": [deepest]}]}],
        },
        {"linkId": "2", "answer": [{"valueReference": {"display": "Clinic"}}]},
        {"linkId": "3"},
    ]
    found = facts_of(resource("QuestionnaireResponse", status="completed", authored="2020-01-01", item=items))
    assert [f.text for f in found] == [
        "Smoking?: yes on 01-Jan-2020; part of: Habits",
        "How many?: 3, or 4 on 01-Jan-2020; part of: Habits / Smoking?",
        "Question 2: Clinic on 01-Jan-2020",
    ]
    assert all(f.kind is Kind.SOCIAL for f in found)
    unfinished = text_of(
        "QuestionnaireResponse", status="in-progress", item=[{"answer": [{"valueString": "a"}]}]
    )
    assert unfinished == "Question without text: a (in progress)"


def test_impressions_and_risks() -> None:
    finding = [{"itemCodeableConcept": named("fracture")}, {"itemReference": {"display": "pain"}}]
    assert text_of("ClinicalImpression", status="in-progress", summary="s", finding=finding, date="2020") == (
        "Clinical impression: assessment (in progress) in 2020; summary: s; findings: fracture, pain"
    )
    prediction = [
        {
            "outcome": named("stroke"),
            "probabilityDecimal": 0.02,
            "qualitativeRisk": named("low"),
            "whenRange": {"high": {"value": 5, "unit": "a"}},
        }
    ]
    assert text_of(
        "RiskAssessment",
        status="final",
        prediction=prediction,
        occurrencePeriod={"start": "2019", "end": "2020"},
    ) == (
        "Risk assessment: assessment from 2019 to 2020; predicted: stroke"
        " (probability 0.02, low, within ≤5 a)"
    )
    assert record_of(resource("ClinicalImpression"), resource("RiskAssessment")).skipped == {
        "no_statement": 2
    }


def test_the_patient_is_a_fact_without_a_name() -> None:
    languages = [
        {"language": named("Dutch"), "preferred": True},
        {"language": named("French"), "preferred": False},
    ]
    record = assemble_record([patient(communication=languages, deceasedDateTime="2020-01-01", active=False)])
    assert record.facts[0].text == "Patient: female; born 04-May-1951; deceased 01-Jan-2020; language: Dutch"
    assert record.facts[0].status is Status.INACTIVE
    assert (record.identity.deceased, record.identity.deceased_when) == (True, "2020-01-01")
    bare = assemble_record([{"resourceType": "Patient", "id": "1", "deceasedBoolean": True}])
    assert bare.facts[0].text == "Patient: gender not recorded; birth date not recorded; deceased"
    assert bare.identity.name == ""


def test_names_of_people_places_and_things() -> None:
    practitioner = {
        "resourceType": "Practitioner",
        "id": "p",
        "name": [{"use": "old", "text": "Old"}, {"use": "official", "text": "Dr. Good"}],
    }
    role = {"resourceType": "PractitionerRole", "id": "r", "practitioner": {"reference": "Practitioner/p"}}
    asserter = {"asserter": {"reference": "PractitionerRole/r"}}
    assert fact_of("Condition", practitioner, role, code=named("x"), **asserter).author == "Dr. Good"
    assert fact_of("Condition", code=named("x"), recorder={"reference": "Patient/1"}).author == "the patient"
    clinic = {"resourceType": "Organization", "id": "o", "name": "Clinic"}
    assert (
        fact_of("Observation", clinic, code=named("x"), performer=[{"reference": "Organization/o"}]).author
        == "Clinic"
    )
    assert fact_of("Condition", code=named("x"), asserter={"reference": "Practitioner/none"}).author == ""
