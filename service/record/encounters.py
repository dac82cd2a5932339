"""Encounter → where the patient was seen, why, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator

from service.record.dates import days_between, labelled, show_day, span
from service.record.facts import Fact, Kind, Status, When
from service.record.fhirjson import Element, concept_of
from service.record.reading import Reading, kept, line, tell, words
from service.record.statuses import ENCOUNTER, read_status

_CLASSES = {
    "AMB": "ambulatory", "EMER": "emergency", "FLD": "field", "HH": "home health", "IMP": "inpatient",
    "ACUTE": "inpatient acute", "NONAC": "inpatient non-acute", "OBSENC": "observation",
    "PRENC": "pre-admission",
    "SS": "short stay", "VR": "virtual",
}  # fmt: skip
"""HL7 v3-ActCode encounter classes."""


def read_encounter(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield the one statement of an Encounter; its own reference is the fact's encounter."""
    kind = class_words(resource)
    types = [c.name for c in resource.concepts("type")]
    service = resource.concept("serviceType").name
    name = ", ".join(types) or service or f"{kind} encounter".strip()
    standing = read_status(resource, "status", ENCOUNTER)
    period = resource.child("period")
    read = reading.when if standing.status in (Status.PLANNED, Status.CANCELLED) else reading.past
    start, end = read(period, "start"), read(period, "end")
    details = _details(resource, reading, service if types else "")
    text = line(
        name,
        words(f"{kind} encounter,".strip() if types or service else "", standing.words)
        + _course(standing.status, start, end),
        *tell(details),
    )
    yield reading.fact(
        Kind.ENCOUNTER, name, text, codes=tuple(c for t in resource.concepts("type") for c in t.codes),
        status=standing.status, recorded_status=standing.recorded, when=start, until=end, category=kind,
        encounter=reading.version.reference, details=details, author=_attending(resource, reading),
    )  # fmt: skip


def class_words(resource: Element) -> str:
    """Return the class in words: `inpatient`; the recorded display or code where it is no standard one."""
    concept = concept_of(_first(resource.raw.get("class")))
    code = concept.code()
    return _CLASSES.get(code) or concept.name


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else value


def _course(status: Status, start: When | None, end: When | None) -> str:
    if status is Status.PLANNED:
        return f", planned for {show_day(start)}" if start else ""
    if end is None:
        return f", {labelled('since', start)}" if start and status is not Status.COMPLETED else _from(start)
    days = days_between(start, end)
    stay = f" ({days} day{'' if days == 1 else 's'})" if days else ""
    return (
        f", {span(start, end)}{stay}"
        if start and show_day(start) != show_day(end)
        else f" {span(start, end)}"
    )


def _from(start: When | None) -> str:
    return f", {labelled('from', start)}" if start else ""


def _details(resource: Element, reading: Reading, service: str) -> tuple[tuple[str, str], ...]:
    stay = resource.child("hospitalization")
    places = [n for p in resource.children("location") if (n := reading.name_of(p.child("location")))]
    provider = reading.name_of(resource.child("serviceProvider"))
    return kept(
        ("service", service),
        ("reason", reading.reasons(resource)),
        ("diagnoses", _diagnoses(resource, reading)),
        ("admitted from", stay.concept("admitSource").name or reading.name_of(stay.child("origin"))),
        ("readmission", stay.concept("reAdmission").name),
        (
            "discharged to",
            stay.concept("dischargeDisposition").name or reading.name_of(stay.child("destination")),
        ),
        ("location", ", ".join(dict.fromkeys(places))),
        ("provider", provider if provider not in places else ""),
    )


def _diagnoses(resource: Element, reading: Reading) -> str:
    ranked = sorted(resource.children("diagnosis"), key=lambda d: d.number("rank") or 99)
    shown = []
    for diagnosis in ranked:
        name = reading.name_of(diagnosis.child("condition"))
        use = diagnosis.concept("use").name
        if name:
            shown.append(f"{name} ({use})" if use else name)
    return ", ".join(shown)


def _attending(resource: Element, reading: Reading) -> str:
    names = [reading.name_of(p.child("individual")) for p in resource.children("participant")]
    return ", ".join(dict.fromkeys(n for n in names if n))
