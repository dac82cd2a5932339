"""Pictures out of DICOM files in the child process, beside a plain loop over pydicom on the same files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from service.imaging.picture import MODEL_SIDE, Spot, Unreadable
from service.imaging.reader import PictureReader
from tests.bench.rounds import compare
from tests.bench.table import Table, times

FOLDER = Path(__file__).parent.parent.parent.parent / "shared" / "data" / "dicom"
ROUNDS = 5
ANY = Spot("", "", "")
OURS, LOOP = "ours, in the child", "plain pydicom loop"
NO_DATA = "The files of ../shared/data/dicom are not here."


def bench_pixels() -> Table:
    """Return milliseconds a picture of one frame of each file, ours and the loop's taking turns."""
    table = Table("Pixels: one frame as a PNG of 896 × 896", ("file", OURS, LOOP, "ratio"))
    if not FOLDER.is_dir():
        table.remarks = [NO_DATA]
        return table
    with PictureReader() as reader:
        reader.read(b"", ANY)  # its libraries are loaded before the clock starts
        files = [path for path in sorted(FOLDER.glob("*.dcm")) if _is_read(reader, path.read_bytes())]
        figures = [(path.name, *_measure(reader, path.read_bytes())) for path in files]
    table.rows = [_row(*figure) for figure in figures]
    whole = _row("all of them", sum(ours for _, ours, _ in figures), sum(loop for *_, loop in figures))
    table.rows.append(whole)
    table.remarks = [
        "Milliseconds a file, median of five. Ours: sent to a bounded child, checked against its header, CT "
        "in three windows, MR over its range. The loop: pixel_array, modality LUT, VOI LUT, resize, PNG, in "
        "this process, grey, aspect not kept. Starting the child takes about a second, once."
    ]
    return table


def _row(name: str, ours: float, loop: float) -> tuple[str, ...]:
    return name, f"{ours:.1f} ms", f"{loop:.1f} ms", times(ours / loop)


def _is_read(reader: PictureReader, data: bytes) -> bool:
    return not isinstance(reader.read(data, ANY, frames=(1,)), Unreadable)


def _measure(reader: PictureReader, data: bytes) -> tuple[float, float]:
    taken = compare({OURS: lambda: reader.read(data, ANY, frames=(1,)), LOOP: lambda: _plain(data)}, ROUNDS)
    return 1000 * taken[OURS], 1000 * taken[LOOP]


def _plain(data: bytes) -> bytes:
    """What a notebook does."""
    dataset = pydicom.dcmread(BytesIO(data))
    array = dataset.pixel_array
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        array = array[0]
    if array.ndim == 2:
        array = apply_voi_lut(apply_modality_lut(array, dataset), dataset).astype(np.float64)
        array = (array - array.min()) / max(1.0, array.max() - array.min()) * 255
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            array = 255 - array
    shown = Image.fromarray(array.astype(np.uint8)).convert("RGB")
    written = BytesIO()
    shown.resize((MODEL_SIDE, MODEL_SIDE)).save(written, "PNG")
    return written.getvalue()
