"""Calls of CDS Hooks: identifiers of tokens that were used, cards that were shown, what became of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "epicrisis_hook_call",
        sa.Column("token_hash", sa.String(), nullable=False, primary_key=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_epicrisis_hook_call_until", "epicrisis_hook_call", ["until"])
    op.create_table(
        "epicrisis_hook_card",
        sa.Column("card_hash", sa.String(), nullable=False, primary_key=True),
        sa.Column("patient_hash", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_epicrisis_hook_card_patient", "epicrisis_hook_card", ["patient_hash"])
    op.create_table(
        "epicrisis_hook_feedback",
        sa.Column("feedback_hash", sa.String(), nullable=False, primary_key=True),
        sa.Column("patient_hash", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_epicrisis_hook_feedback_patient", "epicrisis_hook_feedback", ["patient_hash"])
