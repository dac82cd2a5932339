"""The order in which a reviewer goes through statements, and what of them is left to score."""

from __future__ import annotations

from dataclasses import replace

from fixtures.sample_run import CREATED, sample_run
from service.ports.reviews import Review, Rule, Score, Seeded, Support
from service.review.form import questions
from service.review.items import items_of, left_to_score, score_of, words_of

RUN = sample_run()
SUMMARY = RUN.summary
REVIEW = Review(RUN.run_id, "user:one", Rule.RANDOM, CREATED, "Patient/1")


def test_refused_statements_stand_first_and_each_is_named_by_its_place_in_the_store() -> None:
    items = items_of(SUMMARY)
    refused, published = len(SUMMARY.refused), len(SUMMARY.published)
    assert [item.number for item in items] == list(range(1, refused + published + 1))
    assert [item.ordinal for item in items] == [*range(published, published + refused), *range(published)]
    stored = (*SUMMARY.published, *SUMMARY.refused)
    assert all(stored[item.ordinal] == item.claim for item in items)
    assert [item.is_published for item in items] == [False] * refused + [True] * published


def test_what_the_second_pass_lowered_follows_what_the_rules_refused() -> None:
    lowered = replace(SUMMARY.refused[0], reasons=("second_pass_no",))
    items = items_of(replace(SUMMARY, refused=(lowered, *SUMMARY.refused[1:])))
    assert [item.claim.is_lowered for item in items[:3]] == [False, False, True]


def test_a_planted_error_stands_in_the_place_of_its_claim_with_the_same_sources() -> None:
    planted = Seeded(RUN.run_id, "user:one", 4, "value", "Something else.")
    before, after = items_of(SUMMARY), items_of(SUMMARY, planted)
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    ((was, now),) = changed
    assert (was.ordinal, was.number, was.claim.citations) == (4, now.number, now.claim.citations)
    assert (now.claim.text, now.is_seeded) == ("Something else.", True)
    assert [item for item in after if item.is_seeded] == [now]


def test_a_score_of_a_planted_error_is_no_score_of_its_claim() -> None:
    planted = Seeded(RUN.run_id, "user:one", 4, "value", "Something else.")
    items = items_of(SUMMARY, planted)
    there = next(item for item in items if item.is_seeded)
    score = Score(RUN.run_id, 4, "user:one", CREATED, Support.SUPPORTED, "as recorded")
    of_claim = replace(REVIEW, seeded=planted, scores=(score,))
    assert score_of(there, of_claim) is None
    assert left_to_score(items, of_claim) == len(items)
    told = replace(planted, support=Support.NOT_SUPPORTED, words="no")
    assert score_of(there, replace(REVIEW, seeded=told)) is Support.NOT_SUPPORTED
    assert words_of(there, replace(REVIEW, seeded=told)) == "no"


def test_the_form_asks_nine_things_eight_of_them_from_one_to_five() -> None:
    scales = [[answer for answer, _ in one.answers] for one in questions()]
    assert scales == [[1, 2, 3, 4, 5]] * 8 + [[0, 1]]
