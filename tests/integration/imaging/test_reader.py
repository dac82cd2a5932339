"""The child that decodes: what breaks it costs one file, the next one is read, and memory is bounded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian

from service.imaging.picture import Header, Rendered, Spot, Unreadable
from service.imaging.reader import Limits, Measured, PictureReader
from tests.unit.imaging import phantoms

ANY = Spot("", "", "")
DYING = "tests.integration.imaging.dying"
SHORT = Limits(seconds_per_file=1.0, max_reply_bytes=1024 * 1024)
NO_PICTURES = {
    "pydicom_reportsi.dcm": "no picture: structured report",
    "pydicom_test-SR.dcm": "no picture: structured report",
    "pydicom_rtdose.dcm": "no picture: radiotherapy object",
    "pydicom_rtplan.dcm": "no picture: radiotherapy object",
    "pydicom_waveform_ecg.dcm": "no picture: waveform",
    "pydicom_no_meta.dcm": "not a DICOM file",  # its first bytes are missing
    "NOTICE": "not a DICOM file",
}


@pytest.fixture(scope="module")
def reader() -> Iterator[PictureReader]:
    with PictureReader() as opened:
        yield opened


def files_of(shared_data: Path) -> list[Path]:
    return [path for path in sorted((shared_data / "dicom").iterdir()) if path.is_file()]


def is_a_picture(found: tuple[Rendered, ...] | Unreadable, side: int) -> bool:
    if isinstance(found, Unreadable):
        return False
    return all(Image.open(BytesIO(one.png)).size == (side, side) for one in found) and bool(found)


def peak_bytes(pid: int) -> int:
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmPeak")
    )
    return int(line.split()[1]) * 1024


@pytest.mark.shared
def test_every_file_is_a_picture_or_is_refused_by_name(shared_data: Path, reader: PictureReader) -> None:
    for path in files_of(shared_data):
        found = reader.read(path.read_bytes(), ANY, side=64)
        if path.name in NO_PICTURES:
            assert found == Unreadable(NO_PICTURES[path.name])
        else:
            assert is_a_picture(found, 64), path.name


@pytest.mark.shared
def test_broken_copies_are_pictures_or_refused_and_the_child_lives_within_its_memory(
    shared_data: Path, reader: PictureReader
) -> None:
    chance, reasons, pictures = random.Random(20_240_131), set(), 0
    small = [path for path in files_of(shared_data) if path.stat().st_size < 300_000]
    for path in small:
        whole = path.read_bytes()
        for _ in range(12):
            found = reader.read(_broken(whole, chance), ANY, side=32, most=2)
            if isinstance(found, Unreadable):
                reasons.add(found.reason)
            else:
                pictures += 1
                assert is_a_picture(found, 32)
    assert pictures >= 10
    assert {"its pixels cannot be decoded", "its content is broken", "without pixels"} <= reasons
    assert all(reason and len(reason) <= 120 for reason in reasons)
    assert reader.pid is not None
    assert peak_bytes(reader.pid) <= Limits().memory_bytes


def _broken(whole: bytes, chance: random.Random) -> bytes:
    """Cut, or flip bits: of the header, of the pixels, of both."""
    if chance.random() < 0.3:
        return whole[: chance.randrange(200, len(whole))]
    broken = bytearray(whole)
    end = chance.choice((3000, len(whole)))
    for _ in range(chance.choice((1, 8, 64))):
        place = chance.randrange(132, min(end, len(whole)))
        broken[place] ^= 1 << chance.randrange(8)
    return bytes(broken)


@pytest.mark.shared
def test_a_file_that_ends_too_early_is_never_a_picture(shared_data: Path, reader: PictureReader) -> None:
    """Decoders fill up what is missing: half a lung would be a picture without a fault."""
    for path in files_of(shared_data):
        whole = path.read_bytes()
        if path.name in NO_PICTURES or len(whole) > 600_000:
            continue
        frames = reader.header(whole)
        last = (frames.frames,) if isinstance(frames, Header) else ()
        cut = whole[: len(whole) - max(64, len(whole) // 8)]
        assert isinstance(reader.read(cut, ANY, side=32, frames=last), Unreadable), path.name


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", ["pydicom_693_J2KI.dcm", "US_echo_jpeglossless.dcm", "pydicom_examples_ybr_color.dcm"]
)
def test_a_codestream_without_its_end_is_refused_in_a_whole_file(
    name: str, shared_data: Path, reader: PictureReader
) -> None:
    """An archive may have stored what a broken transfer left: the file is in order, the picture is not."""
    dataset = pydicom.dcmread(shared_data / "dicom" / name)
    count = int(dataset.get("NumberOfFrames") or 1)
    streams = list(generate_frames(dataset.PixelData, number_of_frames=count))
    streams[0] = streams[0][: len(streams[0]) * 3 // 4]
    dataset.PixelData = encapsulate(streams)
    whole = BytesIO()
    dataset.save_as(whole)
    assert reader.read(whole.getvalue(), ANY, frames=(1,)) == Unreadable("its pixels are cut short")


@pytest.mark.shared
def test_the_picture_is_that_of_the_header(shared_data: Path, reader: PictureReader) -> None:
    data = (shared_data / "dicom" / "pydicom_CT_small.dcm").read_bytes()
    header = reader.header(data)
    assert isinstance(header, Header)
    (rendered,) = _pictures(reader.read(data, header.spot, side=448))
    assert rendered.header == header
    assert (rendered.rows, rendered.columns, rendered.side) == (128, 128, 448)
    assert header.patient_id not in repr(rendered)
    wrong = Spot(header.spot.study, header.spot.series, "1.2")
    assert reader.read(data, wrong) == Unreadable("another instance than the one that was asked for")


@pytest.mark.shared
def test_a_report_of_the_archive_is_read_in_the_child(shared_data: Path, reader: PictureReader) -> None:
    text = reader.report((shared_data / "dicom" / "pydicom_test-SR.dcm").read_bytes())
    assert isinstance(text, str)
    assert text.split("\n")[:5] == [
        "Diagnosis", "Text Code: A mass of", "Code: Sample Code 1", "Code: Sample Code 2", "Diameter: 3 cm",
    ]  # fmt: skip


def test_a_file_is_measured_as_it_would_be_read_or_not_at_all(reader: PictureReader) -> None:
    made = phantoms.written(phantoms.pictured(phantoms.steps(20, 500), phantoms.MR, "MR"))
    header = reader.header(made)
    assert reader.measure(made, ANY, (1,)) == Measured(header, (20.0, 500.0))  # type: ignore[arg-type]
    assert isinstance(reader.measure(made[:700], ANY, (1,)), Unreadable)
    wrong = reader.measure(made, Spot("", "", "9.9"), (1,))
    assert wrong == Unreadable("another instance than the one that was asked for")
    named = phantoms.written(
        phantoms.pictured(phantoms.steps(0, 9), phantoms.MR, "MR", BurnedInAnnotation="YES")
    )
    refused = reader.measure(named, ANY, (1,), refuse_burned_in=True)
    assert refused == Unreadable("text may be burned into its pixels")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("crash", "broke its reader"), ("sleep", "took too long"), ("lie", "broke its reader"),
        ("flood", "broke its reader"), ("allocate", "needs too much memory"),
    ],
)  # fmt: skip
def test_what_breaks_its_child_costs_only_itself(word: str, reason: str) -> None:
    with PictureReader(SHORT, DYING) as reader:
        before = reader.report(b"pid")
        assert reader.read(word.encode(), ANY) == Unreadable(reason)
        after = reader.report(b"pid")
        assert isinstance(before, str)
        assert isinstance(after, str)
        assert after.isdigit()
        assert (before == after) is (word == "allocate")


def test_memory_that_a_file_claims_is_not_given(reader: PictureReader) -> None:
    """A deflated file of a few kilobytes that swells beyond all memory."""
    made = phantoms.pictured(np.zeros((16, 16), np.uint8))
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    made.PixelData = bytes(400_000_000)
    with PictureReader(Limits(memory_bytes=600 * 1024 * 1024)) as bounded:
        swollen = phantoms.written(made)
        assert len(swollen) < 1_000_000
        found = bounded.read(swollen, ANY)
        assert isinstance(found, Unreadable)
        assert found.reason in ("needs too much memory", "its content is broken")
        assert bounded.read(phantoms.written(phantoms.pictured(np.zeros((16, 16), np.uint8))), ANY)
    assert reader.read(b"", ANY) == Unreadable("not a DICOM file")


def test_a_file_that_is_too_large_does_not_reach_the_child() -> None:
    with PictureReader(Limits(max_bytes=10)) as reader:
        assert reader.read(b"x" * 11, ANY) == Unreadable("too large")
        assert reader.pid is None


def test_a_child_that_does_not_start_is_not_tried_again_and_again() -> None:
    with PictureReader(module="no.such.module") as reader:
        assert [reader.read(b"x", ANY) for _ in range(2)] == [Unreadable("its reader does not start")] * 2


def test_threads_that_come_and_go_share_one_child() -> None:
    with PictureReader(SHORT, DYING) as reader:
        seen = set()
        for _ in range(3):
            with ThreadPoolExecutor(3) as threads:
                seen |= set(threads.map(lambda _: reader.report(b"pid"), range(3)))
        assert len(seen) == 1


async def test_a_reader_can_be_used_beside_a_running_loop() -> None:
    with PictureReader(SHORT, DYING) as reader:
        found = await asyncio.to_thread(reader.report, b"pid")
        assert isinstance(found, str)
        assert int(found) == reader.pid


def test_a_closed_reader_leaves_no_child() -> None:
    reader = PictureReader(SHORT, DYING)
    pid = reader.report(b"pid")
    reader.close()
    reader.close()
    assert not Path(f"/proc/{pid}").exists()


def _pictures(found: tuple[Rendered, ...] | Unreadable) -> tuple[Rendered, ...]:
    assert not isinstance(found, Unreadable)
    return found
