"""From a patient's record to its images: which studies it names, where each can be fetched, or why not.

An address in a record is somebody's input. It is used only on the origin of the configured PACS or on an
allow-listed one; where it leads elsewhere, or there is none, the configured PACS is asked for the study. The
caller hands in resources of one patient alone: nothing here compares whom they are about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from connectors.dicomweb.attributes import plain_uid
from connectors.errors import ConnectorError
from connectors.fhir.codec import dicts
from connectors.fhir.reference import reference_of
from connectors.origin import check_base_url, origin_of

Resource = Mapping[str, Any]
_SERVICES = ("dicom-wado-rs", "dicom-qido-rs")
"""http://terminology.hl7.org/CodeSystem/endpoint-connection-type, the better one first."""
_NOT_IN_USE = frozenset({"suspended", "error", "off", "entered-in-error", "test"})
_NO_IMAGES = frozenset({"cancelled", "entered-in-error"})
NO_PACS = "The record names no image archive, and none is configured."
UNREADABLE = "The record names no image archive that speaks DICOMweb, and none is configured."
FOREIGN = "The image archive that the record names is not among those that are allowed."
NO_UID = "The record gives no study instance UID."
CANCELLED = "The study is recorded as cancelled or as entered in error."


@dataclass(frozen=True, slots=True)
class StudyLink:
    """One study of the record and the way to it. Without a way `base_url` is empty, and `reason` says why."""

    source: str
    """`ImagingStudy/7`"""
    source_version: str
    study: str
    base_url: str = ""
    """DICOMweb base URL of the service that is to be asked."""
    reason: str = ""
    """Safe to show."""
    series: tuple[str, ...] = ()
    """Those that this service holds, where the record gives series places of their own; else empty."""


def links_of(
    resources: Iterable[Resource], pacs_url: str = "", allowed_origins: Sequence[str] = ()
) -> tuple[StudyLink, ...]:
    """Return a link for each study of the record, in its order; one a place where series have their own."""
    known = list(resources)
    endpoints = {_own(one): one for one in known if one.get("resourceType") == "Endpoint"}
    way = _Way(pacs_url.rstrip("/"), frozenset(map(origin_of, (*filter(None, [pacs_url]), *allowed_origins))))
    return tuple(
        link
        for one in known
        if one.get("resourceType") == "ImagingStudy"
        for link in _links(one, endpoints, way)
    )


def missing_endpoints(resources: Iterable[Resource]) -> tuple[str, ...]:
    """Return the Endpoints that studies refer to and that are not here: `Endpoint/3`, each once."""
    known = list(resources)
    here = {_own(one) for one in known}
    wanted = (
        reference
        for one in known
        if one.get("resourceType") == "ImagingStudy"
        for holder in (one, *dicts(one.get("series")))
        for reference in _references(holder)
    )
    return tuple(dict.fromkeys(one for one in wanted if one.startswith("Endpoint/") and one not in here))


def study_uid(resource: Resource) -> str:
    """Return the study instance UID of an ImagingStudy (R4: an identifier); empty where it has none."""
    identifiers = dicts(resource.get("identifier"))
    named = [one for one in identifiers if one.get("system") == "urn:dicom:uid"]
    likely = [one for one in identifiers if str(one.get("value", "")).startswith("urn:oid:")]
    return next(filter(None, (plain_uid(one.get("value")) for one in (*named, *likely))), "")


@dataclass(frozen=True, slots=True)
class _Way:
    """The configured PACS, and the origins that may be asked."""

    pacs_url: str
    origins: frozenset[str]

    def to(self, endpoints: Sequence[Resource]) -> tuple[str, str]:
        """Return the base URL for a study whose record names these, and why there is none."""
        addresses = [address for one in endpoints if (address := _address(one))]
        for address in addresses:
            if origin_of(address) in self.origins:
                return address, ""
        if self.pacs_url:
            return self.pacs_url, ""
        return "", FOREIGN if addresses else UNREADABLE if endpoints else NO_PACS


def _links(study: Resource, endpoints: Mapping[str, Resource], way: _Way) -> Iterator[StudyLink]:
    uid = study_uid(study)
    base = StudyLink(_own(study), _version(study), uid)
    refusal = CANCELLED if study.get("status") in _NO_IMAGES else "" if uid else NO_UID
    if refusal:
        yield replace(base, reason=refusal)
        return
    places: dict[tuple[str, str], list[str]] = {}
    of_study = _named(study, study, endpoints)
    for series in dicts(study.get("series")):
        own = _named(series, study, endpoints)
        places.setdefault(way.to(own or of_study), []).append(plain_uid(series.get("uid")))
    for (url, reason), uids in (places or {way.to(of_study): []}).items():
        known = tuple(filter(None, uids)) if len(places) > 1 else ()
        yield replace(base, base_url=url, reason=reason, series=known)


def _named(holder: Resource, study: Resource, endpoints: Mapping[str, Resource]) -> list[Resource]:
    """Return the Endpoints in use that a study or a series refers to, contained ones too."""
    contained = {f"#{one.get('id')}": one for one in dicts(study.get("contained"))}
    found = (contained.get(one) or endpoints.get(one) for one in _references(holder))
    return [one for one in found if one is not None and one.get("status") not in _NOT_IN_USE]


def _references(holder: Resource) -> Iterator[str]:
    for one in dicts(holder.get("endpoint")):
        reference = one.get("reference")
        if isinstance(reference, str):
            plain = reference.partition("/_history/")[0]
            yield plain if plain.startswith("#") else "/".join(plain.rsplit("/", 2)[-2:])


def _address(endpoint: Resource) -> str:
    """Return the DICOMweb base of an Endpoint, or an empty string. Some servers write `…/studies[/1.2.3]`."""
    if not any(_speaks(endpoint, code) for code in _SERVICES):
        return ""
    address = endpoint.get("address")
    if not isinstance(address, str) or ".." in address or "\\" in address:
        return ""
    try:
        return check_base_url(address.partition("/studies")[0], allow_plain_http=True)
    except ConnectorError:
        return ""


def _speaks(endpoint: Resource, code: str) -> bool:
    kind = endpoint.get("connectionType")
    codings = [kind] if isinstance(kind, dict) else dicts(kind)  # R4: a Coding; R5: CodeableConcepts
    named = [*codings, *(inner for one in codings for inner in dicts(one.get("coding")))]
    return any(one.get("code") == code for one in named)


def _own(resource: Resource) -> str:
    return f"{resource.get('resourceType')}/{resource.get('id')}"


def _version(resource: Resource) -> str:
    found = reference_of(resource)
    return found.version if found else ""
