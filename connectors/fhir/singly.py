"""Writing a transaction's entries one by one, for servers that have no transactions.

Each entry is written after those it refers to, and only where it is not there yet: an interruption is resumed
by writing all of them again.
"""

from __future__ import annotations

from typing import Any

from connectors.fhir.capabilities import Capabilities
from connectors.fhir.client import FhirClient, Written
from connectors.fhir.transaction import Entry, in_dependency_order, with_references
from connectors.fhir.write import find_expected, write_once


async def write_singly(client: FhirClient, capabilities: Capabilities, entries: list[Entry]) -> list[Written]:
    """Return where each entry is, in the order of the bundle. Raises the first ConnectorError.

    Every expected version is looked at before the first write, so that someone else's change stops all of it.
    """
    known: dict[str, str] = {}
    versioned: dict[str, str] = {}
    written: dict[int, Written] = {}
    for entry in entries:
        if entry.if_match:
            await find_expected(client, entry, entry.resource)
    for index in in_dependency_order(entries):
        entry = entries[index]
        resource = point_at(with_references(entry.resource, known), entry.resource, versioned)
        where = await write_once(client, capabilities, entry, resource)
        plain = f"{where.reference.resource_type}/{where.reference.id}"
        known[entry.full_url] = plain
        if where.created or entry.if_match:
            versioned |= {name: str(where.reference) for name in (entry.full_url, plain) if name}
        written[index] = where
    return [written[index] for index in range(len(entries))]


def point_at(resource: dict[str, Any], template: dict[str, Any], versions: dict[str, str]) -> dict[str, Any]:
    """Return a Provenance whose targets name versions; anything else as it is.

    `template` is the resource as it stood in the bundle, whose targets are the keys of `versions`.
    """
    if resource.get("resourceType") != "Provenance" or not isinstance(template.get("target"), list):
        return resource
    pinned = with_references(template["target"], versions)
    current = resource.get("target") or []
    targets = [
        new if new != old else now for new, old, now in zip(pinned, template["target"], current, strict=True)
    ]
    return {**resource, "target": targets}
