"""Results, vital signs and social facts as lines of text, and whom they are about."""

from __future__ import annotations

from typing import Any

import pytest

from service.record.facts import Kind
from tests.unit.record.charts import fact_of, facts_of, named, record_of, resource, text_of

LOINC = "http://loinc.org"


def code(value: str) -> dict[str, Any]:
    return {"coding": [{"code": value}]}


INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"


def test_a_result_with_flags_and_range() -> None:
    fact = fact_of(
        "Observation",
        status="final",
        code=named("Hemoglobin A1c"),
        effectiveDateTime="2020-11-25",
        valueQuantity={"value": 5.8, "unit": "%"},
        interpretation=[{"coding": [{"system": INTERPRETATION, "code": "H", "display": "High"}]}],
        referenceRange=[{"low": {"value": 4, "unit": "%"}, "high": {"value": 5.6, "unit": "%"}}],
    )
    assert fact.text == "Hemoglobin A1c: 5.8 % (H; reference 4–5.6) on 25-Nov-2020"
    assert (fact.flags, fact.reference_range, fact.value, fact.kind) == (
        ("H",),
        "4–5.6",
        "5.8 %",
        Kind.RESULT,
    )


@pytest.mark.parametrize(
    ("reference", "shown"),
    [
        ({"low": {"value": 4, "unit": "g"}}, "≥4 g"),
        ({"high": {"value": 4, "unit": "mg"}}, "≤4"),
        ({"text": "negative"}, "negative"),
        ({"high": {"value": 4, "unit": "mg"}, "type": named("therapeutic")}, "≤4 for therapeutic"),
        (
            {
                "high": {"value": 4, "unit": "mg"},
                "type": named("normal"),
                "age": {"low": {"value": 18, "unit": "a"}},
            },
            "≤4 for age ≥18 a",
        ),
        ({"appliesTo": [named("women")]}, ""),
    ],
)
def test_a_reference_range(reference: dict[str, Any], shown: str) -> None:
    quantity = {"value": 5, "unit": "mg"}
    fact = fact_of("Observation", code=named("x"), valueQuantity=quantity, referenceRange=[reference])
    assert fact.reference_range == shown


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"status": "preliminary", "valueString": "a"}, "x: a (preliminary)"),
        ({"status": "amended", "valueString": "a"}, "x: a (amended)"),
        ({"valueString": "a"}, "x: a (status not recorded)"),
        ({"status": "cancelled", "valueString": "a"}, "x: cancelled"),
        ({"status": "registered"}, "x: no value recorded (registered)"),
        ({"status": "final", "dataAbsentReason": code("not-performed")}, "x: no value (not performed)"),
        ({"status": "final", "dataAbsentReason": {}}, "x: no value"),
        ({"status": "final", "valueString": "a", "interpretation": [named("odd")]}, "x: a (odd)"),
        ({"status": "final", "valueString": "a", "issued": "2020-01-01"}, "x: a on 01-Jan-2020"),
        (
            {"status": "final", "valueString": "a", "effectivePeriod": {"start": "2019", "end": "2020"}},
            "x: a from 2019 to 2020",
        ),
        (
            {
                "status": "final",
                "valueString": "a",
                "method": named("m"),
                "bodySite": named("b"),
                "comment": "c",
            },
            "x: a; method: m; body site: b; comment: c",
        ),
        ({"status": "final", "hasMember": [{"display": "y"}, {"display": "z"}]}, "x: members: y, z"),
        (
            {"status": "final", "valueString": "a", "focus": [{"reference": "Device/d", "display": "stent"}]},
            "x: a; focus: stent",
        ),
    ],
)
def test_an_observation(fields: dict[str, Any], text: str) -> None:
    assert text_of("Observation", code=named("x"), **fields) == text


def component(name: str, value: Any, loinc: str = "") -> dict[str, Any]:
    return {"code": named(name, LOINC, loinc), "valueQuantity": {"value": value, "unit": "mm[Hg]"}}


def test_a_blood_pressure_is_one_line_systolic_first() -> None:
    parts = [
        component("Diastolic Blood Pressure", 80, "8462-4"),
        component("Systolic Blood Pressure", 127, "8480-6"),
    ]
    fact = fact_of(
        "Observation",
        status="final",
        code=named("Blood pressure"),
        component=parts,
        category=[code("vital-signs")],
        effectiveDateTime="1990-01-19",
    )
    assert fact.text == "Blood pressure: systolic 127 mm[Hg], diastolic 80 mm[Hg] on 19-Jan-1990"
    assert fact.kind is Kind.VITAL
    assert fact.details == (("systolic", "127 mm[Hg]"), ("diastolic", "80 mm[Hg]"))
    with_value = text_of("Observation", status="final", code=named("x"), valueString="a", component=parts[:1])
    assert with_value == "x: a; diastolic 80 mm[Hg]"
    missing = text_of(
        "Observation",
        status="final",
        code=named("x"),
        component=[{"dataAbsentReason": code("error"), "interpretation": [named("L")]}],
    )
    assert missing == "x: component no value (error) (L)"


def test_a_large_panel_becomes_one_fact_each() -> None:
    parts = [component(f"Part {n}", n) for n in range(6)]
    found = facts_of(resource("Observation", status="final", code=named("Panel"), component=parts))
    assert [str(f.id) for f in found] == ["Observation/x", *(f"Observation/x#{n}" for n in range(2, 7))]
    assert found[1].text == "Part 1: 1 mm[Hg]; part of: Panel"
    whole = facts_of(
        resource("Observation", status="final", code=named("Panel"), valueString="v", component=parts)
    )
    assert len(whole) == 7
    assert whole[0].text == "Panel: v"
    cancelled = facts_of(resource("Observation", status="cancelled", code=named("Panel"), component=parts))
    assert {f.text for f in cancelled} == {f"Part {n}: cancelled; part of: Panel" for n in range(6)}
    assert all(f.quantity is None and f.value == "" for f in cancelled)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"category": [code("vital-signs")]}, Kind.VITAL),
        ({"category": [code("social-history")]}, Kind.SOCIAL),
        ({"category": [code("survey")]}, Kind.SOCIAL),
        ({"category": [code("survey")], "valueInteger": 12}, Kind.RESULT),
        ({"category": [code("laboratory")]}, Kind.RESULT),
        ({"code": named("Heart rate", LOINC, "8867-4")}, Kind.VITAL),
        ({"code": named("Code status")}, Kind.DIRECTIVE),
        ({"valueCodeableConcept": named("DNR")}, Kind.DIRECTIVE),
        ({}, Kind.RESULT),
    ],
)
def test_an_observations_kind(fields: dict[str, Any], kind: Kind) -> None:
    assert fact_of("Observation", **{"code": named("x"), **fields}).kind is kind


def test_an_observation_without_a_name_keeps_its_value() -> None:
    assert text_of("Observation", status="final", valueString="a") == "Observation: a"
    assert record_of(resource("Observation")).skipped == {"no_statement": 1}


@pytest.mark.parametrize(
    ("focus", "role", "words"),
    [
        ({"reference": "Patient/1"}, "patient", ""),
        ({"reference": "Patient/baby", "display": "newborn boy"}, "newborn", "newborn boy"),
        ({"reference": "Patient/other"}, "other", "another person"),
        ({"reference": "RelatedPerson/r"}, "relative", "brother"),
        ({"type": "Patient", "display": "donor"}, "other", "donor"),
        ({"reference": "Condition/c", "display": "wound"}, "patient", ""),
        ({"display": "twin fetus B"}, "fetus", "twin fetus B"),
    ],
)
def test_whom_an_observation_is_about(focus: dict[str, Any], role: str, words: str) -> None:
    brother = {"resourceType": "RelatedPerson", "id": "r", "relationship": [named("brother")]}
    person = fact_of("Observation", brother, code=named("x"), focus=[focus]).person
    assert (person.role, person.text) == (role, words)


def test_a_focus_extension_and_a_fetal_name() -> None:
    by_reference = {
        "url": "http://x/extension-Observation.focus",
        "valueReference": {"display": "the mother"},
    }
    assert fact_of("Condition", code=named("x"), extension=[by_reference]).person.role == "mother"
    donor = {"url": "http://x/focusCode", "valueCodeableConcept": named("donor")}
    assert fact_of("Observation", code=named("x"), extension=[donor, {"url": "y"}]).person.role == "other"
    assert fact_of("Observation", code=named("Fetal heart rate")).person.role == "fetus"
    assert fact_of("Observation", code=named("Fetal hemoglobin")).person.role == "patient"
