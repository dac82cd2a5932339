"""Retention: what was written about patients long enough ago is deleted, and what says nothing of them stays.

Of a run its row stays with model, prompt, versions, counts and the keyed hashes of its sources, without a
word of its text: its document may stand in the record system for ever, and recall must go on finding it. The
audit log is never touched, nor what is about a patient under a legal hold.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, SQLModel, col, select

from service.ports.holds import Expired
from service.store.attesting import DecisionTable, GlassTable, OpeningTable
from service.store.database import Database
from service.store.feedback import FeedbackTable
from service.store.holds import held_patients
from service.store.hook_calls import HookCardTable, HookFeedbackTable
from service.store.inputs import InputPartTable, RunInputTable
from service.store.ondemand import AnswerTable, GenerationTable, ToldTable
from service.store.quality import ShadowTable
from service.store.questions import QuestionTable
from service.store.reviews import ReviewActTable, ReviewEntryTable, ReviewTable
from service.store.tables import EXPIRED, ClaimTable, KeptTable, RunTable

BATCH = 100
"""Runs of one transaction: others write between two."""
_OF_RUN: tuple[Any, ...] = (
    FeedbackTable.about,
    RunInputTable.run_id,
    QuestionTable.run_id,
    ReviewEntryTable.run_id,
    DecisionTable.run_id,
    OpeningTable.run_id,
    HookCardTable.run_id,
    HookFeedbackTable.run_id,
)
"""What goes with its run. Who attested and who hid a run stays: these are acts, and quote nothing."""
_BY_TIME: tuple[tuple[type[SQLModel], Any, Any], ...] = (
    (InputPartTable, InputPartTable.used_at, InputPartTable.patient_hash),
    (QuestionTable, QuestionTable.asked_at, QuestionTable.patient_hash),
    (FeedbackTable, FeedbackTable.at, FeedbackTable.patient_hash),
    (ShadowTable, ShadowTable.created_at, ShadowTable.patient_hash),
    (AnswerTable, AnswerTable.at, AnswerTable.patient_hash),
    (GlassTable, GlassTable.until, GlassTable.patient_hash),
    (KeptTable, KeptTable.used_at, KeptTable.patient_hash),
)
"""What has a time of its own: answers to questions have feedback, and no run."""


class Retention:
    """Retention in the database of a store, which stays its owner's to close."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self, before: datetime) -> Expired:
        """Count what was made before then and is still there. Raises StoreError."""
        with self._database.reading() as db:
            runs, held = (
                db.execute(sa.select(sa.func.count()).select_from(RunTable).where(*which)).scalar_one()
                for which in (_expired(before), (*_old(before), ~_is_free(RunTable.patient_hash)))
            )
            others = sum(
                db.execute(sa.select(sa.func.count()).select_from(table).where(condition)).scalar_one()
                for table, condition in _others(before)
            )
        return Expired(runs, others, held)

    def delete(self, before: datetime) -> Expired:
        """Delete it, some runs at a time, and return what that was. Raises StoreError.

        One that is interrupted is begun again, and does the rest.
        """
        runs = others = 0
        while found := self._delete_some(before):
            runs, others = runs + found[0], others + found[1]
        with self._database.writing() as db:
            others += sum(_deleted(db, table, condition) for table, condition in _others(before))
        self._database.scrub()
        return Expired(runs, others, self.count(before).held)

    def _delete_some(self, before: datetime) -> tuple[int, int] | None:
        """Delete the text of some runs, and return counts, or None where there are none left."""
        with self._database.writing() as db:
            wanted = sa.select(col(RunTable.id), col(RunTable.run_id)).where(*_expired(before))
            rows = db.execute(wanted.order_by(col(RunTable.id)).limit(BATCH)).all()
            if not rows:
                return None
            numbers, run_ids = [row[0] for row in rows], [row[1] for row in rows]
            others = _delete_of_runs(db, run_ids)
            db.execute(sa.update(ClaimTable).where(col(ClaimTable.run).in_(numbers)).values(text_hash=""))
            of_runs = col(RunTable.id).in_(numbers)
            nothing = sa.literal(b"", sa.LargeBinary())  # an expression: the column's type would seal a value
            gone = {"content": nothing, "patient_name": EXPIRED, "record_digest": ""}
            db.execute(sa.update(RunTable).where(of_runs).values(**gone))
        return len(rows), others


def _delete_of_runs(db: Session, run_ids: list[str]) -> int:
    reviews = select(ReviewTable.id).where(col(ReviewTable.run_id).in_(run_ids))
    told = select(GenerationTable.generation_id).where(col(GenerationTable.run_id).in_(run_ids))
    count = _deleted(db, ReviewActTable, col(ReviewActTable.review).in_(reviews))
    count += _deleted(db, ReviewTable, col(ReviewTable.run_id).in_(run_ids))
    count += _deleted(db, ToldTable, col(ToldTable.generation_id).in_(told))
    count += _deleted(db, GenerationTable, col(GenerationTable.run_id).in_(run_ids))
    return count + sum(_deleted(db, one.class_, col(one).in_(run_ids)) for one in _OF_RUN)


def _others(before: datetime) -> list[tuple[type[SQLModel], Any]]:
    """Return what goes by its own time, with the condition of it."""
    return [(table, (col(at) < before) & _is_free(patient)) for table, at, patient in _BY_TIME]


def _old(before: datetime) -> tuple[Any, ...]:
    """Runs made before then whose text is there; of a shredded one nothing is."""
    return col(RunTable.created_at) < before, sa.func.length(RunTable.__table__.c.content) > 0  # type: ignore[attr-defined]


def _expired(before: datetime) -> tuple[Any, ...]:
    return (*_old(before), _is_free(RunTable.patient_hash))


def _is_free(patient_hash: Any) -> Any:
    """Tell whether a row's patient is under no hold."""
    return col(patient_hash).not_in(held_patients())


def _deleted(db: Session, table: type[SQLModel], condition: Any) -> int:
    return int(db.connection().execute(sa.delete(table).where(condition)).rowcount)
