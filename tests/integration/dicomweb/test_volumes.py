"""Series of many slices at a real PACS: how an MR is scaled, which slices are shown, and what it costs."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import CTImageStorage, MRImageStorage

from connectors.dicomweb.archives import Archives
from connectors.dicomweb.client import Fetched, Pacs
from fixtures.pacs import PacsServer
from service.imaging.choice import BETWEEN, SCOUT, Sight, Vector
from service.imaging.index import Entry
from service.imaging.picture import Picture, Spot
from service.imaging.reader import PictureReader
from service.imaging.volume import MOST_MEASURED
from service.imaging.window import CT_WORDS
from service.pictures import Pictures
from service.ports.images import Looked, Wanted
from service.record.assemble import assemble_record
from tests.integration.dicomweb.archive import dicom_file
from tests.unit.test_pictures import PATIENT

pytestmark = pytest.mark.shared

SLICES, SIDE = 60, 8
STEP = 10
"""How much brighter each slice is than the one before."""
BRIGHTEST = SLICES * STEP
GLARE = np.full((SIDE, SIDE), 60_000, "<u2").tobytes()
"""Brighter than all else."""
LIGHT = np.full((SIDE, SIDE), 2 * BRIGHTEST, "<u2").tobytes()
BETWEEN_SAMPLES = 43
"""A slice that is shown, and that no even sample of the series holds."""


@dataclass(frozen=True)
class Mr:
    """A study of one series, under UIDs of its own: each slice is dark to the left, bright to the right."""

    uid: str = field(default_factory=lambda: f"2.25.{uuid4().int % 10**30}")

    @property
    def chart(self) -> list[dict[str, Any]]:
        """The patient, and the study as the record has it."""
        study = {
            "resourceType": "ImagingStudy", "id": "mr1", "status": "available", "started": "2026-05-04",
            "subject": {"reference": "Patient/1"}, "description": "MR of the head",
            "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{self.uid}"}],
        }  # fmt: skip
        return [PATIENT, study]

    def instance(self, number: int) -> str:
        """The UID of a slice."""
        return f"{self.uid}.1.{number}"

    def file(self, number: int, **elements: Any) -> bytes:
        """A slice, brighter with its number."""
        pixels = np.zeros((SIDE, SIDE), "<u2")
        pixels[:, SIDE // 2 :] = number * STEP
        known = {
            "StudyInstanceUID": self.uid, "SeriesInstanceUID": f"{self.uid}.1",
            "SOPInstanceUID": self.instance(number), "SOPClassUID": MRImageStorage, "Modality": "MR",
            "PatientID": "4711", "Rows": SIDE, "Columns": SIDE, "PixelData": pixels.tobytes(),
            "ImagePositionPatient": [0, 0, 2.0 * number], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "StudyDate": "20260504", "SeriesDescription": "T1 axial",
        }  # fmt: skip
        return dicom_file(number, **known | elements)

    def files(self, count: int) -> list[bytes]:
        """So many slices."""
        return [self.file(number) for number in range(1, count + 1)]


class Counting(Archives):
    """The archives of a site, which files they were asked for, and what they send in place of some."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.sent: list[str] = []
        self.swapped: dict[str, bytes] = {}

    def at(self, base_url: str, /) -> Pacs:
        pacs = super().at(base_url)

        async def instances(study: str, series: str, wanted: Sequence[str]) -> Fetched:
            self.sent.extend(wanted)
            found = await Pacs.instances(pacs, study, series, wanted)
            return replace(
                found, files={uid: self.swapped.get(uid, file) for uid, file in found.files.items()}
            )

        pacs.instances = instances  # type: ignore[method-assign]
        return pacs


class Likes:
    """An encoder that finds all pictures alike, and keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: dict[Spot, bytes] = {}

    def see(self, pngs: Any, prompts: Sequence[str], patient: str, about: dict[Spot, Entry]) -> Sight:
        self.shown |= pngs
        one: Vector = np.asarray([1.0, 0.0], np.float32)
        return Sight(dict.fromkeys(pngs, one), dict.fromkeys(prompts, one))


@pytest.fixture(scope="module")
def reader() -> Iterator[PictureReader]:
    with PictureReader() as opened:
        yield opened


@pytest.fixture
async def archives(pacs: PacsServer) -> AsyncIterator[Counting]:
    opened = Counting(pacs.dicomweb_url)
    yield opened
    await opened.aclose()


async def look(study: Mr, archives: Counting, reader: PictureReader, most: int = 4, **more: Any) -> Looked:
    chart = study.chart

    async def read(reference: str) -> dict[str, Any]:
        raise AssertionError(reference)

    pictures = Pictures(archives, reader, **more)
    return await pictures.look(Wanted(assemble_record(chart, "1"), chart, read, most))


def bright(png: bytes) -> int:
    """The grey of the bright half."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    return int(pixels[pixels.shape[0] // 2, pixels.shape[1] * 7 // 8])


def number_of(picture: Picture) -> int:
    return int(picture.spot.instance.rpartition(".")[2])


async def test_slices_of_an_mr_keep_their_brightness_beside_each_other(
    pacs: PacsServer, archives: Counting, reader: PictureReader
) -> None:
    study = Mr()
    across = study.file(90, ImageOrientationPatient=[0, 1, 0, 0, 0, 1], PixelData=GLARE)
    pacs.store(*study.files(SLICES), across)
    looked = await look(study, archives, reader)
    assert [number_of(one) for one in looked.pictures] == [8, 23, 38, 53]
    for picture in looked.pictures:
        assert abs(bright(picture.png) - 255 * number_of(picture) * STEP / BRIGHTEST) <= 1
        assert picture.window == f"MR: 0…{BRIGHTEST} over {len(archives.sent)} of {SLICES} slices"
    assert sorted((one.why, one.count) for one in looked.unseen) == [(BETWEEN, SLICES - 4), (SCOUT, 1)]
    assert len(archives.sent) == len(set(archives.sent)) <= MOST_MEASURED + 4  # none twice, few in all
    assert study.instance(90) not in archives.sent


async def test_an_encoder_is_shown_slices_of_the_same_scale(
    pacs: PacsServer, archives: Counting, reader: PictureReader
) -> None:
    study, eyes = Mr(), Likes()
    brighter = study.file(BETWEEN_SAMPLES, PixelData=LIGHT)
    pacs.store(*study.files(SLICES), brighter)
    looked = await look(study, archives, reader, eyes=eyes)
    assert len(eyes.shown) == 16
    greys = {int(spot.instance.rpartition(".")[2]): bright(png) for spot, png in eyes.shown.items()}
    assert greys.pop(BETWEEN_SAMPLES) == 255  # what is shown is within the scale, measured or not without it
    for number, grey in greys.items():
        assert abs(grey - 255 * number * STEP / (2 * BRIGHTEST)) <= 1
    assert {one.spot for one in looked.pictures} <= set(eyes.shown)
    assert len(archives.sent) == len(set(archives.sent))


async def test_a_slice_whose_own_file_names_another_patient_scales_nothing(
    pacs: PacsServer, archives: Counting, reader: PictureReader
) -> None:
    """The archive lists it as this patient's; only the file says otherwise."""
    study = Mr()
    pacs.store(*study.files(5))
    archives.swapped = {study.instance(5): study.file(5, PatientID="4712", PixelData=GLARE)}
    looked = await look(study, archives, reader, 2)
    assert {one.window for one in looked.pictures} == {"MR: 0…40 over 4 of 5 slices"}


async def test_frames_of_one_file_are_scaled_over_the_file(
    pacs: PacsServer, archives: Counting, reader: PictureReader
) -> None:
    study = Mr()
    pixels = np.zeros((20, SIDE, SIDE), "<u2")
    pixels[:, :, SIDE // 2 :] = (np.arange(1, 21) * STEP)[:, None, None]
    pacs.store(study.file(1, NumberOfFrames=20, PixelData=pixels.tobytes()))
    looked = await look(study, archives, reader)
    assert [one.spot.frame for one in looked.pictures] == [3, 8, 13, 18]
    assert [bright(one.png) for one in looked.pictures] == pytest.approx([38, 102, 166, 230], abs=1)
    assert archives.sent == [study.instance(1)]


async def test_a_ct_is_thinned_by_its_millimetres_and_keeps_its_three_windows(
    pacs: PacsServer, archives: Counting, reader: PictureReader
) -> None:
    study = Mr()
    at = [*(0.1 * n for n in range(30)), *(3.0 + 3.0 * n for n in range(10))]
    ct = {"Modality": "CT", "SOPClassUID": CTImageStorage, "RescaleIntercept": -1024, "RescaleSlope": 1}
    pacs.store(*(study.file(n, ImagePositionPatient=[0, 0, place], **ct) for n, place in enumerate(at, 1)))
    looked = await look(study, archives, reader, 5)
    shown = [at[number_of(one) - 1] for one in looked.pictures]
    assert shown == pytest.approx([2.9, 6.0, 12.0, 21.0, 27.0], abs=3.01)
    assert sum(place < 3 for place in shown) == 1
    assert {one.window for one in looked.pictures} == {CT_WORDS}
    assert len(archives.sent) == 5  # a unit needs no measuring
