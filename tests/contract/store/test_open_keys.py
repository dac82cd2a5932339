"""What a process holds of the data keys that it opened: little of each, and of the last ones alone."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from service.store import envelope as room
from service.store.database import Database, open_cipher
from service.store.envelope import ID_BYTES, DataKey

MOST = 8


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A database whose process may keep few keys opened."""
    monkeypatch.setattr(room, "MOST_OPEN", MOST)
    url = f"sqlite:///{tmp_path}/epicrisis.db"
    database = Database(url, open_cipher(tmp_path / "key", url))
    yield database
    database.close()


def seal_for(database: Database, *patients: str) -> int:
    """Seal something about each, and return how many keys were opened for it."""
    before = database.envelope.unwrapped
    for patient in patients:
        with database.writing(about=patient):
            database.envelope.seal(b"allergic", "a place")
    return database.envelope.unwrapped - before


def test_an_opened_key_is_its_bytes_and_nothing_else() -> None:
    """A cipher's own state beside each of some thousand keys is what a worker once grew by."""
    key = DataKey.of(secrets.token_bytes(ID_BYTES), secrets.token_bytes(32))
    assert [type(getattr(key, one.name)) for one in fields(key)] == [bytes, bytes]
    assert key.unseal(key.seal(b"allergic", "a place"), "a place") == b"allergic"


def test_the_keys_of_the_last_patients_stay_open_and_those_before_are_let_go(database: Database) -> None:
    patients = [f"Patient/{number}" for number in range(MOST * 2)]
    assert seal_for(database, *patients) == len(patients)
    assert seal_for(database, *patients[-MOST:]) == 0
    assert seal_for(database, patients[0]) == 1
