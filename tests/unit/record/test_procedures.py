"""Procedures, immunizations, encounters, reports, pictures and orders as lines of text."""

from __future__ import annotations

from typing import Any

import pytest

from service.record.facts import Kind, Status
from tests.unit.record.charts import fact_of, named, record_of, resource, text_of


def code(value: str) -> dict[str, Any]:
    return {"coding": [{"code": value}]}


@pytest.mark.parametrize(
    ("fields", "text", "status"),
    [
        (
            {"status": "completed", "performedDateTime": "2004-03-12"},
            "completed on 12-Mar-2004",
            Status.COMPLETED,
        ),
        (
            {"status": "preparation", "performedDateTime": "2004-03-12"},
            "preparation, planned for 12-Mar-2004",
            Status.PLANNED,
        ),
        (
            {"status": "preparation", "performedString": "soon"},
            "preparation, planned for: soon",
            Status.PLANNED,
        ),
        (
            {"status": "completed", "notPerformed": True, "reasonNotPerformed": [named("no")]},
            "not done (no)",
            Status.NOT_DONE,
        ),
        (
            {"status": "stopped", "performedPeriod": {"start": "2004", "end": "2005"}},
            "stopped from 2004 to 2005",
            Status.STOPPED,
        ),
        (
            {"status": "completed", "performedAge": {"value": 5, "unit": "a"}},
            "completed (at age 5 a)",
            Status.COMPLETED,
        ),
        ({"status": "completed", "performedString": "long ago"}, "completed (long ago)", Status.COMPLETED),
        (
            {
                "status": "completed",
                "bodySite": [named("left eye")],
                "outcome": named("good"),
                "complication": [named("bleeding")],
                "focalDevice": [{"manipulated": {"display": "lens"}}],
                "reasonReference": [{"reference": "Condition/c"}],
            },
            "completed; body site: left eye; reason: Cataract (refuted); outcome:"
            " good; complication: bleeding;"
            " device: lens",
            Status.COMPLETED,
        ),
    ],
)
def test_a_procedure(fields: dict[str, Any], text: str, status: Status) -> None:
    cataract = {
        **resource("Condition", code=named("Cataract"), verificationStatus=code("refuted")),
        "id": "c",
    }
    fact = fact_of("Procedure", cataract, code=named("Surgery"), **fields)
    assert (fact.text, fact.status) == (f"Surgery: {text}", status)


def test_an_immunization() -> None:
    assert text_of(
        "Immunization",
        status="completed",
        vaccineCode=named("MMR"),
        occurrenceDateTime="2012-01-01",
        lotNumber="7",
        protocolApplied=[{"doseNumberPositiveInt": 2, "seriesDosesPositiveInt": 3}],
        isSubpotent=True,
        primarySource=False,
        reaction=[{"detail": {"display": "fever"}}],
    ) == (
        "Immunization MMR: completed on 01-Jan-2012; source: reported, not"
        " from the primary source; subpotent: yes;"
        " dose number: 2 of 3; reaction: fever; lot: 7"
    )
    told = text_of(
        "Immunization",
        status="completed",
        vaccineCode=named("MMR"),
        occurrenceString="as a child",
        recorded="2020",
    )
    assert told == "Immunization MMR: completed as a child; recorded 2020"
    assert text_of(
        "Immunization", status="completed", vaccineCode=named("MMR"), notGiven=True, date="2012"
    ) == ("Immunization MMR: not done, recorded 2012")
    assert record_of(resource("Procedure"), resource("Immunization")).skipped == {"no_statement": 2}


def test_an_encounter_in_full() -> None:
    text = text_of(
        "Encounter",
        {**resource("Condition", code=named("Pneumonia")), "id": "c"},
        status="finished",
        type=[named("Admission")],
        period={"start": "2012-02-03T10:00:00Z", "end": "2012-02-07"},
        reasonCode=[named("cough")],
        serviceType=named("medicine"),
        diagnosis=[
            {"condition": {"display": "Gout"}, "rank": 2},
            {"condition": {"reference": "Condition/c"}, "use": named("DD"), "rank": 1},
        ],
        hospitalization={
            "admitSource": named("ED"),
            "reAdmission": named("yes"),
            "dischargeDisposition": named("Home"),
        },
        location=[{"location": {"display": "Ward 1"}}],
        serviceProvider={"display": "General"},
        participant=[{"individual": {"display": "Dr. Who"}}],
        **{"class": {"code": "IMP"}},
    )
    assert text == (
        "Admission: inpatient encounter, finished, from 03-Feb-2012 to"
        " 07-Feb-2012 (4 days); service: medicine;"
        " reason: cough; diagnoses: Pneumonia (DD), Gout; admitted from: ED; readmission: yes;"
        " discharged to: Home; location: Ward 1; provider: General"
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {
                "status": "finished",
                "class": [{"code": "AMB"}],
                "period": {"start": "2012-02-03", "end": "2012-02-03"},
            },
            "ambulatory encounter: finished on 03-Feb-2012",
        ),
        (
            {"status": "in-progress", "period": {"start": "2012-02-03"}},
            "encounter: in progress, since 03-Feb-2012",
        ),
        ({"status": "finished", "period": {"start": "2012"}}, "encounter: finished, from 2012"),
        ({"status": "finished"}, "encounter: finished"),
        ({"status": "planned", "period": {"start": "2012"}}, "encounter: planned, planned for 2012"),
        ({"status": "planned"}, "encounter: planned"),
        ({"status": "finished", "period": {"end": "2012"}}, "encounter: finished until 2012"),
        (
            {"status": "finished", "period": {"start": "2012-02-03", "end": "2012-02-04"}},
            "encounter: finished, from 03-Feb-2012 to 04-Feb-2012 (1 day)",
        ),
        (
            {"status": "finished", "class": {"code": "X", "display": "day clinic"}},
            "day clinic encounter: finished",
        ),
        ({"status": "finished", "serviceType": named("dialysis")}, "dialysis: encounter, finished"),
    ],
)
def test_an_encounter(fields: dict[str, Any], text: str) -> None:
    assert text_of("Encounter", **fields) == text


def test_facts_know_their_encounter() -> None:
    assert (
        fact_of("Observation", code=named("x"), encounter={"reference": "Encounter/9/_history/2"}).encounter
        == "Encounter/9"
    )
    given = fact_of(
        "MedicationAdministration", medicationCodeableConcept=named("x"), context={"reference": "Encounter/9"}
    )
    assert given.encounter == "Encounter/9"
    note = fact_of("DocumentReference", context={"encounter": [{"reference": "Encounter/9"}]})
    assert note.encounter == "Encounter/9"
    care = fact_of(
        "MedicationAdministration",
        medicationCodeableConcept=named("x"),
        context={"reference": "EpisodeOfCare/9"},
    )
    assert care.encounter is None
    assert fact_of("Encounter").encounter == "Encounter/x"


def test_a_report() -> None:
    fact = fact_of(
        "DiagnosticReport",
        status="final",
        code=named("CT head"),
        issued="2012-01-01",
        conclusion="No\nbleed",
        conclusionCode=[named("normal")],
        result=[{"display": "a"}, {"display": "b"}],
        performer=[{"display": "Lab"}],
        presentedForm=[{"contentType": "text/plain", "data": "Tm8gYmxlZWQu"}],
    )
    assert fact.text == (
        "CT head: report, final on 01-Jan-2012; conclusion: No bleed; coded"
        " conclusion: normal; 2 results listed;"
        " by: Lab"
    )
    assert fact.body == "No bleed."
    cancelled = text_of(
        "DiagnosticReport",
        status="cancelled",
        code=named("x"),
        result=[{"display": "a"}],
        effectivePeriod={"start": "2011", "end": "2012"},
    )
    assert cancelled == "x: report, cancelled from 2011 to 2012"


def test_an_imaging_study() -> None:
    fact = fact_of(
        "ImagingStudy",
        status="available",
        started="2017-01-01",
        description="XR wrist",
        numberOfSeries=1,
        numberOfInstances=1,
        identifier=[{"value": "7"}, {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}],
        series=[
            {
                "modality": {"code": "DX"},
                "bodySite": named("wrist"),
                "laterality": named("left"),
                "description": "ap",
            }
        ],
        procedureCode=[named("X-ray of wrist")],
        referrer={"display": "Dr. Who"},
    )
    assert fact.text == (
        "X-ray of wrist: imaging study, available on 01-Jan-2017; modality: DX; body site: left wrist;"
        " description: XR wrist; series: ap; 1 series, 1 image"
    )
    assert dict(fact.details)["study uid"] == "1.2.3"
    bare = fact_of("ImagingStudy", status="available", series=[{}, {}])
    assert bare.text == "imaging study: imaging study, available; 2 series"
    assert "study uid" not in dict(bare.details)
    assert text_of("Media", status="completed", content={"title": "wound"}, createdDateTime="2017") == (
        "wound: media, completed in 2017; content not read"
    )


def test_an_order() -> None:
    assert text_of(
        "ServiceRequest",
        status="active",
        intent="order",
        code=named("MRI"),
        authoredOn="2020-01-01",
        priority="stat",
        occurrencePeriod={"start": "2020-02-01", "end": "2020-02-03"},
        orderDetail=[named("contrast")],
        quantityQuantity={"value": 2, "unit": "x"},
        asNeededBoolean=True,
        patientInstruction="fast",
    ) == (
        "MRI: active order from 01-Jan-2020; priority: stat; due: from"
        " 01-Feb-2020 to 03-Feb-2020; as needed: yes;"
        " detail: contrast; quantity: 2 x; instruction: fast"
    )
    assert text_of("ServiceRequest", code=named("MRI"), occurrenceTiming={"code": named("QD")}) == (
        "MRI: status not recorded request (intent not recorded); due: QD"
    )
    plan = fact_of("ServiceRequest", status="active", intent="plan", code=named("MRI"))
    assert (plan.status, plan.text) == (Status.PLANNED, "MRI: active plan")
    assert fact_of("ServiceRequest", status="revoked", code=named("DNR")).kind is Kind.DIRECTIVE
    assert record_of(resource("ServiceRequest")).skipped == {"no_statement": 1}
