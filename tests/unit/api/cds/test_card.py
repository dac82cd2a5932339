"""The words of a card: short, honest, and nothing out of the chart."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.sample_run import sample_run
from service.api.cds.card import REASONS, SUMMARY_LIMIT, Told, build_card, summary_line
from service.api.cds.prefetch import Change, Comparison
from service.ports import StoredRun
from tests.conftest import CANARY
from tests.unit.api.cds.ehr import NOW, RUN

ALL = ("AllergyIntolerance", "Condition", "MedicationRequest")


def told(run: StoredRun = RUN, *, attested: bool = False, comparison: Comparison | None = None) -> Told:
    return Told(run, attested, comparison or Comparison(Change.NONE), "card-1", "https://e.example/launch")


def test_a_card_holds_nothing_that_the_chart_says() -> None:
    for run in (RUN, sample_run(incomplete=True), sample_run(deceased=True)):
        shown = json.dumps(build_card(told(run), NOW)).casefold()
        identity = run.summary.identity
        said = [identity.name, identity.birth_date, identity.record_number, CANARY, "1951", "female"]
        said += [fact.name for fact in run.summary.facts] + [fact.text for fact in run.summary.facts]
        said += [claim.text for claim in (*run.summary.published, *run.summary.refused)]
        said += [section.conflict for section in run.summary.sections if section.conflict]
        assert len(said) > 30
        for text in said:
            assert text.casefold() not in shown, text


def test_a_draft_says_that_a_machine_wrote_it_and_nobody_reviewed_it() -> None:
    card = build_card(told(), NOW)
    assert "AI draft, not reviewed" in card["summary"]
    assert "AI-generated. Not reviewed, not attested." in card["detail"]
    attested = build_card(told(attested=True), NOW)
    assert "AI draft" not in attested["summary"]
    assert "AI-generated, then attested by a clinician." in attested["detail"]


def test_what_was_compared_is_named_and_nothing_is_called_fresh() -> None:
    details = {
        change: build_card(told(comparison=Comparison(change, unread)), NOW)["detail"]
        for change, unread in ((Change.NONE, ()), (Change.SOME, ()), (Change.UNKNOWN, ALL[1:]))
    }
    assert "nothing else was compared" in details[Change.NONE]
    assert "has changed since" in details[Change.SOME]
    assert "Not compared with the chart as it is now: problems, medication orders." in details[Change.UNKNOWN]
    for detail in details.values():
        for word in ("fresh", "up to date", "verified", "safe", "complete "):
            assert word not in detail


@pytest.mark.parametrize(
    ("incomplete", "change", "indicator"),
    [
        (False, Change.NONE, "info"),
        (False, Change.UNKNOWN, "info"),
        (False, Change.SOME, "warning"),
        (True, Change.NONE, "warning"),
    ],
)
def test_what_is_incomplete_or_has_changed_is_a_warning(
    incomplete: bool, change: Change, indicator: str
) -> None:
    run = sample_run(incomplete=incomplete)
    assert build_card(told(run, comparison=Comparison(change)), NOW)["indicator"] == indicator


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(seconds=-90), "0 min"),
        (timedelta(seconds=1), "1 min"),
        (timedelta(minutes=119), "119 min"),
        (timedelta(minutes=121), "3 h"),
        (timedelta(hours=47), "47 h"),
        (timedelta(hours=47, minutes=1), "2 d"),
        (timedelta(days=400), "400 d"),
    ],
)
def test_an_age_is_rounded_up(age: timedelta, words: str) -> None:
    assert f"read {words} ago (" in summary_line(told(), RUN.read_at + age)


@given(
    st.text(min_size=1, max_size=60),
    st.timedeltas(timedelta(0), timedelta(days=36_500)),
    st.booleans(),
    st.integers(0, 9_999),
)
def test_a_summary_line_is_shorter_than_the_limit(
    kind: str, age: timedelta, attested: bool, conflicts: int
) -> None:
    section = replace(RUN.summary.sections[0], conflict="x")
    summary = replace(RUN.summary, kind=kind, incomplete=("Allergies",) * 9, sections=(section,) * conflicts)
    run = replace(RUN, summary=summary)
    line = summary_line(told(run, attested=attested, comparison=Comparison(Change.SOME)), RUN.read_at + age)
    assert len(line) < SUMMARY_LIMIT
    assert "INCOMPLETE" in line
    assert "chart changed since" in line


def test_no_field_is_empty_and_every_reason_has_words() -> None:
    card = build_card(told(), NOW)
    assert all(card.values())
    assert all(one["display"] and one["system"] for one in card["overrideReasons"])
    assert len(card["overrideReasons"]) == len(REASONS)
    assert json.loads(card["links"][0]["appContext"]) == {"view": "history"}
