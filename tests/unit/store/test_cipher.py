"""The key file, and values that open only where they belong."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import StoreError
from service.store.cipher import Cipher
from tests.conftest import CANARY

KEYS = {b"\0\0\0\1": b"1" * 32, b"\0\0\0\2": b"2" * 32}
CIPHER = Cipher(KEYS, b"\0\0\0\2", b"l" * 32)
PLACE = "epicrisis_run.content"


@given(st.binary(max_size=300))
def test_what_is_sealed_opens_again_and_does_not_show(plain: bytes) -> None:
    sealed = CIPHER.seal(plain, PLACE)
    assert CIPHER.unseal(sealed, PLACE) == plain
    assert len(plain) < 8 or plain not in sealed


def test_the_same_value_is_sealed_differently_each_time() -> None:
    assert len({CIPHER.seal(b"x", PLACE) for _ in range(50)}) == 50


def test_a_value_does_not_open_in_another_column() -> None:
    with pytest.raises(StoreError, match="damaged or was changed"):
        CIPHER.unseal(CIPHER.seal(b"x", PLACE), "epicrisis_run.patient")


@given(st.integers(0, 33), st.integers(1, 255))
def test_no_byte_can_be_changed(position: int, change: int) -> None:
    sealed = bytearray(CIPHER.seal(b"12345", PLACE))
    sealed[position % len(sealed)] ^= change
    with pytest.raises(StoreError):
        CIPHER.unseal(bytes(sealed), PLACE)


@pytest.mark.parametrize("length", range(34))
def test_a_value_that_was_cut_does_not_open(length: int) -> None:
    with pytest.raises(StoreError):
        CIPHER.unseal(CIPHER.seal(b"12345", PLACE)[:length], PLACE)


def test_an_older_key_in_the_file_still_opens_what_it_sealed() -> None:
    older = Cipher(KEYS, b"\0\0\0\1", b"l" * 32)
    assert CIPHER.unseal(older.seal(b"x", PLACE), PLACE) == b"x"
    assert older.seal(b"x", PLACE)[1:5] != CIPHER.seal(b"x", PLACE)[1:5]


def test_a_key_id_is_part_of_what_is_authenticated() -> None:
    twins = Cipher({b"\0\0\0\1": b"1" * 32, b"\0\0\0\2": b"1" * 32}, b"\0\0\0\1", b"l" * 32)
    sealed = bytearray(twins.seal(b"x", PLACE))
    sealed[1:5] = b"\0\0\0\2"
    with pytest.raises(StoreError, match="changed"):
        twins.unseal(bytes(sealed), PLACE)


def test_a_value_of_an_unknown_key_names_the_key_file_as_the_cause() -> None:
    stranger = Cipher({b"\0\0\0\3": b"3" * 32}, b"\0\0\0\3", b"l" * 32)
    with pytest.raises(StoreError, match="key file does not hold the key"):
        CIPHER.unseal(stranger.seal(b"x", PLACE), PLACE)


def test_hashes_differ_by_purpose_and_by_installation_and_take_any_text() -> None:
    other = Cipher(KEYS, b"\0\0\0\2", b"m" * 32)
    hashes = {
        CIPHER.keyed_hash("patient", "Patient/1"),
        CIPHER.keyed_hash("source", "Patient/1"),
        CIPHER.keyed_hash("patient", "Patient/2"),
        CIPHER.keyed_hash("patient", "\ud800"),
        other.keyed_hash("patient", "Patient/1"),
    }
    assert len(hashes) == 5
    assert CIPHER.keyed_hash("patient", "Patient/1") == Cipher(KEYS, b"\0\0\0\1", b"l" * 32).keyed_hash(
        "patient", "Patient/1"
    )


def test_the_key_file_is_made_once_private_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "key"
    first = Cipher.from_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["key"]
    assert Cipher.from_file(path).unseal(first.seal(b"x", PLACE), PLACE) == b"x"


def test_two_installations_have_different_keys(tmp_path: Path) -> None:
    one, two = Cipher.from_file(tmp_path / "a"), Cipher.from_file(tmp_path / "b")
    assert one.keyed_hash("p", "x") != two.keyed_hash("p", "x")
    with pytest.raises(StoreError):
        two.unseal(one.seal(b"x", PLACE), PLACE)


@pytest.mark.parametrize("round_", range(20))
def test_whoever_starts_together_agrees_on_one_key(tmp_path: Path, round_: int) -> None:
    path, together = tmp_path / "key", threading.Barrier(8)

    def start(_: int) -> str:
        together.wait(10)
        return Cipher.from_file(path).keyed_hash("p", "x")

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(start, range(8)))) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_a_missing_key_file_is_not_made_where_it_must_exist(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="key file is missing") as caught:
        Cipher.from_file(tmp_path / "key", create=False)
    assert "backup" in caught.value.advice
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o644])
def test_a_key_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    Cipher.from_file(path)
    path.chmod(mode)
    with pytest.raises(StoreError, match="other users") as caught:
        Cipher.from_file(path)
    assert "chmod 600" in caught.value.advice


GOOD_KEY = base64.b64encode(b"k" * 32).decode()
GOOD = {
    "format": "epicrisis-keys/1",
    "current": "00000001",
    "keys": {"00000001": GOOD_KEY},
    "lookup": GOOD_KEY,
}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"[]",
        json.dumps(GOOD | {"format": "epicrisis-keys/2"}).encode(),
        json.dumps(GOOD | {"current": "00000002"}).encode(),
        json.dumps(GOOD | {"current": "zz"}).encode(),
        json.dumps(GOOD | {"lookup": "AAAA"}).encode(),
        json.dumps(GOOD | {"lookup": "!" * 44}).encode(),
        json.dumps(GOOD | {"current": "01", "keys": {"01": GOOD_KEY}}).encode(),
        json.dumps(GOOD | {"more": CANARY}).encode(),
    ],
)
def test_a_damaged_key_file_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="The key file is damaged") as caught:
        Cipher.from_file(path)
    assert CANARY not in f"{caught.value.message}{caught.value.advice}"
    assert path.read_bytes() == content


def test_a_sound_hand_written_key_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(json.dumps(GOOD))
    assert repr(Cipher.from_file(path)) == "Cipher(current=00000001)"


def test_a_key_file_that_cannot_be_read_says_why_without_its_path(tmp_path: Path) -> None:
    folder = tmp_path / CANARY
    folder.mkdir()
    with pytest.raises(StoreError, match="Is a directory") as caught:
        Cipher.from_file(folder)
    assert CANARY not in str(caught.value)
