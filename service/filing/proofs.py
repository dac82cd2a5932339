"""What a document's own JSON form says of the texts that clinicians added to it."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from service.writeback.lasting import Addition


def additions_in(document: dict[str, Any]) -> tuple[Addition, ...]:
    """Return what clinicians added to a document, oldest first; nothing where its JSON form is not kept."""
    for content in document.get("content") or []:
        attachment = content.get("attachment") or {}
        if str(attachment.get("contentType", "")).partition(";")[0] == "application/json":
            return tuple(_additions(str(attachment.get("data", ""))))
    return ()


def _additions(data: str) -> list[Addition]:
    try:
        form = msgspec.json.decode(base64.b64decode(data, validate=True))
        return [Addition(one["by"], one["at"], one["text"]) for one in form.get("added", [])]
    except (msgspec.MsgspecError, binascii.Error, KeyError, TypeError, AttributeError):
        return []
