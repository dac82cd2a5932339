"""Admissions, what was heard of them, ticks and workers, in the database. Every failure is a StoreError.

An admission is sealed under its patient's data key. An event may name several patients, or one by a number
that was not looked up yet: events, and where a source stands, are sealed under the house's, and what an event
said is overwritten as soon as somebody acted on it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import delete, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, func, select

from service.errors import ShreddedError, StoreError
from service.ports import SHREDDED, Admission, Clock, Heard, Right, Standing, Tick, WorkerRow
from service.store.admission_tables import (
    AdmissionTable,
    HeardTable,
    PausedTable,
    SourceTable,
    TickTable,
    WorkerTable,
)
from service.store.cipher import Cipher
from service.store.database import Database

_DECODER = msgspec.json.Decoder(Admission)
_STAY, _SERVER, _EVENT = "stay", "server", "event"
_NUDGES = "nudges"
MOST_TRIES = 200
"""After so many, some hours, an event is left alone: what cannot be acted on would be tried for ever."""


class SqlAdmissions:
    """The AdmissionStore on a database."""

    def __init__(self, url: str, cipher: Cipher, clock: Clock) -> None:
        self.database = Database(url, cipher)
        self._clock = clock

    @classmethod
    def on(cls, database: Database, clock: Clock) -> SqlAdmissions:
        """Return the admissions in an open database, which stays its owner's to close."""
        self = cls.__new__(cls)
        self.database, self._clock = database, clock
        return self

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def find_admission(self, server: str, encounter: str) -> Admission | None:
        """Return the admission of this stay, or None. Raises StoreError."""
        with self.database.reading() as session:
            return _one(session, col(AdmissionTable.stay_hash) == self._stay(server, encounter))

    def get_admission(self, admission_id: str) -> Admission | None:
        """Return an admission by its id, or None. Raises StoreError."""
        with self.database.reading() as session:
            return _one(session, col(AdmissionTable.admission_id) == admission_id)

    def put_admission(self, admission: Admission) -> None:
        """Keep an admission, in place of what was known of its stay. Raises StoreError.

        Of a patient whose data key was destroyed nothing is kept but that the stay has ended for us.
        """
        with self.database.writing() as session:
            self._put(session, admission)

    def change_admission(self, admission_id: str, change: Callable[[Admission], Admission]) -> Admission:
        """Read, change and keep an admission in one transaction. Raises StoreError where there is none."""
        with self.database.writing() as session:
            before = _one(session, col(AdmissionTable.admission_id) == admission_id, lock=True)
            if before is None:
                raise StoreError("This admission is not known.", "List them with `epicrisis admissions`.")
            after = change(before)
            return self._put(session, after) if after != before else after

    def admissions(self, server: str, *, is_open: bool = True) -> Sequence[Admission]:
        """Return every admission of a server that goes on, or all, oldest first. Raises StoreError."""
        wanted = select(AdmissionTable.content).where(
            col(AdmissionTable.server_hash) == self._hash(_SERVER, server)
        )
        if is_open:
            wanted = wanted.where(col(AdmissionTable.is_open).is_(True))
        with self.database.reading() as session:
            found = session.exec(wanted.order_by(col(AdmissionTable.id)))
            return [admission_of(content) for content in found if content]

    def hear(self, events: Sequence[tuple[str, bytes]], source: str = "", cursor: bytes | None = None) -> int:
        """Keep events and the source's next cursor in one transaction; return how many are new."""
        new = 0
        with self.database.writing() as session:
            for key, content in events:
                hashed = self._hash(_EVENT, key) if key else None
                if hashed is not None and _is_heard(session, hashed):
                    continue
                new += 1
                session.add(
                    HeardTable(
                        key_hash=hashed, is_heeded=False, tries=0, at=self._clock(), content=content.decode()
                    )
                )
                session.flush()
            if source and cursor is not None:
                session.merge(SourceTable(name=source, cursor=base64.b85encode(cursor).decode()))
        return new

    def unheeded(self, limit: int = 100) -> Sequence[Heard]:
        """Return events that nobody acted on yet, those tried least first, then the oldest."""
        wanted = (
            select(HeardTable)
            .where(col(HeardTable.is_heeded).is_(False))
            .order_by(col(HeardTable.tries), col(HeardTable.id))
            .limit(limit)
        )
        with self.database.reading() as session:
            return [Heard(row.id or 0, row.content.encode(), row.tries) for row in session.exec(wanted)]

    def heed(self, heard_id: int, *, again: bool = False) -> None:
        """Note that an event was acted on; with `again`, that it is to be tried again, within limits."""
        with self.database.writing() as session:
            row = session.get(HeardTable, heard_id)
            if row is not None:
                row.tries += 1
                row.is_heeded = not again or row.tries >= MOST_TRIES
                if row.is_heeded:
                    row.content = ""

    def cursor(self, source: str) -> bytes | None:
        """Return where a source stands, or None at its beginning. Raises StoreError."""
        with self.database.reading() as session:
            row = session.get(SourceTable, source)
            return None if row is None else base64.b85decode(row.cursor)

    def nudge(self) -> None:
        """Ask whoever watches the admissions to look now. Raises StoreError."""
        with self.database.writing() as session:
            row = session.get(SourceTable, _NUDGES)
            count = 1 + (int(row.cursor) if row is not None else 0)
            session.merge(SourceTable(name=_NUDGES, cursor=str(count)))

    def nudges(self) -> int:
        """Return how often that was asked for, ever. Raises StoreError."""
        with self.database.reading() as session:
            row = session.get(SourceTable, _NUDGES)
            return 0 if row is None else int(row.cursor)

    def begin_tick(self, tick: Tick) -> bool:
        """Keep a tick that begins; False where there was one of this id. Raises StoreError."""
        with self.database.writing() as session:
            if session.get(TickTable, tick.id) is not None:
                return False
            session.add(
                TickTable(
                    id=tick.id, schedule=tick.schedule, started_at=tick.started_at, report=dict(tick.report)
                )
            )
        return True

    def end_tick(self, tick_id: str, at: datetime, report: Mapping[str, Any]) -> None:
        """Note how a tick ended. Raises StoreError."""
        with self.database.writing() as session:
            row = session.get(TickTable, tick_id)
            if row is not None:
                row.finished_at, row.report = at, dict(report)

    def last_tick(self, schedule: str) -> Tick | None:
        """Return the newest tick of a schedule, or None. Raises StoreError."""
        newest = (
            select(TickTable)
            .where(col(TickTable.schedule) == schedule)
            .order_by(col(TickTable.started_at).desc(), col(TickTable.id).desc())
            .limit(1)
        )
        with self.database.reading() as session:
            row = session.exec(newest).first()
            if row is None:
                return None
            return Tick(row.id, row.schedule, row.started_at, row.finished_at, row.report)

    def pause(self, schedule: str, is_paused: bool, by: str, at: datetime) -> None:
        """Pause a schedule, or let it go on. Raises StoreError."""
        with self.database.writing() as session:
            if is_paused:
                session.merge(PausedTable(schedule=schedule, by=by, since=at))
            else:
                session.exec(delete(PausedTable).where(col(PausedTable.schedule) == schedule))

    def paused(self) -> Mapping[str, tuple[str, datetime]]:
        """Return what is paused: schedule → by whom, since when. Raises StoreError."""
        with self.database.reading() as session:
            return {row.schedule: (row.by, row.since) for row in session.exec(select(PausedTable))}

    def beat(self, worker: WorkerRow) -> None:
        """Keep a sign of life. Raises StoreError."""
        with self.database.writing() as session:
            session.merge(
                WorkerTable(
                    id=worker.id, beats=worker.beats, started_at=worker.started_at, beat_at=worker.beat_at,
                    version=worker.version,
                )
            )  # fmt: skip

    def workers(self) -> Sequence[WorkerRow]:
        """Return every worker that gave a sign of life and was not dismissed. Raises StoreError."""
        with self.database.reading() as session:
            rows = session.exec(select(WorkerTable).order_by(col(WorkerTable.id)))
            return [WorkerRow(row.id, row.beats, row.started_at, row.beat_at, row.version) for row in rows]

    def dismiss(self, worker_id: str) -> None:
        """Forget a worker. Raises StoreError."""
        with self.database.writing() as session:
            session.exec(delete(WorkerTable).where(col(WorkerTable.id) == worker_id))

    def hold(self, key: str) -> Right | None:
        """Return a right that ends with the process, or None where another has it. Raises StoreError."""
        return self.database.hold(key)

    def forget_before(self, before: datetime) -> int:
        """Delete ended admissions, heeded events and ticks that are older. Raises StoreError."""
        old = (
            delete(AdmissionTable).where(
                col(AdmissionTable.is_open).is_(False), col(AdmissionTable.since) < before
            ),
            delete(HeardTable).where(col(HeardTable.is_heeded).is_(True), col(HeardTable.at) < before),
            delete(TickTable).where(col(TickTable.started_at) < before, ~_is_last_tick()),
        )
        with self.database.writing() as session:
            return sum(session.exec(statement).rowcount for statement in old)

    def shred(self, session: Session, patient: str) -> None:
        """Overwrite the admissions of a patient, and forget what was heard of them, in this transaction.

        A source whose cursor names the patient begins again. Call it before the key is destroyed. Raises
        StoreError.
        """
        for content in session.exec(select(AdmissionTable.content)).all():
            admission = admission_of(content) if content else None
            if admission is not None and admission.patient == patient:
                self._keep(session, admission, _shredded(admission))
        session.exec(update(HeardTable).where(col(HeardTable.is_heeded).is_(True)).values(content=""))
        named = re.compile(rf"(?<![A-Za-z0-9]){re.escape(patient)}(?![A-Za-z0-9.-])")
        for row in session.exec(select(HeardTable).where(col(HeardTable.is_heeded).is_(False))).all():
            if named.search(row.content):
                session.delete(row)
        for source in session.exec(select(SourceTable)).all():
            if source.name != _NUDGES and named.search(
                base64.b85decode(source.cursor).decode(errors="replace")
            ):
                session.delete(source)

    def _put(self, session: Session, admission: Admission) -> Admission:
        """Keep an admission under its patient's key, and return what was kept."""
        try:
            with self.database.sealing_for(admission.patient):
                self._keep(session, admission, admission)
                return admission
        except ShreddedError:
            self._keep(session, admission, left := _shredded(admission))
            return left

    def _keep(self, session: Session, of: Admission, said: Admission) -> None:
        """Keep what is said of an admission in the row of its stay."""
        values: dict[str, Any] = {
            "stay_hash": self._stay(of.server, of.encounter),
            "server_hash": self._hash(_SERVER, of.server),
            "is_open": said.is_open,
            "since": said.since,
            "content": msgspec.json.encode(said).decode(),
        }
        same = col(AdmissionTable.admission_id) == of.id
        if not session.exec(update(AdmissionTable).where(same).values(**values)).rowcount:
            session.add(AdmissionTable(admission_id=of.id, **values))

    def _stay(self, server: str, encounter: str) -> str:
        return self._hash(_STAY, f"{server} {encounter}")

    def _hash(self, purpose: str, value: str) -> str:
        return self.database.cipher.keyed_hash(purpose, value)


def _is_last_tick() -> Any:
    """The newest tick of each schedule stays: missed ones are counted from it."""
    other = aliased(TickTable)
    newest = select(func.max(other.started_at)).where(col(other.schedule) == col(TickTable.schedule))
    return col(TickTable.started_at) == newest.correlate(TickTable).scalar_subquery()


def _one(session: Session, condition: Any, *, lock: bool = False) -> Admission | None:
    wanted = select(AdmissionTable.content).where(condition)
    content = session.exec(wanted.with_for_update() if lock else wanted).first()
    return None if content is None else admission_of(content)


def _shredded(admission: Admission) -> Admission:
    """Return what is left of the admission of a patient whose data key was destroyed."""
    return Admission(
        admission.id,
        admission.server,
        "",
        "",
        standing=Standing.ENDED,
        reason=SHREDDED,
        since=admission.since,
    )


def admission_of(content: str | bytes) -> Admission:
    """Return the admission of a stored text. Raises StoreError; ShreddedError for none."""
    if not content:
        raise ShreddedError
    try:
        return _DECODER.decode(content)
    except msgspec.MsgspecError:
        raise StoreError("What is stored of an admission cannot be read.") from None


def _is_heard(session: Session, key_hash: str) -> bool:
    return session.exec(select(HeardTable.id).where(col(HeardTable.key_hash) == key_hash)).first() is not None
