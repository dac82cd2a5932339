"""Launches from an EHR: who came from where, for which patient, with which tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def _at(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def _sealed(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "epicrisis_launch_attempt",
        sa.Column("state_hash", sa.String(), nullable=False, primary_key=True),
        _at("began_at"),
        _sealed("content"),
    )
    op.create_index("ix_epicrisis_launch_attempt_began", "epicrisis_launch_attempt", ["began_at"])
    op.create_table(
        "epicrisis_launch",
        sa.Column("visit", sa.String(), nullable=False, primary_key=True),
        sa.Column("browser_hash", sa.String(), nullable=False),
        sa.Column("patient_hash", sa.String(), nullable=False),
        _at("began_at"),
        _at("used_at"),
        _sealed("content"),
        _sealed("tokens"),
    )
    op.create_index("ix_epicrisis_launch_browser", "epicrisis_launch", ["browser_hash", "began_at"])
    op.create_index("ix_epicrisis_launch_patient", "epicrisis_launch", ["patient_hash"])
    op.create_index("ix_epicrisis_launch_used", "epicrisis_launch", ["used_at"])
