"""Runs: what goes into one, what came of it, and where they are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType, Protocol

from connectors.fhir.pull import GapReason
from service.engine.prompt import Completion, Prompt
from service.grounding.summary import Summary

USER = "user:"
"""What the access profile of a user who was launched begins with; ours begins with `system:`."""

RunId = NewType("RunId", str)
"""Random hexadecimal, without patient data: safe in a URL and as a command's argument."""


@dataclass(frozen=True, slots=True)
class RunInputs:
    """Everything that decides what a run writes, and nothing that it generates.

    `key` is the SHA-256 (hex) over all other fields but `server`, whose address may change.
    A wanted regeneration raises `attempt`.
    """

    key: str
    patient: str
    """`Patient/1`"""
    server: str
    """Base URL of the FHIR server."""
    kind: str
    prompt_id: str
    prompt_version: str
    template_digest: str
    schema_digest: str
    model: str
    model_digest: str
    engine_version: str
    sampling: Mapping[str, Any]
    record_digest: str
    rules_version: str
    access_profile: str
    budget_tokens: int
    encounter: str = ""
    """The encounter at hand where one was named, `Encounter/9`; an admission that lasts is found in the
    record, which is an input itself."""
    attempt: int = 1
    images: tuple[str, ...] = ()
    """SHA-256 (hex) of each picture that the model is shown, in order."""
    unseen: tuple[str, ...] = ()
    """Why pictures could not be seen, each reason once: what is said of them depends on it."""
    files_images: bool = False
    """True where this site also files what is read from pictures (SAFETY 26). These three are part of the
    key where they are given: a run without pictures has the key that it always had."""


class RunState(StrEnum):
    """Where a run stands. FILED, UNCHANGED, INCOMPLETE, WITHHELD, DRY and FAILED are final."""

    GENERATED = "generated"
    """Completion and verdicts are stored; nothing is written yet."""
    FILED = "filed"
    UNCHANGED = "unchanged"
    """The server already holds the document of this run key."""
    INCOMPLETE = "incomplete"
    WITHHELD = "withheld"
    """Not filed: the patient is recorded as deceased (SAFETY 18)."""
    DRY = "dry"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One run as stored: inputs, prompt, completion, summary, and what became of it."""

    run_id: RunId
    inputs: RunInputs
    state: RunState
    created_at: datetime
    """Aware UTC. It is the document's date, so a retry files the same bytes."""
    read_at: datetime
    prompts: tuple[Prompt, ...]
    completions: tuple[Completion, ...]
    summary: Summary
    document: str = ""
    """`DocumentReference/7/_history/1` once filed."""
    error: str = ""
    """Error code of a failed run; never a message that could hold patient data."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Stage → seconds."""

    def is_read_for(self, reader: str) -> bool:
        """Tell whether it was read by our own connection, or by the reader of this access profile."""
        return not self.is_of_user or self.inputs.access_profile == reader

    @property
    def is_of_user(self) -> bool:
        """True where the record was read with one user's rights, which may be narrower than others'."""
        return self.inputs.access_profile.startswith(USER)

    @property
    def is_narrowed(self) -> bool:
        """True where the record system said that it kept something back from whoever read it."""
        return any(gap.reason in (GapReason.REFUSED, GapReason.SUPPRESSED) for gap in self.summary.gaps)


@dataclass(frozen=True, slots=True)
class RunRow:
    """What a list of runs shows. `patient_name` is decrypted for the page and the CLI alone."""

    run_id: RunId
    created_at: datetime
    state: RunState
    kind: str
    patient: str
    patient_name: str
    model: str
    document: str
    published: int
    refused: int
    incomplete: bool


class Store(Protocol):
    """Where runs are kept: all that review, replay and recall need."""

    def save(self, run: StoredRun) -> None:
        """Store a run, before the first write to the EHR. Raises StoreError; nothing half-written."""
        ...

    def finish(
        self,
        run_id: RunId,
        state: RunState,
        document: str = "",
        error: str = "",
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Record what became of a run. Raises StoreError."""
        ...

    def get(self, run_id: RunId) -> StoredRun | None:
        """Return one run whole, or None."""
        ...

    def find_by_key(self, key: str) -> StoredRun | None:
        """Return the newest run with this key that reached GENERATED or later and did not fail."""
        ...

    def find_latest(self, patient: str, kind: str) -> StoredRun | None:
        """Return the newest run of this patient (`Patient/1`) and kind that is FILED or UNCHANGED, or None.

        UNCHANGED is one that was cut off after its write. Raises StoreError.
        """
        ...

    def rows(self, limit: int = 50, offset: int = 0) -> tuple[Sequence[RunRow], int]:
        """Return one page of runs, newest first, and how many there are in all."""
        ...
