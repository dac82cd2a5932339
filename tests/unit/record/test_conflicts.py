"""What was given last, and what does not agree: shown with both sides, never resolved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.record.assemble import assemble_record
from service.record.conflicts import load_watched, watched
from service.record.facts import PatientRecord, Person, RequiredKind
from service.record.required import required_facts
from service.record.rules import RequiredRules, default_rules
from tests.unit.record.charts import named, patient, record_of, resource

ATC = "http://www.whocc.no/atc"


def kind_of(record: PatientRecord, key: str, **options: Any) -> RequiredKind:
    return next(k for k in required_facts(record, **options) if k.key == key)


def drug(kind: str, name: str, ident: str = "x", **fields: Any) -> dict[str, Any]:
    return {**resource(kind, **{"medicationCodeableConcept": named(name), **fields}), "id": ident}


def order(name: str, ident: str = "x", day: str = "2024-05-01", **fields: Any) -> dict[str, Any]:
    return drug(
        "MedicationRequest",
        name,
        ident,
        **{"status": "active", "intent": "order", "authoredOn": day, **fields},
    )


def given(name: str, ident: str = "x", day: str = "2024-05-01", **fields: Any) -> dict[str, Any]:
    when = {"effectiveDateTime": day} if day else {}
    return drug("MedicationAdministration", name, ident, **{"status": "completed", **when, **fields})


def stated(name: str, status: str, **fields: Any) -> dict[str, Any]:
    return drug("MedicationStatement", name, status=status, **fields)


def allergy(name: str, **fields: Any) -> dict[str, Any]:
    return resource("AllergyIntolerance", **{"code": named(name), "recordedDate": "2010", **fields})


def listed(record: PatientRecord, key: str = "medications") -> set[str]:
    return {i.partition("/")[2] for i in kind_of(record, key).facts}


LATER = resource("Observation", code=named("x"), effectiveDateTime="2024-06-01")


@pytest.mark.parametrize(
    "name",
    [
        "warfarin 5 MG Oral Tablet", "Heparin sodium", "1 ML enoxaparin", "apixaban", "Xarelto", "edoxaban",
        "dabigatran etexilate", "fondaparinux", "dalteparin", "insulin glargine", "Insulin, regular",
        "Lantus", "morphine sulfate", "Oxycodone Hydrochloride 5 MG", "hydromorphone", "fentanyl",
        "methadone", "tramadol", "acetaminophen 325 MG / hydrocodone", "codeine",
        "tapentadol", "buprenorphine / naloxone",
    ],
)  # fmt: skip
def test_what_was_given_last_of_a_watched_drug_is_required(name: str) -> None:
    assert listed(record_of(given(name), LATER)) == {"x"}


@pytest.mark.parametrize("name", ["acetaminophen", "sodium chloride", "insulinoma marker", "heparinoid gel"])
def test_what_was_given_of_another_drug_is_not(name: str) -> None:
    assert listed(record_of(given(name), LATER)) == set()


@pytest.mark.parametrize(
    ("fields", "is_required"),
    [
        ({}, True),
        ({"status": "stopped"}, True),
        ({"status": "in-progress"}, True),
        ({"status": "not-done"}, False),
        ({"status": "entered-in-error"}, False),
        ({"effectiveDateTime": "2024-03-03"}, True),
        ({"effectiveDateTime": "2024-03-02"}, False),
        ({"effectiveDateTime": "2023"}, False),
        ({"effectiveDateTime": None, "effectivePeriod": {"start": "2023-01-01", "end": "2024-05-01"}}, True),
    ],
)
def test_the_window_and_the_statuses_of_what_was_given_last(
    fields: dict[str, Any], is_required: bool
) -> None:
    assert (listed(record_of(given("heparin", **fields), LATER)) == {"x"}) is is_required


def test_only_the_newest_of_each_product_is_required() -> None:
    doses = [given("heparin", f"h{n}", f"2024-05-0{n}", dosage={"text": f"{n} units"}) for n in (1, 3, 2)]
    record = record_of(*doses, given("Insulin lispro", "i"), given("morphine", "m"), LATER)
    assert listed(record) == {"h3", "i", "m"}
    backwards = replace(record, facts=record.facts[::-1])
    assert listed(backwards) == {"h3", "i", "m"}


def test_an_undated_administration_is_required_where_none_is_dated() -> None:
    undated = given("heparin", "undated", "", dosage={"text": "5"})
    assert listed(record_of(undated, LATER)) == {"undated"}
    assert listed(record_of(undated, given("heparin", "dated"), LATER)) == {"dated"}
    assert listed(record_of(undated)) == {"undated"}


def test_a_drug_is_watched_by_its_code_too_and_never_by_an_order_or_a_dispense() -> None:
    coded = given("brand", medicationCodeableConcept=named("brand", ATC, "B01AB05"))
    assert listed(record_of(coded, LATER)) == {"x"}
    for other in (stated("heparin", "completed"), drug("MedicationDispense", "heparin", status="completed")):
        assert listed(record_of(other, LATER)) == set()
    assert listed(record_of(order("heparin", status="completed"), LATER)) == set()


def test_no_cap_hides_what_was_given_last() -> None:
    orders = [order(f"drug{n}", str(n), "2024-05-20") for n in range(70)]
    kind = kind_of(record_of(given("heparin", "last"), *orders), "medications")
    assert "MedicationAdministration/last" in kind.facts
    assert (len(kind.facts), kind.hidden) == (60, 11)


@pytest.mark.parametrize(
    ("substance", "product", "is_shown"),
    [
        ("Penicillin V", "Penicillin V potassium 250 MG Oral Tablet", True),
        ("Allergy to penicillin", "penicillin G benzathine injection", True),
        ("Penicillins", "Amoxicillin 500 MG Oral Capsule", True),
        ("amoxicillin", "piperacillin / tazobactam", True),
        ("Penicillin V", "cefazolin", False),
        ("cefazolin", "Cephalexin 250 MG", True),
        ("Sulfa drugs", "sulfamethoxazole 800 MG / trimethoprim 160 MG", True),
        ("Sulfonamide", "ferrous sulfate", False),
        ("Aspirin", "ibuprofen 400 MG Oral Tablet", True),
        ("NSAIDs", "naproxen sodium", True),
        ("Lisinopril", "lisinopril 10 MG Oral Tablet", True),
        ("potassium chloride", "Losartan potassium", False),
        ("Drug allergy, oral tablet", "metformin Oral Tablet", False),
        ("Iron", "Iron sucrose", False),
        ("Latex", "metformin", False),
    ],
)
def test_an_allergy_beside_a_current_medication(substance: str, product: str, is_shown: bool) -> None:
    record = record_of(allergy(substance), order(product))
    kind = kind_of(record, "medications")
    assert bool(kind.conflict) is is_shown
    assert listed(record) == {"x"}
    assert listed(record, "allergies") == {"x"}
    if is_shown:
        assert f'"{substance}" (in 2010)' in kind.conflict
        assert f'"{product}" (on 01-May-2024)' in kind.conflict


def test_a_shared_code_is_enough_and_two_empty_codes_are_not() -> None:
    code = named("one", "urn:x", "7")
    record = record_of(
        allergy("a", code=code), order("b", medicationCodeableConcept=named("two", "urn:x", "7"))
    )
    assert kind_of(record, "medications").conflict
    bare = {"coding": [{"system": "urn:x"}], "text": "one"}
    record = record_of(allergy("a", code=bare), order("b", medicationCodeableConcept={**bare, "text": "two"}))
    assert not kind_of(record, "medications").conflict


def clinical(code: str) -> dict[str, Any]:
    return {"clinicalStatus": {"coding": [{"code": code}]}}


@pytest.mark.parametrize(
    "resources",
    [
        [allergy("warfarin", **clinical("resolved")), order("warfarin")],
        [allergy("warfarin", **clinical("inactive")), order("warfarin")],
        [allergy("warfarin", verificationStatus={"coding": [{"code": "refuted"}]}), order("warfarin")],
        [allergy("warfarin"), order("warfarin", status="stopped")],
        [allergy("warfarin"), order("warfarin", doNotPerform=True)],
        [allergy("No known penicillin allergy"), order("penicillin")],
        [allergy("No known drug allergy", code=named("NKDA warfarin", "http://snomed.info/sct", "716186003")),
         order("warfarin")],
    ],
)  # fmt: skip
def test_what_is_over_refuted_or_none_known_is_no_conflict(resources: list[dict[str, Any]]) -> None:
    assert not kind_of(record_of(*resources), "medications").conflict


@pytest.mark.parametrize(
    ("ordered", "said", "fields", "is_shown"),
    [
        ("warfarin 5 MG Oral Tablet", "warfarin 5 MG Oral Tablet", {"effectiveDateTime": "2024-05-02"}, True),
        ("warfarin 5 MG Oral Tablet", "warfarin", {"effectiveDateTime": "2024-05-01"}, True),
        ("warfarin 5 MG Oral Tablet", "warfarin", {"effectiveDateTime": "2024-04-30"}, False),
        ("warfarin 5 MG Oral Tablet", "warfarin", {"effectiveDateTime": "2024"}, True),
        ("warfarin 5 MG Oral Tablet", "warfarin", {}, True),
        ("warfarin", "warfarin", {"effectivePeriod": {"start": "2020", "end": "2024-05-03"}}, True),
        ("warfarin", "warfarin", {"effectivePeriod": {"start": "2020", "end": "2023"}}, False),
        (
            "warfarin 5 MG Oral Tablet",
            "warfarin 2 MG Oral Tablet",
            {"effectiveDateTime": "2024-05-02"},
            False,
        ),
        ("metoprolol succinate", "metoprolol tartrate", {"effectiveDateTime": "2024-05-02"}, False),
        ("warfarin", "aspirin", {"effectiveDateTime": "2024-05-02"}, False),
        ("Oral Tablet", "Oral Capsule", {"effectiveDateTime": "2024-05-02"}, False),
    ],
)
def test_an_active_order_beside_a_statement_that_it_is_over(
    ordered: str, said: str, fields: dict[str, Any], is_shown: bool
) -> None:
    record = record_of(order(ordered, "order"), stated(said, "stopped", **fields))
    kind = kind_of(record, "medications")
    assert bool(kind.conflict) is is_shown
    assert listed(record) == ({"order", "x"} if is_shown else {"order"})


@pytest.mark.parametrize(
    ("status", "word"),
    [("stopped", "stopped"), ("completed", "completed"), ("not-taken", "not taken"), ("active", "")],
)
def test_a_statement_is_named_by_what_it_says(status: str, word: str) -> None:
    record = record_of(order("warfarin", "o"), stated("warfarin", status, effectiveDateTime="2024-05-02"))
    conflict = kind_of(record, "medications").conflict
    assert (f"is stated as {word};" in conflict) if word else not conflict


def test_an_undated_order_is_not_known_to_be_newer_and_only_active_orders_conflict() -> None:
    said = stated("warfarin", "stopped", effectiveDateTime="2024-05-02")
    assert kind_of(record_of(order("warfarin", "o", authoredOn=None), said), "medications").conflict
    assert not kind_of(record_of(order("warfarin", "o", status="on-hold"), said), "medications").conflict


def test_a_drug_that_has_the_same_code_is_the_same_drug() -> None:
    record = record_of(
        order("a", "o", medicationCodeableConcept=named("Coumadin 5 MG", "urn:x", "1")),
        stated("b", "stopped", medicationCodeableConcept=named("warfarin", "urn:x", "1")),
    )
    assert kind_of(record, "medications").conflict


def weight(
    ident: str, value: float, when: str = "2024-05-02T07:00:00Z", unit: str = "kg", code: str = "29463-7",
    **fields: Any,
) -> dict[str, Any]:  # fmt: skip
    return {
        **resource(
            "Observation", status="final", code=named("Weight", "http://loinc.org", code),
            effectiveDateTime=when, valueQuantity={"value": value, "unit": unit}, **fields,
        ),
        "id": ident,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("second", "is_shown"),
    [
        (weight("b", 82), True),
        (weight("b", 82, "2024-05-02"), True),
        (weight("b", 82, code="3141-9"), True),
        (weight("b", 70), False),
        (weight("b", 82, "2024-05-01"), False),
        (weight("b", 82, "2024-05"), False),
        (weight("b", 154, unit="[lb_av]"), False),
        (weight("b", 3, code="8339-4"), False),
        ({**weight("b", 82), "status": "cancelled"}, False),
        ({**weight("b", 82), "valueQuantity": {"unit": "kg"}}, False),
        (weight("b", 3, focus=[{"reference": "Patient/2", "display": "newborn"}]), False),
    ],
)
@pytest.mark.parametrize(("born", "key"), [("1951-05-04", "identity"), ("2020-01-01", "weight")])
def test_two_weights_of_the_newest_day(second: dict[str, Any], is_shown: bool, born: str, key: str) -> None:
    record = assemble_record([patient(birthDate=born), weight("a", 70), second])
    conflicts = {k.key: k.conflict for k in required_facts(record) if k.conflict}
    assert set(conflicts) == ({key} if is_shown else set())
    if is_shown:
        assert {"a", "b"} <= listed(record, key)
        assert "70 kg" in conflicts[key]
        assert "82 kg" in conflicts[key]


def test_old_weights_of_an_adult_are_no_conflict_and_no_cap_hides_a_childs() -> None:
    old = [weight("a", 70, "2020-05-02"), weight("b", 82, "2020-05-02"), LATER]
    assert not kind_of(record_of(*old), "identity").conflict
    many = [weight(f"w{n}", 10 + n) for n in range(5)]
    kind = kind_of(assemble_record([patient(birthDate="2020-01-01"), *many]), "weight")
    assert len(kind.facts) == 5


def test_weights_of_a_month_are_not_known_to_be_of_one_day() -> None:
    record = record_of(weight("a", 70, "2024-05"), weight("b", 82, "2024-05"))
    assert not kind_of(record, "identity").conflict


def test_rules_of_a_site_without_a_weight_kind_compare_no_weights() -> None:
    rules = RequiredRules("site", tuple(r for r in default_rules().rules if r.key != "weight"))
    record = record_of(weight("a", 70), weight("b", 82))
    assert not kind_of(record, "identity", rules=rules).conflict


def test_the_order_of_arrival_changes_neither_conflicts_nor_what_is_listed() -> None:
    resources = [
        patient(), allergy("penicillin"), order("amoxicillin", "a"), order("penicillin V", "p"),
        order("warfarin", "w"), stated("warfarin", "stopped"), weight("a", 70), weight("b", 82),
        given("heparin", "h"),
    ]  # fmt: skip
    assert required_facts(assemble_record(resources)) == required_facts(assemble_record(resources[::-1]))


@pytest.mark.parametrize("kind", ["allergy", "medication"])
def test_what_is_of_another_person_is_no_conflict(kind: str) -> None:
    chart = record_of(allergy("warfarin"), order("warfarin", "o"), stated("warfarin", "stopped"))
    baby = Person("newborn", "newborn")
    facts = tuple(replace(f, person=baby) if f.kind == kind else f for f in chart.facts)
    conflict = kind_of(replace(chart, facts=facts, _by_id={}), "medications").conflict
    assert "Allergy" not in conflict
    assert bool(conflict) is (kind == "allergy")


def test_the_watched_tables_are_well_formed() -> None:
    tables = watched()
    assert [t.key for t in tables.last_given] == ["medications"] * 3
    assert all(t.window_days == 90 and t.match.words and t.match.codes for t in tables.last_given)
    assert [name.split()[0] for name, _ in tables.classes] == [
        "penicillins", "cephalosporins", "sulfonamides", "non-steroidal",
    ]  # fmt: skip
    with pytest.raises(KeyError):
        load_watched({})
