"""Summaries asked for by somebody who waits, and what is told of them while they are made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def _at(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "epicrisis_generation",
        sa.Column("number", sa.Integer(), nullable=False, primary_key=True),
        sa.Column("generation_id", sa.String(), nullable=False),
        sa.Column("flight_hash", sa.String(), nullable=True),
        sa.Column("chart_hash", sa.String(), nullable=False),
        sa.Column("patient_hash", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("maker", sa.String(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("makers", sa.Integer(), nullable=False),
        sa.Column("beat", sa.Integer(), nullable=False),
        sa.Column("wanted", sa.Boolean(), nullable=False),
        _at("created_at"),
        _at("ended_at", nullable=True),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("generation_id", name="uq_epicrisis_generation_generation_id"),
        sa.UniqueConstraint("flight_hash", name="uq_epicrisis_generation_flight"),
    )
    op.create_index("ix_epicrisis_generation_chart", "epicrisis_generation", ["chart_hash", "number"])
    op.create_index("ix_epicrisis_generation_patient", "epicrisis_generation", ["patient_hash"])
    op.create_index("ix_epicrisis_generation_ended", "epicrisis_generation", ["ended_at"])
    op.create_table(
        "epicrisis_told",
        sa.Column("id", sa.Integer(), nullable=False, primary_key=True),
        sa.Column("generation_id", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("patient_hash", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("generation_id", "seq", name="uq_epicrisis_told_seq"),
    )
    op.create_index("ix_epicrisis_told_patient", "epicrisis_told", ["patient_hash"])
    op.create_table(
        "epicrisis_answer",
        sa.Column("key_hash", sa.String(), nullable=False, primary_key=True),
        sa.Column("patient_hash", sa.String(), nullable=False),
        _at("at"),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_epicrisis_answer_patient", "epicrisis_answer", ["patient_hash"])
    op.create_index("ix_epicrisis_answer_at", "epicrisis_answer", ["at"])
