"""Telling our own words from a person's: what may be blanked of a note, and what must never be."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.record.echo import ELIDED, Line, OwnWords, banner_spans
from service.record.facts import PatientRecord
from service.record.notes import split_note
from tests.unit.record.charts import record_of, resource

BANNER = "AI-GENERATED DRAFT, NOT REVIEWED"
IDENTITY = (
    "Patient: Ann Zzyzxcanary · born 04-May-1951 · record number 7\nChart read up to 20-Nov-2026 09:29 UTC"
)
OURS = "Hemoglobin A1c was 8.2 % on 01-May-2024, and metformin was ordered on the same day."
SHORT = "Hypertension: active"
THEIRS = "She walks to the shop and back without a stick."


def words(*lines: str, written: float = 0.0) -> OwnWords:
    own = OwnWords()
    own.add([Line(line) for line in (OURS, *lines)], written)
    return own


def left(text: str, own: OwnWords | None = None, newest: float = 1.0) -> list[str]:
    stripped = (own or words()).strip(text, newest)
    assert len(stripped.text) == len(text)
    return [" ".join(stripped.text[p.start : p.end].split()) for p in split_note(stripped.text)]


@pytest.mark.parametrize(
    "pasted",
    [
        OURS,
        f"- {OURS} [1][2] (added from the record)",
        f"• {OURS}",
        OURS.replace(" ", "  ").upper(),
        OURS.replace("01-May-2024,", "01-May-2024,\n   "),
    ],
)
def test_a_paste_is_known_whatever_became_of_its_marks_and_white_space(pasted: str) -> None:
    assert left(f"{THEIRS}\n\n{pasted}\n\nNo falls.") == [THEIRS, "No falls."]


def test_what_a_person_wrote_around_a_paste_stays_in_its_place_with_a_sign_of_what_is_left_out() -> None:
    text = f"As the summary says, {OURS[:-1]}, but she has stopped taking it."
    stripped = words().strip(text, 1.0)
    assert stripped.passages == 1
    assert stripped.text.index("but she has stopped") == text.index("but she has stopped")
    assert ELIDED in stripped.text
    assert "8.2" not in stripped.text


def test_a_short_line_is_ours_only_beside_another() -> None:
    own = words(SHORT)
    assert left(f"{THEIRS}\n{SHORT}\nNo falls.", own) == [THEIRS, SHORT, "No falls."]
    assert left(f"{THEIRS}\n- {OURS}\n- {SHORT}\nNo falls.", own) == [THEIRS, "No falls."]


def test_words_that_a_draft_quotes_are_the_records_own() -> None:
    own = words(f"Progress note of 01-May-2024: “{THEIRS}”")
    assert left(THEIRS, own) == [THEIRS]
    assert left(f"Progress note of 01-May-2024: “{THEIRS}”", own) == []


def test_a_note_that_is_older_than_the_draft_holds_no_paste() -> None:
    assert left(OURS, words(written=5.0), newest=4.0) == [OURS]
    assert left(OURS, words(written=5.0), newest=5.0) == []


@pytest.mark.parametrize(
    "said",
    [
        "The AI-generated draft was wrong about her weight.",
        f"I saw the text headed {BANNER} and did not use it.",
        f"{BANNER} stood above it. She has no rash. {BANNER} stood below it.",
    ],
)
def test_a_mention_of_our_banner_takes_no_sentence_away(said: str) -> None:
    text = f"{THEIRS} {said} No falls."
    assert banner_spans(text) == ([], False)
    assert words().strip(text).text == text


def test_a_banner_without_an_end_takes_its_identity_and_the_cited_lines_alone() -> None:
    text = f"{THEIRS}\n{BANNER}\n{IDENTITY}\n- Urate 9.1 mg/dL in May. [1]\nShe is in pain.\nNo falls."
    stripped = words().strip(text)
    assert stripped.is_open
    assert [stripped.text[p.start : p.end] for p in split_note(stripped.text)] == [
        THEIRS, "She is in pain.", "No falls.",
    ]  # fmt: skip


def test_two_drafts_of_which_the_first_has_no_end_keep_what_stands_between_them() -> None:
    draft = f"{BANNER}\n{IDENTITY}\n- Urate 9.1 mg/dL. [1]"
    text = f"{draft}\n{THEIRS}\n{draft}\n{IDENTITY}\n{BANNER}\nNo falls."
    assert left(text) == [THEIRS, "No falls."]


def note(text: str) -> dict[str, Any]:
    data = base64.b64encode(text.encode()).decode()
    content = [{"attachment": {"contentType": "text/plain", "data": data}}]
    return resource("DocumentReference", type={"text": "Note"}, date="2026-11-22", content=content)


def sentences(record: PatientRecord) -> list[str]:
    return [fact.value for fact in record.facts if fact.span]


def test_a_forged_banner_is_counted_and_said() -> None:
    record = record_of(note(f"{BANNER}\n{IDENTITY}\nShe is in pain.\n{THEIRS}"))
    assert sentences(record) == ["She is in pain.", THEIRS]
    assert any("without its end" in problem for problem in record.problems)
    assert record.pasted == 3  # the banner, who, and read up to when


def test_a_note_of_nothing_but_a_paste_stays_a_note_without_a_text() -> None:
    record = record_of(note(f"{BANNER}\n{IDENTITY}\n- Urate 9.1 mg/dL. [1]\n{IDENTITY}\n{BANNER}"))
    (fact,) = (f for f in record.facts if f.kind == "note")
    assert (fact.body, sentences(record)) == ("", [])
    assert fact.text.endswith("passages pasted from an AI-generated draft are left out")


@given(
    st.lists(
        st.sampled_from([OURS, SHORT, THEIRS, BANNER, IDENTITY, "[1]", "(", "“", "\n", " ", "é", "x" * 40])
    )
)
def test_no_text_grows_shrinks_or_gains_a_word(parts: list[str]) -> None:
    text = " ".join(parts)
    stripped = words(SHORT).strip(text, 1.0)
    assert len(stripped.text) == len(text)
    kept = stripped.text.replace(ELIDED, "   ")
    assert all(after in (before, " ") for before, after in zip(text, kept, strict=True))
    assert stripped.text.count("\n") == text.count("\n")
