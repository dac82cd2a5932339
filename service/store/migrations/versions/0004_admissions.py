"""Admissions that are watched, what was heard of them, ticks of schedules, and workers."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _text(name: str, *, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False, primary_key=key)


def _instant(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _sealed(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "epicrisis_admission",
        sa.Column("id", sa.Integer(), nullable=False, primary_key=True),
        *[_text(name) for name in ("admission_id", "stay_hash", "server_hash")],
        sa.Column("is_open", sa.Boolean(), nullable=False),
        _instant("since", nullable=True),
        _sealed("content"),
        sa.UniqueConstraint("admission_id", name="uq_epicrisis_admission_id"),
        sa.UniqueConstraint("stay_hash", name="uq_epicrisis_admission_stay"),
    )
    op.create_index("ix_epicrisis_admission_server", "epicrisis_admission", ["server_hash", "is_open", "id"])
    op.create_index("ix_epicrisis_admission_since", "epicrisis_admission", ["is_open", "since"])
    op.create_table(
        "epicrisis_heard",
        sa.Column("id", sa.Integer(), nullable=False, primary_key=True),
        sa.Column("key_hash", sa.String(), nullable=True),
        sa.Column("is_heeded", sa.Boolean(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        _instant("at"),
        _sealed("content"),
        sa.UniqueConstraint("key_hash", name="uq_epicrisis_heard_key"),
    )
    op.create_index("ix_epicrisis_heard_open", "epicrisis_heard", ["is_heeded", "id"])
    op.create_table("epicrisis_source", _text("name", key=True), _sealed("cursor"))
    op.create_table(
        "epicrisis_tick",
        _text("id", key=True),
        _text("schedule"),
        _instant("started_at"),
        _instant("finished_at", nullable=True),
        sa.Column("report", sa.JSON(), nullable=False),
    )
    op.create_index("ix_epicrisis_tick_schedule", "epicrisis_tick", ["schedule", "started_at"])
    op.create_table("epicrisis_paused", _text("schedule", key=True), _text("by"), _instant("since"))
    op.create_table(
        "epicrisis_worker",
        _text("id", key=True),
        sa.Column("beats", sa.Integer(), nullable=False),
        _instant("started_at"),
        _instant("beat_at"),
        _text("version"),
    )
