"""One new database a test, on each kind that the store works on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.postgres import PostgresServer
from service.store.cipher import Cipher
from service.store.database import open_cipher
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog

WITHOUT_TABLES = pytest.mark.parametrize("url", ["sqlite", "postgresql without tables"], indirect=True)
"""For a test of the migrations: PostgreSQL's database has no tables yet, as SQLite's has not in any test."""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The setting that names a new database; PostgreSQL's has this version's tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/epicrisis.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.ready_database() if request.param == "postgresql" else server.new_schema()


@pytest.fixture
def cipher(url: str, tmp_path: Path) -> Cipher:
    """Its key, from the file `key`."""
    return open_cipher(tmp_path / "key", url)


@pytest.fixture
def store(url: str, cipher: Cipher) -> Iterator[SqlStore]:
    """The store in it."""
    opened = SqlStore(url, cipher)
    yield opened
    opened.close()


@pytest.fixture
def audit(url: str, cipher: Cipher) -> Iterator[SqlAuditLog]:
    """The audit log in it."""
    opened = SqlAuditLog(url, cipher)
    yield opened
    opened.close()
