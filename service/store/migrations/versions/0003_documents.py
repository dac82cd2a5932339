"""Documents that were filed and where they stand, what is stopped, and every source that a run was given.

Runs of before this migration have no rows in `epicrisis_given`: for them, recall knows the cited sources and
asks the server's Provenance for the rest.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
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
        "epicrisis_given",
        sa.Column("run", sa.Integer(), nullable=False, primary_key=True),
        _text("source_hash", key=True),
        _text("version", key=True),
        sa.ForeignKeyConstraint(["run"], ["epicrisis_run.id"], name="fk_epicrisis_given_run"),
    )
    op.create_index("ix_epicrisis_given_source", "epicrisis_given", ["source_hash", "version"])
    op.create_table(
        "epicrisis_document",
        sa.Column("id", sa.Integer(), nullable=False, primary_key=True),
        *[_text(name) for name in ("document_hash", "run_id", "patient_hash", "state", "version")],
        _instant("filed_at"),
        _instant("expires_at", nullable=True),
        _sealed("content"),
        sa.UniqueConstraint("document_hash", name="uq_epicrisis_document_document"),
    )
    op.create_index("ix_epicrisis_document_run", "epicrisis_document", ["run_id"])
    op.create_index("ix_epicrisis_document_patient", "epicrisis_document", ["patient_hash", "id"])
    op.create_index("ix_epicrisis_document_state", "epicrisis_document", ["state", "filed_at"])
    op.create_table(
        "epicrisis_stop",
        sa.Column("id", sa.Integer(), nullable=False, primary_key=True),
        _text("scope"),
        _instant("since"),
        _text("by"),
        _instant("lifted_at", nullable=True),
        _text("lifted_by"),
        *[_sealed(name) for name in ("value", "reason")],
    )
