"""What says the same is held once with all its sources; what differs in anything stays apart."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fixtures.facts import context, fact
from service.context.chosen import Label
from service.context.templates import load
from service.grounding.check import Checker
from service.grounding.complete import complete_summary
from service.grounding.summary import DraftClaim, Verdict
from service.record.assemble import assemble_record
from service.record.facts import Fact, Kind, Person, Status
from service.record.merge import merge_alike
from service.record.required import required_facts
from service.writeback.sources import given_versions
from tests.unit.record.charts import facts_of, named, patient, record_of, resource

DAYS = ("2019-03-01", "2020-03-01", "2021-03-01")


DRUG: dict[str, Any] = {"medicationCodeableConcept": named("x")}


def repeated(kind: str, date_key: str, **fields: Any) -> list[dict[str, Any]]:
    """The same statement on three days, the newest first."""
    return [{**resource(kind, **fields), "id": f"r{day[:4]}", date_key: day} for day in reversed(DAYS)]


def condition(ident: str, day: str, **fields: Any) -> dict[str, Any]:
    return {
        **resource(
            "Condition",
            code=named("Gout"),
            clinicalStatus={"coding": [{"code": "active"}]},
            onsetDateTime=day,
        ),
        "id": ident,
        **fields,
    }


ORDER: dict[str, Any] = {
    "status": "active",
    "intent": "order",
    "medicationCodeableConcept": named("lisinopril 10 MG Oral Tablet", "http://rxnorm", "314076"),
    "dosageInstruction": [
        {
            "doseAndRate": [{"doseQuantity": {"value": 10, "unit": "mg"}}],
            "route": named("oral"),
            "timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}},
        }
    ],
    "reasonCode": [named("Hypertension")],
    "category": [{"coding": [{"code": "outpatient"}]}],
}


def test_a_drug_ordered_again_in_the_same_words_is_told_once_with_all_its_sources() -> None:
    (told,) = facts_of(*repeated("MedicationRequest", "authoredOn", **ORDER))
    assert told.text == (
        "lisinopril 10 MG Oral Tablet: active order from 01-Mar-2021; 10 mg, oral, every day; reason:"
        " Hypertension; category: outpatient; recorded 3 times, first 01-Mar-2019"
    )
    assert told.id == "MedicationRequest/r2021"
    assert [s.reference for s in told.sources] == [
        "MedicationRequest/r2021",
        "MedicationRequest/r2019",
        "MedicationRequest/r2020",
    ]


def dosed(**change: Any) -> dict[str, Any]:
    return {"dosageInstruction": [{**ORDER["dosageInstruction"][0], **change}]}


@pytest.mark.parametrize(
    "change",
    [
        {"medicationCodeableConcept": named("lisinopril 10 MG Oral Tablet", "http://rxnorm", "1")},
        {"medicationCodeableConcept": named("lisinopril 10 MG Oral Tablet")},
        {"medicationCodeableConcept": named("lisinopril 20 MG Oral Tablet", "http://rxnorm", "314076")},
        {"medicationCodeableConcept": named("lisinopril 10 MG Oral Solution", "http://rxnorm", "314076")},
        {"medicationCodeableConcept": named("Zestril 10 MG Oral Tablet", "http://rxnorm", "314076")},
        dosed(doseAndRate=[{"doseQuantity": {"value": 20, "unit": "mg"}}]),
        dosed(doseAndRate=[{"doseQuantity": {"value": 10, "unit": "mL"}}]),
        dosed(route=named("sublingual")),
        dosed(timing={"repeat": {"frequency": 2, "period": 1, "periodUnit": "d"}}),
        dosed(asNeededBoolean=True),
        {"dosageInstruction": []},
        {"intent": "plan"},
        {"intent": "original-order"},
        {"status": "on-hold"},
        {"status": "completed"},
        {"reasonCode": [named("Heart failure")]},
        {"category": [{"coding": [{"code": "inpatient"}]}]},
        {"doNotPerform": True},
        {"note": [{"text": "hold if hypotensive"}]},
        {"reportedBoolean": True},
    ],
)
def test_orders_that_differ_in_anything_stay_apart(change: dict[str, Any]) -> None:
    one = {**resource("MedicationRequest", **ORDER, authoredOn="2020-01-01"), "id": "a"}
    other = {**resource("MedicationRequest", **{**ORDER, **change}, authoredOn="2021-01-01"), "id": "b"}
    assert [f.copies for f in facts_of(one, other)] == [(), ()]
    same = {**resource("MedicationRequest", **ORDER, authoredOn="2021-01-01"), "id": "b"}
    assert len(facts_of(one, same)) == 1


def test_ordered_stated_given_and_dispensed_stay_apart() -> None:
    drug = {"medicationCodeableConcept": named("x"), "status": "completed"}
    kinds = ("MedicationRequest", "MedicationStatement", "MedicationAdministration", "MedicationDispense")
    facts = facts_of(*(resource(kind, **drug) for kind in kinds))
    assert [f.copies for f in facts] == [()] * 4
    assert len({dict(f.details)["record"] for f in facts}) == 4


def test_an_active_problem_is_told_since_its_first_record() -> None:
    (told,) = facts_of(*(condition(f"c{n}", day) for n, day in enumerate(DAYS)))
    assert told.text == "Gout: active, since 01-Mar-2019; recorded 3 times, latest 01-Mar-2021"
    assert (told.id, [s.reference for s in told.copies]) == ("Condition/c0", ["Condition/c1", "Condition/c2"])


def test_a_resolved_problem_is_told_by_its_newest_record() -> None:
    resolved = {"clinicalStatus": {"coding": [{"code": "resolved"}]}}
    (told,) = facts_of(*(condition(f"c{n}", day, **resolved) for n, day in enumerate(DAYS)))
    assert told.id == "Condition/c2"
    assert told.text.endswith("recorded 3 times, first 01-Mar-2019")


def test_a_problem_that_ended_and_one_that_lasts_stay_apart() -> None:
    facts = facts_of(condition("a", "2019"), condition("b", "2020", abatementDateTime="2021-01-01"))
    assert len(facts) == 2


def test_statements_of_one_day_or_without_date_name_no_second_day() -> None:
    same_day = facts_of(*(condition(f"c{n}", DAYS[0]) for n in range(2)))
    assert [f.text for f in same_day] == ["Gout: active, since 01-Mar-2019; recorded 2 times"]
    undated = [{**condition(f"c{n}", ""), "onsetDateTime": None} for n in range(2)]
    assert [f.text for f in facts_of(*undated)] == ["Gout: active; recorded 2 times"]


@pytest.mark.parametrize(("status", "shown"), [(Status.ACTIVE, "dated"), (Status.RESOLVED, "newer")])
def test_an_undated_record_never_stands_for_a_dated_one(status: Status, shown: str) -> None:
    facts = [
        fact("Gout: noted", fact_id=f"Condition/{name}", status=status, on=day)
        for name, day in (("undated", None), ("dated", "2019-03-01"), ("newer", "2021-03-01"))
    ]
    (told,) = merge_alike(facts)
    assert told.id == f"Condition/{shown}"
    assert told.text.endswith(", latest 01-Mar-2021" if status is Status.ACTIVE else ", first 01-Mar-2019")
    assert told.when is not None


@pytest.mark.parametrize(
    ("kind", "date_key", "fields"),
    [
        ("AllergyIntolerance", "recordedDate", {"code": named("Latex")}),
        ("MedicationStatement", "effectiveDateTime", {**DRUG, "status": "active"}),
        ("MedicationAdministration", "effectiveDateTime", {**DRUG, "status": "completed"}),
        ("MedicationDispense", "whenHandedOver", {**DRUG, "status": "completed"}),
        ("FamilyMemberHistory", "date", {"status": "completed", "relationship": named("mother"),
                                         "condition": [{"code": named("Gout")}]}),
    ],
)  # fmt: skip
def test_other_standing_statements_are_merged_alike(kind: str, date_key: str, fields: dict[str, Any]) -> None:
    (told,) = facts_of(*repeated(kind, date_key, **fields))
    assert len(told.sources) == 3
    assert "; recorded 3 times" in told.text


def result(ident: str, when: str, value: float = 4, **fields: Any) -> dict[str, Any]:
    return {
        **resource(
            "Observation", status="final", code=named("Potassium"), effectiveDateTime=when,
            valueQuantity={"value": value, "unit": "mmol/L"}, **fields,
        ),
        "id": ident,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("second", "is_same"),
    [
        (result("b", "2020-01-01T08:00:00Z"), True),
        (result("b", "2020-01-01T08:00:01Z"), False),
        (result("b", "2020-01-01T08:00:00Z", 5), False),
        (result("b", "2020-01-01T08:00:00Z", note=[{"text": "hemolysed"}]), False),
        ({**result("b", "2020-01-01T08:00:00Z"), "status": "preliminary"}, False),
        ({**result("b", "2020-01-01T08:00:00Z"), "code": named("Sodium")}, False),
        (result("b", "2020-01-01T08:00:00Z", focus=[{"display": "fetus"}]), False),
    ],
)
def test_events_are_merged_only_at_the_same_instant(second: dict[str, Any], is_same: bool) -> None:
    facts = facts_of(result("a", "2020-01-01T08:00:00Z"), second)
    assert (len(facts) == 1) is is_same
    if is_same:
        assert facts[0].text == "Potassium: 4 mmol/L on 01-Jan-2020"
        assert {s.reference for s in facts[0].sources} == {"Observation/a", "Observation/b"}


@pytest.mark.parametrize("when", ["2020-01-01", "2020-01", "2020", ""])
def test_events_of_one_day_or_without_date_may_be_two(when: str) -> None:
    assert len(facts_of(result("a", when), result("b", when))) == 2


def test_a_procedure_done_twice_is_two_and_the_patient_is_never_merged() -> None:
    procedures = [
        {
            **resource("Procedure", status="completed", code=named("Dialysis"), performedDateTime=day),
            "id": day,
        }
        for day in DAYS
    ]
    assert len(facts_of(*procedures)) == 3
    patients = [fact("Patient: female", Kind.PATIENT, f"Patient/{n}") for n in range(2)]
    assert merge_alike(patients) == patients


def test_what_is_said_of_other_persons_stays_apart() -> None:
    one = fact("Gout: active", fact_id="Condition/a", status=Status.ACTIVE)
    other = fact(
        "Gout: active", fact_id="Condition/b", status=Status.ACTIVE, person=Person("relative", "mother")
    )
    assert merge_alike([one, other]) == [one, other]
    relatives = [
        {**resource("FamilyMemberHistory", status="completed", relationship=named(who),
                    condition=[{"code": named("Gout")}]), "id": who}
        for who in ("mother", "father")
    ]  # fmt: skip
    assert len(facts_of(*relatives)) == 2


def test_the_order_of_arrival_changes_nothing() -> None:
    resources = [
        patient(),
        *(condition(f"c{n}", day) for n, day in enumerate((*DAYS, DAYS[0]))),
        *repeated("MedicationRequest", "authoredOn", **ORDER),
        *(result(f"o{n}", "2020-01-01T08:00:00Z") for n in range(3)),
    ]
    expected = assemble_record(resources).facts
    assert len(expected) == 4
    for seed in range(5):
        random.Random(seed).shuffle(resources)
        assert assemble_record(resources).facts == expected


def merged() -> list[Fact]:
    return facts_of(
        *(condition(f"c{n}", day) for n, day in enumerate(DAYS)),
        *repeated("MedicationRequest", "authoredOn", **ORDER),
    )


def verdict_of(told: Fact, text: str) -> Verdict:
    return Checker(context([told])).check(DraftClaim("s", text, (Label("F1"),))).verdict


def test_a_merged_line_is_borne_out_by_itself() -> None:
    for told in merged():
        assert verdict_of(told, told.text) is Verdict.SUPPORTED


@pytest.mark.parametrize(
    ("text", "is_supported"),
    [
        ("Gout is active, since 01-Mar-2019.", True),
        ("Gout is active, since 01-Mar-2019, latest 01-Mar-2021.", True),
        ("Gout is active, since 01-Mar-2021.", False),
        ("Gout is active, latest 01-Mar-2019.", False),
        ("Gout is active, since 01-Mar-2020.", False),
    ],
)
def test_the_day_of_a_further_record_is_not_the_day_since_when(text: str, is_supported: bool) -> None:
    told = next(f for f in merged() if f.kind is Kind.PROBLEM)
    assert (verdict_of(told, text) is Verdict.SUPPORTED) is is_supported


def test_a_merged_fact_is_required_once_and_all_its_sources_are_given() -> None:
    record = record_of(
        *(condition(f"c{n}", day) for n, day in enumerate(DAYS)),
        *repeated("MedicationRequest", "authoredOn", **ORDER),
    )
    kinds = required_facts(record)
    listed = {k.key: k.facts for k in kinds if k.key in ("problems", "medications")}
    assert listed == {"problems": ("Condition/c0",), "medications": ("MedicationRequest/r2021",)}
    summary = complete_summary("history", record, context([], kinds), load("history"), [])
    given = {v.reference for v in given_versions(summary)}
    assert {f"Condition/c{n}" for n in range(3)} <= given
    assert {f"MedicationRequest/r{day[:4]}" for day in DAYS} <= given


def test_whoever_ordered_it_is_named() -> None:
    first, second = ({**order, "requester": {"display": name}} for order, name in zip(
        repeated("MedicationRequest", "authoredOn", **ORDER)[:2], ("Dr. Leffler", "Dr. Kuhic"), strict=True
    ))  # fmt: skip
    (told,) = facts_of(first, second)
    assert {name for name in ("Dr. Leffler", "Dr. Kuhic") if name in told.author} == {
        "Dr. Leffler",
        "Dr. Kuhic",
    }
    (same,) = facts_of(first, {**second, "requester": {"display": "Dr. Leffler"}})
    assert same.author == "Dr. Leffler"
