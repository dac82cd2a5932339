"""What clinicians dispose of, edit and attest; what is hidden; recalls that wait for a second person."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def _key() -> sa.Column[int]:
    return sa.Column("id", sa.Integer(), nullable=False, primary_key=True)


def _instant(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False)


def _sealed() -> sa.Column[bytes]:
    return sa.Column("content", sa.LargeBinary(), nullable=False)


def upgrade() -> None:
    _attesting()
    op.create_table(
        "epicrisis_hidden",
        _key(), _text("run_id"), _text("patient_hash"), _instant("at"),
        _instant("lifted_at", nullable=True), _text("lifted_by"), _sealed(),
    )  # fmt: skip
    op.create_index("ix_epicrisis_hidden_run", "epicrisis_hidden", ["run_id"])
    op.create_index("ix_epicrisis_hidden_lifted", "epicrisis_hidden", ["lifted_at"])
    op.create_index("ix_epicrisis_hidden_patient", "epicrisis_hidden", ["patient_hash"])
    op.create_table(
        "epicrisis_proposal",
        _key(), _text("proposal_id"), _instant("at"), _sealed(),
        sa.UniqueConstraint("proposal_id", name="uq_epicrisis_proposal_proposal_id"),
    )  # fmt: skip
    op.create_table(
        "epicrisis_glass",
        _key(), _text("actor_hash"), _text("patient_hash"), _instant("at"), _instant("until"), _sealed(),
    )  # fmt: skip
    op.create_index("ix_epicrisis_glass_actor", "epicrisis_glass", ["actor_hash", "patient_hash"])
    op.create_index("ix_epicrisis_glass_patient", "epicrisis_glass", ["patient_hash"])
    op.create_index("ix_epicrisis_glass_at", "epicrisis_glass", ["at"])


def _attesting() -> None:
    op.create_table(
        "epicrisis_decision",
        _key(), _text("run_id"), _text("patient_hash"), _text("actor_hash"), _instant("at"),
        _instant("undone_at", nullable=True), _sealed(),
    )  # fmt: skip
    op.create_index("ix_epicrisis_decision_run", "epicrisis_decision", ["run_id", "actor_hash", "id"])
    op.create_index("ix_epicrisis_decision_patient", "epicrisis_decision", ["patient_hash"])
    op.create_table(
        "epicrisis_opening",
        sa.Column("run_id", sa.String(), nullable=False, primary_key=True),
        sa.Column("actor_hash", sa.String(), nullable=False, primary_key=True),
        _text("patient_hash"), _instant("at"),
    )  # fmt: skip
    op.create_index("ix_epicrisis_opening_patient", "epicrisis_opening", ["patient_hash"])
    op.create_table(
        "epicrisis_attested",
        _key(), _text("run_id"), _text("patient_hash"), _instant("at"), _sealed(),
        sa.UniqueConstraint("run_id", name="uq_epicrisis_attested_run_id"),
    )  # fmt: skip
    op.create_index("ix_epicrisis_attested_patient", "epicrisis_attested", ["patient_hash"])
    op.create_index("ix_epicrisis_attested_at", "epicrisis_attested", ["at"])
