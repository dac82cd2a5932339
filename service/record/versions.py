"""Which version of a resource was read: its reference, its version id and the digest of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from connectors.fhir.codec import canonical
from service.record.facts import Resource, ResourceVersion

_VOLATILE = ("versionId", "lastUpdated")


def content_digest(resource: Resource) -> str | None:
    """Return the SHA-256 (hex) of a resource without `meta.versionId` and `meta.lastUpdated`.

    None for what no JSON text can hold, such as endless nesting.
    """
    meta = resource.get("meta")
    content: dict[str, Any] = resource
    if isinstance(meta, dict):
        content = {**resource, "meta": {k: v for k, v in meta.items() if k not in _VOLATILE}}
        if not content["meta"]:
            del content["meta"]
    data = _canonical(content)
    return None if data is None else hashlib.sha256(data).hexdigest()


def _canonical(content: Any) -> bytes | None:
    try:
        return canonical(content)
    except ValueError:
        pass
    try:  # lone surrogates and NaN come from other parsers than ours; escaped, they still have one form
        return json.dumps(content, sort_keys=True, default=str).encode()
    except (ValueError, TypeError, RecursionError):
        return None


def version_id(resource: Resource) -> str | None:
    """Return `meta.versionId` where there is one."""
    meta = resource.get("meta")
    version = meta.get("versionId") if isinstance(meta, dict) else None
    if isinstance(version, int) and not isinstance(version, bool):
        return str(version) if version.bit_length() < 64 else None
    return version if isinstance(version, str) and version else None


def last_updated(resource: Resource) -> str:
    """Return `meta.lastUpdated` as recorded, or an empty string."""
    meta = resource.get("meta")
    updated = meta.get("lastUpdated") if isinstance(meta, dict) else None
    return updated if isinstance(updated, str) else ""


def record_digest(inputs: Iterable[ResourceVersion]) -> str:
    """Return the SHA-256 (hex) over sorted inputs."""
    lines = json.dumps([[i.reference, i.version, i.digest] for i in inputs], separators=(",", ":"))
    return hashlib.sha256(lines.encode()).hexdigest()
