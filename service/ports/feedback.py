"""What clinicians say of statements, where it is kept, and who wants no summaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType, Protocol

from service.grounding.summary import Claim

FeedbackId = NewType("FeedbackId", str)
"""Random hexadecimal."""
ClaimKey = NewType("ClaimKey", str)
"""Keyed hash of server, patient, text and citations: the same in every summary that says the same."""

LONGEST_WORDS = 500
"""Characters that somebody may add to a tap."""


class Mark(StrEnum):
    """What one tap says."""

    WRONG = "wrong"
    OUTDATED = "outdated"
    MISSING = "missing"
    """Of a section or the whole: something is not there."""
    UNHELPFUL = "unhelpful"

    @property
    def disputes(self) -> bool:
        """Tell whether the statement is marked for every viewer (SAFETY 24)."""
        return self in (Mark.WRONG, Mark.OUTDATED)


class Ruling(StrEnum):
    """What a reviewer decides about a disputed statement."""

    UPHELD = "upheld"
    """The statement stays disputed."""
    DISMISSED = "dismissed"
    """The statement is not disputed any more, until somebody disputes it again."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """One tap of one user on one statement, one section or the whole."""

    id: FeedbackId
    about: str
    """The run's id, or the question's."""
    server: str
    patient: str = field(repr=False)
    mark: Mark
    actor: str
    at: datetime
    claim: ClaimKey = ClaimKey("")
    """Empty where it is about a section or the whole."""
    section: str = ""
    """Key of a section; empty for the whole."""
    text: str = field(default="", repr=False)
    """The statement as it was shown."""
    words: str = field(default="", repr=False)
    by: str = field(default="", repr=False)
    """`Practitioner/7`"""
    undone_at: datetime | None = None
    ruling: Ruling | None = None
    ruled_by: str = ""
    ruled_at: datetime | None = None
    ruled_words: str = field(default="", repr=False)


class FeedbackStore(Protocol):
    """Where feedback is kept. Every method raises StoreError."""

    def claim_key(self, server: str, patient: str, claim: Claim) -> ClaimKey:
        """Return by what a statement is known, in this summary and in every later one that says the same."""
        ...

    def claim_keys(self, server: str, patient: str, claims: Sequence[Claim]) -> Mapping[Claim, ClaimKey]:
        """Return the key of each statement; the same statement under two headings has one key."""
        ...

    def say(self, feedback: Feedback) -> None:
        """Keep one tap. Raises ShreddedError where the patient's data key was destroyed."""
        ...

    def undo(self, about: str, actor: str, at: datetime, claim: ClaimKey | None = None) -> Feedback | None:
        """Take back this user's last tap on a run or an answer, or on one statement of it, if there is one.

        What a reviewer ruled on stays.
        """
        ...

    def said_of(self, about: str) -> Sequence[Feedback]:
        """Return what was said of a run or an answer, oldest first, what was taken back too."""
        ...

    def disputes_of(self, server: str, patient: str) -> frozenset[ClaimKey]:
        """Return the statements about a patient that are disputed now: for every viewer at once."""
        ...

    def unsettled(self, limit: int = 100) -> Sequence[Feedback]:
        """Return the disputes that no reviewer has ruled on, oldest first."""
        ...

    def settle(
        self,
        server: str,
        patient: str,
        claim: ClaimKey,
        ruling: Ruling,
        by: str,
        at: datetime,
        words: str = "",
    ) -> int:
        """Rule on every open dispute of a statement, and return how many those were."""
        ...

    def switch_off(self, actor: str, at: datetime) -> None:
        """Show this user no summaries; banner and live strip stay."""
        ...

    def switch_on(self, actor: str) -> None:
        """Show this user summaries again."""
        ...

    def is_off(self, actor: str) -> bool:
        """Tell whether this user wants no summaries."""
        ...
