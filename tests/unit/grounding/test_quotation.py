"""Which sentences of a passage may be quoted alone, and which say something else without what binds them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.facts import GOUT, fact
from service.grounding.check import Judge
from service.grounding.quotation import demands_section, meant_passages, narrowed, quotations, quoted_run
from service.grounding.source import Source
from service.grounding.summary import Verdict
from service.record.facts import FactId, Kind
from tests.unit.grounding.test_quotes import passage

SYSTEMS = (
    "abdomen auscultation back exam examination physical breast breasts cardiac cardiovascular chest "
    "constitutional cv ear ears endocrine ent extremities extremity eye eyes gastrointestinal general "
    "genitourinary gi gu head heart heent hematologic hematological integumentary lung lungs lymphatic "
    "mouth msk musculoskeletal neck neuro neurologic neurological nose psych psychiatric psychological "
    "respiratory skin spine system systems throat urinary vascular vitals"
).split()
BINDING = (
    "stopped stop discontinued held hold past previous prior allergy allergies allergen intolerance "
    "intolerances reaction denies negative no not without ruled excluded differential ddx possible "
    "suspected risk if refused declined advised recommended home admission discharge"
).split()
RELATIVES = (
    "mother father sister brother son daughter aunt uncle cousin grandmother grandfather parent sibling "
    "maternal paternal"
).split()
OTHERS = "husband wife partner spouse roommate caregiver caretaker friend neighbor neighbour".split()
FINITE = (
    "is are was were has have had will would should may might can could did does do am reviewed discussed "
    "explained revealed showed shows demonstrated demonstrates reports reported denies states stated "
    "appreciate appreciated underwent received presents presented appears appeared experienced feels "
    "lives works remains"
).split()


def may_stand(written: str, quoted: str, section: str = "Assessment") -> bool:
    """Say whether a sentence may be quoted of a passage."""
    cited = passage(written, section=section)
    text = f"Progress note of 01-May-2024, {section}: “{quoted}”"
    whole = Judge("").verdict(f"Progress note of 01-May-2024, {section}: “{written}”", [cited])
    assert whole[0] is Verdict.SUPPORTED
    return Judge("").verdict(text, [cited])[0] is Verdict.SUPPORTED


@pytest.mark.parametrize("word", SYSTEMS)
def test_a_part_of_the_body_binds_nothing_below_it(word: str) -> None:
    for heading in (word.title(), f"{word.title()} exam", f"Neck and {word}"):
        assert may_stand(f"{heading}: Supple there. Nothing palpable there.", "Nothing palpable there.")
        assert may_stand(f"{heading}: Supple there. Nothing palpable there.", "Supple there.")
        assert not demands_section(passage("Nothing palpable there.", section=heading))


@pytest.mark.parametrize("word", [*BINDING, "outlook", "mother"])
def test_another_heading_binds_what_has_no_verb(word: str) -> None:
    written = f"{word.title()}: Fine there. Nothing palpable there."
    assert not may_stand(written, "Nothing palpable there.")
    assert not may_stand(written, "Fine there.")
    assert demands_section(passage("Nothing palpable there.", section=word.title()))


@pytest.mark.parametrize("word", BINDING)
def test_a_heading_that_turns_binds_whole_sentences_too(word: str) -> None:
    for heading in (word.title(), f"Hepatic {word}"):
        assert not may_stand(f"{heading}: Aspirin there. It was well tolerated.", "It was well tolerated.")
        assert demands_section(passage("It was well tolerated.", section=f"Hepatic {word}"))


@pytest.mark.parametrize("verb", [*FINITE, "Is", "WAS"])
def test_a_sentence_with_a_verb_stands_without_a_heading_that_turns_nothing(verb: str) -> None:
    assert may_stand(f"Outlook: Fine there. She {verb} it.", f"She {verb} it.")
    assert not demands_section(passage(f"She {verb} it.", section="Outlook"))


@pytest.mark.parametrize("word", [*RELATIVES, *OTHERS])
def test_a_sentence_after_one_of_another_person_is_not_quoted_alone(word: str) -> None:
    assert not may_stand(f"The {word} was seen. She smokes daily there.", "She smokes daily there.")
    assert may_stand(f"She smokes daily there. The {word} was seen.", "She smokes daily there.")
    assert may_stand(f"The {word} was seen. She smokes daily there.", f"The {word} was seen.")


@pytest.mark.parametrize(
    "told",
    [
        "not true",
        "untrue",
        "incorrect",
        "erroneous",
        "mistaken",
        "mistakenly entered",
        "of another patient",
        "of the wrong patient",
        "if so",
        "Untrue",
    ],
)
def test_a_sentence_after_one_that_takes_it_back_is_not_quoted_alone(told: str) -> None:
    assert not may_stand(f"The following is {told}. Cancer was found.", "Cancer was found.")
    assert not may_stand(f"The following is {told}. It is so. Cancer was found.", "Cancer was found.")


@pytest.mark.parametrize("word", RELATIVES)
def test_below_a_relative_stands_alone_what_names_a_relative(word: str) -> None:
    for heading in (f"{word.title()} health", "Family History"):
        assert demands_section(passage("It was found early.", section=heading))
        assert not demands_section(passage(f"Her {word} was ill.", section=heading))
        assert not demands_section(passage("It was ill, the family.", section=heading))


@pytest.mark.parametrize(
    "bullet",
    [
        "-",
        "*",
        "•",
        "·",
        "◦",
        "▪",
        "‣",
        "●",
        "○",
        "■",
        "□",
        "–",
        "—",
        "→",
        "#",
        "##",
        "1.",
        "12)",
        "3)",
        "(a)",
        "b)",
        "(Z)",
        "- 1.",
        "  -",
    ],
)
def test_a_bullet_may_go_unsaid(bullet: str) -> None:
    assert may_stand(f"{bullet} Supple there all day.", "Supple there all day.")
    assert may_stand(f"{bullet} Neck: Supple there all day.", "Supple there all day.")


def test_what_is_no_bullet_is_part_of_the_sentence() -> None:
    assert quoted_run("“Supple there all day.”", "-Supple there all day.") == ""
    assert quoted_run("“there all day.”", "Supple there all day.") == ""
    assert quoted_run("“Supple there all day.”", "Dose 12. Supple there all day.") == "Supple there all day."


@pytest.mark.parametrize("end", [".", "!", "?"])
@pytest.mark.parametrize("start", ["She", "(She", "“She", '"She', "'She"])
def test_a_sentence_ends_before_a_capital_letter_or_an_opening_mark(end: str, start: str) -> None:
    written = f"It was cold there{end} {start} smokes daily there."
    assert quoted_run(f"{start} smokes daily there.", written) == f"{start} smokes daily there."
    assert quoted_run("smokes daily there.", written.replace(start, "smokes")) == ""


def test_the_longest_run_of_sentences_is_what_is_quoted() -> None:
    written = "Neck: It was cold. It was warm. It was wet."
    for run in (
        written,
        "It was cold. It was warm. It was wet.",
        "It was cold. It was warm.",
        "It was warm. It was wet.",
        "It was cold.",
        "It was warm.",
        "It was wet.",
        "Neck: It was cold.",
        "Neck: It was cold. It was warm.",
    ):
        assert quoted_run(f"said: “{run}”", written) == run
    assert quoted_run("“It was cold. It was wet.”", written) in ("It was cold.", "It was wet.")


@pytest.mark.parametrize(("length", "is_key"), [(1, True), (2, True), (48, True), (49, False)])
def test_a_key_is_short(length: int, is_key: bool) -> None:
    written = f"{'M' * length}: Fine there. Nothing palpable there."
    assert (quoted_run("“Nothing palpable there.”", written) == "") is is_key


@pytest.mark.parametrize("stop", ".?!;")
def test_a_key_holds_no_stop(stop: str) -> None:
    written = f"Seen{stop} mother: fine. Nothing palpable there."
    found = quoted_run("“Nothing palpable there.”", written)
    assert found == ""
    assert (
        quoted_run("“Nothing palpable there.”", f"Seen{stop} daughterly: fine. Nothing palpable there.") != ""
    )


def test_a_passage_is_narrowed_to_what_is_quoted_of_it() -> None:
    whole = passage("Neck: It was cold. It was warm.")
    told = narrowed(whole, "01-May-2024: “It was warm.”")
    assert (told.value, told.text) == (
        "It was warm.", "Progress note of 01-May-2024, Assessment: “It was warm.”",
    )  # fmt: skip
    assert narrowed(whole, "01-May-2024: “It was wet.”") is whole
    assert narrowed(whole, whole.text) is whole
    assert narrowed(GOUT, GOUT.text) is GOUT


def test_a_single_word_is_quoted_within_marks_alone() -> None:
    stable = passage("Stable.")
    for marks in ("“{}”", '"{}"', "'{}'", "«{}»", "„{}“", "‘{}’", "`{}`", "“{}.”", "“{},”", "“{};”", "“{}”."):
        text = f"Progress note of 01-May-2024, Assessment: {marks.format('stable')}"
        assert [r for _, r in quotations(text, [Source(stable)])] == [], marks
    for marks in ("{}", "“{}", "{}”", "“{}:”"):
        text = f"Progress note of 01-May-2024, Assessment: {marks.format('stable')}"
        assert "not_a_quotation" in [r for _, r in quotations(text, [Source(stable)])], marks


@pytest.mark.parametrize(
    "around",
    [
        "“x{}”",
        "“{}x”",
        "“-{}”",
        "“{}-”",
        "“–{}”",
        "“{}–”",
        "“/{}”",
        "“{}/”",
        "“5.{}”",
        "“5,{}”",
        "“{}.5”",
        "“{},5”",
    ],
)
def test_a_quotation_stands_apart_from_what_is_before_and_after_it(around: str) -> None:
    well = passage("Feels well")
    text = f"01-May-2024: {around.format('Feels well')}"
    assert "not_a_quotation" in [r for _, r in quotations(text, [Source(well)])]
    apart = f"01-May-2024: {around.replace('{}', ' {} ').format('Feels well')}"
    assert "not_a_quotation" not in [r for _, r in quotations(apart, [Source(well)])]


def test_of_the_same_words_in_two_places_that_of_the_told_day_is_meant() -> None:
    first = replace(passage("It was cold."), id=FactId("DocumentReference/a#c0"))
    second = replace(passage("It was cold.", on="2025-01-02"), id=FactId("DocumentReference/b#c0"))
    below = replace(passage("Cold there now.", section="Stopped"), id=FactId("DocumentReference/c#c0"))
    plain = replace(passage("Cold there now."), id=FactId("DocumentReference/d#c0"))
    assert meant_passages([first, second], "On 02-Jan-2025: “It was cold.”") == [second]
    assert meant_passages([first, second], "On 01-May-2024: “It was cold.”") == [first]
    assert meant_passages([second, first], "On 01-May-2024: “It was cold.”") == [first]
    assert meant_passages([first, second], "“It was cold.”") == [first]
    assert meant_passages([below, plain], "On 01-May-2024: “Cold there now.”") == [plain]
    assert meant_passages([plain, below], "On 01-May-2024: “Cold there now.”") == [plain]
    assert meant_passages([first, plain], "“It was cold.” and “Cold there now.”") == [plain, first]
    longer = replace(passage("It was cold. It was wet."), id=FactId("DocumentReference/e#c0"))
    assert meant_passages([first, longer], "“It was cold. It was wet.”") == [longer]
    assert meant_passages([first, longer], "“It was wet.”") == [longer]
    assert meant_passages([first], "nothing") == []


def test_beside_a_quotation_stands_what_other_facts_bear_and_nothing_else() -> None:
    well = passage("Feels well")
    weight = fact("Weight: 70 kg on 01-May-2024", Kind.VITAL, on="2024-05-01", value="70", unit="kg")
    beside = f"{well.text}. Weight 70 kg on 01-May-2024."
    assert list(quotations(beside, [Source(well), Source(weight)])) == []
    for wrong in (beside.replace("70", "71"), beside.replace("70 kg on 01", "70 kg on 02")):
        assert list(quotations(wrong, [Source(well), Source(weight)])) == [
            (Verdict.UNSUPPORTED, "value_beside_the_quotation")
        ]
    assert list(quotations(f"{beside} Tired.", [Source(well), Source(weight)])) == [
        (Verdict.NOT_CHECKED, "words_beside_the_quotation")
    ]
    assert list(quotations("Weight 71 kg.", [Source(weight)])) == []


def test_a_passage_without_a_heading_binds_nothing() -> None:
    assert quoted_run("“Cold there.”", "Wet there. Cold there.") == "Cold there."
    assert quoted_run("“Cold there.”", "Mother: wet there. Cold there.") == ""


def test_two_letters_are_quoted_and_one_never() -> None:
    for value, is_quoted in (("No", True), ("A", False), ("5", False), ("A 5", True), ("A.", False)):
        marked = passage(value, section="")
        found = quotations(f"01-May-2024: “{value}”", [Source(marked)])
        assert ([reason for _, reason in found] == []) is is_quoted, value


def test_nothing_but_the_heading_and_the_day_need_stand_beside_a_quotation() -> None:
    stopped = passage("Aspirin.", section="Stopped")
    assert list(quotations("Stopped 01-May-2024: “Aspirin.”", [Source(stopped)])) == []
    assert list(quotations("01-May-2024: “Aspirin.”", [Source(stopped)])) == [
        (Verdict.NOT_CHECKED, "section_of_the_note_missing")
    ]
    assert list(quotations("Stopped: “Aspirin.”", [Source(stopped)])) == [
        (Verdict.UNSUPPORTED, "day_of_the_note_missing")
    ]


def test_a_sentence_that_stands_alone_may_follow_one_that_does_not() -> None:
    written = "Outlook: Fine there. Nothing palpable there. She is well there."
    assert may_stand(written, "She is well there.")
    assert not may_stand(written, "Nothing palpable there.")


def test_the_last_stop_of_a_sentence_may_go_unsaid() -> None:
    for quoted in ("Supple there all day", "Supple there all day."):
        assert quoted_run(f"“{quoted}”", "Supple there all day.") == "Supple there all day."
    assert quoted_run("“Supple there all da”", "Supple there all day.") == ""


def test_only_a_passage_of_a_note_is_narrowed_and_where_it_stands_last() -> None:
    swab = replace(fact("Swab: Red there. Swollen there.", Kind.RESULT), value="Red there. Swollen there.")
    assert narrowed(swab, "Swab: “Red there.”") is swab
    twice = passage("Cold there. Wet there.", section="Cold there. Wet there.")
    assert narrowed(twice, "“Wet there.”").text == (
        "Progress note of 01-May-2024, Cold there. Wet there.: “Wet there.”"
    )


def test_words_that_tie_may_stand_beside_a_single_quotation_only() -> None:
    well = passage("Feels well")
    weight = fact("Weight: 70 kg on 01-May-2024", Kind.VITAL, on="2024-05-01", value="70", unit="kg")
    told = "While {} on 01-May-2024, Assessment: “Feels well”"
    assert list(quotations(told.format("charted"), [Source(well)])) == []
    assert list(quotations(told.format("weight 70 kg"), [Source(well), Source(weight)])) == [
        (Verdict.NOT_CHECKED, "words_beside_the_quotation")
    ]
