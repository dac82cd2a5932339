"""The document as a FHIR document: a Bundle whose Composition says the same as the other forms.

Its sections name their sources as versioned references to the server on which the document lies. R4 (3.3.1)
wants what sections refer to inside the Bundle as well; the sources are left where they are all the same: a
copy of the chart inside each draft would outlive what its sources were corrected to, and who may read them.
Patient and author are inside.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID, uuid5

from connectors.fhir.codec import encode
from service.grounding.summary import SummarySection
from service.ports import DOCUMENT_SYSTEM, StoredRun
from service.record.dates import parse_when
from service.record.facts import Absence, Identity
from service.writeback.clean import one_line
from service.writeback.device import build_device
from service.writeback.labels import BANNER, DRAFT_TYPE, WriteProfile, confidentiality, security
from service.writeback.moment import fhir_instant
from service.writeback.page import (
    Block,
    Line,
    Sources,
    closing_blocks,
    identity_lines,
    section_blocks,
    source_blocks,
)
from service.writeback.sources import version_reference
from service.writeback.text import narrative

LARGEST_BYTES = 512 * 1024
"""A larger one is not filed: it says nothing that the other forms do not, and servers bound a request."""
_NAMESPACE = UUID("0c2f0f0e-6f0a-5d0b-9a55-1b7a1f5d7c22")
_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")


def document_bundle(
    run: StoredRun, sources: Sources, software_version: str, profile: WriteProfile
) -> dict[str, Any]:
    """Return the document Bundle of a run: Composition, Patient and Device."""
    names = {kind: f"urn:uuid:{uuid5(_NAMESPACE, f'{kind} {run.inputs.key}')}" for kind in ("c", "p", "d")}
    written = fhir_instant(run.created_at)
    labels = security(profile, run.summary.labels)
    composition = {
        "resourceType": "Composition",
        "meta": {"security": labels},
        "language": "en",
        "text": narrative(_head(run)),
        "status": "preliminary",
        "type": DRAFT_TYPE,
        "subject": {"reference": names["p"], "display": one_line(run.inputs.patient)},
        "date": written,
        "author": [{"reference": names["d"]}],
        "title": BANNER,
        "confidentiality": confidentiality(profile, run.summary.labels),
        "section": [
            *(_section(section, sources) for section in run.summary.sections),
            {"title": "Sources", "text": narrative(source_blocks(sources))},
            {"title": "About this draft", "text": narrative(_tail(run, software_version))},
        ],
    }
    contained = (composition, _patient(run.summary.identity), build_device(run.inputs, software_version))
    return {
        "resourceType": "Bundle",
        "meta": {"security": labels},
        "identifier": {"system": DOCUMENT_SYSTEM, "value": run.inputs.key},
        "type": "document",
        "timestamp": written,
        "entry": [
            {"fullUrl": name, "resource": resource}
            for name, resource in zip(names.values(), contained, strict=True)
        ],
    }


def encoded(bundle: dict[str, Any]) -> bytes | None:
    """Return the bytes of a document Bundle, or None where it is too large to be filed."""
    data = encode(bundle)
    return data if len(data) <= LARGEST_BYTES else None


def _head(run: StoredRun) -> list[Block]:
    return [Block(Line.BANNER, BANNER), *(Block(Line.IDENTITY, text) for text in identity_lines(run))]


def _tail(run: StoredRun, software_version: str) -> list[Block]:
    return [*closing_blocks(run, software_version), *reversed(_head(run))]


def _section(section: SummarySection, sources: Sources) -> dict[str, Any]:
    cited = dict.fromkeys(
        version
        for claim in section.claims
        for id_ in claim.citations
        for version in sources[id_].fact.sources
    )
    built: dict[str, Any] = {
        "title": one_line(section.title) or "Section",
        "text": narrative(section_blocks(section, sources)),
    }
    if cited:
        built["entry"] = [version_reference(version) for version in cited]
    elif section.state is Absence.NOT_RETRIEVED:
        code = {"system": "http://terminology.hl7.org/CodeSystem/list-empty-reason", "code": "unavailable"}
        built["emptyReason"] = {"coding": [code]}
    return built


def _patient(identity: Identity) -> dict[str, Any]:
    """Return what tells this patient from another, as recorded; what is not recorded is left out."""
    patient: dict[str, Any] = {"resourceType": "Patient"}
    number, name = one_line(identity.record_number), one_line(identity.name)
    if number:
        patient["identifier"] = [{"value": number}]
    if name:
        patient["name"] = [{"text": name}]
    if _DATE.fullmatch(identity.birth_date) and parse_when(identity.birth_date, None):
        patient["birthDate"] = identity.birth_date
    return patient
