"""The encounter at hand: what belongs to it, and which one it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fixtures.facts import fact, record
from service.context.stay import Stay, find_stay
from service.record.dates import parse_when
from service.record.facts import Fact, Kind, Status

STAY = Stay("Encounter/9", datetime(2020, 5, 4, tzinfo=UTC), datetime(2020, 5, 9, tzinfo=UTC))


def visit(ident: str, on: str | None, category: str = "inpatient", over: str = "", **more: Any) -> Fact:
    until = parse_when(over, UTC) if over else None
    more.setdefault("status", Status.COMPLETED)
    return fact(
        f"Visit {ident}: {category}", Kind.ENCOUNTER, f"Encounter/{ident}", on=on, category=category,
        until=until, encounter=more.pop("encounter", f"Encounter/{ident}"), **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("encounter", "on", "held"),
    [
        ("Encounter/9", "1999-01-01", True),
        ("Encounter/8", "2020-05-05", False),
        (None, "2020-05-05", True),
        (None, "2020-05-04", True),
        (None, "2020", True),
        (None, "2020-05-03", False),
        (None, "2020-05-10", False),
        (None, None, False),
    ],
)
def test_a_fact_is_of_the_stay_by_its_encounter_or_else_by_its_time(
    encounter: str | None, on: str | None, held: bool
) -> None:
    assert STAY.holds(fact("x", encounter=encounter, on=on)) is held


def test_a_stay_that_lasts_has_no_end_and_one_without_a_start_holds_nothing_by_time() -> None:
    later = fact("x", on="2099-01-01")
    assert Stay("Encounter/9", STAY.start, None).holds(later)
    assert not Stay("Encounter/9", None, None).holds(later)


def test_the_encounter_that_is_named_is_taken_and_no_other() -> None:
    chart = record([visit("1", "2020-01-01", over="2020-01-05"), visit("2", "2020-02-01")])
    stay = find_stay(chart, "Encounter/1")
    assert stay is not None
    assert (stay.reference, str(stay.start)[:10], str(stay.end)[:10]) == (
        "Encounter/1",
        "2020-01-01",
        "2020-01-05",
    )
    assert find_stay(chart, "Encounter/7") is None


def test_without_a_name_the_newest_admission_that_lasts_is_meant() -> None:
    chart = record([
        visit("1", "2020-01-01", status=Status.IN_PROGRESS),
        visit("2", "2020-02-01", "emergency", status=Status.IN_PROGRESS),
        visit("3", "2020-03-01", "ambulatory", status=Status.IN_PROGRESS),
        visit("4", "2020-04-01"),
        visit("5", None, status=Status.IN_PROGRESS),
    ])  # fmt: skip
    found = find_stay(chart)
    assert found is not None
    assert (found.reference, found.end) == ("Encounter/2", None)


def test_an_ended_encounter_is_taken_only_where_it_is_asked_for() -> None:
    ended = record([visit("1", "2020-01-01"), visit("2", "2020-02-01", "ambulatory")])
    assert find_stay(ended) is None
    assert find_stay(ended, ended=True) == find_stay(ended, "Encounter/1")
    only_visits = record([visit("2", "2020-02-01", "ambulatory"), visit("3", None, "ambulatory")])
    assert find_stay(only_visits, ended=True) == find_stay(only_visits, "Encounter/2")
    assert find_stay(record([]), ended=True) is None
    undated = find_stay(only_visits, "Encounter/3")
    assert undated is not None
    assert undated.start is None
