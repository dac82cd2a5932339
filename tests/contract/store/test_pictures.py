"""Pictures in the vault: found by name, within their limit, under their patient's key, on both databases."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from service.errors import ShreddedError
from service.imaging.index import Entry, PictureIndex
from service.ports.pictures import Whose
from service.store.cipher import Cipher
from service.store.keys import KeyRoom
from service.store.pictures import EMBEDDING, PICTURE, SqlPictureIndexes, SqlPictures
from service.store.vault import SqlVault
from tests.unit.imaging.seen import vector_of

ME, ANOTHER = "Patient/1", "Patient/2"
KILOBYTE = 1024


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 5, 4, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def vault(url: str, cipher: Cipher, clock: Clock) -> Iterator[SqlVault]:
    with closing(SqlVault(url, cipher, clock)) as opened:
        yield opened


def test_a_picture_is_found_by_its_name_and_patient_alone(vault: SqlVault) -> None:
    pictures = SqlPictures(vault, 10)
    pictures.put(ME, "1.2.3 frame 1", b"png")
    assert pictures.get(ME, "1.2.3 frame 1") == b"png"
    assert pictures.get(ME, "1.2.3 frame 2") is None
    assert pictures.get(ANOTHER, "1.2.3 frame 1") is None


def test_equal_pictures_of_a_patient_lie_there_once(vault: SqlVault) -> None:
    pictures, png = SqlPictures(vault, 10), secrets.token_bytes(100 * KILOBYTE)
    pictures.put(ME, "one", png)
    before = vault.size(PICTURE)
    pictures.put(ME, "two", png)
    assert vault.size(PICTURE) - before < KILOBYTE
    assert pictures.get(ME, "one") == pictures.get(ME, "two") == png


def test_what_was_not_used_for_longest_goes_first_and_the_limit_holds(vault: SqlVault, clock: Clock) -> None:
    pictures = SqlPictures(vault, 1)
    for n in range(30):
        clock.now += timedelta(hours=2)
        pictures.put(ME, f"{n}", secrets.token_bytes(100 * KILOBYTE))
        assert pictures.get(ME, "0") is not None, n
        assert vault.size(PICTURE) <= 1024 * KILOBYTE
    kept = [n for n in range(30) if pictures.get(ME, f"{n}") is not None]
    assert kept == [0, *range(kept[1], 30)]
    assert len(kept) >= 8


def test_nothing_else_in_the_vault_makes_room_for_pictures(vault: SqlVault) -> None:
    vault.put("snapshot", f"server {ME}", secrets.token_bytes(900 * KILOBYTE))
    pictures = SqlPictures(vault, 1)
    for n in range(5):
        pictures.put(ME, f"{n}", secrets.token_bytes(300 * KILOBYTE))
    assert vault.get("snapshot", f"server {ME}") is not None
    assert vault.size(PICTURE) <= 1024 * KILOBYTE


def test_what_is_larger_than_the_limit_and_any_picture_without_one_is_not_kept(vault: SqlVault) -> None:
    for megabytes in (0, 1):
        pictures = SqlPictures(vault, megabytes)
        pictures.put(ME, "large", bytes(1100 * KILOBYTE))
        assert pictures.get(ME, "large") is None
    assert vault.size(PICTURE) == 0


def test_an_index_is_kept_by_server_reader_and_patient(vault: SqlVault) -> None:
    indexes, whose = SqlPictureIndexes(vault), Whose("https://ehr/fhir", "system", ME)
    index = PictureIndex("weights")
    index.add([Entry("1", "2", "3", 1, "ImagingStudy/1")], [vector_of(b"x")])
    indexes.write(whose, index)
    assert indexes.read(whose, "weights").entries == index.entries
    assert not len(indexes.read(whose, "others"))
    for other in (whose._replace(server="x"), whose._replace(reader="x"), whose._replace(patient=ANOTHER)):
        assert not len(indexes.read(other, "weights"))


def test_shredding_a_patient_takes_pictures_and_embeddings_too(
    vault: SqlVault, cipher: Cipher, clock: Clock
) -> None:
    pictures, indexes = SqlPictures(vault, 10), SqlPictureIndexes(vault)
    index = PictureIndex("weights")
    index.add([Entry("1", "2", "3", 1, "ImagingStudy/1")], [vector_of(b"x")])
    for patient in (ME, ANOTHER):
        pictures.put(patient, "one", b"png")
        indexes.write(Whose("s", "r", patient), index)
    KeyRoom(vault.database, clock).shred(ME, "asked for it", leave_drafts=True)
    assert pictures.get(ME, "one") is None
    assert not len(indexes.read(Whose("s", "r", ME), "weights"))
    assert pictures.get(ANOTHER, "one") == b"png"
    assert len(indexes.read(Whose("s", "r", ANOTHER), "weights")) == 1
    assert 0 < vault.size(EMBEDDING) < 2 * len(index.to_bytes())
    with pytest.raises(ShreddedError):
        pictures.put(ME, "two", b"png")
    with pytest.raises(ShreddedError):
        indexes.write(Whose("s", "r", ME), index)
