"""Legal holds on what retention would delete, and what checks of the audit trail came to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "epicrisis_hold",
        sa.Column("id", sa.Integer(), nullable=False, primary_key=True),
        sa.Column("patient_hash", sa.String(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lifted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_epicrisis_hold_patient", "epicrisis_hold", ["patient_hash", "lifted_at"])
    op.create_table(
        "epicrisis_audit_check",
        sa.Column("id", sa.Integer(), nullable=False, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
