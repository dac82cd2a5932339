"""A key belongs to its database: made with it, wanted by it, and never replaced beside what it sealed."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import StoreError
from service.store.cipher import Cipher
from service.store.database import open_cipher, upgrade
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog
from tests.contract.store.conftest import WITHOUT_TABLES
from tests.unit.writeback.charts import make_run


@WITHOUT_TABLES
def test_a_new_database_gets_a_key_of_its_own(url: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    open_cipher(key, url)
    assert key.stat().st_mode & 0o777 == 0o600


@WITHOUT_TABLES
def test_the_key_of_a_database_opens_it_again(url: str, tmp_path: Path) -> None:
    for _ in range(2):
        store = SqlStore(url, open_cipher(tmp_path / "key", url))
        if store.get(make_run().run_id) is None:
            store.save(make_run())
        assert store.get(make_run().run_id) == make_run()
        store.close()


def test_a_lost_key_file_is_not_replaced_by_a_new_one(url: str, cipher: Cipher, tmp_path: Path) -> None:
    SqlStore(url, cipher).close()
    key = tmp_path / "key"
    key.unlink()
    with pytest.raises(StoreError, match="key file is missing") as caught:
        open_cipher(key, url)
    assert "backup" in caught.value.advice
    assert not key.exists()


def test_another_key_file_is_refused(url: str, cipher: Cipher, tmp_path: Path) -> None:
    SqlStore(url, cipher).close()
    other = Cipher.from_file(tmp_path / "other")
    for kind in (SqlStore, SqlAuditLog):
        with pytest.raises(StoreError, match="key file does not hold the key"):
            kind(url, other)


def test_a_key_file_with_another_lookup_key_is_refused(url: str) -> None:
    keys = {b"\0\0\0\1": b"1" * 32}
    SqlStore(url, Cipher(keys, b"\0\0\0\1", b"a" * 32)).close()
    with pytest.raises(StoreError, match="does not belong to this database"):
        SqlStore(url, Cipher(keys, b"\0\0\0\1", b"b" * 32))


@pytest.mark.parametrize("url", ["postgresql without tables"], indirect=True)
def test_a_postgresql_database_that_was_migrated_but_never_used_gets_a_key(url: str, tmp_path: Path) -> None:
    upgrade(url).dispose()
    SqlStore(url, open_cipher(tmp_path / "key", url)).close()
