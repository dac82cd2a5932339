"""What a pull of one patient's record brings back: the resources, and an honest list of what it missed."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from connectors.fhir.capabilities import Capabilities
from connectors.fhir.packed import Packed

_MAGIC = b"epicrisis pull 1\n"
"""What a dump begins with; the number is the version of its format."""
_DIGEST_BYTES = 32
_LENGTH_BYTES = 8


class GapReason(StrEnum):
    """Why a part of the record is missing."""

    REFUSED = "refused"
    TIMED_OUT = "timed out"
    SUPPRESSED = "suppressed by the server"
    FAILED = "failed"
    TOO_LARGE = "too large"
    PAGING = "paging broke off"
    NOT_ALLOWED = "outside the allowed origins"
    NOT_SUPPORTED = "not offered by the server"


@dataclass(frozen=True, slots=True)
class Gap:
    """One thing that could not be fetched. `resource_type` is None when the whole record is concerned.

    `detail` is safe to show and to log: it never holds patient data.
    """

    resource_type: str | None
    reason: GapReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Pull:
    """One patient's resources as received, and what could not be fetched."""

    patient_id: str
    resources: Packed
    """Each as received; a resource the server sent twice in the same version is here once."""
    gaps: tuple[Gap, ...]
    read_at: datetime
    """Aware: the instant at which the pull began, so everything up to it was seen."""
    requests: int = 0
    bytes_received: int = 0
    binaries: dict[str, bytes] = field(default_factory=dict)
    """Attachment url → content, for attachments that are not inline and were allowed to be fetched."""
    whole_at: datetime | None = None
    """Aware: when the record was last read whole; `read_at` itself unless this was a refresh."""
    changed: int | None = None
    """How many resources this refresh brought that are new or newer; None where all was read whole."""
    dropped: int = 0
    """How many resources this refresh left out because the server deleted them."""
    seen_until: datetime | None = None
    """Aware: every change up to it was seen, by the server's clock where that was behind ours."""
    broken: frozenset[str] = frozenset()
    """Types whose search left a gap: a refresh asks for all of them, not for what changed."""
    capabilities: Capabilities | None = None
    """What the server offered at the last whole read: a refresh by a new client need not ask again."""

    def dump(self) -> bytes:
        """Return compressed bytes that hold all that a later refresh needs. `load` reads them."""
        contents = list(self.binaries.values())
        head = {
            "patient_id": self.patient_id,
            "gaps": [[gap.resource_type, gap.reason.value, gap.detail] for gap in self.gaps],
            "read_at": self.read_at.isoformat(),
            "whole_at": self.whole_at and self.whole_at.isoformat(),
            "seen_until": self.seen_until and self.seen_until.isoformat(),
            "broken": sorted(self.broken),
            "capabilities": self.capabilities and self.capabilities.plain(),
            "binaries": [[url, len(content)] for url, content in self.binaries.items()],
        }
        parts = [zlib.compress(json.dumps(head).encode()), zlib.compress(b"".join(contents), 1)]
        body = b"".join(_with_length(part) for part in [*parts, self.resources.dump()])
        return _MAGIC + hashlib.sha256(body).digest() + body

    @classmethod
    def load(cls, data: bytes) -> Pull:
        """Return what `dump` wrote. Raises ValueError for bytes that are foreign, damaged or too new."""
        start = len(_MAGIC) + _DIGEST_BYTES
        body = data[start:]
        if not data.startswith(_MAGIC) or data[len(_MAGIC) : start] != hashlib.sha256(body).digest():
            raise ValueError("these bytes hold no pull, or a damaged one")
        head, contents, resources = _parts(body)
        known = json.loads(zlib.decompress(head))
        return cls(
            patient_id=known["patient_id"],
            resources=Packed.load(resources),
            gaps=tuple(Gap(kind, GapReason(reason), detail) for kind, reason, detail in known["gaps"]),
            read_at=datetime.fromisoformat(known["read_at"]),
            binaries=_binaries(known["binaries"], zlib.decompress(contents)),
            whole_at=_instant(known["whole_at"]),
            seen_until=_instant(known["seen_until"]),
            broken=frozenset(known["broken"]),
            capabilities=known["capabilities"] and Capabilities.of_plain(known["capabilities"]),
        )


def _with_length(part: bytes) -> bytes:
    return len(part).to_bytes(_LENGTH_BYTES, "big") + part


def _parts(body: bytes) -> list[bytes]:
    parts, place = [], 0
    while place < len(body):
        size = int.from_bytes(body[place : place + _LENGTH_BYTES], "big")
        place += _LENGTH_BYTES
        parts.append(body[place : place + size])
        place += size
    return parts


def _binaries(lengths: list[list[Any]], contents: bytes) -> dict[str, bytes]:
    found, place = {}, 0
    for url, length in lengths:
        found[url] = contents[place : place + length]
        place += length
    return found


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
