"""What is done to the keys of one database: a new master key, old values under data keys, and shredding.

Each step is one short transaction, so that others go on working meanwhile, and begins where one that was cut
off ended. One process does these things at a time.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnClause,
    LargeBinary,
    TableClause,
    column,
    delete,
    func,
    literal,
    or_,
    select,
    table,
    update,
)
from sqlalchemy import Table as SqlTable
from sqlmodel import Session, SQLModel, col

from service.errors import ShreddedError, StoreError
from service.ports import Clock, DocumentState
from service.store.admission_tables import AdmissionTable
from service.store.attesting import shred_attesting
from service.store.cipher import BY_MASTER, add_master, keep_masters, key_id_of, read_keys
from service.store.columns import Encrypted
from service.store.database import Database
from service.store.envelope import raise_epoch
from service.store.feedback import shred_feedback
from service.store.holds import is_held, shred_holds
from service.store.hook_calls import shred_hook_rows
from service.store.inputs import shred_inputs
from service.store.launches import LaunchTable
from service.store.ondemand import shred_generations
from service.store.quality import shred_shadows
from service.store.questions import shred_questions
from service.store.reviews import shred_reviews
from service.store.sweeps import SqlAdmissions, admission_of
from service.store.tables import (
    AuditTable,
    CitationTable,
    ClaimTable,
    DataKeyTable,
    DocumentTable,
    GivenTable,
    KeptTable,
    KeyCheckTable,
    RunTable,
)

BATCH = 100
Tell = Callable[[int], None]
"""Told after each batch how many are done."""
_HOLD = "keys"
_REFERENCE = re.compile(r"Patient/[A-Za-z0-9.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Keys:
    """How the keys of a database stand."""

    master: str
    """Id of the master key that seals new data keys."""
    next: str
    """Id of the one that a rotation is to bring, or under way; the same where there is none."""
    patients: int
    """Data keys of patients that are not destroyed."""
    behind: int
    """Data keys that another master key sealed."""
    old_values: int
    """Sealed values of the first version, which a master key sealed itself."""
    shredded: int
    exposed: int
    """Destroyed data keys whose master key is still held: it would open an old copy of one of them."""


@dataclass(frozen=True, slots=True)
class Shredded:
    """What was destroyed, in counts, and what still stands in the record system."""

    runs: int
    documents: int
    snapshots: int
    again: bool
    """True where there was nothing left to destroy."""


class KeyRoom:
    """The keys of one database at work. `file` is its key file, where it has one."""

    def __init__(self, database: Database, clock: Clock, file: Path | None = None) -> None:
        self._database = database
        self._envelope = database.envelope
        self._cipher = database.cipher
        self._clock = clock
        self._file = file

    def state(self) -> Keys:
        """Tell how the keys stand. Raises StoreError."""
        with self._database.reading() as session:
            master = _master(session)
            patients, behind, shredded = (
                session.execute(select(func.count()).select_from(DataKeyTable).where(*which)).scalar_one()
                for which in (
                    (_is_of_patient(), _is_live()),
                    (_is_live(), col(DataKeyTable.master) != master),
                    (_is_of_patient(), ~_is_live()),
                )
            )
            old = sum(
                session.execute(select(func.count()).select_from(one.rows).where(one.is_old)).scalar_one()
                for one in _sealed_tables()
            )
            exposed = self._exposed(session)
        return Keys(master, self._wanted().hex(), patients, behind, old, shredded, exposed)

    def prepare(self) -> str:
        """Put the master key to come into the key file, unless it is there already, and return its id.

        Raises StoreError. Nothing is sealed under it before `rotate`.
        """
        with self._alone():
            return self._prepared().hex()

    def rotate(self, tell: Tell = lambda done: None) -> int:
        """Seal every data key by the master key to come, and return how many; then forget the one before.

        Of an interrupted rotation the rest is done. Raises StoreError.
        """
        with self._alone():
            wanted = self._prepared()
            with self._database.writing() as session:
                session.execute(update(KeyCheckTable).values(master=wanted.hex()))
            done = 0
            while count := self._rewrap(wanted):
                done += count
                tell(done)
            self._forget_masters()
        return done

    def reseal(self, tell: Tell = lambda done: None) -> int:
        """Seal every value of the first version under a data key, and return how many rows those were.

        The files are then written anew, so that nothing of before is left in them. Raises StoreError.
        """
        with self._alone():
            done = 0
            for one in _sealed_tables():
                last: Any = None
                while (page := self._reseal(one, last)) is not None:
                    last, count = page
                    done += count
                    tell(done)
            self._database.compact()
            self._forget_masters()
        return done

    def shred(
        self, patient: str, reason: str, *, leave_drafts: bool = False, despite_hold: bool = False
    ) -> Shredded:
        """Destroy a patient's data key and all that it sealed. Of an interrupted call the rest is done.

        Afterwards nothing about `Patient/1` can be read from this database or from a copy made of it then.
        What a server's log, or an older copy, holds of the sealed key opens until the next rotation.
        Raises StoreError where nothing is stored about them; without `despite_hold`, where they are under a
        legal hold; and without `leave_drafts`, where drafts of ours stand in the record system: nobody here
        could withdraw them any more.
        """
        patient, hashed = _known(patient), self._database.hash_of(_known(patient))
        with self._alone():
            with self._database.writing() as session:
                if not despite_hold:
                    _check_holds(session, hashed)
                done = self._destroy(session, patient, hashed, reason, leave_drafts=leave_drafts)
            self._database.scrub()
        return done

    def readmit(self, patient: str) -> bool:
        """Let something be stored about a shredded patient again; False for another. Raises StoreError."""
        hashed = self._database.hash_of(_known(patient))
        with self._database.writing() as session:
            was_shredded = self._envelope.is_shredded(hashed)
            self._envelope.readmit(hashed)
            raise_epoch(session)
        return was_shredded

    @contextmanager
    def _alone(self) -> Iterator[None]:
        right = self._database.hold(_HOLD)
        if right is None:
            raise StoreError("Another process is changing the keys.", "Wait for it to finish.")
        try:
            yield
        finally:
            right.close()

    def _wanted(self) -> bytes:
        """Return the id of the master key that the key file, or the setting, says."""
        return (
            bytes.fromhex(read_keys(self._file).current) if self._file is not None else self._cipher.current
        )

    def _exposed(self, session: Session) -> int:
        """Count the destroyed keys that a master key which is held would open, were a copy of them found."""
        sealed_by = col(DataKeyTable.master)
        found = session.execute(select(sealed_by, func.count()).where(~_is_live()).group_by(sealed_by)).all()
        held = set(read_keys(self._file).keys) if self._file is not None else None
        return sum(count for name, count in found if name and self._holds(name, held))

    def _holds(self, name: str, in_file: set[str] | None) -> bool:
        return self._cipher.holds(bytes.fromhex(name)) if in_file is None else name in in_file

    def _prepared(self) -> bytes:
        """Return the master key to come: the one of a rotation that was cut off or prepared, or a new one."""
        with self._database.reading() as session:
            master = _master(session)
            behind = session.execute(
                select(col(DataKeyTable.id)).where(_is_live(), col(DataKeyTable.master) != master)
            )
            is_under_way = self._wanted().hex() != master or behind.first() is not None
        if is_under_way:
            return self._wanted()
        if self._file is None:
            raise StoreError(
                "There is no new master key to turn to.",
                "Set EPICRISIS_MASTER_KEY to a new one and EPICRISIS_MASTER_KEY_PREVIOUS to the one before"
                " in every process; then run this again.",
            )
        return add_master(self._file)

    def _rewrap(self, wanted: bytes) -> int:
        """Seal some data keys by the master key that is wanted, and return how many."""
        name = wanted.hex()
        with self._database.writing() as session:
            behind = select(DataKeyTable).where(_is_live(), col(DataKeyTable.master) != name).limit(BATCH)
            rows = session.scalars(behind).all()
            for row in rows:
                row.wrapped, row.master = self._envelope.rewrap(row, wanted), name
        return len(rows)

    def _forget_masters(self) -> None:
        """Take out of the key file what nothing in the database needs any more."""
        if self._file is None:
            return
        with self._database.reading() as session:
            needed = {bytes.fromhex(_master(session))}
            named = session.scalars(select(col(DataKeyTable.master)).where(_is_live()).distinct())
            needed |= {bytes.fromhex(name) for name in named}
            for one in _sealed_tables():
                for name in one.columns:
                    ids = func.substr(one.rows.c[name], 1, 5)
                    found = session.scalars(select(ids).where(_is_old(one.rows.c[name])).distinct())
                    needed |= {key_id_of(bytes(sealed)) for sealed in found}
        keep_masters(self._file, needed)

    def _reseal(self, one: _Sealed, last: Any) -> tuple[Any, int] | None:
        """Seal the old values of some rows after `last`; return the last of them, or None at the end."""
        key = one.rows.c[one.key]
        wanted = select(one.rows).where(one.is_old).order_by(key).limit(BATCH)
        with self._database.writing() as session, self._unlocked(session, one):
            rows = session.execute(wanted if last is None else wanted.where(key > last)).all()
            for row in rows:
                self._reseal_row(session, one, row)
        return (getattr(rows[-1], one.key), len(rows)) if rows else None

    def _reseal_row(self, session: Session, one: _Sealed, row: Any) -> None:
        said = row._mapping
        hashed = self._hash_of(one, said)
        try:
            with self._envelope.about(hashed) if hashed else nullcontext():
                values = {name: self._resealed(one, name, said[name]) for name in one.columns}
        except ShreddedError:  # of a patient who was shredded nothing is to be read any more
            values = {name: b"" if said[name] is not None else None for name in one.columns}
        same = [one.rows.c[name] == said[name] for name in one.columns if said[name] is not None]
        here = one.rows.c[one.key] == said[one.key]
        session.execute(update(one.rows).where(here, *same).values(**values))

    def _resealed(self, one: _Sealed, name: str, sealed: bytes | None) -> bytes | None:
        if sealed is None or bytes(sealed[:1]) != BY_MASTER:
            return sealed
        plain = self._cipher.unseal(bytes(sealed), one.columns[name].place)
        seals = self._envelope.of_house() if one.columns[name].of_house else self._envelope
        return seals.seal(plain, one.columns[name].place)

    def _hash_of(self, one: _Sealed, said: Any) -> str:
        """Return whose a row is: an admission's says so inside."""
        if one.rows.name == AdmissionTable.__tablename__:
            place = one.columns["content"].place
            content = zlib.decompress(self._envelope.unseal(bytes(said["content"]), place))
            patient = admission_of(content).patient
            return self._database.hash_of(patient) if patient else ""
        hashed = str(said["patient_hash"]) if one.has_patient else ""
        return "" if hashed == self._database.hash_of("") else hashed

    @contextmanager
    def _unlocked(self, session: Session, one: _Sealed) -> Iterator[None]:
        """Let entries of the audit log be sealed anew, in this transaction and by it alone."""
        if one.rows.name != AuditTable.__tablename__:
            yield
            return
        with self._database.without_triggers(session, one.rows.name):
            yield

    def _destroy(
        self, session: Session, patient: str, hashed: str, reason: str, *, leave_drafts: bool
    ) -> Shredded:
        runs = session.scalars(select(col(RunTable.id)).where(col(RunTable.patient_hash) == hashed)).all()
        if not self._is_stored(session, hashed) and not runs:
            raise StoreError("Nothing is stored about this patient.", "Name them as Patient/<id>.")
        if not leave_drafts:
            self._check_drafts(session, hashed)
        SqlAdmissions.on(self._database, self._clock).shred(session, patient)
        again = self._envelope.is_shredded(hashed)
        if not again:
            self._destroy_key(session, hashed, reason)
        self._blank_runs(session, runs)
        of_documents = col(DocumentTable.patient_hash) == hashed
        documents = _rowcount(session, _erase(DocumentTable, of_documents, "content"))
        kept = _rowcount(session, delete(KeptTable).where(col(KeptTable.patient_hash) == hashed))
        session.execute(delete(LaunchTable).where(col(LaunchTable.patient_hash) == hashed))
        shred_feedback(session, hashed)
        shred_inputs(session, hashed)
        shred_attesting(session, hashed)
        shred_questions(session, hashed)
        shred_reviews(session, hashed)
        shred_hook_rows(session, hashed)
        shred_shadows(session, hashed)
        shred_generations(session, hashed)
        shred_holds(session, hashed)
        raise_epoch(session)
        return Shredded(len(runs), documents, kept, again)

    def _is_stored(self, session: Session, hashed: str) -> bool:
        found = (col(one.patient_hash) for one in (DataKeyTable, DocumentTable, AuditTable))
        return any(session.scalars(select(one).where(one == hashed).limit(1)).first() for one in found)

    def _check_drafts(self, session: Session, hashed: str) -> None:
        is_draft = col(DocumentTable.state) == DocumentState.DRAFT.value
        drafts = (
            select(func.count())
            .select_from(DocumentTable)
            .where(col(DocumentTable.patient_hash) == hashed, is_draft)
        )
        if count := session.execute(drafts).scalar_one():
            raise StoreError(
                f"{count} drafts about this patient stand in the record system.",
                "Withdraw them first (`epicrisis withdraw`): nobody here can later. Or give --leave-drafts.",
            )

    def _destroy_key(self, session: Session, hashed: str, reason: str) -> None:
        """Seal what an earlier version left in the audit log under the patient's key, and destroy that."""
        self._envelope.live_key(hashed)
        audit = next(one for one in _sealed_tables() if one.rows.name == AuditTable.__tablename__)
        old = session.execute(
            select(audit.rows).where(audit.is_old, audit.rows.c.patient_hash == hashed)
        ).all()
        if old:
            with self._database.without_triggers(session, audit.rows.name):
                for row in old:
                    self._reseal_row(session, audit, row)
        live = (col(DataKeyTable.patient_hash) == hashed, _is_live())
        gone = {"wrapped": b"", "destroyed_at": self._clock(), "reason": reason}
        session.execute(update(DataKeyTable).where(*live).values(**gone))

    def _blank_runs(self, session: Session, runs: Sequence[int | None]) -> None:
        """Overwrite what was said in runs, and forget the hashes of it that others could guess by."""
        for start in range(0, len(runs), BATCH):
            some = runs[start : start + BATCH]
            for row in (CitationTable, GivenTable, ClaimTable):
                session.execute(delete(row).where(col(row.run).in_(some)))
            of_runs = col(RunTable.id).in_(some)
            session.execute(_erase(RunTable, of_runs, "patient", "patient_name", "document", "content"))
            session.execute(update(RunTable).where(of_runs).values(record_digest=""))


@dataclass(frozen=True, slots=True)
class _Sealed:
    """One table with sealed columns, as bytes."""

    rows: TableClause
    key: str
    columns: dict[str, Encrypted]
    has_patient: bool

    @property
    def is_old(self) -> Any:
        return or_(*(_is_old(self.rows.c[name]) for name in self.columns))


def _sealed_tables() -> Iterator[_Sealed]:
    """Return every table with sealed columns; the column types say which those are."""
    for found in SQLModel.metadata.sorted_tables:
        sealed = {one.name: one.type for one in found.columns if isinstance(one.type, Encrypted)}
        if sealed:
            yield _of(found, sealed)


def _of(found: SqlTable, sealed: dict[str, Encrypted]) -> _Sealed:
    (key,) = found.primary_key.columns
    columns: list[ColumnClause[Any]] = [column(key.name, key.type)]
    columns += [column(name, LargeBinary()) for name in sealed]
    has_patient = "patient_hash" in found.columns and found.name != DataKeyTable.__tablename__
    if has_patient:
        columns.append(column("patient_hash"))
    return _Sealed(table(found.name, *columns), key.name, sealed, has_patient)


def _is_old(sealed: Any) -> Any:
    return func.substr(sealed, 1, 1, type_=LargeBinary()) == BY_MASTER


def _erase(model: Any, where: Any, *names: str) -> Any:
    """Return the statement that overwrites sealed columns with nothing."""
    nothing = literal(b"", LargeBinary())  # an expression: the column's type would seal a value
    return update(model).where(where).values(dict.fromkeys(names, nothing))


def _rowcount(session: Session, statement: Any) -> int:
    return int(session.connection().execute(statement).rowcount)


def _is_live() -> Any:
    return col(DataKeyTable.destroyed_at).is_(None)


def _is_of_patient() -> Any:
    return func.length(col(DataKeyTable.patient_hash)) == 64


def _master(session: Session) -> str:
    return session.execute(select(col(KeyCheckTable.master))).scalar() or ""


def _check_holds(session: Session, hashed: str) -> None:
    if is_held(session, hashed):
        raise StoreError(
            "This patient is under a legal hold: nothing about them may be destroyed.",
            "`epicrisis hold list` shows it, and `epicrisis hold lift` ends it. Or give --despite-hold.",
        )


def _known(patient: str) -> str:
    """Return `Patient/1` of `Patient/1` or `1`. Raises StoreError, without what was given."""
    reference = patient if patient.startswith("Patient/") else f"Patient/{patient}"
    if not _REFERENCE.fullmatch(reference):
        raise StoreError("This is no patient's id.", "Name them as Patient/<id>.")
    return reference
