"""ImagingStudy and Media → that pictures exist, of what and when. No pixel is read here."""

from __future__ import annotations

from collections.abc import Iterator

from service.record.dates import on_day, span
from service.record.facts import Fact, Kind
from service.record.fhirjson import Element
from service.record.reading import Reading, kept, line, tell, words
from service.record.statuses import EVENT, STANDING, read_status

_UID_PREFIX = "urn:oid:"


def read_imaging_study(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield the one statement of an ImagingStudy, with its study UID for the PACS."""
    series = resource.children("series")
    modalities = [c.name for c in resource.concepts("modality")] or [
        s.concept("modality").name for s in series
    ]
    modality = ", ".join(dict.fromkeys(m for m in modalities if m))
    concept = resource.concept("procedureCode")
    name = concept.name or resource.text("description") or words(modality, "imaging study")
    standing = read_status(resource, "status", STANDING)
    started = reading.past(resource, "started")
    sites = [words(s.concept("laterality").name, s.concept("bodySite").name) for s in series]
    details = kept(
        ("modality", modality),
        ("body site", ", ".join(dict.fromkeys(s for s in sites if s))),
        ("description", resource.text("description") if resource.text("description") != name else ""),
        ("series", ", ".join(dict.fromkeys(d for s in series if (d := s.text("description"))))),
        ("reason", reading.reasons(resource)),
        ("note", resource.notes_text()),
    )
    text = line(
        name,
        words("imaging study,", standing.words, on_day(started)),
        *tell(details),
        _size(resource, series),
    )
    yield reading.fact(
        Kind.IMAGING, name, text, codes=concept.codes, status=standing.status,
        recorded_status=standing.recorded,
        when=started, category=modality,
        details=(*details, ("study uid", study_uid(resource)), ("size", _size(resource, series))),
        author=reading.name_of(resource.child("referrer")),
    )  # fmt: skip


def study_uid(resource: Element) -> str:
    """Return the DICOM study instance UID, or an empty string."""
    for identifier in resource.children("identifier"):
        value = identifier.text("value")
        if identifier.text("system") == "urn:dicom:uid" or value.startswith(_UID_PREFIX):
            return value.removeprefix(_UID_PREFIX)
    return ""


def _size(resource: Element, series: list[Element]) -> str:
    of_series = resource.text("numberOfSeries") or (str(len(series)) if series else "")
    of_images = resource.text("numberOfInstances")
    images = f"{of_images} image{'' if of_images == '1' else 's'}" if of_images else ""
    return ", ".join(part for part in (f"{of_series} series" if of_series else "", images) if part)


def read_media(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield that a picture, video or recording exists; what it shows is not read."""
    content = resource.child("content")
    kind = resource.concept("type").name or "media"
    name = content.text("title") or words(
        resource.concept("modality").name, resource.concept("view").name, kind
    )
    standing = read_status(resource, "status", EVENT)
    start, end = reading.occurred(resource, "created")
    details = kept(
        ("body site", resource.concept("bodySite").name),
        ("reason", reading.reasons(resource)),
        ("note", resource.notes_text()),
    )
    text = line(
        name,
        words(f"{kind},", standing.words, span(start, end) if end else on_day(start)),
        *tell(details),
        "content not read",
    )
    yield reading.fact(
        Kind.IMAGING, name, text, status=standing.status, recorded_status=standing.recorded, when=start,
        until=end,
        details=details, author=reading.name_of(resource.child("operator")),
    )  # fmt: skip
