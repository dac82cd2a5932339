"""Quality in the database: numbers in the open, a ward's name and reports sealed, shadow runs as runs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import JSON, Column, Index, UniqueConstraint, delete
from sqlalchemy import select as select_columns
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Field, Session, SQLModel, col, func, select

from service.errors import StoreError
from service.ports.quality import (
    NO_WARD,
    Counts,
    Evaluation,
    EvaluationId,
    Group,
    Identity,
    Measure,
    Shadow,
    Sums,
)
from service.ports.runs import RunId, RunState
from service.record.facts import FactId
from service.store.cipher import Cipher
from service.store.codec import decode_run, encode_run
from service.store.columns import Encrypted, UtcInstant
from service.store.database import Database
from service.store.feedback import FeedbackTable
from service.store.tables import RunTable

NUMBERS: Final = tuple(one.name for one in fields(Counts) if one.name not in ("seconds", "refused"))
_CANNOT_BE_COUNTED: Final = ""
"""The week of a run of which nothing is left: before every week."""


class MeasureTable(SQLModel, table=True):
    """The numbers of one run."""

    __tablename__ = "epicrisis_measure"
    __table_args__ = (Index("ix_epicrisis_measure_week", "week"),)

    run_id: str = Field(primary_key=True)
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    week: str
    model: str = ""
    model_digest: str = ""
    prompt: str = ""
    template_digest: str = ""
    rules_version: str = ""
    ward_hash: str = ""
    claims: int = 0
    supported: int = 0
    contradicted: int = 0
    told: int = 0
    added: int = 0
    missing: int = 0
    headings: int = 0
    not_retrieved: int = 0
    fabricated: int = 0
    characters: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    refused: dict[str, int] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))


class WardTable(SQLModel, table=True):
    """One ward's name, by its keyed hash: a house has dozens, and its runs thousands."""

    __tablename__ = "epicrisis_measured_ward"

    ward_hash: str = Field(primary_key=True)
    name: str = Field(
        sa_column=Column(Encrypted("epicrisis_measured_ward.name", of_house=True), nullable=False)
    )


class EvaluationTable(SQLModel, table=True):
    """One evaluation."""

    __tablename__ = "epicrisis_evaluation"
    __table_args__ = (Index("ix_epicrisis_evaluation_ended", "ended_at"),)

    id: str = Field(primary_key=True)
    began_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    ended_at: datetime | None = Field(default=None, sa_column=Column(UtcInstant, nullable=True))
    identity: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    against: dict[str, str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    cohort_digest: str
    charts: int
    report: str = Field(
        sa_column=Column(Encrypted("epicrisis_evaluation.report", of_house=True), nullable=False)
    )


class ShadowTable(SQLModel, table=True):
    """One shadow run. The sealed content repeats its id: moved to another row, it opens nothing."""

    __tablename__ = "epicrisis_shadow"
    __table_args__ = (
        UniqueConstraint("evaluation", "arm", "patient_hash", name="uq_epicrisis_shadow_chart"),
        Index("ix_epicrisis_shadow_patient", "patient_hash"),
    )

    run_id: str = Field(primary_key=True)
    evaluation: str
    arm: int
    patient_hash: str
    created_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_shadow.content"), nullable=False))


class _Content(msgspec.Struct, frozen=True):
    run: str
    counts: Counts
    told: frozenset[FactId]
    required: frozenset[FactId]


_GROUP = (
    col(MeasureTable.week),
    col(MeasureTable.model),
    col(MeasureTable.model_digest),
    col(MeasureTable.prompt),
    col(MeasureTable.ward_hash),
)


class SqlQuality:
    """The QualityStore in the database of the runs."""

    def __init__(self, url: str, cipher: Cipher) -> None:
        self.database = Database(url, cipher)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def keep(self, measure: Measure) -> None:
        """Keep a run's numbers; those of a run that was counted before stay. Raises StoreError."""
        group, counts = measure.group, measure.counts
        hashed = self._ward_hash(group.ward)
        values = {
            "run_id": measure.run_id, "at": measure.at, "week": group.week, "model": group.model,
            "model_digest": group.model_digest, "prompt": group.prompt, "ward_hash": hashed,
            "template_digest": measure.template_digest, "rules_version": measure.rules_version,
            **{name: getattr(counts, name) for name in NUMBERS},
            "seconds": counts.seconds, "refused": dict(counts.refused),
        }  # fmt: skip
        with self.database.writing(alone=False) as db:
            _insert_once(db, MeasureTable, values)
            if hashed and db.get(WardTable, hashed) is None:
                _insert_once(db, WardTable, {"ward_hash": hashed, "name": group.ward})

    def skip(self, run_id: RunId, at: datetime) -> None:
        """Note that a run cannot be counted. Raises StoreError."""
        row = MeasureTable(run_id=run_id, at=at, week=_CANNOT_BE_COUNTED)
        with self.database.writing(alone=False) as db:
            _insert_once(db, MeasureTable, row.model_dump())

    def uncounted(self, limit: int) -> Sequence[RunId]:
        """Return runs whose numbers are not kept, newest first. Raises StoreError."""
        wanted = _uncounted(select(RunTable.run_id)).order_by(col(RunTable.id).desc()).limit(limit)
        with self.database.reading() as db:
            return tuple(map(RunId, db.exec(wanted)))

    def count_uncounted(self) -> int:
        """Return how many runs are not counted. Raises StoreError."""
        with self.database.reading() as db:
            return int(db.exec(_uncounted(select(func.count(col(RunTable.id))))).one())

    def sums(self, since_week: str) -> Sequence[Sums]:
        """Return every group from a week on, in order. Raises StoreError."""
        added = [func.sum(getattr(MeasureTable, name)) for name in NUMBERS]
        wanted = select_columns(*_GROUP, func.count(), *added).where(_since(since_week)).group_by(*_GROUP)
        with self.database.reading() as db:
            wards = _wards(db)
            rows = [Sums(_group(row[:5], wards), row[5], _counts(row[6:])) for row in db.execute(wanted)]
        return sorted(rows, key=lambda one: one.group)

    def seconds(self, since_week: str) -> Sequence[tuple[Group, float]]:
        """Return how long each run took, where that is known. Raises StoreError."""
        wanted = select_columns(*_GROUP, col(MeasureTable.seconds)).where(
            _since(since_week), col(MeasureTable.seconds) > 0
        )
        with self.database.reading() as db:
            wards = _wards(db)
            known: dict[tuple[str, ...], Group] = {}
            found: list[tuple[Group, float]] = []
            for *key, seconds in db.execute(wanted):
                named = tuple(key)
                if named not in known:
                    known[named] = _group(named, wards)
                found.append((known[named], seconds))
        return found

    def marked(self, since_week: str) -> Mapping[Group, int]:
        """Return how many runs of each group somebody said something against. Raises StoreError."""
        wanted = (
            select_columns(*_GROUP, func.count(func.distinct(col(MeasureTable.run_id))))
            .join(FeedbackTable, col(FeedbackTable.about) == col(MeasureTable.run_id))
            .where(_since(since_week), col(FeedbackTable.undone_at).is_(None))
            .group_by(*_GROUP)
        )
        with self.database.reading() as db:
            wards = _wards(db)
            return {_group(row[:5], wards): row[5] for row in db.execute(wanted)}

    def groups_of(self, run_ids: Sequence[RunId]) -> Mapping[RunId, Group]:
        """Return the group of each run that was counted. Raises StoreError."""
        found: dict[RunId, Group] = {}
        with self.database.reading() as db:
            wards = _wards(db)
            for start in range(0, len(run_ids), 500):
                wanted = select_columns(*_GROUP, col(MeasureTable.run_id)).where(
                    col(MeasureTable.run_id).in_(run_ids[start : start + 500]),
                    col(MeasureTable.week) != _CANNOT_BE_COUNTED,
                )
                found |= {RunId(row[5]): _group(row[:5], wards) for row in db.execute(wanted)}
        return found

    def keep_shadow(self, shadow: Shadow) -> None:
        """Keep a shadow run. Raises StoreError, and ShreddedError."""
        run = shadow.run
        content = _Content(encode_run(run), shadow.counts, shadow.told, shadow.required)
        with self.database.writing(alone=False, about=run.inputs.patient) as db:
            db.add(
                ShadowTable(
                    run_id=run.run_id,
                    evaluation=shadow.evaluation,
                    arm=shadow.arm,
                    patient_hash=self.database.hash_of(run.inputs.patient),
                    created_at=run.created_at,
                    content=msgspec.json.encode(content).decode(),
                )
            )

    def shadows(self, evaluation: EvaluationId, arm: int) -> Mapping[str, Shadow]:
        """Return an arm's runs by patient, without those of the shredded. Raises StoreError."""
        wanted = select(ShadowTable).where(
            col(ShadowTable.evaluation) == evaluation, col(ShadowTable.arm) == arm
        )
        with self.database.reading() as db:
            found = [_shadow(row) for row in db.exec(wanted) if row.content]
        return {one.run.inputs.patient: one for one in found}

    def begin(self, evaluation: Evaluation) -> Evaluation:
        """Begin an evaluation; the same one that was not ended is returned. Raises StoreError."""
        with self.database.writing() as db:
            begun = select(EvaluationTable).where(
                col(EvaluationTable.ended_at).is_(None),
                col(EvaluationTable.cohort_digest) == evaluation.cohort_digest,
            )
            for row in db.exec(begun):
                earlier = _evaluation(row)
                if (earlier.identity, earlier.against) == (evaluation.identity, evaluation.against):
                    return earlier
            db.add(
                EvaluationTable(
                    id=evaluation.id,
                    began_at=evaluation.began_at,
                    identity=asdict(evaluation.identity),
                    against=asdict(evaluation.against) if evaluation.against else None,
                    cohort_digest=evaluation.cohort_digest,
                    charts=evaluation.charts,
                    report="{}",
                )
            )
        return evaluation

    def end(self, evaluation: EvaluationId, at: datetime, report: Mapping[str, Any]) -> None:
        """Keep what an evaluation came to. Raises StoreError."""
        with self.database.writing() as db:
            row = db.get(EvaluationTable, evaluation)
            if row is None:
                raise StoreError("There is no such evaluation.")
            row.ended_at, row.report = at, msgspec.json.encode(report).decode()

    def evaluations(self, limit: int = 20) -> Sequence[Evaluation]:
        """Return evaluations that ended, newest first. Raises StoreError."""
        wanted = (
            select(EvaluationTable)
            .where(col(EvaluationTable.ended_at).is_not(None))
            .order_by(col(EvaluationTable.ended_at).desc(), col(EvaluationTable.id))
            .limit(limit)
        )
        with self.database.reading() as db:
            return [_evaluation(row) for row in db.exec(wanted)]

    def get_evaluation(self, evaluation: EvaluationId) -> Evaluation | None:
        """Return one evaluation, ended or not, or None. Raises StoreError."""
        with self.database.reading() as db:
            row = db.get(EvaluationTable, evaluation)
            return None if row is None else _evaluation(row)

    def cohort_digest(self, named: str) -> str:
        """Return the keyed hash by which a cohort is known again."""
        return self.database.cipher.keyed_hash("cohort", named)

    def _ward_hash(self, ward: str) -> str:
        return self.database.cipher.keyed_hash("measured ward", ward) if ward != NO_WARD else NO_WARD


def shred_shadows(db: Session, patient_hash: str) -> None:
    """Delete the shadow runs about a patient, in this transaction."""
    db.execute(delete(ShadowTable).where(col(ShadowTable.patient_hash) == patient_hash))


def _insert_once(db: Session, table: Any, values: Mapping[str, Any]) -> None:
    insert: Any = postgresql.insert if db.get_bind().dialect.name == "postgresql" else sqlite.insert
    db.connection().execute(insert(table).values(**values).on_conflict_do_nothing())


def _uncounted(wanted: Any) -> Any:
    counted = select(MeasureTable.run_id)
    return wanted.where(col(RunTable.state) != RunState.FAILED.value, col(RunTable.run_id).not_in(counted))


def _since(week: str) -> Any:
    return (col(MeasureTable.week) >= week) & (col(MeasureTable.week) != _CANNOT_BE_COUNTED)


def _wards(db: Session) -> Mapping[str, str]:
    return {row.ward_hash: row.name for row in db.exec(select(WardTable))}


def _group(row: Sequence[str], wards: Mapping[str, str]) -> Group:
    week, model, digest, prompt, ward = row
    return Group(week, model, digest, prompt, wards.get(ward, NO_WARD))


def _counts(row: Sequence[Any]) -> Counts:
    numbers: dict[str, Any] = dict(zip(NUMBERS, map(int, row), strict=True))
    return Counts(**numbers)


def _shadow(row: ShadowTable) -> Shadow:
    try:
        content = msgspec.json.decode(row.content, type=_Content)
    except (msgspec.MsgspecError, ValueError):
        raise StoreError("A stored shadow run cannot be read.") from None
    run = decode_run(content.run)
    if run.run_id != row.run_id:
        raise StoreError("A stored shadow run was changed.", "Restore the database from its backup.")
    return Shadow(EvaluationId(row.evaluation), row.arm, run, content.counts, content.told, content.required)


def _evaluation(row: EvaluationTable) -> Evaluation:
    report: dict[str, Any] = {}
    with suppress(msgspec.MsgspecError):
        report = msgspec.json.decode(row.report, type=dict[str, Any])
    return Evaluation(
        id=EvaluationId(row.id),
        began_at=row.began_at,
        identity=Identity(**row.identity),
        against=Identity(**row.against) if row.against else None,
        cohort_digest=row.cohort_digest,
        charts=row.charts,
        ended_at=row.ended_at,
        report=report,
    )
