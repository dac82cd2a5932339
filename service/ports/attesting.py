"""What treating clinicians do before they answer for a text, what they hide, and recalls by two people.

Attesting is not reviewing for quality (SAFETY 23). A run's stored summary never changes: what a clinician
disposed of, wrote and attested stands beside it, sealed under the patient's key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType, Protocol

from service.ports.documents import Wanted
from service.ports.runs import RunId

ProposalId = NewType("ProposalId", str)
"""Random hexadecimal."""

LONGEST_REASON = 500
"""Characters of a reason."""
LONGEST_EDIT = 2_000
"""Characters of a clinician's own sentence."""
HASTY = timedelta(seconds=10)
"""Who attests sooner after opening the page cannot have read it (SAFETY 23)."""


class Act(StrEnum):
    """What a clinician does with one statement, or with one conflict of the record."""

    ACCEPTED = "accepted"
    EDITED = "edited"
    """Their own words stand in the attested text instead; of a statement alone."""
    REJECTED = "rejected"
    """It is left out of the attested text. A conflict of the record is never left out: it is only seen."""


@dataclass(frozen=True, slots=True)
class Disposal:
    """What one clinician decided about one item of a run."""

    run_id: RunId
    patient: str = field(repr=False)
    """`Patient/1`"""
    actor: str
    """`user:…`"""
    by: str = field(repr=False)
    """`Practitioner/7`"""
    act: Act
    at: datetime
    ordinal: int | None = None
    """The claim's place: published claims in reading order, from 0; None for a conflict."""
    section: str = ""
    """Key of the section whose conflict this is about; empty for a claim."""
    reason: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Edit:
    """A clinician's own words in the place of one claim. The machine's stay beside them."""

    run_id: RunId
    ordinal: int
    before: str = field(repr=False)
    """As the machine wrote it."""
    after: str = field(repr=False)
    distance: int
    """Levenshtein distance in characters."""
    by: str = field(repr=False)
    """`Practitioner/7`"""
    at: datetime
    actor: str = ""


@dataclass(frozen=True, slots=True)
class Attested:
    """One attestation. `edits`, `distance` and `machine_characters` are over the whole text."""

    run_id: RunId
    patient: str = field(repr=False)
    document: str
    """`DocumentReference/9/_history/1`"""
    by: str = field(repr=False)
    actor: str
    opened_at: datetime
    """When the server first showed this run to this clinician for attesting."""
    attested_at: datetime
    edits: int
    distance: int
    """Characters changed by edits; a rejected statement counts whole."""
    machine_characters: int
    """Characters of all statements as the machine wrote them."""
    rejected: int = 0

    @property
    def is_hasty(self) -> bool:
        """True under ten seconds."""
        return self.attested_at - self.opened_at < HASTY


@dataclass(frozen=True, slots=True)
class Hidden:
    """A run that is shown to nobody until this is lifted (SAFETY 24)."""

    run_id: RunId
    patient: str = field(repr=False)
    by: str = field(repr=False)
    """`Practitioner/7`; empty where the provider names nobody."""
    actor: str
    at: datetime
    reason: str = field(default="", repr=False)
    document: str = ""
    """Its document at that time, empty where nothing is filed."""
    lifted_at: datetime | None = None
    lifted_by: str = ""
    """`user:…`"""


class ProposalState(StrEnum):
    """Where a recall that needs two people stands."""

    WAITING = "waiting"
    APPROVED = "approved"
    """Being carried out, or cut off while it was: carried out again, it goes on."""
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A bulk recall that waits for a second person, or what became of it (SAFETY 24)."""

    id: ProposalId
    wanted: Wanted
    by: str
    """`user:…` who proposed it."""
    at: datetime
    reason: str = field(repr=False)
    state: ProposalState = ProposalState.WAITING
    decided_by: str = ""
    """`user:…` who approved or refused it: never the one who proposed it."""
    decided_at: datetime | None = None
    total: int = 0
    """Documents that are wanted, once it is carried out."""
    done: int = 0
    left: tuple[str, ...] = ()
    """`DocumentReference/7: rejected`: what could not be withdrawn, with an error code."""


@dataclass(frozen=True, slots=True)
class Glass:
    """What one person opened for themselves, for a while, although our own rules withhold it."""

    actor: str
    patient: str = field(repr=False)
    """`Patient/1`"""
    reason: str = field(repr=False)
    at: datetime
    until: datetime
    run_id: str = ""
    by: str = field(default="", repr=False)


class AttestingStore(Protocol):
    """Where all of this is kept. Every method raises StoreError.

    What is about a patient whose data key was destroyed is nowhere returned; to keep more raises
    ShreddedError.
    """

    def open(self, run_id: RunId, patient: str, actor: str, at: datetime) -> datetime:
        """Note that a clinician was shown a run for attesting, and return when they first were."""
        ...

    def opened_at(self, run_id: RunId, actor: str) -> datetime | None:
        """Return when a clinician was first shown a run for attesting, or None."""
        ...

    def dispose(self, disposal: Disposal, edit: Edit | None = None) -> None:
        """Keep what was decided about an item, in place of what this clinician decided before."""
        ...

    def undo(self, run_id: RunId, actor: str, at: datetime) -> Disposal | None:
        """Take back this clinician's last decision on a run; the one before it holds again."""
        ...

    def disposals(self, run_id: RunId, actor: str) -> Sequence[Disposal]:
        """Return what a clinician decided about a run and holds now: one of each item, in order of time."""
        ...

    def edits_of(self, run_id: RunId, actor: str) -> Sequence[Edit]:
        """Return the edits of a clinician on a run that hold now, by ordinal."""
        ...

    def edits(self, since: datetime, until: datetime) -> Sequence[Edit]:
        """Return the edits in attested texts that were attested in this span, oldest first."""
        ...

    def keep_attested(self, attested: Attested) -> None:
        """Keep an attestation; kept again with the same run and clinician, the first stays."""
        ...

    def attested_of(self, run_id: RunId) -> Attested | None:
        """Return the attestation of a run, or None."""
        ...

    def attestations(self, since: datetime, until: datetime) -> Sequence[Attested]:
        """Return the attestations in this span, oldest first."""
        ...

    def hide(self, hidden: Hidden) -> None:
        """Show a run to nobody from now on; one that is hidden already stays as it is."""
        ...

    def lift(self, run_id: RunId, by: str, at: datetime) -> bool:
        """Show a run again; False where it was not hidden."""
        ...

    def hidden_of(self, run_id: RunId) -> Hidden | None:
        """Return by whom and why a run is hidden now, or None."""
        ...

    def hidden(self, limit: int = 100) -> Sequence[Hidden]:
        """Return what is hidden now, newest first."""
        ...

    def propose(self, proposal: Proposal) -> None:
        """Keep a recall that waits for a second person."""
        ...

    def decide(self, proposal_id: ProposalId, state: ProposalState, by: str, at: datetime) -> Proposal | None:
        """Approve or refuse a waiting proposal, and return it as it is then.

        None where there is none, it is decided, or it is `by` who proposed it and would approve it: who
        proposed it may still take it back (REFUSED).
        """
        ...

    def advance(self, proposal: Proposal) -> None:
        """Keep how far an approved recall has come (`state`, `total`, `done`, `left`)."""
        ...

    def proposal(self, proposal_id: ProposalId) -> Proposal | None:
        """Return one proposal, or None."""
        ...

    def proposals(self, limit: int = 50) -> Sequence[Proposal]:
        """Return proposals, newest first."""
        ...

    def break_glass(self, glass: Glass) -> None:
        """Open what is withheld for one person, until its time is over."""
        ...

    def glass_of(self, actor: str, patient: str, at: datetime) -> Glass | None:
        """Return what is open to a person at an instant for a patient, or None."""
        ...

    def glasses(self, since: datetime, until: datetime) -> Sequence[Glass]:
        """Return what was opened so in this span, newest first."""
        ...
