"""What a header says, from a file and from DICOM JSON, whatever is in it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.imaging.burned import is_burned_in
from service.imaging.header import header_of
from service.imaging.kinds import Kind, kind_of
from service.imaging.picture import Header, Spot
from tests.conftest import CANARY
from tests.unit.imaging import phantoms

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
USED = (
    "0020000D", "0020000E", "00080018", "00080016", "00080060", "00280008", "00200013", "00200032",
    "00200037",
    "00100020", "00080008", "52009229", "52009230", "00280010", "0040A043", "00280301",
)  # fmt: skip


def full() -> Any:
    return phantoms.pictured(
        phantoms.steps(0, 100), phantoms.CT, "CT", PatientID="77", IssuerOfPatientID="Ward",
        InstanceNumber=12, PatientBirthDate="19510504", StudyDate="20240131", AcquisitionDate="20240201",
        StudyDescription="Head", SeriesDescription="Axial 5.0", BodyPartExamined="HEAD", Laterality="L",
        ImageLaterality="R", ViewPosition="AP", BurnedInAnnotation="NO",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImagePositionPatient=[10.0, 20.0, 30.0], ImageOrientationPatient=[1.0, 0, 0, 0, 0, -1.0],
    )  # fmt: skip


def test_a_file_and_its_json_say_the_same() -> None:
    made = full()
    from_file = header_of(phantoms.written(made))
    from_json = header_of(made.to_json_dict())
    assert from_file == Header(
        Spot(phantoms.STUDY, phantoms.SERIES, phantoms.INSTANCE), phantoms.CT, "CT", 1, 12, 20.0, "77",
        "Ward", "19510504", "20240201", "Head", "Axial 5.0", "HEAD", "R", "AP", 16, 16, "NO",
        "1.2.840.10008.1.2.1", ("ORIGINAL", "PRIMARY", "LOCALIZER"), (0.0, 1.0, 0.0),
    )  # fmt: skip
    assert from_json == header_of({**made.to_json_dict(), "00080005": {}})
    assert {**_dict(from_json), "transfer_syntax": ""} == {**_dict(from_file), "transfer_syntax": ""}


def _dict(header: Header) -> dict[str, Any]:
    return {name: getattr(header, name) for name in header.__dataclass_fields__}


def test_a_position_is_measured_along_the_normal_of_oblique_slices() -> None:
    half = 0.5**0.5
    made = full()
    made.ImageOrientationPatient = [1.0, 0, 0, 0, half, half]
    made.ImagePositionPatient = [123.0, -10.0, 10.0]
    header = header_of(made)
    assert header.position == pytest.approx(2 * 10 * half)
    assert header.normal == pytest.approx((0, -half, half))


def test_a_frame_of_an_enhanced_object_has_its_place_in_a_functional_group() -> None:
    made = phantoms.dataset("1.2.840.10008.5.1.4.1.1.4.1", "MR", NumberOfFrames=2)
    made.SharedFunctionalGroupsSequence = phantoms.items(
        phantoms.item(
            PlaneOrientationSequence=phantoms.items(
                phantoms.item(ImageOrientationPatient=[1.0, 0, 0, 0, 1.0, 0])
            )
        )
    )
    made.PerFrameFunctionalGroupsSequence = phantoms.items(
        *(
            phantoms.item(
                PlanePositionSequence=phantoms.items(phantoms.item(ImagePositionPatient=[0.0, 0, place]))
            )
            for place in (7.0, 8.0)
        )
    )
    assert (header_of(made).position, header_of(made.to_json_dict()).position) == (7.0, 7.0)


def test_what_is_recorded_stays_out_of_a_headers_repr() -> None:
    made = full()
    made.PatientID, made.StudyDescription = CANARY, CANARY
    assert CANARY not in repr(header_of(made))


@given(
    st.dictionaries(
        st.sampled_from(USED) | st.text(max_size=8), JSON | st.fixed_dictionaries({"Value": JSON})
    )
)
def test_no_json_is_refused(raw: dict[str, Any]) -> None:
    header = header_of(raw)
    assert header.frames >= 1
    assert header.rows >= 0


def test_no_bytes_are_refused() -> None:
    data, chance = phantoms.written(full()), random.Random(7)
    for _ in range(200):
        broken = bytearray(data[: chance.randrange(len(data))])
        for _ in range(chance.randrange(20)):
            if broken:
                broken[chance.randrange(len(broken))] = chance.randrange(256)
        assert isinstance(header_of(bytes(broken)), Header)
    assert header_of(b"") == header_of({}) == Header(Spot("", "", ""), "", "")


@pytest.mark.parametrize(
    ("sop_class", "kind"),
    [
        (phantoms.CT, Kind.PICTURE), (phantoms.MR, Kind.PICTURE), (phantoms.DX, Kind.PICTURE),
        (phantoms.US, Kind.PICTURE), (phantoms.CAPTURE, Kind.PICTURE),
        ("1.2.840.10008.5.1.4.1.1.2.1", Kind.PICTURE), ("1.2.840.10008.5.1.4.1.1.12.1.1", Kind.PICTURE),
        ("1.2.840.10008.5.1.4.1.1.77.1.5.1", Kind.PICTURE), ("1.2.840.10008.5.1.4.1.1.77.1.4", Kind.PICTURE),
        ("1.2.840.10008.5.1.4.1.1.481.1", Kind.PICTURE), ("1.2.840.10008.5.1.4.1.1.128", Kind.PICTURE),
        (phantoms.SEGMENTATION, Kind.SEGMENTATION), (phantoms.BASIC_REPORT, Kind.REPORT),
        ("1.2.840.10008.5.1.4.1.1.88.67", Kind.REPORT), (phantoms.KEY_IMAGES, Kind.KEY_IMAGES),
        ("1.2.840.10008.5.1.4.1.1.481.2", Kind.RADIOTHERAPY),
        ("1.2.840.10008.5.1.4.1.1.481.5", Kind.RADIOTHERAPY),
        ("1.2.840.10008.5.1.4.1.1.9.1.1", Kind.WAVEFORM), ("1.2.840.10008.5.1.4.1.1.104.1", Kind.PAGES),
        ("1.2.840.10008.5.1.4.1.1.11.1", Kind.PRESENTATION), ("1.2.840.10008.5.1.4.1.1.30", Kind.MAP),
        ("1.2.840.10008.5.1.4.1.1.77.1.6", Kind.SLIDE), ("1.2.840.10008.5.1.4.1.1.77.1.4.1", Kind.VIDEO),
        ("1.2.840.10008.5.1.4.1.1.66", Kind.RAW), ("1.3.12.2.1107.5.9.1", Kind.UNKNOWN),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_not_taken_for_one(sop_class: str, kind: Kind) -> None:
    assert kind_of(sop_class, "CT") is kind


def test_without_a_sop_class_the_modality_decides() -> None:
    assert (kind_of("", "CT"), kind_of("", "SR"), kind_of("")) == (Kind.PICTURE, Kind.UNKNOWN, Kind.UNKNOWN)


@pytest.mark.parametrize(
    ("sop_class", "modality", "tag", "is_burned"),
    [
        (phantoms.CT, "CT", "", False), (phantoms.CT, "CT", "YES", True), (phantoms.DX, "DX", "", False),
        (phantoms.US, "US", "", True), (phantoms.US, "US", "NO", False), (phantoms.CAPTURE, "DX", "", True),
        ("1.2.840.10008.5.1.4.1.1.1", "CR", "", True), ("1.2.840.10008.5.1.4.1.1.1", "CR", "NO", False),
    ],
)  # fmt: skip
def test_text_may_be_burned_in_where_a_device_does_so_and_no_tag_denies_it(
    sop_class: str, modality: str, tag: str, is_burned: bool
) -> None:
    header = header_of(phantoms.dataset(sop_class, modality, BurnedInAnnotation=tag))
    assert is_burned_in(header) is is_burned


def test_a_screen_that_was_saved_counts_as_burned_in() -> None:
    made = phantoms.pictured(
        np.zeros((4, 4), np.uint8), phantoms.CT, "CT", ImageType=["DERIVED", "SCREEN SAVE"]
    )
    assert is_burned_in(header_of(made))
