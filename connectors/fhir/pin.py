"""Pinning a Provenance to the versions that it is about.

In a transaction `urn:uuid` references become unversioned ones: after a later change a Provenance would
speak of a text that it does not know.
"""

from __future__ import annotations

from typing import Any

from connectors.errors import ConflictError, NotFoundError, RefusedError, RequestRejected
from connectors.fhir.client import FhirClient, Written
from connectors.fhir.codec import dicts
from connectors.fhir.reference import Reference, reference_of, reference_of_write
from connectors.fhir.transaction import Entry
from connectors.fhir.write import versions_of

_TRIES = 3
_NO_UPDATES = (RefusedError, NotFoundError, RequestRejected)
"""A server that lets nobody update a Provenance: it stays as it was written."""


async def pin_targets(client: FhirClient, entries: list[Entry], written: list[Written]) -> bool:
    """Name versions in the targets of every Provenance; False where the server does not allow it.

    Raises ConnectorError where it did not answer: then it may be done again.
    """
    places = {w.reference[:2]: (entry, w) for entry, w in zip(entries, written, strict=True)}
    done = True
    for entry, where in zip(entries, written, strict=True):
        if entry.resource_type == "Provenance":
            done &= await _pin(client, where.reference, places)
    return done


Places = dict[tuple[str, str], tuple[Entry, Written]]


async def _pin(client: FhirClient, provenance: Reference, places: Places) -> bool:
    for attempt in range(_TRIES):
        try:
            return await _pin_once(client, provenance._replace(version=""), places)
        except ConflictError:
            if attempt == _TRIES - 1:
                raise
        except _NO_UPDATES:
            break
    return False


async def _pin_once(client: FhirClient, provenance: Reference, places: Places) -> bool:
    there = await client.read(str(provenance))
    targets = [await _versioned(client, target, places) for target in dicts(there.get("target"))]
    if targets and targets != there.get("target"):
        version = reference_of(there)
        await client.update({**there, "target": targets}, if_match=(version and version.version) or None)
    return True


async def _versioned(client: FhirClient, target: dict[str, Any], places: Places) -> dict[str, Any]:
    reference = reference_of_write(str(target.get("reference", "")), "", None)
    if reference is None or reference.version or reference[:2] not in places:
        return target
    entry, where = places[reference[:2]]
    version = await _version_of_ours(client, entry, where)
    return {**target, "reference": str(reference._replace(version=version))} if version else target


async def _version_of_ours(client: FhirClient, entry: Entry, where: Written) -> str:
    """Return the version that we wrote: of what was found, and may have changed since, the first one."""
    if where.created or entry.if_match:
        version = where.reference.version
    else:
        versions = await versions_of(client, where.reference)
        version = versions[-1] if versions else where.reference.version
    if version:
        return version
    found = reference_of(await client.read(str(where.reference)))
    return found.version if found else ""
