"""One database: its engine, its migrations, its keys, and the transactions that everything runs in.

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
from service.store.envelope import Envelope
from service.store.failure import told_plainly
from service.store.place import LOG_NAME, Place
from service.store.sqlite import SqliteFile
from service.store.tables import KeyCheckTable

PATIENT = "patient"
"""Purpose of the keyed hash by which a patient's rows and key are found."""
_CHECK = "epicrisis"
_EXAMPLES = "For example sqlite:////var/lib/epicrisis/epicrisis.db or postgresql+psycopg://user:password@host/epicrisis"
_POSTGRES = ("postgresql+psycopg", "postgresql", "postgres")
"""PostgreSQL's own tools write the two short forms; all of them mean the one driver that is installed."""


class Database:
    """An open database with its key. Sessions are short; instances may be shared between threads."""

    def __init__(self, url: str, cipher: Cipher) -> None:
        """Open, migrating and locking down the file first. Raises StoreError."""
        self.cipher = cipher
        self.envelope = Envelope(cipher)
        self._place = place_of(url)
        self.engine = _open(self._place)
        attach_cipher(self.engine, self.envelope)
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
        with told_plainly(), Session(self._reader) as session, self.envelope.within(session):
            yield session

    @contextmanager
    def writing(self, *, alone: bool = True, about: str = "") -> Iterator[Session]:
        """One transaction: all of it is stored, or nothing. Raises StoreError.

        What is read in it stays true until it ends, for all others that are `alone` wait. False is for
        transactions that only insert, or whose one statement cannot lose a race: PostgreSQL then runs them
        beside each other.

        With `about`, a patient (`Patient/1`), all that is stored is sealed under that patient's data key.
        Raises ShreddedError where it was destroyed.
        """
        with told_plainly(), Session(self._writer) as session, session.begin():
            if alone:
                self._place.exclude_writers(session)
            with self.envelope.within(session), self.sealing_for(about):
                yield session
                session.flush()

    @contextmanager
    def sealing_for(self, patient: str) -> Iterator[None]:
        """Seal under a patient's data key while the block runs, inside of `writing`; for "" the house's.

        Raises ShreddedError.
        """
        if not patient:
            yield
            return
        with self.envelope.about(self.hash_of(patient)):
            yield

    def hash_of(self, patient: str) -> str:
        """Return the keyed hash by which the rows of a patient (`Patient/1`) are found."""
        return self.cipher.keyed_hash(PATIENT, patient)

    def scrub(self) -> None:
        """Let nothing that was overwritten stay in the database's files. Raises StoreError.

        What the server of a PostgreSQL database keeps besides (its log, its archive) is its operator's.
        """
        with told_plainly():
            self._place.scrub(self.engine)

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

    def compact(self) -> None:
        """Write the database's files anew, so that nothing from before is left in them. Raises StoreError."""
        with told_plainly():
            self._place.compact(self.engine)

    @contextmanager
    def without_triggers(self, session: Session, table: str) -> Iterator[None]:
        """Let this transaction alone change what the triggers of a table refuse. Raises StoreError."""
        again = self._place.drop_triggers(session, table)
        yield
        session.flush()
        for statement in again:
            session.connection().exec_driver_sql(statement)

    def _check_key(self) -> None:
        """Open the house's keys, made with the first use. Raises StoreError where the key is another one."""
        with self.reading() as session:
            is_known = self.envelope.find_house()
            check = session.get(KeyCheckTable, 1)  # an unknown key raises here
        if not is_known or check is None:
            self._introduce_keys()
            with self.reading() as session:
                self.envelope.find_house()
                check = session.get(KeyCheckTable, 1)
        if check is None or check.lookup_hash != self.cipher.keyed_hash("key check", _CHECK):
            raise StoreError(
                "The key file does not belong to this database.", "Restore the key file from its backup."
            )

    def _introduce_keys(self) -> None:
        """Make the keys of a database that has none, unless another process was first.

        One of an earlier version has a check that its master key sealed, and its lookup key in the key file.
        """
        with self.writing() as session:
            check = session.get(KeyCheckTable, 1)
            if check is not None and self.cipher.lookup is None:
                raise StoreError("The key file is missing.", "It is needed once more: see `epicrisis keys`.")
            if check is None:
                self.envelope.introduce()
                self.envelope.find_house()
                hashed = self.cipher.keyed_hash("key check", _CHECK)
                master = self.cipher.current.hex()
                session.add(KeyCheckTable(lookup_hash=hashed, sealed=_CHECK, master=master))
            else:
                self.envelope.introduce()
                check.master = check.master or self.cipher.current.hex()


def open_cipher(key_file: Path, url: str, master: str = "", previous: str = "") -> Cipher:
    """Return the cipher of a database: its key file is made with the database, never beside an existing one.

    With a `master` key (base64) no key file is needed; `previous` is the one before it. Raises StoreError
    where the database was used before and the key file is not here, and SettingsError.
    """
    place = place_of(url)
    if master:
        return Cipher.from_master(master, previous, key_file)
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
