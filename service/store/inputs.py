"""The inputs of runs in the database: a sealed list a run, and parts that the runs of one patient share.

List and parts are sealed under the patient's data key. A part is found by keyed hashes, so that nobody can
tell from the database what a chart held. Template sets are about no patient, and lie in the open.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Column, Index, LargeBinary, cast, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Field, Session, SQLModel, col

from service.errors import ShreddedError, StoreError
from service.ports.inputs import Decided, Made
from service.ports.runs import RunId, StoredRun
from service.store.columns import Encrypted, UtcInstant
from service.store.holds import held_patients
from service.store.parts import (
    name_of,
    named_resources,
    named_texts,
    parts_of,
    resources_in,
    texts_in,
)
from service.store.sql import SqlStore

_PART = "epicrisis_input_part.content"
_AT_A_TIME = 500
"""Names in one statement: SQLite and PostgreSQL bound the values that a statement may have."""


class RunInputTable(SQLModel, table=True):
    """The list of what one run was made of. The sealed content repeats the run's id."""

    __tablename__ = "epicrisis_run_input"
    __table_args__ = (
        Index("ix_epicrisis_run_input_patient", "patient_hash"),
        Index("ix_epicrisis_run_input_kept", "kept_at"),
    )

    run_id: str = Field(primary_key=True)
    patient_hash: str
    kept_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    templates: str
    """Digest of the template set's texts."""
    content: str = Field(sa_column=Column(Encrypted("epicrisis_run_input.content"), nullable=False))


class InputPartTable(SQLModel, table=True):
    """One part of what runs of one patient were made of, sealed for its row."""

    __tablename__ = "epicrisis_input_part"
    __table_args__ = (Index("ix_epicrisis_input_part_used", "used_at"),)

    patient_hash: str = Field(primary_key=True)
    part_hash: str = Field(primary_key=True)
    used_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    """When the newest run was made that it went into."""
    content: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class TemplateTable(SQLModel, table=True):
    """The texts of one template set, compressed, by their digest: in the open, as in their folder."""

    __tablename__ = "epicrisis_template"

    digest: str = Field(primary_key=True)
    content: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class _List(msgspec.Struct, frozen=True):
    """What a run was made of, with its parts by name."""

    run_id: str
    decided: Decided
    resources: tuple[str, ...]
    texts: tuple[str, ...]
    binaries: dict[str, str]

    @property
    def parts(self) -> tuple[str, ...]:
        """Every part, by name, each once."""
        return tuple(dict.fromkeys((*self.resources, *self.texts, *self.binaries.values())))


_LIST = msgspec.json.Decoder(_List)
_TEMPLATES = msgspec.json.Decoder(tuple[tuple[str, dict[str, str]], ...])
_sealed = cast(col(InputPartTable.content), LargeBinary)


class SqlInputs:
    """The InputStore in the database of a store, which stays its owner's to close."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._database = store.database

    def save(self, run: StoredRun, made: Made) -> bool:
        """Store a run with its inputs, in one transaction; the run alone where they cannot be kept.

        Raises ShreddedError where the patient's data key was destroyed, and StoreError.
        """
        try:
            written = _written(run, made)
            with self._database.writing(alone=False, about=run.inputs.patient) as session:
                self._store.add(session, run)
                self._keep(session, run, *written)
        except ShreddedError:
            raise
        except (StoreError, ValueError, TypeError):  # no run is lost for what is only kept about it
            self._store.save(run)
            return False
        return True

    def inputs_of(self, run: StoredRun) -> Made | None:
        """Return what a run was made of, or None. Raises StoreError, and ShreddedError."""
        with self._database.reading() as session:
            row = session.get(RunInputTable, run.run_id)
            if row is None:
                return None
            known = _read(row)
            kept = session.get(TemplateTable, row.templates)
            if kept is None:
                raise StoreError("The templates of a stored run are missing.")
            parts = self._parts(session, row.patient_hash, known.parts)
        return Made(
            known.decided,
            resources_in(parts[name] for name in known.resources),
            {url: parts[name] for url, name in known.binaries.items()},
            texts_in(parts[name] for name in known.texts),
            _templates(kept),
        )

    def forget(self, run_id: RunId) -> None:
        """Delete a run's inputs, and what no other run of that patient shares. Raises StoreError."""
        with self._database.writing() as session:
            row = session.get(RunInputTable, run_id)
            if row is None:
                return
            hashed = row.patient_hash
            session.delete(row)
            session.flush()
            others = session.execute(
                select(RunInputTable).where(col(RunInputTable.patient_hash) == hashed)
            ).scalars()
            used = {self._hash(name) for other in others for name in _read(other).parts}
            held = session.execute(
                select(col(InputPartTable.part_hash)).where(col(InputPartTable.patient_hash) == hashed)
            ).scalars()
            for names in _batches(sorted(set(held) - used)):
                session.execute(delete(InputPartTable).where(*_here(hashed, names)))

    def prune(self, before: datetime) -> int:
        """Delete the inputs of runs made before then; return of how many runs. Raises StoreError.

        A part bears the time of the newest run that it went into: an older one than `before` is of none.
        Whatever is of a patient under a legal hold stays.
        """
        with self._database.writing() as session:
            held = held_patients()
            old = delete(RunInputTable).where(
                col(RunInputTable.kept_at) < before, col(RunInputTable.patient_hash).not_in(held)
            )
            count = session.connection().execute(old).rowcount
            parts = col(InputPartTable.used_at) < before, col(InputPartTable.patient_hash).not_in(held)
            session.execute(delete(InputPartTable).where(*parts))
            session.execute(
                delete(TemplateTable).where(
                    col(TemplateTable.digest).not_in(select(col(RunInputTable.templates)))
                )
            )
        return count

    def _keep(
        self, session: Session, run: StoredRun, content: str, parts: Mapping[str, bytes], templates: str
    ) -> None:
        hashed, at = self._database.hash_of(run.inputs.patient), run.created_at
        digest = hashlib.sha256(templates.encode()).hexdigest()
        names = {self._hash(name): zipped for name, zipped in parts.items()}
        for some in _batches(sorted(names)):
            here = _here(hashed, some)
            # Touched before it is looked for: whoever prunes then waits, or has deleted it already.
            session.execute(
                update(InputPartTable).where(*here, col(InputPartTable.used_at) < at).values(used_at=at)
            )
            held = set(session.execute(select(col(InputPartTable.part_hash)).where(*here)).scalars())
            for name in some:
                if name not in held:
                    sealed = self._database.envelope.seal(names[name], _place(hashed, name))
                    self._insert(session, InputPartTable, patient_hash=hashed, part_hash=name, used_at=at,
                                 content=sealed)  # fmt: skip
        self._insert(session, TemplateTable, digest=digest, content=zlib.compress(templates.encode()))
        session.add(RunInputTable(run_id=run.run_id, patient_hash=hashed, kept_at=at, templates=digest,
                                  content=content))  # fmt: skip

    def _insert(self, session: Session, model: type[SQLModel], **values: Any) -> None:
        """Add a row, unless another transaction was first with the same."""
        insert: Any = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
        session.execute(insert(model).values(**values).on_conflict_do_nothing())

    def _parts(self, session: Session, hashed: str, names: Sequence[str]) -> dict[str, bytes]:
        by_hash = {self._hash(name): name for name in names}
        found: dict[str, bytes] = {}
        for some in _batches(sorted(by_hash)):
            wanted = select(col(InputPartTable.part_hash), _sealed).where(*_here(hashed, some))
            for part_hash, sealed in session.execute(wanted):
                found[by_hash[part_hash]] = self._opened(sealed, hashed, part_hash)
        if found.keys() != set(names) or any(name_of(part) != name for name, part in found.items()):
            raise StoreError("A part of what this run was made of is missing or damaged.")
        return found

    def _opened(self, sealed: bytes, hashed: str, part_hash: str) -> bytes:
        plain = self._database.envelope.unseal(sealed, _place(hashed, part_hash))
        return zlib.decompress(plain)

    def _hash(self, name: str) -> str:
        return self._database.cipher.keyed_hash("input part", name)


def shred_inputs(db: Session, patient_hash: str) -> None:
    """Delete what a patient's runs were made of, in this transaction."""
    for model in (RunInputTable, InputPartTable):
        db.execute(delete(model).where(col(model.patient_hash) == patient_hash))


def _written(run: StoredRun, made: Made) -> tuple[str, dict[str, bytes], str]:
    """Return the list, the compressed parts by name, and the templates. Raises ValueError."""
    parts: dict[str, bytes] = {}

    def put(content: bytes) -> str:
        name = name_of(content)
        parts[name] = zlib.compress(content)  # now: the parts of a large chart would take all memory
        return name

    listed = _List(
        run.run_id,
        made.decided,
        tuple(put(part) for part in parts_of(named_resources(made.resources), len(made.resources))),
        tuple(put(part) for part in parts_of(named_texts(made.texts), len(made.texts))),
        {url: put(content) for url, content in made.binaries.items()},
    )
    templates = msgspec.json.encode(made.templates, order="sorted").decode()
    return msgspec.json.encode(listed).decode(), parts, templates


def _read(row: RunInputTable) -> _List:
    """Return the list of a row. Raises ShreddedError where it was destroyed, and StoreError."""
    if not row.content:
        raise ShreddedError
    try:
        known = _LIST.decode(row.content)
    except (msgspec.MsgspecError, ValueError):
        raise StoreError("What a stored run was made of cannot be read.") from None
    if known.run_id != row.run_id:
        raise StoreError("What a stored run was made of was changed.")
    return known


def _templates(row: TemplateTable) -> tuple[tuple[str, Mapping[str, str]], ...]:
    try:
        return _TEMPLATES.decode(zlib.decompress(row.content))
    except (msgspec.MsgspecError, ValueError, zlib.error):
        raise StoreError("The templates of a stored run cannot be read.") from None


def _place(patient_hash: str, part_hash: str) -> str:
    return f"{_PART} {patient_hash} {part_hash}"


def _here(patient_hash: str, part_hashes: Sequence[str]) -> tuple[Any, ...]:
    return col(InputPartTable.patient_hash) == patient_hash, col(InputPartTable.part_hash).in_(part_hashes)


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _AT_A_TIME] for start in range(0, len(names), _AT_A_TIME))
