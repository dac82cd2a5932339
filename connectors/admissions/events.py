"""What can happen to an admission, in one vocabulary for all sources.

An event says what a source reported, not what is true: its reader looks the patient up before doing anything.
Who, which stay and where never appear in a repr, so that an event can be logged by accident and tell nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar


class Source(StrEnum):
    """Where an event was heard."""

    POLL = "poll"
    EXPORT = "export"
    HL7 = "hl7"
    CENSUS = "census"
    HAND = "hand"


class Identifier(NamedTuple):
    """A business identifier; `system` is a URI, or an HL7 v2 assigning authority as it was written."""

    system: str
    value: str
    kind: str = ""
    """Identifier type of HL7 table 0203 (`MR`, `VN`, …), where the source tells it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One patient: a literal reference (`Patient/1`), identifiers, or both."""

    reference: str = field(default="", repr=False)
    identifiers: tuple[Identifier, ...] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        return bool(self.reference or self.identifiers)


@dataclass(frozen=True, slots=True)
class Visit:
    """One stay: a literal reference (`Encounter/1`), a visit number, or both."""

    reference: str = field(default="", repr=False)
    number: Identifier | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return bool(self.reference or self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to one stay."""

    patient: Subject
    visit: Visit
    encounter_class: str = ""
    """Code of v3-ActCode (`IMP`, `EMER`, …); empty where unknown."""
    location: str = field(default="", repr=False)
    """Reference of the current place, or point of care, room and bed of HL7 v2; empty where unknown."""
    at: datetime | None = field(default=None, repr=False)
    """When it happened as far as the source tells, aware; None where it tells no instant."""
    source: Source
    key: str = field(default="", repr=False)
    """The same for the same news from the same source: who stores events ignores a key it already has."""


class Admitted(Event):
    """A stay began, or is seen for the first time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred(Event):
    """The place, the class or the care of a stay changed."""

    from_location: str = field(default="", repr=False)
    leaves: bool = False
    """True where the stay goes on, but outside of what this source was asked to watch."""


class Updated(Event):
    """Something else about the stay or the patient changed."""


class Discharged(Event):
    """The stay ended, the patient being alive as far as was told."""


class Deceased(Event):
    """The patient died; no stay goes on."""


class Cancelled(Event):
    """The stay never was: the admission was cancelled, entered in error or deleted."""


class Reinstated(Event):
    """The discharge was taken back: the stay goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged(Event):
    """The retired patient's stay, or all of the retired patient, now belongs to `patient`."""

    retired: Subject


CursorT = TypeVar("CursorT")


@dataclass(frozen=True, slots=True)
class Batch(Generic[CursorT]):
    """What one look brought. Store the events, then the cursor, in one transaction."""

    events: tuple[Event, ...]
    cursor: CursorT
    odd: Counter[str] = field(default_factory=Counter)
    """How many records were left out or doubted, by reason; the reasons hold no text of any record."""
    seen: int = 0
    """How many records were looked at."""
    is_complete: bool = True
    """False where something may have been missed; the cursor then asks for it again."""
