"""The DocumentReference: a labelled draft in three forms, typed so that nothing takes it for a summary."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from service.grounding.summary import Summary
from service.ports import DOCUMENT_SYSTEM, StoredRun
from service.record.facts import Fact, Kind
from service.writeback.json_form import json_form
from service.writeback.labels import BANNER, DRAFT_TYPE_SYSTEM, US_CORE, WriteProfile, security
from service.writeback.moment import fhir_date, fhir_instant
from service.writeback.page import Sources, compose_page, describe
from service.writeback.sources import plain_reference
from service.writeback.text import plain_text, xhtml

_TYPE = {
    "coding": [
        {"system": "http://loinc.org", "code": "11503-0", "display": "Medical records"},
        {"system": DRAFT_TYPE_SYSTEM, "code": "ai-draft-summary", "display": "AI-generated draft summary"},
    ],
    "text": "AI-generated draft summary, not reviewed",
}
_CATEGORY = {
    "coding": [
        {
            "system": f"{US_CORE}/CodeSystem/us-core-documentreference-category",
            "code": "clinical-note",
            "display": "Clinical Note",
        }
    ]
}
_OUTSIDE_THE_CHART = frozenset({Kind.PATIENT, Kind.FAMILY_HISTORY})
"""Their dates are births and relatives' illnesses, not the period that the document covers."""


def build_document(
    run: StoredRun, sources: Sources, software_version: str, profile: WriteProfile, device: str
) -> dict[str, Any]:
    """Return the DocumentReference of a run. `device` is the reference of its author."""
    written = fhir_instant(run.created_at)
    document: dict[str, Any] = {
        "resourceType": "DocumentReference",
        "meta": {
            "profile": [f"{US_CORE}/StructureDefinition/us-core-documentreference"],
            "security": security(profile),
        },
        "language": "en",
        "identifier": [{"system": DOCUMENT_SYSTEM, "value": run.inputs.key}],
        "status": "current",
        "docStatus": "preliminary",
        "type": _TYPE,
        "category": [_CATEGORY],
        "subject": {"reference": run.inputs.patient},
        "date": written,
        "author": [{"reference": device}],
        "description": describe(run),
        "content": _contents(run, sources, software_version, written),
        "context": _context(run.summary, sources),
    }
    if not profile.device_author:
        del document["author"]
    if not document["context"]:
        del document["context"]
    return document


def _contents(run: StoredRun, sources: Sources, software_version: str, written: str) -> list[dict[str, Any]]:
    page = compose_page(run, sources, software_version)
    forms = (
        ("text/plain; charset=utf-8", "text", plain_text(page).encode()),
        ("application/xhtml+xml", "page", xhtml(page).encode()),
        ("application/json", "statements and sources", json_form(run, sources, software_version)),
    )
    return [{"attachment": _attachment(*form, written)} for form in forms]


def _attachment(content_type: str, title: str, data: bytes, written: str) -> dict[str, Any]:
    """`hash` is the SHA-1 of the data before base64 and `size` its bytes (R4, Attachment)."""
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return {
        "contentType": content_type,
        "language": "en",
        "data": base64.b64encode(data).decode(),
        "size": len(data),
        "hash": base64.b64encode(digest).decode(),
        "title": f"{BANNER}: {title}",
        "creation": written,
    }


def _context(summary: Summary, sources: Sources) -> dict[str, Any]:
    context: dict[str, Any] = {}
    dated = [fact for fact in summary.facts if fact.when and fact.kind not in _OUTSIDE_THE_CHART]
    if dated:
        context["period"] = _period(dated)
    cited = dict.fromkeys(source.fact.source for source in sources.values())
    related = {str(reference): reference for reference in map(plain_reference, cited) if reference}
    if related:
        context["related"] = list(related.values())
    return context


def _period(dated: list[Fact]) -> dict[str, str]:
    whens = [fact.when for fact in dated if fact.when]
    first = min(whens, key=lambda when: when.earliest)
    last = max(whens, key=lambda when: when.latest)
    return {"start": fhir_date(first), "end": fhir_date(last)}
