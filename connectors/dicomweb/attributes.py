"""DICOM JSON (PS3.18 F.2) reduced to what is used: a study of 2,000 slices fits into memory that way.

Nothing is interpreted here; values are handed on as the PACS wrote them.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from connectors.errors import NotDicom

STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
SOP_CLASS, MODALITY = "00080016", "00080060"
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
"""SOP class of Key Object Selection documents (PS3.4 B.5)."""
_CONTENT, _EVIDENCE = "0040A730", "0040A375"
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_MAX_UID = 64
_MAX_VALUE_BYTES = 64 * 1024

KEPT = frozenset(
    """
    00080005 00080008 00080016 00080018 00080020 00080021 00080022 00080023 0008002A 00080030 00080031
    00080032 00080033 00080050 00080060 00080061 00080064 00080068 00080070 00081030 0008103E 00081032
    00081090 00081140 00082218 00083002 00100020 00100021 00100024 00100030 00100040 00101002 00180010
    00180015 00180050 00180087 00181030 00185100 00185101 0020000D 0020000E 00200010 00200011 00200012
    00200013 00200020 00200032 00200037 00200052 00200060 00200062 00201041 00201206 00201208 00201209
    00280002 00280004 00280006 00280008 00280009 00280010 00280011 00280030 00280034 00280100 00280101
    00280102 00280103 00280106 00280107 00280120 00280301 00280302 00281050 00281051 00281052 00281053
    00281054 00281055 00281056 00282110 0040A040 0040A043 00540220 00540222 00204000 00189074 52009229
    """.split()
)
"""Attributes of the image and of whom it shows, by tag; a document's content only for key objects."""


def is_uid(value: Any) -> bool:
    """Tell whether this is a DICOM UID (PS3.5 9.1). Leading zeros of a component are seen, so allowed."""
    return isinstance(value, str) and len(value) <= _MAX_UID and _UID.fullmatch(value) is not None


def plain_uid(value: Any) -> str:
    """Return the UID of `urn:oid:1.2.3` or `1.2.3`; an empty string for what is none."""
    text = value.strip().removeprefix("urn:oid:") if isinstance(value, str) else ""
    return text if is_uid(text) else ""


def first(item: dict[str, Any], tag: str) -> Any:
    """Return the first value of an attribute; None where there is none."""
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def uid(item: dict[str, Any], tag: str) -> str:
    """Return an attribute that is a UID; an empty string for what is none."""
    return plain_uid(first(item, tag))


def count(item: dict[str, Any], tag: str) -> int | None:
    """Return an attribute that is a whole number; some servers write them as strings."""
    value = first(item, tag)
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_items(body: bytes, most: int) -> tuple[list[dict[str, Any]], bool]:
    """Return the items of an answer, each reduced, and whether there were more than `most`.

    Raises NotDicom for what is no array of objects. An empty body is an empty list (204, and some 200).
    """
    if not body.strip():
        return [], False
    try:
        raw = _ITEMS.decode(body)
        items = [_reduced(_ITEM.decode(one)) for one in raw[:most]]
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise NotDicom("An answer of the PACS is not DICOM JSON.") from None
    return items, len(raw) > most


_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_ITEM = msgspec.json.Decoder(dict[str, Any])


def _reduced(item: dict[str, Any]) -> dict[str, Any]:
    tags = KEPT | {_CONTENT, _EVIDENCE} if uid(item, SOP_CLASS) == KEY_OBJECTS else KEPT
    return {tag: item[tag] for tag in item if tag in tags and _is_small(item[tag])}


def _is_small(element: Any) -> bool:
    """Tell whether an element is worth keeping: no bulk, whatever tag it hides behind."""
    if not isinstance(element, dict) or "InlineBinary" in element or "BulkDataURI" in element:
        return False
    return len(msgspec.json.encode(element)) <= _MAX_VALUE_BYTES
