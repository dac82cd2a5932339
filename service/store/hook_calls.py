"""Calls of CDS Hooks in the database: used tokens and cards as keyed hashes, what is about a patient sealed.

That a token was used is one statement that cannot lose a race, on either kind of database: of two processes
that take the same token at once, one is told that it was used before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import Column, Index, LargeBinary, delete, literal, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Field, Session, SQLModel, col, func, select

from service.errors import StoreError
from service.ports.hooks import CardFeedback, ShownCard
from service.store.cipher import Cipher
from service.store.columns import Encrypted, UtcInstant
from service.store.database import Database

PRUNED_AT_ONCE: Final = 200
"""Expired tokens that one call forgets: more than it adds, so that the table does not grow."""


class HookCallTable(SQLModel, table=True):
    """One token that was used, until it has expired."""

    __tablename__ = "epicrisis_hook_call"
    __table_args__ = (Index("ix_epicrisis_hook_call_until", "until"),)

    token_hash: str = Field(primary_key=True)
    until: datetime = Field(sa_column=Column(UtcInstant, nullable=False))


class HookCardTable(SQLModel, table=True):
    """One card. The sealed content repeats its id: moved to another row, it opens nothing."""

    __tablename__ = "epicrisis_hook_card"
    __table_args__ = (Index("ix_epicrisis_hook_card_patient", "patient_hash"),)

    card_hash: str = Field(primary_key=True)
    patient_hash: str
    run_id: str
    content: str = Field(sa_column=Column(Encrypted("epicrisis_hook_card.content"), nullable=False))


class HookFeedbackTable(SQLModel, table=True):
    """What a person did with a card. Plain are the outcome and the code of one of our own reasons."""

    __tablename__ = "epicrisis_hook_feedback"
    __table_args__ = (Index("ix_epicrisis_hook_feedback_patient", "patient_hash"),)

    feedback_hash: str = Field(primary_key=True)
    """Of card, outcome and instant: what is told twice is kept once."""
    patient_hash: str
    run_id: str
    outcome: str
    reason: str
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_hook_feedback.content"), nullable=False))


class SqlHookCalls:
    """The HookStore in a database, which may be the store's."""

    def __init__(self, url: str, cipher: Cipher) -> None:
        self.database = Database(url, cipher)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def use(self, token: str, now: datetime, until: datetime) -> bool:
        """Note that a token is used; False where it was before. Raises StoreError."""
        expired = (
            select(HookCallTable.token_hash)
            .where(col(HookCallTable.until) < now)
            .limit(PRUNED_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        with self.database.writing(alone=False) as db:
            db.connection().execute(delete(HookCallTable).where(col(HookCallTable.token_hash).in_(expired)))
            return (
                self._insert(db, HookCallTable, token_hash=self._hash("hook call", token), until=until) == 1
            )

    def card_of(self, ehr: str, run_id: str) -> str:
        """Return the id of a run's card at an EHR."""
        return str(UUID(hex=self._hash("hook card", f"{ehr}\0{run_id}")[:32], version=4))

    def keep_card(self, card: ShownCard) -> None:
        """Keep a card, once. Raises ShreddedError, and StoreError."""
        hashed = self._hash("card", card.id)
        with self.database.reading() as db:
            if db.exec(select(HookCardTable.run_id).where(col(HookCardTable.card_hash) == hashed)).first():
                return
        with self.database.writing(alone=False, about=card.patient) as db:
            self._insert(
                db, HookCardTable, card_hash=hashed, patient_hash=self.database.hash_of(card.patient),
                run_id=card.run_id, content=msgspec.json.encode(card).decode(),
            )  # fmt: skip

    def find_card(self, card_id: str) -> ShownCard | None:
        """Return a card that was shown, or None. Raises StoreError, for one that others changed too."""
        with self.database.reading() as db:
            row = db.get(HookCardTable, self._hash("card", card_id))
            content = "" if row is None else row.content
        if not content:
            return None
        try:
            card = msgspec.json.decode(content, type=ShownCard)
        except (msgspec.MsgspecError, ValueError):
            raise StoreError("A card in the store is damaged.") from None
        if card.id != card_id:
            raise StoreError("A card in the store was changed.")
        return card

    def keep_feedback(self, card: ShownCard, said: Sequence[CardFeedback], now: datetime) -> int:
        """Keep what became of a card; return how many acts are new. Raises ShreddedError, and StoreError."""
        patient_hash = self.database.hash_of(card.patient)
        with self.database.writing(alone=False, about=card.patient) as db:
            return sum(
                self._insert(
                    db,
                    HookFeedbackTable,
                    feedback_hash=self._hash(
                        "feedback", f"{card.id} {one.outcome} {one.acted_at.isoformat()}"
                    ),
                    patient_hash=patient_hash,
                    run_id=card.run_id,
                    outcome=one.outcome,
                    reason=one.reason,
                    at=now,
                    content=msgspec.json.encode(one).decode(),
                )
                for one in said
            )

    def feedback_of(self, run_id: str) -> Sequence[CardFeedback]:
        """Return what was done with the cards of a run, oldest first. Raises StoreError."""
        wanted = (
            select(HookFeedbackTable.content)
            .where(col(HookFeedbackTable.run_id) == run_id)
            .order_by(col(HookFeedbackTable.at), col(HookFeedbackTable.feedback_hash))
        )
        with self.database.reading() as db:
            contents = [content for content in db.exec(wanted) if content]
        try:
            return [msgspec.json.decode(content, type=CardFeedback) for content in contents]
        except (msgspec.MsgspecError, ValueError):
            raise StoreError("What is stored of a card's feedback is damaged.") from None

    def outcomes(self) -> Mapping[str, int]:
        """Count the acts by outcome and reason. Raises StoreError."""
        outcome, reason = col(HookFeedbackTable.outcome), col(HookFeedbackTable.reason)
        with self.database.reading() as db:
            found = db.exec(select(outcome, reason, func.count()).group_by(outcome, reason)).all()
        return {f"{told}:{why}" if why else told: count for told, why, count in found}

    def _insert(self, db: Session, table: type[SQLModel], **values: Any) -> int:
        """Insert a row unless there is one with its key, and return how many that were: 1 or 0."""
        insert: Any = postgresql.insert if db.get_bind().dialect.name == "postgresql" else sqlite.insert
        # What came back counts: of an insert that did nothing not every driver tells a number of rows.
        statement = insert(table).values(**values).on_conflict_do_nothing().returning(literal(1))
        return len(db.connection().execute(statement).all())

    def _hash(self, purpose: str, value: str) -> str:
        return self.database.cipher.keyed_hash(purpose, value)


def shred_hook_rows(db: Session, patient_hash: str) -> None:
    """Overwrite what is stored of a patient's cards, in this transaction; what was counted stays counted."""
    nothing = literal(b"", LargeBinary())  # an expression: the column's type would seal a value
    db.execute(delete(HookCardTable).where(col(HookCardTable.patient_hash) == patient_hash))
    of_patient = col(HookFeedbackTable.patient_hash) == patient_hash
    db.execute(update(HookFeedbackTable).where(of_patient).values(content=nothing))
