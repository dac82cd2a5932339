"""What is known of each stay, and which event the next report of it means.

This is the one place that decides what is news. It is pure: the same reports in the same order give the same
events, a report that was already heard gives none, and an older one never undoes a newer one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from connectors.admissions.events import (
    Admitted,
    Cancelled,
    Deceased,
    Discharged,
    Event,
    Identifier,
    Merged,
    Reinstated,
    Source,
    Subject,
    Transferred,
    Updated,
    Visit,
)
from connectors.fhir.stamp import is_newer


class Phase(StrEnum):
    """Where a stay stands. AWAY goes on, but outside of what is watched."""

    OPEN = "open"
    AWAY = "away"
    ENDED = "ended"
    DIED = "died"
    VOID = "void"
    PLANNED = "planned"


WITHOUT_VISIT = "patient:"
"""What the id of a stay begins with whose source numbers no stays."""
GOES_ON = frozenset({Phase.OPEN, Phase.AWAY})
_ENDINGS: Mapping[Phase, type[Event]] = {
    Phase.ENDED: Discharged,
    Phase.DIED: Deceased,
    Phase.VOID: Cancelled,
    Phase.PLANNED: Cancelled,
}
"""A stay that had begun and is planned again has not begun."""


@dataclass(frozen=True, slots=True)
class Stay:
    """One report of one stay: what matters of one version of an Encounter, or of one row of a census."""

    id: str = field(repr=False)
    """`Encounter/1`, or the visit number of a census row, or its patient after `WITHOUT_VISIT`."""
    phase: Phase
    patient: Subject
    encounter_class: str = ""
    location: str = field(default="", repr=False)
    version: str = ""
    updated: str = field(default="", repr=False)
    """`meta.lastUpdated` as received."""
    at: datetime | None = field(default=None, repr=False)
    """When the present phase began, as recorded."""

    def plain(self) -> list[Any]:
        """Return the same as JSON values, for `of_plain`."""
        return [
            self.id, self.phase.value,
            self.patient.reference, [list(one) for one in self.patient.identifiers],
            self.encounter_class, self.location, self.version, self.updated,
            self.at.isoformat() if self.at else None,
        ]  # fmt: skip

    @classmethod
    def of_plain(cls, values: list[Any]) -> Stay:
        """Return the stay of which `plain` gave the values. Raises ValueError, TypeError."""
        key, phase, reference, identifiers, encounter_class, location, version, updated, at = values
        patient = Subject(reference, tuple(Identifier(*one) for one in identifiers))
        when = datetime.fromisoformat(at) if at else None
        return cls(key, Phase(phase), patient, encounter_class, location, version, updated, when)


@dataclass(slots=True)
class Stays:
    """All stays that are known by now; `take` compares one report with what is known."""

    source: Source
    known: dict[str, Stay] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    """Ids of all stays that were reported to this object."""

    @classmethod
    def of(cls, source: Source, stays: Iterable[Stay]) -> Stays:
        """Begin with what an earlier look knew."""
        return cls(source, {stay.id: stay for stay in stays})

    def __iter__(self) -> Iterator[Stay]:
        return iter(self.known.values())

    def take(self, stay: Stay) -> tuple[Event, ...]:
        """Return what this report of a stay means; nothing where it is no news."""
        self.touched.add(stay.id)
        before = self.known.get(stay.id)
        if before is None:
            return self._take_new(stay)
        if not is_newer((stay.version, stay.updated), (before.version, before.updated)):
            return ()
        after = stay if stay.patient else replace(stay, patient=before.patient)
        self.known[stay.id] = after
        merged = self._merged(before, after)
        event = self._event(before, after)
        if event is None or (merged and isinstance(event, Updated)):
            return merged
        return (*merged, event)

    def end(self, stay_id: str, phase: Phase, at: datetime | None, version: str) -> tuple[Event, ...]:
        """Return what it means that a stay is not there any more."""
        before = self.known[stay_id]
        if before.phase not in GOES_ON:
            return ()
        self.touched.add(stay_id)
        after = self.known[stay_id] = replace(before, phase=phase, at=at, version=version)
        return (self._make(_ENDINGS[phase], after),)

    def _take_new(self, stay: Stay) -> tuple[Event, ...]:
        if stay.phase is Phase.OPEN:
            self.known[stay.id] = stay
            return (self._make(Admitted, stay),)
        return ()

    def _merged(self, before: Stay, after: Stay) -> tuple[Event, ...]:
        if before.patient == after.patient:
            return ()
        return (self._make(Merged, after, retired=before.patient),)

    def _event(self, before: Stay, after: Stay) -> Event | None:
        if before.phase in GOES_ON and after.phase in _ENDINGS:
            return self._make(_ENDINGS[after.phase], after)
        if before.phase in _ENDINGS:
            return self._after_the_end(before, after)
        if before.phase is Phase.AWAY and after.phase is Phase.AWAY:
            return None
        if _place(before) != _place(after):
            leaves = after.phase is Phase.AWAY
            return self._make(Transferred, after, from_location=before.location, leaves=leaves)
        return self._make(Updated, after)

    def _after_the_end(self, before: Stay, after: Stay) -> Event | None:
        if after.phase is Phase.OPEN:
            return self._make(Reinstated, after)
        if after.phase is before.phase or after.phase in (Phase.AWAY, Phase.PLANNED):
            return None
        return self._make(_ENDINGS[after.phase], after)

    def _make(self, kind: type[Event], stay: Stay, **more: Any) -> Event:
        return kind(
            patient=stay.patient,
            visit=visit_of(stay.id),
            encounter_class=stay.encounter_class,
            location=stay.location,
            at=stay.at,
            source=self.source,
            key=f"{stay.id}/{stay.version or stay.updated}/{kind.__name__.lower()}",
            **more,
        )


def visit_of(stay_id: str) -> Visit:
    """Return the visit that a stay's id names; an empty one where the source numbers no stays."""
    if stay_id.startswith(WITHOUT_VISIT):
        return Visit()
    if stay_id.startswith("Encounter/"):
        return Visit(reference=stay_id)
    return Visit(number=Identifier("", stay_id))


def _place(stay: Stay) -> tuple[str, str, Phase]:
    return (stay.encounter_class, stay.location, stay.phase)
