"""The one write: model, prompt, document and Provenance in one transaction, safe to send repeatedly.

What all runs of a model or prompt share comes first and is found again; the document stands before the
Provenance that targets it.
"""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid5

import msgspec
from fhir.resources.R4B.bundle import Bundle
from pydantic import ValidationError

from service.errors import FilingError
from service.grounding.summary import Summary
from service.ports import DOCUMENT_SYSTEM, StoredRun
from service.writeback.device import build_device
from service.writeback.document import build_document
from service.writeback.json_form import Sign
from service.writeback.labels import WriteProfile, check_profile
from service.writeback.pictures import as_filed, may_be_filed
from service.writeback.provenance import build_provenance, provenance_id
from service.writeback.shared import build_model_card, build_prompt
from service.writeback.sources import LITERAL, numbered_sources

_NAMESPACE = UUID("6f4d9c0e-5f0b-5c53-9d0b-2b9d3c1f7a10")
"""Of the urn:uuid names in our transactions. Changing it changes the bytes of a retry."""


def build_transaction(
    run: StoredRun,
    *,
    software_version: str,
    profile: WriteProfile | None = None,
    sign: Sign | None = None,
) -> dict[str, Any]:
    """Return the transaction Bundle of a run; the same run and key give the same bytes, on every retry.

    Raises FilingError where nothing may be filed: a deceased or different patient, a statement without a
    source, a server that would drop the label, or a resource that is not valid FHIR.
    """
    profile = profile or WriteProfile()
    run = as_filed(run)
    check_profile(profile, run.summary.labels)
    _check_run(run)
    key = run.inputs.key
    document, device, provenance = (_urn(kind, key) for kind in ("document", "device", "provenance"))
    sources = numbered_sources(run.summary)
    shared = _shared(run, profile, device)
    written = build_document(run, sources, software_version, profile, device, sign)
    origin = build_provenance(
        run, profile, document, device, signature=_signature(written), **_derivations(shared)
    )
    by_key = f"identifier={_token(DOCUMENT_SYSTEM, key)}"
    return _checked(
        {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [
                _shared_entry(device, build_device(run.inputs, software_version)),
                *(_shared_entry(*one) for one in shared.items()),
                _create(document, written, by_key),
                _put(provenance, origin | {"id": provenance_id(key)})
                if profile.provenance == "put"
                else _create(provenance, origin, f"target:DocumentReference.{by_key}"),
            ],
        }
    )


def _shared(run: StoredRun, profile: WriteProfile, device: str) -> dict[str, dict[str, Any]]:
    """Return urn → resource of the prompt and the model card, in this order; none where not to be written."""
    if not profile.shared_documents:
        return {}
    key, about = run.inputs.key, device if profile.device_author else ""
    return {
        _urn("prompt", key): build_prompt(run.inputs),
        _urn("card", key): build_model_card(run.inputs, about),
    }


def _derivations(shared: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if not shared:
        return {}
    prompt, card = shared
    title = shared[card]["description"]
    return {"prompt": prompt, "card": {"reference": card, "display": title}}


def _shared_entry(urn: str, resource: dict[str, Any]) -> dict[str, Any]:
    identifier = resource["identifier"][0]
    return _create(urn, resource, f"identifier={_token(identifier['system'], str(identifier['value']))}")


def _signature(document: dict[str, Any]) -> str:
    """Return the signature within the JSON form, empty where there is none."""
    (data,) = (
        content["attachment"]["data"]
        for content in document["content"]
        if content["attachment"]["contentType"] == "application/json"
    )
    return str(msgspec.json.decode(base64.b64decode(data)).get("signature", ""))


def refusal(summary: Summary) -> str | None:
    """Say why a summary may not be filed by itself, or None: the deceased (SAFETY 18), the incomplete (6)."""
    if summary.identity.deceased:
        return "The patient is recorded as deceased: no draft is filed."
    if summary.incomplete:
        return f"INCOMPLETE: not retrieved: {', '.join(summary.incomplete)}. Nothing is filed by itself."
    return None


def _check_run(run: StoredRun) -> None:
    summary = run.summary
    if summary.identity.deceased:
        raise FilingError("The patient is recorded as deceased: no draft is filed.")
    if summary.identity.reference != run.inputs.patient:
        raise FilingError("The summary is about another patient than the run: nothing is filed.")
    if LITERAL.fullmatch(run.inputs.patient) is None:
        raise FilingError("The patient has no id on the server: nothing is filed.")
    told = ((section, claim) for section in summary.sections for claim in section.claims)
    if not all(may_be_filed(section, claim, summary.facts) for section, claim in told):
        raise FilingError("A statement has no source that bears it out: nothing is filed.")


def _urn(kind: str, run_key: str) -> str:
    return f"urn:uuid:{uuid5(_NAMESPACE, f'{kind} {run_key}')}"


def _token(system: str, value: str) -> str:
    """Return `system|value` for a search: FHIR's own escapes first (R4, 3.1.1.4.5.2), then the URL's."""
    for special in "\\,$|":
        value = value.replace(special, f"\\{special}")
    return f"{quote(system, safe=':')}|{quote(value, safe=':')}"


def _create(urn: str, resource: dict[str, Any], unless: str) -> dict[str, Any]:
    request = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": unless}
    return {"fullUrl": urn, "resource": resource, "request": request}


def _put(urn: str, resource: dict[str, Any]) -> dict[str, Any]:
    request = {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"}
    return {"fullUrl": urn, "resource": resource, "request": request}


def _checked(bundle: dict[str, Any]) -> dict[str, Any]:
    """Validate strictly; the bundle itself is what is sent, since models rewrite instants."""
    try:
        Bundle.model_validate(bundle)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_url=False, include_input=False)[0]["loc"])
        raise FilingError(
            f"What was to be written is not valid FHIR R4 ({where}): nothing is filed."
        ) from None
    return bundle
