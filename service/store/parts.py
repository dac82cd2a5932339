"""What went into a run, cut into parts that later runs of the same chart share. Pure: no database here.

Entries fall into parts by the hash of their name, so that a new entry changes the one part that it falls
into. One part of some thirty entries takes a fifth of what they would take one by one.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from connectors.errors import BrokenJson
from connectors.fhir.codec import decode, encode
from connectors.fhir.packed import Packed
from service.errors import StoreError
from service.record.facts import Extracted

ENTRIES_A_PART = 32
_NAME_CHARACTERS = 32


def name_of(content: bytes) -> str:
    """Return by which a part is named: the beginning of its SHA-256 (hex)."""
    return hashlib.sha256(content).hexdigest()[:_NAME_CHARACTERS]


def parts_of(entries: Iterable[tuple[str, Any]], count: int) -> Iterator[bytes]:
    """Yield the parts of some `count` named entries, each as JSON; the same entries make the same parts.

    Entries wait compressed, so that a chart of any size goes through. Raises ValueError for what is no JSON.
    """
    buckets = 1 << max(0, (count // ENTRIES_A_PART).bit_length())
    held: dict[int, list[tuple[str, bytes]]] = {}
    for name, entry in entries:
        place = int.from_bytes(hashlib.sha256(name.encode("utf-8", "replace")).digest()[:4]) % buckets
        held.setdefault(place, []).append((name, zlib.compress(encode(entry), 1)))
    for place in sorted(held):
        part = sorted((name, zlib.decompress(data)) for name, data in held.pop(place))
        yield b"[" + b",".join(data for _, data in part) + b"]"


def named_resources(resources: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Yield each resource under its reference; what is no resource under no name."""
    for one in resources:
        yield (f"{one.get('resourceType')}/{one.get('id')}" if isinstance(one, dict) else ""), one


def named_texts(texts: Mapping[str, Extracted]) -> Iterator[tuple[str, Any]]:
    """Yield each text under the key of its content."""
    for key, text in texts.items():
        yield key, [key, text.text, text.unread]


def resources_in(parts: Iterable[bytes]) -> Packed:
    """Return the resources of these parts. Raises StoreError."""
    packed = Packed()
    for part in parts:
        packed.extend(_entries(part), len(part))
    return packed


def texts_in(parts: Iterable[bytes]) -> dict[str, Extracted]:
    """Return the texts of these parts, by key. Raises StoreError."""
    return {key: Extracted(text, unread) for part in parts for key, text, unread in _entries(part)}


def _entries(part: bytes) -> list[Any]:
    try:
        found = decode(part)
    except BrokenJson:
        raise StoreError("A part of a run's inputs is damaged.") from None
    if not isinstance(found, list):
        raise StoreError("A part of a run's inputs is damaged.")
    return found
