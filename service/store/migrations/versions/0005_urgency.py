"""Who waits for the engine now, so that others make room in whatever process they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "epicrisis_urgent",
        sa.Column("id", sa.String(), nullable=False, primary_key=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("beat", sa.Integer(), nullable=False),
    )
