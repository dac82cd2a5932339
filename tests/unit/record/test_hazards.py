"""One hand-built chart for each SAFETY rule that the record keeps."""

from __future__ import annotations

import logging

import pytest

from connectors.fhir.pull import Gap, GapReason
from service.errors import RecordError
from service.grounding.check import judge
from service.grounding.source import Source
from service.record.assemble import Policy, check_patient, resources_of, stop_reason
from service.record.facts import Absence, Kind, RequiredKind, Status
from service.record.required import is_previous, required_facts
from tests.conftest import CANARY
from tests.unit.record.charts import hazard, hazard_bundle, ids

HAZARDS = (
    "safety-01-another-patient",
    "safety-01-inactive",
    "safety-01-merged",
    "safety-02-another-person",
    "safety-05-no-known-allergy",
    "safety-05-nothing-recorded",
    "safety-05-unreadable-allergy",
    "safety-06-incomplete",
    "safety-07-required",
    "safety-11-units",
    "safety-12-conflicts",
    "safety-12-medications",
    "safety-13-copied-forward",
    "safety-20-labels",
    "safety-25-own-output",
)


def test_resources_of_another_patient_are_skipped_and_counted() -> None:
    record = hazard("safety-01-another-patient", patient_id="1")
    assert {i for i in ids(record) if i.startswith("Condition")} == {
        "Condition/own",
        "Condition/merged",
        "Condition/absolute",
    }
    assert record.skipped == {"other_patient": 5, "no_subject": 1}
    assert not any(v.reference == "Condition/other" for v in record.inputs)


@pytest.mark.parametrize(
    ("chart", "asked", "said"),
    [
        ("safety-01-merged", "1", "merged"),
        ("safety-01-inactive", "1", "not active"),
        ("safety-05-nothing-recorded", "7", "another Patient"),
    ],
)
def test_a_run_stops_on_a_patient_that_must_not_be_summarised(chart: str, asked: str, said: str) -> None:
    resources = list(resources_of(hazard_bundle(chart)))
    reason = stop_reason(resources, asked)
    assert reason is not None
    assert said in reason
    with pytest.raises(RecordError) as error:
        check_patient(resources, asked)
    assert CANARY not in str(error.value)


def test_a_run_stops_without_a_patient_and_goes_on_with_an_ordinary_one() -> None:
    assert "no Patient" in (stop_reason([{"resourceType": "Condition"}, None], "1") or "")
    resources = list(resources_of(hazard_bundle("safety-05-nothing-recorded")))
    assert stop_reason(resources, "Patient/1") is None
    assert stop_reason(resources, None) is None
    check_patient(resources, "1")


def test_another_person_is_part_of_the_fact() -> None:
    record = hazard("safety-02-another-person")
    roles = {str(f.id): f.person.role for f in record.facts if f.kind is not Kind.PATIENT}
    assert roles == {
        "Observation/fetal-rate": "fetus",
        "Observation/mothers-group": "mother",
        "Observation/newborn-weight": "newborn",
        "Observation/own-rate": "patient",
        "Condition/mothers": "mother",
        "Flag/own": "patient",
        "Flag/newborns": "newborn",
        "FamilyMemberHistory/f": "relative",
    }
    for fact in record.facts:
        if fact.person.role not in ("patient", "relative"):
            assert "not the patient: " in fact.text
    assert record.fact("FamilyMemberHistory/f").text.startswith("Family history, mother: Breast cancer")  # type: ignore[arg-type]


def test_what_is_of_another_person_is_no_required_fact() -> None:
    record = hazard("safety-02-another-person")
    listed = {k.key: k.facts for k in required_facts(record)}
    assert listed["problems"] == ()
    assert listed["isolation"] == ("Flag/own",)


def test_a_critical_finding_in_a_fetus_is_required_and_says_whose_it_is() -> None:
    record = hazard("safety-02-another-person")
    critical = next(k for k in required_facts(record) if k.key == "results")
    assert critical.facts == ("Observation/fetal-rate",)
    assert record.fact(critical.facts[0]).text.startswith("About fetus A, not the patient: ")


def states(name: str, **options: object) -> dict[str, Absence]:
    return {k.key: k.state for k in required_facts(hazard(name, **options))}


def test_absence_is_said_only_where_the_search_was_complete() -> None:
    assert states("safety-05-nothing-recorded")["allergies"] is Absence.NONE_RECORDED


def test_no_known_allergy_needs_an_explicit_record() -> None:
    kinds = {k.key: k for k in required_facts(hazard("safety-05-no-known-allergy"))}
    assert kinds["allergies"].state is Absence.LISTED
    assert kinds["allergies"].facts == ("AllergyIntolerance/nka",)
    assert kinds["allergies"].conflict == ""


def test_a_resource_that_cannot_be_read_forbids_saying_none() -> None:
    kinds = {k.key: k for k in required_facts(hazard("safety-05-unreadable-allergy"))}
    assert kinds["allergies"].state is Absence.NOT_RETRIEVED
    assert "could not be read" in kinds["allergies"].reason
    assert kinds["problems"].state is Absence.NONE_RECORDED


@pytest.mark.parametrize(
    ("gap", "missing"),
    [
        (Gap("AllergyIntolerance", GapReason.REFUSED), {"allergies"}),
        (Gap("Condition", GapReason.SUPPRESSED), {"problems"}),
        (Gap("MedicationRequest", GapReason.TIMED_OUT), {"medications"}),
        (Gap("MedicationStatement", GapReason.NOT_SUPPORTED), set()),
        (Gap("MedicationStatement", GapReason.FAILED), {"medications"}),
        (Gap(None, GapReason.PAGING, "page 3"), {"allergies", "problems", "medications"}),
    ],
)
def test_an_incomplete_essential_kind_says_so_and_why(gap: Gap, missing: set[str]) -> None:
    kinds = required_facts(hazard("safety-06-incomplete", gaps=(gap,)))
    essential = {k.key for k in kinds if k.essential and k.state is Absence.NOT_RETRIEVED}
    assert essential == missing
    for kind in kinds:
        assert (kind.state is Absence.NOT_RETRIEVED) == bool(kind.reason)
        if kind.reason:
            assert gap.reason.value in kind.reason


def test_facts_of_an_incomplete_kind_are_still_listed() -> None:
    gap = Gap("Condition", GapReason.SUPPRESSED)
    kinds = {k.key: k for k in required_facts(hazard("safety-06-incomplete", gaps=(gap,)))}
    assert kinds["problems"].facts == ("Condition/c",)


def test_the_encounter_at_hand_is_essential() -> None:
    record = hazard("safety-07-required")
    kind = next(k for k in required_facts(record, encounter="Encounter/now") if k.key == "encounter")
    assert (kind.state, kind.facts, kind.essential) == (Absence.LISTED, ("Encounter/now",), True)
    absent = next(k for k in required_facts(record, encounter="Encounter/lost") if k.key == "encounter")
    assert absent.state is Absence.NOT_RETRIEVED
    assert absent.reason
    assert all(k.key != "encounter" for k in required_facts(record))


def test_required_facts_are_listed_in_order_and_nothing_else() -> None:
    kinds = required_facts(hazard("safety-07-required"))
    assert [(k.key, list(k.facts)) for k in kinds] == [
        ("identity", ["Patient/1", "Observation/pregnancy"]),
        ("allergies", ["AllergyIntolerance/high", "AllergyIntolerance/nka", "AllergyIntolerance/low"]),
        ("problems", ["Condition/unsure", "Condition/active"]),
        ("medications", ["MedicationRequest/current", "MedicationRequest/never"]),
        ("results", ["Observation/cult", "Observation/hb", "Observation/inr", "Observation/k"]),
        ("orders", ["ServiceRequest/ct"]),
        ("directives", ["ServiceRequest/dnr", "Observation/wish", "Observation/full"]),
        ("isolation", ["Flag/iso"]),
        ("devices", ["Device/pm"]),
    ]


def test_conflicts_are_shown_and_not_resolved() -> None:
    kinds = {k.key: k for k in required_facts(hazard("safety-07-required"))}
    assert "NKDA" in kinds["allergies"].conflict
    assert "Full code (on 01-Jan-2020)" in kinds["directives"].conflict
    assert "Do not resuscitate (on 04-May-2024)" in kinds["directives"].conflict
    assert "home" not in kinds["directives"].conflict
    assert [k for k, v in kinds.items() if v.conflict] == ["allergies", "directives"]


def test_an_older_code_status_is_previous_to_the_encounter_at_hand() -> None:
    record = hazard("safety-07-required")
    kinds = {k.key: k for k in required_facts(record, encounter="Encounter/now")}
    previous = {i: is_previous(record.fact(i), record, "Encounter/now") for i in kinds["directives"].facts}
    assert previous == {"ServiceRequest/dnr": False, "Observation/wish": True, "Observation/full": True}
    assert kinds["directives"].conflict == ""


def test_nothing_is_said_of_code_status_where_none_is_recorded() -> None:
    record = hazard("safety-05-nothing-recorded")
    assert not any("code" in f.text.lower() for f in record.facts)
    assert states("safety-05-nothing-recorded")["directives"] is Absence.NONE_RECORDED


def test_a_preference_is_not_an_order() -> None:
    fact = hazard("safety-07-required").fact("Observation/wish")  # type: ignore[arg-type]
    assert fact.kind is Kind.DIRECTIVE
    assert "not an order" in fact.text


def test_units_digits_and_comparators_stay_as_recorded() -> None:
    texts = {str(f.id): f.text for f in hazard("safety-11-units").facts}
    assert texts["Observation/trace"] == "Troponin I: <0.01 ng/mL in May-2024"
    assert texts["Observation/digits"] == "Creatinine: 6.10 mg/dL in 2024"
    assert texts["Observation/tiny"] == "Digoxin: 0.0000005 g/L"
    assert texts["MedicationRequest/dose"] == "morphine: active order; 5 mg"
    assert texts["MedicationRequest/insulin"] == "insulin lispro: active order; 0.5 units"


def test_ordered_stated_dispensed_and_given_are_told_apart() -> None:
    texts = {str(f.id): f.text for f in hazard("safety-12-medications").facts}
    drug = "warfarin 5 MG Oral Tablet"
    assert texts["MedicationRequest/order"] == f"{drug}: active order from 04-May-2024; category: outpatient"
    assert texts["MedicationStatement/said"] == f"{drug}: active medication statement, since 01-Jan-2024"
    assert texts["MedicationDispense/dispensed"] == (
        f"{drug}: dispensed (completed) on 02-Jan-2024; quantity: 30 tablet"
    )
    assert texts["MedicationAdministration/given"] == (
        "heparin: given (administration completed) on 03-Jan-2024; 5000 units, subcutaneous"
    )
    assert texts["MedicationRequest/proposal"].startswith("apixaban 5 MG Oral Tablet: active proposal")


def test_what_is_not_done_never_reads_as_done() -> None:
    record = hazard("safety-12-medications")
    by_id = {str(f.id): f for f in record.facts}
    assert "Condition/error" not in by_id
    assert record.skipped == {"entered_in_error": 1}
    assert by_id["Procedure/refused"].text == "Colonoscopy: not done (patient refused), recorded 12-Mar-2019"
    assert by_id["Immunization/refused"].text == (
        "Immunization Influenza vaccine: not done (patient objection), recorded 12-Mar-2019"
    )
    assert by_id["MedicationAdministration/missed"].text == (
        "heparin: not given (administration not done) (patient asleep) on 04-Jan-2024"
    )
    assert by_id["MedicationStatement/not-taken"].status is Status.NOT_DONE
    assert "not taken" in by_id["MedicationStatement/not-taken"].text
    assert by_id["Condition/refuted"].status is Status.REFUTED
    assert by_id["Condition/refuted"].text.startswith("Pulmonary embolism: refuted")
    assert by_id["ServiceRequest/ordered"].text == "Appendectomy: active order from 01-Jan-2024"
    assert "NOT to perform" in by_id["ServiceRequest/forbidden"].text
    assert by_id["MedicationRequest/proposal"].status is Status.PLANNED


def required_kind(name: str, key: str) -> RequiredKind:
    return next(k for k in required_facts(hazard(name)) if k.key == key)


def test_the_last_administration_of_anticoagulants_insulin_and_opioids_is_required() -> None:
    given = [f for f in required_kind("safety-12-conflicts", "medications").facts if "Administration" in f]
    assert sorted(given) == ["MedicationAdministration/heparin-2", "MedicationAdministration/insulin"]


def test_an_allergy_beside_a_prescription_is_shown_and_neither_is_dropped() -> None:
    kind = required_kind("safety-12-conflicts", "medications")
    assert (
        'Allergy or intolerance "Penicillin V" (on 04-May-2010) is recorded beside the current medication'
        ' "Penicillin V potassium 250 MG Oral Tablet" (on 20-Apr-2024); the record does not say which holds.'
    ) in kind.conflict
    assert (
        '"Amoxicillin 500 MG Oral Capsule" (on 21-Apr-2024) (both in the class: penicillins)' in kind.conflict
    )
    assert "Cefazolin" not in kind.conflict
    assert '"Lisinopril"' not in kind.conflict
    assert {"MedicationRequest/penicillin", "MedicationRequest/amoxicillin"} <= set(kind.facts)
    allergies = required_kind("safety-12-conflicts", "allergies")
    assert "AllergyIntolerance/penicillin" in allergies.facts


def test_an_active_order_and_a_newer_statement_that_it_is_over_are_both_shown() -> None:
    kind = required_kind("safety-12-conflicts", "medications")
    assert (
        '"metformin 500 MG Oral Tablet" (on 10-Jan-2024) is an active order, and'
        ' "metformin 500 MG Oral Tablet" (from 01-Jan-2023 to 01-Mar-2024) is stated as stopped'
    ) in kind.conflict
    assert '"atorvastatin" (on 01-Apr-2024) is stated as not taken' in kind.conflict
    assert {
        "MedicationRequest/metformin",
        "MedicationStatement/metformin",
        "MedicationRequest/atorvastatin",
        "MedicationStatement/atorvastatin",
    } <= set(kind.facts)
    assert "MedicationStatement/old" not in kind.facts


def test_two_weights_of_one_day_are_shown_with_an_adults_identity() -> None:
    kind = required_kind("safety-12-conflicts", "identity")
    assert kind.conflict == (
        'Different weights are recorded for one day: "Body weight" 70 kg (on 02-May-2024);'
        ' "Body weight" 82 kg (on 02-May-2024). The record does not say which holds.'
    )
    assert {"Observation/weight-1", "Observation/weight-2"} <= set(kind.facts)


def test_copied_forward_text_counts_from_its_first_appearance() -> None:
    record = hazard("safety-13-copied-forward")
    told = {str(f.id): f for f in record.facts if f.span}
    assert set(told) == {"DocumentReference/first#c12-80", "DocumentReference/later#c87-153"}
    copied = told["DocumentReference/first#c12-80"]
    assert copied.text == (
        "Progress note of 01-May-2024, Assessment:"
        " “Patient remains on vancomycin for line infection with fever to 39.2.”"
    )
    assert [s.reference for s in copied.sources] == ["DocumentReference/first", "DocumentReference/later"]


@pytest.mark.parametrize(
    ("day", "is_supported"), [("01-May-2024", True), ("04-May-2024", False), ("", False)]
)
def test_a_copied_sentence_cannot_be_quoted_with_the_day_of_the_later_note(
    day: str, is_supported: bool
) -> None:
    copied = next(f for f in hazard("safety-13-copied-forward").facts if f.span and f.copies)
    said = f"Progress note{f' of {day}' if day else ''}, Assessment: “{copied.value}”"
    faults = [reason for _, reason in judge(said, [Source(copied)], "")]
    assert (not faults) is is_supported
    if not is_supported:
        assert "day_of_the_note_missing" in faults


def test_restricted_data_is_left_out_without_naming_its_kind() -> None:
    record = hazard("safety-20-labels")
    assert {i for i in ids(record) if i.startswith("Condition")} == {"Condition/normal", "Condition/nopat"}
    assert record.skipped == {"restricted": 8}
    shown = repr(record.facts) + repr(record.problems) + repr(record.inputs)
    assert "Secret" not in shown
    assert "Medication" not in shown


def test_withheld_data_forbids_saying_none_of_every_empty_kind_alike() -> None:
    empty = {k: v for k, v in states("safety-20-labels").items() if k not in ("identity", "problems")}
    assert set(empty.values()) == {Absence.NOT_RETRIEVED}
    assert states("safety-20-labels")["problems"] is Absence.LISTED


def test_a_users_own_token_and_a_sites_list_change_what_is_left_out() -> None:
    assert "Condition/r" in ids(hazard("safety-20-labels", policy=Policy(keep_restricted=True)))
    allowed = Policy(allowed_labels=frozenset({("urn:site", "X9")}))
    assert "Condition/unknown" in ids(hazard("safety-20-labels", policy=allowed))
    listed = Policy(note_types=frozenset({("urn:site", "psy-note")}))
    assert "DocumentReference/psy" not in ids(hazard("safety-20-labels", policy=listed))
    assert "DocumentReference/psy" in ids(hazard("safety-20-labels"))


def test_what_we_or_another_ai_wrote_is_no_evidence() -> None:
    record = hazard("safety-25-own-output")
    notes = {i for i in ids(record) if i.startswith("DocumentReference")}
    assert notes == {"DocumentReference/human", "DocumentReference/human#c0-4"}
    assert record.skipped == {"own_output": 6, "administrative": 1}
    assert not any("DocumentReference/labelled" in v.reference for v in record.inputs)
    assert any("human made final" in p for p in record.problems)


def test_our_own_output_does_not_make_the_chart_look_changed() -> None:
    with_output = hazard("safety-25-own-output")
    resources = [
        r for r in resources_of(hazard_bundle("safety-25-own-output")) if r["id"] in ("1", "c", "human")
    ]
    from service.record.assemble import assemble_record

    without = assemble_record(resources)
    assert without.digest == with_output.digest
    assert without.as_of == with_output.as_of


@pytest.mark.parametrize("name", HAZARDS)
def test_no_patient_name_reaches_a_log_a_problem_or_a_fact(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    record = hazard(name)
    assert CANARY in record.identity.name
    assert CANARY not in caplog.text
    assert CANARY not in repr(record.problems)
    assert CANARY not in repr(record.facts)
