"""What a run was made of, so that it can be replayed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "epicrisis_run_input",
        sa.Column("run_id", sa.String(), nullable=False, primary_key=True),
        sa.Column("patient_hash", sa.String(), nullable=False),
        sa.Column("kept_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("templates", sa.String(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_epicrisis_run_input_patient", "epicrisis_run_input", ["patient_hash"])
    op.create_index("ix_epicrisis_run_input_kept", "epicrisis_run_input", ["kept_at"])
    op.create_table(
        "epicrisis_input_part",
        sa.Column("patient_hash", sa.String(), nullable=False, primary_key=True),
        sa.Column("part_hash", sa.String(), nullable=False, primary_key=True),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_epicrisis_input_part_used", "epicrisis_input_part", ["used_at"])
    op.create_table(
        "epicrisis_template",
        sa.Column("digest", sa.String(), nullable=False, primary_key=True),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
