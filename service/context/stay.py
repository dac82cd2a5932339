"""The encounter at hand: which of the facts belong to this stay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from service.record.facts import Fact, Kind, PatientRecord, Status

_ADMITTED = ("inpatient", "emergency", "observation", "short stay")


@dataclass(frozen=True, slots=True)
class Stay:
    """One encounter with its period. `end` is None while it lasts."""

    reference: str
    start: datetime | None
    end: datetime | None

    def holds(self, fact: Fact) -> bool:
        """Tell whether a fact was recorded for this encounter, or, recorded for none, within its period."""
        if fact.encounter is not None:
            return fact.encounter == self.reference
        if self.start is None or fact.when is None:
            return False
        return fact.when.latest >= self.start and (self.end is None or fact.when.earliest <= self.end)


def find_stay(record: PatientRecord, encounter: str | None = None, *, ended: bool = False) -> Stay | None:
    """Return the encounter named; else the newest admission that lasts; with `ended`, else the last one.

    None where there is no such encounter: then nothing is said to belong to a stay.
    """
    visits = [fact for fact in record.facts if fact.kind is Kind.ENCOUNTER and fact.encounter]
    if encounter is not None:
        return next((_stay(visit) for visit in visits if visit.encounter == encounter), None)
    admissions = [visit for visit in visits if visit.category.startswith(_ADMITTED)]
    lasting = [visit for visit in admissions if visit.status is Status.IN_PROGRESS]
    wanted = lasting or (admissions or visits if ended else [])
    return _stay(max(wanted, key=_start)) if wanted else None


def _stay(visit: Fact) -> Stay:
    return Stay(
        visit.encounter or visit.source.reference,
        visit.when.earliest if visit.when else None,
        visit.until.latest if visit.until else None,
    )


def _start(visit: Fact) -> tuple[float, str]:
    return (visit.when.earliest.timestamp() if visit.when else float("-inf")), visit.id
