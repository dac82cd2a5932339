"""SQLite in one file: write-ahead log, foreign keys, a busy timeout, and commits that reach the disk.

Its locks hold between the processes of one host: never put the file on a network file system.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from service.errors import StoreError
from service.ports import LASTING
from service.store.place import BUSY_TIMEOUT_MS, LOG_NAME
from service.store.schema import migrate

_BUSY_POLL_S = 0.02
CACHE_KIB = 512
"""Of each connection; SQLite's own 2 MiB for each of some thirty is what a worker grew by."""
LOG_LIMIT_BYTES = 16 * 1024 * 1024
"""The write-ahead log grows by every chart that is kept, 100 MB and more: it is cut back after each turn."""
_STRIPES = 256
"""Lock files: two run keys share one with a chance of 1 in 256, and then only wait for each other."""


class HeldFile:
    """A lock on a file, until it is closed or its process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def is_held(self) -> bool:
        """Tell that it is: a file outlives every process."""
        return True

    def close(self) -> None:
        """Let the next one have it."""
        os.close(self._descriptor)


class SqliteFile:
    """The Place that is one file on this host."""

    def __init__(self, url: URL) -> None:
        """Raises StoreError for SQLite in memory, or with options of its own."""
        if not url.database or url.database == ":memory:" or url.query:
            raise StoreError(
                "The database must be a SQLite file.", "For example sqlite:////var/lib/epicrisis/epicrisis.db"
            )
        self._url = url
        self._path = Path(url.database)

    def is_new(self) -> bool:
        """Tell whether there is no such file yet."""
        return not self._path.exists()

    def engine(self) -> Engine:
        """Return the connections to it; nothing is opened yet."""
        engine = create_engine(
            self._url,
            hide_parameters=True,
            logging_name=LOG_NAME,
            connect_args={"timeout": BUSY_TIMEOUT_MS / 1000},
        )
        event.listen(engine, "connect", _prepare_connection)
        event.listen(engine, "begin", _begin)
        return engine

    def prepare(self, engine: Engine) -> None:
        """Make the file (0600, its folder 0700) where there is none, and migrate."""
        self._make_private()
        with engine.connect() as connection:
            connection.exec_driver_sql("ROLLBACK")  # the mode of the log cannot change inside a transaction
            _use_write_ahead_log(connection)
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            migrate(connection)
            connection.commit()

    def reader(self, engine: Engine) -> Engine:
        """Return the engine of reading transactions: a deferred one sees one state."""
        return engine

    def writer(self, engine: Engine) -> Engine:
        """Return the engine of writing transactions, which take the file's one writing lock at once."""
        return engine.execution_options(epicrisis_writes=True)

    def exclude_writers(self, session: Session) -> None:
        """Do nothing: whoever writes, writes alone."""

    def hold(self, key: str) -> HeldFile | None:
        """Lock a file beside the database; the operating system ends the lock with the process."""
        folder = self._path.with_name(f"{self._path.name}.locks")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            held = os.open(folder / _file_of(key), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            raise StoreError("The folder of the locks beside the database cannot be used.") from None
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
            return None
        return HeldFile(held)

    def scrub(self, engine: Engine) -> None:
        """Fold the write-ahead log into the file and cut it off: it holds pages as they were before."""
        until = time.monotonic() + BUSY_TIMEOUT_MS / 1000
        while True:
            with engine.connect() as connection:
                connection.exec_driver_sql("ROLLBACK")
                busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
            if not busy:
                return
            if time.monotonic() > until:
                raise StoreError(
                    "The database's log cannot be cut off while others read it.",
                    "Run the same command again, with the workers and the pages stopped.",
                )
            time.sleep(_BUSY_POLL_S)

    def compact(self, engine: Engine) -> None:
        """Write the file anew; nobody else writes meanwhile, and it takes as much room again."""
        with engine.connect() as connection:
            connection.exec_driver_sql("ROLLBACK")
            connection.exec_driver_sql("VACUUM")
        self.scrub(engine)

    def drop_triggers(self, session: Session, table: str) -> Sequence[str]:
        """Drop them; a transaction that fails leaves them as they are."""
        connection = session.connection()
        wanted = text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :table")
        found = connection.execute(wanted, {"table": table}).all()
        for name, _ in found:
            connection.exec_driver_sql(f'DROP TRIGGER "{name}"')
        return [sql for _, sql in found]

    def describe(self, engine: Engine) -> str:
        """Name the library's version and the file."""
        return f"SQLite {sqlite3.sqlite_version}, {self._path.name}"

    def _make_private(self) -> None:
        """Make the file before SQLite does: the write-ahead log and the shared memory take its mode.

        Whoever opens the file beside SQLite, and closes it, ends every lock that this process has on it, and
        another process may then delete the log (sqlite.org/howtocorrupt.html, 2.2): so it is never opened.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._path.exists():
            draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
            os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            try:
                with suppress(FileExistsError):
                    os.link(draft, self._path)
            finally:
                draft.unlink()
        self._path.chmod(0o600)


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
        "secure_delete=ON",  # what is overwritten or deleted is overwritten with zeros
        f"cache_size=-{CACHE_KIB}",
    ):
        dbapi_connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    """Writers take the lock at once: a reader that turns writer late would fail instead of waiting."""
    writes = connection.get_execution_options().get("epicrisis_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _file_of(key: str) -> str:
    """Name the lock file of a key; one that is held for long has its own, or others would wait for ever."""
    if key.startswith(LASTING):
        return hashlib.sha256(key.encode()).hexdigest()[:32]
    return f"{crc32(key.encode()) % _STRIPES:02x}"
