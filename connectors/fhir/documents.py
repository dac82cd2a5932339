"""Filing what we wrote: one transaction, exactly once, also when an answer is lost on the way.

Entries are conditional (`request.ifNoneExist`, or PUT at a derived id), so that writing one again finds what
is there. Servers without transactions get the entries one by one (`connectors.fhir.singly`).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

from connectors.errors import (
    BrokenJson,
    ConflictError,
    ConnectorError,
    CutOff,
    NotFhir,
    ServerFailed,
    TimedOut,
    TooLarge,
)
from connectors.fhir.client import FhirClient
from connectors.fhir.codec import dicts
from connectors.fhir.reference import Reference, reference_of, reference_of_write
from connectors.fhir.singly import write_singly
from connectors.fhir.transaction import Entry, document_index, has_identifier, parse_entries

_LOST = (TimedOut, CutOff, ServerFailed, NotFhir, BrokenJson, TooLarge)
"""After these the transaction may or may not have been written."""
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
    """Every resource of the transaction that could be identified, versioned, in order."""


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
    """Write a transaction Bundle exactly once.

    After a lost answer the document is looked for before anything is sent again; `created` is then True,
    since the write was ours. Raises ConnectorError when it was not, or cannot be known to be, written.
    """
    entries = parse_entries(bundle)
    capabilities = await client.capabilities()
    if capabilities.transaction:
        try:
            return await _post(client, bundle, entries)
        except ConnectorError as error:
            if error.status not in _NO_TRANSACTIONS:
                raise
    written = await write_singly(client, capabilities, entries)
    document = written[document_index(entries)]
    references = tuple(str(w.reference) for w in written)
    return Filed(await _versioned(client, document.reference), document.created, references)


async def _post(client: FhirClient, bundle: dict[str, Any], entries: list[Entry]) -> Filed:
    try:
        return await _read_response(client, await client.transaction(bundle), entries)
    except (ConflictError, *_LOST) as error:
        was_lost = not isinstance(error, ConflictError)
        found = await _look_for(client, entries, created=was_lost)
        if found is not None:
            return found
        if not all(entry.is_conditional for entry in entries):
            raise
    filed = await _read_response(client, await client.transaction(bundle), entries)
    return replace(filed, created=filed.created or was_lost)


async def _read_response(client: FhirClient, response: dict[str, Any], entries: list[Entry]) -> Filed:
    answers = dicts(response.get("entry"))
    if len(answers) != len(entries):
        raise NotFhir("The server answered the transaction without saying what became of each entry.")
    index = document_index(entries)
    references = [_reference_of_answer(answer) for answer in answers]
    document = references[index]
    if document is None:
        raise NotFhir("The server answered the transaction without saying where the document is.")
    return Filed(
        document=await _versioned(client, document),
        created=_status(answers[index]) == "201",
        references=tuple(str(reference) for reference in references if reference),
    )


def _reference_of_answer(answer: dict[str, Any]) -> Reference | None:
    response = answer.get("response")
    response = response if isinstance(response, dict) else {}
    location, etag = response.get("location"), response.get("etag")
    return reference_of_write(
        location if isinstance(location, str) else "",
        etag if isinstance(etag, str) else "",
        answer.get("resource"),
    )


def _status(answer: dict[str, Any]) -> str:
    response = answer.get("response")
    status = response.get("status") if isinstance(response, dict) else None
    return status[:3] if isinstance(status, str) else ""


async def _versioned(client: FhirClient, reference: Reference) -> str:
    """Return the reference with its version, asking the server where its answer did not say."""
    if reference.version:
        return str(reference)
    return str(reference_of(await client.read(str(reference))) or reference)


async def _look_for(client: FhirClient, entries: list[Entry], *, created: bool) -> Filed | None:
    document = entries[document_index(entries)]
    for identifier in dicts(document.resource.get("identifier")):
        system, value = identifier.get("system"), identifier.get("value")
        if isinstance(system, str) and isinstance(value, str):
            found = await find_document(client, system, value)
            if found is not None:
                others = [await _resolve(client, entry) for entry in entries if entry is not document]
                return Filed(found, created, (found, *(str(other) for other in others if other)))
    return None


async def _resolve(client: FhirClient, entry: Entry) -> Reference | None:
    """Return where an entry's resource is by now; None where that cannot be told."""
    with contextlib.suppress(ConnectorError):
        if entry.method == "PUT":
            return reference_of(await client.read(entry.url))
        if entry.if_none_exist:
            found = await client.search(entry.url, parse_qsl(entry.if_none_exist))
            return reference_of(found[0]) if len(found) == 1 else None
    return None


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
