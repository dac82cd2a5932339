"""Values become grey or colour (DICOM PS3.3 C.11.2). Pure, monotonic, and always within 0 and 255."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Bytes = NDArray[np.uint8]

CT_WINDOWS = ((-1024.0, 1024.0), (-135.0, 215.0), (0.0, 80.0))
"""Hounsfield units of red, green and blue, as MedGemma was trained: everything, soft tissue, brain."""
CT_WORDS = "CT: −1024…1024, −135…215, 0…80 HU as red, green, blue"


class Function(enum.StrEnum):
    """VOI LUT Function."""

    LINEAR = "LINEAR"
    EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, slots=True)
class Window:
    """Centre and width in the units of the values, as a header has them."""

    center: float
    width: float
    function: Function = Function.LINEAR

    @property
    def is_usable(self) -> bool:
        """A width that the standard allows, and numbers that are numbers."""
        is_wide = self.width >= 1 if self.function is Function.LINEAR else self.width > 0
        return bool(np.isfinite(self.center) and np.isfinite(self.width)) and is_wide

    @property
    def words(self) -> str:
        """`window 40 ± 200`"""
        curve = ", sigmoid" if self.function is Function.SIGMOID else ""
        return f"window {self.center:g} ± {self.width / 2:g}{curve}"


def apply_window(values: Values, window: Window) -> Bytes:
    """Return grey by a centre and a width that are usable."""
    center, width = window.center, window.width
    with np.errstate(over="ignore"):
        if window.function is Function.SIGMOID:
            return _grey(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700))))
        if window.function is Function.EXACT:
            return _grey((values - center) / width + 0.5)
        if width == 1:
            return _grey((values > center - 0.5).astype(np.float32))
        return _grey((values - (center - 0.5)) / (width - 1) + 0.5)


def spread_range(values: Values, low: float, high: float) -> Bytes:
    """Return grey between two values: black at or below `low`, white at or above `high`."""
    if not high > low:
        return _grey((values > low).astype(np.float32))
    with np.errstate(over="ignore"):
        return _grey((values - low) / (high - low))


def colour_ct(hounsfield: Values) -> Bytes:
    """Return red, green and blue of Hounsfield units by MedGemma's three windows."""
    return np.stack([spread_range(hounsfield, low, high) for low, high in CT_WINDOWS], axis=-1)


def _grey(share: NDArray[np.floating]) -> Bytes:
    whole = np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0)
    grey: Bytes = np.rint(np.clip(whole, 0, 1) * 255).astype(np.uint8)
    return grey
