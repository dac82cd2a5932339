"""The Provenance: which model wrote the document, from which resource versions, with which prompt."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from service.ports import StoredRun
from service.writeback.clean import one_line
from service.writeback.labels import AI_ASSERTED, PROMPT_SYSTEM, TERMINOLOGY, WriteProfile, security
from service.writeback.moment import fhir_instant
from service.writeback.sources import given_versions, version_reference


def build_provenance(
    run: StoredRun,
    profile: WriteProfile,
    document: str,
    device: str,
    *,
    prompt: str = "",
    card: Mapping[str, Any] | None = None,
    signature: str = "",
) -> dict[str, Any]:
    """Return the Provenance of a run. `document`, `device` and `prompt` are references.

    Every resource version that the model was given is an entity of role `source`, cited or not: recall by a
    bad input must find every document that it could have shaped. Prompt and model card are derivations;
    `card` names the latter. `signature` is the document's own.
    """
    provenance: dict[str, Any] = {
        "resourceType": "Provenance",
        "meta": {"security": security(profile, run.summary.labels)},
        "target": [{"reference": document}],
        "recorded": fhir_instant(run.created_at),
        "reason": [{"coding": [dict(AI_ASSERTED)]}],
        "activity": {
            "coding": [{"system": f"{TERMINOLOGY}/v3-DataOperation", "code": "CREATE", "display": "create"}]
        },
        "agent": [_agent(run, device)],
        "entity": [
            *(
                {"role": "source", "what": version_reference(source)}
                for source in given_versions(run.summary)
            ),
            {"role": "derivation", "what": _prompt(run, prompt)},
        ],
    }
    if card:
        provenance["entity"].append({"role": "derivation", "what": dict(card)})
    if signature:
        provenance["signature"] = [_signature(run, device, signature)]
    return provenance


def _agent(run: StoredRun, device: str) -> dict[str, Any]:
    kind = {
        "system": f"{TERMINOLOGY}/provenance-participant-type",
        "code": "assembler",
        "display": "Assembler",
    }
    named = one_line(f"{run.inputs.model} on {run.inputs.engine_version}")
    return {"type": {"coding": [kind]}, "who": {"reference": device, "display": named}}


def _prompt(run: StoredRun, reference: str) -> dict[str, Any]:
    named = {
        "identifier": {"system": PROMPT_SYSTEM, "value": run.inputs.template_digest},
        "display": one_line(f"Prompt {run.inputs.prompt_id} {run.inputs.prompt_version}"),
    }
    return ({"reference": reference} if reference else {}) | named


def _signature(run: StoredRun, device: str, signature: str) -> dict[str, Any]:
    """Return the Signature: the JWS of the document's JSON form, whose content is there, not here."""
    return {
        "type": [
            {
                "system": "urn:iso-astm:E1762-95:2013",
                "code": "1.2.840.10065.1.12.1.5",
                "display": "Verification Signature",
            }
        ],
        "when": fhir_instant(run.created_at),
        "who": {"reference": device},
        "targetFormat": "application/json",
        "sigFormat": "application/jose",
        "data": base64.b64encode(signature.encode()).decode(),
    }


def provenance_id(run_key: str) -> str:
    """Return the id under which a Provenance is put where it cannot be created on a condition."""
    return f"epicrisis-{run_key[:40]}"
