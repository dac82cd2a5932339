"""What went wrong with the database, in words that are safe to show and say what to do."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from alembic.util.exc import CommandError
from sqlalchemy.exc import IntegrityError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.errors import StoreError

_DAMAGED = (
    "The database is damaged, or is not a database.",
    "Restore it from its backup; `sqlite3 FILE 'PRAGMA integrity_check'` shows how far the damage goes.",
)
_CHECK_MODE = "Check the path, and the owner and mode of the file and its folder."
_HELD = ("Another process holds the database.", "Wait for it to finish, then run again.")
_FULL = ("The disk is full: nothing was stored.", "Make room, then run again.")
_DISK_FAILED = ("The disk failed: nothing was stored.", "Check the disk and its free space.")
_BY_CODE = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR: _DISK_FAILED,
    sqlite3.SQLITE_BUSY: _HELD,
    sqlite3.SQLITE_LOCKED: _HELD,
    sqlite3.SQLITE_READONLY: (
        "The database cannot be written.",
        _CHECK_MODE,
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "The database cannot be opened.",
        _CHECK_MODE,
    ),
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
_CHECK_URL = (
    "Check that PostgreSQL runs, and EPICRISIS_DATABASE_URL: host, port, database, user, password, TLS."
)
_NO_ANSWER = ("PostgreSQL does not answer.", _CHECK_URL)
_NO_SUCH_OPTION = ("EPICRISIS_DATABASE_URL has an option that PostgreSQL does not know.", _CHECK_URL)
_NO_ENTRY = ("PostgreSQL does not let us in.", _CHECK_URL)
_NO_TRUST = (
    "PostgreSQL cannot be reached by TLS as the settings want it.",
    "Check sslmode, sslrootcert, sslcert and sslkey in EPICRISIS_DATABASE_URL, and the server's certificate.",
)
_LOST = (
    "The connection to PostgreSQL was lost: what was being stored is there whole or not at all.",
    "Run again when the server is back.",
)
_STARTING = ("PostgreSQL is starting or stopping.", "Run again in a moment.")
_NO_RIGHT = (
    "The database's user lacks a right.",
    "Make it the owner of the database, or upgrade once as the owner and grant it the rows of all tables.",
)
_READ_ONLY = ("The database cannot be written.", "This server is a standby, or read only: name the primary.")
_TOO_BUSY = ("PostgreSQL has no connection left.", "Raise its max_connections, or run fewer workers.")
_TAKEN_BACK = ("Another process changed the same rows: nothing was stored.", "Run again.")
_TOO_LARGE = ("PostgreSQL cannot store something so large.", "Nothing was stored.")
_BROKEN = (
    "The database is damaged.",
    "Restore it from its backup; `pg_amcheck` shows how far the damage goes.",
)
_BY_STATE = {
    "08": _LOST,
    "25006": _READ_ONLY,
    "28": _NO_ENTRY,
    "3D": _NO_ENTRY,
    "40": _TAKEN_BACK,
    "42501": _NO_RIGHT,
    "53100": _FULL,
    "53300": _TOO_BUSY,
    "54": _TOO_LARGE,
    "55P03": _HELD,
    "57P01": _LOST,
    "57P02": _LOST,
    "57P03": _STARTING,
    "57P05": _LOST,
    "25P03": _LOST,
    "58030": _DISK_FAILED,
    "XX001": _BROKEN,
    "XX002": _BROKEN,
}
"""SQLSTATEs of PostgreSQL, whole or by their class (PostgreSQL 18, appendix A)."""
_BY_WORDS = {
    "connection option": _NO_SUCH_OPTION,
    "unrecognized configuration parameter": _NO_SUCH_OPTION,
    "starting up": _STARTING,
    "shutting down": _STARTING,
    "in recovery mode": _STARTING,
    "too many clients": _TOO_BUSY,
    "too many connections": _TOO_BUSY,
    "connection slots": _TOO_BUSY,
    "authentication failed": _NO_ENTRY,
    "does not exist": _NO_ENTRY,
    "permission denied": _NO_ENTRY,
    "pg_hba.conf": _NO_ENTRY,
    "certificate": _NO_TRUST,
    "SSL": _NO_TRUST,
}
"""Who is refused at the door gets no SQLSTATE from libpq: its text is read for these, and never shown."""

_CONNECTING = ("OperationalError", "ConnectionTimeout")


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn whatever the database raises into a StoreError. The cause is dropped: it may hold values."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise store_error(error) from None
    except OSError as error:
        raise StoreError(f"The database cannot be used ({errno_text(error)}).", _CHECK_MODE) from None
    except CommandError:
        raise StoreError(
            "The database was written by another version of Epicrisis.",
            "Install that one or a newer.",
        ) from None


def store_error(error: Exception) -> StoreError:
    """Return the StoreError for a database error, without any of its text."""
    cause = error.orig if isinstance(error, StatementError) else error
    if isinstance(cause, StoreError):
        return cause
    if isinstance(error, IntegrityError):
        return StoreError("This is already stored, or does not fit what is stored.")
    if isinstance(error, PoolTimeout):
        return StoreError("Too much is asked of the database at once.", "Run again.")
    message, advice = (
        _of_sqlite(cause)
        or _of_postgres(cause, getattr(error, "connection_invalidated", False))
        or (
            f"The database refused ({type(cause).__name__}).",
            "Run `epicrisis doctor`.",
        )
    )
    return StoreError(message, advice)


def errno_text(error: OSError) -> str:
    """Say what the operating system refused, without any path."""
    return os.strerror(error.errno) if error.errno else "unknown reason"


def _of_sqlite(cause: BaseException | None) -> tuple[str, str] | None:
    code = getattr(cause, "sqlite_errorcode", None)
    return _BY_CODE.get(code & 0xFF) if isinstance(code, int) else None


def _of_postgres(cause: BaseException | None, broke_off: bool) -> tuple[str, str] | None:
    """Read the SQLSTATE; without one there is no session: it broke off, or never began."""
    if not type(cause).__module__.startswith("psycopg"):
        return None
    state = getattr(cause, "sqlstate", None)
    if isinstance(state, str):
        return _BY_STATE.get(state) or _BY_STATE.get(state[:2])
    if broke_off:
        return _LOST
    known = next((told for words, told in _BY_WORDS.items() if words in str(cause)), None)
    return known or (_NO_ANSWER if type(cause).__name__ in _CONNECTING else None)
