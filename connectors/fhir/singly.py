"""Writing a transaction's entries one by one, for servers that have no transactions.

Each entry is written after those it refers to, and only where it is not there yet: an interruption is resumed
by writing all of them again.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from connectors.errors import NotFoundError
from connectors.fhir.capabilities import Capabilities
from connectors.fhir.client import FhirClient, Written
from connectors.fhir.codec import dicts
from connectors.fhir.reference import parse_reference, reference_of
from connectors.fhir.transaction import Entry, has_identifier, in_dependency_order, with_references
from connectors.http import Params


async def write_singly(client: FhirClient, capabilities: Capabilities, entries: list[Entry]) -> list[Written]:
    """Return where each entry is, in the order of the bundle. Raises the first ConnectorError."""
    known: dict[str, str] = {}
    written: dict[int, Written] = {}
    for index in in_dependency_order(entries):
        entry = entries[index]
        where = await _write(client, capabilities, entry, known)
        known[entry.full_url] = f"{where.reference.resource_type}/{where.reference.id}"
        written[index] = where
    return [written[index] for index in range(len(entries))]


async def _write(
    client: FhirClient, capabilities: Capabilities, entry: Entry, known: dict[str, str]
) -> Written:
    resource = with_references(entry.resource, known)
    if entry.method == "PUT":
        return await _put(client, Entry(entry.full_url, resource, "PUT", entry.url, ""))
    condition = _condition(entry, resource)
    if not capabilities.of(entry.resource_type).conditional_create or entry.resource_type == "Provenance":
        found = await _find(client, entry.resource_type, parse_qsl(condition)) if condition else None
        if found is not None:
            return found
    if capabilities.of(entry.resource_type).conditional_create and condition:
        return await client.create(resource, if_none_exist=condition)
    return await client.create(resource)


async def _put(client: FhirClient, entry: Entry) -> Written:
    """Write at a derived id; what is there already is ours, since the id says what it holds."""
    try:
        there = reference_of(await client.read(entry.url))
    except NotFoundError:
        there = None
    if there is not None:
        return Written(there, created=False)
    target = parse_reference(entry.url)
    return await client.update({**entry.resource, "id": target.id if target else ""})


def _condition(entry: Entry, resource: dict[str, object]) -> str:
    """Return the search that finds the entry: a Provenance, without identifier in R4, by its target."""
    if entry.resource_type != "Provenance":
        return entry.if_none_exist
    targets = resource.get("target")
    first = targets[0] if isinstance(targets, list) and targets else None
    reference = first.get("reference") if isinstance(first, dict) else None
    return f"target={reference}" if isinstance(reference, str) else entry.if_none_exist


async def _find(client: FhirClient, resource_type: str, query: Params) -> Written | None:
    """Return the first resource that really matches: some servers ignore a parameter and send them all."""
    for resource in await client.search(resource_type, query):
        reference = reference_of(resource)
        if reference is not None and all(_matches(resource, name, value) for name, value in query):
            return Written(reference, created=False)
    return None


def _matches(resource: dict[str, Any], name: str, value: str) -> bool:
    if name == "identifier":
        system, _, code = value.rpartition("|")
        return has_identifier(resource, system, code)
    if name == "target":
        references = (str(target.get("reference")) for target in dicts(resource.get("target")))
        return any(f"/{reference}/".find(f"/{value}/") >= 0 for reference in references)
    return True
