"""A Structured Report is a text like any other; a picture has none."""

from __future__ import annotations

import numpy as np
import pytest

from service.texts.formats import Unreadable, text_of
from tests.unit.imaging import phantoms
from tests.unit.imaging.phantoms import code, item, items

DICOM = "application/dicom"


def test_a_structured_report_gives_its_lines() -> None:
    made = phantoms.dataset(
        phantoms.BASIC_REPORT, "SR", ConceptNameCodeSequence=code("CT report"), VerificationFlag="VERIFIED",
        ContentSequence=items(
            item(ValueType="TEXT", ConceptNameCodeSequence=code("Impression"), TextValue="No haemorrhage.")
        ),
    )  # fmt: skip
    assert text_of(phantoms.written(made), DICOM, DICOM) == "CT report\nImpression: No haemorrhage."


def test_other_files_have_no_text_and_say_what_they_are() -> None:
    picture = phantoms.written(phantoms.pictured(np.zeros((4, 4), np.uint8)))
    for content, reason in (
        (picture, "a DICOM file without text: picture"), (b"x" * 400, "not a DICOM file"),
        (b"", "not a DICOM file"),
    ):  # fmt: skip
        with pytest.raises(Unreadable) as refused:
            text_of(content, DICOM, DICOM)
        assert refused.value.reason == reason
