"""The order of words: what the record says in one order is not said in another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.facts import COLONOSCOPY, GOUT, LISINOPRIL, fact
from service.grounding.check import Judge
from service.grounding.order import lent_words, name_spans, negations, out_of_order, scopes, turned_reasons
from service.grounding.source import Source
from service.grounding.summary import Verdict
from service.record.facts import Fact, FactId, Kind, Status

CT = fact("CT of chest without contrast: completed on 17-May-2013; modality: CT", Kind.PROCEDURE,
          status=Status.COMPLETED, recorded_status="completed", on="2013-05-17")  # fmt: skip
PILL = fact("Amoxicillin 250 MG / Clavulanate 125 MG Oral Tablet: active order", Kind.MEDICATION,
            status=Status.ACTIVE, recorded_status="active")  # fmt: skip


def codes(text: str, *cited: Fact) -> set[str]:
    return set(Judge("").verdict(text, cited)[1])


@pytest.mark.parametrize(
    ("text", "cited", "is_so"),
    [
        (CT.text, CT, True),
        ("CT of chest without contrast, a CT of chest without contrast, completed on 17-May-2013.", CT, True),
        ("CT of chest without contrast was performed on 17-May-2013.", CT, True),
        ("A CT of chest without contrast was completed.", CT, True),
        ("CT of chest without contrast, a CT of chest without contrast, was completed.", CT, True),
        ("CT of contrast without chest: completed on 17-May-2013.", CT, False),
        ("CT of chest was without contrast completed.", CT, False),
        ("CT of chest was not completed without contrast.", CT, False),
        ("Amoxicillin 250 mg / clavulanate 125 mg oral tablet is an active order.", PILL, True),
        ("Amoxicillin 125 mg / clavulanate 250 mg oral tablet is an active order.", PILL, False),
    ],
)
def test_a_name_is_said_in_its_order_and_may_be_said_twice(text: str, cited: Fact, is_so: bool) -> None:
    assert (Judge("female").verdict(text, [cited])[0] is Verdict.SUPPORTED) is is_so


NOTHING: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    "end",
    [
        ", ",
        ". ",
        ": ",
        "; ",
        ";",
        "(",
        ")",
        "“",
        "”",
        " 5 ",
        *(f" {word} " for word in "and but although because as or while with And".split()),
    ],
)
def test_a_negation_denies_no_more_than_its_phrase(end: str) -> None:
    assert scopes(f"Seen: no fever{end}cough", NOTHING) == [{"fever"}]


@pytest.mark.parametrize("word", "no not never none without negative absent nor No NOT".split())
def test_every_negation_has_a_scope_and_a_refusal_none(word: str) -> None:
    assert scopes(f"Seen {word} high fever, cough", NOTHING) == [{"high", "fever"}]
    for refusal in ("refused", "declined", "denied", "denies"):
        assert scopes(f"Seen {refusal} fever", NOTHING) == []


def test_a_scope_holds_six_words_that_carry_something() -> None:
    assert scopes("no a1 b c d the e f g h", NOTHING) == [NOTHING]
    told = "no alpha beta the gamma delta epsilon zeta eta theta"
    assert scopes(told, NOTHING) == [{"alpha", "beta", "gamma", "delta", "epsilon", "zeta"}]
    assert scopes(told, frozenset({"beta"})) == [{"alpha", "gamma", "delta", "epsilon", "zeta", "eta"}]
    assert scopes("no fever and not cough", NOTHING) == [{"fever"}, {"cough"}]
    assert scopes("none", NOTHING) == [NOTHING]


EFFUSION = fact("Chest film: completed; effusion, no embolism", Kind.PROCEDURE, status=Status.COMPLETED)


def denials(text: str, *cited: Fact) -> list[str]:
    return [reason for _, reason in negations(text, [Source(one) for one in cited], NOTHING)]


def test_a_denial_is_of_what_the_record_denies() -> None:
    assert denials("Chest film completed: no embolism, effusion.", EFFUSION) == []
    assert denials("Chest film completed: no effusion, embolism.", EFFUSION) == [
        "negation_of_something_else", "negation_lost",
    ]  # fmt: skip
    assert denials("Chest film completed: no embolism, no effusion.", EFFUSION) == [
        "negation_of_something_else"
    ]
    assert denials("Chest film completed: embolism.", EFFUSION) == ["negation_lost"]
    assert denials("Chest film completed.", EFFUSION) == []
    assert denials("Chest film completed, no.", EFFUSION) == ["negation_of_something_else"]
    bare = fact("Chest film: completed, no", Kind.PROCEDURE, status=Status.COMPLETED)
    assert denials("Chest film completed, no.", bare) == []
    assert denials("Chest film completed, no film.", bare) == ["negation_of_something_else"]


def test_a_word_that_the_line_also_affirms_may_be_said() -> None:
    twice = fact("Chest film: completed; no embolism today, embolism before", Kind.PROCEDURE,
                 status=Status.COMPLETED)  # fmt: skip
    assert "negation_lost" not in denials("Chest film completed: embolism before.", twice)


@pytest.mark.parametrize("word", "done performed completed undergone undergo".split())
def test_what_was_not_done_may_be_denied_in_every_word_for_it(word: str) -> None:
    undone = fact("Colonoscopy: cancelled", Kind.PROCEDURE, status=Status.NOT_DONE)
    assert denials(f"Colonoscopy was not {word}.", undone) == []
    assert denials(f"Colonoscopy was not {word}.", replace(undone, status=Status.COMPLETED)) == [
        "negation_of_something_else"
    ]
    assert denials("Not colonoscopy.", undone) == []
    assert denials("Not endoscopy.", undone) == ["negation_of_something_else"]


@pytest.mark.parametrize("word", "refused declined denied denies".split())
def test_a_refusal_denies_only_what_was_not_done(word: str) -> None:
    assert "negation_lost" in denials("Chest film: embolism.", EFFUSION)
    assert "negation_lost" not in denials(f"Chest film: embolism {word}.", EFFUSION)
    undone = replace(EFFUSION, status=Status.NOT_DONE)
    assert "negation_lost" in denials(f"Chest film: embolism {word}.", undone)


@pytest.mark.parametrize("word", "present active known confirmed".split())
def test_refuted_denies_by_itself_unless_it_is_called_present(word: str) -> None:
    refuted = fact("Gout: refuted, no crystals", status=Status.REFUTED, recorded_status="refuted")
    assert denials("Gout refuted, crystals.", refuted) == []
    assert denials(f"Gout refuted, {word} crystals.", refuted) == ["negation_lost"]
    assert denials("Gout refuted, crystals.", replace(refuted, status=Status.ACTIVE)) == ["negation_lost"]
    assert denials("Gout: crystals.", refuted) == ["negation_lost"]


MILD = fact("Gout: active, mild, since 04-Mar-2011", status=Status.ACTIVE, on="2011-03-04")
SEVERE = fact("Asthma: active, severe, since 05-May-2012", status=Status.ACTIVE, on="2012-05-05")


def lent(text: str, *cited: Fact) -> bool:
    sources = [Source(one) for one in cited or (MILD, SEVERE)]
    units = frozenset().union(*(source.units for source in sources))
    found = list(lent_words(text, sources, units, frozenset({"is", "are"})))
    assert found in ([], [(Verdict.NOT_CHECKED, "whose_value_is_unclear")])
    return bool(found)


@pytest.mark.parametrize("cut", ["; ", ": ", " (", ") ", " “", "” ", ". ", ", ", " and ", " while ", " but ",
                                 " whereas ", " then ", " And "])  # fmt: skip
def test_what_stands_in_a_clause_is_of_the_fact_that_is_named_in_it(cut: str) -> None:
    assert not lent(f"Gout is mild{cut}asthma is severe")
    assert lent(f"Gout is severe{cut}asthma is mild")
    assert lent(f"Gout since 05-May-2012{cut}asthma since 04-Mar-2011")
    assert not lent(f"Gout since 04-Mar-2011{cut}asthma since 05-May-2012")


def test_within_one_clause_what_is_said_is_of_all() -> None:
    assert lent("Gout is mild asthma is severe")
    assert not lent("Gout and asthma are active.")
    assert lent("Gout and asthma are mild.")
    assert lent("Gout, asthma are severe.")
    assert not lent("Gout is mild, since 04-Mar-2011, and asthma is severe, since 05-May-2012.")
    assert lent("Gout is mild, since 05-May-2012, and asthma is severe, since 05-May-2012.")
    assert not lent("Active: gout, asthma.")
    assert lent("Mild: gout, asthma.")
    assert lent("Gout, since 04-Mar-2011 asthma.")
    assert not lent("Gout is mild.", MILD)
    assert not lent("Gout is mild and another thing is severe.")  # not named: a finding of its own


def test_a_number_belongs_to_the_fact_that_is_named_beside_it() -> None:
    sodium = fact("Sodium: 140 mmol/L on 25-Nov-2020", Kind.RESULT)
    potassium = fact("Potassium: 4.2 mmol/L on 25-Nov-2020", Kind.RESULT)
    assert not lent("Sodium 140 mmol/L and potassium 4.2 mmol/L.", sodium, potassium)
    assert lent("Sodium 4.2 mmol/L and potassium 140 mmol/L.", sodium, potassium)
    assert not lent("Sodium 140 mmol/L and potassium 4.2 mmol/L on 25-Nov-2020.", sodium, potassium)


def test_a_fact_is_named_by_a_word_that_no_other_has() -> None:
    hip = fact("Osteoarthritis of hip: mild", status=Status.ACTIVE)
    knee = fact("Gout of knee: severe", status=Status.ACTIVE)
    assert not lent("Mild osteoarthritis and severe gout", hip, knee)
    assert lent("Severe osteoarthritis and mild gout", hip, knee)
    assert lent("Severe hip osteoarthritis and mild knee gout", hip, knee)
    other = fact("Osteoarthritis of knee: severe", status=Status.ACTIVE)
    assert not lent("Mild hip osteoarthritis and severe knee osteoarthritis", hip, other)
    assert lent("Severe hip osteoarthritis and mild knee osteoarthritis", hip, other)


def test_a_patient_and_a_passage_of_a_note_are_named_by_nothing() -> None:
    patient = fact("Patient: severe", Kind.PATIENT)
    quoted = replace(SEVERE, span=(0, 3))
    assert not lent("Patient has gout, severe.", MILD, patient)
    assert not lent("Gout, asthma, severe.", MILD, quoted)


def test_a_name_is_found_in_all_its_forms_and_as_a_whole_word() -> None:
    source = Source(fact("Hemoglobin [Mass/volume] in Blood: 5 g/dL", Kind.RESULT))
    assert name_spans("Hemoglobin [Mass/volume] in Blood", [source]) == [(0, 33)]
    assert name_spans("HEMOGLOBIN was", [source]) == [(0, 10)]
    assert name_spans("Methemoglobin, hemoglobins", [source]) == []


TURNING = (
    "no not without due because after with history suspected possible family risk absence contact "
    "screening rule exposure"
).split()


def turned(text: str, cited: Fact) -> list[str]:
    source = Source(cited)
    return [reason for _, reason in out_of_order(text, [source], source.units)]


@pytest.mark.parametrize("word", TURNING)
def test_a_name_with_a_word_that_turns_the_others_is_said_in_its_order(word: str) -> None:
    named = fact(f"Alpha {word} beta: active", status=Status.ACTIVE)
    assert turned(f"Alpha {word} beta is active.", named) == []
    assert turned(f"Beta {word} alpha is active.", named) == ["words_in_another_order"]
    assert turned(f"Alpha {word} the beta is active.", named) == ["does_not_name:problem"]
    assert turned("Alpha is active.", named) == ["does_not_name:problem"]
    plain = fact("Alpha of beta: active", status=Status.ACTIVE)
    assert turned("Beta alpha is active.", plain) == []


def test_a_name_with_several_numbers_is_said_in_their_order() -> None:
    assert turned("Amoxicillin 250 mg / clavulanate 125 mg.", PILL) == []
    assert turned("Clavulanate 125 mg / amoxicillin 250 mg.", PILL) == ["words_in_another_order"]
    assert turned("Tablet of lisinopril 10 MG", LISINOPRIL) == []


@pytest.mark.parametrize("label", ["dosage", "reaction"])
@pytest.mark.parametrize("item", [",", ";", "/", "+", " and"])
def test_a_field_of_several_parts_is_said_in_its_order(label: str, item: str) -> None:
    told = f"5 mg morning{item} 10 mg night"
    taken = replace(LISINOPRIL, details=((label, told),), text=f"{LISINOPRIL.text}; {told}")
    assert turned(f"Lisinopril 10 MG Oral Tablet: {told}", taken) == []
    swapped = f"10 mg morning{item} 5 mg night"
    assert turned(f"Lisinopril 10 MG Oral Tablet: {swapped}", taken) == ["words_in_another_order"]
    assert turned(swapped, replace(taken, details=(("other", told),))) == []
    single = replace(taken, details=((label, "5 mg morning 10 mg night"),))
    assert turned(swapped, single) == []


def test_a_value_in_words_is_said_in_its_order_and_one_with_a_number_by_itself() -> None:
    finding = replace(fact("Swab: clear above, red below", Kind.RESULT), value="clear above, red below")
    assert turned("Swab: clear above, red below.", finding) == []
    assert turned("Swab: red above, clear below.", finding) == ["words_in_another_order"]
    measured = fact("Swab: 5 mg", Kind.RESULT, value="5", unit="mg")
    assert turned("Swab: 5 mg", measured) == []
    told_twice = replace(finding, value="red above, red below")
    assert turned("Swab: below above.", told_twice) == ["words_in_another_order"]
    assert turned("Swab: clear above, red below; red below, clear above.", finding) == [
        "words_in_another_order"
    ]
    assert turned("Swab: clear above, clear above, red below.", finding) == []


def test_dates_and_units_keep_their_place_in_a_field() -> None:
    finding = replace(fact("Swab: red 01-May-2020, clear 02-May-2020", Kind.RESULT),
                      value="red 01-May-2020, clear 02-May-2020")  # fmt: skip
    assert turned("Swab: red 2020-05-01, clear 2020-05-02.", finding) == []
    assert turned("Swab: clear 01-May-2020, red 02-May-2020.", finding) == ["words_in_another_order"]
    assert turned("Swab: red 02-May-2020, clear 01-May-2020.", finding) == ["words_in_another_order"]
    doses = replace(finding, value="take 5 mg, take 10 mg", text="Swab: take 5 mg, take 10 mg")
    assert turned("Swab: take 5 mg, take 10 mg.", doses) == []
    assert turned("Swab: take 10 mg, take 5 mg.", doses) == ["words_in_another_order"]


def test_who_is_cited_for_a_birth_date_and_a_quotation_have_no_order() -> None:
    assert turned("Beta without alpha", fact("Alpha without beta: x", Kind.PATIENT)) == []
    assert turned("Beta without alpha", fact("Alpha without beta: x", span=(0, 1))) == []


SEEN = fact("Office visit: finished; reason: gout", Kind.ENCOUNTER, details=(("reason", "gout"),))
GIVEN = replace(
    LISINOPRIL, text=f"{LISINOPRIL.text}; reason: hypertension", details=(("reason", "hypertension"),)
)


def causes(text: str, *cited: Fact) -> list[str]:
    return [reason for _, reason in turned_reasons(text, [Source(one) for one in cited])]


@pytest.mark.parametrize(
    "told",
    [
        "because of",
        "because",
        "due to",
        "owing to",
        "on account of",
        "reason:",
        "reason is:",
        "reason was:",
        "Due to",
    ],
)
def test_a_cause_is_told_where_the_record_gives_it(told: str) -> None:
    assert causes(f"Lisinopril {told} hypertension.", GIVEN) == []
    assert causes(f"Lisinopril {told} gout.", GIVEN) == ["cause_not_in_source", "cause_not_in_source"] or (
        causes(f"Lisinopril {told} gout.", GIVEN) == ["cause_not_in_source"]
    )
    assert causes(f"Lisinopril {told} active.", LISINOPRIL) == ["cause_not_in_source"]


@pytest.mark.parametrize("end", [".", ";", ",", " (", ")"])
def test_a_cause_ends_with_its_phrase(end: str) -> None:
    assert causes(f"Lisinopril due to hypertension{end} active", GIVEN) == []
    assert causes("Lisinopril due to hypertension active", GIVEN) == ["cause_not_in_source"]


@pytest.mark.parametrize(
    "word", "reason reasons for because due owing account indication indicated FOR".split()
)
def test_a_reason_is_called_one(word: str) -> None:
    assert causes(f"Lisinopril {word} hypertension", GIVEN) in ([], ["cause_not_in_source"])
    assert causes(f"Lisinopril, {word}: hypertension", GIVEN) == [] or word in ("because", "due", "owing")
    assert causes("Lisinopril, hypertension.", GIVEN) == ["cause_not_in_source"]
    assert causes(f"Lisinopril, hypertension; {word}.", GIVEN) == ["cause_not_in_source"]


@pytest.mark.parametrize(
    "word",
    [
        "visit",
        "visited",
        "seen",
        "admitted",
        "admission",
        "presented",
        "hospital",
        "hospitalized",
        "inpatient",
        "department",
        "room",
        "Seen",
    ],
)
def test_who_comes_with_something_comes_for_it(word: str) -> None:
    assert causes(f"The patient, {word} with gout.", SEEN) == []
    assert causes(f"With gout {word}.", SEEN) == ["cause_not_in_source"]
    assert causes(f"The patient, {word} with hypertension.", GIVEN) == ["cause_not_in_source"]


def test_a_reason_of_the_line_counts_as_one_of_the_details() -> None:
    line_alone = replace(GIVEN, details=())
    assert causes("Lisinopril due to hypertension.", line_alone) == []
    assert causes("Lisinopril due to hypertension.", replace(GIVEN, text=LISINOPRIL.text)) == []
    assert causes(
        "Lisinopril due to hypertension.", replace(line_alone, text=f"{LISINOPRIL.text} hypertension")
    ) == ["cause_not_in_source"]
    assert causes("Lisinopril, hypertension.", replace(GIVEN, text=LISINOPRIL.text)) == []


def test_a_name_that_tells_a_cause_itself_needs_no_reason() -> None:
    for word in ("due to", "because of"):
        named = fact(f"Anemia {word} bleeding: active", status=Status.ACTIVE)
        assert causes(f"Anemia {word} bleeding is active.", named) == []
    assert causes("Gout due to bleeding.", GOUT) == ["cause_not_in_source"]
    assert FactId("x") == "x"
    assert "negation_lost" not in codes("Colonoscopy was refused, recorded 12-Mar-2019.", COLONOSCOPY)


def test_a_denial_does_not_end_with_the_name_that_it_denies() -> None:
    undone = fact("Colonoscopy: cancelled", Kind.PROCEDURE, status=Status.NOT_DONE)
    assert denials("Not colonoscopy.", undone) == []
    assert denials("Not colonoscopy polyps.", undone) == ["negation_of_something_else"]


TYPE_2 = fact("Diabetes type 2: active, mild, since 04-Mar-2011", status=Status.ACTIVE, on="2011-03-04")


def test_a_bare_name_that_ends_or_begins_with_a_number_shares_what_is_said_of_the_next() -> None:
    assert lent("Diabetes type 2 and asthma are severe.", TYPE_2, SEVERE)
    assert not lent("Diabetes type 2 and asthma are active.", TYPE_2, SEVERE)
    numbered = fact("5-alpha deficiency: active, mild", status=Status.ACTIVE)
    assert lent("5-alpha deficiency and asthma are severe.", numbered, SEVERE)
    assert not lent("5-alpha deficiency and asthma are active.", numbered, SEVERE)


def test_a_value_elsewhere_in_the_sentence_is_not_said_of_a_bare_name() -> None:
    assert lent("Gout and asthma are severe, since 05-May-2012.")
    assert lent("Since 05-May-2012: gout and asthma are severe.")


def test_a_name_with_a_day_of_its_own_shares_nothing_of_the_next() -> None:
    assert not lent("04-Mar-2011 gout and asthma since 05-May-2012.")
    assert not lent("Gout 04-Mar-2011, asthma since 05-May-2012.")
    assert lent("05-May-2012 gout and asthma since 05-May-2012.")
    assert lent("Gout 05-May-2012, asthma since 05-May-2012.")


def test_the_number_of_a_name_may_stand_apart_from_it() -> None:
    ulcer = fact("Ulcer 5 cm of foot: mild", status=Status.ACTIVE)
    assert not lent("Mild foot ulcer, 5 cm, and severe asthma", ulcer, SEVERE)
    assert lent("Mild foot ulcer, 6 cm, and severe asthma", ulcer, SEVERE)
    assert lent("Mild foot ulcer and severe asthma, 5 cm", ulcer, SEVERE)
