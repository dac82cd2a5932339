"""Cohen's kappa against an independent library, and which reviews are compared."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from sklearn.metrics import cohen_kappa_score

from fixtures.sample_run import CREATED
from service.ports import RunId
from service.ports.reviews import Form, Outcome, Review, Rule, Score, Support
from service.review.agreement import agree, claim_pairs, disagreements, form_pairs, kappa, pair_up


def review(run: str, who: str, *answers: Support | None, began: int = 0, ended: bool = True) -> Review:
    scores = tuple(
        Score(RunId(run), n, who, CREATED, support)
        for n, support in enumerate(answers)
        if support is not None
    )
    return Review(
        RunId(run), who, Rule.RANDOM, CREATED + timedelta(minutes=began), "Patient/1", scores=scores,
        ended_at=CREATED if ended else None, outcome=Outcome.ACCEPTED if ended else None,
    )  # fmt: skip


YES, NO, NEITHER = Support.SUPPORTED, Support.NOT_SUPPORTED, Support.NOT_ADDRESSED


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("answers", [2, 3, 5])
def test_kappa_is_what_scikit_learn_computes(seed: int, answers: int) -> None:
    rng = Random(seed)
    first = [rng.randrange(answers) for _ in range(40)]
    second = [one if rng.random() < 0.6 else rng.randrange(answers) for one in first]
    pairs = list(zip(first, second, strict=True))
    labels = list(range(answers))
    for is_weighted, weights in ((False, None), (True, "quadratic")):
        expected = cohen_kappa_score(first, second, labels=labels, weights=weights)
        assert kappa(pairs, answers, is_weighted=is_weighted) == pytest.approx(expected, abs=1e-12)


def test_kappa_of_a_table_worked_by_hand() -> None:
    pairs = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    assert kappa(pairs, 2) == pytest.approx(0.4)


def test_where_chance_explains_everything_there_is_no_kappa() -> None:
    assert kappa([], 3) is None
    assert kappa([(2, 2)] * 10, 3) is None
    found = agree([(2, 2)] * 10, 3)
    assert (found.pairs, found.same, found.plain, found.weighted) == (10, 10, None, None)


def test_two_finished_reviews_of_a_run_are_compared_the_first_two_by_the_same_person_first() -> None:
    reviews = [
        review("a", "user:z", YES, began=1), review("a", "user:b", NO, began=2),
        review("a", "user:c", NO, began=3),
        review("b", "user:b", YES), review("c", "user:b", YES), review("c", "user:z", YES, ended=False),
    ]  # fmt: skip
    assert [(one.run_id, one.reviewer, two.reviewer) for one, two in pair_up(reviews)] == [
        ("a", "user:b", "user:z")
    ]


def test_only_what_both_scored_counts_and_disagreements_are_named() -> None:
    doubles = pair_up([review("a", "user:b", YES, NO, None), review("a", "user:c", YES, NEITHER, YES)])
    assert claim_pairs(doubles) == [(2, 2), (0, 1)]
    found = disagreements(doubles)
    assert [(one.run_id, one.ordinal, one.answers) for one in found] == [
        ("a", 1, (("user:b", NO), ("user:c", NEITHER)))
    ]


def test_of_the_form_only_what_both_answered_counts() -> None:
    one, two = review("a", "user:b"), review("a", "user:c")
    forms = [
        replace(r, form=Form(RunId("a"), r.reviewer, CREATED, answers))
        for r, answers in (
            (one, {"accurate": 5, "stigmatizing": 0, "useful": 3}),
            (two, {"accurate": 2, "stigmatizing": 1}),
        )
    ]
    pairs = form_pairs(pair_up(forms))
    assert {name: found for name, found in pairs.items() if found} == {
        "accurate": [(4, 1)],
        "stigmatizing": [(0, 1)],
    }
