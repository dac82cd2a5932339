"""The entries of a transaction Bundle that is about to be written (R4 http 3.1.0.11.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from connectors.fhir.codec import dicts, encode

_LINKS = ("reference", "url", "uri")
"""Elements in which a server replaces an entry's fullUrl by the real reference."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One resource to write, and under which condition."""

    full_url: str
    resource: dict[str, Any]
    method: str
    """`POST` or `PUT`"""
    url: str
    """`Device`, or `Provenance/derived-id`"""
    if_none_exist: str
    if_match: str = ""
    """The version id that a PUT expects to find; empty where none is expected."""

    @property
    def resource_type(self) -> str:
        """The type of the resource."""
        return str(self.resource.get("resourceType"))

    @property
    def is_conditional(self) -> bool:
        """Tell whether writing it twice stores it once."""
        return self.method == "PUT" or bool(self.if_none_exist)


def parse_entries(bundle: dict[str, Any]) -> list[Entry]:
    """Return the entries in order. Raises ValueError for a Bundle that is no transaction of ours."""
    if bundle.get("type") != "transaction":
        raise ValueError("the bundle is not a transaction")
    entries = [_parse_entry(entry) for entry in dicts(bundle.get("entry"))]
    document_index(entries)
    return entries


def _parse_entry(entry: dict[str, Any]) -> Entry:
    request, resource = entry.get("request"), entry.get("resource")
    if not isinstance(request, dict) or not isinstance(resource, dict):
        raise ValueError("an entry of the transaction has no request or no resource")
    if request.get("method") not in ("POST", "PUT"):
        raise ValueError("an entry of the transaction is neither POST nor PUT")
    return Entry(
        full_url=str(entry.get("fullUrl", "")),
        resource=resource,
        method=str(request["method"]),
        url=str(request["url"]),
        if_none_exist=str(request.get("ifNoneExist", "")),
        if_match=parse_etag(str(request.get("ifMatch", ""))),
    )


def parse_etag(etag: str) -> str:
    """Return the version id of `W/"1"` (R4 http 3.1.0.1.3)."""
    return etag.removeprefix("W/").strip('"')


def may_be_repeated(entries: list[Entry]) -> bool:
    """Tell whether the whole may be sent again: each entry is conditional, or one expects a version.

    A transaction that was written has moved that version on, so its repetition is refused as a whole.
    """
    return all(entry.is_conditional for entry in entries) or any(entry.if_match for entry in entries)


def document_index(entries: list[Entry]) -> int:
    """Return which entry is the document: the one that a Provenance targets, or the first one."""
    documents = [i for i, entry in enumerate(entries) if entry.resource_type == "DocumentReference"]
    if not documents:
        raise ValueError("the transaction holds no DocumentReference")
    targets = {
        target.get("reference")
        for entry in entries
        if entry.resource_type == "Provenance"
        for target in dicts(entry.resource.get("target"))
    }
    return next((i for i in documents if entries[i].full_url in targets), documents[0])


def has_identifier(resource: dict[str, Any], system: str, value: str) -> bool:
    """Tell whether a resource carries this identifier."""
    identifiers = dicts(resource.get("identifier"))
    return any(i.get("system") == system and i.get("value") == value for i in identifiers)


def in_dependency_order(entries: list[Entry]) -> list[int]:
    """Return positions so that each entry comes after those it refers to. Raises ValueError on a circle.

    What is updated comes after all that stands before it in the bundle: nothing is superseded before what
    replaces it is there. A Provenance comes last, when the versions that it is about are known.
    """
    needs = {i: _needs(i, entry, entries) for i, entry in enumerate(entries)}
    order: list[int] = []
    while len(order) < len(entries):
        ready = [i for i in needs if i not in order and needs[i] <= set(order)]
        if not ready:
            raise ValueError("the entries of the transaction refer to each other in a circle")
        order += ready
    return order


def _needs(index: int, entry: Entry, entries: list[Entry]) -> set[int]:
    needs = _refers_to(entry, entries)
    if entry.if_match:
        needs |= set(range(index))
    if entry.resource_type == "Provenance":
        needs |= {i for i, other in enumerate(entries) if other.if_match}
    return needs


def _refers_to(entry: Entry, entries: list[Entry]) -> set[int]:
    text = encode(entry.resource)
    return {
        i
        for i, other in enumerate(entries)
        if other is not entry and other.full_url and b'"%s"' % other.full_url.encode() in text
    }


def with_references(value: Any, known: dict[str, str]) -> Any:
    """Return a copy of the resource in which every link to a known fullUrl is the real reference."""
    if isinstance(value, list):
        return [with_references(item, known) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: known[item]
        if key in _LINKS and isinstance(item, str) and item in known
        else with_references(item, known)
        for key, item in value.items()
    }
