"""Legal holds in the database, each sealed under its patient's key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Column, Index, delete
from sqlmodel import Field, Session, SQLModel, col, select

from service.errors import StoreError
from service.ports.held import Clock
from service.ports.holds import LegalHold
from service.store.cipher import Cipher
from service.store.columns import Encrypted, UtcInstant
from service.store.database import Database


class HoldTable(SQLModel, table=True):
    """One hold. It lasts until `lifted_at`."""

    __tablename__ = "epicrisis_hold"
    __table_args__ = (Index("ix_epicrisis_hold_patient", "patient_hash", "lifted_at"),)

    id: int | None = Field(default=None, primary_key=True)
    patient_hash: str
    since: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    lifted_at: datetime | None = Field(default=None, sa_column=Column(UtcInstant, nullable=True))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_hold.content"), nullable=False))


class SqlHolds:
    """The HoldStore in a database, which may be the store's."""

    def __init__(self, url: str, cipher: Cipher, clock: Clock) -> None:
        self.database = Database(url, cipher)
        self._clock = clock

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def add(self, hold: LegalHold) -> LegalHold:
        """Hold from now on, and return it with its number. Raises StoreError, and ShreddedError."""
        row = HoldTable(
            patient_hash=self.database.hash_of(hold.patient), since=hold.since, content=_written(hold)
        )
        with self.database.writing(about=hold.patient) as db:
            db.add(row)
            db.flush()
            return replace(hold, number=row.id or 0)

    def lift(self, patient: str, by: str, reason: str, number: int = 0) -> Sequence[LegalHold]:
        """End a patient's only hold, or the one of this number, and return what ended. Raises StoreError."""
        with self.database.writing(about=patient) as db:
            rows = [row for row in db.exec(self._lasting(patient)) if number in (0, row.id)]
            if len(rows) > 1:
                raise StoreError(
                    f"This patient is under {len(rows)} holds.", "Name one of them with --number."
                )
            for row in rows:
                row.lifted_at = self._clock()
                row.content = _written(replace(_whole(row), lifted_by=by, lifted_because=reason))
            return [_whole(row) for row in rows]

    def holds(self, patient: str = "") -> Sequence[LegalHold]:
        """Return the holds that last, of one patient or of all, oldest first. Raises StoreError."""
        with self.database.reading() as db:
            return [_whole(row) for row in db.exec(self._lasting(patient))]

    def _lasting(self, patient: str) -> Any:
        wanted = select(HoldTable).where(col(HoldTable.lifted_at).is_(None)).order_by(col(HoldTable.id))
        if patient:
            wanted = wanted.where(col(HoldTable.patient_hash) == self.database.hash_of(patient))
        return wanted


def held_patients() -> Any:
    """Return the query of the patients (keyed hashes) who are under a hold."""
    return select(HoldTable.patient_hash).where(col(HoldTable.lifted_at).is_(None))


def is_held(db: Session, patient_hash: str) -> bool:
    """Tell whether a patient is under a hold, in this transaction."""
    wanted = held_patients().where(col(HoldTable.patient_hash) == patient_hash)
    return db.exec(wanted.limit(1)).first() is not None


def shred_holds(db: Session, patient_hash: str) -> None:
    """Delete a patient's holds, in this transaction: the audit log keeps that there were any."""
    db.execute(delete(HoldTable).where(col(HoldTable.patient_hash) == patient_hash))


def _whole(row: HoldTable) -> LegalHold:
    try:
        hold = msgspec.json.decode(row.content, type=LegalHold)
    except (msgspec.MsgspecError, ValueError):
        raise StoreError("A stored hold cannot be read.") from None
    return replace(hold, number=row.id or 0, since=row.since)


def _written(hold: LegalHold) -> str:
    try:
        return msgspec.json.encode(hold).decode()
    except UnicodeError:  # half of a surrogate pair is no text
        raise StoreError("The reason holds something that cannot be stored as text.") from None
