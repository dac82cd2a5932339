"""The trail in the database for those who read it, a page at a time, and what checks of it came to.

Each page is a transaction of its own: an export of millions of entries keeps nobody from writing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Column
from sqlmodel import Field, SQLModel, col, select

from service.errors import StoreError
from service.ports import Action
from service.ports.trail import Checked, Recorded, Sought
from service.store.columns import Encrypted, UtcInstant
from service.store.database import Database
from service.store.tables import AuditTable, LinkTable
from service.store.trail import PAGE, entry_of


class CheckTable(SQLModel, table=True):
    """What one check of the whole trail came to, sealed: who can write rows cannot make one up."""

    __tablename__ = "epicrisis_audit_check"

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_audit_check.content"), nullable=False))


class SqlLedger:
    """The Ledger in the database of an audit log, which stays its owner's to close."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._nobody = database.hash_of("")

    def head(self) -> tuple[int, str]:
        """Return number and hash of the last entry. Raises StoreError."""
        wanted = sa.select(col(LinkTable.number), col(LinkTable.hash))
        with self._database.reading() as session:
            found = session.execute(wanted.order_by(col(LinkTable.number).desc()).limit(1)).first()
        return (int(found[0]), str(found[1])) if found is not None else (0, "")

    def hash_at(self, number: int) -> str:
        """Return the hash that the chain has at a number, or "". Raises StoreError."""
        wanted = sa.select(col(LinkTable.hash)).where(col(LinkTable.number) == number)
        with self._database.reading() as session:
            return str(session.execute(wanted).scalar() or "")

    def newest(self, sought: Sought, limit: int = 50, before: int = 0) -> Sequence[Recorded]:
        """Return entries, newest first, with numbers below `before` where one is given. Raises StoreError."""
        wanted = self._wanted(sought).order_by(col(LinkTable.number).desc()).limit(max(limit, 0))
        if before > 0:
            wanted = wanted.where(col(LinkTable.number) < before)
        return self._page(wanted)

    def oldest(self, sought: Sought, after: int = 0, until: int | None = None) -> Iterator[Recorded]:
        """Yield entries with numbers above `after`, in order, a page at a time. Raises StoreError."""
        wanted = self._wanted(sought).order_by(col(LinkTable.number)).limit(PAGE)
        if until is not None:
            wanted = wanted.where(col(LinkTable.number) <= until)
        while page := self._page(wanted.where(col(LinkTable.number) > after)):
            yield from page
            after = page[-1].number

    def keep_check(self, checked: Checked) -> None:
        """Keep what a check came to. Raises StoreError."""
        row = CheckTable(at=checked.at, content=msgspec.json.encode(checked).decode())
        with self._database.writing(alone=False) as session:
            session.add(row)

    def last_check(self) -> Checked | None:
        """Return what the newest check came to, or None. Raises StoreError."""
        newest = select(CheckTable).order_by(col(CheckTable.id).desc()).limit(1)
        with self._database.reading() as session:
            row = session.exec(newest).one_or_none()
            if row is None:
                return None
            try:
                return replace(msgspec.json.decode(row.content, type=Checked), at=row.at)
            except (msgspec.MsgspecError, ValueError):
                raise StoreError("What a check of the audit log came to cannot be read.") from None

    def _page(self, wanted: Any) -> list[Recorded]:
        with self._database.reading() as session:
            return [
                Recorded(number, hashed, self._patient_hash(row), entry_of(row))
                for number, hashed, row in session.execute(wanted)
            ]

    def _patient_hash(self, row: AuditTable) -> str:
        return "" if row.patient_hash == self._nobody else row.patient_hash

    def _wanted(self, sought: Sought) -> Any:
        of_entry = sa.and_(col(AuditTable.id) == col(LinkTable.entry), col(LinkTable.number) > 0)
        wanted = sa.select(col(LinkTable.number), col(LinkTable.hash), AuditTable)
        return wanted.join(AuditTable, of_entry).where(*self._conditions(sought))

    def _conditions(self, sought: Sought) -> Iterator[Any]:
        if sought.actor:
            yield col(AuditTable.actor) == sought.actor
        if sought.action:
            yield col(AuditTable.action) == Action(sought.action).value
        if sought.patient:
            yield col(AuditTable.patient_hash) == self._database.hash_of(sought.patient)
        if sought.run_id:
            yield col(AuditTable.run_id) == sought.run_id
        if sought.since:
            yield col(AuditTable.at) >= sought.since
        if sought.until:
            yield col(AuditTable.at) < sought.until
