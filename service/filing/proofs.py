"""What a document's own JSON form says of the texts that clinicians added to it, or changed in it."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from service.writeback.lasting import Addition, Change


def additions_in(document: dict[str, Any]) -> tuple[Addition, ...]:
    """Return what clinicians added to a document, oldest first; nothing where its JSON form is not kept."""
    form = _form(document) or {}
    try:
        return tuple(Addition(one["by"], one["at"], one["text"]) for one in form.get("added", []))
    except (KeyError, TypeError, AttributeError):
        return ()


def changes_in(document: dict[str, Any]) -> tuple[Change, ...] | None:
    """Return what clinicians changed in a document, in reading order; None where no JSON form is kept."""
    form = _form(document)
    if form is None:
        return None
    try:
        changes = [
            Change(int(one["place"]) - 1, one["by"], one["at"], one.get("text", ""))
            for name in ("written", "rejected")
            for one in form.get(name, [])
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return tuple(sorted(changes))


def _form(document: dict[str, Any]) -> dict[str, Any] | None:
    for content in document.get("content") or []:
        attachment = content.get("attachment") or {}
        if str(attachment.get("contentType", "")).partition(";")[0] == "application/json":
            try:
                data = base64.b64decode(str(attachment.get("data", "")), validate=True)
                return msgspec.json.decode(data, type=dict[str, Any])
            except (msgspec.MsgspecError, binascii.Error):
                return None
    return None
