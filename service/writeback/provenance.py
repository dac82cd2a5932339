"""The Provenance: which model wrote the document, from which resource versions, with which prompt."""

from __future__ import annotations

from typing import Any

from service.ports import StoredRun
from service.writeback.clean import one_line
from service.writeback.labels import AI_ASSERTED, PROMPT_SYSTEM, TERMINOLOGY, WriteProfile, security
from service.writeback.moment import fhir_instant
from service.writeback.sources import given_versions, version_reference


def build_provenance(run: StoredRun, profile: WriteProfile, document: str, device: str) -> dict[str, Any]:
    """Return the Provenance of a run. `document` and `device` are references.

    Every resource version that the model was given is an entity of role `source`, cited or not: recall by a
    bad input must find every document that it could have shaped.
    """
    inputs = run.inputs
    return {
        "resourceType": "Provenance",
        "meta": {"security": security(profile)},
        "target": [{"reference": document}],
        "recorded": fhir_instant(run.created_at),
        "reason": [{"coding": [dict(AI_ASSERTED)]}],
        "activity": {
            "coding": [{"system": f"{TERMINOLOGY}/v3-DataOperation", "code": "CREATE", "display": "create"}]
        },
        "agent": [
            {
                "type": {
                    "coding": [
                        {
                            "system": f"{TERMINOLOGY}/provenance-participant-type",
                            "code": "assembler",
                            "display": "Assembler",
                        }
                    ]
                },
                "who": {
                    "reference": device,
                    "display": one_line(f"{inputs.model} on {inputs.engine_version}"),
                },
            }
        ],
        "entity": [
            *(
                {"role": "source", "what": version_reference(source)}
                for source in given_versions(run.summary)
            ),
            {
                "role": "derivation",
                "what": {
                    "identifier": {"system": PROMPT_SYSTEM, "value": inputs.template_digest},
                    "display": one_line(f"Prompt {inputs.prompt_id} {inputs.prompt_version}"),
                },
            },
        ],
    }


def provenance_id(run_key: str) -> str:
    """Return the id under which a Provenance is put where it cannot be created on a condition."""
    return f"epicrisis-{run_key[:40]}"
