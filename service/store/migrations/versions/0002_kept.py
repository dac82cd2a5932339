"""The vault's table: bytes kept under a key, snapshots of charts and digests of windows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "epicrisis_kept",
        sa.Column("area", sa.String(), nullable=False, primary_key=True),
        sa.Column("key_hash", sa.String(), nullable=False, primary_key=True),
        sa.Column("saved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_epicrisis_kept_used", "epicrisis_kept", ["area", "used_at"])
