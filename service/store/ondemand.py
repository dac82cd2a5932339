"""Generations in the database: what was asked and told sealed under its patient's key, found by keyed hash.

Whoever makes one holds a lock that ends with its process; each change of its row says who that is, so that
one who was taken for gone adds nothing any more. No clocks are compared: who follows raises a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Column, Index, UniqueConstraint, delete, literal, or_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Field, Session, SQLModel, col, select

from service.errors import StoreError
from service.ports import LASTING
from service.ports.held import Right
from service.ports.ondemand import (
    Asked,
    Generation,
    GenerationId,
    GenerationState,
    Maker,
    Taken,
    Told,
    ToldKind,
)
from service.store.cipher import Cipher
from service.store.columns import Encrypted, UtcInstant
from service.store.database import Database

UNDER_WAY: Final = (GenerationState.QUEUED.value, GenerationState.RUNNING.value)
_TRIES: Final = 5


class GenerationTable(SQLModel, table=True):
    """One generation. `flight_hash` is there while it is under way: no two of the same inputs are."""

    __tablename__ = "epicrisis_generation"
    __table_args__ = (
        UniqueConstraint("generation_id", name="uq_epicrisis_generation_generation_id"),
        UniqueConstraint("flight_hash", name="uq_epicrisis_generation_flight"),
        Index("ix_epicrisis_generation_chart", "chart_hash", "number"),
        Index("ix_epicrisis_generation_patient", "patient_hash"),
        Index("ix_epicrisis_generation_ended", "ended_at"),
    )

    number: int | None = Field(default=None, primary_key=True)
    generation_id: str
    flight_hash: str | None = None
    chart_hash: str
    """Of server, patient and reader."""
    patient_hash: str
    state: str
    stage: str = ""
    attempt: int
    run_id: str = ""
    error: str = ""
    maker: str
    slot: int
    makers: int = 1
    beat: int = 0
    wanted: bool = True
    created_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    ended_at: datetime | None = Field(default=None, sa_column=Column(UtcInstant, nullable=True))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_generation.content"), nullable=False))


class ToldTable(SQLModel, table=True):
    """One event of a generation's log. The sealed content repeats whose it is, and its number."""

    __tablename__ = "epicrisis_told"
    __table_args__ = (
        UniqueConstraint("generation_id", "seq", name="uq_epicrisis_told_seq"),
        Index("ix_epicrisis_told_patient", "patient_hash"),
    )

    id: int | None = Field(default=None, primary_key=True)
    generation_id: str
    seq: int
    patient_hash: str
    kind: str
    content: str = Field(sa_column=Column(Encrypted("epicrisis_told.content"), nullable=False))


class AnswerTable(SQLModel, table=True):
    """What one idempotency key was answered with."""

    __tablename__ = "epicrisis_answer"
    __table_args__ = (
        Index("ix_epicrisis_answer_patient", "patient_hash"),
        Index("ix_epicrisis_answer_at", "at"),
    )

    key_hash: str = Field(primary_key=True)
    patient_hash: str
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_answer.content"), nullable=False))


class _Content(msgspec.Struct, frozen=True):
    id: str
    asked: Asked


class _Event(msgspec.Struct, frozen=True):
    id: str
    seq: int
    data: dict[str, Any]


class _Answer(msgspec.Struct, frozen=True):
    key_hash: str
    body: str
    answer: str


class SqlGenerations:
    """The GenerationStore in a database, which may be the store's."""

    def __init__(self, url: str, cipher: Cipher) -> None:
        self.database = Database(url, cipher)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def under_way(self, asked: Asked) -> Generation | None:
        """Return the generation that is under way for the same inputs, or None. Raises StoreError."""
        with self.database.reading() as db:
            return self._in_flight(db, self._flight(asked))

    def join(self, generation: Generation, maker: Maker) -> Generation:
        """Keep a new one, or return the one that is under way for the same inputs. Raises StoreError."""
        asked, flight = generation.asked, self._flight(generation.asked)
        for _ in range(_TRIES):  # the one under way may end between a look and the next
            with self.database.writing(alone=False, about=asked.patient) as db:
                self._give_up_slot(db, maker.slot)
                insert: Any = postgresql.insert if _is_postgres(db) else sqlite.insert
                row = insert(GenerationTable).values(
                    generation_id=generation.id, flight_hash=flight, chart_hash=self._chart(asked),
                    patient_hash=self.database.hash_of(asked.patient), state=generation.state.value,
                    stage="", attempt=generation.attempt, run_id="", error="", maker=maker.name,
                    slot=maker.slot, makers=1, beat=0, wanted=True, created_at=generation.created_at,
                    content=_written(_Content(generation.id, asked)),
                )  # fmt: skip
                is_new = row.on_conflict_do_nothing(index_elements=["flight_hash"]).returning(literal(1))
                if db.connection().execute(is_new).first() is not None:
                    return generation
            with self.database.reading() as db:
                found = self._in_flight(db, flight)
            if found is not None:
                return found
        raise StoreError("What was asked for could not be begun.", "Ask again.")

    def get_generation(self, generation_id: GenerationId) -> Generation | None:
        """Return one, or None. Raises StoreError."""
        with self.database.reading() as db:
            return _whole(db.exec(select(GenerationTable).where(_is(generation_id))).one_or_none())

    def generations_about(
        self, server: str, patient: str, access_profile: str, limit: int = 20, before: int | None = None
    ) -> tuple[Sequence[Generation], int | None]:
        """Return a page about a patient as one reader sees it. Raises StoreError."""
        chart = self._chart(Asked(server.rstrip("/"), patient, "", "", access_profile, ""))
        wanted = select(GenerationTable).where(col(GenerationTable.chart_hash) == chart)
        if before is not None:
            wanted = wanted.where(col(GenerationTable.number) < before)
        with self.database.reading() as db:
            rows = db.exec(wanted.order_by(col(GenerationTable.number).desc()).limit(limit + 1)).all()
            found = [one for row in rows[:limit] if (one := _whole(row)) is not None]
            return found, rows[limit - 1].number if len(rows) > limit else None

    def begin(self, generation_id: GenerationId, maker: str) -> bool:
        """Say that it runs now; False where it is not this maker's any more. Raises StoreError."""
        with self.database.writing(alone=False) as db:
            row = _of_maker(generation_id, maker).where(col(GenerationTable.wanted).is_(True))
            return bool(db.connection().execute(row.values(state=GenerationState.RUNNING.value)).rowcount)

    def tell(self, generation_id: GenerationId, maker: str, events: Sequence[Told]) -> bool:
        """Add events to the log; False where it is not this maker's any more. Raises StoreError."""
        stages = [str(one.data.get("stage", "")) for one in events if one.kind is ToldKind.STAGE]
        values = {"stage": stages[-1]} if stages else {"maker": maker}
        with self.database.writing(alone=False) as db:
            return self._add(db, _of_maker(generation_id, maker).values(**values), generation_id, events)

    def end(self, generation: Generation, maker: str, last: Told, at: datetime) -> bool:
        """Keep how it ended, and its last event; False where it is not this maker's. Raises StoreError."""
        ended = _of_maker(generation.id, maker).values(
            state=generation.state.value, flight_hash=None, run_id=generation.run_id,
            error=generation.error, ended_at=at,
        )  # fmt: skip
        with self.database.writing(alone=False) as db:
            return self._add(db, ended, generation.id, (last,))

    def told(
        self, generation_id: GenerationId, after: int = 0
    ) -> tuple[Sequence[Told], GenerationState | None]:
        """Return the events that follow a number, and where it stands. Raises StoreError."""
        wanted = (
            select(ToldTable)
            .where(col(ToldTable.generation_id) == generation_id, col(ToldTable.seq) > after)
            .order_by(col(ToldTable.seq))
        )
        with self.database.reading() as db:
            state = db.exec(select(GenerationTable.state).where(_is(generation_id))).one_or_none()
            if state is None:
                return (), None
            return [_event(row) for row in db.exec(wanted) if row.content], GenerationState(state)

    def beat(self, generation_id: GenerationId) -> None:
        """Say that somebody follows. Raises StoreError."""
        with self.database.writing(alone=False) as db:
            row = update(GenerationTable).where(_is(generation_id), _is_under_way())
            db.connection().execute(row.values(beat=col(GenerationTable.beat) + 1))

    def beats(self, generation_id: GenerationId, maker: str) -> tuple[int, bool] | None:
        """Return how often somebody said so, and whether it is wanted; or None. Raises StoreError."""
        wanted = select(GenerationTable.beat, GenerationTable.wanted).where(
            _is(generation_id), col(GenerationTable.maker) == maker
        )
        with self.database.reading() as db:
            return db.exec(wanted).one_or_none()

    def stop(self, generation_id: GenerationId) -> None:
        """Say that it is not wanted any more. Raises StoreError."""
        with self.database.writing(alone=False) as db:
            row = update(GenerationTable).where(_is(generation_id), _is_under_way())
            db.connection().execute(row.values(wanted=False))

    def maker_of(self, generation_id: GenerationId) -> Maker | None:
        """Return who makes it, or None. Raises StoreError."""
        wanted = select(GenerationTable.maker, GenerationTable.slot).where(
            _is(generation_id), _is_under_way()
        )
        with self.database.reading() as db:
            found = db.exec(wanted).one_or_none()
        return None if found is None else Maker(*found)

    def take_over(self, generation_id: GenerationId, gone: Maker, maker: Maker) -> Taken | None:
        """Make it the next maker's; None where somebody else was first. Raises StoreError."""
        taken = _of_maker(generation_id, gone.name).values(
            maker=maker.name, slot=maker.slot, makers=col(GenerationTable.makers) + 1, beat=0
        )
        with self.database.writing(alone=False) as db:
            if not db.connection().execute(taken).rowcount:
                return None
            self._give_up_slot(db, maker.slot, but=generation_id)
            row = db.exec(select(GenerationTable).where(_is(generation_id))).one()
            generation, makers = _whole(row), row.makers
            events = [
                _event(one)
                for one in db.exec(
                    select(ToldTable)
                    .where(col(ToldTable.generation_id) == generation_id)
                    .order_by(col(ToldTable.seq))
                )
                if one.content
            ]
        if generation is None:
            return None
        claims = {
            (str(one.data.get("section")), str(one.data.get("text")))
            for one in events
            if one.kind is ToldKind.CLAIM
        }
        return Taken(generation, events[-1].seq if events else 0, frozenset(claims), makers)

    def forget_generations(self, before: datetime) -> int:
        """Delete what is over since then, with its log; and answers that are older. Raises StoreError."""
        over = or_(
            col(GenerationTable.ended_at) < before,
            col(GenerationTable.ended_at).is_(None) & (col(GenerationTable.created_at) < before),
        )
        old = select(GenerationTable.generation_id).where(over)
        with self.database.writing() as db:
            db.connection().execute(delete(ToldTable).where(col(ToldTable.generation_id).in_(old)))
            db.connection().execute(delete(AnswerTable).where(col(AnswerTable.at) < before))
            return db.connection().execute(delete(GenerationTable).where(over)).rowcount

    def hold_slot(self, slot: int) -> Right | None:
        """Return a lock that ends with its process, or None where another has it. Raises StoreError."""
        return self.database.hold(f"{LASTING}generation {slot}")

    def put_answer(self, key: str, body: str, answer: str, patient: str, at: datetime) -> None:
        """Keep what an idempotency key was answered with, unless it is kept already. Raises StoreError."""
        hashed = self._hash("idempotency", key)
        with self.database.writing(alone=False, about=patient) as db:
            insert: Any = postgresql.insert if _is_postgres(db) else sqlite.insert
            row = insert(AnswerTable).values(
                key_hash=hashed, patient_hash=self.database.hash_of(patient), at=at,
                content=_written(_Answer(hashed, body, answer)),
            )  # fmt: skip
            db.connection().execute(row.on_conflict_do_nothing())

    def get_answer(self, key: str, since: datetime) -> tuple[str, str] | None:
        """Return the body and the answer of an idempotency key, or None. Raises StoreError."""
        hashed = self._hash("idempotency", key)
        with self.database.writing(alone=False) as db:
            old = (col(AnswerTable.key_hash) == hashed, col(AnswerTable.at) <= since)
            db.connection().execute(delete(AnswerTable).where(*old))
            row = db.get(AnswerTable, hashed)
            content = "" if row is None else row.content
        if not content:
            return None
        said = _read(content, _Answer)
        if said.key_hash != hashed:
            raise StoreError("An answer in the store was changed.")
        return said.body, said.answer

    def _add(self, db: Session, change: Any, generation_id: str, events: Sequence[Told]) -> bool:
        """Make a change of a maker's row, and add events in the same transaction; False without a row."""
        changed = db.connection().execute(change.returning(col(GenerationTable.patient_hash))).first()
        if changed is None:
            return False
        with self.database.envelope.about(changed[0]):
            db.add_all(
                ToldTable(
                    generation_id=generation_id, seq=one.seq, patient_hash=changed[0], kind=one.kind.value,
                    content=_written(_Event(generation_id, one.seq, dict(one.data))),
                )
                for one in events
            )  # fmt: skip
        return True

    def _give_up_slot(self, db: Session, slot: int, but: str = "") -> None:
        """Note of others that the lock of their makers is free: whoever says so holds it."""
        others = col(GenerationTable.slot) == slot, col(GenerationTable.generation_id) != but
        db.connection().execute(update(GenerationTable).where(*others, _is_under_way()).values(slot=-1))

    def _in_flight(self, db: Session, flight: str) -> Generation | None:
        wanted = select(GenerationTable).where(col(GenerationTable.flight_hash) == flight)
        return _whole(db.exec(wanted).one_or_none())

    def _flight(self, asked: Asked) -> str:
        said = (asked.patient, asked.kind, asked.encounter, asked.access_profile, asked.attempt_wanted)
        return self._hash("generation", msgspec.json.encode((asked.server.rstrip("/"), *said)).decode())

    def _chart(self, asked: Asked) -> str:
        said = asked.server.rstrip("/"), asked.patient, asked.access_profile
        return self._hash("generations about", msgspec.json.encode(said).decode())

    def _hash(self, purpose: str, value: str) -> str:
        return self.database.cipher.keyed_hash(purpose, value)


def shred_generations(db: Session, patient_hash: str) -> None:
    """Delete what was asked and told about a patient, in this transaction. What is under way ends by it."""
    for table in (ToldTable, GenerationTable, AnswerTable):
        db.execute(delete(table).where(col(table.patient_hash) == patient_hash))


def _is(generation_id: str) -> Any:
    return col(GenerationTable.generation_id) == generation_id


def _is_under_way() -> Any:
    return col(GenerationTable.state).in_(UNDER_WAY)


def _of_maker(generation_id: str, maker: str) -> Any:
    return update(GenerationTable).where(
        _is(generation_id), col(GenerationTable.maker) == maker, _is_under_way()
    )


def _is_postgres(db: Session) -> bool:
    return db.get_bind().dialect.name == "postgresql"


def _whole(row: GenerationTable | None) -> Generation | None:
    """Return a generation; None for one whose patient's key was destroyed. Raises StoreError."""
    if row is None or not row.content:
        return None
    said = _read(row.content, _Content)
    if said.id != row.generation_id:
        raise StoreError("What was asked for was changed in the store.")
    return Generation(
        GenerationId(said.id), said.asked, GenerationState(row.state), row.created_at, row.attempt,
        row.stage, row.run_id, row.error,
    )  # fmt: skip


def _event(row: ToldTable) -> Told:
    said = _read(row.content, _Event)
    if (said.id, said.seq) != (row.generation_id, row.seq):
        raise StoreError("What was told of a summary was changed in the store.")
    return Told(row.seq, ToldKind(row.kind), said.data)


def _read(content: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, ValueError):
        raise StoreError("What is stored of a summary under way is damaged.") from None


def _written(content: msgspec.Struct) -> str:
    try:
        return msgspec.json.encode(content).decode()
    except UnicodeError:  # half of a surrogate pair is no text
        raise StoreError("What is to be told holds something that cannot be stored as text.") from None
