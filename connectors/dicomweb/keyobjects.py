"""Which instances somebody marked: Key Object Selection documents (PS3.3 C.17.6, TID 2010).

A radiologist who reads a study marks the images that show what the report says. Other reasons for marking
(rejected for quality, a manifest for sending) say nothing of the kind, and are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from connectors.dicomweb.attributes import KEY_OBJECTS, SOP_CLASS, first, uid
from connectors.fhir.codec import dicts

_TITLE, _CODE, _SCHEME = "0040A043", "00080100", "00080102"
_CONTENT, _REFERENCED, _REFERENCED_UID = "0040A730", "00081199", "00081155"
_NOT_OF_INTEREST = frozenset(
    """
    113001 113010 113030 113031 113032 113033 113034 113035 113036 113037 113038 113039
    """.split()
)
"""CID 7010: rejected for quality or safety, a quality issue, manifests, whole contents, groups, retention."""
_MAX_DEPTH = 8


def marked_instances(items: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """Return the SOP instance UIDs that key objects among a study's metadata mark, in order, each once."""
    found: dict[str, None] = {}
    for item in items:
        if uid(item, SOP_CLASS) == KEY_OBJECTS and _is_of_interest(item):
            found |= dict.fromkeys(_referenced(item, 0))
    return tuple(found)


def _is_of_interest(document: dict[str, Any]) -> bool:
    title = first(document, _TITLE)
    if not isinstance(title, dict) or first(title, _SCHEME) != "DCM":
        return True
    return first(title, _CODE) not in _NOT_OF_INTEREST


def _referenced(item: dict[str, Any], depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        return
    for content in _sequence(item, _CONTENT):
        for reference in _sequence(content, _REFERENCED):
            instance = uid(reference, _REFERENCED_UID)
            if instance:
                yield instance
        yield from _referenced(content, depth + 1)


def _sequence(item: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    element = item.get(tag)
    return dicts(element.get("Value")) if isinstance(element, dict) else []
