"""The tables of scheduled work: admissions, what was heard of them, ticks, and who works.

As in `tables`, patients, stays and places stand in Encrypted columns alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from service.store.columns import Encrypted, UtcInstant


class AdmissionTable(SQLModel, table=True):
    """One stay. `content` is the whole Admission; the columns beside it are what is searched for."""

    __tablename__ = "epicrisis_admission"
    __table_args__ = (
        UniqueConstraint("admission_id", name="uq_epicrisis_admission_id"),
        UniqueConstraint("stay_hash", name="uq_epicrisis_admission_stay"),
        Index("ix_epicrisis_admission_server", "server_hash", "is_open", "id"),
        Index("ix_epicrisis_admission_since", "is_open", "since"),
    )

    id: int | None = Field(default=None, primary_key=True)
    admission_id: str
    stay_hash: str
    """Keyed hash of server and encounter."""
    server_hash: str
    is_open: bool
    since: datetime | None = Field(default=None, sa_column=Column(UtcInstant, nullable=True))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_admission.content"), nullable=False))


class HeardTable(SQLModel, table=True):
    """One event, stored before its source was told that it was heard."""

    __tablename__ = "epicrisis_heard"
    __table_args__ = (
        UniqueConstraint("key_hash", name="uq_epicrisis_heard_key"),
        Index("ix_epicrisis_heard_open", "is_heeded", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    key_hash: str | None
    """Keyed hash of the event's key; None where its source gives none."""
    is_heeded: bool
    tries: int
    at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    content: str = Field(sa_column=Column(Encrypted("epicrisis_heard.content"), nullable=False))


class SourceTable(SQLModel, table=True):
    """Where a source of events stands."""

    __tablename__ = "epicrisis_source"

    name: str = Field(primary_key=True)
    cursor: str = Field(sa_column=Column(Encrypted("epicrisis_source.cursor"), nullable=False))


class TickTable(SQLModel, table=True):
    """One pass of a schedule. `report` holds counts alone."""

    __tablename__ = "epicrisis_tick"
    __table_args__ = (Index("ix_epicrisis_tick_schedule", "schedule", "started_at"),)

    id: str = Field(primary_key=True)
    schedule: str
    started_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    finished_at: datetime | None = Field(default=None, sa_column=Column(UtcInstant, nullable=True))
    report: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class PausedTable(SQLModel, table=True):
    """One schedule that is paused."""

    __tablename__ = "epicrisis_paused"

    schedule: str = Field(primary_key=True)
    by: str
    since: datetime = Field(sa_column=Column(UtcInstant, nullable=False))


class WorkerTable(SQLModel, table=True):
    """One worker's signs of life."""

    __tablename__ = "epicrisis_worker"

    id: str = Field(primary_key=True)
    beats: int
    started_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    beat_at: datetime = Field(sa_column=Column(UtcInstant, nullable=False))
    version: str
