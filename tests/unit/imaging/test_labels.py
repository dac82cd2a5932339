"""Suggested labels: by modality and region, measured against their denial, and called suggestions."""

from __future__ import annotations

import numpy as np
import pytest

from service.imaging.labels import MOST_SHOWN, NO_FINDING, Labeller, labels_for
from tests.unit.imaging.seen import SIZE, HashEncoder, vector_of


def test_labels_are_of_the_modality_and_of_the_region_that_the_header_names() -> None:
    chest = {label.words for label in labels_for("DX", ["CHEST"])}
    assert "pneumothorax" in chest
    assert "a dislocation" not in chest
    assert "a dislocation" in {label.words for label in labels_for("DX", ["Left knee"])}
    assert labels_for("DX", ["somewhere"]) == ()
    assert labels_for("SR", ["CHEST"]) == ()
    assert labels_for("US", ["somewhere"])


def test_each_label_is_measured_against_its_denial() -> None:
    effusion = next(label for label in labels_for("CR", ["chest"]) if label.words == "pleural effusion")
    assert effusion.said == "X-ray with pleural effusion"
    assert effusion.denied == "X-ray without pleural effusion"
    heart = next(label for label in labels_for("CR", ["chest"]) if label.words == "cardiomegaly")
    assert heart.denied == "X-ray with a heart of normal size"


def test_what_fits_better_than_its_denial_comes_first_with_its_score() -> None:
    picture = np.eye(SIZE, dtype=np.float32)[0]
    known = {"X-ray with pneumothorax": picture, "X-ray without pneumothorax": -picture}
    known |= {label.denied: picture for label in labels_for("DX", ["chest"]) if label.words != "pneumothorax"}
    found = Labeller(HashEncoder(known)).suggest("DX", ["chest"], picture)
    assert found[0].words == "pneumothorax"
    assert found[0].score == pytest.approx(1.0)
    assert len(found) == MOST_SHOWN
    assert all(one.score < 0.5 for one in found[1:])


def test_a_denial_that_fits_as_well_gives_one_half() -> None:
    same = vector_of(b"same")
    known = {text: same for label in labels_for("MR", ["brain"]) for text in (label.said, label.denied)}
    found = Labeller(HashEncoder(known)).suggest("MR", ["brain"], vector_of(b"picture"))
    assert {one.score for one in found} == {0.5}
    assert [one.words for one in found] == sorted(one.words for one in found)


def test_each_sentence_is_embedded_once() -> None:
    encoder = HashEncoder()
    labeller = Labeller(encoder)
    for content in (b"one", b"two"):
        labeller.suggest("DX", ["chest"], vector_of(content))
    assert len(encoder.texts_asked) == len(set(encoder.texts_asked)) > 0


def test_the_note_says_that_a_suggestion_is_no_finding() -> None:
    assert "nothing here is a finding" in NO_FINDING
