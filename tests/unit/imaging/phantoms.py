"""DICOM files of known values, written with pydicom."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

STUDY, SERIES, INSTANCE = "1.2.3", "1.2.3.4", "1.2.3.4.5"
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
US = "1.2.840.10008.5.1.4.1.1.6.1"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
BASIC_REPORT = "1.2.840.10008.5.1.4.1.1.88.11"
KEY_IMAGES = "1.2.840.10008.5.1.4.1.1.88.59"


def dataset(sop_class: str, modality: str, **elements: Any) -> FileDataset:
    """A dataset without pixels, with the three UIDs of this module."""
    made = FileDataset("", {}, file_meta=_meta(sop_class), preamble=b"\0" * 128)
    made.SOPClassUID, made.Modality = sop_class, modality
    made.StudyInstanceUID, made.SeriesInstanceUID, made.SOPInstanceUID = STUDY, SERIES, INSTANCE
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def pictured(pixels: NDArray[Any], sop_class: str = DX, modality: str = "DX", **elements: Any) -> FileDataset:
    """A dataset with pixels: grey of two dimensions, colour with a last axis of three, frames before."""
    made = dataset(sop_class, modality)
    is_colour = pixels.shape[-1] == 3 and pixels.ndim > 2
    frames = pixels.ndim - (3 if is_colour else 2)
    made.Rows, made.Columns = pixels.shape[frames : frames + 2]
    if frames:
        made.NumberOfFrames = pixels.shape[0]
    made.SamplesPerPixel = 3 if is_colour else 1
    if is_colour:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8 * pixels.dtype.itemsize
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def written(made: FileDataset) -> bytes:
    """The dataset as a Part 10 file."""
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def items(*parts: Dataset) -> Sequence:
    """A sequence of datasets."""
    return Sequence(parts)


def item(**elements: Any) -> Dataset:
    """An item of a sequence."""
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def code(meaning: str, value: str = "1", scheme: str = "99TEST") -> Sequence:
    """A code sequence of one item."""
    return items(item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning))


def steps(low: int, high: int, dtype: Any = np.int16, shape: tuple[int, int] = (16, 16)) -> NDArray[Any]:
    """A ramp from one value to another."""
    return np.linspace(low, high, shape[0] * shape[1]).round().astype(dtype).reshape(shape)


def _meta(sop_class: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(INSTANCE)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta
