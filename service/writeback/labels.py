"""What marks our resources as written by an AI, as drafts and as ours; and what a server must keep of it.

The label is HL7's "AI Transparency on FHIR": `AIAST` in `meta.security`. `NOPAT` keeps drafts from patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from service.errors import FilingError

BANNER = "AI-GENERATED DRAFT, NOT REVIEWED"
"""Begins and ends every human-readable form (SAFETY 16)."""

US_CORE = "http://hl7.org/fhir/us/core"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
DRAFT_TYPE_SYSTEM = "urn:epicrisis:document-type"
PROMPT_SYSTEM = "urn:epicrisis:prompt"

AI_ASSERTED = {
    "system": f"{TERMINOLOGY}/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
NOT_FOR_PATIENT = {
    "system": f"{TERMINOLOGY}/v3-ActCode",
    "code": "NOPAT",
    "display": "no disclosure to patient, family or caregivers without attending provider's authorization",
}
_CONFIDENTIALITY = {"N": "normal", "R": "restricted", "V": "very restricted"}


@dataclass(frozen=True, slots=True)
class WriteProfile:
    """How one kind of server is written to. The default fits a server that keeps what R4 allows."""

    name: str = "r4"
    provenance: Literal["conditional", "put"] = "conditional"
    """`conditional`: created unless one with our document as target exists. `put`: under an id of ours, for
    servers without chained conditions; a repeat then writes the same content as a further version."""
    keeps_doc_status: bool = True
    keeps_labels: bool = True
    """False where the server drops `meta.security`."""
    device_author: bool = True
    """False where the server refuses a Device as author: the author is left out then (SAFETY 17)."""
    confidentiality: Literal["N", "R", "V"] = "N"
    """The site's least confidentiality for drafts."""


def check_profile(profile: WriteProfile) -> None:
    """Raise FilingError where a draft would lose what says that it is one (SAFETY 16)."""
    lost = [
        what
        for what, kept in (("docStatus", profile.keeps_doc_status), ("the AI label", profile.keeps_labels))
        if not kept
    ]
    if lost:
        raise FilingError(
            f"This server would drop {' and '.join(lost)}: a draft could be taken for a finished document.",
            "Nothing is filed there until the site has accepted this risk in writing.",
        )


def security(profile: WriteProfile) -> list[dict[str, Any]]:
    """Return `meta.security` of everything we write about a patient."""
    confidentiality = {
        "system": f"{TERMINOLOGY}/v3-Confidentiality",
        "code": profile.confidentiality,
        "display": _CONFIDENTIALITY[profile.confidentiality],
    }
    return [dict(AI_ASSERTED), dict(NOT_FOR_PATIENT), confidentiality]
