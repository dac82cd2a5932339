"""What the kinds of database do each in their own way, and what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import Engine
from sqlmodel import Session

from service.ports import Right

BUSY_TIMEOUT_MS = 10_000
"""How long a writer waits for another before it gives up."""
LOG_NAME = "epicrisis"
"""At DEBUG SQLAlchemy logs every row that it reads, decrypted: the logger of our engines stays at WARNING."""


class Place(Protocol):
    """Where a database lies. Database errors of any method are for `told_plainly`."""

    def is_new(self) -> bool:
        """Tell whether nothing was ever stored there, so that a new key may be made for it."""

    def engine(self) -> Engine:
        """Return the connections to it; nothing is opened yet."""

    def prepare(self, engine: Engine) -> None:
        """Bring it to this version's schema, whoever else does so at the same time."""

    def reader(self, engine: Engine) -> Engine:
        """Return the engine of transactions that read: each sees one state."""

    def writer(self, engine: Engine) -> Engine:
        """Return the engine of transactions that write."""

    def exclude_writers(self, session: Session) -> None:
        """Keep out every other transaction that does the same, until this one ends."""

    def hold(self, key: str) -> Right | None:
        """Return a lock on a key, or None where another has it; it ends with its process."""

    def scrub(self, engine: Engine) -> None:
        """Let nothing that was overwritten stay in the database's files, as far as they are ours."""

    def compact(self, engine: Engine) -> None:
        """Write the files anew, so that what was left free long ago is gone, too."""

    def drop_triggers(self, session: Session, table: str) -> Sequence[str]:
        """Put the triggers of a table out of force in this transaction; return what brings them back."""

    def describe(self, engine: Engine) -> str:
        """Say which database answers, without user or password."""
