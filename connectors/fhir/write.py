"""One write at a time, each of which may be begun again: what is there already is found, not written twice.

A resource with an identifier is found by it. A Provenance has none in R4: it is found by its target, its
activity and the instant at which it was recorded. An update expects a version, and is done where the server
already holds what was to be written.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from connectors.errors import (
    BrokenJson,
    ConflictError,
    ConnectorError,
    CutOff,
    NotFhir,
    NotFoundError,
    PreconditionFailed,
    ServerFailed,
    TimedOut,
    TooLarge,
)
from connectors.fhir.capabilities import Capabilities
from connectors.fhir.client import FHIR_JSON, FhirClient, Written
from connectors.fhir.codec import decode, dicts, encode
from connectors.fhir.reference import Reference, parse_reference, reference_of, reference_of_write
from connectors.fhir.transaction import Entry, has_identifier

LOST = (TimedOut, CutOff, ServerFailed, NotFhir, BrokenJson, TooLarge)
"""After these a write may or may not have happened."""
DOUBTFUL = (ConflictError, *LOST)
"""After these the server is read before anything is sent again."""
_VOLATILE = frozenset({"versionId", "lastUpdated", "source"})
_UPDATE = "UPDATE"


async def write_once(
    client: FhirClient, capabilities: Capabilities, entry: Entry, resource: dict[str, Any]
) -> Written:
    """Write one entry, whose references are real by now, unless it is there. Raises ConnectorError."""
    if entry.if_match:
        return await _update(client, entry, resource)
    if entry.method == "PUT":
        return await _put(client, entry, resource)
    return await _create_once(client, capabilities, entry, resource)


async def find_written(client: FhirClient, entry: Entry, resource: dict[str, Any]) -> Written | None:
    """Return where an entry is by now, withdrawn or not; None where it is not, or that cannot be told."""
    if entry.if_match:
        there = await client.read(entry.url)
        reference = reference_of(there)
        return Written(reference, created=False) if reference and covers(there, resource) else None
    if entry.method == "PUT":
        with contextlib.suppress(NotFoundError):
            reference = reference_of(await client.read(entry.url))
            return Written(reference, created=False) if reference else None
        return None
    found = await _find(client, entry, resource)
    return Written(found, created=False) if found else None


def covers(there: Any, wanted: Any) -> bool:
    """Tell whether a stored resource holds all that was to be written; servers add elements of their own."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(
            covers(there.get(name), value) for name, value in wanted.items() if name not in _VOLATILE
        )
    if isinstance(wanted, list):
        if not isinstance(there, list) or len(there) != len(wanted):
            return False
        return all(covers(one, other) for one, other in zip(there, wanted, strict=True))
    return bool(there == wanted)


async def _create_once(
    client: FhirClient, capabilities: Capabilities, entry: Entry, resource: dict[str, Any]
) -> Written:
    promised = capabilities.of(entry.resource_type).conditional_create
    if not promised or entry.resource_type == "Provenance":
        found = await _find(client, entry, resource)
        if found is not None:
            return Written(found, created=False)
    condition = _condition(entry, resource)
    try:
        written = await _create(client, resource, condition, repeatable=promised and bool(condition))
    except DOUBTFUL as error:
        found = await _find(client, entry, resource)
        if found is not None:
            return Written(found, created=isinstance(error, LOST))
        if not condition:
            raise
        written = await _create(client, resource, condition, repeatable=False)
    if written.created or entry.resource_type != "Provenance":
        return written
    return await _create_unless_same(client, resource, written)


async def _create_unless_same(client: FhirClient, resource: dict[str, Any], found: Written) -> Written:
    """Create a Provenance for which the server's own condition found another act of the same target."""
    if is_same_act(await client.read(str(found.reference._replace(version=""))), resource):
        return found
    return await _create(client, resource, "", repeatable=False)


async def _create(
    client: FhirClient, resource: dict[str, Any], condition: str, *, repeatable: bool
) -> Written:
    """Post a resource. The condition is sent also where nobody promised to honour it: it does no harm."""
    session = client.session
    headers = {"Accept": FHIR_JSON, "Content-Type": FHIR_JSON, "Prefer": "return=minimal"}
    answer = await session.send(
        "POST",
        session.url(str(resource["resourceType"])),
        headers={**headers, "If-None-Exist": condition} if condition else headers,
        content=encode(resource),
        repeatable=repeatable,
    )
    stored: Any = None
    with contextlib.suppress(BrokenJson):
        stored = decode(answer.body) if answer.body else None
    where = reference_of_write(answer.headers.get("location", ""), answer.headers.get("etag", ""), stored)
    if where is None:
        raise NotFhir(f"The server {session.origin} does not say where it put what was written.")
    return Written(where, created=answer.status == 201)


async def _put(client: FhirClient, entry: Entry, resource: dict[str, Any]) -> Written:
    """Write at a derived id; what is there already is ours, since the id says what it holds."""
    found = await find_written(client, entry, resource)
    if found is not None:
        return found
    target = parse_reference(entry.url)
    resource = {**resource, "id": target.id if target else ""}
    try:
        return await client.update(resource)
    except DOUBTFUL as error:
        found = await find_written(client, entry, resource)
        if found is None:
            raise
        return Written(found.reference, created=isinstance(error, LOST))


async def _update(client: FhirClient, entry: Entry, resource: dict[str, Any]) -> Written:
    """Bring one version to the next. Raises PreconditionFailed where someone else's change came between."""
    found = await find_expected(client, entry, resource)
    if found is not None:
        return found
    target = parse_reference(entry.url)
    resource = {**resource, "id": target.id if target else ""}
    try:
        return await client.update(resource, if_match=entry.if_match)
    except DOUBTFUL:
        found = await find_written(client, entry, resource)
        if found is None:
            raise
        return found


async def find_expected(client: FhirClient, entry: Entry, resource: dict[str, Any]) -> Written | None:
    """Return where an update was already done, or None where its version is still the expected one.

    Raises PreconditionFailed where it is neither.
    """
    there = await client.read(entry.url)
    reference = reference_of(there)
    if reference is not None and covers(there, resource):
        return Written(reference, created=False)
    if reference is None or reference.version != entry.if_match:
        raise PreconditionFailed(
            f"On the server {client.session.origin} someone else changed what was to be updated.", status=412
        )
    return None


async def _find(client: FhirClient, entry: Entry, resource: dict[str, Any]) -> Reference | None:
    if entry.resource_type == "Provenance":
        return await find_provenance(client, resource)
    if not entry.if_none_exist:
        return None
    query = parse_qsl(entry.if_none_exist)
    for found in await client.search(entry.resource_type, query):
        reference = reference_of(found)
        if reference is not None and all(_matches(found, name, value) for name, value in query):
            return reference
    return None


def _matches(resource: dict[str, Any], name: str, value: str) -> bool:
    """Some servers ignore a parameter and send everything: look for the identifier in what came."""
    return name != "identifier" or has_identifier(resource, *split_token(value))


def split_token(value: str) -> tuple[str, str]:
    """Return system and value of `system|value` as a search writes it (R4 search 3.1.1.5.8)."""
    parts, escaped = [""], False
    for char in value:
        if escaped or char not in "\\|":
            parts[-1] += char
            escaped = False
        elif char == "\\":
            escaped = True
        else:
            parts.append("")
    return (parts[0], "|".join(parts[1:])) if len(parts) > 1 else ("", parts[0])


def _condition(entry: Entry, resource: dict[str, Any]) -> str:
    """Return the search that finds the entry; for a Provenance its target and when it was recorded."""
    if entry.resource_type != "Provenance":
        return entry.if_none_exist
    targets = _targets(resource)
    if not targets:
        return entry.if_none_exist
    recorded = resource.get("recorded")
    query = [("target", str(targets[0]._replace(version="")))]
    return urlencode([*query, ("recorded", recorded)] if isinstance(recorded, str) else query, safe="/:")


async def find_provenance(client: FhirClient, wanted: dict[str, Any]) -> Reference | None:
    """Return the Provenance of the same act, or None.

    Its target may be pinned to a version by now; some servers find it only by exactly that version.
    """
    targets = _targets(wanted)
    if not targets:
        return None
    async for target in _ways_to_ask(client, targets[0]):
        for candidate in await client.search("Provenance", (("target", str(target)),)):
            if is_same_act(candidate, wanted):
                return reference_of(candidate)
    return None


async def _ways_to_ask(client: FhirClient, target: Reference) -> AsyncIterator[Reference]:
    yield target._replace(version="")
    if target.version:
        yield target
    for version in await versions_of(client, target):
        if version != target.version:
            yield target._replace(version=version)


async def versions_of(client: FhirClient, target: Reference) -> list[str]:
    """Return the version ids of a resource, newest first; none where the server keeps no history."""
    path = f"{target.resource_type}/{target.id}/_history"
    try:
        pages = [page async for page in client.pages(path)]
    except ConnectorError:
        return []
    references = (reference_of(resource) for page in pages for resource in page.resources)
    return [found.version for found in references if found and found.version]


def is_same_act(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two Provenances record the same act.

    A resource is created, attested and withdrawn once; it may be updated often, each time at another instant.
    """
    first, second = (_targets(provenance)[:1] for provenance in (one, other))
    if not first or not second or first[0][:2] != second[0][:2] or _activity(one) != _activity(other):
        return False
    if _activity(one) != _UPDATE:
        return True
    return _instant(one.get("recorded")) == _instant(other.get("recorded"))


def _targets(provenance: dict[str, Any]) -> list[Reference]:
    """Return the targets in order; absolute ones count as what they end in."""
    found = []
    for target in dicts(provenance.get("target")):
        reference = target.get("reference")
        if isinstance(reference, str):
            parsed = reference_of_write(reference, "", None)
            if parsed is not None:
                found.append(parsed)
    return found


def _activity(provenance: dict[str, Any]) -> str:
    activity = provenance.get("activity")
    codings = dicts(activity.get("coding")) if isinstance(activity, dict) else []
    return next((str(coding.get("code")) for coding in codings), "")


def _instant(value: Any) -> datetime | str:
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return str(value)
