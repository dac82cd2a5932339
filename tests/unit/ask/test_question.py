"""How a question is read: what is refused, and what it is taken to ask for."""

from __future__ import annotations

import pytest

from fixtures.facts import CANARY
from fixtures.hostile import HOSTILE
from service.ask.question import LONGEST, QuestionError, read_question, sought_in, stem
from service.grounding.words import DateToken
from service.record.facts import Kind


@pytest.mark.parametrize("text", ["", "  \n\t ", "?!…", "\u200d\u200d"])
def test_what_asks_nothing_is_refused(text: str) -> None:
    with pytest.raises(QuestionError):
        read_question(text)


def test_a_question_is_bounded_and_on_one_line() -> None:
    assert read_question(" last\n\tHbA1c?\r ") == "last HbA1c?"
    assert read_question("x" * LONGEST) == "x" * LONGEST
    with pytest.raises(QuestionError, match=str(LONGEST)):
        read_question("x" * (LONGEST + 1))


@pytest.mark.parametrize(
    "character",
    ["\u202e", "\u2066", "\u200b", "\ufeff", "\x00", "\x1b", "\x7f", "\ud83d", "\U000e0041", "\ue000"],
)
def test_characters_that_nobody_sees_are_refused_and_not_repeated(character: str) -> None:
    with pytest.raises(QuestionError) as caught:
        read_question(f"Is {CANARY} allergic{character}?")
    assert CANARY not in f"{caught.value} {caught.value.advice}"


def test_names_in_scripts_that_join_letters_may_be_asked_for() -> None:
    assert read_question("می\u200cخواهم؟") == "می\u200cخواهم؟"


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_texts_are_refused_or_read_without_harm(name: str) -> None:
    try:
        shown = read_question(HOSTILE[name])
    except QuestionError:
        return
    assert len(shown) <= LONGEST
    sought_in(shown)


def test_kinds_times_and_words_are_told_apart() -> None:
    asked = sought_in("What was the last HbA1c in May 2020?")
    assert (asked.terms, asked.newest, asked.dates) == (("hba1c",), True, (DateToken(2020, 5),))
    asked = sought_in("Is she allergic to penicillin?")
    assert (asked.terms, asked.kinds) == (("penicillin",), frozenset({Kind.ALLERGY}))
    asked = sought_in("Current medications?")
    assert (asked.terms, asked.kinds, asked.current) == ((), frozenset({Kind.MEDICATION}), True)
    assert sought_in("When was the last admission?").admitted
    assert sought_in("sodium, potassium and blood pressure").groups == (
        ("sodium",),
        ("potassium",),
        ("blood", "pressure"),
    )
    assert "creatinine" in sought_in("How is the kidney function?").names


@pytest.mark.parametrize(
    "question",
    [
        "Should we stop apixaban?",
        "Can I give ibuprofen?",
        "What do you recommend?",
        "Is it safe to discharge her?",
        "What dose should he get?",
        "Do you think this is pneumonia?",
        "What is the prognosis?",
        "Does he need to be admitted?",
        "Would you advise surgery?",
        "What is the best treatment?",
        "Is apixaban contraindicated?",
        "How would you treat this?",
        "Is she ready for discharge?",
    ],
)
def test_a_question_for_advice_or_a_judgement_is_known_as_one(question: str) -> None:
    assert sought_in(question).advice


@pytest.mark.parametrize(
    "question",
    [
        "When was apixaban stopped?",
        "What was the last HbA1c?",
        "Which allergies?",
        "Who ordered the scan?",
        "Is he taking metformin?",
        "What was recommended?"[:8],
    ],
)
def test_a_question_for_what_is_recorded_is_no_question_for_advice(question: str) -> None:
    assert not sought_in(question).advice


def test_a_question_that_names_nothing_takes_that_from_the_one_before() -> None:
    asked = sought_in("And before that?", "What was the last potassium?")
    assert (asked.terms, asked.newest) == (("potassium",), True)
    assert sought_in("And in 2019?", "What was the last potassium?").newest is False
    assert sought_in("And sodium?", "What was the last potassium?").terms == ("sodium",)
    assert sought_in("And before that?").is_vague


@pytest.mark.parametrize(
    ("one", "other"), [("smoking", "smoker"), ("diabetes", "diabetic"), ("fractures", "fracture")]
)
def test_words_of_one_root_are_found_by_each_other(one: str, other: str) -> None:
    assert stem(one) == stem(other)
