"""What must be decided on, what was changed, and by how much."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.grounding.summary import Verdict
from service.ports import RunId
from service.ports.attesting import Act, Disposal, Edit
from service.review.attesting import (
    Why,
    changes_of,
    decided,
    edit_distance,
    items_of,
    measure,
    still_open,
    word_diff,
)
from service.writeback.lasting import Change
from tests.unit.writeback.charts import make_summary

AT = datetime(2026, 11, 28, 8, 0, tzinfo=UTC)
SUMMARY = make_summary()
TEXT = st.text(alphabet="ab\u0301 \U0001f600", max_size=12)


def decision(act: Act, ordinal: int | None = None, section: str = "") -> Disposal:
    return Disposal(RunId("r"), "Patient/77", "user:one", "Practitioner/7", act, AT, ordinal, section)


def test_conflicts_added_facts_and_corrected_citations_must_be_decided_on_and_nothing_else() -> None:
    whys = {item.key: item.why for item in items_of(SUMMARY)}
    assert whys == {
        "conflict-allergy": (Why.CONFLICT,),
        "claim-0": (Why.ADDED,),
        "claim-1": (),
        "claim-2": (Why.CORRECTED,),
    }


def test_what_somebody_disputes_or_is_not_supported_must_be_decided_on() -> None:
    disputed = SUMMARY.published[1]
    assert items_of(SUMMARY, {disputed})[2].why == (Why.DISPUTED,)
    lowered = tuple(
        replace(section, claims=tuple(replace(c, verdict=Verdict.NOT_CHECKED) for c in section.claims))
        for section in SUMMARY.sections
    )
    assert all(Why.NOT_SUPPORTED in i.why for i in items_of(replace(SUMMARY, sections=lowered)) if i.claim)


def test_a_conflict_can_be_seen_and_never_edited_or_left_out() -> None:
    conflict, *claims = items_of(SUMMARY)
    assert conflict.acts == (Act.ACCEPTED,)
    assert all(item.acts == tuple(Act) for item in claims)


def test_nothing_is_open_once_each_of_them_is_decided_on_whatever_was_decided() -> None:
    items = items_of(SUMMARY)
    decisions = [decision(Act.ACCEPTED, 1), decision(Act.REJECTED, 0)]
    assert [item.key for item in still_open(items, decisions)] == ["conflict-allergy", "claim-2"]
    decisions += [decision(Act.ACCEPTED, section="allergy"), decision(Act.EDITED, 2)]
    assert still_open(items, decisions) == ()
    assert set(decided(items, decisions)) == {item.key for item in items}


def test_a_decision_on_another_section_does_not_settle_a_conflict() -> None:
    assert still_open(items_of(SUMMARY), [decision(Act.ACCEPTED, section="problem")])[0].key == (
        "conflict-allergy"
    )


def test_edits_and_rejections_change_the_text_and_acceptance_does_not() -> None:
    edit = Edit(RunId("r"), 2, SUMMARY.published[2].text, "Well.", 60, "Practitioner/7", AT)
    decisions = [
        decision(Act.EDITED, 2),
        decision(Act.ACCEPTED, 1),
        decision(Act.REJECTED, 0),
        decision(Act.ACCEPTED, section="allergy"),
    ]
    at = "2026-11-28T08:00:00Z"
    changes = changes_of(decisions, [edit])
    assert [(one.ordinal, one.by, one.text) for one in changes] == [
        (0, "Practitioner/7", ""),
        (2, "Practitioner/7", "Well."),
    ]
    assert all(datetime.fromisoformat(one.at) == datetime.fromisoformat(at) for one in changes)
    assert isinstance(changes[0], Change)
    texts = [claim.text for claim in SUMMARY.published]
    assert measure(SUMMARY, decisions, [edit]) == (1, 1, 60 + len(texts[0]), sum(map(len, texts)))


@given(TEXT, TEXT)
def test_a_diff_holds_both_texts_word_for_word(before: str, after: str) -> None:
    pieces = word_diff(before, after)
    assert "".join(piece.text for piece in pieces if piece.kind != "new") == before
    assert "".join(piece.text for piece in pieces if piece.kind != "gone") == after


def test_a_diff_goes_by_whole_words_and_numbers() -> None:
    assert [tuple(piece) for piece in word_diff("Metformin 500 mg daily.", "Metformin 850 mg daily.")] == [
        ("same", "Metformin "),
        ("gone", "500"),
        ("new", "850"),
        ("same", " mg daily."),
    ]


def slowly(one: str, two: str) -> int:
    row = list(range(len(two) + 1))
    for place, character in enumerate(one, 1):
        following = [place]
        for number, other in enumerate(two, 1):
            following.append(min(row[number] + 1, following[-1] + 1, row[number - 1] + (character != other)))
        row = following
    return row[-1]


@given(TEXT, TEXT)
def test_the_distance_is_levenshteins(one: str, two: str) -> None:
    assert edit_distance(one, two) == slowly(one, two)


@pytest.mark.parametrize(
    ("one", "two", "distance"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("a" * 2000, "", 2000)],
)
def test_known_distances(one: str, two: str, distance: int) -> None:
    assert edit_distance(one, two) == distance
