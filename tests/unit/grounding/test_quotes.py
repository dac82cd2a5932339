"""Sentences of notes: quoted whole, with section and day, and with nothing that only they account for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.facts import GOUT, context, fact
from service.context.chosen import Label
from service.grounding.check import Checker, Judge, judge
from service.grounding.quotation import as_quoted, without_quotation, without_quotations
from service.grounding.source import Source
from service.grounding.summary import DraftClaim, Verdict
from service.record.facts import Fact, Kind


def passage(value: str, on: str | None = "2024-05-01", section: str = "Assessment", **more: Any) -> Fact:
    plain = fact(
        f"Progress note {'of 01-May-2024' if on else 'without date'}"
        f"{f', {section}' if section else ''}: “{value}”",
        Kind.NOTE, "DocumentReference/n#c0-9", name="Progress note", on=on, span=(0, 9), category=section,
        **more,
    )  # fmt: skip
    return replace(plain, value=value)


DENIES = passage("Patient denies chest pain; no fever, cough since 28-Apr-2024 (2 days).")
PAIN = passage("Pain 3/10, no fever, was 8/10.")
FAMILY = passage("Colon cancer at 50.", section="Family History")
FRAME = "Progress note of 01-May-2024, Assessment: "


def faults(text: str, *facts: Fact) -> list[str]:
    return [reason for _, reason in judge(text, [Source(f) for f in facts], "")]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (DENIES.text, [DENIES]),
        (PAIN.text, [PAIN]),
        (f'{FRAME}"{DENIES.value}"', [DENIES]),
        (f"{FRAME}{DENIES.value}", [DENIES]),
        (f"{FRAME}“{DENIES.value.upper()}”", [DENIES]),
        (f"“{DENIES.value}” (Progress note, Assessment, 01-May-2024)", [DENIES]),
        (f"Assessment of 2024-05-01: “{DENIES.value}” in the progress note.", [DENIES]),
        (f"01-May-2024: “{DENIES.value}”", [DENIES]),
        (f"The clinician wrote on May 1, 2024: “{DENIES.value}”", [DENIES]),
        (f"The note of 01-May-2024, Family History, states: “{FAMILY.value}”", [FAMILY]),
        (passage("Stable.", section="").text, [passage("Stable.", section="")]),
        (passage("No fever", section="").text, [passage("No fever", section="")]),
    ],
)
def test_a_whole_quotation_with_section_and_day_is_supported(text: str, facts: list[Fact]) -> None:
    assert faults(text, *facts) == []


REFUSED: list[tuple[str, Fact, str]] = [
    (f"{FRAME}“Patient denies chest pain.”", DENIES, "not_a_quotation"),
    (f"{FRAME}“chest pain; no fever, cough since 28-Apr-2024 (2 days).”", DENIES, "not_a_quotation"),
    (f"{FRAME}“Patient denies chest pain … (2 days).”", DENIES, "not_a_quotation"),
    (FRAME + DENIES.value.replace("denies", "reports"), DENIES, "not_a_quotation"),
    (FRAME + DENIES.value.replace("no fever", "fever"), DENIES, "not_a_quotation"),
    (FRAME + DENIES.value.replace("2 days", "20 days"), DENIES, "not_a_quotation"),
    (f"{FRAME}“{DENIES.value} Worse.”", DENIES, "word_not_in_source"),
    (f"Chest pain. {DENIES.text}", DENIES, "words_beside_the_quotation"),
    (f"{DENIES.text} Fever.", DENIES, "words_beside_the_quotation"),
    (f"No cough: {DENIES.text}", DENIES, "words_beside_the_quotation"),
    (f"Progress note 8/10: {PAIN.text}", PAIN, "value_beside_the_quotation"),
    (f"Progress note of 28-Apr-2024, Assessment: “{DENIES.value}”", DENIES, "day_of_the_note_missing"),
    (f"Progress note of 28-Apr-2024, Assessment: “{DENIES.value}”", DENIES, "value_beside_the_quotation"),
    (f"Progress note of 04-May-2024, Assessment: “{DENIES.value}”", DENIES, "day_of_the_note_missing"),
    (f"Progress note of May-2024, Assessment: “{DENIES.value}”", DENIES, "day_of_the_note_missing"),
    (f"Progress note, Assessment: “{DENIES.value}”", DENIES, "day_of_the_note_missing"),
    (f"Progress note of 01-May-2024: “{FAMILY.value}”", FAMILY, "section_of_the_note_missing"),
    (f"Progress note of 01-May-2024, Plan: “{DENIES.value}”", DENIES, "words_beside_the_quotation"),
    (passage("No fever today.").text, passage("No fever today."), "relative_date"),
    (passage("Fever began 3 days ago.").text, passage("Fever began 3 days ago."), "relative_date"),
    (passage("Denies pain", on=None).text, passage("Denies pain", on=None), "day_of_the_note_missing"),
    (passage("").text, passage(""), "not_a_quotation"),
    (passage("...").text, passage("..."), "not_a_quotation"),
    (passage("-").text, passage("-"), "not_a_quotation"),
    (passage("“”").text, passage("“”"), "not_a_quotation"),
    (passage("a").text, passage("a"), "not_a_quotation"),
    (passage("5.").text, passage("5."), "not_a_quotation"),
    (f"{FRAME}stable", passage("Stable"), "not_a_quotation"),
    (f"{FRAME}“unstable”", passage("stable"), "not_a_quotation"),
    (f"{FRAME}“Non-tender abdomen”", passage("tender abdomen"), "not_a_quotation"),
    (f"{FRAME}“reports pain-free”", passage("reports pain"), "not_a_quotation"),
    (f"{FRAME}“casino fever”", passage("no fever"), "not_a_quotation"),
    (f"{FRAME}“weight 7.5”", passage("weight 7"), "not_a_quotation"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "of", "reason"), REFUSED)
def test_what_is_not_the_whole_sentence_in_its_place_is_refused(text: str, of: Fact, reason: str) -> None:
    assert reason in faults(text, of)


def test_a_section_that_stands_only_within_the_quotation_does_not_count() -> None:
    stopped = passage("Aspirin stopped on 01-May-2024", section="Stopped")
    assert faults(stopped.text, stopped) == []
    found = faults("Progress note: “Aspirin stopped on 01-May-2024”", stopped)
    assert {"section_of_the_note_missing", "day_of_the_note_missing"} <= set(found)


@pytest.mark.parametrize(
    ("written", "quoted", "is_so"),
    [
        ("Neck: Supple. No masses were felt.", "No masses were felt.", True),
        ("Neck: Supple. No masses were felt.", "masses were felt.", False),
        ("- Neck: Supple. No masses were felt.", "Neck: Supple.", True),
        (
            "Husband was interviewed. She smokes ten cigarettes a day.",
            "She smokes ten cigarettes a day.",
            False,
        ),
        ("The following is not true. Cancer was found.", "Cancer was found.", False),
        ("Mother: Diabetes. Asthma was found early.", "Asthma was found early.", False),
        ("Stopped: Aspirin. It was well tolerated.", "It was well tolerated.", False),
    ],
)
def test_a_sentence_of_a_passage_is_quoted_alone_unless_another_binds_it(
    written: str, quoted: str, is_so: bool
) -> None:
    whole = passage(written)
    text = f"{FRAME}“{quoted}”"
    verdict, _ = Judge("female").verdict(text, [whole])
    assert (verdict is Verdict.SUPPORTED) is is_so
    assert Judge("female").verdict(f"{FRAME}“{written}”", [whole])[0] is Verdict.SUPPORTED


def test_two_quotations_and_another_fact_stand_side_by_side_and_lend_each_other_nothing() -> None:
    shorter = passage("No fever")
    longer = passage("No fever, no cough and no chills")
    both = f"{longer.text} {shorter.text}"
    assert faults(both, shorter, longer) == []
    assert "not_a_quotation" in faults(longer.text, shorter, longer)
    assert "words_beside_the_quotation" in faults(f"{both} Chills.", shorter, longer)
    assert "words_beside_the_quotation" not in faults(f"{shorter.text} Gout is active.", shorter, GOUT)


def test_a_wrong_citation_of_a_note_is_not_corrected() -> None:
    claim = Checker(context([GOUT, DENIES])).check(DraftClaim("notes", DENIES.text, (Label("F1"),)))
    assert claim.verdict is not Verdict.SUPPORTED
    assert not claim.corrected


@given(st.text(max_size=30), st.text(max_size=60))
def test_a_quotation_that_is_not_in_the_text_never_passes(value: str, text: str) -> None:
    found = without_quotation(text, value)
    if found is not None:
        assert as_quoted(value) in as_quoted(text)
        assert sum(character.isalnum() for character in value) > 1


@given(st.text(max_size=40), st.text(max_size=40))
def test_judging_a_quotation_never_raises(value: str, text: str) -> None:
    faults(text, passage(value))
    faults(passage(value).text, passage(value))


@pytest.mark.parametrize("letter", [chr(code) for code in range(ord("A"), ord("Z") + 1)])
def test_a_quotation_is_compared_letter_by_letter_without_case(letter: str) -> None:
    written = f"{letter}erosis of skin"
    assert without_quotation(f"“{written.casefold()}”", written) is not None
    assert without_quotation("“erosis of skin”", written) is None
    assert as_quoted(letter) == letter.casefold()


def test_of_two_passages_the_longer_is_taken_out_first() -> None:
    short, long = passage("Feels well"), passage("Feels well today")
    for passages in ([short, long], [long, short]):
        assert without_quotations("“Feels well today”, “feels well”", passages) == (",  ", [long, short])
        assert without_quotations("“Feels well today”", passages) == (" ", [long])
        assert without_quotations("“Feels well”", passages) == (" ", [short])
        assert without_quotations("Nothing", passages) == ("Nothing", [])
