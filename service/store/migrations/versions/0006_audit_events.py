"""What of the audit log was sent to a collector, of which server an entry speaks, and who answers for an act."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "epicrisis_audit_entry", sa.Column("server", sa.String(), nullable=False, server_default="")
    )
    op.add_column("epicrisis_audit_entry", sa.Column("on_behalf", sa.LargeBinary(), nullable=True))
    op.create_table(
        "epicrisis_audit_sent",
        sa.Column("collector", sa.String(), nullable=False, primary_key=True),
        sa.Column("entry", sa.Integer(), nullable=False, primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
