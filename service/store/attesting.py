"""What clinicians decide, write, attest and hide, and recalls of two people, in the database.

Everything about a patient is sealed under that patient's key and goes with it. A recall is about many: it is
sealed under the house's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Column, Index, UniqueConstraint, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Field, Session, SQLModel, col, select

from service.errors import StoreError
from service.ports import RunId
from service.ports.attesting import (
    Attested,
    Disposal,
    Edit,
    Glass,
    Hidden,
    Proposal,
    ProposalId,
    ProposalState,
)
from service.store.cipher import Cipher
from service.store.columns import Encrypted, UtcInstant
from service.store.database import Database

_Value = TypeVar("_Value")


class DecisionTable(SQLModel, table=True):
    """What one clinician decided about one item. The newest that was not undone holds."""

    __tablename__ = "epicrisis_decision"
    __table_args__ = (
        Index("ix_epicrisis_decision_run", "run_id", "actor_hash", "id"),
        Index("ix_epicrisis_decision_patient", "patient_hash"),
    )

    id: int | None = Field(default=None, primary_key=True)
    run_id: str
    patient_hash: str
    actor_hash: str
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    undone_at: datetime | None = Field(default=None, sa_column=Column(UtcInstant, nullable=True))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_decision.content"), nullable=False))


class OpeningTable(SQLModel, table=True):
    """When a clinician was first shown a run for attesting."""

    __tablename__ = "epicrisis_opening"
    __table_args__ = (Index("ix_epicrisis_opening_patient", "patient_hash"),)

    run_id: str = Field(primary_key=True)
    actor_hash: str = Field(primary_key=True)
    patient_hash: str
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))


class AttestedTable(SQLModel, table=True):
    """One attestation of a run."""

    __tablename__ = "epicrisis_attested"
    __table_args__ = (
        UniqueConstraint("run_id", name="uq_epicrisis_attested_run_id"),
        Index("ix_epicrisis_attested_patient", "patient_hash"),
        Index("ix_epicrisis_attested_at", "at"),
    )

    id: int | None = Field(default=None, primary_key=True)
    run_id: str
    patient_hash: str
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_attested.content"), nullable=False))


class HiddenTable(SQLModel, table=True):
    """One run that is, or was, shown to nobody."""

    __tablename__ = "epicrisis_hidden"
    __table_args__ = (
        Index("ix_epicrisis_hidden_run", "run_id"),
        Index("ix_epicrisis_hidden_lifted", "lifted_at"),
        Index("ix_epicrisis_hidden_patient", "patient_hash"),
    )

    id: int | None = Field(default=None, primary_key=True)
    run_id: str
    patient_hash: str
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    lifted_at: datetime | None = Field(default=None, sa_column=Column(UtcInstant, nullable=True))
    lifted_by: str = ""
    content: str = Field(sa_column=Column(Encrypted("epicrisis_hidden.content"), nullable=False))


class ProposalTable(SQLModel, table=True):
    """One recall that two people make."""

    __tablename__ = "epicrisis_proposal"
    __table_args__ = (UniqueConstraint("proposal_id", name="uq_epicrisis_proposal_proposal_id"),)

    id: int | None = Field(default=None, primary_key=True)
    proposal_id: str
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_proposal.content"), nullable=False))


class GlassTable(SQLModel, table=True):
    """One time that a person opened what is withheld."""

    __tablename__ = "epicrisis_glass"
    __table_args__ = (
        Index("ix_epicrisis_glass_actor", "actor_hash", "patient_hash"),
        Index("ix_epicrisis_glass_patient", "patient_hash"),
        Index("ix_epicrisis_glass_at", "at"),
    )

    id: int | None = Field(default=None, primary_key=True)
    actor_hash: str
    patient_hash: str
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    until: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_glass.content"), nullable=False))


class _Decision(msgspec.Struct, frozen=True):
    disposal: Disposal
    edit: Edit | None = None


class SqlAttesting:
    """The AttestingStore in a database, which may be the store's."""

    def __init__(self, url: str, cipher: Cipher) -> None:
        self.database = Database(url, cipher)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def open(self, run_id: RunId, patient: str, actor: str, at: datetime) -> datetime:
        """Return when a clinician was first shown a run. Raises StoreError, and ShreddedError."""
        here = {"run_id": run_id, "actor_hash": self._actor(actor)}
        with self.database.writing(alone=False, about=patient) as db:
            insert: Any = postgresql.insert if db.get_bind().dialect.name == "postgresql" else sqlite.insert
            hashed = self.database.hash_of(patient)
            row = insert(OpeningTable).values(**here, patient_hash=hashed, at=at)
            db.connection().execute(row.on_conflict_do_nothing())
        return self.opened_at(run_id, actor) or at

    def opened_at(self, run_id: RunId, actor: str) -> datetime | None:
        """Return when a clinician was first shown a run, or None. Raises StoreError."""
        with self.database.reading() as db:
            row = db.get(OpeningTable, (run_id, self._actor(actor)))
            return row.at if row is not None else None

    def dispose(self, disposal: Disposal, edit: Edit | None = None) -> None:
        """Keep what was decided about an item. Raises StoreError, and ShreddedError."""
        row = DecisionTable(
            run_id=disposal.run_id,
            patient_hash=self.database.hash_of(disposal.patient),
            actor_hash=self._actor(disposal.actor),
            at=disposal.at,
            content=_written(_Decision(disposal, edit)),
        )
        with self.database.writing(alone=False, about=disposal.patient) as db:
            db.add(row)

    def undo(self, run_id: RunId, actor: str, at: datetime) -> Disposal | None:
        """Take back this clinician's last decision on a run. Raises StoreError."""
        wanted = self._decided(run_id, actor).order_by(None).order_by(col(DecisionTable.id).desc()).limit(1)
        with self.database.writing() as db:
            row = db.exec(wanted).one_or_none()
            if row is None:
                return None
            row.undone_at = at
            return _read(row.content, _Decision).disposal

    def disposals(self, run_id: RunId, actor: str) -> Sequence[Disposal]:
        """Return what a clinician decided about a run, one of each item. Raises StoreError."""
        return [decision.disposal for decision in self._holding(run_id, actor)]

    def edits_of(self, run_id: RunId, actor: str) -> Sequence[Edit]:
        """Return the edits of a clinician on a run, by ordinal. Raises StoreError."""
        edits = (decision.edit for decision in self._holding(run_id, actor))
        return sorted((edit for edit in edits if edit is not None), key=lambda edit: edit.ordinal)

    def edits(self, since: datetime, until: datetime) -> Sequence[Edit]:
        """Return the edits in texts that were attested in this span. Raises StoreError."""
        return [
            edit for one in self.attestations(since, until) for edit in self.edits_of(one.run_id, one.actor)
        ]

    def keep_attested(self, attested: Attested) -> None:
        """Keep an attestation; of one run the first stays. Raises StoreError, and ShreddedError."""
        with self.database.writing(about=attested.patient) as db:
            wanted = select(AttestedTable).where(col(AttestedTable.run_id) == attested.run_id)
            if db.exec(wanted).one_or_none() is None:
                hashed = self.database.hash_of(attested.patient)
                db.add(
                    AttestedTable(
                        run_id=attested.run_id, patient_hash=hashed, at=attested.attested_at,
                        content=_written(attested),
                    )
                )  # fmt: skip

    def attested_of(self, run_id: RunId) -> Attested | None:
        """Return the attestation of a run, or None. Raises StoreError."""
        wanted = select(AttestedTable).where(col(AttestedTable.run_id) == run_id)
        with self.database.reading() as db:
            row = db.exec(wanted).one_or_none()
            return _read(row.content, Attested) if row is not None and row.content else None

    def attestations(self, since: datetime, until: datetime) -> Sequence[Attested]:
        """Return the attestations in [since, until), oldest first. Raises StoreError."""
        at = col(AttestedTable.at)
        wanted = select(AttestedTable.content).where(at >= since, at < until)
        return self._all(wanted.order_by(at, col(AttestedTable.id)), Attested)

    def hide(self, hidden: Hidden) -> None:
        """Show a run to nobody from now on. Raises StoreError, and ShreddedError."""
        with self.database.writing(about=hidden.patient) as db:
            if db.exec(_hidden_now().where(col(HiddenTable.run_id) == hidden.run_id)).first() is None:
                hashed = self.database.hash_of(hidden.patient)
                db.add(
                    HiddenTable(
                        run_id=hidden.run_id, patient_hash=hashed, at=hidden.at, content=_written(hidden)
                    )
                )

    def lift(self, run_id: RunId, by: str, at: datetime) -> bool:
        """Show a run again; False where it was not hidden. Raises StoreError."""
        with self.database.writing() as db:
            rows = db.exec(_hidden_now().where(col(HiddenTable.run_id) == run_id)).all()
            for row in rows:
                row.lifted_at, row.lifted_by = at, by
        return bool(rows)

    def hidden_of(self, run_id: RunId) -> Hidden | None:
        """Return by whom and why a run is hidden now, or None. Raises StoreError."""
        wanted = _hidden_now().where(col(HiddenTable.run_id) == run_id)
        with self.database.reading() as db:
            row = db.exec(wanted).first()
            return _read(row.content, Hidden) if row is not None and row.content else None

    def hidden(self, limit: int = 100) -> Sequence[Hidden]:
        """Return what is hidden now, newest first. Raises StoreError."""
        wanted = select(HiddenTable.content).where(col(HiddenTable.lifted_at).is_(None))
        return self._all(wanted.order_by(col(HiddenTable.id).desc()).limit(limit), Hidden)

    def propose(self, proposal: Proposal) -> None:
        """Keep a recall that waits for a second person. Raises StoreError."""
        row = ProposalTable(proposal_id=proposal.id, at=proposal.at, content=_written(proposal))
        with self.database.writing(alone=False) as db:
            db.add(row)

    def decide(self, proposal_id: ProposalId, state: ProposalState, by: str, at: datetime) -> Proposal | None:
        """Approve or refuse a waiting proposal: None where this person cannot. Raises StoreError."""
        with self.database.writing() as db:
            row = db.exec(_proposal(proposal_id)).one_or_none()
            found = _read(row.content, Proposal) if row is not None else None
            if row is None or found is None or found.state is not ProposalState.WAITING:
                return None
            if found.by == by and state is not ProposalState.REFUSED:
                return None
            decided = replace(found, state=state, decided_by=by, decided_at=at)
            row.content = _written(decided)
            return decided

    def advance(self, proposal: Proposal) -> None:
        """Keep how far an approved recall has come. Raises StoreError."""
        with self.database.writing() as db:
            row = db.exec(_proposal(proposal.id)).one_or_none()
            if row is None:
                raise StoreError("There is no such recall.")
            row.content = _written(proposal)

    def proposal(self, proposal_id: ProposalId) -> Proposal | None:
        """Return one proposal, or None. Raises StoreError."""
        with self.database.reading() as db:
            row = db.exec(_proposal(proposal_id)).one_or_none()
            return _read(row.content, Proposal) if row is not None else None

    def proposals(self, limit: int = 50) -> Sequence[Proposal]:
        """Return proposals, newest first. Raises StoreError."""
        wanted = select(ProposalTable.content).order_by(col(ProposalTable.id).desc())
        return self._all(wanted.limit(limit), Proposal)

    def break_glass(self, glass: Glass) -> None:
        """Open what is withheld for one person, for a while. Raises StoreError, and ShreddedError."""
        row = GlassTable(
            actor_hash=self._actor(glass.actor),
            patient_hash=self.database.hash_of(glass.patient),
            at=glass.at,
            until=glass.until,
            content=_written(glass),
        )
        with self.database.writing(alone=False, about=glass.patient) as db:
            db.add(row)

    def glass_of(self, actor: str, patient: str, at: datetime) -> Glass | None:
        """Return what is open to a person at an instant, or None. Raises StoreError."""
        wanted = (
            select(GlassTable.content)
            .where(
                col(GlassTable.actor_hash) == self._actor(actor),
                col(GlassTable.patient_hash) == self.database.hash_of(patient),
                col(GlassTable.at) <= at,
                col(GlassTable.until) > at,
            )
            .order_by(col(GlassTable.until).desc())
            .limit(1)
        )
        return next(iter(self._all(wanted, Glass)), None)

    def glasses(self, since: datetime, until: datetime) -> Sequence[Glass]:
        """Return what was opened so in [since, until), newest first. Raises StoreError."""
        at = col(GlassTable.at)
        wanted = select(GlassTable.content).where(at >= since, at < until)
        return self._all(wanted.order_by(col(GlassTable.id).desc()), Glass)

    def _decided(self, run_id: RunId, actor: str) -> Any:
        return (
            select(DecisionTable)
            .where(
                col(DecisionTable.run_id) == run_id,
                col(DecisionTable.actor_hash) == self._actor(actor),
                col(DecisionTable.undone_at).is_(None),
            )
            .order_by(col(DecisionTable.id))
        )

    def _holding(self, run_id: RunId, actor: str) -> Iterable[_Decision]:
        """Return the newest decision on each item, in order of time."""
        holding: dict[tuple[int | None, str], _Decision] = {}
        with self.database.reading() as db:
            for row in db.exec(self._decided(run_id, actor)):
                if row.content:
                    decision = _read(row.content, _Decision)
                    key = (decision.disposal.ordinal, decision.disposal.section)
                    holding.pop(key, None)
                    holding[key] = decision
        return holding.values()

    def _all(self, wanted: Any, kind: type[_Value]) -> list[_Value]:
        with self.database.reading() as db:
            return [_read(content, kind) for content in db.exec(wanted) if content]

    def _actor(self, actor: str) -> str:
        return self.database.cipher.keyed_hash("attesting actor", actor)


def shred_attesting(db: Session, patient_hash: str) -> None:
    """Delete all that clinicians decided, wrote, attested and hid of a patient's, in this transaction."""
    for table in (DecisionTable, OpeningTable, AttestedTable, HiddenTable, GlassTable):
        db.execute(delete(table).where(col(table.patient_hash) == patient_hash))


def hidden_runs(db: Session) -> Sequence[tuple[str, datetime]]:
    """Return (run id, since when) of every run that is hidden now, oldest first."""
    wanted = select(HiddenTable.run_id, HiddenTable.at).where(col(HiddenTable.lifted_at).is_(None))
    return db.exec(wanted.order_by(col(HiddenTable.id))).all()


def _hidden_now() -> Any:
    return select(HiddenTable).where(col(HiddenTable.lifted_at).is_(None)).order_by(col(HiddenTable.id))


def _proposal(proposal_id: ProposalId) -> Any:
    return select(ProposalTable).where(col(ProposalTable.proposal_id) == proposal_id)


def _read(content: str, kind: type[_Value]) -> _Value:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, ValueError):
        raise StoreError("What is stored of an attestation cannot be read.") from None


def _written(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeError:  # half of a surrogate pair is no text
        raise StoreError("This holds something that cannot be stored as text.") from None
