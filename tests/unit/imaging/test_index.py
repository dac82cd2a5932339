"""The index of a patient's pictures: it finds the nearest, survives being kept, and forgets other weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.imaging.choice import Vector
from service.imaging.index import Entry, PictureIndex
from service.imaging.labels import Suggestion


def entry(n: int, digest: str = "") -> Entry:
    return Entry("1", "2", f"3.{n}", 1, "ImagingStudy/1", "DX", what="Chest", digest=digest or f"d{n}")


def vectors(count: int, seed: int = 1, size: int = 16) -> list[Vector]:
    raw = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    return list(raw / np.linalg.norm(raw, axis=1, keepdims=True))


def filled(count: int = 20) -> tuple[PictureIndex, list[Vector]]:
    index, made = PictureIndex("weights"), vectors(count)
    index.add([entry(n) for n in range(count)], made)
    return index, made


@given(count=st.integers(1, 60), seed=st.integers(0, 50), most=st.integers(1, 70))
@settings(max_examples=40)
def test_it_finds_what_a_plain_comparison_finds(count: int, seed: int, most: int) -> None:
    made, (asked,) = vectors(count, seed), vectors(1, seed + 1000)
    index = PictureIndex("weights")
    index.add([entry(n) for n in range(count)], made)
    by_hand = sorted(range(count), key=lambda n: -float(made[n] @ asked))[:most]
    assert [int(one.entry.instance[2:]) for one in index.find(asked, most)] == by_hand


def test_it_is_the_same_after_it_was_kept() -> None:
    index, made = filled()
    labelled = entry(0)
    index.add(
        [Entry("1", "2", labelled.instance, 1, "ImagingStudy/1", labels=(Suggestion("x", 0.5),))], made[:1]
    )
    index.scale, index.bias = 100.0, -12.0
    again = PictureIndex.from_bytes(index.to_bytes(), "weights")
    assert again.entries == index.entries
    assert again.entries[0].labels == (Suggestion("x", 0.5),)
    assert (again.scale, again.bias) == (100.0, -12.0)
    assert again.find(made[3], 5) == index.find(made[3], 5)


def test_a_picture_that_changed_takes_the_place_of_the_earlier_one() -> None:
    index, made = filled(3)
    (new,) = vectors(1, 99)
    index.add([entry(1, "changed")], [new])
    again = PictureIndex.from_bytes(index.to_bytes(), "weights")
    for one in (index, again):
        assert len(one) == 3
        assert one.find(new, 1)[0].entry.digest == "changed"
        assert one.find(made[1], 1)[0].likeness < 0.999


def test_what_is_known_is_not_embedded_again_unless_its_pixels_changed() -> None:
    index, made = filled(3)
    spot = entry(1).spot
    assert np.allclose(index.known([(spot, "d1")])[spot], made[1])
    assert index.known([(spot, "other")]) == {}


def test_other_weights_and_damaged_bytes_are_an_empty_index() -> None:
    index, made = filled(3)
    data = index.to_bytes()
    for kept, model in ((data, "others"), (data[:50], "weights"), (b"", "weights"), (None, "weights")):
        found = PictureIndex.from_bytes(kept, model)
        assert len(found) == 0
        assert found.find(made[0]) == ()


def test_there_is_a_bound_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    index, made = filled(3)
    monkeypatch.setattr("service.imaging.index.MOST_PICTURES", 4)
    assert index.add([entry(7), entry(8)], made[:2]) == 1
    assert len(index) == 4


def test_no_text_of_a_record_is_in_what_is_printed_of_an_entry() -> None:
    assert "Chest" not in repr(entry(1))
