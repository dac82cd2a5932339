"""Texts that a record only links to: attachments of documents and reports, and Binary resources.

URLs out of a record are somebody's input. They are fetched from the FHIR server's own origin and allow-listed
origins only, within size limits, and only where the content is text, RTF, PDF, HTML or XML.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from connectors.errors import BrokenJson, ConnectorError
from connectors.fhir.client import FHIR_JSON, FhirClient, Progress
from connectors.fhir.codec import decode, dicts
from connectors.fhir.outcome import reason_of_error
from connectors.fhir.pull import Gap, GapReason
from connectors.fhir.reference import Reference, parse_reference
from connectors.http import Answer
from connectors.origin import follow

_READABLE = frozenset(
    {
        "application/rtf",
        "application/pdf",
        "application/xml",
        "application/xhtml+xml",
        "application/hl7-cda+xml",
        "application/cda+xml",
    }
)
_UNKNOWN = frozenset({"", "application/octet-stream"})
_FHIR = frozenset({FHIR_JSON, "application/json"})
_NOT_READ = "An attachment that is neither text, RTF, PDF, HTML nor XML was not read."
_NOT_CONTENT = "A link of a document leads to something that is no attachment."


@dataclass(slots=True)
class Attachments:
    """What was fetched, by the URL as written, and what was not."""

    contents: dict[str, bytes] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)


class _Link(NamedTuple):
    """One attachment that is not inline."""

    holder: str
    """Resource type that links to it."""
    url: str
    media_type: str
    size: int


async def fetch_attachments(
    client: FhirClient, resources: Iterable[dict[str, Any]], on_progress: Progress
) -> Attachments:
    """Fetch what documents and reports link to, in parallel. Never raises ConnectorError."""
    found = Attachments()
    links = list({link.url: link for link in _links(resources)}.values())
    limit = client.limits.max_attachments
    for link in links[limit:]:
        found.gaps.append(Gap(link.holder, GapReason.TOO_LARGE, f"Only {limit} attachments are read."))
    inline = _binaries(resources)
    seats = asyncio.Semaphore(client.limits.concurrency)

    async def take(link: _Link) -> None:
        async with seats:
            await _take(client, link, inline, found)
            on_progress("attachments", len(found.contents))

    await asyncio.gather(*map(take, links[:limit]))
    return found


def _links(resources: Iterable[dict[str, Any]]) -> Iterator[_Link]:
    for resource in resources:
        holder = resource.get("resourceType")
        if holder == "DocumentReference":
            for content in dicts(resource.get("content")):
                yield from _link(holder, content.get("attachment"))
        elif holder == "DiagnosticReport":
            for form in dicts(resource.get("presentedForm")):
                yield from _link(holder, form)


def _link(holder: str, attachment: Any) -> Iterator[_Link]:
    if not isinstance(attachment, dict) or attachment.get("data"):
        return
    url, size = attachment.get("url"), attachment.get("size")
    if isinstance(url, str) and url and not url.startswith("#"):
        yield _Link(
            holder, url, _media_type(attachment.get("contentType")), size if isinstance(size, int) else 0
        )


def _binaries(resources: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"Binary/{r.get('id')}": r for r in resources if r.get("resourceType") == "Binary"}


async def _take(
    client: FhirClient, link: _Link, inline: dict[str, dict[str, Any]], found: Attachments
) -> None:
    refusal = _refusal(client, link, found)
    if refusal is not None:
        found.gaps.append(refusal)
        return
    target = parse_reference(link.url, client.base_url)
    here = inline.get(f"Binary/{target.id}") if target and target.resource_type == "Binary" else None
    try:
        if here is not None:
            content = _content_of_binary(here)
        else:
            content = _content(await _fetch(client, link, target), link)
    except ConnectorError as error:
        found.gaps.append(Gap(link.holder, reason_of_error(error), error.message))
        return
    if content is None:
        found.gaps.append(Gap(link.holder, GapReason.NOT_ALLOWED, _NOT_CONTENT))
        return
    found.contents[link.url] = content


def _refusal(client: FhirClient, link: _Link, found: Attachments) -> Gap | None:
    if not _is_readable(link.media_type) and link.media_type not in _UNKNOWN:
        return Gap(link.holder, GapReason.NOT_ALLOWED, _NOT_READ)
    taken = sum(map(len, found.contents.values()))
    if link.size > client.limits.max_attachment_bytes or taken > client.limits.max_attachments_bytes:
        return Gap(link.holder, GapReason.TOO_LARGE, "Attachments beyond the size limit were not read.")
    return None


async def _fetch(client: FhirClient, link: _Link, target: Reference | None) -> Answer:
    session = client.session
    url = session.url(str(target)) if target else follow(link.url, f"{session.base_url}/", session.trusted)
    wanted = link.media_type if link.media_type not in _UNKNOWN else "*/*;q=0.8"
    return await session.send(
        "GET",
        url,
        headers={"Accept": f"{wanted}, {FHIR_JSON};q=0.9"},
        repeatable=True,
        max_bytes=client.limits.max_attachment_bytes * 4 // 3 + 1024,
    )


def _content(answer: Answer, link: _Link) -> bytes | None:
    """Return the bytes of a raw answer or of a Binary resource; None for anything that is no attachment."""
    media_type = _media_type(answer.headers.get("content-type"))
    if media_type in _FHIR:
        try:
            return _content_of_binary(decode(answer.body))
        except BrokenJson:
            return None
    declared = media_type if media_type not in _UNKNOWN else link.media_type
    return answer.body if _is_readable(declared) else None


def _content_of_binary(resource: Any) -> bytes | None:
    if not isinstance(resource, dict) or resource.get("resourceType") != "Binary":
        return None
    media_type = _media_type(resource.get("contentType"))
    data = resource.get("data")
    if not isinstance(data, str) or not (_is_readable(media_type) or media_type in _UNKNOWN):
        return None
    try:
        return base64.b64decode(data)
    except (binascii.Error, ValueError):
        return None


def _media_type(value: Any) -> str:
    return value.partition(";")[0].strip().lower() if isinstance(value, str) else ""


def _is_readable(media_type: str) -> bool:
    return media_type in _READABLE or _is_text(media_type)


def _is_text(media_type: str) -> bool:
    kind, _, name = media_type.partition("/")
    return (
        kind == "text"
        and name.isascii()
        and name.replace("-", "").replace(".", "").replace("+", "").isalnum()
    )
