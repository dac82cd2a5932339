"""A store in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.store.cipher import Cipher
from service.store.database import open_cipher
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog
from service.store.vault import SqlVault
from tests.unit.writeback.charts import CREATED


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/data/epicrisis.db"


@pytest.fixture
def cipher(tmp_path: Path, url: str) -> Cipher:
    return open_cipher(tmp_path / "data" / "key", url)


@pytest.fixture
def store(url: str, cipher: Cipher) -> Iterator[SqlStore]:
    store = SqlStore(url, cipher)
    yield store
    store.close()


@pytest.fixture
def audit(url: str, cipher: Cipher) -> Iterator[SqlAuditLog]:
    audit = SqlAuditLog(url, cipher)
    yield audit
    audit.close()


@pytest.fixture
def vault(url: str, cipher: Cipher) -> Iterator[SqlVault]:
    vault = SqlVault(url, cipher, lambda: CREATED)
    yield vault
    vault.close()
