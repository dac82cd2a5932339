"""Looking with an image encoder: whose pictures it is shown, what it costs where it is slow, what is kept."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from connectors.dicomweb.client import StudyFound
from connectors.errors import NothingListens
from service.errors import StoreError
from service.imaging.choice import Sight
from service.imaging.index import Entry
from service.imaging.picture import Header, Spot
from tests.unit.imaging.seen import vector_of
from tests.unit.test_pictures import MINE, ArchiveDouble, as_json, look, study

KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"


def several(count: int) -> tuple[Header, ...]:
    return tuple(
        replace(MINE, number=n, spot=replace(MINE.spot, instance=f"1.2.3.4.{n}")) for n in range(1, count + 1)
    )


@dataclass
class Eyes:
    """An encoder that likes the last picture most; it may be slow, or not work."""

    seconds: float = 0.0
    works: bool = True
    patients: list[str] = field(default_factory=list)
    seen: dict[Spot, bytes] = field(default_factory=dict)
    about: dict[Spot, Entry] = field(default_factory=dict)
    prompts: list[str] = field(default_factory=list)

    def see(
        self, pngs: Mapping[Spot, bytes], prompts: Sequence[str], patient: str, about: Mapping[Spot, Entry]
    ) -> Sight | None:
        self.patients.append(patient)
        self.seen |= pngs
        self.about |= about
        self.prompts += prompts
        time.sleep(self.seconds)
        if not self.works:
            return None
        last = max(pngs)
        images = {spot: vector_of(b"liked" if spot == last else spot.instance.encode()) for spot in pngs}
        return Sight(images, {one: vector_of(b"liked") for one in prompts}, 10.0, 0.0)


@dataclass
class Kept:
    """A PictureCache in memory; it may not work."""

    works: bool = True
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def get(self, patient: str, name: str) -> bytes | None:
        if not self.works:
            raise StoreError("The database is locked.")
        return self.files.get((patient, name))

    def put(self, patient: str, name: str, png: bytes) -> None:
        if not self.works:
            raise StoreError("The disk is full.")
        self.files[patient, name] = png


async def test_the_encoder_decides_and_the_picture_says_so() -> None:
    eyes = Eyes()
    looked = await look(ArchiveDouble(listed=several(3)), most=1, eyes=eyes)
    (picture,) = looked.pictures
    assert picture.spot.instance == "1.2.3.4.3"
    assert picture.score is not None
    assert picture.score > 0.99
    assert "with an image encoder" in looked.how
    assert eyes.patients == ["Patient/1"]
    assert eyes.about[picture.spot].source == "ImagingStudy/img1"
    assert set(eyes.about) == set(eyes.seen)
    assert all(one.startswith("X-ray") for one in eyes.prompts)


async def test_the_encoder_is_shown_nothing_of_a_file_that_names_another_patient() -> None:
    eyes = Eyes()
    archive = ArchiveDouble(listed=several(3))
    archive.within = lambda header: replace(header, patient_id="4712") if header.number == 3 else header
    await look(archive, most=3, eyes=eyes)
    assert {spot.instance for spot in eyes.seen} == {"1.2.3.4.1", "1.2.3.4.2"}


async def test_an_encoder_that_is_slow_or_does_not_work_costs_no_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = await look(ArchiveDouble(listed=several(2)), most=2, eyes=Eyes(works=False))
    assert (len(looked.pictures), "by rules alone" in looked.how) == (2, True)
    monkeypatch.setattr("service.pictures.ENCODER_SHARE", 0.005)
    looked = await look(ArchiveDouble(listed=several(2)), most=2, eyes=Eyes(seconds=1.0), seconds=60.0)
    assert (len(looked.pictures), "by rules alone" in looked.how) == (2, True)


async def test_a_file_is_fetched_once_for_the_encoder_the_model_and_the_next_summary() -> None:
    archive, kept = ArchiveDouble(listed=several(2)), Kept()
    for _ in range(2):
        assert len((await look(archive, most=2, eyes=Eyes(), kept=kept)).pictures) == 2
    assert sorted(archive.sent) == ["1.2.3.4.1", "1.2.3.4.2"]
    assert {patient for patient, _ in kept.files} == {"Patient/1"}


async def test_what_is_kept_is_held_against_the_patient_again() -> None:
    archive, kept = ArchiveDouble(), Kept()
    assert len((await look(archive, kept=kept)).pictures) == 1
    archive.within = lambda header: replace(header, birth_date="19000101")
    assert (await look(archive, kept=kept)).pictures == ()


async def test_a_failed_fetch_is_not_kept_and_a_store_that_fails_costs_no_pictures() -> None:
    kept = Kept()
    failing = ArchiveDouble(file_failure=NothingListens("The image archive cannot be reached."))
    await look(failing, kept=kept)
    assert kept.files == {}
    assert len((await look(ArchiveDouble(), kept=Kept(works=False))).pictures) == 1


async def test_what_a_radiologist_marked_is_shown_first() -> None:
    marked = {
        "00080016": {"vr": "UI", "Value": [KEY_OBJECTS]}, "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
        "0020000E": {"vr": "UI", "Value": ["1.2.3.9"]}, "00080018": {"vr": "UI", "Value": ["1.2.3.9.1"]},
        "00080060": {"vr": "CS", "Value": ["KO"]}, "00100020": {"vr": "LO", "Value": ["4711"]},
        "00100030": {"vr": "DA", "Value": ["19510504"]},
        "0040A730": {"vr": "SQ", "Value": [{"00081199": {"vr": "SQ", "Value": [
            {"00081155": {"vr": "UI", "Value": ["1.2.3.4.5"]}}]}}]},
    }  # fmt: skip

    @dataclass
    class Marking(ArchiveDouble):
        async def study(self, study: str, *, series: Sequence[str] = ()) -> StudyFound:
            own: list[dict[str, Any]] = [as_json(one) for one in self.listed]
            return StudyFound(study, (*own, marked), ())

    looked = await look(Marking(listed=several(6)), study(), most=1)
    assert [one.spot.instance for one in looked.pictures] == ["1.2.3.4.5"]
    assert "radiologist" in looked.pictures[0].why
