"""What all runs of a prompt or a model share: the prompt's and the model card's DocumentReference.

Neither holds patient data. Each is created once, under an identifier that is the digest of its content, and
then found again; a Provenance names both as what the document was derived from.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from service.ports import RunInputs
from service.writeback.attachment import attachment
from service.writeback.clean import one_line
from service.writeback.labels import DRAFT_TYPE_SYSTEM, PROMPT_SYSTEM

PROMPT_VERSION_SYSTEM = "urn:epicrisis:prompt-version"
"""Identifier system by which a prompt is found without its digest; the value is `history@3`."""
MODEL_CARD_SYSTEM = "urn:epicrisis:model-card"
"""Identifier system of model cards; the value is the SHA-256 of the card."""

_CARD = """\
Model card: {name}

Digest of the weights: {digest}
Use: writes draft summaries of one patient's record for the treating clinician, who reviews them. Each
sentence is checked against the entries that it cites, and is withheld where they do not bear it out.
Not for: diagnosis, treatment decisions, time-critical use, patients, or use without review.
Limits: what the record does not hold the model does not know; what was left out or could not be retrieved is
named in each document. A sentence that its sources bear out may still leave out what matters.
Recall: documents written with this model are the targets of the Provenance resources whose agent is the
Device with this digest.
"""


def build_prompt(inputs: RunInputs) -> dict[str, Any]:
    """Return the DocumentReference of the run's prompt: which template, by its digest."""
    named = f"{inputs.prompt_id}@{inputs.prompt_version}"
    content = msgspec.json.encode(
        {
            "prompt": one_line(inputs.prompt_id),
            "version": one_line(inputs.prompt_version),
            "template_sha256": inputs.template_digest,
        }
    )
    return _shared(
        "ai-prompt",
        "AI prompt template",
        [
            {"system": PROMPT_SYSTEM, "value": inputs.template_digest},
            {"system": PROMPT_VERSION_SYSTEM, "value": one_line(named)},
        ],
        attachment("application/json", one_line(f"Prompt {named}"), content),
    )


def build_model_card(inputs: RunInputs, device: str) -> dict[str, Any]:
    """Return the DocumentReference of the model's card. `device` is the reference of the model, or empty."""
    name = one_line(inputs.model) or "unnamed model"
    card = _CARD.format(name=name, digest=one_line(inputs.model_digest)).encode()
    built = _shared(
        "ai-model-card",
        "AI model card",
        [{"system": MODEL_CARD_SYSTEM, "value": hashlib.sha256(card).hexdigest()}],
        attachment("text/plain; charset=utf-8", f"Model card: {name}", card),
    )
    return built | ({"subject": {"reference": device}} if device else {})


def _shared(code: str, what: str, identifiers: list[dict[str, str]], form: dict[str, Any]) -> dict[str, Any]:
    return {
        "resourceType": "DocumentReference",
        "identifier": identifiers,
        "status": "current",
        "type": {
            "coding": [{"system": DRAFT_TYPE_SYSTEM, "code": code, "display": what}],
            "text": what,
        },
        "description": form["title"],
        "content": [{"attachment": form}],
    }
