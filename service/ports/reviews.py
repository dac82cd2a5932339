"""Reviews for quality: which runs wait for one, what reviewers found in them, and where that is kept.

A review is not an attestation (SAFETY 23): nothing of it is filed, and no reader is shown it. What was
planted to see whether reviewers look (`Seeded`) never stands among what was stored or filed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from service.ports.runs import RunId
from service.record.facts import FactId

LONGEST_WORDS = 1_000
"""Characters that a reviewer may write in one place."""
FORM_SCALES: Mapping[str, tuple[int, int]] = {
    "cited": (1, 5),
    "accurate": (1, 5),
    "thorough": (1, 5),
    "useful": (1, 5),
    "organized": (1, 5),
    "comprehensible": (1, 5),
    "succinct": (1, 5),
    "synthesized": (1, 5),
    "stigmatizing": (0, 1),
}
"""The attributes of PDSQI-9, with the lowest and highest answer: 5 is best; 1 says that it stigmatizes."""


class Rule(StrEnum):
    """Why a run is reviewed."""

    RANDOM = "random"
    LOW_COVERAGE = "low_coverage"
    LOW_SUPPORT = "low_support"
    FEEDBACK = "feedback"
    FIRST_OF_VERSION = "first_of_version"
    WARD = "ward"
    HAND = "hand"
    """Somebody asked for it."""
    SEEDED = "seeded"
    """Only to see whether reviewers look: it has a planted error, as reviews of other rules may have too."""


class Support(StrEnum):
    """What a reviewer says of a statement and its sources, as VeriFact scores propositions."""

    SUPPORTED = "supported"
    NOT_SUPPORTED = "not_supported"
    NOT_ADDRESSED = "not_addressed"


class Outcome(StrEnum):
    """What a finished review comes to."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


class ActKind(StrEnum):
    """What a reviewer does in a review, one after the other; the last one can be undone."""

    SCORE = "score"
    FORM = "form"
    OMISSION = "omission"
    DISPUTE = "dispute"
    """The dispute itself stands in the FeedbackStore."""
    SEEDED = "seeded"
    """A score of the planted error."""


@dataclass(frozen=True, slots=True)
class Score:
    """What one reviewer says of one statement."""

    run_id: RunId
    ordinal: int
    """The claim's place: published claims in reading order, then refused ones, from 0."""
    reviewer: str
    """`user:…`"""
    at: datetime
    support: Support
    words: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Form:
    """One reviewer's answers to PDSQI-9 (`FORM_SCALES`); what was not answered is not there."""

    run_id: RunId
    reviewer: str
    at: datetime
    answers: Mapping[str, int]
    words: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Omission:
    """Something that should stand in the summary and does not."""

    run_id: RunId
    reviewer: str
    at: datetime
    words: str = field(repr=False)
    fact: FactId = field(default=FactId(""), repr=False)
    """The entry of the record that is missing; empty where the reviewer named none."""


@dataclass(frozen=True, slots=True)
class Seeded:
    """An error that was planted into one review: shown among the claims there, and nowhere else."""

    run_id: RunId
    reviewer: str
    ordinal: int
    """Of the claim that it was made of, whose sources stand beside it."""
    kind: str
    """`value`, `date`, `negation` or `side`."""
    text: str = field(repr=False)
    support: Support | None = None
    """What the reviewer said of it; None until then."""
    words: str = field(default="", repr=False)

    @property
    def is_caught(self) -> bool:
        """True where the reviewer said that it is not so."""
        return self.support is Support.NOT_SUPPORTED


@dataclass(frozen=True, slots=True)
class Review:
    """One reviewer's review of one run, as it stands now: of two scores of a claim, the later one."""

    run_id: RunId
    reviewer: str
    rule: Rule
    began_at: datetime
    patient: str = field(repr=False)
    """`Patient/1`"""
    by: str = field(default="", repr=False)
    """`Practitioner/7` where the reviewer is known as one."""
    ended_at: datetime | None = None
    outcome: Outcome | None = None
    reason: str = field(default="", repr=False)
    scores: tuple[Score, ...] = ()
    """In the order of the claims."""
    form: Form | None = None
    omissions: tuple[Omission, ...] = ()
    disputed: frozenset[str] = frozenset()
    """Keys of the claims that the reviewer disputed from here."""
    seeded: Seeded | None = None
    last: ActKind | None = None
    """The last act that was not undone; None where there is none."""


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One run that waits for review, or was reviewed. `done` counts finished reviews."""

    run_id: RunId
    rule: Rule
    why: str = field(repr=False)
    """A sentence for reviewers, without patient data."""
    added_at: datetime
    patient: str = field(repr=False)
    wanted: int = 1
    """1, or 2 where two reviewers are to agree."""
    done: int = 0
    reviewers: tuple[str, ...] = ()
    """Who has begun, in that order."""

    @property
    def is_done(self) -> bool:
        """True once as many reviews as wanted are finished."""
        return self.done >= self.wanted


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored run that sampling has not looked at."""

    run_id: RunId
    created_at: datetime
    place: int = 0
    """Which run of its model and prompt version it is, from 1; 0 for a later one than was asked about."""


class ReviewStore(Protocol):
    """Where reviews are kept. Every method raises StoreError."""

    def candidates(self, since: datetime, limit: int, first: int) -> Sequence[Candidate]:
        """Return runs since then that sampling has not looked at, oldest first; failed ones are none.

        Their `place` is told up to `first`, and 0 behind that.
        """
        ...

    def looked_at(self, run_ids: Sequence[RunId]) -> None:
        """Note that sampling has decided on these runs."""
        ...

    def enqueue(self, entry: QueueEntry) -> bool:
        """Put a run into the queue; False where it is there already, whose `wanted` is raised if need be.

        Raises ShreddedError where the patient's data key was destroyed.
        """
        ...

    def queue(self, limit: int = 50, offset: int = 0, rule: Rule | None = None) -> Sequence[QueueEntry]:
        """Return entries that are not done, oldest first; those of shredded patients are none."""
        ...

    def waiting(self) -> Mapping[Rule, int]:
        """Count the entries that are not done."""
        ...

    def entry_of(self, run_id: RunId) -> QueueEntry | None:
        """Return the entry of a run, done or not, or None."""
        ...

    def begin(self, review: Review) -> Review:
        """Begin a review with its planted error, if it has one; one that was begun is returned as it is."""
        ...

    def keep_score(self, score: Score) -> None:
        """Keep a score. This, and all that follows, raises StoreError where no such review is open."""
        ...

    def keep_seeded(
        self, run_id: RunId, reviewer: str, support: Support, at: datetime, words: str = ""
    ) -> None:
        """Keep the score of the planted error."""
        ...

    def keep_form(self, form: Form) -> None:
        """Keep a form in place of the one before."""
        ...

    def keep_omission(self, omission: Omission) -> None:
        """Keep one omission."""
        ...

    def keep_dispute(self, run_id: RunId, reviewer: str, claim: str, at: datetime) -> None:
        """Note that the reviewer disputed a claim (by its key), so that it can be undone."""
        ...

    def undo(self, run_id: RunId, reviewer: str, at: datetime) -> tuple[ActKind, str] | None:
        """Take back the last act of an open review; return its kind, and the claim's key of a dispute."""
        ...

    def finish(self, run_id: RunId, reviewer: str, outcome: Outcome, reason: str, at: datetime) -> Review:
        """End an open review and return it."""
        ...

    def reviews_of(self, run_id: RunId) -> Sequence[Review]:
        """Return all reviews of a run, in the order in which they began."""
        ...

    def reviews(self, since: datetime, until: datetime) -> Sequence[Review]:
        """Return the reviews that were finished in this span, oldest first, without those of the shredded."""
        ...
