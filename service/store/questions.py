"""Questions and answers in the database, sealed under their patient's key, found by keyed hash."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Column, Index, UniqueConstraint, delete, update
from sqlmodel import Field, Session, SQLModel, col, select

from service.errors import ShreddedError, StoreError
from service.ports.questions import Question, QuestionId, QuestionState
from service.store.cipher import Cipher
from service.store.codec import in_utc, mark, unmark
from service.store.columns import Encrypted, UtcInstant
from service.store.database import Database

CHART = "chart"
"""Purpose of the keyed hash of server and patient: a reference means another patient on another server."""
_DECODER = msgspec.json.Decoder(Question)


class QuestionTable(SQLModel, table=True):
    """One question. The sealed content repeats its id: moved to another row, it opens nothing."""

    __tablename__ = "epicrisis_question"
    __table_args__ = (
        UniqueConstraint("question_id", name="uq_epicrisis_question_question_id"),
        Index("ix_epicrisis_question_chart", "chart_hash", "id"),
        Index("ix_epicrisis_question_patient", "patient_hash"),
    )

    id: int | None = Field(default=None, primary_key=True)
    question_id: str
    patient_hash: str
    chart_hash: str
    run_id: str
    asked_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    state: str
    stage: str
    error: str
    model_digest: str = ""
    template_digest: str = ""
    content: str = Field(sa_column=Column(Encrypted("epicrisis_question.content"), nullable=False))


class SqlQuestions:
    """The QuestionStore in a database, which may be the store's."""

    def __init__(self, url: str, cipher: Cipher) -> None:
        self.database = Database(url, cipher)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def ask(self, question: Question) -> None:
        """Keep a new question. Raises StoreError, and ShreddedError."""
        with self.database.writing(alone=False, about=question.patient) as db:
            db.add(
                QuestionTable(
                    question_id=question.id,
                    patient_hash=self.database.hash_of(question.patient),
                    chart_hash=chart_hash(self.database.cipher, question.server, question.patient),
                    run_id=question.run_id,
                    asked_at=question.asked_at,
                    state=question.state.value,
                    stage=question.stage,
                    error=question.error,
                    content=_written(question),
                )
            )

    def note(self, question_id: QuestionId, stage: str) -> bool:
        """Note how far an answer is; False where it is not wanted any more. Raises StoreError."""
        return self._change(question_id, stage=stage)

    def settle_question(self, question: Question) -> bool:
        """Keep what came of a question; False where it was cancelled meanwhile. Raises StoreError."""
        inputs = question.inputs
        with self.database.writing(alone=False, about=question.patient) as db:
            changed = db.connection().execute(
                _open_row(question.id).values(
                    state=question.state.value,
                    error=question.error,
                    model_digest=inputs.model_digest if inputs else "",
                    template_digest=inputs.template_digest if inputs else "",
                    content=_written(question),
                )
            )
            return changed.rowcount == 1

    def cancel(self, question_id: QuestionId) -> None:
        """Take a question back, unless it is answered already. Raises StoreError."""
        self._change(question_id, state=QuestionState.CANCELLED.value)

    def get_question(self, question_id: QuestionId) -> Question | None:
        """Return one question whole, or None. Raises ShreddedError, and StoreError."""
        with self.database.reading() as db:
            row = db.exec(
                select(QuestionTable).where(col(QuestionTable.question_id) == question_id)
            ).one_or_none()
            return None if row is None else _whole(row)

    def questions_about(self, server: str, patient: str, limit: int = 20) -> Sequence[Question]:
        """Return the newest questions about a patient, newest first. Raises StoreError."""
        hashed = chart_hash(self.database.cipher, server, patient)
        wanted = (
            select(QuestionTable)
            .where(col(QuestionTable.chart_hash) == hashed)
            .order_by(col(QuestionTable.id).desc())
            .limit(limit)
        )
        with self.database.reading() as db:
            return [_whole(row) for row in db.exec(wanted)]

    def _change(self, question_id: QuestionId, **values: str) -> bool:
        with self.database.writing(alone=False) as db:
            return bool(db.connection().execute(_open_row(question_id).values(**values)).rowcount)


def chart_hash(cipher: Cipher, server: str, patient: str) -> str:
    """Return the keyed hash of one patient of one server."""
    return cipher.keyed_hash(CHART, f"{server.rstrip('/')}\n{patient}")


def shred_questions(db: Session, patient_hash: str) -> None:
    """Delete the questions about a patient, in this transaction."""
    db.execute(delete(QuestionTable).where(col(QuestionTable.patient_hash) == patient_hash))


def _open_row(question_id: QuestionId) -> Any:
    here = col(QuestionTable.question_id) == question_id
    return update(QuestionTable).where(here, col(QuestionTable.state) == QuestionState.ASKED.value)


def _whole(row: QuestionTable) -> Question:
    if not row.content:
        raise ShreddedError
    try:
        question = _with_values(_DECODER.decode(row.content), unmark)
    except (msgspec.MsgspecError, ValueError):
        raise StoreError(
            "A stored question cannot be read.", "It was written by another version, or is damaged."
        ) from None
    if question.id != row.question_id:
        raise StoreError("A stored question was changed.", "Restore the database from its backup.")
    return replace(question, state=QuestionState(row.state), stage=row.stage, error=row.error)


def _written(question: Question) -> str:
    """Return a question as JSON text. Raises StoreError for text that is not Unicode.

    Instants are written in UTC: old local mean times have offsets with seconds, which ISO 8601 cannot say.
    """
    plain = msgspec.to_builtins(_with_values(question, mark), builtin_types=(datetime,))
    try:
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=in_utc)
        text.encode()
    except (ValueError, TypeError):
        raise StoreError("The answer holds something that cannot be stored as text.") from None
    return text


def _with_values(question: Question, change: Callable[[Any], Any]) -> Question:
    """Apply a change to the values that have no type of their own: sampling and answer schemas."""
    prompts = tuple(replace(prompt, schema=change(prompt.schema)) for prompt in question.prompts)
    inputs = question.inputs
    if inputs is not None:
        inputs = replace(inputs, sampling=change(inputs.sampling))
    return replace(question, prompts=prompts, inputs=inputs)
