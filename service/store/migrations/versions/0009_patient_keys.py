"""Data keys, one a patient, under the master key; whose what is in the vault is.

What the vault kept is forgotten: of an entry from before nobody can tell whose it is.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "epicrisis_patient_key",
        sa.Column("id", sa.String(), nullable=False, primary_key=True),
        sa.Column("patient_hash", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("master", sa.String(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("destroyed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.LargeBinary(), nullable=True),
        sa.UniqueConstraint("patient_hash", "generation", name="uq_epicrisis_patient_key_patient"),
    )
    op.create_index("ix_epicrisis_patient_key_master", "epicrisis_patient_key", ["master"])
    op.add_column("epicrisis_key_check", sa.Column("master", sa.String(), nullable=True))
    op.add_column(
        "epicrisis_key_check", sa.Column("epoch", sa.Integer(), nullable=False, server_default="0")
    )
    op.execute("DELETE FROM epicrisis_kept")
    op.add_column(
        "epicrisis_kept", sa.Column("patient_hash", sa.String(), nullable=False, server_default="")
    )
    op.create_index("ix_epicrisis_kept_patient", "epicrisis_kept", ["patient_hash"])
