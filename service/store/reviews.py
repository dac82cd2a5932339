"""Reviews in the database: a queue, reviews, and what was done in each, one row an act.

All that reviewers wrote, and every planted error, is sealed under its patient's key, and each sealed content
repeats where it belongs: moved to another row, it opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Column, ColumnElement, ForeignKey, Index, Integer, UniqueConstraint, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Field, Session, SQLModel, col, func, select

from service.errors import StoreError
from service.ports import RunId, RunState
from service.ports.reviews import (
    ActKind,
    Candidate,
    Form,
    Omission,
    Outcome,
    QueueEntry,
    Review,
    Rule,
    Score,
    Seeded,
    Support,
)
from service.record.facts import FactId
from service.store.cipher import Cipher
from service.store.columns import Encrypted, UtcInstant
from service.store.database import Database
from service.store.tables import RunTable

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class ReviewEntryTable(SQLModel, table=True):
    """One run in the queue."""

    __tablename__ = "epicrisis_review_entry"
    __table_args__ = (
        UniqueConstraint("run_id", name="uq_epicrisis_review_entry_run"),
        Index("ix_epicrisis_review_entry_added", "added_at", "id"),
        Index("ix_epicrisis_review_entry_patient", "patient_hash"),
    )

    id: int | None = Field(default=None, primary_key=True)
    run_id: str
    patient_hash: str
    rule: str
    wanted: int
    added_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_review_entry.content"), nullable=False))


class ReviewSeenTable(SQLModel, table=True):
    """One run on which sampling has decided."""

    __tablename__ = "epicrisis_review_seen"

    run_id: str = Field(primary_key=True)


class ReviewTable(SQLModel, table=True):
    """One reviewer's review of one run, from its beginning to its end."""

    __tablename__ = "epicrisis_review"
    __table_args__ = (
        UniqueConstraint("run_id", "reviewer_hash", name="uq_epicrisis_review_run"),
        Index("ix_epicrisis_review_ended", "ended_at", "id"),
        Index("ix_epicrisis_review_patient", "patient_hash"),
    )

    id: int | None = Field(default=None, primary_key=True)
    run_id: str
    reviewer_hash: str
    patient_hash: str
    rule: str
    began_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    ended_at: datetime | None = Field(default=None, sa_column=Column(UtcInstant, nullable=True))
    outcome: str | None = None
    content: str = Field(sa_column=Column(Encrypted("epicrisis_review.content"), nullable=False))
    ended: str | None = Field(
        default=None, sa_column=Column(Encrypted("epicrisis_review.ended"), nullable=True)
    )


class ReviewActTable(SQLModel, table=True):
    """One act in a review. Of acts about the same thing the last one that was not undone counts."""

    __tablename__ = "epicrisis_review_act"
    __table_args__ = (
        Index("ix_epicrisis_review_act_review", "review", "id"),
        Index("ix_epicrisis_review_act_patient", "patient_hash"),
    )

    id: int | None = Field(default=None, primary_key=True)
    review: int = Field(
        sa_column=Column(
            Integer,
            ForeignKey("epicrisis_review.id", name="fk_epicrisis_review_act_review"),
            nullable=False,
        )
    )
    patient_hash: str
    kind: str
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    undone_at: datetime | None = Field(default=None, sa_column=Column(UtcInstant, nullable=True))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_review_act.content"), nullable=False))


class _Why(msgspec.Struct, frozen=True):
    run_id: str
    patient: str
    why: str


class _Content(msgspec.Struct, frozen=True):
    run_id: str
    reviewer: str
    by: str
    patient: str
    seeded_ordinal: int = -1
    seeded_kind: str = ""
    seeded_text: str = ""


class _Ended(msgspec.Struct, frozen=True):
    run_id: str
    reason: str


class _Act(msgspec.Struct, frozen=True, omit_defaults=True):
    review: int
    kind: str
    ordinal: int = -1
    support: str = ""
    words: str = ""
    fact: str = ""
    claim: str = ""
    answers: dict[str, int] = {}


class SqlReviews:
    """The ReviewStore in a database, which may be the store's."""

    def __init__(self, url: str, cipher: Cipher) -> None:
        self.database = Database(url, cipher)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def candidates(self, since: datetime, limit: int, first: int) -> Sequence[Candidate]:
        """Return runs that sampling has not looked at, oldest first. Raises StoreError."""
        wanted = (
            select(RunTable.run_id, RunTable.created_at, RunTable.model_digest, RunTable.template_digest)
            .outerjoin(ReviewSeenTable, col(ReviewSeenTable.run_id) == col(RunTable.run_id))
            .where(col(ReviewSeenTable.run_id).is_(None), *_is_usable(), col(RunTable.created_at) >= since)
            .order_by(col(RunTable.created_at), col(RunTable.id))
            .limit(limit)
        )
        with self.database.reading() as db:
            rows = db.execute(wanted).all()
            versions = {(model, template) for _, _, model, template in rows}
            places = {
                run: place for one in versions for place, run in enumerate(_first_of(db, one, first), 1)
            }
        return [Candidate(RunId(run), at, places.get(run, 0)) for run, at, _, _ in rows]

    def looked_at(self, run_ids: Sequence[RunId]) -> None:
        """Note that sampling has decided on these runs. Raises StoreError."""
        if not run_ids:
            return
        with self.database.writing(alone=False) as db:
            db.connection().execute(
                _insert(db)(ReviewSeenTable)
                .values([{"run_id": run_id} for run_id in run_ids])
                .on_conflict_do_nothing()
            )

    def enqueue(self, entry: QueueEntry) -> bool:
        """Put a run into the queue; False where it is there already. Raises ShreddedError, StoreError."""
        content = _Why(entry.run_id, entry.patient, entry.why)
        with self.database.writing(about=entry.patient) as db:
            row = db.exec(_entry(entry.run_id)).one_or_none()
            if row is not None:
                row.wanted = max(row.wanted, entry.wanted)
                return False
            db.add(
                ReviewEntryTable(
                    run_id=entry.run_id, patient_hash=self.database.hash_of(entry.patient),
                    rule=entry.rule.value, wanted=entry.wanted, added_at=entry.added_at,
                    content=_written(content),
                )
            )  # fmt: skip
        return True

    def queue(self, limit: int = 50, offset: int = 0, rule: Rule | None = None) -> Sequence[QueueEntry]:
        """Return entries that are not done, oldest first. Raises StoreError."""
        of_rule = () if rule is None else (col(ReviewEntryTable.rule) == rule.value,)
        wanted = (
            select(ReviewEntryTable)
            .where(_is_waiting(), *of_rule)
            .order_by(col(ReviewEntryTable.added_at), col(ReviewEntryTable.id))
            .limit(limit)
            .offset(offset)
        )
        with self.database.reading() as db:
            return [self._listed(db, row) for row in db.exec(wanted) if row.content]

    def waiting(self) -> Mapping[Rule, int]:
        """Count the entries that are not done, by rule. Raises StoreError."""
        wanted = select(ReviewEntryTable.rule, func.count()).where(_is_waiting())
        with self.database.reading() as db:
            rows = db.execute(wanted.group_by(col(ReviewEntryTable.rule))).all()
        return {Rule(rule): count for rule, count in rows}

    def entry_of(self, run_id: RunId) -> QueueEntry | None:
        """Return the entry of a run, or None. Raises StoreError."""
        with self.database.reading() as db:
            row = db.exec(_entry(run_id)).one_or_none()
            return None if row is None or not row.content else self._listed(db, row)

    def begin(self, review: Review) -> Review:
        """Begin a review; one that was begun is returned as it is. Raises ShreddedError, StoreError."""
        seeded = review.seeded
        content = _Content(review.run_id, review.reviewer, review.by, review.patient)
        if seeded is not None:
            content = msgspec.structs.replace(
                content, seeded_ordinal=seeded.ordinal, seeded_kind=seeded.kind, seeded_text=seeded.text
            )
        with self.database.writing(about=review.patient) as db:
            row = db.exec(self._review(review.run_id, review.reviewer)).one_or_none()
            if row is None:
                row = ReviewTable(
                    run_id=review.run_id, reviewer_hash=self._actor(review.reviewer),
                    patient_hash=self.database.hash_of(review.patient), rule=review.rule.value,
                    began_at=review.began_at, content=_written(content),
                )  # fmt: skip
                db.add(row)
                db.flush()
            return _whole(db, row)

    def keep_score(self, score: Score) -> None:
        """Keep a score. Raises StoreError where no such review is open."""
        act = _Act(0, ActKind.SCORE, score.ordinal, score.support, score.words)
        self._keep(score.run_id, score.reviewer, score.at, act)

    def keep_seeded(
        self, run_id: RunId, reviewer: str, support: Support, at: datetime, words: str = ""
    ) -> None:
        """Keep the score of the planted error. Raises StoreError where no such review is open."""
        self._keep(run_id, reviewer, at, _Act(0, ActKind.SEEDED, support=support, words=words))

    def keep_form(self, form: Form) -> None:
        """Keep a form in place of the one before. Raises StoreError where no such review is open."""
        act = _Act(0, ActKind.FORM, words=form.words, answers=dict(form.answers))
        self._keep(form.run_id, form.reviewer, form.at, act)

    def keep_omission(self, omission: Omission) -> None:
        """Keep one omission. Raises StoreError where no such review is open."""
        act = _Act(0, ActKind.OMISSION, words=omission.words, fact=omission.fact)
        self._keep(omission.run_id, omission.reviewer, omission.at, act)

    def keep_dispute(self, run_id: RunId, reviewer: str, claim: str, at: datetime) -> None:
        """Note that the reviewer disputed a claim. Raises StoreError where no such review is open."""
        self._keep(run_id, reviewer, at, _Act(0, ActKind.DISPUTE, claim=claim))

    def undo(self, run_id: RunId, reviewer: str, at: datetime) -> tuple[ActKind, str] | None:
        """Take back the last act of an open review, and return what it was. Raises StoreError."""
        with self._open(run_id, reviewer) as (db, row):
            last = db.exec(_acts(row).order_by(col(ReviewActTable.id).desc()).limit(1)).one_or_none()
            if last is None:
                return None
            last.undone_at = at
            act = _act(last)
            return ActKind(act.kind), act.claim

    def finish(self, run_id: RunId, reviewer: str, outcome: Outcome, reason: str, at: datetime) -> Review:
        """End an open review and return it. Raises StoreError where no such review is open."""
        with self._open(run_id, reviewer) as (db, row):
            row.ended_at, row.outcome = at, outcome.value
            row.ended = _written(_Ended(run_id, reason))
            db.flush()
            return _whole(db, row)

    def reviews_of(self, run_id: RunId) -> Sequence[Review]:
        """Return all reviews of a run, in the order in which they began. Raises StoreError."""
        return self._all(col(ReviewTable.run_id) == run_id, order=(ReviewTable.began_at, ReviewTable.id))

    def reviews(self, since: datetime, until: datetime) -> Sequence[Review]:
        """Return the reviews that were finished in this span, oldest first. Raises StoreError."""
        ended = col(ReviewTable.ended_at)
        return self._all(ended >= since, ended < until, order=(ReviewTable.ended_at, ReviewTable.id))

    def _all(self, *conditions: ColumnElement[bool], order: tuple[Any, ...]) -> list[Review]:
        wanted = select(ReviewTable).where(*conditions).order_by(*map(col, order))
        with self.database.reading() as db:
            return [_whole(db, row) for row in db.exec(wanted).all() if row.content]

    def _keep(self, run_id: RunId, reviewer: str, at: datetime, act: _Act) -> None:
        with self._open(run_id, reviewer) as (db, row):
            assert row.id is not None
            db.add(
                ReviewActTable(
                    review=row.id,
                    patient_hash=row.patient_hash,
                    kind=act.kind,
                    at=at,
                    content=_written(msgspec.structs.replace(act, review=row.id)),
                )
            )

    @contextmanager
    def _open(self, run_id: RunId, reviewer: str) -> Iterator[tuple[Session, ReviewTable]]:
        """Write in an open review, sealed under its patient's key. Raises StoreError where there is none."""
        with self.database.writing() as db:
            row = db.exec(self._review(run_id, reviewer)).one_or_none()
            if row is None or row.ended_at is not None:
                raise StoreError("This review is not open.")
            with self.database.envelope.about(row.patient_hash):
                yield db, row

    def _review(self, run_id: RunId, reviewer: str) -> Any:
        return select(ReviewTable).where(
            col(ReviewTable.run_id) == run_id, col(ReviewTable.reviewer_hash) == self._actor(reviewer)
        )

    def _listed(self, db: Session, row: ReviewEntryTable) -> QueueEntry:
        why = _read(row.content, _Why)
        if why.run_id != row.run_id:
            raise StoreError("An entry of the review queue was changed.")
        begun = select(ReviewTable).where(col(ReviewTable.run_id) == row.run_id)
        reviews = [one for one in db.exec(begun.order_by(col(ReviewTable.id))) if one.content]
        return QueueEntry(
            run_id=RunId(row.run_id),
            rule=Rule(row.rule),
            why=why.why,
            added_at=row.added_at,
            patient=why.patient,
            wanted=row.wanted,
            done=sum(one.ended_at is not None for one in reviews),
            reviewers=tuple(_content(one).reviewer for one in reviews),
        )

    def _actor(self, reviewer: str) -> str:
        return self.database.cipher.keyed_hash("reviewer", reviewer)


def shred_reviews(db: Session, patient_hash: str) -> None:
    """Delete what reviewers found in a patient's summaries, in this transaction."""
    for table in (ReviewActTable, ReviewTable, ReviewEntryTable):
        db.execute(delete(table).where(col(table.patient_hash) == patient_hash))


def _is_usable() -> tuple[ColumnElement[bool], ...]:
    return (col(RunTable.state) != RunState.FAILED.value,)


def _first_of(db: Session, version: tuple[str, str], count: int) -> list[str]:
    """Return the first runs of a model and prompt version, oldest first."""
    model, template = version
    wanted = (
        select(RunTable.run_id)
        .where(col(RunTable.model_digest) == model, col(RunTable.template_digest) == template, *_is_usable())
        .order_by(col(RunTable.created_at), col(RunTable.id))
        .limit(count)
    )
    return list(db.exec(wanted))


def _insert(db: Session) -> Any:
    return postgresql.insert if db.get_bind().dialect.name == "postgresql" else sqlite.insert


def _entry(run_id: str) -> Any:
    return select(ReviewEntryTable).where(col(ReviewEntryTable.run_id) == run_id)


def _is_waiting() -> ColumnElement[bool]:
    done = (
        select(func.count())
        .select_from(ReviewTable)
        .where(
            col(ReviewTable.run_id) == col(ReviewEntryTable.run_id), col(ReviewTable.ended_at).is_not(None)
        )
        .correlate(ReviewEntryTable)
        .scalar_subquery()
    )
    return done < col(ReviewEntryTable.wanted)


def _acts(row: ReviewTable) -> Any:
    return select(ReviewActTable).where(
        col(ReviewActTable.review) == row.id, col(ReviewActTable.undone_at).is_(None)
    )


def _whole(db: Session, row: ReviewTable) -> Review:
    content = _content(row)
    ended = _read(row.ended, _Ended) if row.ended else None
    if ended is not None and ended.run_id != row.run_id:
        raise StoreError("A stored review was changed.")
    acts = [(one.at, _act(one)) for one in db.exec(_acts(row).order_by(col(ReviewActTable.id)))]
    return Review(
        run_id=RunId(row.run_id),
        reviewer=content.reviewer,
        rule=Rule(row.rule),
        began_at=row.began_at,
        patient=content.patient,
        by=content.by,
        ended_at=row.ended_at,
        outcome=Outcome(row.outcome) if row.outcome else None,
        reason=ended.reason if ended is not None else "",
        scores=_scores(content, acts),
        form=_form(content, acts),
        omissions=tuple(
            Omission(RunId(row.run_id), content.reviewer, at, act.words, FactId(act.fact))
            for at, act in acts
            if act.kind == ActKind.OMISSION
        ),
        disputed=frozenset(act.claim for _, act in acts if act.kind == ActKind.DISPUTE),
        seeded=_seeded(content, acts),
        last=ActKind(acts[-1][1].kind) if acts else None,
    )


def _scores(content: _Content, acts: Sequence[tuple[datetime, _Act]]) -> tuple[Score, ...]:
    found = {
        act.ordinal: Score(
            RunId(content.run_id), act.ordinal, content.reviewer, at, Support(act.support), act.words
        )
        for at, act in acts
        if act.kind == ActKind.SCORE
    }
    return tuple(found[ordinal] for ordinal in sorted(found))


def _form(content: _Content, acts: Sequence[tuple[datetime, _Act]]) -> Form | None:
    forms = [
        Form(RunId(content.run_id), content.reviewer, at, act.answers, act.words)
        for at, act in acts
        if act.kind == ActKind.FORM
    ]
    return forms[-1] if forms else None


def _seeded(content: _Content, acts: Sequence[tuple[datetime, _Act]]) -> Seeded | None:
    if content.seeded_ordinal < 0:
        return None
    seeded = Seeded(
        RunId(content.run_id), content.reviewer, content.seeded_ordinal, content.seeded_kind,
        content.seeded_text,
    )  # fmt: skip
    said = [act for _, act in acts if act.kind == ActKind.SEEDED]
    return replace(seeded, support=Support(said[-1].support), words=said[-1].words) if said else seeded


def _content(row: ReviewTable) -> _Content:
    content = _read(row.content, _Content)
    if content.run_id != row.run_id:
        raise StoreError("A stored review was changed.")
    return content


def _act(row: ReviewActTable) -> _Act:
    act = _read(row.content, _Act)
    if (act.review, act.kind) != (row.review, row.kind):
        raise StoreError("A stored review was changed.")
    return act


def _read(content: str, kind: type[_Struct]) -> _Struct:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, ValueError):
        raise StoreError("A stored review is damaged.") from None


def _written(content: msgspec.Struct) -> str:
    try:
        return msgspec.json.encode(content).decode()
    except UnicodeError:  # half of a surrogate pair is no text
        raise StoreError("The review holds something that cannot be stored as text.") from None
