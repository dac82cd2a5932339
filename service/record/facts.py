"""The words of the record: what one citable statement is, and what a whole record holds.

Values only: nothing here reads a clock, a network or a setting, and nothing here raises on odd data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple, NewType

from connectors.fhir.pull import Gap

Resource = dict[str, Any]
"""One FHIR resource as received: JSON, with decimals kept as `Decimal`."""

FactId = NewType("FactId", str)
"""`Observation/123`, or `Observation/123#2` for the second statement of one resource."""


class Kind(StrEnum):
    """What a fact is about; also the key of the section it is shown under."""

    PATIENT = "patient"
    PROBLEM = "problem"
    ALLERGY = "allergy"
    MEDICATION = "medication"
    RESULT = "result"
    VITAL = "vital"
    SOCIAL = "social"
    PROCEDURE = "procedure"
    ENCOUNTER = "encounter"
    IMMUNIZATION = "immunization"
    REPORT = "report"
    NOTE = "note"
    IMAGING = "imaging"
    ORDER = "order"
    PLAN = "plan"
    GOAL = "goal"
    FAMILY_HISTORY = "family_history"
    DEVICE = "device"
    FLAG = "flag"
    DIRECTIVE = "directive"


class Status(StrEnum):
    """One vocabulary over FHIR's many status code systems. `Fact.recorded_status` keeps the original."""

    ACTIVE = "active"
    RESOLVED = "resolved"
    INACTIVE = "inactive"
    REFUTED = "refuted"
    PLANNED = "planned"
    IN_PROGRESS = "in progress"
    ON_HOLD = "on hold"
    COMPLETED = "completed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    NOT_DONE = "not done"
    PRELIMINARY = "preliminary"
    FINAL = "final"
    CORRECTED = "corrected"
    UNKNOWN = "status not recorded"


class Precision(StrEnum):
    """How much of a FHIR date was recorded."""

    YEAR = "year"
    MONTH = "month"
    DAY = "day"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class When:
    """A FHIR date, dateTime or instant with the precision it was recorded in.

    `earliest` and `latest` bound the instant; both are aware. A time without a zone is bounded in UTC
    and says so in `zone_known`. `day` is the calendar day in the site's zone, or the recorded one.
    """

    recorded: str
    precision: Precision
    earliest: datetime
    latest: datetime
    day: date
    zone_known: bool = True
    time: str | None = None
    """`14:05` in the zone of `day`; None unless the precision is TIME."""


@dataclass(frozen=True, slots=True)
class Code:
    """One coding: system, code, and the display as recorded."""

    system: str
    code: str
    display: str


@dataclass(frozen=True, slots=True)
class Quantity:
    """A measured value exactly as recorded: no conversion, no rounding (SAFETY 11).

    `text` is the whole value as shown, comparator and unit included: `<0.01 ng/mL`.
    """

    text: str
    number: Decimal | None
    comparator: str
    unit: str


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a fact is about. `role` is `patient`, `relative`, `fetus`, `newborn`, `mother` or `other`."""

    role: str = "patient"
    text: str = ""
    """As recorded, for example `mother`; empty for the patient."""


THE_PATIENT = Person()


@dataclass(frozen=True, slots=True)
class ResourceVersion:
    """The exact version of a resource that a fact was read from.

    `digest` is the SHA-256 (hex) of the resource without `meta.versionId` and `meta.lastUpdated`.
    """

    reference: str
    """`Observation/123`; the `fullUrl` where there is no id."""
    version: str | None
    digest: str
    updated: str = ""
    """`meta.lastUpdated` as recorded: the order in which facts came to be known; empty where not given."""
    security: tuple[Code, ...] = field(default=(), compare=False)
    """Labels that whatever rests on it must carry (`service.record.labels`); empty for ordinary data. The
    resource's own labels are part of what `digest` covers; those of what it names are of this reading."""

    @property
    def versioned_reference(self) -> str:
        """`Observation/123/_history/2`, or the plain reference where the server has no versions."""
        return f"{self.reference}/_history/{self.version}" if self.version else self.reference


@dataclass(frozen=True, slots=True)
class Fact:
    """One citable statement from one resource version.

    `text` is the line a reader and a model see. It always carries the as-recorded name and, where the
    kind has one, the status and the date, so that nothing not done can read as done.
    """

    id: FactId
    kind: Kind
    source: ResourceVersion
    text: str
    name: str
    codes: tuple[Code, ...] = ()
    status: Status = Status.UNKNOWN
    recorded_status: str = ""
    certainty: str = ""
    """`confirmed`, `provisional`, `differential`, `suspected`… as recorded; empty when not said."""
    when: When | None = None
    """The clinically relevant time: onset, effective, performed, authored, period start."""
    until: When | None = None
    quantity: Quantity | None = None
    value: str = ""
    """The value as shown, for coded and text values too."""
    flags: tuple[str, ...] = ()
    """Interpretation as recorded: `H`, `Critical high`. Never computed here."""
    reference_range: str = ""
    person: Person = THE_PATIENT
    encounter: str | None = None
    """Reference of the encounter, for example `Encounter/9`."""
    author: str = ""
    category: str = ""
    """For medications `inpatient`, `outpatient`, `discharge`, `community` or `` ; for others as recorded."""
    details: tuple[tuple[str, str], ...] = ()
    """Further (label, text) pairs as recorded: dosage, reaction, reason, body site, laterality, note."""
    body: str = ""
    """The whole text of a note or report; empty for other kinds."""
    copies: tuple[ResourceVersion, ...] = ()
    """Further resource versions that say the same, oldest first: repeated orders, copied-forward text."""
    span: tuple[int, int] | None = None
    """For a sentence of a note: its first and its last-plus-one character in the note's text."""

    @property
    def sources(self) -> tuple[ResourceVersion, ...]:
        """Every resource version that this statement rests on, the one that is shown first."""
        return (self.source, *self.copies)

    @property
    def updated(self) -> str:
        """When the newest of its sources was last updated, as recorded; empty where no server said so."""
        return max(source.updated for source in self.sources)


class Absence(StrEnum):
    """What may be said about a required kind (SAFETY 5): exactly one of these three."""

    LISTED = "listed"
    NONE_RECORDED = "none recorded, search complete"
    NOT_RETRIEVED = "NOT RETRIEVED"


@dataclass(frozen=True, slots=True)
class RequiredKind:
    """One kind of required facts (SAFETY 7), in the order in which it is shown."""

    key: str
    title: str
    state: Absence
    facts: tuple[FactId, ...]
    reason: str = ""
    """Why it was not retrieved; empty otherwise."""
    conflict: str = ""
    """A sentence that names a conflict which the reader must resolve; empty when there is none."""
    hidden: int = 0
    """How many further facts the cap left out."""
    essential: bool = False
    """True for allergies, conditions, medications and the encounter at hand: when one of these is not
    retrieved, nothing is filed by itself and every view opens with INCOMPLETE (SAFETY 6)."""
    previous: tuple[FactId, ...] = ()
    """Directives of a time before the encounter at hand: never told without a word that says so."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The patient banner: what tells this patient from another. Missing is an empty string."""

    reference: str
    name: str
    birth_date: str
    """As recorded, for example `1951-05-04` or `1951`."""
    gender: str
    record_number: str
    deceased: bool = False
    deceased_when: str = ""
    security: tuple[Code, ...] = ()
    """Labels of the Patient that a document must carry: its name stands in every one."""


class Extracted(NamedTuple):
    """What was read out of one content."""

    text: str
    """The whole text; empty when it was not read, the rest when it was read in part."""
    unread: str = ""
    """Why there is no text, or not all of it, safe to show: `text not read (encrypted PDF)`."""


@dataclass(frozen=True, slots=True)
class Skip:
    """One resource that was not read for facts, and why."""

    reference: str
    """`Claim/7`; `entry 12` (counted from 1) for what is no resource."""
    reason: str
    """One of the constants in `service.record.assemble`."""


@dataclass(frozen=True, slots=True)
class PatientRecord:
    """A patient's record as dated, coded, citable facts, with the account of what was not kept.

    `seen = kept + len(skips)` always holds, counted in resources.
    """

    identity: Identity
    facts: tuple[Fact, ...]
    """Stable order: by kind, then oldest first, then id."""
    seen: int
    kept: int
    skips: tuple[Skip, ...]
    """Every resource that was not kept, by reference."""
    gaps: tuple[Gap, ...]
    inputs: tuple[ResourceVersion, ...]
    """Every resource version that could shape the summary, sorted; our own and other AI output left out."""
    digest: str
    """SHA-256 (hex) over `inputs`: the record's part of the run key."""
    as_of: When | None
    """The newest clinical time in the record, not today."""
    problems: tuple[str, ...] = ()
    """Odd things met while reading, without patient data: `Observation: value of two types`."""
    pasted: int = 0
    """Passages of notes that were left out because an AI wrote them and a person pasted them (SAFETY 25)."""
    _by_id: dict[FactId, Fact] = field(default_factory=dict, repr=False, compare=False)

    @property
    def skipped(self) -> Mapping[str, int]:
        """Reason → number of resources that were not kept for it."""
        return dict(sorted(Counter(skip.reason for skip in self.skips).items()))

    @property
    def security(self) -> tuple[Code, ...]:
        """Every label that a source of these facts carries, each once, in no order of rank."""
        labels = (label for fact in self.facts for source in fact.sources for label in source.security)
        return tuple(dict.fromkeys(labels))

    def fact(self, fact_id: FactId) -> Fact:
        """Return the fact with this id. Raises KeyError where there is none."""
        if not self._by_id:
            self._by_id.update({f.id: f for f in self.facts})
        return self._by_id[fact_id]
