"""Which facts a question is about, and what is said of those that no fact holds."""

from __future__ import annotations

import pytest

from fixtures.facts import (
    A1C,
    COLONOSCOPY,
    GOUT,
    LISINOPRIL,
    POTASSIUM,
    PRESSURE,
    SIMVASTATIN,
    SODIUM,
    fact,
    record,
)
from service.ask.match import MOST, Matched, match_facts
from service.ask.question import sought_in
from service.record.facts import Kind, Status

OLD_A1C = fact(
    "Hemoglobin A1c: 6.4 % on 02-Jan-2019",
    Kind.RESULT,
    status=Status.FINAL,
    on="2019-01-02",
    value="6.4",
    unit="%",
)
HB = fact("Hemoglobin: 13.1 g/dL on 25-Nov-2020", Kind.RESULT, on="2020-11-25", value="13.1", unit="g/dL")
PENICILLIN = fact("Allergy to Penicillin: active; recorded 04-May-2011", Kind.ALLERGY, status=Status.ACTIVE)
LATEX = fact("Allergy to Latex: active; recorded 04-May-2012", Kind.ALLERGY, status=Status.ACTIVE)
ORDER = fact(
    "Penicillin V 250 MG Oral Tablet: stopped order from 27-Oct-2016",
    Kind.MEDICATION,
    on="2016-10-27",
    status=Status.STOPPED,
)
PAIN = fact("Pain severity: 3 on 25-Nov-2020", Kind.VITAL, on="2020-11-25", value="3")
CHEST = fact(
    "Computed tomography of chest: completed on 05-Mar-2015",
    Kind.PROCEDURE,
    on="2015-03-05",
    status=Status.COMPLETED,
)
ATTACK = fact(
    "Myocardial infarction: resolved, on 05-Mar-2015", Kind.PROBLEM, on="2015-03-05", status=Status.RESOLVED
)
STAY = fact(
    "Hospital stay: inpatient encounter, finished on 05-Mar-2015",
    Kind.ENCOUNTER,
    on="2015-03-05",
    category="inpatient",
)
VISIT = fact(
    "Check-up: ambulatory encounter, finished on 05-Mar-2019",
    Kind.ENCOUNTER,
    on="2019-03-05",
    category="ambulatory",
)
CHART = [
    GOUT,
    A1C,
    OLD_A1C,
    HB,
    SODIUM,
    POTASSIUM,
    PRESSURE,
    LISINOPRIL,
    SIMVASTATIN,
    COLONOSCOPY,
    PENICILLIN,
    LATEX,
    ORDER,
    PAIN,
    CHEST,
    ATTACK,
    STAY,
    VISIT,
]


def ask(question: str, former: str = "", facts: list = CHART) -> Matched:  # type: ignore[type-arg]
    return match_facts(record(facts), sought_in(question, former))


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("What was the last HbA1c?", [A1C]),
        ("Glycated hemoglobin?", [A1C, OLD_A1C]),
        ("What was the first A1c?", [OLD_A1C]),
        ("HbA1c in 2019", [OLD_A1C]),
        ("hemoglobin", [HB]),
        ("Which allergies are recorded?", [LATEX, PENICILLIN]),
        ("Is she allergic to penicillin?", [PENICILLIN]),
        ("last blood pressure", [PRESSURE]),
        ("BP?", [PRESSURE]),
        ("Is he on Zestril?", [LISINOPRIL]),
        ("Current medications", [LISINOPRIL]),
        ("Did he have a heart attack?", [ATTACK]),
        ("CT of the chest?", [CHEST]),
        ("When was the colonoscopy?", [COLONOSCOPY]),
        ("When was the last admission?", [STAY]),
        ("When was the last visit?", [VISIT]),
        ("sodium and potassium", [SODIUM, POTASSIUM]),
        ("abnormal results", [A1C]),
        ("Does he take a statin?", [SIMVASTATIN]),
    ],
)
def test_what_is_named_is_found(question: str, named: list) -> None:  # type: ignore[type-arg]
    found = ask(question)
    assert set(found.named) == set(named)
    assert not found.nowhere
    assert not found.elsewhere


@pytest.mark.parametrize(
    ("question", "nowhere"),
    [
        ("Any history of epilepsy?", ("epilepsy",)),
        ("Is she allergic to peanuts?", ("peanuts",)),
        ("Is he taking warfarin?", ("warfarin",)),
        ("Blood thinners?", ("blood thinners",)),
        ("Kidney function?", ("kidney function",)),
        ("last troponin", ("troponin",)),
    ],
)
def test_what_is_not_there_is_told_by_its_words_and_nothing_is_named(
    question: str, nowhere: tuple[str, ...]
) -> None:
    found = ask(question)
    assert found.named == ()
    assert found.nowhere == nowhere


def test_an_order_of_a_drug_is_no_allergy_to_it() -> None:
    found = ask("Is she allergic to penicillin?", facts=[LATEX, ORDER])
    assert found.named == ()
    assert found.touched[:2] == (ORDER, LATEX)
    assert found.elsewhere == ("penicillin",)


def test_a_pain_score_does_not_answer_a_question_about_chest_pain() -> None:
    found = ask("Does she have chest pain?")
    assert found.named == ()
    assert found.elsewhere == ("chest pain",)
    assert {PAIN, CHEST} <= set(found.touched)


def test_half_of_a_question_is_answered_and_the_other_half_is_told() -> None:
    found = ask("sodium and warfarin?")
    assert (found.named, found.nowhere) == ((SODIUM,), ("warfarin",))


def test_a_sentence_of_a_note_that_holds_all_the_words_is_found() -> None:
    note = fact(
        "Progress note of 01-May-2024: “No chest pain at rest.”",
        Kind.NOTE,
        span=(0, 22),
    )
    assert ask("chest pain?", facts=[*CHART, note]).named == (note,)


def test_values_stand_newest_first_and_what_is_over_is_no_current_medication() -> None:
    assert ask("HbA1c").named == (A1C, OLD_A1C)
    assert ask("Is simvastatin current?").named == ()
    assert SIMVASTATIN in ask("Is simvastatin current?").touched


def test_a_follow_up_is_about_what_was_asked_before() -> None:
    assert ask("and in 2019?", "What was the last HbA1c?").named == (OLD_A1C,)
    assert ask("And before that?").named == ()


def test_as_many_facts_are_looked_at_as_there_is_room_for() -> None:
    days = [
        fact(
            f"Sodium: {n} mmol/L on 01-Jan-{1900 + n}",
            Kind.RESULT,
            f"Observation/{n}",
            on=f"{1900 + n}-01-01",
        )
        for n in range(1, 99)
    ]
    found = ask("sodium", facts=days)
    assert len(found.named) == 98
    assert len(found.all) == MOST
    assert found.all[0] is days[-1]


def test_the_longer_name_is_meant_where_it_is_said_whole() -> None:
    cough = fact("Cough: active, since 04-Mar-2011; note: now chronic", status=Status.ACTIVE, on="2011-03-04")
    chronic = fact("Chronic cough: active, since 04-Mar-2012", status=Status.ACTIVE, on="2012-03-04")
    assert ask("chronic cough?", facts=[cough, chronic]).named == (chronic,)
    assert ask("cough?", facts=[cough, chronic]).named == (chronic, cough)


def test_a_salt_of_a_drug_is_no_electrolyte() -> None:
    naproxen = fact("Naproxen sodium 220 MG Oral Tablet: active order from 30-Jun-2018", Kind.MEDICATION)
    assert ask("last sodium", facts=[SODIUM, naproxen]).named == (SODIUM,)
    assert ask("naproxen", facts=[SODIUM, naproxen]).named == (naproxen,)


def test_a_longer_name_is_not_read_as_the_topic_within_it() -> None:
    ldl = fact("Low density lipoprotein cholesterol: 138 mg/dL on 08-Dec-2023", Kind.RESULT, on="2023-12-08")
    total = fact("Total cholesterol: 222 mg/dL on 08-Dec-2023", Kind.RESULT, on="2023-12-08")
    assert ask("last LDL cholesterol", facts=[ldl, total]).named == (ldl,)
    assert ask("last cholesterol", facts=[ldl, total]).named == (total,)
    assert set(ask("lipids", facts=[ldl, total]).named) == {ldl, total}
