"""The seams: what the one use case needs from the edges, and the values that cross them.

Implementations are chosen in `service.wiring` alone. The engine's seam is `service.engine.prompt.Engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType, Protocol

from connectors.fhir.pull import Pull
from service.engine.prompt import Completion, Prompt
from service.grounding.summary import Summary

Clock = Callable[[], datetime]
"""Aware UTC now; passed in, so that tests freeze it."""

RunId = NewType("RunId", str)
"""Random hexadecimal, without patient data: safe in a URL and as a command's argument."""

DOCUMENT_SYSTEM = "urn:epicrisis:run-key"
"""Identifier system of the documents we write; the value is the run key."""
ATTESTED_SYSTEM = "urn:epicrisis:attested"
"""Identifier system of a document that a clinician made final; the value begins with the run key."""
DEVICE_SYSTEM = "urn:epicrisis:model"
"""Identifier system of the Device that stands for a model; the value is its digest."""
LASTING = "lasting:"
"""What the key of a lock begins with that a process holds as long as it lives: no other key shares it."""
KEPT_AREAS = frozenset({"snapshot", "digest", "probe"})
"""The areas of a Vault: fetched charts, what the engine said about a window of one, and how a model did in
the probe of the second pass."""


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


class Closes(Protocol):
    """Something held until it is closed."""

    def close(self) -> None:
        """Let it go."""
        ...


class Right(Closes, Protocol):
    """A right that is held for long, until it is closed, its process ends, or the database is gone."""

    def is_held(self) -> bool:
        """Tell whether it still is: a restart of the database ends it. Raises nothing."""
        ...


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


SHREDDED = "shredded"
"""Reason of an admission whose patient's data key was destroyed: the stay has ended for us."""


class Standing(StrEnum):
    """Where an admission's summary stands."""

    MISSING = "missing"
    """None was made yet."""
    FRESH = "fresh"
    STALE = "stale"
    """Something happened since, and the chart was not read again yet."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """None is made, for the reason given."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Admission:
    """One stay that is watched, and what became of its summary."""

    id: str
    """Random hexadecimal, without patient data: queues and logs name it."""
    server: str
    patient: str = field(repr=False)
    """`Patient/1`"""
    encounter: str = field(repr=False)
    """`Encounter/9`"""
    encounter_class: str = ""
    location: str = field(default="", repr=False)
    """Reference of the current place, or what the source calls it."""
    ward: str = field(default="", repr=False)
    """What people call the place; empty where the server gives no name."""
    standing: Standing = Standing.MISSING
    since: datetime | None = None
    """When it came to stand so."""
    reason: str = ""
    """Why it is skipped or failed, in one word: an error code, or why nobody is to be summarised."""
    checked_at: datetime | None = None
    """When the chart was last read and the summary found to hold, or made anew."""
    tried_at: datetime | None = None
    run_id: str = ""
    document: str = field(default="", repr=False)
    failures: int = 0
    """How often in a row it failed."""
    epoch: int = 0
    """Part of the workflow id of the next run: raised when a run came to no end that lasts."""

    @property
    def is_open(self) -> bool:
        """Tell whether the stay goes on, as far as was heard."""
        return self.standing is not Standing.ENDED


@dataclass(frozen=True, slots=True)
class Heard:
    """One event that was stored before its source was told so. `content` is patient data."""

    id: int
    content: bytes = field(repr=False)
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """One pass of a schedule: at most one for each local wall time."""

    id: str
    """`morning@2026-11-28T05:30`, or `hand@…` for one that was asked for."""
    schedule: str
    started_at: datetime
    finished_at: datetime | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    """Counts alone."""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker as the others see it."""

    id: str
    beats: int
    """Counts up while it lives: who watches compares counts, never clocks."""
    started_at: datetime
    beat_at: datetime
    version: str


class AdmissionStore(Protocol):
    """Stays that are watched, what was heard of them, and who works. Every method raises StoreError."""

    def find_admission(self, server: str, encounter: str) -> Admission | None:
        """Return the admission of this stay (`Encounter/9`), or None."""
        ...

    def get_admission(self, admission_id: str) -> Admission | None:
        """Return an admission by its id, or None."""
        ...

    def put_admission(self, admission: Admission) -> None:
        """Keep an admission, in place of what was known of it."""
        ...

    def change_admission(self, admission_id: str, change: Callable[[Admission], Admission]) -> Admission:
        """Read, change and keep an admission in one transaction. Raises StoreError where there is none."""
        ...

    def admissions(self, server: str, *, is_open: bool = True) -> Sequence[Admission]:
        """Return every admission of a server, those that ended too with `is_open=False`, oldest first."""
        ...

    def hear(self, events: Sequence[tuple[str, bytes]], source: str = "", cursor: bytes | None = None) -> int:
        """Keep events (key, content) and the next cursor in one transaction; return how many are new.

        An event whose key was heard before is left out; one without a key never is.
        """
        ...

    def unheeded(self, limit: int = 100) -> Sequence[Heard]:
        """Return events that nobody acted on yet, oldest first."""
        ...

    def heed(self, heard_id: int, *, again: bool = False) -> None:
        """Note that an event was acted on; with `again`, that it could not be, and is to be tried again."""
        ...

    def cursor(self, source: str) -> bytes | None:
        """Return where a source stands, or None at its beginning."""
        ...

    def nudge(self) -> None:
        """Ask whoever watches the admissions to look now."""
        ...

    def nudges(self) -> int:
        """Return how often that was asked for, ever."""
        ...

    def begin_tick(self, tick: Tick) -> bool:
        """Keep a tick that begins; False where there was one of this id."""
        ...

    def end_tick(self, tick_id: str, at: datetime, report: Mapping[str, Any]) -> None:
        """Note how a tick ended."""
        ...

    def last_tick(self, schedule: str) -> Tick | None:
        """Return the newest tick of a schedule, or None."""
        ...

    def pause(self, schedule: str, is_paused: bool, by: str, at: datetime) -> None:
        """Pause a schedule, or let it go on."""
        ...

    def paused(self) -> Mapping[str, tuple[str, datetime]]:
        """Return what is paused: schedule → by whom, since when."""
        ...

    def beat(self, worker: WorkerRow) -> None:
        """Keep a sign of life."""
        ...

    def workers(self) -> Sequence[WorkerRow]:
        """Return every worker that gave a sign of life and was not dismissed."""
        ...

    def dismiss(self, worker_id: str) -> None:
        """Forget a worker: it ended, or its work was taken over."""
        ...

    def hold(self, key: str) -> Right | None:
        """Return a right that ends with the process, or None where another has it."""
        ...

    def forget_before(self, before: datetime) -> int:
        """Delete ended admissions, heeded events and ticks that are older, and return how many."""
        ...


class FilingStore(Store, DocumentStore, Protocol):
    """Runs and documents in one place."""


class Documents(Protocol):
    """The documents that the EHR holds: what becomes of them after they were filed."""

    @property
    def base_url(self) -> str:
        """The FHIR base URL, without a trailing slash."""
        ...

    async def read(self, reference: str) -> dict[str, Any]:
        """Return a resource as it is now. Raises ConnectorError."""
        ...

    async def search(self, resource_type: str, params: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """Return every resource of this type that matches. Raises ConnectorError."""
        ...

    async def file(self, bundle: dict[str, Any]) -> Receipt:
        """Write a transaction exactly once. Raises ConnectorError; with it, file again."""
        ...


class Vault(Protocol):
    """Bytes kept encrypted under a key: snapshots of charts, digests of windows.

    Losing one costs time, never truth. `area` is one of KEPT_AREAS and lies in the open; `key` may name a
    patient, and only its keyed hash is stored. Every method raises StoreError where the database cannot be
    used, and for an area that does not exist.
    """

    def get(self, area: str, key: str) -> bytes | None:
        """Return what was last put, or None; what is damaged or under a lost key is gone, and no error."""
        ...

    def put(self, area: str, key: str, content: bytes) -> None:
        """Keep bytes, in place of earlier ones, whole or not at all; of two writers the last one wins.

        Raises StoreError: the disk is full, or the content is larger than a database takes (512 MiB).
        """
        ...

    def drop(self, area: str, key: str) -> None:
        """Forget one entry; where there is none, nothing happens."""
        ...

    def prune(self, area: str, before: datetime) -> int:
        """Forget what was neither put nor read since an aware instant, and return how many that were.

        A read counts to the hour: an entry may go up to one hour early.
        """
        ...


@dataclass(frozen=True, slots=True)
class KeptSession:
    """Who is signed in by one session, since when, and when that was last made use of."""

    actor: str
    """`user:local`, `user:<hash>`: never a name."""
    roles: tuple[str, ...]
    issuer: str
    """Who vouched for them; empty: nobody, this machine alone."""
    began_at: datetime
    used_at: datetime
    fhir_user: str = field(default="", repr=False)


class SessionStore(Protocol):
    """Sessions by their id, a secret: only its keyed hash is stored. Every method raises StoreError."""

    def put_session(self, session_id: str, session: KeptSession) -> None:
        """Keep a new session."""
        ...

    def get_session(self, session_id: str) -> KeptSession | None:
        """Return a session, or None."""
        ...

    def use_session(self, session_id: str, at: datetime) -> None:
        """Note that it is in use; where it has ended, nothing happens."""
        ...

    def end_session(self, session_id: str) -> None:
        """Delete it; where there is none, nothing happens."""
        ...

    def forget_sessions(self, began_before: datetime, used_before: datetime) -> int:
        """Delete those that began, or were last used, before then; return how many."""
        ...


class Action(StrEnum):
    """What an audit entry records."""

    READ = "read"
    GENERATE = "generate"
    WRITE = "write"
    VIEW = "view"
    ATTEST = "attest"
    WITHDRAW = "withdraw"
    STOP = "stop"
    LOGIN = "login"
    LOGOUT = "logout"
    REFUSED = "refused"
    EXPORT = "export"
    """A stored summary was handed out as data."""
    CONFIGURE = "configure"
    """How or when this installation works was changed; `target` says what: `schedule:morning:pause`."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act: who did what to whose record, when, and how it ended."""

    action: Action
    actor: str
    """`system:cli`, `system:demo`, `user:local`"""
    patient: str
    """`Patient/1`; stored encrypted, with a keyed hash for look-ups."""
    at: datetime
    outcome: str = "ok"
    """`ok` or an error code."""
    run_id: str = ""
    target: str = ""
    """`DocumentReference/7` or empty."""
    counts: Mapping[str, int] = field(default_factory=dict)
    server: str = ""
    """Base URL of the FHIR server that `patient` and `target` are of; empty where nobody said."""
    by: str = ""
    """`Practitioner/7`, who answers for the act where `actor` only carried it out; stored encrypted."""


@dataclass(frozen=True, slots=True)
class DueEntry:
    """One audit entry that a collector does not have yet."""

    number: int
    handle: str
    """A keyed hash that this entry has and no other, here or elsewhere: by it a collector's copy is found."""
    entry: AuditEntry
    was_tried: bool
    """True where it may have been written already: an answer was lost, or a process died."""


class Outbox(Protocol):
    """What of the audit log a collector (its base URL) does not have yet. Every method raises StoreError.

    With a `server`, what is about a patient counts only where it is of that server: a reference means another
    patient on another one.
    """

    def hold(self, collector: str) -> Closes | None:
        """Return the right to send to a collector until it is closed, or None where another has it."""
        ...

    def due(
        self, collector: str, server: str | None = None, limit: int | None = None, after: int = 0
    ) -> Sequence[int]:
        """Return the numbers `after` one of what is due, oldest first; what was refused before comes last."""
        ...

    def count(self, collector: str, server: str | None = None) -> int:
        """Return how many entries are due."""
        ...

    def begin(self, collector: str, numbers: Sequence[int], at: datetime) -> Sequence[DueEntry]:
        """Note that these are about to be sent, and return those of them that were not sent meanwhile."""
        ...

    def settle(self, collector: str, sent: Sequence[int], refused: Sequence[int], at: datetime) -> None:
        """Note what the collector took, and what it would not take."""
        ...


class AuditLog(Protocol):
    """Every read, generation, write and view goes through here. Append only."""

    def append(self, entry: AuditEntry) -> None:
        """Append one entry. Raises StoreError: an act that cannot be recorded does not happen."""
        ...


class Receipt(Protocol):
    """What the server answered to a filing."""

    @property
    def document(self) -> str:
        """`DocumentReference/7/_history/1`."""
        ...

    @property
    def created(self) -> bool:
        """False when the document was already there."""
        ...

    @property
    def references(self) -> tuple[str, ...]:
        """Every resource that was written, versioned, in order."""
        ...


class Ehr(Documents, Protocol):
    """The hospital's record system: reading a patient, and filing what we wrote."""

    @property
    def access_profile(self) -> str:
        """As whom we read, for run and cache keys: `system:none`, `system:smart:<client id>`."""
        ...

    async def pull(
        self,
        patient_id: str,
        on_progress: Callable[[str, int], None] | None = None,
        known: Pull | None = None,
    ) -> Pull:
        """Fetch one patient. Raises ConnectorError only when nothing useful came back.

        With `known`, an earlier pull of the same patient, it may fetch only what changed since.
        """
        ...

    async def find_document(self, system: str, value: str) -> str | None:
        """Return the versioned reference of our current document with this identifier, or None."""
        ...
