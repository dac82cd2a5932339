"""How far two reviewers agree beyond chance: Cohen's kappa, plain and weighted, and where they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.ports.reviews import FORM_SCALES, Review, Score, Support

ORDER: Final = (Support.NOT_SUPPORTED, Support.NOT_ADDRESSED, Support.SUPPORTED)
"""For the weighted kappa: what is not addressed lies between what is so and what is not."""

Pair = tuple[int, int]
"""What the one and the other said of the same thing, as places in an order of answers."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Pairs of answers, and what they come to. A kappa is None where chance alone would explain all."""

    pairs: int
    same: int
    plain: float | None
    weighted: float | None
    """With quadratic weights."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One statement of which two reviewers said something else."""

    run_id: str
    ordinal: int
    answers: tuple[tuple[str, Support], ...]
    """(reviewer, answer), in the order in which their reviews began."""


def kappa(pairs: Sequence[Pair], answers: int, *, is_weighted: bool = False) -> float | None:
    """Return Cohen's kappa of pairs of answers 0…answers-1; None for no pairs, or where both never differ.

    Weights are quadratic: a difference of two places counts four times a difference of one (Cohen 1968).
    """
    total = len(pairs)
    if not total:
        return None
    weigh: Callable[[int, int], int] = (lambda a, b: (a - b) ** 2) if is_weighted else (lambda a, b: a != b)
    first = [sum(a == one for a, _ in pairs) for one in range(answers)]
    second = [sum(b == one for _, b in pairs) for one in range(answers)]
    seen = sum(weigh(a, b) for a, b in pairs) / total
    by_chance = (
        sum(weigh(a, b) * first[a] * second[b] for a in range(answers) for b in range(answers)) / total**2
    )
    return None if by_chance == 0 else 1 - seen / by_chance


def agree(pairs: Sequence[Pair], answers: int) -> Agreement:
    """Return what pairs of answers come to."""
    same = sum(a == b for a, b in pairs)
    return Agreement(len(pairs), same, kappa(pairs, answers), kappa(pairs, answers, is_weighted=True))


def pair_up(reviews: Iterable[Review]) -> tuple[tuple[Review, Review], ...]:
    """Return the first two finished reviews of each run that has two, in the order of the reviewers' names.

    The order is that of names, so that the same person is always on the same side.
    """
    by_run: dict[str, list[Review]] = {}
    for review in reviews:
        if review.ended_at is not None:
            by_run.setdefault(review.run_id, []).append(review)
    firsts = (sorted(found, key=lambda r: r.began_at)[:2] for found in by_run.values() if len(found) > 1)
    return tuple((a, b) for a, b in (sorted(two, key=lambda r: r.reviewer) for two in firsts))


def claim_pairs(doubles: Iterable[tuple[Review, Review]]) -> list[Pair]:
    """Return what both said of each statement that both scored."""
    return [
        (ORDER.index(left.support), ORDER.index(right.support))
        for one, other in doubles
        for left, right in _both(one, other)
    ]


def form_pairs(doubles: Iterable[tuple[Review, Review]]) -> Mapping[str, list[Pair]]:
    """Return what both answered to each question of the form, by its name."""
    found: dict[str, list[Pair]] = {name: [] for name in FORM_SCALES}
    for one, other in doubles:
        mine, theirs = (r.form.answers if r.form is not None else {} for r in (one, other))
        for name, (lowest, _) in FORM_SCALES.items():
            if name in mine and name in theirs:
                found[name].append((mine[name] - lowest, theirs[name] - lowest))
    return found


def disagreements(doubles: Iterable[tuple[Review, Review]]) -> tuple[Disagreement, ...]:
    """Return the statements of which two reviewers said something else, run by run."""
    return tuple(
        Disagreement(
            one.run_id, left.ordinal, ((one.reviewer, left.support), (other.reviewer, right.support))
        )
        for one, other in doubles
        for left, right in _both(one, other)
        if left.support is not right.support
    )


def _both(one: Review, other: Review) -> list[tuple[Score, Score]]:
    theirs = {score.ordinal: score for score in other.scores}
    return [(score, theirs[score.ordinal]) for score in one.scores if score.ordinal in theirs]
