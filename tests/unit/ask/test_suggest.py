"""Suggested questions: from what the record holds, and such that it answers them."""

from __future__ import annotations

import pytest

from fixtures.facts import A1C, COLONOSCOPY, GOUT, LISINOPRIL, POTASSIUM, PRESSURE, SODIUM, fact, record
from fixtures.hostile import HOSTILE
from service.ask.match import match_facts
from service.ask.question import read_question, sought_in
from service.ask.suggest import MOST, suggest
from service.record.facts import Fact, Kind, Status

ALLERGY = fact("Allergy to Latex: active", Kind.ALLERGY, status=Status.ACTIVE)
CHART = [GOUT, A1C, SODIUM, POTASSIUM, PRESSURE, LISINOPRIL, COLONOSCOPY, ALLERGY]


def test_three_to_five_are_made_of_what_is_recorded_and_what_was_flagged_comes_first() -> None:
    made = suggest(CHART)
    assert made == suggest(reversed(CHART))
    assert 3 <= len(made) <= MOST
    assert made[0] == "What was the last hemoglobin a1c?"


@pytest.mark.parametrize("left_out", range(len(CHART)))
def test_the_record_answers_every_one(left_out: int) -> None:
    chart = [one for n, one in enumerate(CHART) if n != left_out]
    for question in suggest(chart):
        found = match_facts(record(chart), sought_in(question))
        assert found.named, question
        assert not found.nowhere


def test_nothing_is_suggested_of_an_empty_record() -> None:
    assert suggest([]) == ()


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_name_is_not_suggested_in_a_form_that_could_not_be_asked(name: str) -> None:
    odd: list[Fact] = [fact(f"x{n}", Kind.RESULT, f"Observation/{n}", name=HOSTILE[name]) for n in range(3)]
    for question in suggest(odd):
        assert read_question(question) == question
        assert len(question) <= 60
