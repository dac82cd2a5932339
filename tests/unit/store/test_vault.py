"""The vault on the disk: sealed for its own row, forgetful about what is damaged, plain about a full disk."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event

from service.errors import StoreError
from service.store.cipher import Cipher
from service.store.vault import SqlVault
from tests.conftest import CANARY
from tests.unit.store.test_crashes import check_safe, path_of
from tests.unit.writeback.charts import CREATED

KEY = f"Patient/{CANARY}"
CONTENT = f"chart of {CANARY}, ".encode() * 5_000
HOUR = timedelta(hours=1)
KEY_A, KEY_B = b"\0\0\0\1", b"\0\0\0\2"


def raw(url: str, statement: str, *values: object) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path_of(url), isolation_level=None)
    rows = connection.execute(statement, values).fetchall()
    connection.close()
    return rows


def sealed(url: str) -> bytes:
    ((content,),) = raw(url, "SELECT content FROM epicrisis_kept")
    assert isinstance(content, bytes)
    return content


def count(url: str) -> object:
    return raw(url, "SELECT count(*) FROM epicrisis_kept")[0][0]


def check_forgotten(vault: SqlVault, url: str) -> None:
    assert vault.get("snapshot", KEY) is None
    assert count(url) == 0
    vault.put("snapshot", KEY, CONTENT)
    assert vault.get("snapshot", KEY) == CONTENT


@pytest.mark.parametrize("position", [0, 1, 4, 5, 16, 17, 50_000, -17, -16, -1])
def test_one_flipped_bit_anywhere_makes_an_entry_absent(vault: SqlVault, url: str, position: int) -> None:
    vault.put("snapshot", KEY, CONTENT)
    damaged = bytearray(sealed(url))
    damaged[position] ^= 1
    raw(url, "UPDATE epicrisis_kept SET content = ?", bytes(damaged))
    check_forgotten(vault, url)


@pytest.mark.parametrize("end", [0, 1, 5, 16, 17, 33, 50_000, -1])
def test_a_truncated_entry_is_absent(vault: SqlVault, url: str, end: int) -> None:
    vault.put("snapshot", KEY, CONTENT)
    raw(url, "UPDATE epicrisis_kept SET content = ?", sealed(url)[:end])
    check_forgotten(vault, url)


@pytest.mark.parametrize("value", ["content || x'00'", "'text'", "7", "x''"])
def test_an_entry_with_another_value_in_its_place_is_absent(vault: SqlVault, url: str, value: str) -> None:
    vault.put("snapshot", KEY, CONTENT)
    raw(url, f"UPDATE epicrisis_kept SET content = {value}")
    check_forgotten(vault, url)


def test_an_entry_whose_type_alone_was_changed_still_opens(vault: SqlVault, url: str) -> None:
    vault.put("snapshot", KEY, CONTENT)
    raw(url, "UPDATE epicrisis_kept SET content = CAST(content AS TEXT)")
    assert vault.get("snapshot", KEY) == CONTENT


def test_an_instant_that_cannot_be_read_spoils_nothing(vault: SqlVault, url: str) -> None:
    vault.put("snapshot", KEY, CONTENT)
    raw(url, "UPDATE epicrisis_kept SET used_at = 'never', saved_at = 'never'")
    assert vault.get("snapshot", KEY) == CONTENT


def test_entries_that_changed_places_do_not_open(vault: SqlVault, url: str) -> None:
    for key in ("Patient/1", "Patient/2"):
        vault.put("snapshot", key, key.encode())
    (one, first), (two, second) = raw(url, "SELECT key_hash, content FROM epicrisis_kept")
    for key_hash, content in ((one, second), (two, first)):
        raw(url, "UPDATE epicrisis_kept SET content = ? WHERE key_hash = ?", content, key_hash)
    assert vault.get("snapshot", "Patient/1") is None
    assert vault.get("snapshot", "Patient/2") is None
    assert count(url) == 0


def test_an_entry_moved_to_the_same_key_of_another_area_does_not_open(vault: SqlVault, url: str) -> None:
    vault.put("digest", KEY, b"window")
    vault.put("snapshot", KEY, b"chart")
    raw(
        url,
        "UPDATE epicrisis_kept SET content ="
        " (SELECT content FROM epicrisis_kept WHERE area = 'digest') WHERE area = 'snapshot'",
    )
    assert vault.get("snapshot", KEY) is None
    assert vault.get("digest", KEY) == b"window"


def test_a_row_that_was_renamed_is_not_found_under_its_new_name(vault: SqlVault, url: str) -> None:
    vault.put("digest", KEY, b"window")
    raw(url, "UPDATE epicrisis_kept SET area = 'snapshot'")
    assert vault.get("snapshot", KEY) is None


def test_what_was_sealed_with_a_key_that_is_lost_is_absent(vault: SqlVault, url: str, cipher: Cipher) -> None:
    vault.put("snapshot", KEY, CONTENT)
    raw(url, "DELETE FROM epicrisis_patient_key WHERE patient_hash = ?", vault.database.hash_of(KEY))
    restored = SqlVault(url, cipher, lambda: CREATED)
    check_forgotten(restored, url)
    restored.close()


def test_what_was_sealed_with_an_older_key_of_the_file_still_opens(url: str) -> None:
    keys = {KEY_A: b"a" * 32, KEY_B: b"b" * 32}
    for current in (KEY_A, KEY_B):
        vault = SqlVault(url, Cipher(keys, current, b"l" * 32), lambda: CREATED)
        if current == KEY_A:
            vault.put("snapshot", KEY, CONTENT)
        assert vault.get("snapshot", KEY) == CONTENT
        vault.close()


def test_a_damaged_entry_that_was_replaced_while_it_was_read_is_not_dropped(
    vault: SqlVault, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseal = vault.database.envelope.unseal
    meanwhile = [lambda: vault.put("snapshot", KEY, b"new")]

    def interrupted(sealed: bytes, place: str) -> bytes:
        while meanwhile:
            meanwhile.pop()()
        return unseal(sealed, place)

    vault.put("snapshot", KEY, b"old")
    raw(url, "UPDATE epicrisis_kept SET content = x'0000'")
    monkeypatch.setattr(vault.database.envelope, "unseal", interrupted)
    assert vault.get("snapshot", KEY) is None
    assert not meanwhile
    assert vault.get("snapshot", KEY) == b"new"


def test_a_read_is_noted_at_most_once_an_hour(url: str, cipher: Cipher) -> None:
    now = CREATED
    vault = SqlVault(url, cipher, lambda: now)
    vault.put("snapshot", KEY, CONTENT)
    noted = []
    for minutes in (0, 59, 60, 61, 119, 120, 30):
        now = CREATED + timedelta(minutes=minutes)
        assert vault.get("snapshot", KEY) == CONTENT
        noted += raw(url, "SELECT saved_at, used_at FROM epicrisis_kept")
    vault.close()
    saved = "2026-11-20 09:30:15.250000"
    used = ["09:30", "09:30", "10:30", "10:30", "10:30", "11:30", "11:30"]
    assert noted == [(saved, f"2026-11-20 {time}:15.250000") for time in used]


def test_a_replacement_has_the_instant_of_its_own(url: str, cipher: Cipher) -> None:
    now = CREATED
    vault = SqlVault(url, cipher, lambda: now)
    for _ in range(2):
        now += HOUR
        vault.put("snapshot", KEY, CONTENT)
    vault.close()
    at = "2026-11-20 11:30:15.250000"
    assert raw(url, "SELECT saved_at, used_at FROM epicrisis_kept") == [(at, at)]


@contextmanager
def held(vault: SqlVault, url: str) -> Iterator[None]:
    """Another process writes, and the vault is not patient."""

    @event.listens_for(vault.database.engine, "connect")
    def impatient(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout=50").close()

    vault.close()
    other = sqlite3.connect(path_of(url), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


def test_a_read_whose_use_cannot_be_noted_is_still_a_read(url: str, cipher: Cipher) -> None:
    now = CREATED
    vault = SqlVault(url, cipher, lambda: now)
    vault.put("snapshot", KEY, CONTENT)
    now += 5 * HOUR
    with held(vault, url):
        assert vault.get("snapshot", KEY) == CONTENT
    vault.close()


def test_a_damaged_entry_that_cannot_be_dropped_is_still_absent(vault: SqlVault, url: str) -> None:
    vault.put("snapshot", KEY, CONTENT)
    raw(url, "UPDATE epicrisis_kept SET content = x'00'")
    with held(vault, url):
        assert vault.get("snapshot", KEY) is None
    check_forgotten(vault, url)


def test_a_writer_that_waits_too_long_is_told_who_holds_the_database(vault: SqlVault, url: str) -> None:
    vault.put("snapshot", KEY, CONTENT)
    with held(vault, url):
        for act in (
            lambda: vault.put("snapshot", KEY, b"new"),
            lambda: vault.drop("snapshot", KEY),
            lambda: vault.prune("snapshot", CREATED + HOUR),
        ):
            with pytest.raises(StoreError, match="Another process holds the database") as caught:
                act()
            check_safe(caught.value)
    assert vault.get("snapshot", KEY) == CONTENT


def test_a_full_disk_keeps_nothing_new_and_says_so(vault: SqlVault) -> None:
    vault.put("snapshot", KEY, CONTENT)
    full = True

    @event.listens_for(vault.database.engine, "connect")
    def fill(connection: sqlite3.Connection, _record: object) -> None:
        if full:
            used = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={used + 2}").close()

    vault.close()
    for key in (KEY, "Patient/8"):
        with pytest.raises(StoreError, match="The disk is full: nothing was stored") as caught:
            vault.put("snapshot", key, 3 * CONTENT)
        check_safe(caught.value)
    assert vault.get("snapshot", KEY) == CONTENT
    assert vault.get("snapshot", "Patient/8") is None
    vault.drop("snapshot", KEY)  # what needs no room still works
    full = False
    vault.close()
    vault.put("snapshot", KEY, 3 * CONTENT)
    assert vault.get("snapshot", KEY) == 3 * CONTENT


def test_a_missing_table_is_a_clear_error(vault: SqlVault, url: str) -> None:
    raw(url, "DROP TABLE epicrisis_kept")
    with pytest.raises(StoreError, match="The database refused") as caught:
        vault.get("snapshot", KEY)
    check_safe(caught.value)


def test_another_key_file_is_refused(vault: SqlVault, url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="key file does not hold the key"):
        SqlVault(url, Cipher.from_file(tmp_path / "other"), lambda: CREATED)


def test_a_clock_without_a_zone_is_refused(url: str, cipher: Cipher) -> None:
    vault = SqlVault(url, cipher, lambda: CREATED.replace(tzinfo=None))
    with pytest.raises(StoreError, match="without a zone"):
        vault.put("snapshot", KEY, CONTENT)
    vault.close()


def test_no_file_ever_holds_a_key_or_a_content(
    vault: SqlVault, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler = logging.FileHandler(tmp_path / "all.log")
    logging.getLogger().addHandler(handler)
    caplog.set_level(logging.DEBUG)
    logging.getLogger("sqlalchemy").setLevel(logging.DEBUG)
    try:
        for area in ("snapshot", "digest"):
            vault.put(area, KEY, CONTENT)
            assert vault.get(area, KEY) == CONTENT
        files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        vault.close()
    finally:
        logging.getLogger("sqlalchemy").setLevel(logging.NOTSET)
        logging.getLogger().removeHandler(handler)
        handler.close()
    files += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 5 + 3
    for secret in (CANARY, "chart of", "Patient/", hashlib.sha256(KEY.encode()).hexdigest()):
        assert not any(secret.encode() in content for content in files), secret
        assert secret not in caplog.text


def test_one_key_looks_different_in_each_area(vault: SqlVault, url: str) -> None:
    for area in ("snapshot", "digest"):
        vault.put(area, KEY, b"x")
    assert len(set(raw(url, "SELECT key_hash FROM epicrisis_kept"))) == 2


def test_the_write_ahead_log_does_not_keep_the_size_of_the_largest_chart(vault: SqlVault, url: str) -> None:
    log = path_of(url).with_name("epicrisis.db-wal")
    vault.put("snapshot", KEY, bytes(30_000_000))
    assert log.stat().st_size > 30_000_000
    vault.put("snapshot", "Patient/8", b"x")
    assert log.stat().st_size <= 16 * 1024 * 1024


def test_pruning_goes_along_an_index(vault: SqlVault, url: str) -> None:
    plan = raw(url, "EXPLAIN QUERY PLAN DELETE FROM epicrisis_kept WHERE area = 'x' AND used_at < 'y'")
    assert "ix_epicrisis_kept_used" in str(plan)
