"""The Outbox in the database: which entries of the audit log a collector does not have yet.

The log itself is append only and is not touched. No cursor is kept: of several writers a lower number may
become visible after a higher one, and a cursor would pass it by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, case
from sqlmodel import col, func, or_, select

from service.ports import Closes, DueEntry
from service.store.database import Database
from service.store.documents import PATIENT
from service.store.tables import AuditSentTable, AuditTable
from service.store.trail import entry_of

SENDING, SENT, REFUSED = "sending", "sent", "refused"
_HANDLE = "audit event"


class SqlOutbox:
    """The Outbox on the audit log's database, which stays its owner's to close."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hold(self, collector: str) -> Closes | None:
        """Return the right to send to a collector, or None where another has it. Raises StoreError."""
        return self._database.hold(f"audit events to {collector}")

    def due(
        self, collector: str, server: str | None = None, limit: int | None = None, after: int = 0
    ) -> Sequence[int]:
        """Return the numbers `after` one of what is due, oldest first, what was refused last.

        From the beginning it takes the longer the longer the log is. Raises StoreError.
        """
        was_refused = case((col(AuditSentTable.state) == REFUSED, 1), else_=0)
        wanted = (
            select(AuditTable.id)
            .outerjoin(AuditSentTable, self._of(collector))
            .where(col(AuditTable.id) > after, *self._due(server))
            .order_by(was_refused, col(AuditTable.id))
            .limit(limit)
        )
        with self._database.reading() as session:
            return [number for number in session.exec(wanted) if number is not None]

    def count(self, collector: str, server: str | None = None) -> int:
        """Return how many entries are due. Raises StoreError."""
        wanted = (
            select(func.count())
            .select_from(AuditTable)
            .outerjoin(AuditSentTable, self._of(collector))
            .where(*self._due(server))
        )
        with self._database.reading() as session:
            return session.exec(wanted).one()

    def begin(self, collector: str, numbers: Sequence[int], at: datetime) -> Sequence[DueEntry]:
        """Note that these are about to be sent, and return them, oldest first. Raises StoreError."""
        earlier = self._mark(collector, numbers, SENDING, at)
        tried = {number for number, state in earlier.items() if state == SENDING}
        due = [number for number in numbers if earlier.get(number) != SENT]
        wanted = select(AuditTable).where(col(AuditTable.id).in_(due)).order_by(col(AuditTable.id))
        with self._database.reading() as session:
            return [
                DueEntry(row.id or 0, self._handle(row), entry_of(row), row.id in tried)
                for row in session.exec(wanted)
            ]

    def settle(self, collector: str, sent: Sequence[int], refused: Sequence[int], at: datetime) -> None:
        """Note what the collector took, and what it would not take. Raises StoreError."""
        self._mark(collector, sent, SENT, at)
        self._mark(collector, refused, REFUSED, at)

    def _mark(self, collector: str, numbers: Sequence[int], state: str, at: datetime) -> dict[int, str]:
        """Give entries a state, and return those that they had. What was sent stays so."""
        if not numbers:
            return {}
        wanted = select(AuditSentTable).where(
            col(AuditSentTable.collector) == collector, col(AuditSentTable.entry).in_(numbers)
        )
        with self._database.writing() as session:
            rows = {row.entry: row for row in session.exec(wanted)}
            earlier = {number: row.state for number, row in rows.items()}
            for number in numbers:
                if number not in rows:
                    session.add(AuditSentTable(collector=collector, entry=number, state=state, at=at))
                elif rows[number].state != SENT:
                    rows[number].state, rows[number].at = state, at
        return earlier

    def _of(self, collector: str) -> ColumnElement[bool]:
        return and_(
            col(AuditSentTable.entry) == col(AuditTable.id), col(AuditSentTable.collector) == collector
        )

    def _due(self, server: str | None) -> Iterator[ColumnElement[bool]]:
        yield or_(col(AuditSentTable.state).is_(None), col(AuditSentTable.state) != SENT)
        if server is not None:
            nobody = self._database.cipher.keyed_hash(PATIENT, "")
            about_nobody = and_(col(AuditTable.server) == "", col(AuditTable.patient_hash) == nobody)
            yield or_(col(AuditTable.server) == server, about_nobody)

    def _handle(self, row: AuditTable) -> str:
        """A number alone is not enough: after a restored backup the next entry gets one that was used."""
        said = (
            f"{row.id} {row.at.isoformat()} {row.action} {row.actor} {row.patient} {row.target} {row.run_id}"
        )
        return self._database.cipher.keyed_hash(_HANDLE, said)
