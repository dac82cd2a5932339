"""What a pull of one patient's record brings back: the resources, and an honest list of what it missed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from connectors.fhir.packed import Packed


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
