"""One cited fact taken apart: which words, numbers and days it accounts for, and by what it is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.facts import A1C, GOUT, LISINOPRIL, PRESSURE, fact
from service.grounding.source import Source, content
from service.grounding.words import DateToken, NumberToken
from service.record.facts import Code, Kind, Status

NONE: frozenset[str] = frozenset()


def named(name: str, kind: Kind, said: str) -> bool:
    source = Source(fact(f"{name}: active", kind))
    return source.is_named_by(frozenset(said.split()))


def test_units_are_those_of_the_line_and_the_recorded_one() -> None:
    assert Source(A1C).units == {"%"}
    assert Source(fact("Sodium: 140 mmol/L", Kind.RESULT)).units == {"mmol/l"}
    assert Source(fact("Sodium: high", Kind.RESULT, value="140", unit="mEq/L")).units == {"meq/l"}
    assert Source(fact("Ratio: 3", Kind.RESULT, value="3")).units == NONE


def test_a_number_in_a_name_is_no_value_but_a_drugs_strength_is_one() -> None:
    assert Source(fact("Pain 0-10: 3 cm", Kind.VITAL)).sentence.numbers == (NumberToken("3", "cm"),)
    assert Source(LISINOPRIL).sentence.numbers[0] == NumberToken("10", "mg")
    moved = fact("On 7 there was pain 3 cm", Kind.VITAL, name="7")
    assert Source(moved).sentence.numbers[0] == NumberToken("7", "")


def test_a_device_says_of_itself_what_its_details_hold() -> None:
    device = fact("Pacemaker: active; lot 12", Kind.DEVICE, details=(("serial", "S99"), ("lot", "12")))
    assert Source(device).line == "Pacemaker: active; lot 12; serial S99"
    assert Source(replace(device, kind=Kind.FLAG)).line == "Pacemaker: active; lot 12"
    assert Source(replace(device, details=())).line == "Pacemaker: active; lot 12"


def test_a_fact_accounts_for_its_line_its_codes_its_certainty_and_its_status() -> None:
    coded = fact("Gout: here", codes=(Code("s", "1", "Podagra"), Code("s", "2", "Urica")), certainty="likely",
                 status=Status.ON_HOLD, recorded_status="paused", name="Gouty")  # fmt: skip
    assert Source(coded).words == {
        "gout",
        "here",
        "podagra",
        "urica",
        "likely",
        "on",
        "hold",
        "paused",
        "gouty",
    }


@pytest.mark.parametrize(
    ("name", "kind", "said", "is_so"),
    [
        ("Fracture of hip (disorder)", Kind.PROBLEM, "hip fracture", True),
        ("Fracture of hip (disorder)", Kind.PROBLEM, "fracture", False),
        ("Sodium [Moles/volume] in Blood", Kind.RESULT, "sodium", True),
        ("Sodium [Moles/volume] in Blood", Kind.PROBLEM, "sodium", False),
        ("Sodium [Moles/volume] in Blood", Kind.VITAL, "sodium", True),
        ("Sodium [Moles/volume] in Blood", Kind.SOCIAL, "sodium", True),
        ("naproxen sodium 220 MG Oral Tablet", Kind.MEDICATION, "naproxen", True),
        ("sodium bicarbonate 650 MG Oral Tablet", Kind.MEDICATION, "bicarbonate", False),
        ("Oral Tablet", Kind.MEDICATION, "oral tablet", True),
        ("Oral Tablet", Kind.MEDICATION, "x", False),
        ("Implantable defibrillator, device", Kind.DEVICE, "implantable defibrillator", True),
        ("Device", Kind.DEVICE, "device", True),
        ("Device", Kind.DEVICE, "x", False),
        ("in Blood", Kind.RESULT, "in blood", True),
        ("in Blood", Kind.RESULT, "x", False),
    ],
)
def test_a_name_is_said_by_its_content_words(name: str, kind: Kind, said: str, is_so: bool) -> None:
    assert named(name, kind, said) is is_so


@pytest.mark.parametrize(
    "value", "yes no true false positive negative present absent unknown other none".split()
)
def test_an_answer_that_says_nothing_by_itself_names_nothing(value: str) -> None:
    smoking = replace(fact("Tobacco status: x", Kind.SOCIAL), value=value.title())
    assert not Source(smoking).is_named_by(frozenset({value}))
    former = replace(smoking, value=f"{value.title()} smoker")
    assert Source(former).is_named_by(frozenset({value, "smoker"}))
    assert not Source(former).is_named_by(frozenset({"smoker"}))
    assert not Source(replace(former, kind=Kind.RESULT)).is_named_by(frozenset({value, "smoker"}))


@pytest.mark.parametrize(
    ("category", "said"),
    [("inpatient", word) for word in ("inpatient", "admission", "stay", "hospitalization")]
    + [("emergency", "emergency")],
)
def test_an_encounter_is_named_by_its_setting(category: str, said: str) -> None:
    stay = fact("Visit 12: finished", Kind.ENCOUNTER, category=category, name="Encounter for symptom")
    assert Source(stay).is_named_by(frozenset({said}))
    assert not Source(replace(stay, category="ambulatory")).is_named_by(frozenset({said}))
    assert not Source(replace(stay, kind=Kind.PROBLEM)).is_named_by(frozenset({said}))
    assert not Source(stay).is_named_by(frozenset({"clinic"}))


@pytest.mark.parametrize(
    "visit", "encounter visit seen attended presented admission inpatient emergency ambulatory".split()
)
def test_an_encounter_is_named_by_its_reason_where_a_visit_is_told(visit: str) -> None:
    seen = fact("Office: finished", Kind.ENCOUNTER, details=(("reason", "back pain"),), name="Office meeting")
    assert Source(seen).is_named_by(frozenset({visit, "back", "pain"}))
    assert not Source(seen).is_named_by(frozenset({visit, "back"}))
    assert not Source(seen).is_named_by(frozenset({"back", "pain"}))
    assert not Source(replace(seen, details=())).is_named_by(frozenset({visit, "back", "pain"}))


def test_a_reason_that_tells_a_visit_names_its_encounter_by_itself() -> None:
    seen = fact("Office: finished", Kind.ENCOUNTER, details=(("reason", "annual visit"),), name="Meeting")
    assert Source(seen).is_named_by(frozenset({"annual", "visit"}))
    assert not Source(seen).is_named_by(frozenset({"visit"}))


def test_beside_a_quotation_stands_what_is_before_it() -> None:
    quoted = replace(fact("Note of 01-May-2024: “Gout, gout.”", Kind.NOTE, span=(0, 3)), value="Gout")
    assert Source(quoted).beside.fact.text == "Note of 01-May-2024: “"
    empty = Source(replace(quoted, value="")).beside.fact.text
    assert empty == "Note of 01-May-2024: “Gout,"
    plain = Source(GOUT)
    assert plain.beside is plain


def test_the_mark_of_another_person_is_no_denial_of_the_line() -> None:
    other = fact("Fetal pulse, not the patient: not felt, not the patient: x")
    assert Source(other).own_words == {"fetal", "pulse", "not", "felt", "the", "patient", "x"}
    assert "not" not in Source(fact("Fetal pulse, not the patient: felt")).own_words


def test_a_blood_pressure_has_both_parts_in_one_unit() -> None:
    both = (("systolic", "127 mm[Hg]"), ("diastolic", "80 mm[Hg]"))
    assert Source(replace(PRESSURE, details=both)).is_pressure
    assert not Source(replace(PRESSURE, details=both[:1])).is_pressure
    assert not Source(replace(PRESSURE, details=both[1:])).is_pressure
    assert not Source(replace(PRESSURE, details=(both[0], ("diastolic", "80 kPa")))).is_pressure
    assert not Source(PRESSURE).is_pressure


def test_a_panel_has_several_values_and_no_single_one() -> None:
    assert Source(PRESSURE).has_components
    for kind in (Kind.RESULT, Kind.VITAL, Kind.SOCIAL):
        assert Source(replace(PRESSURE, kind=kind)).has_components
    assert not Source(replace(PRESSURE, kind=Kind.FLAG)).has_components
    assert not Source(A1C).has_components
    assert not Source(fact("Sodium: 140 mmol/L on 01-May-2020", Kind.RESULT)).has_components


def bears(source: Source, token: DateToken | NumberToken, window: str = "", before: str = "") -> bool:
    return source.bears(token, frozenset(window.split()), frozenset(before.split()))


def test_a_number_is_borne_with_its_unit_beside_words_of_the_fact() -> None:
    source = Source(A1C)
    assert bears(source, NumberToken("5.8", "%"), "hemoglobin a1c")
    assert not bears(source, NumberToken("5.8", "mg"))
    assert not bears(source, NumberToken("5.8", "%"), "sodium")
    assert not bears(source, NumberToken("4.0", ""))
    assert bears(source, NumberToken("5.6", ""), "reference", "reference")


def test_a_number_of_a_panel_is_borne_beside_its_own_label() -> None:
    source = Source(PRESSURE)
    assert bears(source, NumberToken("127.2", "mm[hg]"), "systolic")
    assert bears(source, NumberToken("127.2", "mm[hg]"), "blood pressure systolic")
    assert not bears(source, NumberToken("127.2", "mm[hg]"), "diastolic")
    assert not bears(source, NumberToken("127.2", "mm[hg]"), "systolic diastolic")
    assert not bears(source, NumberToken("80.5", "mm[hg]"), "blood")
    assert not bears(source, NumberToken("127.2", "mm[hg]"))
    assert bears(source, NumberToken("80.5", "mm[hg]"), "diastolic")


def test_a_day_is_borne_beside_words_of_the_fact_and_told_alike() -> None:
    source = Source(A1C)
    assert bears(source, DateToken(2020, 11, 25), "a1c")
    assert bears(source, DateToken(2020, 11))
    assert not bears(source, DateToken(2020, 11, 24))
    assert not bears(source, DateToken(2020, 11, 25), "sodium")
    series = Source(fact("Sodium: recorded 3 times, first 01-May-2020, latest 02-May-2021", Kind.RESULT))
    for told, day in (("first", DateToken(2020, 5, 1)), ("latest", DateToken(2021, 5, 2))):
        assert bears(series, day, told)
        assert not bears(series, day)
        assert not bears(series, day, "first latest")
    assert not bears(series, DateToken(2020, 5, 1), "latest")
    first = Source(fact("First latest dose: on 01-May-2020", Kind.RESULT))
    assert bears(first, DateToken(2020, 5, 1), "first")


def test_plain_words_are_no_content() -> None:
    assert content(["the", "gout", "was", "severe"]) == {"gout", "severe"}


def test_every_word_of_the_line_may_stand_beside_its_value_and_its_day() -> None:
    source = Source(A1C)
    everything = " ".join(source.words)
    assert bears(source, NumberToken("5.8", "%"), everything)
    assert not bears(source, NumberToken("5.8", "%"), f"{everything} sodium")
    series = Source(fact("Sodium: high on 01-May-2020", Kind.RESULT))
    assert bears(series, DateToken(2020, 5, 1), " ".join(series.words))


def test_both_ends_of_a_reference_range_are_no_values() -> None:
    source = Source(A1C)
    for end in ("4.0", "5.6"):
        assert not bears(source, NumberToken(end, ""))
        assert not bears(source, NumberToken(end, ""), "hemoglobin", "hemoglobin")
        assert bears(source, NumberToken(end, ""), "reference", "hemoglobin reference")
    assert bears(source, NumberToken("5.8", "%"), "", "reference")


def test_what_has_no_quantity_has_the_units_of_its_line_alone() -> None:
    assert Source(GOUT).units == NONE
    assert Source(PRESSURE).units == {"mm[hg]"}
    assert Source(replace(GOUT, text="Gout: 2 tophi")).units == {"tophi"}


def test_a_pressure_may_hold_more_than_its_two_parts() -> None:
    parts = (("systolic", "127 mm[Hg]"), ("diastolic", "80 mm[Hg]"), ("mean", "96 mm[Hg]"))
    assert Source(replace(PRESSURE, details=parts)).is_pressure
    assert not Source(replace(PRESSURE, details=parts[1:])).is_pressure
