"""A frame's stored values become eight bits: modality LUT, then VOI LUT or window, inversion, padding."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi

from service.imaging.decode import Frame
from service.imaging.groups import item_of, numbers_of, value_of, word_of
from service.imaging.refusal import BROKEN, Refused
from service.imaging.window import (
    CT_WORDS,
    Bytes,
    Function,
    Values,
    Window,
    apply_window,
    colour_ct,
    spread_range,
)

_CT = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
_HOUNSFIELD = ("", "HU")


class Wanted(NamedTuple):
    """How a frame is to be shown: as the model knows its modality, or as its file says."""

    as_model: bool = True
    window: Window | None = None
    """Instead of the file's own; grey."""
    span: tuple[float, float] | None = None
    """Lowest and highest value of the volume that an MR slice belongs to."""
    over: str = "the volume"
    """What of the volume the span was measured over, in words."""


class Shown(NamedTuple):
    """Eight bits, grey or colour, and how they came about."""

    pixels: Bytes
    words: str


def show_frame(dataset: Dataset, frame: Frame, number: int, wanted: Wanted) -> Shown:
    """Return what is shown of one decoded frame."""
    if frame.is_colour:
        return Shown(frame.stored.astype(np.uint8, copy=False), "colours as stored")
    values = modality_values(dataset, frame, number)
    padding = _padding(dataset, frame)
    pixels, words = _mapped(dataset, values, padding, number, wanted)
    if frame.is_inverted and pixels.ndim == 2:
        pixels = 255 - pixels
        words += ", inverted (MONOCHROME1)"
    if padding is not None:
        pixels[padding] = 0
    return Shown(pixels, words)


def modality_values(dataset: Dataset, frame: Frame, number: int) -> Values:
    """Return values in the modality's own unit: Hounsfield units of a CT."""
    if value_of(dataset, "ModalityLUTSequence"):
        try:
            return np.asarray(apply_modality_lut(frame.stored, dataset)).astype(np.float32)
        except Exception as error:
            raise Refused(BROKEN) from error
    slope, intercept = _rescale(dataset, number)
    return frame.stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def measure(dataset: Dataset, frame: Frame, number: int) -> tuple[float, float] | None:
    """Return the lowest and the highest value of a frame, padding left out; None of colours."""
    if frame.is_colour:
        return None
    return _span(modality_values(dataset, frame, number), _padding(dataset, frame))


def is_mr(dataset: Dataset) -> bool:
    """A magnetic resonance image: its values have no unit, and mean something beside each other only."""
    return word_of(dataset, "Modality") == "MR"


def _mapped(
    dataset: Dataset, values: Values, padding: NDArray[np.bool_] | None, number: int, wanted: Wanted
) -> Shown:
    if wanted.window is not None:
        return Shown(apply_window(values, wanted.window), wanted.window.words)
    if wanted.as_model and _is_hounsfield(dataset, number):
        return Shown(colour_ct(values), CT_WORDS)
    if wanted.as_model and is_mr(dataset):
        low, high = wanted.span or _span(values, padding)
        over = wanted.over if wanted.span else "the slice"
        return Shown(spread_range(values, low, high), f"MR: {low:g}…{high:g} over {over}")
    return _as_recorded(dataset, values, padding, number)


def _as_recorded(dataset: Dataset, values: Values, padding: NDArray[np.bool_] | None, number: int) -> Shown:
    """Follow the file: its table, else its first window, else the whole range."""
    voi = item_of(dataset, "FrameVOILUTSequence", number)
    if value_of(voi, "VOILUTSequence"):
        return Shown(_by_table(dataset, voi, values), "the file's table of grey values")
    window = window_of(voi)
    if window is not None:
        return Shown(apply_window(values, window), f"the file's {window.words}")
    if int(dataset.BitsStored) == 8 and _rescale(dataset, number) == (1.0, 0.0) and values.min() >= 0:
        return Shown(spread_range(values, 0, 255), "grey as stored")
    low, high = _span(values, padding)
    return Shown(spread_range(values, low, high), f"{low:g}…{high:g}, the whole range")


def window_of(item: Dataset) -> Window | None:
    """Return the first window that a dataset or functional group names; None without one that is usable."""
    centers, widths = numbers_of(item, "WindowCenter"), numbers_of(item, "WindowWidth")
    if not centers or not widths:
        return None
    name = word_of(item, "VOILUTFunction") or Function.LINEAR
    if name not in set(Function):
        return None
    window = Window(centers[0], widths[0], Function(name))
    return window if window.is_usable else None


def _by_table(dataset: Dataset, voi: Dataset, values: Values) -> Bytes:
    source = Dataset()
    source.VOILUTSequence = voi.VOILUTSequence
    source.PixelRepresentation = dataset.get("PixelRepresentation", 0)
    try:
        found = np.asarray(apply_voi(np.rint(values).astype(np.int32), source)).astype(np.float32)
        bits = int(voi.VOILUTSequence[0].LUTDescriptor[2])
    except Exception as error:
        raise Refused(BROKEN) from error
    return spread_range(found, 0, float(2**bits - 1))


def _rescale(dataset: Dataset, number: int) -> tuple[float, float]:
    item = item_of(dataset, "PixelValueTransformationSequence", number)
    slopes, intercepts = numbers_of(item, "RescaleSlope"), numbers_of(item, "RescaleIntercept")
    slope = slopes[0] if slopes and slopes[0] else 1.0  # a slope of 0 would make all values one
    return slope, intercepts[0] if intercepts else 0.0


def _is_hounsfield(dataset: Dataset, number: int) -> bool:
    item = item_of(dataset, "PixelValueTransformationSequence", number)
    return (
        word_of(dataset, "SOPClassUID") in _CT
        and bool(numbers_of(item, "RescaleIntercept"))
        and word_of(item, "RescaleType") in _HOUNSFIELD
    )


def _padding(dataset: Dataset, frame: Frame) -> NDArray[np.bool_] | None:
    """Return where the device filled up what it did not see (PS3.3 C.7.5.1.1.2); None where nowhere."""
    first = _padding_value(dataset, "PixelPaddingValue", frame)
    if first is None:
        return None
    last = _padding_value(dataset, "PixelPaddingRangeLimit", frame)
    low, high = sorted((first, first if last is None else last))
    mask = (frame.stored >= low) & (frame.stored <= high)
    return mask if mask.any() and not mask.all() else None


def _padding_value(dataset: Dataset, keyword: str, frame: Frame) -> int | None:
    """Read the value in the pixels' own sign: files often name it in the other one."""
    found = numbers_of(dataset, keyword)
    if not found:
        return None
    value, bits = int(found[0]), 8 * int(frame.stored.dtype.itemsize)
    if frame.stored.dtype.kind == "u" and value < 0:
        return value + (1 << bits)
    if frame.stored.dtype.kind == "i" and value >= 1 << (bits - 1):
        return value - (1 << bits)
    return value


def _span(values: Values, padding: NDArray[np.bool_] | None) -> tuple[float, float]:
    seen = values[~padding] if padding is not None else values
    return float(seen.min()), float(seen.max())
