"""Orders, statements, dispenses and administrations, and dosages, as lines of text."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.record.charts import fact_of, named, record_of, resource, text_of


def code(value: str) -> dict[str, Any]:
    return {"coding": [{"code": value}]}


def test_a_medication_order_in_full() -> None:
    text = text_of(
        "MedicationRequest",
        {
            "resourceType": "Practitioner",
            "id": "p",
            "name": [{"prefix": ["Dr."], "given": ["Eve"], "family": "Who"}],
        },
        status="on-hold",
        statusReason=named("surgery"),
        intent="original-order",
        medicationCodeableConcept=named("metformin 500 MG Oral Tablet"),
        requester={"reference": "Practitioner/p"},
        priority="urgent",
        reportedBoolean=True,
        authoredOn="2020-05-04",
        dosageInstruction=[{"text": "1 tablet daily"}],
        dispenseRequest={
            "quantity": {"value": 30, "unit": "tablet"},
            "expectedSupplyDuration": {"value": 30, "unit": "d"},
        },
        reasonCode=[named("Diabetes")],
        category=[code("community")],
    )
    assert text == (
        "metformin 500 MG Oral Tablet: on hold original order (surgery) from"
        " 04-May-2020; reported, not prescribed"
        " here; 1 tablet daily; priority: urgent; quantity: 30 tablet; supply: 30 d; reason: Diabetes;"
        " category: community"
    )
    reported = text_of(
        "MedicationRequest", medicationCodeableConcept=named("x"), reportedReference={"display": "Ann"}
    )
    assert reported == "x: status not recorded request (intent not recorded); reported by Ann"


@pytest.mark.parametrize(
    ("dosage", "shown"),
    [
        ({"text": "1 tablet", "asNeededBoolean": True}, "1 tablet, as needed"),
        ({"text": "1 tablet PRN", "asNeededBoolean": True}, "1 tablet PRN"),
        ({"text": "1 tablet", "asNeededCodeableConcept": named("pain")}, "1 tablet, as needed for pain"),
        (
            {
                "doseAndRate": [{"doseQuantity": {"value": 2.50, "unit": "mg"}}],
                "route": named("oral"),
                "timing": {"repeat": {"frequency": 2, "period": 1, "periodUnit": "d", "when": ["HS", "X"]}},
            },
            "2.5 mg, oral, 2 times per day, at bedtime, X",
        ),
        ({"timing": {"repeat": {"frequency": 1, "period": 8, "periodUnit": "h"}}}, "every 8 hours"),
        ({"timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}}}, "every day"),
        ({"timing": {"repeat": {"period": 1, "periodUnit": "wk"}}}, "every 1 week"),
        (
            {"timing": {"repeat": {"frequency": 1, "period": 4, "periodMax": 6, "periodUnit": "h"}}},
            "every 4–6 hours",
        ),
        (
            {"timing": {"repeat": {"frequency": 1, "frequencyMax": 2, "period": 1, "periodUnit": "d"}}},
            "1–2 times per day",
        ),
        (
            {"timing": {"repeat": {"frequencyMax": 3, "period": 1, "periodUnit": "d"}}},
            "up to 3 times per day",
        ),
        ({"timing": {"repeat": {"frequency": 3}}}, "3 times"),
        (
            {"timing": {"code": named("BID"), "repeat": {"boundsDuration": {"value": 7, "unit": "days"}}}},
            "BID, for 7 days",
        ),
        ({"timing": {"repeat": {"boundsPeriod": {"start": "2020", "end": "2021"}}}}, "from 2020 to 2021"),
        (
            {"timing": {"repeat": {"count": 5, "duration": 30, "durationUnit": "min"}}},
            "5 times in all, each over 30 minutes",
        ),
        (
            {"timing": {"repeat": {"dayOfWeek": ["mon"], "timeOfDay": ["08:00"], "offset": 30}}},
            "on mon, at 08:00, 30 minutes from then",
        ),
        ({"timing": {"event": ["2020-01-01"]}}, "on: 2020-01-01"),
        (
            {
                "doseAndRate": [
                    {"doseRange": {"low": {"value": 1, "unit": "tab"}, "high": {"value": 2, "unit": "tab"}}}
                ]
            },
            "1–2 tab",
        ),
        (
            {
                "doseAndRate": [
                    {
                        "rateRatio": {
                            "numerator": {"value": 100, "unit": "mL"},
                            "denominator": {"value": 1, "unit": "h"},
                        }
                    }
                ]
            },
            "at 100 mL per 1 h",
        ),
        (
            {
                "site": named("left arm"),
                "method": named("inject"),
                "patientInstruction": "with food",
                "maxDosePerPeriod": {
                    "numerator": {"value": 4, "unit": "g"},
                    "denominator": {"value": 1, "unit": "d"},
                },
                "maxDosePerAdministration": {"value": 1, "unit": "g"},
                "maxDosePerLifetime": {"value": 9, "unit": "g"},
                "additionalInstruction": [named("slowly")],
                "asNeeded": True,
            },
            "inject, site: left arm, as needed, maximum 4 g per 1 d, maximum 1 g"
            " at once, maximum 9 g in a lifetime,"
            " slowly, with food",
        ),
    ],
)
def test_a_dosage(dosage: dict[str, Any], shown: str) -> None:
    text = text_of(
        "MedicationRequest",
        status="active",
        intent="order",
        medicationCodeableConcept=named("x"),
        dosageInstruction=[dosage],
    )
    assert text == f"x: active order; {shown}"


def test_dosages_follow_their_sequence() -> None:
    steps = [{"sequence": 2, "text": "then 1"}, {"sequence": 1, "text": "first 2"}]
    text = text_of(
        "MedicationRequest",
        status="active",
        intent="order",
        medicationCodeableConcept=named("x"),
        dosageInstruction=steps,
    )
    assert text == "x: active order; first 2; then 1"


def test_a_drug_is_named_by_code_by_contained_and_by_other_resources() -> None:
    ingredient = {"itemReference": {"reference": "Substance/s"}}
    mixed = {
        "resourceType": "Medication",
        "id": "m",
        "ingredient": [ingredient, {"itemCodeableConcept": named("b")}],
    }
    substance = {"resourceType": "Substance", "id": "s", "code": named("a")}
    reference = {"medicationReference": {"reference": "Medication/m"}}
    assert fact_of("MedicationRequest", mixed, substance, **reference).name == "a, b"
    inside = {"contained": [{"resourceType": "Medication", "id": "c", "code": named("inside")}]}
    assert fact_of("MedicationRequest", medicationReference={"reference": "#c"}, **inside).name == "inside"
    assert fact_of("MedicationRequest", medicationReference={"display": "shown"}).name == "shown"
    assert fact_of("MedicationRequest", medication={"concept": named("newer")}).name == "newer"
    assert (
        fact_of(
            "MedicationRequest", mixed, substance, medication={"reference": {"reference": "Medication/m"}}
        ).name
        == "a, b"
    )
    assert record_of(resource("MedicationRequest")).skipped == {"no_statement": 1}
    for kind in ("MedicationStatement", "MedicationAdministration", "MedicationDispense"):
        assert record_of(resource(kind)).skipped == {"no_statement": 1}


def test_resources_that_name_each_other_end() -> None:
    one = {
        "resourceType": "Medication",
        "id": "1",
        "ingredient": [{"itemReference": {"reference": "Medication/2"}}],
    }
    two = {
        "resourceType": "Medication",
        "id": "2",
        "ingredient": [{"itemReference": {"reference": "Medication/1"}}],
    }
    order = resource("MedicationRequest", medicationReference={"reference": "Medication/1"})
    assert record_of(order, one, two).skipped == {"no_statement": 1, "supporting": 2}


def test_a_statement_an_administration_and_a_dispense() -> None:
    drug = {"medicationCodeableConcept": named("x")}
    assert text_of(
        "MedicationStatement",
        **drug,
        status="active",
        dateAsserted="2020-01-01",
        taken="n",
        statusReason=[named("nausea")],
        reasonCode=[named("pain")],
    ) == (
        "x: active medication statement; not taken; status reason: nausea; reason: pain; recorded 01-Jan-2020"
    )
    assert (
        text_of(
            "MedicationStatement",
            **drug,
            status="completed",
            effectivePeriod={"start": "2019", "end": "2020"},
        )
        == "x: completed medication statement, from 2019 to 2020"
    )
    assert (
        text_of(
            "MedicationAdministration",
            **drug,
            status="completed",
            notGiven=True,
            effectivePeriod={"start": "2019-01-01", "end": "2019-01-02"},
        )
        == "x: not given (administration not done) from 01-Jan-2019 to 02-Jan-2019"
    )
    rate = {"rateQuantity": {"value": 20, "unit": "mL/h"}, "site": named("arm"), "method": named("push")}
    assert text_of("MedicationAdministration", **drug, status="unknown", dosage=rate) == (
        "x: administration, status unknown; push, site: arm, at 20 mL/h"
    )
    assert text_of("MedicationAdministration", **drug, status="in-progress", dosage={"text": "slowly"}) == (
        "x: being given (administration in progress); slowly"
    )
    assert (
        text_of(
            "MedicationDispense",
            **drug,
            status="declined",
            statusReasonCodeableConcept=named("no stock"),
            whenPrepared="2020-01-01",
        )
        == "x: not dispensed (declined) prepared on 01-Jan-2020; status reason: no stock"
    )
    assert text_of("MedicationDispense", **drug, status="in-progress") == "x: dispense (in progress)"
