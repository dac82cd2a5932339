"""What fits the budget, in which order, and what is said of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.facts import A1C, APPENDECTOMY, CHOLECYSTECTOMY, GOUT, fact, record
from service.context.choose import BudgetTooSmall, choose_facts, rank_facts
from service.context.render import whole_chat
from service.context.templates import load
from service.engine.prompt import Message, Profile
from service.record.facts import Absence, Fact, Kind, RequiredKind, Status

TEMPLATES = load("history")
FREE = Profile("test", "free", 8192, 1024, 0.0)


def count(chat: tuple[Message, ...]) -> int:
    return sum(len(message.content.split()) + 3 for message in chat)


def pressures(n: int) -> list[Fact]:
    return [
        fact(f"Pulse: {60 + i % 40} /min on 0{1 + i % 9}-May-20{10 + i % 15}", Kind.VITAL, f"Obs/p{i}",
             status=Status.FINAL, on=f"20{10 + i % 15}-05-0{1 + i % 9}")
        for i in range(n)
    ]  # fmt: skip


def required(*facts: Fact) -> list[RequiredKind]:
    return [RequiredKind("problems", "Problems", Absence.LISTED, tuple(f.id for f in facts), essential=True)]


def test_everything_is_shown_when_it_fits() -> None:
    context = choose_facts(record([GOUT, A1C]), required(GOUT), TEMPLATES, FREE, 2000, count)
    assert set(context.facts.values()) == {GOUT, A1C}
    assert context.left_out == ()
    assert context.tokens == count(whole_chat(context, TEMPLATES, FREE))


def test_what_does_not_fit_is_counted_with_its_period() -> None:
    chart = record([GOUT, *pressures(300)])
    context = choose_facts(chart, required(GOUT), TEMPLATES, FREE, 600, count)
    (left,) = context.left_out
    assert left.count == 301 - len(context.facts)
    assert left.kind == "vital"
    assert left.earliest.endswith("-2010")
    assert left.latest
    assert GOUT in context.facts.values()


def test_the_newest_of_each_name_comes_before_the_second_newest_of_any() -> None:
    chart = record([*pressures(20), A1C, APPENDECTOMY])
    first_three = rank_facts(chart, [], TEMPLATES)[:3]
    assert {f.name for f in first_three} == {"Pulse", "Hemoglobin A1c", "Appendectomy"}
    pulses = [f for f in rank_facts(chart, [], TEMPLATES) if f.name == "Pulse"]
    assert pulses == sorted(pulses, key=lambda f: f.when.earliest if f.when else 0, reverse=True)


def test_kinds_take_turns_so_that_many_analytes_do_not_crowd_out_the_operations() -> None:
    analytes = [fact(f"Analyte {i}: 1 g on 01-May-2020", Kind.RESULT, on="2020-05-01") for i in range(50)]
    ranked = rank_facts(record([*analytes, APPENDECTOMY, CHOLECYSTECTOMY]), [], TEMPLATES)
    assert {f.kind for f in ranked[:4]} == {Kind.RESULT, Kind.PROCEDURE}


def test_notes_are_named_as_not_read() -> None:
    note = fact("Progress note: final, 01-May-2020", Kind.NOTE, on="2020-05-01")
    context = choose_facts(record([note]), [], TEMPLATES, FREE, 2000, count)
    assert [(item.count, item.title) for item in context.left_out] == [
        (1, "the text of notes is not read by this version")
    ]


def test_a_budget_below_the_instructions_says_how_much_is_needed() -> None:
    with pytest.raises(BudgetTooSmall) as caught:
        choose_facts(record([GOUT]), [], TEMPLATES, FREE, 20, count)
    assert "20 tokens is too small" in caught.value.message


def test_required_facts_beyond_the_budget_are_still_required_and_named_as_left_out() -> None:
    problems = [
        fact(f"Problem number {i}: active, since 04-Mar-2011", fact_id=f"Condition/{i}") for i in range(200)
    ]
    context = choose_facts(record(problems), required(*problems), TEMPLATES, FREE, 700, count)
    assert len(context.required[0].facts) == 200
    assert context.left_out[0].count == 200 - len(context.facts)
    assert context.tokens <= 700


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 120), st.integers(330, 3000))
def test_the_rendered_prompt_never_exceeds_its_budget_and_more_facts_drop_no_required_one(
    n: int, budget: int
) -> None:
    small = choose_facts(record([GOUT, A1C]), required(GOUT), TEMPLATES, FREE, budget, count)
    large = choose_facts(record([GOUT, A1C, *pressures(n)]), required(GOUT), TEMPLATES, FREE, budget, count)
    assert large.tokens == count(whole_chat(large, TEMPLATES, FREE)) <= budget
    assert GOUT in small.facts.values()
    assert GOUT in large.facts.values()


@given(st.permutations([GOUT, A1C, APPENDECTOMY, *pressures(6)]))
def test_the_order_of_the_input_does_not_matter(facts: list[Fact]) -> None:
    assert rank_facts(record(facts), [], TEMPLATES) == rank_facts(
        record(sorted(facts, key=lambda f: f.id)), [], TEMPLATES
    )
