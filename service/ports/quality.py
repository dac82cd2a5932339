"""Quality in plain numbers: what each run came to, shadow runs, evaluations, and where they are kept.

Nothing here holds a word of a chart, but for a shadow run itself, which is sealed as any run is. A shadow run
is made to compare, and is no summary: it lies in a table of its own, so that nothing that asks for summaries
can find it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NewType, Protocol

from service.ports.runs import RunId, StoredRun
from service.record.facts import FactId

EvaluationId = NewType("EvaluationId", str)
"""Random hexadecimal."""
NO_WARD = ""
"""The ward of a run whose record names no place."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What one run came to, in numbers."""

    claims: int = 0
    """Statements that the model wrote, each once."""
    supported: int = 0
    """Those of them that the rules bore out."""
    contradicted: int = 0
    """Those that their sources contradict."""
    told: int = 0
    """Required facts that a published sentence of the model tells whole."""
    added: int = 0
    """Required facts whose own line was added by code."""
    missing: int = 0
    """Required facts that the summary does not tell; known of an evaluation alone, which has the record."""
    headings: int = 0
    """Required headings."""
    not_retrieved: int = 0
    """Those of which the record could not be read."""
    fabricated: int = 0
    """Published statements under a required heading that the rules did not bear out, or without a source."""
    characters: int = 0
    """Of the published text."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """From the first request to the checked summary; 0 where it is not known."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Why statements were refused: reason without its detail → how many."""


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """The runs that belong together in a chart: a week's, of one model, prompt version and ward."""

    week: str
    """Its Monday in the site's time zone, `2026-11-23`."""
    model: str
    model_digest: str
    prompt: str
    """`history@1.2.0`"""
    ward: str = NO_WARD


@dataclass(frozen=True, slots=True)
class Measure:
    """The numbers of one run."""

    run_id: RunId
    at: datetime
    group: Group
    template_digest: str
    rules_version: str
    counts: Counts


@dataclass(frozen=True, slots=True)
class Sums:
    """A group's runs added up; `counts.seconds` and `counts.refused` are left out."""

    group: Group
    runs: int
    counts: Counts


@dataclass(frozen=True, slots=True)
class Identity:
    """What an evaluation is about: a change of any of these is another model or prompt."""

    model: str
    """For people; the digest is what counts."""
    model_digest: str
    prompt: str
    """`history@1.2.0`, for people."""
    template_digest: str
    rules_version: str
    profile: str
    """The engine profile: its name and a digest of all in it that shapes a request."""

    def is_same(self, other: Identity) -> bool:
        """Tell whether two are the same for the release gate, whatever they are called."""
        return self._what_counts == other._what_counts

    @property
    def _what_counts(self) -> tuple[str, ...]:
        return (self.model_digest, self.template_digest, self.rules_version, self.profile)


@dataclass(frozen=True, slots=True)
class Shadow:
    """One run of an evaluation: what one arm made of one chart."""

    evaluation: EvaluationId
    arm: int
    """0 for what is evaluated, 1 for what it is compared with."""
    run: StoredRun = field(repr=False)
    counts: Counts
    told: frozenset[FactId] = field(default=frozenset(), repr=False)
    """Required facts that the model told."""
    required: frozenset[FactId] = field(default=frozenset(), repr=False)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation: of what, against what, and what it came to. Its report holds numbers alone."""

    id: EvaluationId
    began_at: datetime
    identity: Identity
    against: Identity | None
    cohort_digest: str
    """Keyed hash of server, charts and kind."""
    charts: int
    ended_at: datetime | None = None
    report: Mapping[str, Any] = field(default_factory=dict)


class QualityStore(Protocol):
    """Where the numbers are kept. Every method raises StoreError."""

    def keep(self, measure: Measure) -> None:
        """Keep a run's numbers; those of a run that was counted before stay."""
        ...

    def skip(self, run_id: RunId, at: datetime) -> None:
        """Note that a run cannot be counted: what was stored of it is destroyed."""
        ...

    def uncounted(self, limit: int) -> Sequence[RunId]:
        """Return runs whose numbers are not kept, newest first."""
        ...

    def count_uncounted(self) -> int:
        """Return how many runs are not counted; failed ones are none."""
        ...

    def sums(self, since_week: str) -> Sequence[Sums]:
        """Return every group from a week on, in order."""
        ...

    def seconds(self, since_week: str) -> Sequence[tuple[Group, float]]:
        """Return how long each run took, where that is known."""
        ...

    def marked(self, since_week: str) -> Mapping[Group, int]:
        """Return how many runs of each group somebody said something against, and did not take back."""
        ...

    def groups_of(self, run_ids: Sequence[RunId]) -> Mapping[RunId, Group]:
        """Return the group of each run that was counted."""
        ...

    def keep_shadow(self, shadow: Shadow) -> None:
        """Keep a shadow run. Raises ShreddedError where the patient's data key was destroyed."""
        ...

    def shadows(self, evaluation: EvaluationId, arm: int) -> Mapping[str, Shadow]:
        """Return an arm's runs by patient (`Patient/1`), without those of the shredded."""
        ...

    def begin(self, evaluation: Evaluation) -> Evaluation:
        """Begin an evaluation; one of the same identities and cohort that was not ended is returned."""
        ...

    def end(self, evaluation: EvaluationId, at: datetime, report: Mapping[str, Any]) -> None:
        """Keep what an evaluation came to."""
        ...

    def evaluations(self, limit: int = 20) -> Sequence[Evaluation]:
        """Return evaluations that ended, newest first."""
        ...

    def get_evaluation(self, evaluation: EvaluationId) -> Evaluation | None:
        """Return one evaluation, ended or not, or None."""
        ...
