"""Documents that were filed, what is stopped, and what a recall asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from service.ports.held import Closes
from service.ports.runs import RunId, Store, StoredRun

DOCUMENT_SYSTEM = "urn:epicrisis:run-key"
"""Identifier system of the documents we write; the value is the run key."""


ATTESTED_SYSTEM = "urn:epicrisis:attested"
"""Identifier system of a document that a clinician made final; the value begins with the run key."""


DEVICE_SYSTEM = "urn:epicrisis:model"
"""Identifier system of the Device that stands for a model; the value is its digest."""


class DocumentState(StrEnum):
    """Where one of our documents stands, as far as we know."""

    DRAFT = "draft"
    ATTESTED = "attested"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"
    FOREIGN = "foreign"
    """Someone else changed the draft in the EHR: it is theirs, and left alone."""


@dataclass(frozen=True, slots=True)
class FiledDocument:
    """One document of ours on a server, kept so that recall and expiry need not search the EHR."""

    document: str
    """`DocumentReference/7`"""
    server: str
    version: str
    """The version that we wrote last; another one on the server means someone else's edit."""
    run_id: RunId
    patient: str
    state: DocumentState
    filed_at: datetime
    expires_at: datetime | None = None
    """Of a draft: when it is withdrawn."""
    encounter: str = ""
    """`Encounter/9`: the draft is withdrawn when it has ended."""
    attested_by: str = ""
    """`Practitioner/7`"""
    changed_at: datetime | None = None
    reason: str = ""
    """Why it was withdrawn."""
    dropped: tuple[str, ...] = ()
    """What the server's write profile left out of it, and is kept here alone."""


class StopScope(StrEnum):
    """What is halted."""

    ALL = "all"
    MODEL = "model"
    PROMPT = "prompt"
    WARD = "ward"
    RUN = "run"
    """One run that a clinician hid (`service.ports.attesting.Hidden`): lifted there."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Publishing halted, and what is stored hidden, for what `scope` and `value` name."""

    scope: StopScope
    value: str
    """A model's digest or name, `history` or `history@3`, a ward as the record names it; empty for all."""
    since: datetime
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs a recall is about; what is empty does not matter."""

    model: str = ""
    """Digest or name."""
    prompt_id: str = ""
    prompt_version: str = ""
    source: str = ""
    """`Observation/7`: given to the model or cited."""
    source_version: str = ""
    after: datetime | None = None
    before: datetime | None = None
    """Runs created in [after, before)."""


class DocumentStore(Protocol):
    """Documents that were filed, and what is stopped. Every method raises StoreError."""

    def put_document(self, document: FiledDocument) -> None:
        """Keep a document, in place of what was known of it."""
        ...

    def get_document(self, server: str, document: str) -> FiledDocument | None:
        """Return what is known of `DocumentReference/7` on this server, or None."""
        ...

    def documents_of(self, patient: str) -> Sequence[FiledDocument]:
        """Return a patient's (`Patient/1`) documents, newest first."""
        ...

    def drafts(self) -> Sequence[FiledDocument]:
        """Return every document that is still a draft, oldest first."""
        ...

    def find_documents(self, wanted: Wanted) -> Sequence[FiledDocument]:
        """Return the documents of the runs that are wanted, oldest first."""
        ...

    def find_templates(self, prompt_id: str, prompt_version: str) -> Sequence[str]:
        """Return the digests of the templates that runs used under this name and version."""
        ...

    def hold(self, key: str) -> Closes | None:
        """Return the right to file under a run key until it is closed, or None where another has it.

        It ends with the process, however that ends.
        """
        ...

    def add_stop(self, stop: Stop) -> None:
        """Halt from now on."""
        ...

    def lift_stop(self, scope: StopScope, value: str, by: str, at: datetime) -> int:
        """Lift what was halted so, and return how many stops that were."""
        ...

    def stops(self) -> Sequence[Stop]:
        """Return what is halted now, oldest first."""
        ...


class FilingStore(Store, DocumentStore, Protocol):
    """Runs and documents in one place."""

    def newest(
        self, server: str, patient: str, kind: str, encounter: str = "", reader: str = ""
    ) -> StoredRun | None:
        """Return the newest run of a server's patient (`Patient/1`) and kind that may be shown, or None.

        It was read by this installation's own connection, or by `reader` (an access profile): what another
        user's rights left out is no absence for this one. It reached GENERATED or later and did not fail, and
        no document of it was withdrawn, by hand, by the clock or by a recall. With an `encounter`, one that
        was made for it, or for none that was named; without, whichever is newest. Raises ShreddedError where
        the patient's data key was destroyed, and StoreError.
        """
        ...
