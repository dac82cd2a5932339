"""Questions about a chart and their answers, and where they are kept: sealed, under their patient's key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType, Protocol

from connectors.fhir.pull import Gap
from service.context.chosen import LeftOut
from service.engine.prompt import Completion, Prompt
from service.grounding.summary import Claim
from service.ports.runs import RunInputs
from service.record.facts import Fact, When

QuestionId = NewType("QuestionId", str)
"""Random hexadecimal, without patient data: safe in a URL."""


class QuestionState(StrEnum):
    """Where a question stands. All but ASKED are final."""

    ASKED = "asked"
    ANSWERED = "answered"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Standing:
    """What may be said of a kind that a question asked for (SAFETY 5): title, state and reason."""

    title: str
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What of a record answers a question, and what was searched for it. Every claim is supported."""

    claims: tuple[Claim, ...]
    """Sentences that answer, best first: the model's, and the record's own lines of what is named."""
    beside: tuple[Claim, ...]
    """The record's own lines that hold words of the question or are of its kinds, and do not answer it."""
    refused: tuple[Claim, ...]
    """What the rules refused of the model's answer; reviewers alone see it (SAFETY 23)."""
    facts: tuple[Fact, ...]
    """Every fact that a claim cites, every one that the model was shown, and the stays that last."""
    searched: int
    """How many facts the record holds: all of them were searched."""
    nowhere: tuple[str, ...]
    """Words of the question that stand in none of the items searched."""
    elsewhere: tuple[str, ...]
    """Words of the question that no one item holds together."""
    standings: tuple[Standing, ...]
    """Of the kinds asked for those that are not simply listed."""
    unshown: int
    """How many further items match the question and are not among the claims."""
    advice: bool
    """True where the question asked for advice or a judgement, which is not given."""
    gaps: tuple[Gap, ...]
    left_out: tuple[LeftOut, ...]
    """What the model was not shown; the search by words went through it all the same."""
    restricted: bool
    as_of: When | None
    read_at: datetime
    engine: str = ""
    """Why words of the model are missing: its error code, or `timeout`; empty where it answered, or was not
    asked."""

    @property
    def found(self) -> bool:
        """True where the record holds something that answers. What does not is never an answer of `no`."""
        return bool(self.claims)


@dataclass(frozen=True, slots=True)
class Question:
    """One question of one user about one patient, and what came of it."""

    id: QuestionId
    server: str
    patient: str = field(repr=False)
    actor: str
    """`user:<hash>`"""
    access_profile: str
    """As whom the chart was read: an answer is shown again to the same reader, or to a reviewer."""
    text: str = field(repr=False)
    asked_at: datetime
    run_id: str = ""
    """The summary beside which it was asked; empty where there was none."""
    former: str = ""
    """The id of the question that it follows."""
    encounter: str = field(default="", repr=False)
    """The encounter at hand, `Encounter/9`, or empty."""
    by: str = field(default="", repr=False)
    """`Practitioner/7`"""
    state: QuestionState = QuestionState.ASKED
    stage: str = ""
    error: str = ""
    """Error code of a failed one; never a message that could hold patient data."""
    inputs: RunInputs | None = field(default=None, repr=False)
    prompts: tuple[Prompt, ...] = field(default=(), repr=False)
    completions: tuple[Completion, ...] = field(default=(), repr=False)
    answer: Answer | None = field(default=None, repr=False)


class QuestionStore(Protocol):
    """Where questions and answers are kept. Every method raises StoreError."""

    def ask(self, question: Question) -> None:
        """Keep a new question. Raises ShreddedError where the patient's data key was destroyed."""
        ...

    def note(self, question_id: QuestionId, stage: str) -> bool:
        """Note how far an answer is; False where it is not wanted any more."""
        ...

    def settle_question(self, question: Question) -> bool:
        """Keep what came of a question; False where it was cancelled meanwhile: that stands."""
        ...

    def cancel(self, question_id: QuestionId) -> None:
        """Take a question back, unless it is answered already."""
        ...

    def get_question(self, question_id: QuestionId) -> Question | None:
        """Return one question whole, or None. Raises ShreddedError for a destroyed one."""
        ...

    def questions_about(self, server: str, patient: str, limit: int = 20) -> Sequence[Question]:
        """Return the newest questions about a patient of a server, newest first, whoever asked them."""
        ...
