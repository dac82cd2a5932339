"""What a reviewer goes through: statements in a fixed order, refused ones first, a planted one among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.grounding.summary import Claim, Summary
from service.ports.reviews import Review, Score, Seeded, Support


@dataclass(frozen=True, slots=True)
class Item:
    """One statement to score. Whether it is planted is for the server alone, until the review is finished."""

    number: int
    """Its place in the reviewer's order, from 1: by it a form names it."""
    ordinal: int
    """Of the stored claim; of a planted one, that of the claim that it was made of."""
    claim: Claim
    is_published: bool
    is_seeded: bool = False


def items_of(summary: Summary, seeded: Seeded | None = None) -> tuple[Item, ...]:
    """Return what there is to score: refused, lowered by the second pass, then all others in reading order.

    A planted error stands in the place of the claim that it was made of, which would give it away.
    """
    published = len(summary.published)
    refused = list(enumerate(summary.refused, published))
    refused.sort(key=lambda one: one[1].is_lowered)
    ordered = [
        *(Item(0, ordinal, claim, is_published=False) for ordinal, claim in refused),
        *(_published(ordinal, claim, seeded) for ordinal, claim in enumerate(summary.published)),
    ]
    return tuple(replace(item, number=number) for number, item in enumerate(ordered, 1))


def score_of(item: Item, review: Review) -> Support | None:
    """Return what the reviewer has said of an item, or None."""
    if item.is_seeded:
        return review.seeded.support if review.seeded is not None else None
    found = _score(review.scores, item.ordinal)
    return found.support if found is not None else None


def words_of(item: Item, review: Review) -> str:
    """Return what the reviewer wrote beside the score of an item; empty where nothing was written."""
    if item.is_seeded:
        return review.seeded.words if review.seeded is not None else ""
    found = _score(review.scores, item.ordinal)
    return found.words if found is not None else ""


def left_to_score(items: Sequence[Item], review: Review) -> int:
    """Count the items of which the reviewer has said nothing."""
    return sum(score_of(item, review) is None for item in items)


def _score(scores: Sequence[Score], ordinal: int) -> Score | None:
    return next((score for score in scores if score.ordinal == ordinal), None)


def _published(ordinal: int, claim: Claim, seeded: Seeded | None) -> Item:
    if seeded is None or seeded.ordinal != ordinal:
        return Item(0, ordinal, claim, is_published=True)
    return Item(0, ordinal, replace(claim, text=seeded.text), is_published=True, is_seeded=True)
