"""Summaries asked for by somebody who waits, and what is told of them while they are made."""

from __future__ import annotations

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
