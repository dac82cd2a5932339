"""Windows: the whole chart, cut at quarters and between encounters, each within its room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fixtures.facts import fact, record
from service.context.windows import CHARACTERS_PER_TOKEN, Window, cut_windows
from service.record.facts import Fact, Kind

BUDGET = 100


def told(ident: str, on: str | None, encounter: str | None = None, size: int = 80) -> Fact:
    """A fact whose line has a size in characters."""
    return fact("x" * size, Kind.RESULT, f"Observation/{ident}", on=on, encounter=encounter, name=ident)


def cut(*facts: Fact, budget: int = BUDGET, shown: tuple[str, ...] = ()) -> tuple[Window, ...]:
    chart = record([fact("Patient: female", Kind.PATIENT), *facts])
    return cut_windows(chart, {f.id for f in facts if f.name in shown}, budget)


def names(windows: tuple[Window, ...]) -> list[list[str]]:
    return [[f.name for f in window.facts] for window in windows]


def test_windows_are_cut_at_quarters_and_whole_quarters_are_packed_together() -> None:
    days = ["2020-01-05", "2020-03-31", "2020-04-01", "2020-06-30", "2020-07-01"]
    facts = [told(str(n), on) for n, on in enumerate(days)]
    windows = cut(*reversed(facts), budget=70)
    assert names(windows) == [["0", "1"], ["2", "3"], ["4"]]
    assert [w.title for w in windows] == [
        "05-Jan-2020 to 31-Mar-2020",
        "01-Apr-2020 to 30-Jun-2020",
        "01-Jul-2020",
    ]
    assert names(cut(*facts, budget=1000)) == [["0", "1", "2", "3", "4"]]


def test_an_encounter_stays_together_even_over_the_end_of_a_quarter() -> None:
    windows = cut(
        told("a", "2020-03-01"), told("b", "2020-03-30", "Encounter/1"),
        told("c", "2020-04-02", "Encounter/1"), told("d", "2020-04-01"), budget=70,
    )  # fmt: skip
    assert names(windows) == [["a"], ["b", "c"], ["d"]]


def test_an_encounter_that_does_not_fit_is_cut_between_facts() -> None:
    facts = [told(str(n), f"2020-01-0{n}", "Encounter/1") for n in range(1, 6)]
    assert names(cut(*facts)) == [["1", "2", "3"], ["4", "5"]]
    assert names(cut(told("big", "2020-01-01", size=900), told("small", "2020-01-02"))) == [
        ["big"],
        ["small"],
    ]


def test_a_window_of_which_all_is_shown_is_left_out() -> None:
    facts = [
        told(str(n), on) for n, on in enumerate(["2019-01-01", "2020-01-01", "2021-01-01", "2022-01-01"])
    ]
    assert names(cut(*facts, budget=30, shown=("1",))) == [["0"], ["2"], ["3"]]
    assert names(cut(*facts, shown=("1",)))[0] == ["0", "1", "2"]


def test_undated_facts_have_a_window_before_all_others() -> None:
    windows = cut(told("a", "2020-01-01"), told("u", None), budget=30)
    assert [(w.title, [f.name for f in w.facts]) for w in windows] == [
        ("undated", ["u"]),
        ("01-Jan-2020", ["a"]),
    ]
    mixed = cut(told("u", None, "Encounter/1"), told("b", "2020-02-01", "Encounter/1"))
    assert names(mixed) == [["u", "b"]]
    assert mixed[0].title == "01-Feb-2020"


FACTS = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.sampled_from([None, "Encounter/1", "Encounter/2", "Encounter/3"]),
        st.integers(1, 400),
    ),
    max_size=40,
)


def built(drawn: list[tuple[int, str | None, int]]) -> list[Fact]:
    return [
        told(f"{n:03}", f"20{10 + month // 12}-{1 + month % 12:02}-15" if month else None, encounter, size)
        for n, (month, encounter, size) in enumerate(drawn)
    ]


@given(FACTS, st.integers(1, 400))
def test_nothing_is_lost_nothing_is_told_twice_and_every_window_keeps_its_room(
    drawn: list[tuple[int, str | None, int]], budget: int
) -> None:
    facts = built(drawn)
    windows = cut(*facts, budget=budget)
    assert sorted(f.id for w in windows for f in w.facts) == sorted(f.id for f in facts)
    for window in windows:
        size = sum(len(f.text) + 8 for f in window.facts)
        assert size <= budget * CHARACTERS_PER_TOKEN or len(window.facts) == 1
    assert cut(*reversed(facts), budget=budget) == windows


@given(FACTS, st.integers(20, 400), st.integers(1, 400))
def test_a_newer_fact_leaves_every_window_but_the_last_as_it_was(
    drawn: list[tuple[int, str | None, int]], budget: int, size: int
) -> None:
    facts = built(drawn)
    before = cut(*facts, budget=budget)
    after = cut(*facts, told("new", "2030-01-01", size=size), budget=budget)
    assert after[: len(before) - 1] == before[:-1]
    assert len(after) <= len(before) + 1
