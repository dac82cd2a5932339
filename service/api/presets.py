"""Windows that somebody who looks at an image can choose, by name; links carry the name alone."""

from __future__ import annotations

from typing import Final, NamedTuple


class Preset(NamedTuple):
    """How values become grey: a centre and a width, what the file says, or what the model is shown."""

    key: str
    label: str
    window: tuple[float, float] | None = None
    as_model: bool = False


RECORDED: Final = Preset("recorded", "As recorded")
MODEL: Final = Preset("model", "As a model is shown it", as_model=True)
_CT: Final = (
    RECORDED,
    Preset("soft", "Soft tissue", (40.0, 400.0)),
    Preset("lung", "Lung", (-600.0, 1500.0)),
    Preset("bone", "Bone", (400.0, 1800.0)),
    Preset("brain", "Brain", (40.0, 80.0)),
    MODEL,
)
"""Hounsfield units, as radiology departments set their viewers by habit."""
_BY_KEY: Final = {preset.key: preset for preset in _CT}


def presets_for(modality: str) -> tuple[Preset, ...]:
    """Return what can be chosen for images of a modality: only CT has values of a known unit."""
    return _CT if modality == "CT" else (RECORDED,)


def preset_named(key: str, modality: str) -> Preset | None:
    """Return the preset of a link; the first one without a name, None for one that is not offered."""
    found = _BY_KEY.get(key or RECORDED.key)
    return found if found in presets_for(modality) else None
