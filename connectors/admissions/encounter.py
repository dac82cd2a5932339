"""One Encounter (R4) as a report of a stay. Reads leniently: what cannot be used is named, never raised."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from connectors.admissions.events import Identifier, Subject
from connectors.admissions.stays import GOES_ON, Phase, Stay
from connectors.fhir.codec import canonical, dicts
from connectors.fhir.reference import parse_reference, reference_of

IN_CARE = frozenset({"arrived", "triaged", "in-progress", "onleave"})
"""Of http://hl7.org/fhir/encounter-status, R4: the patient is there, or will come back."""
_VOID = frozenset({"cancelled", "entered-in-error"})
_DIED = frozenset({"exp"})
"""http://terminology.hl7.org/CodeSystem/discharge-disposition"""


@dataclass(frozen=True, slots=True)
class Ward:
    """Which stays are watched. An empty filter admits everything."""

    statuses: tuple[str, ...] = ("in-progress",)
    """With which a stay counts as begun. One that began goes on in any status of `IN_CARE`."""
    classes: tuple[str, ...] = ("IMP", "ACUTE", "NONAC", "EMER", "OBSENC")
    """Codes of v3-ActCode."""
    locations: tuple[str, ...] = ()
    """References (`Location/7`) of which one is a current place of the stay. Places inside them are not
    looked up: name the beds' own ward, or the beds."""
    providers: tuple[str, ...] = ()
    """References of `serviceProvider`."""
    services: tuple[str, ...] = ()
    """Codes of `serviceType`; R4 defines no search parameter for it, so it is applied here."""

    def params(self) -> tuple[tuple[str, str], ...]:
        """Return the search parameters of R4 that say the same, each with its choices."""
        offered = (
            ("status", self.statuses),
            ("class", self.classes),
            ("location", self.locations),
            ("service-provider", self.providers),
        )
        return tuple((name, ",".join(values)) for name, values in offered if values)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an Encounter says: a stay, or in one word why it says nothing, or both (a doubt)."""

    stay: Stay | None
    odd: str = ""
    is_of_class: bool = True
    """Whether the stay is of a class that is watched, wherever it is and however it ended."""


def read_encounter(resource: Any, ward: Ward, base_url: str = "") -> Reading:
    """Return the stay that an Encounter reports, as seen from the ward."""
    reference = reference_of(resource)
    if reference is None or reference.resource_type != "Encounter":
        return Reading(None, "not_an_encounter")
    phase = _phase(resource, ward)
    if phase is None:
        return Reading(None, "unknown_status")
    patient = read_subject(resource.get("subject"), base_url)
    if not patient and phase in GOES_ON:
        return Reading(None, "without_patient")
    location = _location(resource, ward)
    stay = Stay(
        id=f"Encounter/{reference.id}",
        phase=phase,
        patient=patient,
        encounter_class=_class(resource),
        location=location,
        version=reference.version or digest_of(resource),
        updated=_text(_object(resource.get("meta")).get("lastUpdated")),
        at=_instant(resource, phase, location),
    )
    doubtful = phase in GOES_ON and not stay.encounter_class
    is_of_class = not ward.classes or stay.encounter_class in ward.classes
    return Reading(stay, "without_class" if doubtful else "", is_of_class)


def digest_of(resource: dict[str, Any]) -> str:
    """Return a version for a resource whose server gives none: a digest of its content."""
    try:
        return "sha256-" + hashlib.sha256(canonical(resource)).hexdigest()[:32]
    except ValueError:
        return ""


def read_subject(value: Any, base_url: str = "") -> Subject:
    """Return the patient that a Reference names, by reference or identifier; an empty one for neither."""
    value = _object(value)
    found = parse_reference(value.get("reference"), base_url)
    reference = f"Patient/{found.id}" if found and found.resource_type == "Patient" else ""
    identifier = _object(value.get("identifier"))
    number = _text(identifier.get("value"))
    named = (Identifier(_text(identifier.get("system")), number),) if number else ()
    return Subject(reference, () if reference else named)


def _phase(resource: dict[str, Any], ward: Ward) -> Phase | None:
    status = _text(resource.get("status"))
    if status in _VOID:
        return Phase.VOID
    if status == "planned":
        return Phase.PLANNED
    if status == "finished":
        return Phase.DIED if _disposition(resource) & _DIED else Phase.ENDED
    if status not in IN_CARE:
        return None
    return Phase.OPEN if _is_watched(resource, status, ward) else Phase.AWAY


def _is_watched(resource: dict[str, Any], status: str, ward: Ward) -> bool:
    if ward.statuses and status not in ward.statuses and status != "onleave":
        return False
    if ward.classes and _class(resource) not in ward.classes:
        return False
    if ward.locations and not set(ward.locations) & set(_places(resource)):
        return False
    provider = _relative(_object(resource.get("serviceProvider")).get("reference"))
    if ward.providers and provider not in ward.providers:
        return False
    return not ward.services or bool(set(ward.services) & _codes(resource.get("serviceType")))


def _class(resource: dict[str, Any]) -> str:
    return _text(_object(resource.get("class")).get("code"))


def _location(resource: dict[str, Any], ward: Ward) -> str:
    """Return the watched place, where there is one, else the last one that is current."""
    places = _places(resource)
    watched = [place for place in places if place in ward.locations]
    return (watched or places or [""])[-1]


def _places(resource: dict[str, Any]) -> list[str]:
    """Return the current places: `location` also lists where the patient was before, and will be."""
    current = (place for place in dicts(resource.get("location")) if _is_current(place))
    return [name for name in map(_place_of, current) if name]


def _place_of(place: dict[str, Any]) -> str:
    return _relative(_object(place.get("location")).get("reference"))


def _is_current(place: dict[str, Any]) -> bool:
    status = place.get("status")
    if status is not None:
        return bool(status == "active")
    return not _object(place.get("period")).get("end")


def _relative(reference: Any) -> str:
    """Return the last two parts of a reference: places are compared by type and id."""
    return "/".join(reference.split("/")[-2:]) if isinstance(reference, str) else ""


def _disposition(resource: dict[str, Any]) -> set[str]:
    return _codes(_object(resource.get("hospitalization")).get("dischargeDisposition"))


def _codes(concept: Any) -> set[str]:
    return {_text(coding.get("code")) for coding in dicts(_object(concept).get("coding"))} - {""}


def _instant(resource: dict[str, Any], phase: Phase, location: str) -> datetime | None:
    period = _object(resource.get("period"))
    if phase in (Phase.ENDED, Phase.DIED):
        return parse_instant(period.get("end"))
    here = [place for place in dicts(resource.get("location")) if _is_current(place)]
    moved = [
        place for place in here if _relative(_object(place.get("location")).get("reference")) == location
    ]
    since = _object(moved[-1].get("period")).get("start") if moved else None
    return parse_instant(since) or parse_instant(period.get("start"))


def parse_instant(value: Any) -> datetime | None:
    """Return an aware datetime; None for a partial date, a time without zone, or anything else."""
    try:
        when = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return when if when.tzinfo else None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
