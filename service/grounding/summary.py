"""Draft, Claim, Verdict and Summary: what the model said, and what of it the record bears out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from connectors.fhir.pull import Gap
from service.context.chosen import Label, LeftOut
from service.record.facts import Absence, Code, Fact, FactId, Identity, When
from service.record.labels import highest_labels

RULES_VERSION = "6"
"""Raise it whenever a verdict could change: it is part of the run key."""


class Verdict(StrEnum):
    """What checking a claim against its sources found. Only SUPPORTED is published; NOT_VERIFIABLE apart."""

    SUPPORTED = "supported"
    UNSUPPORTED = "unsupported"
    CONTRADICTED = "contradicted"
    SUPERSEDED = "superseded"
    NOT_CHECKED = "not_checked"
    NOT_VERIFIABLE = "not_verifiable"
    """Read from a picture: no rule can check it (SAFETY 26)."""


class Origin(StrEnum):
    """Who wrote a claim: the model, or our own code from a required fact (SAFETY 7)."""

    MODEL = "model"
    RECORD = "record"


@dataclass(frozen=True, slots=True)
class DraftClaim:
    """One sentence as the model wrote it, with the labels it cites."""

    section: str
    text: str
    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence, what it cites and what checking found."""

    section: str
    text: str
    citations: tuple[FactId, ...]
    origin: Origin
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    """Machine-readable: `number_not_in_source:8.2`; never empty unless SUPPORTED."""
    corrected: bool = False
    """True when the citation was corrected (SAFETY 14)."""
    repaired: bool = False
    """True when the sentence was written anew after the rules had refused an earlier one."""
    entailed: str = ""
    """What the engine said in the second pass: `yes`, `no` or `not stated`; empty when it was not asked."""

    @property
    def is_lowered(self) -> bool:
        """True where the rules bore the sentence out and the second pass did not."""
        return any(reason.startswith("second_pass_") for reason in self.reasons)


@dataclass(frozen=True, slots=True)
class SummarySection:
    """One heading of the summary with its published claims, in the order in which they are shown."""

    key: str
    title: str
    claims: tuple[Claim, ...]
    state: Absence | None = None
    """For required kinds: one of the three things that may be said (SAFETY 5)."""
    reason: str = ""
    conflict: str = ""
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """The stored artefact: what is filed, shown, reviewed and recalled. Self-contained."""

    kind: str
    """`history`."""
    identity: Identity
    sections: tuple[SummarySection, ...]
    refused: tuple[Claim, ...]
    """Claims that are not published; reviewers alone see them (SAFETY 23)."""
    facts: tuple[Fact, ...]
    """Every fact given to the model or cited: the sources shown beside the text."""
    left_out: tuple[LeftOut, ...]
    gaps: tuple[Gap, ...]
    incomplete: tuple[str, ...]
    """Titles of the essential kinds that were not retrieved; empty when the record is complete."""
    as_of: When | None
    searched: int
    known: tuple[str, ...] = ()
    """Short digests of every statement that the record held: what the next summary compares with."""
    restricted: bool = False
    """True when something was left out by a security label; what, is never said (SAFETY 20)."""
    security: tuple[Code, ...] = ()
    """Labels of all that was read for it; `labels` is what a document must carry."""
    second_pass: str = ""
    """Whether the engine was asked about what rules cannot settle, and why not: `off: 11 of 24 right…`."""

    @property
    def published(self) -> tuple[Claim, ...]:
        """Every published claim, in reading order."""
        return tuple(claim for section in self.sections for claim in section.claims)

    @property
    def labels(self) -> tuple[Code, ...]:
        """The highest confidentiality above normal and every sensitivity label of its sources (SAFETY 20).

        Those of all that was read, cited or not: the counts, the periods and "none recorded" of a document
        rest on what was left out too, and digests were written from it.
        """
        sources = (source for fact in self.facts for source in fact.sources)
        given = (label for source in sources for label in source.security)
        return highest_labels((*self.security, *self.identity.security, *given))

    def fact(self, fact_id: FactId) -> Fact:
        """Return a fact by id. Raises KeyError where there is none."""
        for fact in self.facts:
            if fact.id == fact_id:
                return fact
        raise KeyError(fact_id)
