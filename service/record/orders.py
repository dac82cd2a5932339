"""ServiceRequest → order, or directive where it speaks of resuscitation. An order is never shown as done."""

from __future__ import annotations

from collections.abc import Iterator

from service.record.dates import labelled, on_day, span
from service.record.dosage import show_timing
from service.record.facts import Fact, Kind, Status
from service.record.fhirjson import Element
from service.record.reading import Reading, kept, line, tell, words
from service.record.rules import is_directive
from service.record.statuses import REQUEST, read_status
from service.record.values import show_quantity, show_range, show_ratio

_NOT_AN_ORDER = ("proposal", "plan", "option")


def read_service_request(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield the one statement of a ServiceRequest."""
    concept = resource.concept("code")
    name = reading.name_or_narrative(concept.name)
    if not name:
        return
    standing = read_status(resource, "status", REQUEST)
    intent = resource.text("intent")
    what = intent.replace("-", " ") if intent else "request (intent not recorded)"
    status, head = standing.status, f"{standing.words} {what}"
    if intent in _NOT_AN_ORDER and status is Status.ACTIVE:
        status = Status.PLANNED
    if resource.flag("doNotPerform"):
        status, head = Status.NOT_DONE, f"{standing.words} {what} NOT to perform"
    authored = reading.past(resource, "authoredOn") or reading.past(resource, "orderedOn")
    details = _details(resource, reading)
    text = line(name, words(head, labelled("from", authored)), *tell(details))
    directive = is_directive(concept, name)
    yield reading.fact(
        Kind.DIRECTIVE if directive else Kind.ORDER, name, text, codes=concept.codes, status=status,
        recorded_status=standing.recorded, when=authored, details=details,
        category="order" if directive else ", ".join(c.name for c in resource.concepts("category")),
        author=reading.name_of(resource.child("requester")),
    )  # fmt: skip


def _details(resource: Element, reading: Reading) -> tuple[tuple[str, str], ...]:
    priority = resource.text("priority")
    amount = (
        show_quantity(resource.child("quantityQuantity"), dose=True)
        or show_range(resource.child("quantityRange"), dose=True)
        or show_ratio(resource.child("quantityRatio"), dose=True)
    )
    needed = resource.concept("asNeededCodeableConcept").name
    return kept(
        ("priority", priority if priority != "routine" else ""),
        ("due", _due(resource, reading)),
        ("as needed", needed or ("yes" if resource.flag("asNeededBoolean") else "")),
        ("detail", ", ".join(c.name for c in resource.concepts("orderDetail"))),
        ("quantity", amount),
        ("body site", ", ".join(c.name for c in resource.concepts("bodySite"))),
        ("reason", reading.reasons(resource)),
        ("instruction", resource.text("patientInstruction")),
        ("note", resource.notes_text()),
    )


def _due(resource: Element, reading: Reading) -> str:
    if "occurrenceTiming" in resource.raw:
        return show_timing(resource.child("occurrenceTiming"), reading)
    start, end = reading.occurred(resource, "occurrence", past=False)
    return span(start, end) if end else on_day(start)
