"""One form of a document as a FHIR Attachment: its data, with the size and the hash that prove it."""

from __future__ import annotations

import base64
import hashlib
from typing import Any


def attachment(content_type: str, title: str, data: bytes, written: str = "") -> dict[str, Any]:
    """Return an Attachment. `hash` is the SHA-1 of the data before base64, `size` its bytes (R4)."""
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    built = {
        "contentType": content_type,
        "language": "en",
        "data": base64.b64encode(data).decode(),
        "size": len(data),
        "hash": base64.b64encode(digest).decode(),
        "title": title,
    }
    return built | ({"creation": written} if written else {})
