"""Pictures that the record itself keeps: JPEG, PNG and PDF of Media, DocumentReference and Binary.

They are what remains where no image archive can be asked, and where photographs are kept anyway. URLs
are followed to the FHIR server's own origin and allow-listed ones only, within size limits; what comes must
begin as its kind begins.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from connectors.errors import NotUnderstoodError, TooLarge
from connectors.fhir.client import FHIR_JSON, FhirClient
from connectors.fhir.codec import decode, dicts
from connectors.fhir.reference import parse_reference, reference_of
from connectors.http import Answer
from connectors.limits import ImagingLimits
from connectors.origin import follow

_BEGINNINGS = {"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG\r\n\x1a\n", "application/pdf": b"%PDF-"}
_OTHER_NAMES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}
_NOT_CURRENT = frozenset({"entered-in-error", "superseded", "not-done", "aborted"})
_FHIR = frozenset({FHIR_JSON, "application/json"})
_NOT_A_PICTURE = "A picture of the record is not what it says it is."


@dataclass(frozen=True, slots=True)
class PictureLink:
    """One picture of the record: whose it is, of what kind, and where its bytes are."""

    source: str
    """`Media/3`, `DocumentReference/9`."""
    source_version: str
    media_type: str
    taken: str
    """As recorded, for example `2024-05-01`; empty where it is not."""
    url: str = field(default="", repr=False)
    data: str = field(default="", repr=False)
    """Base64, where it is inline."""


def pictures_of(resources: Iterable[Mapping[str, Any]]) -> tuple[PictureLink, ...]:
    """Return the pictures that media and documents of one patient hold or link to, in the record's order.

    A PDF counts for Media only: the text of documents is read elsewhere.
    """
    known = list(resources)
    binaries = {f"Binary/{one.get('id')}": one for one in known if one.get("resourceType") == "Binary"}
    return tuple(link for one in known for link in _links(one, binaries))


async def fetch_picture(client: FhirClient, link: PictureLink, limits: ImagingLimits | None = None) -> bytes:
    """Return a picture's bytes. Raises ConnectorError: also for what does not begin as its kind begins."""
    limit = (limits or ImagingLimits()).max_picture_bytes
    content = _decoded(link.data, limit) if link.data else await _fetched(client, link, limit)
    if not content.startswith(_BEGINNINGS[link.media_type]):
        raise NotUnderstoodError(_NOT_A_PICTURE)
    return content


def _links(resource: Mapping[str, Any], binaries: Mapping[str, Mapping[str, Any]]) -> Iterator[PictureLink]:
    kind = resource.get("resourceType")
    if resource.get("status") in _NOT_CURRENT:
        return
    if kind == "Media":
        attachments = [resource.get("content")]
        taken = resource.get("createdDateTime") or _start(resource.get("createdPeriod"))
    elif kind == "DocumentReference":
        attachments = [one.get("attachment") for one in dicts(resource.get("content"))]
        taken = resource.get("date")
    else:
        return
    for attachment in dicts(attachments):
        link = _link(resource, attachment, taken, binaries)
        if link is not None and (kind == "Media" or link.media_type != "application/pdf"):
            yield link


def _link(
    resource: Mapping[str, Any],
    attachment: Mapping[str, Any],
    taken: Any,
    binaries: Mapping[str, Mapping[str, Any]],
) -> PictureLink | None:
    media_type, url, data = (attachment.get(name) for name in ("contentType", "url", "data"))
    binary = binaries.get(url) if isinstance(url, str) else None
    if binary is not None:
        media_type, data = media_type or binary.get("contentType"), data or binary.get("data")
    kind = _media_type(media_type)
    if kind not in _BEGINNINGS or not (isinstance(url, str) or isinstance(data, str)):
        return None
    own = reference_of(dict(resource))
    when = attachment.get("creation") or taken
    return PictureLink(
        f"{resource.get('resourceType')}/{resource.get('id')}",
        own.version if own else "",
        kind,
        when if isinstance(when, str) else "",
        url if isinstance(url, str) else "",
        data if isinstance(data, str) else "",
    )


async def _fetched(client: FhirClient, link: PictureLink, limit: int) -> bytes:
    session = client.session
    target = parse_reference(link.url, client.base_url)
    url = session.url(str(target)) if target else follow(link.url, f"{session.base_url}/", session.trusted)
    answer = await session.send(
        "GET",
        url,
        headers={"Accept": f"{link.media_type}, {FHIR_JSON};q=0.9"},
        repeatable=True,
        max_bytes=limit * 4 // 3 + 1024,
    )
    return _content(answer, limit)


def _content(answer: Answer, limit: int) -> bytes:
    """Return the bytes of a raw answer, or of a Binary resource."""
    if _media_type(answer.headers.get("content-type")) not in _FHIR:
        return answer.body
    resource = decode(answer.body)
    data = resource.get("data") if isinstance(resource, dict) else None
    if not isinstance(data, str) or resource.get("resourceType") != "Binary":
        raise NotUnderstoodError("A link of a picture leads to something that is no picture.")
    return _decoded(data, limit)


def _decoded(data: str, limit: int) -> bytes:
    if len(data) > limit * 4 // 3 + 4:
        raise TooLarge(f"A picture of the record is larger than {limit:,} bytes.")
    try:
        return base64.b64decode(data)
    except (binascii.Error, ValueError):
        raise NotUnderstoodError(_NOT_A_PICTURE) from None


def _start(period: Any) -> Any:
    return period.get("start") if isinstance(period, dict) else None


def _media_type(value: Any) -> str:
    plain = value.partition(";")[0].strip().lower() if isinstance(value, str) else ""
    return _OTHER_NAMES.get(plain, plain)
