"""Device and DeviceUseStatement → implants and devices of the patient."""

from __future__ import annotations

from collections.abc import Iterator

from service.record.dates import labelled, on_day, span
from service.record.facts import Fact, Kind
from service.record.fhirjson import Element
from service.record.reading import Reading, device_name, kept, line, tell, words
from service.record.statuses import STANDING, read_status

UNNAMED = "Device without a recorded name"
"""A device that the record knows by its unique identifier alone is still an implant."""


def read_device(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield the one statement of a Device that belongs to the patient."""
    concept = resource.concept("type")
    carrier = resource.child("udiCarrier")
    udi = carrier.text("carrierHRF") or carrier.text("deviceIdentifier")
    named = reading.name_or_narrative(device_name(resource))
    name = named or (UNNAMED if udi else "")
    if not name:
        return
    standing = read_status(resource, "status", STANDING)
    shown = kept(
        ("UDI", "" if named else udi),
        ("manufacturer", resource.text("manufacturer")),
        ("model", resource.text("modelNumber") or resource.text("model")),
        ("status reason", ", ".join(c.name for c in resource.concepts("statusReason"))),
        ("safety", ", ".join(c.name for c in resource.concepts("safety"))),
        ("note", resource.notes_text()),
    )
    text = line(name, words("device,", standing.words), *tell(shown))
    yield reading.fact(
        Kind.DEVICE, name, text, codes=concept.codes, status=standing.status,
        recorded_status=standing.recorded,
        details=(
            *shown,
            ("udi", udi),
            ("lot", resource.text("lotNumber")),
            ("serial number", resource.text("serialNumber")),
        ),
    )  # fmt: skip


def read_device_use(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield that a device is or was used by the patient."""
    name = reading.name_or_narrative(reading.name_of(resource.child("device")))
    if not name:
        return
    standing = read_status(resource, "status", STANDING)
    start, end = reading.occurred(resource, "timing")
    recorded = reading.past(resource, "recordedOn")
    details = kept(
        ("body site", resource.concept("bodySite").name),
        ("reason", reading.reasons(resource)),
        ("note", resource.notes_text()),
    )
    when = span(start, end) if end else on_day(start)
    text = line(
        name,
        words("device use,", standing.words, when),
        *tell(details),
        labelled("recorded", recorded) if not when else "",
    )
    yield reading.fact(
        Kind.DEVICE, name, text, status=standing.status, recorded_status=standing.recorded,
        when=start or recorded,
        until=end, details=details, author=reading.name_of(resource.child("source")),
    )  # fmt: skip
