"""What went wrong with the database, in words that are safe to show and say what to do."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from alembic.util.exc import CommandError
from sqlalchemy.exc import IntegrityError, SQLAlchemyError, StatementError

from service.errors import StoreError

_DAMAGED = (
    "The database is damaged, or is not a database.",
    "Restore it from its backup; `sqlite3 FILE 'PRAGMA integrity_check'` shows how far the damage goes.",
)
_CHECK_MODE = "Check the path, and the owner and mode of the file and its folder."
_BY_CODE = {
    sqlite3.SQLITE_FULL: ("The disk is full: nothing was stored.", "Make room, then run again."),
    sqlite3.SQLITE_IOERR: ("The disk failed: nothing was stored.", "Check the disk and its free space."),
    sqlite3.SQLITE_BUSY: ("Another process holds the database.", "Wait for it to finish, then run again."),
    sqlite3.SQLITE_LOCKED: ("Another process holds the database.", "Wait for it to finish, then run again."),
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
    code = getattr(cause, "sqlite_errorcode", None)
    known = _BY_CODE.get(code & 0xFF) if isinstance(code, int) else None
    message, advice = known or (
        f"The database refused ({type(cause).__name__}).",
        "Run `epicrisis doctor`.",
    )
    return StoreError(message, advice)


def errno_text(error: OSError) -> str:
    """Say what the operating system refused, without any path."""
    return os.strerror(error.errno) if error.errno else "unknown reason"
