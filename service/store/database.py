"""One database: its engine, its migrations, its key check, and the transactions that everything runs in.

SQLite only, in one file: write-ahead log, foreign keys, a busy timeout, and commits that reach the disk,
since a run must be stored before it is filed.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlmodel import Session

from service.errors import StoreError
from service.store.cipher import Cipher
from service.store.columns import attach_cipher
from service.store.failure import told_plainly
from service.store.tables import KeyCheckTable

BUSY_TIMEOUT_MS = 10_000
_BUSY_POLL_S = 0.02
LOG_LIMIT_BYTES = 16 * 1024 * 1024
"""The write-ahead log grows by every chart that is kept, 100 MB and more: it is cut back after each turn."""
_MIGRATIONS = Path(__file__).parent / "migrations"
_CHECK = "epicrisis"
_LOG_NAME = "epicrisis"
"""At DEBUG SQLAlchemy logs every row that it reads, decrypted: the logger of our engine stays at WARNING."""


class Database:
    """An open database with its key. Sessions are short; instances may be shared between threads."""

    def __init__(self, url: str, cipher: Cipher) -> None:
        """Open, migrating and locking down the file first. Raises StoreError."""
        self.cipher = cipher
        self.engine = upgrade(url)
        attach_cipher(self.engine, cipher)
        self._writer = self.engine.execution_options(epicrisis_writes=True)
        try:
            self._check_key()
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection; the write-ahead log is folded into the file."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One consistent view. Raises StoreError."""
        with told_plainly(), Session(self.engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction: all of it is stored, or nothing. Raises StoreError."""
        with told_plainly(), Session(self._writer) as session, session.begin():
            yield session

    def _check_key(self) -> None:
        expected = self.cipher.keyed_hash("key check", _CHECK)
        with self.writing() as session:
            check = session.get(KeyCheckTable, 1)  # an unknown key raises here
            if check is None:
                session.add(KeyCheckTable(lookup_hash=expected, sealed=_CHECK))
            elif check.lookup_hash != expected:
                raise StoreError(
                    "The key file does not belong to this database.", "Restore the key file from its backup."
                )


def open_cipher(key_file: Path, url: str) -> Cipher:
    """Return the cipher of a database: its key file is made with the database, never beside an existing one.

    Raises StoreError where the database exists and the key file does not.
    """
    return Cipher.from_file(key_file, create=not database_path(_parsed(url)).exists())


def upgrade(url: str) -> Engine:
    """Bring a database to this version's schema, creating it (0600, folder 0700) where there is none.

    Raises StoreError: a newer schema, a damaged file, no room, no permission, or not SQLite in a file.
    """
    logging.getLogger(f"sqlalchemy.engine.Engine.{_LOG_NAME}").setLevel(logging.WARNING)
    place = _parsed(url)
    path = database_path(place)
    engine = create_engine(
        place,
        hide_parameters=True,
        logging_name=_LOG_NAME,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000},
    )
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "begin", _begin)
    try:
        with told_plainly():
            _make_private(path)
            _migrate(engine)
    except StoreError:
        engine.dispose()
        raise
    return engine


def database_path(url: URL) -> Path:
    """Return the file of a database. Raises StoreError for anything but SQLite in a file."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:" or url.query:
        raise StoreError(
            "The database must be a SQLite file.", "For example sqlite:////var/lib/epicrisis/epicrisis.db"
        )
    return Path(url.database)


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError("The database URL cannot be read.", "For example sqlite:///epicrisis.db") from None


def _make_private(path: Path) -> None:
    """Make the file before SQLite does: the write-ahead log and the shared memory take its mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)


def _migrate(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql("ROLLBACK")  # the mode of the log cannot change inside a transaction
        _use_write_ahead_log(connection)
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def _use_write_ahead_log(connection: Connection) -> None:
    """Wait for other processes here: the busy timeout does not hold for a change of the log's mode."""
    until = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL").close()
        except OperationalError as error:
            code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > until:
                raise
            time.sleep(_BUSY_POLL_S)
        else:
            return


def _prepare_connection(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None  # pysqlite's own BEGIN comes late and leaves out DDL
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "foreign_keys=ON",
        "synchronous=FULL",
        "temp_store=MEMORY",
        f"journal_size_limit={LOG_LIMIT_BYTES}",
        "trusted_schema=OFF",
        "recursive_triggers=ON",
    ):
        dbapi_connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    """Writers take the lock at once: a reader that turns writer late would fail instead of waiting."""
    writes = connection.get_execution_options().get("epicrisis_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
