"""Medication resources → what was ordered, stated, dispensed or given: different things (SAFETY 9, 12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.record.dates import labelled, on_day, span
from service.record.dosage import route_of, show_administration, show_dosages, structured_dose
from service.record.facts import Fact, Kind, Status
from service.record.fhirjson import Concept, Element
from service.record.reading import Details, Reading, kept, line, medication_name, tell, words
from service.record.statuses import EVENT, REQUEST, STATEMENT, read_status
from service.record.values import show_quantity

_CATEGORIES = ("inpatient", "outpatient", "community", "discharge")
_NOT_AN_ORDER = ("proposal", "plan", "option")


def read_medication_request(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield what was ordered, or ordered not to be given."""
    concept = read_medication(resource, reading)
    if not concept.name:
        return
    standing = read_status(resource, "status", REQUEST)
    intent = resource.text("intent")
    kind = intent.replace("-", " ") if intent else "request (intent not recorded)"
    status = standing.status
    if intent in _NOT_AN_ORDER and status is Status.ACTIVE:
        status = Status.PLANNED
    head = f"{standing.words} {kind}"
    if resource.flag("doNotPerform"):
        status, head = Status.NOT_DONE, f"{standing.words} {kind} NOT to give"
    authored = reading.past(resource, "authoredOn")
    details = _request_details(resource, reading)
    dosage = show_dosages(resource, "dosageInstruction", reading)
    text = line(
        concept.name,
        words(
            head,
            f"({reason})" if (reason := resource.concept("statusReason").name) else "",
            labelled("from", authored),
        ),
        _reported(resource, reading),
        dosage,
        *tell(details),
    )
    yield _fact(
        resource, reading, concept, text, "order", status=status, recorded_status=standing.recorded,
        when=authored,
        details=(*_dose_details(resource, "dosageInstruction", dosage), *details),
        author=reading.name_of(resource.child("requester")),
    )  # fmt: skip


def _request_details(resource: Element, reading: Reading) -> Details:
    dispense = resource.child("dispenseRequest")
    priority = resource.text("priority")
    return kept(
        ("priority", priority if priority != "routine" else ""),
        ("quantity", show_quantity(dispense.child("quantity"), dose=True)),
        ("supply", show_quantity(dispense.child("expectedSupplyDuration"), dose=True)),
        ("reason", reading.reasons(resource)),
        ("note", resource.notes_text()),
    )


def _reported(resource: Element, reading: Reading) -> str:
    if resource.flag("reportedBoolean"):
        return "reported, not prescribed here"
    by = resource.child("reportedReference")
    return f"reported by {reading.name_of(by) or 'someone else'}" if by else ""


def read_medication_statement(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield what someone says is, was or was not taken."""
    concept = read_medication(resource, reading)
    if not concept.name:
        return
    standing = read_status(resource, "status", STATEMENT)
    taken = resource.text("taken")  # STU3
    status = Status.NOT_DONE if taken == "n" else standing.status
    start, end = reading.occurred(resource, "effective")
    asserted = reading.past(resource, "dateAsserted")
    when = span(start, end) if end else labelled("since", start)
    dosage = show_dosages(resource, "dosage", reading)
    reasons = ", ".join(c.name for c in resource.concepts("statusReason"))
    details = kept(
        ("status reason", reasons),
        ("reason", reading.reasons(resource)),
        ("stated by", reading.name_of(resource.child("informationSource"))),
        ("note", resource.notes_text()),
    )
    text = line(
        concept.name,
        words(standing.words, "medication statement," if when else "medication statement", when),
        "not taken" if status is Status.NOT_DONE and "taken" not in standing.words else "",
        dosage,
        *tell(details),
        labelled("recorded", asserted) if not when else "",
    )
    yield _fact(
        resource, reading, concept, text, "statement", status=status, recorded_status=standing.recorded,
        when=start or asserted, until=end, details=(*_dose_details(resource, "dosage", dosage), *details),
    )  # fmt: skip


_GIVEN = {
    Status.COMPLETED: "given (administration completed)",
    Status.NOT_DONE: "not given (administration not done)",
    Status.IN_PROGRESS: "being given (administration in progress)",
    Status.STOPPED: "administration stopped",
    Status.ON_HOLD: "administration on hold",
}


def read_medication_administration(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield what was given, or was not."""
    concept = read_medication(resource, reading)
    if not concept.name:
        return
    standing = read_status(resource, "status", EVENT)
    status = standing.status
    if resource.flag("notGiven") or resource.flag("wasNotGiven"):  # STU3, DSTU2
        status = Status.NOT_DONE
    start, end = reading.occurred(resource, "effective")
    dosage = show_administration(resource.child("dosage"))
    details = kept(
        ("reason", reading.reasons(resource)),
        ("note", resource.notes_text()),
    )
    why = ", ".join(c.name for c in resource.concepts("statusReason"))
    text = line(
        concept.name,
        words(
            _GIVEN.get(status, f"administration, {standing.words}"),
            f"({why})" if why else "",
            span(start, end) if end else on_day(start),
        ),
        dosage,
        *tell(details),
    )
    yield _fact(
        resource, reading, concept, text, "administration", status=status, recorded_status=standing.recorded,
        when=start, until=end,
        details=(*kept(("dosage", dosage), ("status reason", why)), *details),
    )  # fmt: skip


def read_medication_dispense(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield what was handed out, or was not."""
    concept = read_medication(resource, reading)
    if not concept.name:
        return
    standing = read_status(resource, "status", EVENT)
    over = reading.past(resource, "whenHandedOver")
    prepared = reading.past(resource, "whenPrepared")
    done = "dispensed" if standing.status is Status.COMPLETED else "dispense"
    head = f"{done} ({standing.words})"
    if standing.status is Status.NOT_DONE:
        head = f"not dispensed ({standing.words})"
    why = resource.concept("statusReasonCodeableConcept").name or reading.name_of(
        resource.child("statusReasonReference")
    )
    dosage = show_dosages(resource, "dosageInstruction", reading)
    details = kept(
        ("status reason", why),
        ("quantity", show_quantity(resource.child("quantity"), dose=True)),
        ("supply", show_quantity(resource.child("daysSupply"), dose=True)),
        ("note", resource.notes_text()),
    )
    when = on_day(over) or (f"prepared {on_day(prepared)}" if prepared else "")
    text = line(concept.name, words(head, when), dosage, *tell(details))
    yield _fact(
        resource, reading, concept, text, "dispense", status=standing.status,
        recorded_status=standing.recorded,
        when=over or prepared, details=(*_dose_details(resource, "dosageInstruction", dosage), *details),
    )  # fmt: skip


def read_medication(resource: Element, reading: Reading) -> Concept:
    """Return the drug: coded here, contained, or in another resource. Its name is empty where unknown."""
    concept = resource.concept("medicationCodeableConcept")
    holder = resource.child("medicationReference")
    medication = resource.child("medication")  # R5: CodeableReference
    if not concept.name and medication:
        concept, holder = medication.concept("concept"), medication.child("reference") or holder
    if concept.name:
        return concept
    target = reading.resolve(holder.text("reference"))
    codes = target.concept("code").codes if target else ()
    name = (medication_name(target, reading) if target else "") or reading.name_of(holder)
    return Concept(reading.name_or_narrative(name), codes)


def _dose_details(resource: Element, key: str, dosage: str) -> Details:
    dose = structured_dose(resource, key)
    return kept(("dosage", dosage), ("dose", dose), ("route", route_of(resource, key)))


def _category(resource: Element) -> str:
    names = {c.code(c.name).lower() for c in resource.concepts("category")}
    return next((known for known in _CATEGORIES if known in names), "")


def _fact(
    resource: Element, reading: Reading, concept: Concept, text: str, record: str, **fields: Any
) -> Fact:
    details = (*fields.pop("details"), ("record", record))
    category = _category(resource)
    if category:
        text = f"{text}; category: {category}"
    return reading.fact(
        Kind.MEDICATION, concept.name, text, codes=concept.codes, category=category, details=details, **fields
    )
