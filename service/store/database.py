"""One database: its engine, its migrations, its key check, and the transactions that everything runs in.

SQLite in a file or PostgreSQL, by the URL alone; what the two do differently lies in `sqlite` and `postgres`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlmodel import Session

from service.errors import StoreError
from service.ports import Right
from service.store.cipher import Cipher
from service.store.columns import attach_cipher
from service.store.failure import told_plainly
from service.store.place import LOG_NAME, Place
from service.store.sqlite import SqliteFile
from service.store.tables import KeyCheckTable

_CHECK = "epicrisis"
_EXAMPLES = "For example sqlite:////var/lib/epicrisis/epicrisis.db or postgresql+psycopg://user:password@host/epicrisis"
_POSTGRES = ("postgresql+psycopg", "postgresql", "postgres")
"""PostgreSQL's own tools write the two short forms; all of them mean the one driver that is installed."""


class Database:
    """An open database with its key. Sessions are short; instances may be shared between threads."""

    def __init__(self, url: str, cipher: Cipher) -> None:
        """Open, migrating and locking down the file first. Raises StoreError."""
        self.cipher = cipher
        self._place = place_of(url)
        self.engine = _open(self._place)
        attach_cipher(self.engine, cipher)
        self._reader = self._place.reader(self.engine)
        self._writer = self._place.writer(self.engine)
        try:
            self._check_key()
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection; SQLite's write-ahead log is folded into the file."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One consistent view. Raises StoreError."""
        with told_plainly(), Session(self._reader) as session:
            yield session

    @contextmanager
    def writing(self, *, alone: bool = True) -> Iterator[Session]:
        """One transaction: all of it is stored, or nothing. Raises StoreError.

        What is read in it stays true until it ends, for all others that are `alone` wait. False is for
        transactions that only insert, or whose one statement cannot lose a race: PostgreSQL then runs them
        beside each other.
        """
        with told_plainly(), Session(self._writer) as session, session.begin():
            if alone:
                self._place.exclude_writers(session)
            yield session

    def hold(self, key: str) -> Right | None:
        """Return a lock on a key, or None where another task or process has it. Raises StoreError.

        A process that is killed leaves none behind.
        """
        with told_plainly():
            return self._place.hold(key)

    def describe(self) -> str:
        """Say which database answers, without user, password or folder. Raises StoreError."""
        with told_plainly():
            return self._place.describe(self.engine)

    def _check_key(self) -> None:
        expected = self.cipher.keyed_hash("key check", _CHECK)
        with self.reading() as session:
            check = session.get(KeyCheckTable, 1)  # an unknown key raises here
        if check is None:
            check = self._introduce_key(expected)
        if check.lookup_hash != expected:
            raise StoreError(
                "The key file does not belong to this database.", "Restore the key file from its backup."
            )

    def _introduce_key(self, expected: str) -> KeyCheckTable:
        """Let a new database know its key, unless another process was first."""
        with self.writing() as session:
            check = session.get(KeyCheckTable, 1)
            if check is None:
                check = KeyCheckTable(lookup_hash=expected, sealed=_CHECK)
                session.add(check)
                session.flush()
            session.expunge(check)
            return check


def open_cipher(key_file: Path, url: str) -> Cipher:
    """Return the cipher of a database: its key file is made with the database, never beside an existing one.

    Raises StoreError where the database was used before and the key file is not here.
    """
    place = place_of(url)
    if key_file.exists():
        return Cipher.from_file(key_file, create=False)
    with told_plainly():
        return Cipher.from_file(key_file, create=place.is_new())


def upgrade(url: str) -> Engine:
    """Bring a database to this version's schema; a SQLite file (0600, folder 0700) is made where none is.

    Raises StoreError: a newer schema, a damaged file, no room, no permission, no answer, or another kind.
    """
    return _open(place_of(url))


def place_of(url: str) -> Place:
    """Return where a database lies. Raises StoreError for anything but a SQLite file or PostgreSQL."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError("The database URL cannot be read.", _EXAMPLES) from None
    if parsed.drivername in _POSTGRES:
        from service.store.postgres import PostgresDatabase  # noqa: PLC0415 - 0.1 s for its driver

        return PostgresDatabase(parsed)
    if parsed.get_backend_name() == "sqlite":
        return SqliteFile(parsed)
    raise StoreError("The database must be a SQLite file or PostgreSQL by psycopg.", _EXAMPLES)


def _open(place: Place) -> Engine:
    logging.getLogger(f"sqlalchemy.engine.Engine.{LOG_NAME}").setLevel(logging.WARNING)
    with told_plainly():
        engine = place.engine()
    try:
        with told_plainly():
            place.prepare(engine)
    except StoreError:
        engine.dispose()
        raise
    return engine
