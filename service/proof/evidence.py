"""The sources of a document, read again from the server in the versions that it names, and compared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from connectors.errors import ConnectorError, Gone, NotFoundError
from connectors.fhir.codec import dicts
from connectors.fhir.reference import parse_reference
from service.proof.report import Finding
from service.record.readers import SUPPORTING
from service.record.versions import content_digest, last_updated, version_id

IN_FLIGHT = 6
MAX_LENT = 500
"""Resources that sources lean on, such as the drug of an order: read in their present version."""


class Reader(Protocol):
    """Read access to a FHIR server."""

    async def read(self, reference: str, /) -> dict[str, Any]:
        """Return the resource at `Type/id` or `Type/id/_history/v`. Raises ConnectorError."""
        ...


class Cited(NamedTuple):
    """One resource version that a document rests on."""

    where: str
    """`source 3`"""
    reference: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was read again, and what it does not bear out."""

    resources: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """`Type/id` → the version that the document names, its digest as there."""
    lent: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """What their lines lean on, in its present version."""
    leaning: frozenset[str] = frozenset()
    """Sources that lean on something that was changed since the chart was read."""
    findings: tuple[Finding, ...] = ()


def cited_versions(sources: Iterable[Mapping[str, Any]]) -> Iterator[Cited]:
    """Yield every resource version of a document's list of sources, those that say the same too."""
    for source in sources:
        where = f"source {source.get('number')}"
        for one in (source, *dicts(source.get("also"))):
            yield Cited(where, *(str(one.get(name) or "") for name in ("reference", "version", "sha256")))


async def read_again(
    reader: Reader, sources: Iterable[Mapping[str, Any]], patient: str, read_at: datetime | None
) -> Evidence:
    """Read every cited version, and what its text leans on. Each ConnectorError is a finding."""
    seats = asyncio.Semaphore(IN_FLIGHT)
    cited = list({(one.reference, one.version, one.sha256): one for one in cited_versions(sources)}.values())

    async def look(one: Cited) -> tuple[dict[str, Any] | None, list[Finding]]:
        async with seats:
            return await _look(reader, one)

    found = await asyncio.gather(*map(look, cited))
    resources = {one.reference: r for one, (r, _) in zip(cited, found, strict=True) if r is not None}
    lent = await _lent(reader, resources, patient, seats)
    findings = tuple(finding for _, named in found for finding in named)
    return Evidence(resources, lent, _leaning(resources, lent, read_at), findings)


async def _look(reader: Reader, one: Cited) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Return the cited version where it is as digested, and what is to be said of it."""
    if parse_reference(one.reference) is None:
        return None, [Finding("source_not_on_server", one.where)]
    now, trouble = await _read(reader, one.reference)
    if trouble == "source_not_readable":
        return None, [Finding(trouble, one.where)]
    if now is not None and content_digest(now) == one.sha256:
        return now, []  # unchanged, or changed back
    if not one.version:
        return None, [Finding("source_digest_differs" if now else "source_not_found", one.where)]
    then, trouble = await _read(reader, f"{one.reference}/_history/{one.version}")
    if then is None:
        return None, [Finding(_without_version(now, trouble, one), one.where)]
    if version_id(then) not in (None, one.version):
        return None, [Finding("version_not_kept", one.where)]  # a server that ignores `_history`
    if content_digest(then) != one.sha256:
        return None, [Finding("source_digest_differs", one.where, one.sha256[:12])]
    return then, [Finding("source_changed_since" if now else "source_deleted_since", one.where)]


def _without_version(now: dict[str, Any] | None, trouble: str, one: Cited) -> str:
    """Say what it means that the cited version cannot be read."""
    if trouble == "source_not_readable":
        return "version_not_kept" if now is not None else trouble
    if now is None:
        return "source_not_found"
    return "source_digest_differs" if version_id(now) == one.version else "version_not_kept"


async def _read(reader: Reader, reference: str) -> tuple[dict[str, Any] | None, str]:
    """Return a resource, or None and why there is none."""
    try:
        return await reader.read(reference), ""
    except (NotFoundError, Gone):
        return None, "source_not_found"
    except ConnectorError:
        return None, "source_not_readable"


async def _lent(
    reader: Reader, resources: Mapping[str, dict[str, Any]], patient: str, seats: asyncio.Semaphore
) -> dict[str, dict[str, Any]]:
    """Read what the sources lean on: the patient, and what they name as drug, reason, person or place.

    Of these again what they lean on themselves: the person behind a role, the substances of a drug.
    """

    async def take(name: str) -> dict[str, Any] | None:
        async with seats:
            return (await _read(reader, name))[0]

    found: dict[str, dict[str, Any]] = {}
    names = [patient, *(name for resource in resources.values() for name in _references(resource))]
    for _ in range(2):
        new = [
            n for n in dict.fromkeys(names) if n not in resources and n not in found and parse_reference(n)
        ]
        read = await asyncio.gather(*map(take, new[: MAX_LENT - len(found)]))
        lent = {name: one for name, one in zip(new, read, strict=False) if one is not None}
        found |= lent
        names = [n for one in lent.values() for n in _references(one) if n.partition("/")[0] in SUPPORTING]
    return found


def _leaning(
    resources: Mapping[str, dict[str, Any]], lent: Mapping[str, dict[str, Any]], read_at: datetime | None
) -> frozenset[str]:
    """Return which sources lean on something that was changed after the chart was read."""
    changed = {name for name, one in lent.items() if read_at is None or _updated_after(one, read_at)}
    changed |= {name for name, one in lent.items() if not changed.isdisjoint(_references(one))}
    return frozenset(name for name, one in resources.items() if not changed.isdisjoint(_references(one)))


def _updated_after(resource: dict[str, Any], at: datetime) -> bool:
    try:
        updated = datetime.fromisoformat(last_updated(resource))
    except ValueError:
        return False
    return updated.tzinfo is not None and updated > at


def _references(value: Any) -> Iterator[str]:
    """Yield every literal reference in a resource, in no order of weight."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            reference = item.get("reference")
            if isinstance(reference, str):
                yield reference.partition("/_history/")[0]
            todo.extend(item.values())
        elif isinstance(item, list):
            todo.extend(item)
