"""How much of what a model was given its statements use, and how many of them were refused."""

from __future__ import annotations

from dataclasses import dataclass

from service.grounding.summary import Origin, Summary


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many."""

    part: int
    whole: int

    def is_under(self, limit: float) -> bool:
        """Tell whether it is less than a limit (0…1); nothing of nothing is not."""
        return self.part < limit * self.whole


def coverage_of(summary: Summary) -> Share:
    """Return how many of the entries that the model was given any statement cites."""
    given = {fact.id for fact in summary.facts}
    cited = {fact_id for claim in summary.published for fact_id in claim.citations}
    return Share(len(cited & given), len(given))


def support_of(summary: Summary) -> Share:
    """Return how many of the model's own statements were not refused."""
    own = sum(claim.origin is Origin.MODEL for claim in summary.published)
    refused = sum(claim.origin is Origin.MODEL for claim in summary.refused)
    return Share(own, own + refused)
