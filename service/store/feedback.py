"""Feedback in the database: what was said sealed under its patient's key, found by keyed hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Index, UniqueConstraint, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Field, Session, SQLModel, col, select

from service.errors import StoreError
from service.grounding.summary import Claim
from service.ports.feedback import ClaimKey, Feedback, FeedbackId, Mark, Ruling
from service.store.cipher import Cipher
from service.store.columns import Encrypted, UtcInstant
from service.store.database import Database
from service.store.questions import chart_hash

_DISPUTES = tuple(mark.value for mark in Mark if mark.disputes)


class FeedbackTable(SQLModel, table=True):
    """One tap. The sealed content repeats its id: moved to another row, it opens nothing."""

    __tablename__ = "epicrisis_feedback"
    __table_args__ = (
        UniqueConstraint("feedback_id", name="uq_epicrisis_feedback_feedback_id"),
        Index("ix_epicrisis_feedback_about", "about", "id"),
        Index("ix_epicrisis_feedback_chart", "chart_hash", "claim_hash"),
        Index("ix_epicrisis_feedback_patient", "patient_hash"),
    )

    id: int | None = Field(default=None, primary_key=True)
    feedback_id: str
    about: str
    patient_hash: str
    chart_hash: str
    claim_hash: str
    actor_hash: str
    mark: str
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    undone_at: datetime | None = Field(default=None, sa_column=Column(UtcInstant, nullable=True))
    ruling: str | None = None
    ruled_at: datetime | None = Field(default=None, sa_column=Column(UtcInstant, nullable=True))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_feedback.content"), nullable=False))
    ruled: str | None = Field(
        default=None, sa_column=Column(Encrypted("epicrisis_feedback.ruled"), nullable=True)
    )


class SidebarOffTable(SQLModel, table=True):
    """One user who wants no summaries."""

    __tablename__ = "epicrisis_sidebar_off"

    actor_hash: str = Field(primary_key=True)
    since: datetime = Field(sa_column=Column(UtcInstant, nullable=False))


class _Content(msgspec.Struct, frozen=True):
    id: str
    server: str
    patient: str
    actor: str
    by: str
    section: str
    text: str
    words: str


class _Ruled(msgspec.Struct, frozen=True):
    id: str
    by: str
    words: str


class SqlFeedback:
    """The FeedbackStore in a database, which may be the store's."""

    def __init__(self, url: str, cipher: Cipher) -> None:
        self.database = Database(url, cipher)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def claim_key(self, server: str, patient: str, claim: Claim) -> ClaimKey:
        """Return by what a statement is known. Raises StoreError."""
        said = [server.rstrip("/"), patient, " ".join(claim.text.split()), sorted(set(claim.citations))]
        return ClaimKey(self.database.cipher.keyed_hash("disputed claim", msgspec.json.encode(said).decode()))

    def claim_keys(self, server: str, patient: str, claims: Sequence[Claim]) -> Mapping[Claim, ClaimKey]:
        """Return the key of each statement. Raises StoreError."""
        return {claim: self.claim_key(server, patient, claim) for claim in claims}

    def say(self, feedback: Feedback) -> None:
        """Keep one tap. Raises StoreError, and ShreddedError."""
        content = _Content(
            feedback.id, feedback.server, feedback.patient, feedback.actor, feedback.by, feedback.section,
            feedback.text, feedback.words,
        )  # fmt: skip
        with self.database.writing(alone=False, about=feedback.patient) as db:
            db.add(
                FeedbackTable(
                    feedback_id=feedback.id,
                    about=feedback.about,
                    patient_hash=self.database.hash_of(feedback.patient),
                    chart_hash=chart_hash(self.database.cipher, feedback.server, feedback.patient),
                    claim_hash=feedback.claim,
                    actor_hash=self._actor(feedback.actor),
                    mark=feedback.mark.value,
                    at=feedback.at,
                    content=_written(content),
                )
            )

    def undo(self, about: str, actor: str, at: datetime, claim: ClaimKey | None = None) -> Feedback | None:
        """Take back this user's last tap that is not settled, and return it. Raises StoreError."""
        of_claim = () if claim is None else (col(FeedbackTable.claim_hash) == claim,)
        wanted = (
            select(FeedbackTable)
            .where(
                col(FeedbackTable.about) == about,
                col(FeedbackTable.actor_hash) == self._actor(actor),
                *of_claim,
                *_is_open(),
            )
            .order_by(col(FeedbackTable.id).desc())
            .limit(1)
        )
        with self.database.writing() as db:
            row = db.exec(wanted).one_or_none()
            if row is None:
                return None
            row.undone_at = at
            return _whole(row)

    def said_of(self, about: str) -> Sequence[Feedback]:
        """Return what was said of a run or an answer, oldest first. Raises StoreError."""
        return self._all(col(FeedbackTable.about) == about)

    def disputes_of(self, server: str, patient: str) -> frozenset[ClaimKey]:
        """Return the statements about a patient that are disputed now. Raises StoreError."""
        wanted = select(FeedbackTable.claim_hash).where(
            col(FeedbackTable.chart_hash) == chart_hash(self.database.cipher, server, patient),
            col(FeedbackTable.mark).in_(_DISPUTES),
            col(FeedbackTable.claim_hash) != "",
            col(FeedbackTable.undone_at).is_(None),
            col(FeedbackTable.ruling).is_(None) | (col(FeedbackTable.ruling) == Ruling.UPHELD.value),
        )
        with self.database.reading() as db:
            return frozenset(map(ClaimKey, db.exec(wanted)))

    def unsettled(self, limit: int = 100) -> Sequence[Feedback]:
        """Return the disputes that no reviewer has ruled on, oldest first. Raises StoreError."""
        return self._all(col(FeedbackTable.mark).in_(_DISPUTES), *_is_open(), limit=limit)

    def settle(
        self,
        server: str,
        patient: str,
        claim: ClaimKey,
        ruling: Ruling,
        by: str,
        at: datetime,
        words: str = "",
    ) -> int:
        """Rule on every open dispute of a statement, and return how many those were. Raises StoreError."""
        wanted = select(FeedbackTable).where(
            col(FeedbackTable.chart_hash) == chart_hash(self.database.cipher, server, patient),
            col(FeedbackTable.claim_hash) == claim,
            col(FeedbackTable.mark).in_(_DISPUTES),
            *_is_open(),
        )
        with self.database.writing(about=patient) as db:
            rows = db.exec(wanted).all()
            for row in rows:
                row.ruling, row.ruled_at = ruling.value, at
                row.ruled = _written(_Ruled(row.feedback_id, by, words))
        return len(rows)

    def switch_off(self, actor: str, at: datetime) -> None:
        """Show this user no summaries. Raises StoreError."""
        with self.database.writing(alone=False) as db:
            insert: Any = postgresql.insert if db.get_bind().dialect.name == "postgresql" else sqlite.insert
            row = insert(SidebarOffTable).values(actor_hash=self._actor(actor), since=at)
            db.connection().execute(row.on_conflict_do_nothing())

    def switch_on(self, actor: str) -> None:
        """Show this user summaries again. Raises StoreError."""
        here = col(SidebarOffTable.actor_hash) == self._actor(actor)
        with self.database.writing(alone=False) as db:
            db.connection().execute(delete(SidebarOffTable).where(here))

    def is_off(self, actor: str) -> bool:
        """Tell whether this user wants no summaries. Raises StoreError."""
        with self.database.reading() as db:
            return db.get(SidebarOffTable, self._actor(actor)) is not None

    def _all(self, *conditions: ColumnElement[bool], limit: int | None = None) -> list[Feedback]:
        wanted = select(FeedbackTable).where(*conditions).order_by(col(FeedbackTable.id)).limit(limit)
        with self.database.reading() as db:
            return [_whole(row) for row in db.exec(wanted) if row.content]

    def _actor(self, actor: str) -> str:
        return self.database.cipher.keyed_hash("feedback actor", actor)


def shred_feedback(db: Session, patient_hash: str) -> None:
    """Delete what was said about a patient's summaries, in this transaction."""
    db.execute(delete(FeedbackTable).where(col(FeedbackTable.patient_hash) == patient_hash))


def _is_open() -> tuple[ColumnElement[bool], ...]:
    return col(FeedbackTable.undone_at).is_(None), col(FeedbackTable.ruling).is_(None)


def _whole(row: FeedbackTable) -> Feedback:
    try:
        said = msgspec.json.decode(row.content, type=_Content)
        ruled = msgspec.json.decode(row.ruled, type=_Ruled) if row.ruled else None
    except (msgspec.MsgspecError, ValueError):
        raise StoreError("Feedback in the store is damaged.") from None
    if said.id != row.feedback_id or (ruled is not None and ruled.id != row.feedback_id):
        raise StoreError("Feedback in the store was changed.")
    return Feedback(
        id=FeedbackId(said.id),
        about=row.about,
        server=said.server,
        patient=said.patient,
        mark=Mark(row.mark),
        actor=said.actor,
        at=row.at,
        claim=ClaimKey(row.claim_hash),
        section=said.section,
        text=said.text,
        words=said.words,
        by=said.by,
        undone_at=row.undone_at,
        ruling=Ruling(row.ruling) if row.ruling else None,
        ruled_by=ruled.by if ruled is not None else "",
        ruled_at=row.ruled_at,
        ruled_words=ruled.words if ruled is not None else "",
    )


def _written(content: msgspec.Struct) -> str:
    try:
        return msgspec.json.encode(content).decode()
    except UnicodeError:  # half of a surrogate pair is no text
        raise StoreError("The feedback holds something that cannot be stored as text.") from None
