"""The Device that stands for the model: one for each digest, so that recall by model is one search."""

from __future__ import annotations

import re
from typing import Any

from service.ports import DEVICE_SYSTEM, RunInputs
from service.writeback.clean import one_line
from service.writeback.labels import AI_ASSERTED

_HUB_NAME = re.compile(r"([A-Za-z0-9][\w.-]*)/[A-Za-z0-9][\w.-]*")


def build_device(inputs: RunInputs, software_version: str) -> dict[str, Any]:
    """Return the Device of the run's model. It holds no patient data.

    It is created once and then found again: engine and software are those of the first document. Which ones
    wrote a given document is said in that document and in its Provenance.
    """
    device: dict[str, Any] = {
        "resourceType": "Device",
        "meta": {"security": [dict(AI_ASSERTED)]},
        "identifier": [{"system": DEVICE_SYSTEM, "value": one_line(inputs.model_digest) or "unknown"}],
        "status": "active",
    }
    maker = _HUB_NAME.fullmatch(inputs.model)
    if maker:
        device["manufacturer"] = maker[1]
    return device | {
        "deviceName": [{"name": one_line(inputs.model) or "unnamed model", "type": "model-name"}],
        "type": {"text": "Artificial intelligence: language model"},
        "version": [
            {"type": {"text": what}, "value": value}
            for what, value in (
                ("model digest", one_line(inputs.model_digest)),
                ("engine", one_line(inputs.engine_version)),
                ("Epicrisis", one_line(software_version)),
            )
            if value
        ],
    }
