"""Our pictures beside pydicom's, value by value, and beside Orthanc's, by structural similarity."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels.processing import apply_modality_lut, apply_windowing
from skimage.metrics import structural_similarity

from fixtures.pacs import PacsServer, rewritten
from service.imaging.header import header_of
from service.imaging.picture import Header, Rendered, Spot, Unreadable
from service.imaging.reader import PictureReader
from tests.conftest import ROOT

pytestmark = pytest.mark.shared
ANY = Spot("", "", "")
GREY = (
    "CR_chest_PA_nema-wg04_RG1_j2klossy.dcm", "CT_small_highdicom.dcm", "DX_chest_nih-cxr14_implicitLE.dcm",
    "DX_thorax_dog_highdicom_mono1.dcm", "MR_abdomen_siemens_explicitLE_overlays.dcm",
    "MR_enhanced_multiframe10.dcm", "US_echo_jpeglossless.dcm", "pydicom_693_J2KI.dcm",
    "pydicom_CT_small.dcm", "pydicom_JPEG2000.dcm", "pydicom_MR_small.dcm", "pydicom_examples_overlay.dcm",
)  # fmt: skip
COLOUR = ("pydicom_SC_rgb_rle_2frame.dcm", "pydicom_examples_ybr_color.dcm")
HOUNSFIELD = ("CT_small_highdicom.dcm", "pydicom_693_J2KI.dcm", "pydicom_CT_small.dcm")


@pytest.fixture(scope="module")
def reader() -> Iterator[PictureReader]:
    with PictureReader() as opened:
        yield opened


def unscaled(reader: PictureReader, data: bytes, header: Header, **how: Any) -> NDArray[np.float64]:
    """One frame as red, green and blue, at its own size, without its margins."""
    side = max(header.rows, header.columns)
    found = reader.read(data, ANY, side=side, frames=(1,), **how)
    assert not isinstance(found, Unreadable), found
    top, left = (side - header.rows) // 2, (side - header.columns) // 2
    whole = np.asarray(Image.open(BytesIO(found[0].png))).astype(np.float64)
    return whole[top : top + header.rows, left : left + header.columns]


def keep(name: str, rendered: Rendered) -> None:
    """Leave a picture for whoever wants to look."""
    named = os.environ.get("EPICRISIS_TEST_ARTEFACTS")  # noqa: TID251 - where a test leaves what it saw
    folder = Path(named) if named else ROOT / ".epicrisis" / "artefacts"
    (folder / "imaging").mkdir(parents=True, exist_ok=True)
    (folder / "imaging" / f"{Path(name).stem}.png").write_bytes(rendered.png)


def first_frame(dataset: pydicom.Dataset) -> NDArray[Any]:
    array: NDArray[Any] = dataset.pixel_array
    return array[0] if int(dataset.get("NumberOfFrames") or 1) > 1 else array


def windowed(dataset: pydicom.Dataset, center: float, width: float, function: str) -> NDArray[np.float64]:
    """What pydicom makes of a window, as 0 to 255."""
    values = apply_modality_lut(first_frame(dataset), dataset)
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = center, width, function
    shown = apply_windowing(values, dataset).astype(np.float64)
    bits, slope = int(dataset.BitsStored), float(dataset.get("RescaleSlope", 1))
    low = -(2 ** (bits - 1)) if dataset.PixelRepresentation else 0
    start = low * slope + float(dataset.get("RescaleIntercept", 0))
    scaled: NDArray[np.float64] = (shown - start) / ((2**bits - 1) * slope) * 255
    return scaled


def by_pydicom(dataset: pydicom.Dataset) -> NDArray[np.float64]:
    """The first window of the file, or the whole range; inverted where that is meant."""
    values = apply_modality_lut(first_frame(dataset), dataset).astype(np.float64)
    center, width = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if center is not None:
        first = [float(np.atleast_1d(value)[0]) for value in (center, width)]
        grey = windowed(dataset, first[0], first[1], "LINEAR")
    elif dataset.BitsStored == 8:
        grey = values
    else:
        known = values[first_frame(dataset) != dataset.get("PixelPaddingValue", np.inf)]
        grey = np.clip((values - known.min()) / (known.max() - known.min()), 0, 1) * 255
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


@pytest.mark.parametrize("name", GREY)
def test_grey_is_that_of_pydicom(name: str, shared_data: Path, reader: PictureReader) -> None:
    data = (shared_data / "dicom" / name).read_bytes()
    dataset = pydicom.dcmread(BytesIO(data))
    ours = unscaled(reader, data, header_of(data), as_model=False)
    assert np.abs(ours - by_pydicom(dataset)[..., None]).max() <= 1


@pytest.mark.parametrize("name", HOUNSFIELD)
def test_the_colours_of_a_ct_are_three_windows_of_pydicom(
    name: str, shared_data: Path, reader: PictureReader
) -> None:
    data = (shared_data / "dicom" / name).read_bytes()
    ours = unscaled(reader, data, header_of(data))
    for channel, (low, high) in enumerate(((-1024, 1024), (-135, 215), (0, 80))):
        dataset = pydicom.dcmread(BytesIO(data))
        theirs = windowed(dataset, (low + high) / 2, high - low, "LINEAR_EXACT")
        assert np.abs(ours[..., channel] - theirs).max() <= 1


@pytest.mark.parametrize("name", COLOUR)
def test_colours_are_those_of_pydicom(name: str, shared_data: Path, reader: PictureReader) -> None:
    data = (shared_data / "dicom" / name).read_bytes()
    theirs = first_frame(pydicom.dcmread(BytesIO(data))).astype(np.float64)
    assert np.abs(unscaled(reader, data, header_of(data)) - theirs).max() <= 1


@pytest.mark.parametrize("name", [*GREY, *COLOUR])
def test_a_picture_looks_like_the_archives_own(
    name: str, shared_data: Path, reader: PictureReader, pacs: PacsServer
) -> None:
    data = _our_own((shared_data / "dicom" / name).read_bytes(), name)
    pacs.store(_decompressed(data))
    header = header_of(data)
    window = None if name in COLOUR else _window(data)
    ours = unscaled(reader, data, header, window=window, as_model=False)
    theirs = _by_orthanc(pacs, header, window)
    assert theirs.shape[:2] == ours.shape[:2]
    likeness = float(structural_similarity(ours[..., 1], theirs[..., 1], data_range=255))  # type: ignore[no-untyped-call]
    assert likeness >= 0.97, f"{name}: {likeness:.3f}"


def _our_own(data: bytes, name: str) -> bytes:
    number = [*GREY, *COLOUR].index(name)
    uids = {
        keyword: f"1.2.826.0.1.3680043.10.1457.{place}.{number}"
        for place, keyword in enumerate(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"), 1)
    }
    return rewritten(data, **uids)


def _decompressed(data: bytes) -> bytes:
    """JPEG 2000 is unpacked for the archive: Orthanc decodes it only with a plugin that Debian may lack."""
    dataset = pydicom.dcmread(BytesIO(data))
    if dataset.file_meta.TransferSyntaxUID != pydicom.uid.JPEG2000:
        return data
    dataset.decompress(generate_instance_uid=False)
    plain = BytesIO()
    dataset.save_as(plain)
    return plain.getvalue()


def _window(data: bytes) -> tuple[float, float]:
    """The file's first window, or one over its whole range: both are asked for the same."""
    dataset = pydicom.dcmread(BytesIO(data))
    center, width = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if center is not None:
        return float(np.atleast_1d(center)[0]), float(np.atleast_1d(width)[0])
    values = apply_modality_lut(first_frame(dataset), dataset)
    low, high = float(values.min()), float(values.max())
    return (low + high) / 2, high - low


def _by_orthanc(pacs: PacsServer, header: Header, window: tuple[float, float] | None) -> NDArray[np.float64]:
    spot = header.spot
    address = (
        f"{pacs.dicomweb_url}/studies/{spot.study}/series/{spot.series}/instances/{spot.instance}"
        "/frames/1/rendered"
    )
    asked = f"?window={window[0]:g},{window[1]:g},linear" if window else ""  # the commas stand as they are
    with httpx.Client(trust_env=False, timeout=60) as http:
        reply = http.get(address + asked, headers={"Accept": "image/png"})
    reply.raise_for_status()
    return np.asarray(Image.open(BytesIO(reply.content)).convert("RGB")).astype(np.float64)


@pytest.mark.parametrize("name", [*GREY, *COLOUR, "chest_xray_PA_wikimedia_CC0.png"])
def test_each_modality_is_kept_as_the_model_sees_it(
    name: str, shared_data: Path, reader: PictureReader
) -> None:
    """Every picture fills its square in one direction, and is neither black nor flat."""
    found = reader.read((shared_data / "dicom" / name).read_bytes(), ANY, frames=(1,))
    assert not isinstance(found, Unreadable)
    seen = np.asarray(Image.open(BytesIO(found[0].png)))
    assert seen.shape == (896, 896, 3)
    assert seen.std() > 10
    rows, columns = seen.any(axis=(1, 2)), seen.any(axis=(0, 2))
    assert max(rows.sum(), columns.sum()) > 800
    keep(name, found[0])
