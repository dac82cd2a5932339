"""Notes become sentences under their sections, and copied-forward text counts once."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.record.copies import Appearance, Note, first_appearances
from service.record.notes import LONGEST_PASSAGE, Passage, split_note
from tests.conftest import CANARY

START = datetime(2026, 3, 1, 8, tzinfo=UTC)


def said(text: str) -> list[str]:
    return [text[p.start : p.end] for p in split_note(text)]


def under(text: str) -> list[tuple[str, str]]:
    return [(p.section, text[p.start : p.end]) for p in split_note(text)]


# --- sections


@pytest.mark.parametrize(
    ("line", "section"),
    [
        ("ASSESSMENT AND PLAN", "ASSESSMENT AND PLAN"),
        ("Assessment:", "Assessment"),
        ("Assessment & Plan:", "Assessment & Plan"),
        ("# Chief Complaint", "Chief Complaint"),
        ("## Anything the author likes", "Anything the author likes"),
        ("**HPI**", "HPI"),
        ("**Hospital Course:**", "Hospital Course"),
        ("1. Problem list", "1. Problem list"),
        ("II. PAST MEDICAL HISTORY (PMH):", "PAST MEDICAL HISTORY (PMH)"),
        ("Medications on discharge:", "Medications on discharge"),
        ("=== REVIEW OF SYSTEMS ===", "REVIEW OF SYSTEMS"),
        ("Plan", "Plan"),
        ("ALLERGIES/INTOLERANCES", "ALLERGIES/INTOLERANCES"),
        ("A/P:", "A/P"),
        ("Cardio:", "Cardio"),
        ("Beurteilung:", "Beurteilung"),
    ],
)
def test_a_heading_names_the_section_and_is_no_passage(line: str, section: str) -> None:
    name = section.removeprefix("1. ")
    assert under(f"{line}\nIt is a cold.") == [(name, "It is a cold.")]


@pytest.mark.parametrize(
    "line",
    [
        "NKDA",
        "DNR",
        "FULL CODE",
        "NO KNOWN ALLERGIES",
        "NO FAMILY HISTORY",
        "HISTORY OF FALLS",
        "FAMILY HISTORY UNKNOWN",
        "**DNR**",
        "**ALLERGIC TO PENICILLIN**",
        "# NOF",
        "# Hypertension, stable",
        "Patient denies:",
        "No evidence of:",
        "The patient was given the following medications:",
        "1. Hypertension.",
        "Digoxin",
        "Atrial Fibrillation",
        "+++",
        "Allergic to:",
        "Assessment.",
    ],
)
def test_a_statement_that_looks_like_a_heading_is_never_lost(line: str) -> None:
    assert said(f"{line}\nSecond line.")[0] == line
    assert said(line) == [line]


def test_text_goes_on_behind_a_heading_on_the_same_line() -> None:
    text = "HISTORY OF PRESENT ILLNESS: Woke at 4 a.m. with chest pain. It went to the jaw.\n"
    text += "PLAN: Admit her today to the ward."
    assert under(text) == [
        ("HISTORY OF PRESENT ILLNESS", "Woke at 4 a.m. with chest pain."),
        ("HISTORY OF PRESENT ILLNESS", "It went to the jaw."),
        ("PLAN", "Admit her today to the ward."),
    ]


def test_a_word_or_two_behind_a_heading_stay_with_it() -> None:
    assert under("PMH: nil\nDH: Nil regular\nNKDA") == [
        ("PMH", "PMH: nil"),
        ("DH", "DH: Nil regular"),
        ("DH", "NKDA"),
    ]


def test_a_system_alone_on_its_line_heads_what_stands_right_below_it() -> None:
    assert under("EXAM\n\nNeck\nSupple.\n\nChest\n\nClear.") == [
        ("Neck", "Supple."),
        ("Neck", "Chest"),  # nothing right below it: it may be an answer
        ("Neck", "Clear."),
    ]


# --- sentences


@pytest.mark.parametrize(
    "sentence",
    [
        "Seen by Dr. Adams and Mr. Brown.",
        f"Mrs. {CANARY} came with approx. 3 days of cough.",
        "Gave furosemide 2.5 mg p.o. q.d. and KCl b.i.d. with food.",
        "Take metoprolol 25 mg p.o. BID.",
        "Antibiotics, e.g. amoxicillin, i.e. a penicillin, vs. none.",
        "Transferred from St. Mary to ward No. 5, see Fig. 2.",
        "The pt. was seen at 8 a.m. and 10.30 p.m. by J. F. Kennedy.",
        "John F. Kennedy signed.",
        "Temperature 37.5-38.2, INR 2.0 to 3.0.",
        "Hgb 9.1 ... then 8.4.",
        "Pain 5/10. radiating to jaw.",
        "Z.n. Appendektomie, z.B. Narbe, ca. 5 cm.",
        "? Bell's palsy, inhalers ? what.",
        "Hx of resp. failure and abd. pain.",
        "We talked about these three points: 1. Diet and salt.",
    ],
)
def test_a_sentence_survives_clinical_shorthand(sentence: str) -> None:
    assert said(f"{sentence} Next one follows.") == [sentence, "Next one follows."]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Hepatitis C. Vitamin D. Stable.", ["Hepatitis C.", "Vitamin D.", "Stable."]),
        ("Started at 8 a.m. The pain eased.", ["Started at 8 a.m.", "The pain eased."]),
        ("Smoker? No. Drinks socially.", ["Smoker?", "No.", "Drinks socially."]),
        ("Hemoglobin is 8.2. Repeat it.", ["Hemoglobin is 8.2.", "Repeat it."]),
        ("He has MS. Walks with a stick.", ["He has MS.", "Walks with a stick."]),
        ('She said "it hurts." Then left.', ['She said "it hurts."', "Then left."]),
        ("no wheeze. no fever. bp stable.", ["no wheeze.", "no fever.", "bp stable."]),
        ("患者发热。无咳嗽。", ["患者发热。", "无咳嗽。"]),
        ("Жалоб нет. Состояние стабильное.", ["Жалоб нет.", "Состояние стабильное."]),
        ("Discussed with pt. Will follow up.", ["Discussed with pt.", "Will follow up."]),
    ],
)
def test_sentences_end_where_a_clinician_ends_them(text: str, sentences: list[str]) -> None:
    assert said(text) == sentences


def test_wrapped_prose_is_one_sentence_over_its_lines() -> None:
    text = (
        "The patient was admitted to the ward from the emergency department by Dr.\n"
        "Adams because of an acute exacerbation of her chronic obstructive pulmonary\n"
        "disease. She was given prednisone 40 mg and nebulised salbutamol, and her\n"
        "saturation improved to 94 % on room air. Blood was drawn on\n"
        "01/20/2026. She denies\n"
        "pain."
    )
    assert [" ".join(s.split()) for s in said(text)] == [
        "The patient was admitted to the ward from the emergency department by Dr. Adams because of an acute "
        "exacerbation of her chronic obstructive pulmonary disease.",
        "She was given prednisone 40 mg and nebulised salbutamol, and her saturation "
        "improved to 94 % on room air.",
        "Blood was drawn on 01/20/2026.",
        "She denies pain.",
    ]


def test_lines_without_full_stops_are_statements_of_their_own() -> None:
    text = "No speech disturbances\nNo limb weakness or numbness\nfeels hot\nno rash\n10 kg lost"
    assert said(text) == text.split("\n")


def test_a_line_that_cannot_end_a_sentence_takes_the_next_one_along() -> None:
    assert said("He was treated with\nVancomycin\nStable") == ["He was treated with\nVancomycin", "Stable"]


def test_a_table_row_joins_neither_the_line_above_nor_the_one_below() -> None:
    lines = ["Blood results as in", "Sodium\t138\tmmol/L", "of this morning"]
    assert said("\n".join(lines)) == lines


def test_a_wrapped_list_item_takes_its_second_line_along() -> None:
    item = "- Aspirin 81 mg daily, to be continued for life because of the stent that was\n  placed in 2024"
    assert said(f"{item}\n- Statin") == [item, "- Statin"]


def test_each_line_of_a_list_or_table_and_each_key_stands_alone() -> None:
    lines = [
        "- Wheezing",
        "* Chest pressure",
        "• Cough: dry. No sputum.",
        "1. Admit to ward",
        "2) Give fluids. Recheck potassium.",
        "-No fever",
        "Sodium\t138\tmmol/L",
        "Potassium    4.1    mmol/L    (3.5 - 5.1)",
        "| Urea | 5.0 | mmol/L |",
        "Alcohol: socially",
        "Neck: Supple. No masses.",
        "08:15 Patient resting",
        "09:00 Pain 3/10, paracetamol given",
    ]
    assert said("\n".join(lines)) == lines


def test_a_long_list_item_falls_into_its_sentences() -> None:
    first = "- Medical treatment: " + "she will take the tablets with food " * 5 + "every day."
    assert said(first + " She agrees with the plan.") == [first, "She agrees with the plan."]


def test_rules_and_bare_bullets_are_no_passages() -> None:
    assert said("-----\nOne.\n=====\n  *\n• \n. . .\n|---|:--|\nTwo.\n___\n- - -") == ["One.", "Two."]


def test_a_rule_or_blank_line_ends_a_sentence() -> None:
    assert said("He takes\n\naspirin and\n----\nwarfarin") == ["He takes", "aspirin and", "warfarin"]


def test_a_text_without_full_stops_is_cut_at_spaces() -> None:
    pieces = said("word " * 500)
    assert all(len(p) <= LONGEST_PASSAGE for p in pieces)
    assert " ".join(pieces).split() == ["word"] * 500
    assert max(map(len, said("x" * 1500))) == LONGEST_PASSAGE
    drugs = "; ".join(f"drug number {n} 5 mg oral tablet" for n in range(40))
    assert all(piece.endswith((";", "tablet")) for piece in said(drugs))


@pytest.mark.parametrize(
    ("text", "passages"),
    [
        ("." * 1_000_000, 0),
        ("\n" * 1_000_000, 0),
        (" " * 1_000_000, 0),
        ("x" + "." * 100_000 + "x", 167),
        ("a." * 500_000, 1667),
        ("!)" * 300_000, 1000),
        ("A. B" * 50_000, 50_000),
        ("a:" * 300_000, 1000),
        ("**" * 300_000 + "a", 1001),
        ("No\n" * 50_000, 50_000),
        ("a" + " " * 1_000_000 + "b", 2),
    ],
)
def test_hostile_texts_come_to_an_end(text: str, passages: int) -> None:
    assert len(split_note(text)) == passages


DISCHARGE_LETTER = f"""Re: Anna {CANARY}, born 12.03.1948

Dear Dr. Adams,

Thank you for seeing Mrs. {CANARY}, who was in our care from 01/02/2026 to
07/02/2026 with community-acquired pneumonia.

DIAGNOSES
1. Pneumonia of the right lower lobe
2. Type 2 diabetes

HOSPITAL COURSE: She was treated with amoxicillin 500 mg t.i.d. for 5 days. Fever settled.

Medications at discharge:
- Metformin 500 mg b.i.d.
- Amlodipine 5 mg q.d.
Allergies: penicillin (rash)
"""


def test_a_discharge_letter_reads_as_its_author_meant_it() -> None:
    assert [(s, " ".join(p.split())) for s, p in under(DISCHARGE_LETTER)] == [
        ("", f"Re: Anna {CANARY}, born 12.03.1948"),
        ("", "Dear Dr. Adams,"),
        (
            "",
            f"Thank you for seeing Mrs. {CANARY}, who was in our care from 01/02/2026 to 07/02/2026 with "
            "community-acquired pneumonia.",
        ),
        ("DIAGNOSES", "1. Pneumonia of the right lower lobe"),
        ("DIAGNOSES", "2. Type 2 diabetes"),
        ("HOSPITAL COURSE", "She was treated with amoxicillin 500 mg t.i.d. for 5 days."),
        ("HOSPITAL COURSE", "Fever settled."),
        ("Medications at discharge", "- Metformin 500 mg b.i.d."),
        ("Medications at discharge", "- Amlodipine 5 mg q.d."),
        ("Allergies", "Allergies: penicillin (rash)"),
    ]


SYNTHEA = f"""
2002-07-15

# Chief Complaint
- Wheezing

# History of Present Illness
{CANARY}504
 is a 11 month-old non-hispanic white female.

# Assessment and Plan


## Plan

The patient was placed on a careplan:
- self-care interventions (procedure)
"""


def test_a_generated_markdown_note_is_read() -> None:
    assert under(SYNTHEA) == [
        ("", "2002-07-15"),
        ("Chief Complaint", "- Wheezing"),
        ("History of Present Illness", f"{CANARY}504\n is a 11 month-old non-hispanic white female."),
        ("Plan", "The patient was placed on a careplan:"),
        ("Plan", "- self-care interventions (procedure)"),
    ]


WARD_NOTE = f"""WARD ROUND 03/02/2026, Dr. Adams (reg.), bed 4, {CANARY}
S: slept well. no pain. O/E: looks well
Obs
BP 118/72   HR 88   SpO2 96% on 2L
# Pneumonia - CRP falling, 148 -> 63. Continue amoxicillin till 05/02.
# NOF, day 3 post-op
- Physio to see, weight-bearing as
  tolerated
NKDA

NURSING NOTE
07:40 Obs stable, pt. settled. Catheter draining 40 ml/hr.
09:15 c/o pain 6/10, given paracetamol 1 g p.o. with good effect
Family updated by phone
"""


def test_a_ward_round_and_a_nursing_note_keep_their_lines() -> None:
    assert [(s, " ".join(p.split())) for s, p in under(WARD_NOTE)] == [
        ("", f"WARD ROUND 03/02/2026, Dr. Adams (reg.), bed 4, {CANARY}"),
        ("", "S: slept well. no pain. O/E: looks well"),
        ("Obs", "BP 118/72 HR 88 SpO2 96% on 2L"),
        ("Obs", "# Pneumonia - CRP falling, 148 -> 63. Continue amoxicillin till 05/02."),
        ("Obs", "# NOF, day 3 post-op"),
        ("Obs", "- Physio to see, weight-bearing as tolerated"),
        ("Obs", "NKDA"),
        ("NURSING NOTE", "07:40 Obs stable, pt. settled. Catheter draining 40 ml/hr."),
        ("NURSING NOTE", "09:15 c/o pain 6/10, given paracetamol 1 g p.o. with good effect"),
        ("NURSING NOTE", "Family updated by phone"),
    ]


# --- properties of splitting

HEADINGS = ["PLAN", "# Chief Complaint", "**HPI**", "Assessment:", "MEDICATIONS", "## Plan"]
RULES = ["-----", "====", "•", "- ", "", "   ", "* * *"]
TEXTS = [
    "Seen by Dr. Adams.",
    "BP 120/80. No fever",
    "- wheezing",
    "1. Admit",
    "NKDA",
    "患者发热。无咳嗽。",
    "and then of the",
    "Alcohol: none",
    "a\tb\tc",
    "x" * 700,
    "PLAN: rest at home until she is well",
    "!?",
    "word " * 300,
]
lines = st.lists(st.sampled_from(HEADINGS + RULES + TEXTS), max_size=14).map("\n".join)
anything = st.text(alphabet=st.sampled_from("aA1.:;?!-#*•|+=\n\t ()\"'。ß患\u00a0\u2028\x85"), max_size=200)


@given(st.one_of(lines, anything, st.text(max_size=300)))
def test_passages_are_ordered_trimmed_short_and_apart(text: str) -> None:
    end = 0
    for passage in split_note(text):
        written = text[passage.start : passage.end]
        assert end <= passage.start < passage.end <= len(text)
        assert written == written.strip()
        assert len(written) <= LONGEST_PASSAGE
        end = passage.end
    assert split_note(text) == split_note(text)


def uncovered(text: str) -> str:
    marks = list(text)
    for p in split_note(text):
        marks[p.start : p.end] = " " * (p.end - p.start)
    return "".join(c if not c.isspace() or c == "\n" else " " for c in marks)


@given(lines)
def test_all_words_but_headings_are_in_a_passage(text: str) -> None:
    allowed = {line.strip() for line in HEADINGS + RULES} | {"PLAN:"}
    assert {line.strip() for line in uncovered(text).split("\n")} <= allowed
    heads = [line for line in text.split("\n") if line in HEADINGS]
    assert not [head for head in heads if head in said(text)]


@given(st.text(alphabet=st.sampled_from("aä1?!%()/患ж \n"), max_size=200))
def test_a_text_without_any_mark_of_a_heading_is_covered_whole(text: str) -> None:
    assert not uncovered(text).strip()


# --- copied-forward text


def note(day: int | None, text: str, key: str = "") -> Note:
    when = None if day is None else START + timedelta(days=day)
    return Note(key or f"day-{day}", when, text)


def found(*notes: Note) -> list[tuple[str, str, tuple[str, ...]]]:
    by_key = {n.key: n.text for n in notes}
    return [
        (a.note, by_key[a.note][a.passage.start : a.passage.end], a.copies) for a in first_appearances(notes)
    ]


LONG = "She was admitted with pneumonia of the right lower lobe."
OTHER = "Her chest film of the second day shows no effusion at all."


def test_a_repeated_sentence_counts_from_its_first_appearance() -> None:
    notes = note(1, LONG), note(2, f"{LONG} {OTHER}"), note(3, f"{OTHER}\n{LONG}")
    assert found(*notes) == [("day-1", LONG, ("day-2", "day-3")), ("day-2", OTHER, ("day-3",))]


def test_case_spaces_wrapping_and_bullets_make_no_difference() -> None:
    second = "- she was  ADMITTED with pneumonia of the right\n  lower lobe."
    third = f"3. {LONG}"
    assert found(note(1, LONG), note(2, second), note(3, third)) == [("day-1", LONG, ("day-2", "day-3"))]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Day 3 of vancomycin for the infected line.", "Day 4 of vancomycin for the infected line."),
        ("Potassium was 3.5 mmol/L in the morning.", "Potassium was 35 mmol/L in the morning."),
        ("2. Tag der Antibiose mit Amoxicillin oral.", "3. Tag der Antibiose mit Amoxicillin oral."),
        ("She has no pain on the left side today.", "She has pain on the left side today, no."),
    ],
)
def test_other_numbers_and_words_make_another_passage(first: str, second: str) -> None:
    assert found(note(1, first), note(2, second)) == [("day-1", first, ()), ("day-2", second, ())]


def test_a_short_statement_that_recurs_alone_is_new_each_day() -> None:
    notes = note(1, f"{LONG} No fever."), note(2, "Slept well, ate all of her breakfast. No fever.")
    assert ("day-1", "No fever.", ()) in found(*notes)
    assert ("day-2", "No fever.", ()) in found(*notes)


def test_short_statements_that_recur_side_by_side_are_new_where_no_long_one_is_copied() -> None:
    notes = note(1, "BP stable. No fever."), note(2, "BP stable. No fever.")
    assert [(key, copies) for key, _, copies in found(*notes)] == [("day-1", ())] * 2 + [("day-2", ())] * 2


def test_a_short_statement_in_a_run_of_copied_text_is_copied() -> None:
    first = f"BP stable. No fever. {LONG} Eating. Walking."
    notes = note(1, first), note(2, f"Sat up. BP stable. No fever. {LONG} Eating. Walking. Coughs.")
    assert found(*notes) == [
        *[("day-1", text, ("day-2",)) for text in ("BP stable.", "No fever.", LONG, "Eating.", "Walking.")],
        ("day-2", "Sat up.", ()),
        ("day-2", "Coughs.", ()),
    ]


def test_a_short_statement_beside_copied_text_that_it_did_not_stand_beside_is_new() -> None:
    notes = note(1, f"{LONG} {OTHER} No fever."), note(2, f"{LONG} No fever.")
    assert found(*notes) == [
        ("day-1", LONG, ("day-2",)),
        ("day-1", OTHER, ()),
        ("day-1", "No fever.", ()),
        ("day-2", "No fever.", ()),
    ]


def test_a_run_is_broken_by_what_is_new_in_it() -> None:
    notes = note(1, f"{LONG} Eating. Walking."), note(2, f"{LONG} Fasting. Walking.")
    assert ("day-2", "Walking.", ()) in found(*notes)


def test_a_repeat_within_one_note_is_dropped_and_is_no_later_copy() -> None:
    assert found(note(1, f"{LONG} Eating.\n\nPLAN\n\nRest.\n\nRESULTS\n\n{LONG} Eating.")) == [
        ("day-1", LONG, ()),
        ("day-1", "Eating.", ()),
        ("day-1", "Rest.", ()),
    ]


def test_short_answers_under_other_headings_are_answers_of_their_own() -> None:
    assert [text for _, text, _ in found(note(1, "PMH:\nNil\n\nFH:\nNil\n\nDH:\nNil"))] == [
        "Nil",
        "Nil",
        "Nil",
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Past medical history:", "Family history:"),
        ("Allergies:", "Medications:"),
        ("Home medications:", "Discharge medications:"),
        ("Stopped:", "Medications:"),
        ("Plan:", "Results:"),
        ("Differential diagnosis:", "Diagnosis:"),
    ],
)
def test_the_same_words_under_a_heading_of_another_sense_are_no_copy(one: str, other: str) -> None:
    words = "- Penicillin V potassium 250 mg oral tablet twice daily"
    assert found(note(1, f"{one}\n{words}"), note(2, f"{other}\n{words}")) == [
        ("day-1", words, ()),
        ("day-2", words, ()),
    ]


def test_headings_of_one_sense_do_not_hide_a_copy() -> None:
    notes = note(1, f"HPI\n{LONG}"), note(2, f"ASSESSMENT AND PLAN\n{LONG}")
    assert found(*notes) == [("day-1", LONG, ("day-2",))]


def test_headings_never_count_as_copied_text() -> None:
    notes = note(1, f"PLAN\nRest.\n{LONG}"), note(2, f"PLAN\nWalk.\n{LONG}")
    assert [text for _, text, _ in found(*notes)] == ["Rest.", LONG, "Walk."]


def test_an_undated_note_never_takes_a_passage_from_a_dated_one() -> None:
    undated = note(None, f"{LONG} {OTHER}", "a-undated")
    naive = Note("b-naive", datetime(1990, 1, 1), LONG)  # noqa: DTZ001 - a hostile caller
    assert found(undated, naive, note(5, LONG)) == [
        ("day-5", LONG, ("a-undated", "b-naive")),
        ("a-undated", OTHER, ()),
    ]


def test_notes_of_one_instant_are_read_by_key() -> None:
    notes = [note(1, LONG, "b"), note(1, LONG, "c"), note(1, LONG, "a")]
    assert found(*notes) == [("a", LONG, ("b", "c"))]


def test_no_notes_and_empty_notes_hold_nothing() -> None:
    assert first_appearances([]) == ()
    assert first_appearances([note(1, ""), note(2, " \n--\nPLAN\n")]) == ()


sentences_of_notes = st.lists(
    st.sampled_from([LONG, OTHER, "No fever.", "Eating.", "BP stable."]), max_size=7
)
histories = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 3)), sentences_of_notes), max_size=6).map(
    lambda drawn: [note(day, " ".join(s), f"n{i}") for i, (day, s) in enumerate(drawn)]
)


@given(histories, st.randoms(use_true_random=False))
def test_the_order_in_which_notes_are_given_changes_nothing(notes: list[Note], luck: random.Random) -> None:
    expected = first_appearances(notes)
    luck.shuffle(notes)
    assert first_appearances(notes) == expected


@given(histories)
def test_every_passage_is_an_appearance_or_a_copy_of_one(notes: list[Note]) -> None:
    appearances = first_appearances(notes)
    texts = {n.key: n.text for n in notes}
    own: set[tuple[str, Passage]] = {(a.note, a.passage) for a in appearances}
    assert len(own) == len(appearances)
    for one in notes:
        for passage in split_note(one.text):
            assert (one.key, passage) in own or is_copy(one, passage, appearances, texts)


def is_copy(one: Note, passage: Passage, appearances: tuple[Appearance, ...], texts: dict[str, str]) -> bool:
    words = one.text[passage.start : passage.end]
    return any(
        texts[a.note][a.passage.start : a.passage.end] == words and one.key in (a.note, *a.copies)
        for a in appearances
    )


@given(histories)
def test_copies_are_later_notes_in_order_and_never_the_note_itself(notes: list[Note]) -> None:
    def age(key: str) -> tuple[bool, datetime, str]:
        when = next(n.when for n in notes if n.key == key)
        return when is None, when or START, key

    for appearance in first_appearances(notes):
        ages = [age(key) for key in (appearance.note, *appearance.copies)]
        assert ages == sorted(set(ages))
