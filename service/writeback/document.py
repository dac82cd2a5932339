"""The DocumentReference: a labelled draft in four forms, typed so that nothing takes it for a summary."""

from __future__ import annotations

import hashlib
from typing import Any

from service.ports import DOCUMENT_SYSTEM, StoredRun
from service.record.facts import Fact, Kind, Status
from service.writeback.attachment import attachment
from service.writeback.composition import document_bundle, encoded
from service.writeback.json_form import Sign, json_form
from service.writeback.labels import BANNER, DRAFT_TYPE, US_CORE, WriteProfile, security, security_labels
from service.writeback.moment import fhir_date, fhir_instant
from service.writeback.page import Sources, compose_page, describe
from service.writeback.sources import LITERAL, plain_reference
from service.writeback.text import plain_text, xhtml

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
    run: StoredRun,
    sources: Sources,
    software_version: str,
    profile: WriteProfile,
    device: str,
    sign: Sign | None = None,
) -> dict[str, Any]:
    """Return the DocumentReference of a run. `device` is the reference of its author."""
    written = fhir_instant(run.created_at)
    document: dict[str, Any] = {
        "resourceType": "DocumentReference",
        "meta": {
            "profile": [f"{US_CORE}/StructureDefinition/us-core-documentreference"],
            "security": security(profile, run.summary.labels),
        },
        "language": "en",
        "identifier": [{"system": DOCUMENT_SYSTEM, "value": run.inputs.key}],
        "status": "current",
        "docStatus": "preliminary",
        "type": DRAFT_TYPE,
        "category": [_CATEGORY],
        "subject": {"reference": run.inputs.patient},
        "date": written,
        "author": [{"reference": device}],
        "description": describe(run),
        "securityLabel": security_labels(profile, run.summary.labels),
        "content": [
            {"attachment": attachment(media_type, f"{BANNER}: {title}", data, written)}
            for media_type, title, data in _forms(run, sources, software_version, profile, sign)
        ],
        "context": _context(run, sources),
    }
    if not profile.device_author:
        del document["author"]
    for name in ("securityLabel", "context"):
        if not document[name]:
            del document[name]
    return document


def _forms(
    run: StoredRun, sources: Sources, software_version: str, profile: WriteProfile, sign: Sign | None
) -> list[tuple[str, str, bytes]]:
    """Return content type, title and data of every form. The signed one holds the digests of the others."""
    page = compose_page(run, sources, software_version)
    forms = [
        ("text/plain; charset=utf-8", "text", plain_text(page).encode()),
        ("application/xhtml+xml", "page", xhtml(page).encode()),
    ]
    bundle = encoded(document_bundle(run, sources, software_version, profile))
    if bundle is not None:
        forms.append(("application/fhir+json", "document", bundle))
    digests = {
        media_type.partition(";")[0]: hashlib.sha256(data).hexdigest() for media_type, _, data in forms
    }
    proof = json_form(run, sources, software_version, digests, sign)
    return [*forms[:2], ("application/json", "statements and sources", proof), *forms[2:]]


def _context(run: StoredRun, sources: Sources) -> dict[str, Any]:
    context: dict[str, Any] = {}
    summary, encounter = run.summary, encounter_of(run)
    if encounter:
        context["encounter"] = [{"reference": encounter}]
    dated = [fact for fact in summary.facts if fact.when and fact.kind not in _OUTSIDE_THE_CHART]
    if dated:
        context["period"] = _period(dated)
    cited = dict.fromkeys(source.fact.source for source in sources.values())
    related = {str(reference): reference for reference in map(plain_reference, cited) if reference}
    if related:
        context["related"] = list(related.values())
    return context


def encounter_of(run: StoredRun) -> str:
    """Return the encounter at hand: the one that was named, or the one stay that lasts (US Core: one)."""
    lasting = {
        fact.source.reference
        for fact in run.summary.facts
        if fact.kind is Kind.ENCOUNTER and fact.status is Status.IN_PROGRESS
    }
    found = {run.inputs.encounter} if run.inputs.encounter else lasting
    (one,) = found if len(found) == 1 else ("",)
    return one if LITERAL.fullmatch(one) else ""


def _period(dated: list[Fact]) -> dict[str, str]:
    whens = [fact.when for fact in dated if fact.when]
    first = min(whens, key=lambda when: when.earliest)
    last = max(whens, key=lambda when: when.latest)
    return {"start": fhir_date(first), "end": fhir_date(last)}
