"""The album: what was looked at is kept under its patient and reader, and looking never fails a summary."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.album import Album, AlbumAt
from service.errors import StoreError
from service.imaging.encoder import NoEncoder
from service.imaging.index import Entry, PictureIndex
from service.imaging.picture import Spot
from service.ports.pictures import Whose
from service.wiring.album import Encoders
from tests.unit.imaging.seen import HashEncoder, vector_of

ME = Whose("https://ehr/fhir", "system", "Patient/1")
PNGS = {Spot("1", "2", f"3.{n}"): f"png {n}".encode() for n in range(4)}
ABOUT = {s: Entry(s.study, s.series, s.instance, s.frame, "ImagingStudy/1", "DX", what="Chest") for s in PNGS}


@dataclass
class Indexes:
    """Indexes in memory, as bytes."""

    kept: dict[Whose, bytes] = field(default_factory=dict)
    fails: bool = False

    def read(self, whose: Whose, model: str) -> PictureIndex:
        return PictureIndex.from_bytes(self.kept.get(whose), model)

    def write(self, whose: Whose, index: PictureIndex) -> None:
        if self.fails:
            raise StoreError("The disk is full.")
        self.kept[whose] = index.to_bytes()


def test_a_picture_is_found_by_what_is_most_like_it() -> None:
    spot = list(PNGS)[2]
    encoder = HashEncoder({"opacity": vector_of(PNGS[spot])})
    album = Album(encoder, Indexes())
    AlbumAt(album, ME.server, ME.reader).see(PNGS, ["a prompt"], ME.patient, ABOUT)
    first, second = album.find(ME, "opacity", 2)
    assert first.entry.spot == spot
    assert first.likeness == pytest.approx(1.0, abs=1e-5)
    assert first.score == pytest.approx(1.0)
    assert second.likeness < first.likeness


def test_pictures_of_others_and_of_other_readers_are_not_found() -> None:
    album = Album(HashEncoder(), Indexes())
    album.see(PNGS, [], ME, ABOUT)
    for other in (
        ME._replace(patient="Patient/2"),
        ME._replace(reader="user:1"),
        ME._replace(server="https://x"),
    ):
        assert album.find(other, "opacity") == ()
        assert album.entries(other) == ()


def test_what_was_seen_before_is_not_embedded_again() -> None:
    encoder = HashEncoder()
    album = Album(encoder, Indexes())
    first = album.see(PNGS, [], ME, ABOUT)
    again = album.see({**PNGS, next(iter(PNGS)): b"other pixels"}, [], ME, ABOUT)
    assert encoder.images_asked == [*PNGS.values(), b"other pixels"]
    assert first is not None
    assert again is not None
    assert len(album.entries(ME)) == len(PNGS)


def test_what_nobody_says_the_source_of_is_seen_and_not_kept() -> None:
    album = Album(HashEncoder(), Indexes())
    sight = album.see(PNGS, [], ME, {})
    assert sight is not None
    assert set(sight.images) == set(PNGS)
    assert album.entries(ME) == ()


def test_an_encoder_that_fails_gives_no_sight_and_a_line_without_a_patient(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert Album(HashEncoder(fails=True), Indexes()).see(PNGS, ["x"], ME, ABOUT) is None
    assert "rules alone" in caplog.text
    assert "Patient" not in caplog.text
    album = Album(HashEncoder(), Indexes())
    album.see(PNGS, [], ME, ABOUT)
    album.encoder = HashEncoder(fails=True)
    with pytest.raises(NoEncoder):
        album.find(ME, "opacity")


def test_what_cannot_be_kept_is_seen_all_the_same() -> None:
    album = Album(HashEncoder(), Indexes(fails=True))
    sight = album.see(PNGS, ["x"], ME, ABOUT)
    assert sight is not None
    assert len(sight.images) == len(PNGS)


def test_one_encoder_serves_all_that_open_it_and_ends_with_the_last(tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    encoders = Encoders()
    one, other = encoders.take(tmp_path, "cpu"), encoders.take(tmp_path / ".", "cpu")
    assert one.model == other.model
    assert one._encoder is other._encoder
    assert encoders.take(tmp_path, "cuda:1")._encoder is not one._encoder
    one.close()
    one.close()
    later = encoders.take(tmp_path, "cpu")
    assert later._encoder is other._encoder
    for user in (other, later):
        user.close()
    with pytest.raises(NoEncoder, match="closed"):
        other.embed_texts(["opacity"])
    assert encoders.take(tmp_path, "cpu")._encoder is not other._encoder
