"""Conditions, allergies and family history as lines of text."""

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
            {"clinicalStatus": code("active"), "onsetDateTime": "2011-05-04"},
            "active, since 04-May-2011",
            Status.ACTIVE,
        ),
        (
            {
                "clinicalStatus": code("resolved"),
                "onsetDateTime": "2012-02-03",
                "abatementDateTime": "2012-02-17",
            },
            "resolved, from 03-Feb-2012 to 17-Feb-2012",
            Status.RESOLVED,
        ),
        (
            {"clinicalStatus": code("remission"), "onsetDateTime": "2012"},
            "remission, onset 2012",
            Status.INACTIVE,
        ),
        (
            {"clinicalStatus": code("relapse"), "onsetAge": {"value": 45, "unit": "a"}},
            "relapse; onset: at age 45 a",
            Status.ACTIVE,
        ),
        (
            {"clinicalStatus": code("active"), "onsetString": "childhood"},
            "active; onset: childhood",
            Status.ACTIVE,
        ),
        (
            {"clinicalStatus": code("resolved"), "abatementString": "last spring"},
            "resolved; abated: last spring",
            Status.RESOLVED,
        ),
        (
            {"clinicalStatus": code("resolved"), "abatementBoolean": True},
            "resolved; abated: yes, date not recorded",
            Status.RESOLVED,
        ),
        ({"clinicalStatus": code("active"), "abatementBoolean": False}, "active", Status.ACTIVE),
        (
            {"clinicalStatus": code("resolved"), "abatementPeriod": {"start": "2012-02", "end": "2012-03"}},
            "resolved, until Mar-2012",
            Status.RESOLVED,
        ),
        (
            {"abatementDateTime": "2012-02-17"},
            "clinical status not recorded, end recorded, until 17-Feb-2012",
            Status.RESOLVED,
        ),
        (
            {"recordedDate": "2011-05-04"},
            "clinical status not recorded; recorded 04-May-2011",
            Status.UNKNOWN,
        ),
        ({"clinicalStatus": "active"}, "active", Status.ACTIVE),
        ({"clinicalStatus": code("unknown")}, "status unknown", Status.UNKNOWN),
        ({"clinicalStatus": named("Smouldering")}, 'status "Smouldering"', Status.UNKNOWN),
        (
            {"clinicalStatus": code("active"), "verificationStatus": code("provisional")},
            "active, provisional",
            Status.ACTIVE,
        ),
        (
            {
                "clinicalStatus": code("active"),
                "verificationStatus": code("refuted"),
                "onsetDateTime": "2011",
            },
            "refuted (recorded as not present), dated 2011",
            Status.REFUTED,
        ),
        (
            {
                "clinicalStatus": code("active"),
                "severity": named("severe"),
                "bodySite": [named("left knee")],
                "stage": [{"summary": named("II")}],
                "evidence": [{"code": [named("pain")]}],
                "note": [{"text": "n\nm"}],
            },
            "active; severity: severe; body site: left knee; stage: II; evidence: pain; note: n m",
            Status.ACTIVE,
        ),
    ],
)
def test_a_condition(fields: dict[str, Any], text: str, status: Status) -> None:
    fact = fact_of("Condition", code=named("Gout"), **fields)
    assert (fact.text, fact.status, fact.kind) == (f"Gout: {text}", status, Kind.PROBLEM)


def test_a_condition_known_only_by_its_narrative_or_not_at_all() -> None:
    div = {"status": "generated", "div": "<div>Gout &amp; <b>pain</b></div>"}
    assert fact_of("Condition", text=div).name == "Gout & pain"
    record = record_of(resource("Condition"))
    assert record.skipped == {"no_statement": 1}
    assert "Condition: nothing in it could be read" in record.problems


def test_an_allergy() -> None:
    fields = {
        "clinicalStatus": code("active"),
        "verificationStatus": code("confirmed"),
        "recordedDate": "2011-05-04",
    }
    reaction = [{"manifestation": [named("hives")], "severity": "severe"}]
    drug = named("penicillin G")
    assert text_of("AllergyIntolerance", code=drug, type="allergy", reaction=reaction, **fields) == (
        "Allergy to penicillin G: active; reaction: hives (severe); recorded 04-May-2011"
    )
    assert text_of("AllergyIntolerance", code=drug, type="intolerance").startswith(
        "Intolerance to penicillin G: "
    )
    assert text_of("AllergyIntolerance", code=drug).startswith("Allergy or intolerance to penicillin G: ")
    assert text_of("AllergyIntolerance", code=named("Latex allergy"), type="allergy").startswith(
        "Latex allergy: "
    )
    refuted = fact_of("AllergyIntolerance", code=drug, type="allergy", verificationStatus=code("refuted"))
    assert (refuted.status, refuted.text) == (
        Status.REFUTED,
        "Allergy to penicillin G: refuted (recorded as not present)",
    )


def test_an_allergy_without_a_code() -> None:
    reaction = [
        {"description": "rash", "substance": named("nickel"), "note": [{"text": "mild"}], "onset": "2012"}
    ]
    fact = fact_of("AllergyIntolerance", reaction=reaction, onsetDateTime="2012", lastOccurrence="2013")
    assert fact.name == "nickel"
    assert "reaction: rash (after: nickel; on 2012; mild); onset 2012; last occurrence 2013" in fact.text
    unnamed = text_of(
        "AllergyIntolerance", reaction=[{"severity": "mild"}, {}], onsetAge={"value": 5, "unit": "a"}
    )
    assert unnamed.startswith("Allergy or intolerance to a substance that is not recorded: ")
    assert unnamed.endswith("reaction: not described (mild); onset: at age 5 a")


@pytest.mark.parametrize("name", ["NKDA", "No known drug allergies", "NKA", "No Known Latex Allergy"])
def test_an_explicit_none_is_no_allergy_to_something(name: str) -> None:
    fact = fact_of("AllergyIntolerance", code=named(name), clinicalStatus=code("active"))
    assert (fact.category, fact.text) == ("none known", f"{name}: active")


def test_an_odd_date_is_noted_and_the_fact_stays() -> None:
    record = record_of(resource("Condition", code=named("Gout"), onsetDateTime="2021-02-30"))
    assert record.facts[-1].when is None
    assert "Condition.onsetDateTime: not a date" in record.problems


def test_family_history() -> None:
    father = {"relationship": named("father"), "status": "completed", "date": "2011-03-18"}
    illness = {
        "code": named("Gout"),
        "onsetRange": {"low": {"value": 40}},
        "outcome": named("cured"),
        "contributedToDeath": True,
    }
    assert text_of(
        "FamilyMemberHistory", **father, condition=[illness], deceasedAge={"value": 70, "unit": "a"}
    ) == (
        "Family history, father: Gout: onset: at age ≥40; outcome: cured; contributed to death: yes;"
        " deceased at age 70 a; recorded 18-Mar-2011"
    )
    unknown = fact_of(
        "FamilyMemberHistory", relationship=named("father"), status="health-unknown", deceasedBoolean=False
    )
    assert unknown.text == "Family history, father: health unknown; not deceased"
    assert unknown.status is Status.UNKNOWN
    partial = text_of(
        "FamilyMemberHistory", name="Uncle", status="partial", deceasedBoolean="odd", deceasedDate=5
    )
    assert partial == "Family history, Uncle: no condition listed; history partial"
    assert text_of("FamilyMemberHistory", deceasedDate="2011").startswith(
        "Family history, a relative: no condition listed; deceased 2011"
    )
