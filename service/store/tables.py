"""The tables. Patient text and ids stand in Encrypted columns alone; what is searched for is a keyed hash.

Three more columns are sealed, which no column type sees: `epicrisis_kept.content` and
`epicrisis_input_part.content`, each for its row, and by a master key each `epicrisis_patient_key.wrapped`.
Rows about a patient are sealed under that patient's data key, all others under the house's
(`service.store.envelope`).

Plain are: counts, states, areas, section names, model, prompt and rules versions, digests of resources and
runs, and version ids, because recall asks for them and they say nothing about a person.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, Column, ForeignKeyConstraint, Index, Integer, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel

from service.store.columns import Encrypted, UtcInstant

SHREDDED = "Shredded"
"""What lists show where a patient's name was destroyed."""
EXPIRED = "Text deleted"
"""What they show where a summary is older than the site keeps them."""


class RunTable(SQLModel, table=True):
    """One run. `content` is the whole StoredRun as it was saved; the columns beside it, what came of it."""

    __tablename__ = "epicrisis_run"
    __table_args__ = (
        UniqueConstraint("run_id", name="uq_epicrisis_run_run_id"),
        Index("ix_epicrisis_run_newest", "created_at", "id"),
        Index("ix_epicrisis_run_key", "run_key", "created_at", "id"),
        Index("ix_epicrisis_run_patient", "patient_hash", "created_at", "id"),
        Index("ix_epicrisis_run_model", "model_digest"),
        Index("ix_epicrisis_run_prompt", "template_digest"),
    )

    id: int | None = Field(default=None, primary_key=True)
    run_id: str
    run_key: str
    attempt: int
    state: str
    created_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    kind: str
    model: str
    model_digest: str
    engine_version: str
    prompt_id: str
    prompt_version: str
    template_digest: str
    record_digest: str
    rules_version: str
    patient_hash: str
    patient: str = Field(sa_column=Column(Encrypted("epicrisis_run.patient"), nullable=False))
    patient_name: str = Field(
        sa_column=Column(Encrypted("epicrisis_run.patient_name", gone=SHREDDED), nullable=False)
    )
    document: str = Field(sa_column=Column(Encrypted("epicrisis_run.document"), nullable=False))
    published: int
    refused: int
    incomplete: bool
    error: str
    seconds: dict[str, float] = Field(sa_column=Column(JSON, nullable=False))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_run.content"), nullable=False))


class ClaimTable(SQLModel, table=True):
    """One claim of a run, published or refused, in reading order, published ones first."""

    __tablename__ = "epicrisis_claim"
    __table_args__ = (ForeignKeyConstraint(["run"], ["epicrisis_run.id"], name="fk_epicrisis_claim_run"),)

    run: int = Field(primary_key=True)
    ordinal: int = Field(primary_key=True)
    section: str
    origin: str
    verdict: str
    published: bool
    corrected: bool
    text_hash: str


class CitationTable(SQLModel, table=True):
    """One source of a claim: which resource (keyed hash), in which version, with which content digest."""

    __tablename__ = "epicrisis_citation"
    __table_args__ = (
        ForeignKeyConstraint(
            ["run", "claim"],
            ["epicrisis_claim.run", "epicrisis_claim.ordinal"],
            name="fk_epicrisis_citation_claim",
        ),
        Index("ix_epicrisis_citation_source", "source_hash", "version"),
    )

    run: int = Field(primary_key=True)
    claim: int = Field(primary_key=True)
    position: int = Field(primary_key=True)
    source_hash: str
    version: str
    digest: str


class AuditTable(SQLModel, table=True):
    """One act. Append only: triggers refuse every change, deletion and replacement of an entry."""

    __tablename__ = "epicrisis_audit_entry"
    __table_args__ = (
        Index("ix_epicrisis_audit_entry_patient", "patient_hash", "id"),
        Index("ix_epicrisis_audit_entry_run", "run_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    action: str
    actor: str
    outcome: str
    run_id: str
    patient_hash: str
    patient: str = Field(sa_column=Column(Encrypted("epicrisis_audit_entry.patient"), nullable=False))
    target: str = Field(sa_column=Column(Encrypted("epicrisis_audit_entry.target"), nullable=False))
    counts: dict[str, int] = Field(sa_column=Column(JSON, nullable=False))
    server: str = ""
    on_behalf: str | None = Field(
        default=None,
        sa_column=Column(Encrypted("epicrisis_audit_entry.on_behalf", of_house=True), nullable=True),
    )


class LinkTable(SQLModel, table=True):
    """One entry's place in the chain of the audit log. Append only, as the entries are."""

    __tablename__ = "epicrisis_audit_link"
    __table_args__ = (Index("ix_epicrisis_audit_link_entry", "entry", unique=True),)

    number: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    """Without gaps; 0 is the genesis, which seals what was recorded before the chain."""
    entry: int
    key_id: str
    mac: str
    hash: str


class AuditSentTable(SQLModel, table=True):
    """What became of sending one entry to one collector; an entry without a row was never tried."""

    __tablename__ = "epicrisis_audit_sent"

    collector: str = Field(primary_key=True)
    entry: int = Field(primary_key=True)
    state: str
    """`sending`, `sent` or `refused`"""
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))


class KeptTable(SQLModel, table=True):
    """One entry of the vault. `content` stands last, so that SQLite reads the rest without passing it."""

    __tablename__ = "epicrisis_kept"
    __table_args__ = (
        Index("ix_epicrisis_kept_used", "area", "used_at"),
        Index("ix_epicrisis_kept_patient", "patient_hash"),
    )

    area: str = Field(primary_key=True)
    key_hash: str = Field(primary_key=True)
    patient_hash: str = ""
    """Of whom it is; empty for what is of no patient."""
    saved_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    used_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    content: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class KeyCheckTable(SQLModel, table=True):
    """One row that only the right key file can read, so that a wrong one is found before it writes."""

    __tablename__ = "epicrisis_key_check"

    id: int = Field(default=1, primary_key=True)
    lookup_hash: str
    sealed: str = Field(sa_column=Column(Encrypted("epicrisis_key_check.sealed"), nullable=False))
    master: str | None = None
    """Id (hex) of the master key that seals data keys now; None before the first one."""
    epoch: int = 0
    """Raised whenever a data key is destroyed: whoever keeps opened ones then forgets them."""


class DataKeyTable(SQLModel, table=True):
    """One data key, sealed by a master key. Of a destroyed one nothing but its row is left.

    A patient has a new `generation` after each readmission, and at most the last one is not destroyed. The
    house's own keys have generation 1 and their purpose in place of a patient's hash.
    """

    __tablename__ = "epicrisis_patient_key"
    __table_args__ = (
        UniqueConstraint("patient_hash", "generation", name="uq_epicrisis_patient_key_patient"),
        Index("ix_epicrisis_patient_key_master", "master"),
    )

    id: str = Field(primary_key=True)
    """Random hexadecimal: a value names its key, and says nothing of whom it is about."""
    patient_hash: str
    generation: int
    master: str
    """Id (hex) of the master key that sealed it: as long as it is held, copies of a destroyed key open."""
    wrapped: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    destroyed_at: datetime | None = Field(default=None, sa_column=Column(UtcInstant, nullable=True))
    reason: str | None = Field(
        default=None,
        sa_column=Column(Encrypted("epicrisis_patient_key.reason", of_house=True), nullable=True),
    )
    """Why it was destroyed."""


class GivenTable(SQLModel, table=True):
    """One resource version that a run's model was given, cited or not: recall by a bad input needs all."""

    __tablename__ = "epicrisis_given"
    __table_args__ = (
        ForeignKeyConstraint(["run"], ["epicrisis_run.id"], name="fk_epicrisis_given_run"),
        Index("ix_epicrisis_given_source", "source_hash", "version"),
    )

    run: int = Field(primary_key=True)
    source_hash: str = Field(primary_key=True)
    version: str = Field(primary_key=True)


class DocumentTable(SQLModel, table=True):
    """One document of ours on a server, and where it stands."""

    __tablename__ = "epicrisis_document"
    __table_args__ = (
        UniqueConstraint("document_hash", name="uq_epicrisis_document_document"),
        Index("ix_epicrisis_document_run", "run_id"),
        Index("ix_epicrisis_document_patient", "patient_hash", "id"),
        Index("ix_epicrisis_document_state", "state", "filed_at"),
    )

    id: int | None = Field(default=None, primary_key=True)
    document_hash: str
    """Keyed hash of server and reference."""
    run_id: str
    patient_hash: str
    state: str
    version: str
    filed_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    expires_at: datetime | None = Field(default=None, sa_column=Column(UtcInstant, nullable=True))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_document.content"), nullable=False))


class StopTable(SQLModel, table=True):
    """One halt of publishing. `value` may name a ward: it is sealed, and small enough to be read whole."""

    __tablename__ = "epicrisis_stop"

    id: int | None = Field(default=None, primary_key=True)
    scope: str
    since: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    by: str
    lifted_at: datetime | None = Field(default=None, sa_column=Column(UtcInstant, nullable=True))
    lifted_by: str = ""
    value: str = Field(sa_column=Column(Encrypted("epicrisis_stop.value"), nullable=False))
    reason: str = Field(sa_column=Column(Encrypted("epicrisis_stop.reason"), nullable=False))


class UrgentTable(SQLModel, table=True):
    """One request that others make room for at the engine. Whoever waits raises `beat` once a second.

    No clock is written: computers that share a database need not agree on the time.
    """

    __tablename__ = "epicrisis_urgent"

    id: str = Field(primary_key=True)
    priority: int
    beat: int
