"""What a run was made of, kept so that it can be replayed: all that decides its prompts and verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from connectors.fhir.packed import Packed
from connectors.fhir.pull import Gap
from service.engine.prompt import Profile
from service.ports.runs import RunId, StoredRun
from service.record.assemble import Policy
from service.record.facts import Extracted, FactId


@dataclass(frozen=True, slots=True)
class KeptClaim:
    """One checked sentence of a digest, with the facts that bear it out."""

    text: str
    facts: tuple[FactId, ...]


@dataclass(frozen=True, slots=True)
class KeptDigest:
    """What was told of one window of the chart."""

    title: str
    told: tuple[KeptClaim, ...]
    lost: tuple[FactId, ...] = ()


@dataclass(frozen=True, slots=True)
class Decided:
    """What decided a run's prompts and verdicts, beside the chart, the templates and the run's own inputs."""

    patient_id: str = field(repr=False)
    gaps: tuple[Gap, ...]
    read_at: datetime
    base_url: str
    policy: Policy
    profile: Profile
    seed: int
    counts: Mapping[str, int]
    """Short digest of a rendered chat → its tokens: every count that choosing asked the engine for."""
    digests: tuple[KeptDigest, ...] = ()
    earlier: str = ""
    """Id of the run whose summary this one was compared with; empty where there was none."""
    software: str = ""
    code: str = ""
    """Digest of the code that makes prompts and verdicts."""


@dataclass(frozen=True, slots=True)
class Made:
    """All that went into one run."""

    decided: Decided
    resources: Packed = field(repr=False)
    binaries: Mapping[str, bytes] = field(repr=False)
    texts: Mapping[str, Extracted] = field(repr=False)
    templates: tuple[tuple[str, Mapping[str, str]], ...] = field(repr=False)
    """The folders of the template set, itself first, with every file's text."""


class InputStore(Protocol):
    """Where the inputs of runs are kept, each part once a patient. Every method raises StoreError."""

    def save(self, run: StoredRun, made: Made) -> bool:
        """Store a run with its inputs, in one transaction; the run alone where they cannot be kept.

        Returns whether they are kept. Raises ShreddedError where the patient's data key was destroyed.
        """
        ...

    def inputs_of(self, run: StoredRun) -> Made | None:
        """Return what a run was made of; None where that was not kept, or is not kept any more.

        Raises StoreError where a part of it is missing or damaged, and ShreddedError.
        """
        ...

    def forget(self, run_id: RunId) -> None:
        """Delete a run's inputs, and what no other run of that patient shares; the run stays."""
        ...

    def prune(self, before: datetime) -> int:
        """Delete the inputs of runs made before then, and return of how many runs those were."""
        ...
