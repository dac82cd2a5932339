"""What marks our resources as written by an AI, as drafts and as ours; and what a server must keep of it.

The label is HL7's "AI Transparency on FHIR": `AIAST` in `meta.security`. `NOPAT` keeps drafts from patients.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from service.errors import FilingError
from service.record.facts import Code
from service.record.labels import CONFIDENTIALITY, LEVELS, highest_labels, level_of
from service.writeback.clean import one_line

BANNER = "AI-GENERATED DRAFT, NOT REVIEWED"
"""Begins and ends every human-readable form (SAFETY 16)."""

US_CORE = "http://hl7.org/fhir/us/core"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
DRAFT_TYPE_SYSTEM = "urn:epicrisis:document-type"
PROMPT_SYSTEM = "urn:epicrisis:prompt"

DRAFT_TYPE = {
    "coding": [
        {"system": "http://loinc.org", "code": "11503-0", "display": "Medical records"},
        {"system": DRAFT_TYPE_SYSTEM, "code": "ai-draft-summary", "display": "AI-generated draft summary"},
    ],
    "text": "AI-generated draft summary, not reviewed",
}
"""Clients ask for documents by type: a draft must not answer as a summary."""

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
_SPACE = re.compile(r"\s+")
_CONFIDENTIALITY = {"N": "normal", "R": "restricted", "V": "very restricted"}


@dataclass(frozen=True, slots=True)
class WriteProfile:
    """How one kind of server is written to. The default fits a server that keeps what R4 allows.

    `service.writeback.profiles` names those that are known.
    """

    name: str = "generic"
    provenance: Literal["conditional", "put"] = "conditional"
    """`conditional`: created unless one with our document as target exists. `put`: under an id of ours, for
    servers without chained conditions; a repeat then writes the same content as a further version."""
    keeps_doc_status: bool = True
    keeps_labels: bool = True
    """False where the server drops `meta.security`."""
    keeps_draft_type: bool = True
    """False where only some types are taken, and ours for drafts is not among them."""
    device_author: bool = True
    """False where the server refuses a Device as author: the author is left out then (SAFETY 17)."""
    shared_documents: bool = True
    """False where a DocumentReference without a patient is refused: prompt and model card are then named in
    the Provenance by their identifiers alone."""
    resource_types: frozenset[str] = frozenset({"Device", "DocumentReference", "Provenance"})
    """What may be written; the rest is kept in our store."""
    media_types: frozenset[str] | None = None
    """Content types of attachments that are taken; None for all."""
    elements: frozenset[str] | None = None
    """Elements of a DocumentReference that are kept; None for all. Others are not sent."""
    needs_encounter: bool = False
    """True where a document without `context.encounter` is refused."""
    confidentiality: Literal["N", "R", "V"] = "N"
    """The site's least confidentiality for drafts."""
    risk_signed_by: str = ""
    """Who at the site accepted in writing that a draft loses what says that it is one; empty: nobody."""

    @property
    def risks(self) -> tuple[str, ...]:
        """What says that a draft is a draft, and would be lost (SAFETY 16, 18)."""
        kept = (
            ("docStatus", self.keeps_doc_status),
            ("the AI label", self.keeps_labels),
            ("the draft's type", self.keeps_draft_type),
        )
        return tuple(what for what, is_kept in kept if not is_kept)


def check_profile(profile: WriteProfile, carried: Iterable[Code] = ()) -> None:
    """Raise FilingError where a draft would lose what says that it is one (SAFETY 16), or who may read it.

    What the site signed is that a draft may look finished, never that restricted data may look ordinary:
    with labels to carry (`carried`) nothing is filed where labels are dropped (SAFETY 20).
    """
    if tuple(carried) and not profile.keeps_labels:
        raise FilingError(
            "This summary rests on entries with a security label, and this server would drop the label.",
            "Nothing is filed there; the summary can be read here by those who may see its sources.",
        )
    if profile.risks and not profile.risk_signed_by:
        raise FilingError(
            f"This server would drop {' and '.join(profile.risks)}: "
            "a draft could be taken for a finished document.",
            "Nothing is filed there until the site has accepted this risk in writing: "
            "EPICRISIS_WRITE_RISK_SIGNED_BY names who did.",
        )


def security(profile: WriteProfile, carried: Sequence[Code] = ()) -> list[dict[str, Any]]:
    """Return `meta.security` of everything we write about a patient.

    `carried` are the labels of its sources: each is kept, and the highest confidentiality holds.
    """
    level = confidentiality(profile, carried)
    coding = {"system": CONFIDENTIALITY, "code": level, "display": _CONFIDENTIALITY[level]}
    return [dict(AI_ASSERTED), dict(NOT_FOR_PATIENT), *_sensitivity(carried), coding]


def confidentiality(profile: WriteProfile, carried: Iterable[Code] = ()) -> str:
    """Return the confidentiality of what rests on these labels: at least the site's (SAFETY 20)."""
    return max(profile.confidentiality, level_of(carried), key=LEVELS.index)


def security_labels(profile: WriteProfile, carried: Sequence[Code]) -> list[dict[str, Any]]:
    """Return `DocumentReference.securityLabel`: confidentiality and sensitivity, where a source has any."""
    codings = security(profile, carried)[2:] if carried else []
    return [{"coding": [coding]} for coding in codings]


def _sensitivity(carried: Iterable[Code]) -> list[dict[str, Any]]:
    """Return the labels other than levels as Codings of legal parts: records hold what no validator takes."""
    found = []
    for label in highest_labels(carried):
        if label.system == CONFIDENTIALITY and label.code in LEVELS:
            continue
        coding = {
            "system": "" if _SPACE.search(label.system) else label.system,
            "code": _SPACE.sub(" ", one_line(label.code)),
            "display": one_line(label.display),
        }
        found.append({name: value for name, value in coding.items() if value})
    return found
