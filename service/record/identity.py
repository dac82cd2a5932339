"""Who the patient is, and when a run must stop before a word is written (SAFETY 1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import replace
from typing import Any

from service.errors import RecordError
from service.record.dates import parse_when, show_day
from service.record.facts import Fact, Identity, Kind, Resource, Status
from service.record.fhirjson import Element
from service.record.labels import labels_to_carry, security_codes
from service.record.reading import Reading, clause, line, person_name
from service.record.references import own_reference
from service.record.versions import content_digest

NO_IDENTITY = Identity("", "", "", "", "")
_ADVICE = "Check the patient in the EHR, and ask for the current record."


def identity_of(
    patient: Resource | None,
    reference: str,
    notes: set[str],
    allowed: Set[tuple[str, str]] = frozenset(),
) -> Identity:
    """Return the banner of a chart's Patient; of one that is only named, the reference alone.

    `allowed` are the security labels that the site declares harmless.
    """
    if patient is None:
        return Identity(reference, "", "", "", "") if reference else NO_IDENTITY
    element = Element(patient, "Patient", notes)
    labels = labels_to_carry(security_codes(element), allowed)
    return replace(read_identity(element, reference), security=labels)


def read_identity(patient: Element, reference: str) -> Identity:
    """Return the banner of a Patient; missing parts are empty strings."""
    is_deceased, when = _deceased(patient)
    return Identity(
        reference, person_name(patient), patient.text("birthDate"), patient.text("gender"),
        record_number(patient),
        is_deceased, when,
    )  # fmt: skip


def read_patient(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield the one statement of a Patient. The name stays in the banner: no claim needs it."""
    gender = resource.text("gender")
    born = reading.when(resource, "birthDate")
    languages = [
        c.concept("language").name
        for c in resource.children("communication")
        if c.flag("preferred") is not False
    ]
    is_deceased, died = _deceased(resource)
    death = reading.past(resource, "deceasedDateTime") if died else None
    told = f"deceased {show_day(death)}" if death else "deceased" if is_deceased else ""
    text = line(
        "Patient",
        gender or "gender not recorded",
        f"born {show_day(born)}" if born else "birth date not recorded",
        told,
        clause("language", ", ".join(name for name in languages if name)),
    )
    yield reading.fact(
        Kind.PATIENT, "Patient", text,
        status=Status.INACTIVE if resource.flag("active") is False else Status.ACTIVE,
        recorded_status="", value=gender, encounter=None,
        details=(("gender", gender), ("birth date", resource.text("birthDate")), ("deceased", told)),
    )  # fmt: skip


def record_number(patient: Element) -> str:
    """Return the medical record number: the identifier of type MR, else one that is no national number."""
    fallback = ""
    for identifier in patient.children("identifier"):
        codes = {c.code for c in identifier.concept("type").codes}
        value = identifier.text("value")
        if "MR" in codes and value:
            return value
        if not fallback and not codes and identifier.text("use") in ("official", "usual"):
            fallback = value
    return fallback


def _deceased(patient: Element) -> tuple[bool, str]:
    when = patient.text("deceasedDateTime")
    return bool(when) or patient.flag("deceasedBoolean") is True, when


def patient_reference(patient: Resource | None, patient_id: str | None) -> str:
    """Return the reference of the patient of a chart, read or only named; empty where there is neither."""
    if patient is not None:
        return own_reference(patient) or f"Patient/~{(content_digest(patient) or '')[:16]}"
    return f"Patient/{plain_id(patient_id)}" if patient_id else ""


def plain_id(patient_id: str) -> str:
    """Return the id of `Patient/1` or `1`."""
    return patient_id.split("/_history/", 1)[0].rsplit("/", 1)[-1]


def find_patient(resources: Iterable[Any], patient_id: str | None) -> Resource | None:
    """Return the Patient asked for; the first one of the input where none is asked for."""
    wanted = None if patient_id is None else plain_id(patient_id)
    for resource in resources:
        if isinstance(resource, dict) and resource.get("resourceType") == "Patient":
            own = own_reference(resource)
            if wanted is None or own in (f"Patient/{wanted}", patient_id):
                return resource
    return None


def stop_reason(resources: Iterable[Any], patient_id: str | None) -> str | None:
    """Return why this patient must not be summarised, as a safe sentence; None where it may be."""
    known = [r for r in resources if isinstance(r, dict) and r.get("resourceType") == "Patient"]
    if not known:
        return "There is no Patient in what was read."
    patient = find_patient(known, patient_id)
    if patient is None:
        return "The server answered with another Patient than the one asked for."
    element = Element(patient, "Patient", set())
    if any(link.text("type") == "replaced-by" for link in element.children("link")):
        return "This Patient was merged: another record replaces it."
    if element.flag("active") is False:
        return "This Patient record is marked as not active."
    return None


def check_patient(resources: Iterable[Any], patient_id: str | None) -> None:
    """Refuse a patient that must not be summarised. Raises RecordError with a safe sentence."""
    reason = stop_reason(resources, patient_id)
    if reason is not None:
        raise RecordError(reason, _ADVICE)


def age_on(birth_date: str, day: Any) -> int | None:
    """Return whole years from a recorded birth date to a day; None where the birth date is unknown.

    A birth date that is only a year or month counts from its last day: the younger age is the safe one.
    """
    born = parse_when(birth_date, None)
    if born is None:
        return None
    last = born.latest.date()
    return int(day.year - last.year - ((day.month, day.day) < (last.month, last.day)))
