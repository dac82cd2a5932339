"""Pictures that the record itself keeps: which of them the model may be shown, and why others are not. Pure.

Such a picture has no header. Whose it is, its entry's subject alone tells (SAFETY 3), so only entries count
that the record was assembled from, in the very version that was read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from connectors.fhir.codec import dicts
from connectors.fhir.pictures import PictureLink, pictures_of
from service.imaging.offer import Series, Study
from service.imaging.picture import Spot
from service.record.dates import parse_when
from service.record.facts import Fact, Kind, PatientRecord, ResourceVersion, Status, When
from service.record.fhirjson import Element
from service.record.labels import ai_targets, is_ai_output, security_codes
from service.record.references import own_reference
from service.record.versions import content_digest

Resource = Mapping[str, Any]

MOST_PHOTOGRAPHS = 12
"""More are not asked for: the newest are."""
NOT_ASKED = "not asked for: newer ones come first"
NO_PHOTOGRAPH = "its entry does not say that it is a photograph, and pages are not read as pictures"
NOT_READ = "its kind of file is not read as a picture"
ONE_OF_ENTRY = "only the first picture of an entry is looked at"

_CURRENT = frozenset(
    {
        Status.COMPLETED,
        Status.FINAL,
        Status.CORRECTED,
        Status.PRELIMINARY,
        Status.IN_PROGRESS,
        Status.UNKNOWN,
    }
)
_PHOTOGRAPHS = frozenset({("http://loinc.org", "72170-4"), ("http://loinc.org", "55113-5")})
"""LOINC for a photographic image and for key images. Types of imaging studies mean their reports."""
_TEXT = re.compile(
    r"\b(reports?|letters?|notes?|summar(y|ies)|forms?|consents?|referrals?|results?|prescriptions?|stud(y|ies)|"
    r"scans?|scanned|certificates?|charts?|questionnaires?|correspondence)\b",
    re.IGNORECASE,
)
"""Words of types that are read. A JPEG of one is a scanned page: the model would be shown a letter."""
_PHOTOGRAPH = re.compile(
    r"\b(photo\w*|(clinical|wound|skin|key|dermosco\w+) (image|picture)s?)\b", re.IGNORECASE
)
_IMAGE = re.compile(r"\b(images?|imaging|pictures?)\b", re.IGNORECASE)
"""Weak words: a category says `imaging` of reports too, so a type of its own is heard first."""


class Photograph(NamedTuple):
    """One picture of the record that may be shown, and what the record says of it."""

    link: PictureLink
    fact: Fact
    version: ResourceVersion
    taken: When | None
    study: Study


@dataclass(frozen=True, slots=True)
class Passed:
    """Pictures of the record that are not shown, for one reason."""

    source: str
    """`Media/3`; empty for several entries."""
    what: str
    why: str
    count: int
    day: When | None = None


@dataclass(frozen=True, slots=True)
class Photographs:
    """What a record keeps of pictures: newest first, and what of it is passed over."""

    found: tuple[Photograph, ...] = ()
    passed: tuple[Passed, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.found or self.passed)


class _Entry(NamedTuple):
    """One resource that the record was assembled from, with what was read of it."""

    resource: Resource
    fact: Fact
    version: ResourceVersion

    @property
    def is_picture(self) -> bool:
        return self.resource["resourceType"] == "Media" or is_photograph(self.resource)


def photographs_of(record: PatientRecord, resources: Iterable[Resource]) -> Photographs:
    """Return the pictures that this record keeps. `resources` are what it was assembled from.

    What the record does not rest on is passed over in silence: another patient's, an AI's, an older version,
    what was entered in error.
    """
    read = dict(_read_by(record))
    if not read:
        return Photographs()
    known = [dict(one) for one in resources]
    entries = _entries(known, read)
    binaries = [one for one in known if one.get("resourceType") == "Binary"]
    links: dict[str, list[PictureLink]] = {}
    for link in pictures_of([*(entry.resource for entry in entries.values()), *binaries]):
        links.setdefault(link.source, []).append(link)
    shown = [_photograph(entry, links[name][0]) for name, entry in entries.items() if _is_shown(entry, links)]
    shown.sort(key=lambda one: (one.study.taken, one.link.source), reverse=True)
    return Photographs(tuple(shown[:MOST_PHOTOGRAPHS]), tuple(_passed(entries, links, shown)))


def is_photograph(document: Resource) -> bool:
    """Tell whether a DocumentReference says that it is a photograph or image, by its type or category.

    A code decides. Of words, any that means a text to read outweighs the others.
    """
    element = Element(dict(document), "DocumentReference", set())
    kind, categories = element.concept("type"), element.concepts("category")
    if any(one.has(_PHOTOGRAPHS) for one in (kind, *categories)):
        return True
    category = ", ".join(one.name for one in categories)
    if _TEXT.search(f"{kind.name}, {category}"):
        return False
    return bool(_PHOTOGRAPH.search(f"{kind.name}, {category}") or _IMAGE.search(kind.name or category))


def _read_by(record: PatientRecord) -> Iterator[tuple[str, tuple[Fact, ResourceVersion]]]:
    """Yield what was read of media and documents, by reference; whole entries after sentences of them."""
    for fact in sorted(record.facts, key=lambda one: one.span is None):
        wanted = {Kind.IMAGING: "Media/", Kind.NOTE: "DocumentReference/"}.get(fact.kind)
        for version in fact.sources if wanted and fact.status in _CURRENT else ():
            if wanted and version.reference.startswith(wanted):
                yield version.reference, (fact, version)


def _entries(
    known: Iterable[dict[str, Any]], read: Mapping[str, tuple[Fact, ResourceVersion]]
) -> dict[str, _Entry]:
    """Return the very versions that were read, by reference, and none that an AI had a part in.

    A document that a clinician attested and added to is in the record for the added words alone.
    """
    given = list(known)
    targets = {
        _plain(target)
        for one in given
        if one.get("resourceType") in ("Device", "Provenance")
        for target in ai_targets(_element(one), own_reference(one))
    }
    return {
        name: _Entry(one, *read[name])
        for one in given
        if (name := own_reference(one)) in read
        and content_digest(one) == read[name][1].digest
        and not is_ai_output(_element(one), name, security_codes(_element(one)), targets, _plain)
    }


def _element(resource: dict[str, Any]) -> Element:
    return Element(resource, str(resource.get("resourceType")), set())


def _plain(reference: str) -> str:
    return "/".join(reference.partition("/_history/")[0].rsplit("/", 2)[-2:])


def _is_shown(entry: _Entry, links: Mapping[str, list[PictureLink]]) -> bool:
    return entry.version.reference in links and entry.is_picture


def _photograph(entry: _Entry, link: PictureLink) -> Photograph:
    fact, taken = entry.fact, _taken(link, entry.fact)
    told = dict(fact.details)
    place = told.get("body site", "")
    words = (fact.name, told.get("title", ""), told.get("description", ""))
    study = Study(
        link.source, link.source, (Series("", "", (Spot(link.source, "", ""),), body_part=place),),
        taken=taken.day.strftime("%Y%m%d") if taken else "",
        description=", ".join(dict.fromkeys(filter(None, words))),
        reason=told.get("reason", ""), body_site=place, is_kept=True,
    )  # fmt: skip
    return Photograph(link, fact, entry.version, taken, study)


def _taken(link: PictureLink, fact: Fact) -> When | None:
    """Return the day of the entry; of the picture itself where that is earlier: filing may take years."""
    own = parse_when(link.taken, None)
    if own is None or fact.when is None:
        return fact.when
    return own if own.day < fact.when.day else fact.when


def _passed(
    entries: Mapping[str, _Entry], links: Mapping[str, list[PictureLink]], shown: list[Photograph]
) -> Iterator[Passed]:
    """Yield what is not shown: pages and foreign kinds in one line each, whatever their number."""
    for one in shown[:MOST_PHOTOGRAPHS]:
        more = len(links[one.link.source]) - 1
        if more:
            yield Passed(one.link.source, one.fact.name, ONE_OF_ENTRY, more, one.taken)
    later = sum(len(links[one.link.source]) for one in shown[MOST_PHOTOGRAPHS:])
    pages = sum(len(links[name]) for name, entry in entries.items() if name in links and not entry.is_picture)
    strange = sum(_images_in(entry.resource) for name, entry in entries.items() if name not in links)
    for what, why, count in (
        ("photographs of the record", NOT_ASKED, later),
        ("documents that are kept as pictures", NO_PHOTOGRAPH, pages),
        ("other entries of the record", NOT_READ, strange),
    ):
        if count:
            yield Passed("", what, why, count)


def _images_in(resource: Resource) -> int:
    """Return how many pictures of an entry are of a kind that nothing here reads: HEIC, TIFF, DICOM."""
    contents = [resource.get("content")] if resource["resourceType"] == "Media" else []
    contents += [one.get("attachment") for one in dicts(resource.get("content"))]
    kinds = (str(one.get("contentType")).lower() for one in dicts(contents))
    return sum(kind.startswith(("image/", "application/dicom")) for kind in kinds)
