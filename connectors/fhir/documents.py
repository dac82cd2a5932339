"""Filing what we wrote: one transaction, exactly once, also when an answer is lost on the way.

Entries are conditional (`request.ifNoneExist`, `ifMatch`, or PUT at a derived id), so that writing one again
finds what is there. Servers without transactions get the entries one by one (`connectors.fhir.singly`), and
so does the rest of a transaction of which a part is there: not every server keeps all or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from connectors.errors import ConflictError, ConnectorError, NotFhir
from connectors.fhir.capabilities import Capabilities
from connectors.fhir.client import FhirClient, Written
from connectors.fhir.codec import dicts
from connectors.fhir.pin import pin_targets
from connectors.fhir.reference import Reference, reference_of, reference_of_write
from connectors.fhir.singly import write_singly
from connectors.fhir.transaction import Entry, document_index, has_identifier, may_be_repeated, parse_entries
from connectors.fhir.write import DOUBTFUL, LOST, find_written

_NO_TRANSACTIONS = frozenset({403, 404, 405, 501})
"""Statuses of a server that declares transactions and then has none for us: nothing was written."""


@dataclass(frozen=True, slots=True)
class Filed:
    """What became of a filing."""

    document: str
    """`DocumentReference/7/_history/1`"""
    created: bool
    """False when the document was already there."""
    references: tuple[str, ...] = ()
    """Where every entry of the transaction is, versioned, in order."""
    pinned: bool = True
    """False where the server lets nobody pin a Provenance to the version of its target."""


async def find_document(client: FhirClient, system: str, value: str) -> str | None:
    """Return the versioned reference of the document with this identifier that is not withdrawn, or None.

    Servers that ignore the parameter are caught: the identifier is looked for in what came back.
    """
    token = f"{_escape(system)}|{_escape(value)}"
    found = await client.search("DocumentReference", (("identifier", token),))
    current = [d for d in found if has_identifier(d, system, value) and not _is_withdrawn(d)]
    current.sort(key=lambda d: (d.get("status") == "current", _last_updated(d)))
    reference = reference_of(current[-1]) if current else None
    return str(reference) if reference else None


async def file_transaction(client: FhirClient, bundle: dict[str, Any]) -> Filed:
    """Write a transaction Bundle exactly once, and pin its Provenances to the versions that they are about.

    After a lost answer the document is looked for before anything is sent again; `created` is then True,
    since the write was ours. Raises PreconditionFailed where a version that an entry expects has moved on,
    and ConnectorError when the whole was not, or cannot be known to be, written: then it may be filed again.
    """
    entries = parse_entries(bundle)
    index = document_index(entries)
    written = await _write(client, await client.capabilities(), bundle, entries)
    pinned = await pin_targets(client, entries, written)
    document = await _versioned(client, written[index].reference)
    return Filed(document, written[index].created, tuple(str(w.reference) for w in written), pinned)


async def _write(
    client: FhirClient, capabilities: Capabilities, bundle: dict[str, Any], entries: list[Entry]
) -> list[Written]:
    if not capabilities.transaction or await _document_is_there(client, entries):
        return await write_singly(client, capabilities, entries)
    try:
        return await _post(client, capabilities, bundle, entries)
    except ConnectorError as error:
        if error.status not in _NO_TRANSACTIONS:
            raise
    return await write_singly(client, capabilities, entries)


async def _post(
    client: FhirClient, capabilities: Capabilities, bundle: dict[str, Any], entries: list[Entry]
) -> list[Written]:
    was_lost = False
    try:
        return await _answered(client, capabilities, bundle, entries)
    except DOUBTFUL as error:
        was_lost = isinstance(error, LOST)
        if not await _document_is_there(client, entries):
            expects = any(entry.if_match for entry in entries)
            if not may_be_repeated(entries) or (expects and isinstance(error, ConflictError)):
                raise
            written = await _again(client, capabilities, bundle, entries)
            return [Written(w.reference, w.created or was_lost) for w in written]
    written = await write_singly(client, capabilities, entries)
    return [Written(w.reference, w.created or was_lost) for w in written]


async def _again(
    client: FhirClient, capabilities: Capabilities, bundle: dict[str, Any], entries: list[Entry]
) -> list[Written]:
    """Post what was not written once more; a second conflict is with another filing of the same."""
    try:
        return await _answered(client, capabilities, bundle, entries)
    except ConflictError:
        if not await _document_is_there(client, entries):
            raise
    return await write_singly(client, capabilities, entries)


async def _answered(
    client: FhirClient, capabilities: Capabilities, bundle: dict[str, Any], entries: list[Entry]
) -> list[Written]:
    response = await client.transaction(bundle)
    answers = dicts(response.get("entry"))
    if len(answers) != len(entries):
        raise NotFhir("The server answered the transaction without saying what became of each entry.")
    written = [_written(answer) for answer in answers]
    if not all(_status(answer).startswith("2") for answer in answers):
        # Some servers carry out what they can and report the rest: do the rest, or meet its error.
        return await write_singly(client, capabilities, entries)
    if any(w is None for w in written):
        raise NotFhir("The server answered the transaction without saying where everything is.")
    return [w for w in written if w is not None]


def _written(answer: dict[str, Any]) -> Written | None:
    response = answer.get("response")
    response = response if isinstance(response, dict) else {}
    location, etag = response.get("location"), response.get("etag")
    reference = reference_of_write(
        location if isinstance(location, str) else "",
        etag if isinstance(etag, str) else "",
        answer.get("resource"),
    )
    return Written(reference, created=_status(answer) == "201") if reference else None


def _status(answer: dict[str, Any]) -> str:
    response = answer.get("response")
    status = response.get("status") if isinstance(response, dict) else None
    return status[:3] if isinstance(status, str) else ""


async def _document_is_there(client: FhirClient, entries: list[Entry]) -> bool:
    document = entries[document_index(entries)]
    return await find_written(client, document, document.resource) is not None


async def _versioned(client: FhirClient, reference: Reference) -> str:
    """Return the reference with its version, asking the server where its answer did not say."""
    if reference.version:
        return str(reference)
    return str(reference_of(await client.read(str(reference))) or reference)


def _is_withdrawn(document: dict[str, Any]) -> bool:
    return "entered-in-error" in (document.get("status"), document.get("docStatus"))


def _last_updated(document: dict[str, Any]) -> str:
    meta = document.get("meta")
    return str(meta.get("lastUpdated")) if isinstance(meta, dict) else ""


def _escape(token: str) -> str:
    """Escape what separates values in a search (R4 search 3.1.1.5.8)."""
    for special in "\\,|$":
        token = token.replace(special, f"\\{special}")
    return token
