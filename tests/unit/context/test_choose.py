"""What fits the budget, in which order, and what is said of the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.facts import A1C, APPENDECTOMY, CHOLECYSTECTOMY, GOUT, fact, record
from service.context.choose import (
    PROSE_CHARACTERS_PER_TOKEN,
    BudgetTooSmall,
    choose_facts,
    focused,
    rank_steps,
    required_in,
)
from service.context.chosen import Context, Label
from service.context.render import TASK, whole_chat
from service.context.stay import Stay
from service.context.written import Focus, FocusScope
from service.engine.prompt import Message
from service.record.facts import Absence, Fact, FactId, Kind, RequiredKind, Status
from tests.unit.context.charts import FREE, HISTORY, choose, count, flag, lab, prompt_of
from tests.unit.context.test_layout import passage
from tests.unit.record.charts import record_of


def pressures(n: int) -> list[Fact]:
    return [
        fact(f"Pulse: {60 + i % 40} /min on 0{1 + i % 9}-May-20{10 + i % 15}", Kind.VITAL, f"Obs/p{i}",
             status=Status.FINAL, on=f"20{10 + i % 15}-05-0{1 + i % 9}")
        for i in range(n)
    ]  # fmt: skip


def visits(n: int) -> list[Fact]:
    return [
        fact(
            f"Visit {i}: finished, {2000 + i % 20}",
            Kind.ENCOUNTER,
            f"Encounter/{i}",
            on=f"{2000 + i % 20}-05-04",
        )
        for i in range(n)
    ]


def required(*facts: Fact) -> list[RequiredKind]:
    return [RequiredKind("problems", "Problems", Absence.LISTED, tuple(f.id for f in facts), essential=True)]


def chosen(facts: list[Fact], needed: list[RequiredKind], budget: int, **more: Any) -> Context:
    return choose_facts(record(facts), needed, HISTORY, FREE, budget, count, **more)


def ranked(facts: list[Fact], needed: tuple[Fact, ...] = (), stay: Stay | None = None) -> list[list[str]]:
    return [[f.name for f in step] for step in rank_steps(record(facts), needed, HISTORY, stay).steps]


def test_everything_is_shown_when_it_fits() -> None:
    context = chosen([GOUT, A1C], required(GOUT), 2000)
    assert set(context.facts.values()) == {GOUT, A1C}
    assert context.left_out == ()
    assert context.tokens == count(whole_chat(context, HISTORY, FREE))
    assert context.kinds == (("Problems", 1, 1), ("Results", 1, 1))


def test_what_does_not_fit_is_counted_with_its_period() -> None:
    context = chosen([GOUT, *visits(300)], required(GOUT), 600)
    (left,) = context.left_out
    assert left.count == 301 - len(context.facts)
    assert (left.kind, left.reason, left.earliest) == ("encounter", "did not fit", "04-May-2000")
    assert GOUT in context.facts.values()
    assert len(context.facts) > 20


def test_the_newest_of_each_name_comes_before_the_second_newest_of_any() -> None:
    chart = [*pressures(20), A1C, APPENDECTOMY]
    steps = rank_steps(record(chart), [], HISTORY)
    firsts = [f for step in steps.steps for f in step][:3]
    assert {f.name for f in firsts} == {"Pulse", "Hemoglobin A1c", "Appendectomy"}
    assert steps.latest == {f.id for f in firsts}
    pulses = [f for step in steps.steps for f in step if f.name == "Pulse"]
    assert pulses == sorted(pulses, key=lambda f: f.when.earliest if f.when else 0, reverse=True)


def test_kinds_take_turns_so_that_many_analytes_do_not_crowd_out_the_operations() -> None:
    analytes = [
        fact(f"Analyte {i}: {v} g", Kind.RESULT, f"Observation/{i}-{v}", on=f"20{v}-05-01")
        for i in range(50)
        for v in (18, 20)
    ]
    operations = [replace(APPENDECTOMY, when=A1C.when), replace(CHOLECYSTECTOMY, when=A1C.when)]
    first, second, third = ranked([*analytes, *operations])[:3]
    assert (len(first), set(second)) == (50, {"Appendectomy", "Cholecystectomy"})
    assert len(third) == 50


def test_what_is_flagged_or_of_the_stay_counts_as_a_year_newer() -> None:
    old = [lab(f"s{n}", on=on, value="1") for n, on in enumerate(["2020-01-01", "2020-07-01", "2021-07-01"])]
    chart = record_of(*old)
    names = [f.id[-2:] for step in rank_steps(chart, [], HISTORY).steps for f in step]
    assert names == ["s2", "s1", "s0"]
    flagged = record_of({**old[0], "interpretation": flag("H")}, *old[1:])
    names = [f.id[-2:] for step in rank_steps(flagged, [], HISTORY).steps for f in step]
    assert names == ["s2", "s0", "s1"]
    first = next(f for f in chart.facts if f.id.endswith("s0"))
    stay = Stay("Encounter/9", first.when.earliest, first.when.latest) if first.when else None
    names = [f.id[-2:] for step in rank_steps(chart, [], HISTORY, stay).steps for f in step]
    assert names == ["s2", "s0", "s1"]


def test_undated_facts_are_ranked_with_the_newest() -> None:
    undated = [fact(f"Gout: {n}", Kind.PROBLEM, f"Condition/{n}") for n in range(2)]
    old = [
        replace(f, id=FactId(f"Condition/old{n}"), when=v.when)
        for n, (f, v) in enumerate(zip(undated, visits(2), strict=True))
    ]
    steps = rank_steps(record([*undated, *old, A1C]), [], HISTORY).steps
    assert [len(step) for step in steps] == [1, 1, 2, 1]
    assert {f.id for f in steps[2]} == {f.id for f in undated}


def test_vital_signs_are_told_of_the_newest_days_alone() -> None:
    pulses = [fact("Pulse: 1", Kind.VITAL, f"Obs/{n}", on=f"2020-01-{n:02}") for n in range(1, 31)]
    told = [f.id for step in rank_steps(record(pulses), [], HISTORY).steps for f in step]
    assert len(told) == HISTORY.limits.vitals_days
    assert "Obs/19" in told
    assert "Obs/18" not in told


def test_a_kind_that_the_set_does_not_show_is_not_ranked() -> None:
    hidden = replace(HISTORY, unshown={Kind.ENCOUNTER: "not read"})
    steps = rank_steps(record([*visits(3), A1C]), [], hidden).steps
    assert [f.name for step in steps for f in step] == ["Hemoglobin A1c"]


def test_a_required_fact_is_not_ranked_again() -> None:
    assert ranked([GOUT, A1C], (GOUT,)) == [["Hemoglobin A1c"]]


def notes(*days: str, sentences: int = 12, size: int = 40) -> list[Fact]:
    return [passage(day, n, f"{n:02}".ljust(size, "x"), on=day) for day in days for n in range(sentences)]


def test_a_notes_sentences_are_ranked_in_reading_order_and_the_newest_note_whole() -> None:
    first, *rest = rank_steps(record(notes("2019-05-04", "2020-05-04")), [], HISTORY).steps
    assert [f.value[:2] for f in first] == [f"{n:02}" for n in range(12)]
    assert {f.source.reference for f in first} == {"DocumentReference/2020-05-04"}
    assert [f.value[:2] for step in rest for f in step] == [f"{n:02}" for n in range(12)]


def test_notes_take_no_more_than_their_share_and_the_newest_come_first() -> None:
    days = [f"20{n}-05-04" for n in range(10, 20)]
    chart = [GOUT, *notes(*days), *visits(5)]
    few = replace(HISTORY, limits=replace(HISTORY.limits, notes_share=0.1))
    context = choose_facts(record(chart), required(GOUT), few, FREE, 2500, count)
    shown = [f for f in context.facts.values() if f.kind is Kind.NOTE]
    room = 0.1 * 2500 * PROSE_CHARACTERS_PER_TOKEN
    assert room - 40 < sum(len(f.value) for f in shown) <= room
    assert {f.source.reference[-10:-6] for f in shown} == {"2019", "2018", "2017"}
    last = [f.value[:2] for f in shown if "2017" in f.source.reference]
    assert last == [f"{n:02}" for n in range(len(last))]  # the beginning of the note that is cut
    assert sum(f.kind is Kind.ENCOUNTER for f in context.facts.values()) == 5
    none = replace(HISTORY, limits=replace(HISTORY.limits, notes_share=0.0))
    without = choose_facts(record(chart), required(GOUT), none, FREE, 2500, count)
    assert not [f for f in without.facts.values() if f.kind is Kind.NOTE]
    assert [(item.kind, item.count) for item in without.left_out] == [("note", 120)]


def test_a_budget_below_the_index_names_the_least_that_fits() -> None:
    with pytest.raises(BudgetTooSmall) as caught:
        chosen([GOUT], required(GOUT), 20)
    assert "20 tokens is too small" in caught.value.message
    assert caught.value.code == "budget"


def named_least(facts: list[Fact], needed: list[RequiredKind]) -> int:
    with pytest.raises(BudgetTooSmall) as caught:
        chosen(facts, needed, 1)
    return int(caught.value.message.split()[-1].rstrip("."))


@given(st.integers(0, 12), st.integers(0, 40))
def test_exactly_the_least_is_accepted_and_one_below_refused(n: int, others: int) -> None:
    problems = [fact(f"Problem {i}: active, since long ago", fact_id=f"Condition/{i}") for i in range(n)]
    needed = required(*problems)
    least = named_least([*problems, *visits(others)], needed)
    context = chosen([*problems, *visits(others)], needed, least)
    assert context.tokens <= least
    assert set(problems) <= set(context.facts.values())
    with pytest.raises(BudgetTooSmall, match=f"{least - 1} tokens is too small"):
        chosen([*problems, *visits(others)], needed, least - 1)


def test_required_facts_beyond_the_budget_stand_by_name_and_can_be_cited() -> None:
    problems = [
        fact(f"Problem {i}: active, since 04-Mar-2011, recorded by a long list of people at length",
             fact_id=f"Condition/{i}", status=Status.ACTIVE)
        for i in range(100)
    ]  # fmt: skip
    context = chosen(problems, required(*problems), 900)
    assert context.tokens <= 900
    assert set(context.facts.values()) == set(problems)
    assert context.left_out == ()
    (line,) = context.index
    whole = [f for block in context.blocks for one in block.lines for f in one.facts]
    assert (len(line.facts) + len(whole), len(whole) > 0) == (100, True)
    assert whole == problems[: len(whole)] or set(whole) | set(line.facts) == set(problems)
    assert set(context.cites) == set(context.facts)
    assert "REQUIRED, BY INDEX\nProblems: [P" in prompt_of(context)
    only = chosen(problems, required(*problems), named_least(problems, required(*problems)))
    assert (len(only.index[0].facts), only.blocks) == (100, ())


def test_the_patients_own_fact_is_required_in_the_banner_and_not_in_a_block() -> None:
    banner = fact("Patient: female", Kind.PATIENT)
    assert required_in(record([banner, GOUT]), required(banner, GOUT, GOUT), HISTORY) == (GOUT,)


def test_facts_under_no_heading_are_shown_and_cannot_be_cited() -> None:
    bare = replace(HISTORY, sections=tuple(s for s in HISTORY.sections if Kind.RESULT not in s.kinds))
    context = choose_facts(record([GOUT, A1C]), required(GOUT), bare, FREE, 2000, count)
    assert A1C in context.facts.values()
    assert list(context.cites) == ["P1"]
    assert context.behind(Label("R1")) == (A1C,)
    assert context.behind(Label("P1")) == (GOUT,)
    assert context.behind(Label("R7")) == ()


def results(n: int) -> list[dict[str, Any]]:
    return [lab(f"s{i}", on=f"20{10 + i}-01-01", value=str(i)) for i in range(n)]


def test_trends_stand_last_and_are_given_up_where_there_is_no_room() -> None:
    chart = record_of(*results(9))
    context = choose(chart)
    assert context.blocks[-1].key == "trends"
    assert set(context.cites[Label("K1")]) <= set(chart.facts)
    least = next(b for b in range(1, 2000) if _fits(chart, b))
    assert [block.key for block in choose(chart, least).blocks if block.key == "trends"] == []


def _fits(chart: Any, budget: int) -> bool:
    try:
        choose(chart, budget)
    except BudgetTooSmall:
        return False
    return True


def test_a_prompt_that_takes_more_than_its_parts_gives_up_what_is_least_wanted() -> None:
    def dear(chat: tuple[Message, ...]) -> int:
        """A tokenizer that charges more once a task follows the evidence."""
        text = chat[-1].content
        return int(count(chat) * (1.5 if "TASK:" in text and "END OF RECORD" in text else 1))

    chart = record([GOUT, *visits(300)])
    context = choose_facts(chart, required(GOUT), HISTORY, FREE, 1200, dear)
    assert context.tokens == dear(whole_chat(context, HISTORY, FREE)) <= 1200
    assert GOUT in context.facts.values()
    assert len(context.facts) > 20


def test_text_that_no_tokenizer_could_fit_is_never_rendered() -> None:
    longest = 0

    def measured(chat: tuple[Message, ...]) -> int:
        nonlocal longest
        longest = max(longest, len(chat[-1].content))
        return count(chat)

    many = [replace(v, name=f"{v.name} {'x' * 400}", text=v.text + "x" * 400) for v in visits(3000)]
    chart = [*many]
    choose_facts(record(chart), [], HISTORY, FREE, 1000, measured)
    assert 0 < longest < sum(len(v.text) for v in chart) / 2


STAY = Stay("Encounter/9", None, None)


def test_a_task_may_want_the_stay_the_last_days_or_nothing_more() -> None:
    of_stay = fact("Sodium: 1", Kind.RESULT, "Observation/1", on="2020-05-01", encounter="Encounter/9")
    recent = fact("Sodium: 2", Kind.RESULT, "Observation/2", on="2020-05-09")
    undated = fact("Sodium: 3", Kind.RESULT, "Observation/3")
    note = fact("Note", Kind.NOTE, "DocumentReference/4", on="2020-05-08", encounter="Encounter/9")
    chart = record([fact("Patient", Kind.PATIENT, on="2020-05-09"), of_stay, recent, undated, note])
    days = Focus(FocusScope.DAYS, days=2)
    assert focused(chart, Focus(FocusScope.NONE), STAY) == []
    assert focused(chart, Focus(FocusScope.STAY), None) == []
    assert focused(chart, Focus(FocusScope.STAY), STAY) == [note, of_stay]
    assert focused(chart, Focus(FocusScope.STAY, kinds=(Kind.RESULT,)), STAY) == [of_stay]
    assert focused(chart, days, None) == [recent, note]
    assert focused(chart, days, None, {Kind.NOTE: "not read"}) == [recent]
    assert focused(record([undated]), days, None) == []
    ancient = fact("Sodium: 4", Kind.RESULT, "Observation/4", on="0001-01-01")
    assert focused(record([ancient]), days, None) == [ancient]


def test_focus_stands_after_the_shared_evidence_within_its_share() -> None:
    facts = [
        fact(f"Visit {n}: of the stay", Kind.ENCOUNTER, f"Encounter/{n}", encounter="Encounter/9",
             on=f"20{n // 12:02}-{n % 12 + 1:02}-01")
        for n in range(240)
    ]  # fmt: skip
    focus = Focus(FocusScope.STAY, kinds=(Kind.ENCOUNTER,), share=0.1)
    plain = chosen(facts, [], 1000, stay=STAY)
    more = choose_facts(record(facts), [], replace(HISTORY, focus=focus), FREE, 1000, count, stay=STAY)
    assert more.blocks == plain.blocks
    assert plain.focus == ()
    shown = {f for block in plain.blocks for line in block.lines for f in line.facts}
    further = [f for block in more.focus for line in block.lines for f in line.facts]
    assert further
    assert not shown & set(further)
    assert more.tokens <= min(1000, plain.tokens + 100 + 10)
    assert {more.facts[label] for label in more.cites} == shown | set(further)
    assert set(more.sections[0].labels) == set(more.facts)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 120), st.integers(330, 3000))
def test_the_rendered_prompt_never_exceeds_its_budget_and_more_facts_drop_no_required_one(
    n: int, budget: int
) -> None:
    small = chosen([GOUT, A1C], required(GOUT), budget)
    large = chosen([GOUT, A1C, *pressures(n), *visits(n)], required(GOUT), budget)
    assert large.tokens == count(whole_chat(large, HISTORY, FREE, TASK)) <= budget
    assert GOUT in small.facts.values()
    assert GOUT in large.facts.values()


@given(st.permutations([GOUT, A1C, APPENDECTOMY, *pressures(6), *notes("2019-05-04", sentences=2)]))
def test_the_order_of_the_input_does_not_matter(facts: list[Fact]) -> None:
    in_order = sorted(facts, key=lambda f: f.id)
    assert rank_steps(record(facts), [], HISTORY) == rank_steps(record(in_order), [], HISTORY)
