"""A DICOM file becomes arrays of values, frame by frame. Run it in a child: decoders are C, input is hostile.

Every fault is a Refused. A codestream without its end is refused, because decoders fill up what is missing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGTransferSyntaxes,
    RLELossless,
)

from service.imaging.refusal import BROKEN, NO_PIXELS, TOO_MANY_PIXELS, TRUNCATED, Refused

Stored = NDArray[Any]

MAX_PIXELS = 64_000_000
"""Of one frame; the largest mammograms and digitised films have half of that."""
MAX_FRAMES = 100_000
_NATIVE = (
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian,
)  # fmt: skip
_JPEG_FAMILY = frozenset(map(str, JPEGTransferSyntaxes)) | {
    "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203",
}  # fmt: skip
"""JPEG, JPEG-LS and JPEG 2000: all of them end with the same two bytes."""
_VIDEO = ("1.2.840.10008.1.2.4.10",)  # …100 to …108: MPEG-2, MPEG-4, HEVC
_END = b"\xff\xd9"
_PREAMBLE = 132
_TRAILING = b"\0"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it was stored: grey of two dimensions, or red, green and blue in a third."""

    stored: Stored
    is_colour: bool
    is_inverted: bool = False
    """MONOCHROME1: the lowest value is white."""


def looks_like_dicom(data: bytes) -> bool:
    """Tell a Part 10 file, or one that lost its preamble, from anything else."""
    return data[128:_PREAMBLE] == b"DICM" or data[:2] in (b"\x02\x00", b"\x08\x00")


def open_dicom(data: bytes, *, with_pixels: bool = True) -> Dataset:
    """Parse a file; raise Refused. A file without meta information is read as what it seems to be."""
    if not looks_like_dicom(data):
        raise Refused("not a DICOM file")
    try:
        dataset = dcmread(BytesIO(data), force=True, stop_before_pixels=not with_pixels)
        if not len(dataset):
            raise Refused(BROKEN)
        _complete_meta(dataset, data)
    except (Refused, MemoryError):
        raise
    except Exception as error:
        raise Refused(BROKEN) from error
    return dataset


def _complete_meta(dataset: Dataset, data: bytes) -> None:
    meta = getattr(dataset, "file_meta", None)
    if meta is None:
        dataset.file_meta = meta = FileMetaDataset()
    if "TransferSyntaxUID" not in meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little in (True, None) else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def read_frame(dataset: Dataset, frame: int) -> Frame:
    """Decode one frame, from 1; raise Refused, and MemoryError."""
    _check(dataset, frame)
    syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
    if syntax in _JPEG_FAMILY:
        _check_end(dataset, frame)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array, meta = get_decoder(syntax).as_array(dataset, index=frame - 1)
            stored = _without_unused_bits(np.asarray(array), dataset, syntax)
            return _frame(stored, str(meta["photometric_interpretation"]), dataset)
    except MemoryError:
        raise
    except NotImplementedError as error:
        raise Refused("its transfer syntax is not known") from error
    except Exception as error:
        raise Refused("its pixels cannot be decoded") from error


def frames_of(dataset: Dataset) -> int:
    """Return how many frames there are said to be."""
    try:
        count = int(dataset.get("NumberOfFrames") or 1)
    except (TypeError, ValueError) as error:
        raise Refused(BROKEN) from error
    if not 1 <= count <= MAX_FRAMES:
        raise Refused(BROKEN)
    return count


def _check(dataset: Dataset, frame: int) -> None:
    """Refuse before anything is allocated."""
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if syntax.startswith(_VIDEO):
        raise Refused("a video")
    if "PixelData" not in dataset or not dataset.PixelData:
        has_others = "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset
        raise Refused("pixels in floating point" if has_others else NO_PIXELS)
    try:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        samples = int(dataset.get("SamplesPerPixel", 1))
    except Exception as error:
        raise Refused(BROKEN) from error
    if min(rows, columns) < 1 or samples not in (1, 3):
        raise Refused(BROKEN)
    if rows * columns > MAX_PIXELS:
        raise Refused(TOO_MANY_PIXELS)
    if not 1 <= frame <= frames_of(dataset):
        raise Refused("no such frame")


def _check_end(dataset: Dataset, frame: int) -> None:
    try:
        stream = get_frame(dataset.PixelData, frame - 1, number_of_frames=frames_of(dataset))
    except Exception as error:
        raise Refused(TRUNCATED) from error
    if not stream.rstrip(_TRAILING).endswith(_END):
        raise Refused(TRUNCATED)


def _without_unused_bits(stored: Stored, dataset: Dataset, syntax: UID) -> Stored:
    """Clear the bits beside the value: old files keep overlays there (PS3.5 8.1.1). Codecs have none."""
    allocated, bits = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if syntax not in (*_NATIVE, RLELossless) or not 1 < bits < allocated or stored.dtype.kind not in "iu":
        return stored
    above = allocated - 1 - int(dataset.get("HighBit", bits - 1))
    if not 0 <= above <= allocated - bits:
        raise Refused(BROKEN)
    cleared: Stored = np.right_shift(np.left_shift(stored, above), allocated - bits)
    return cleared


def _frame(stored: Stored, photometric: str, dataset: Dataset) -> Frame:
    if photometric == "PALETTE COLOR":
        return Frame(_eight_bits(np.asarray(apply_color_lut(stored, dataset)), None), is_colour=True)
    if stored.ndim == 3 and stored.shape[2] == 3:
        if not photometric.startswith("RGB"):
            raise Refused("its colours are not known")
        return Frame(_eight_bits(stored, int(dataset.BitsStored)), is_colour=True)
    if stored.ndim != 2 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused("its colours are not known")
    return Frame(stored, is_colour=False, is_inverted=photometric == "MONOCHROME1")


def _eight_bits(colours: Stored, bits: int | None) -> Stored:
    """Scale colours to a byte. Palettes of 16 bits that hold bytes all the same are left as they are."""
    if colours.dtype == np.uint8 and bits in (None, 8):
        return colours
    if bits is None:
        bits = 8 if int(colours.max(initial=0)) < 256 else 16
    most = float(2**bits - 1)
    scaled: Stored = np.rint(np.clip(colours.astype(np.float32) / most, 0, 1) * 255).astype(np.uint8)
    return scaled
