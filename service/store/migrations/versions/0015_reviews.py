"""Reviews for quality: the queue, what sampling has looked at, reviews, and the acts in each."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "epicrisis_review_entry",
        sa.Column("id", sa.Integer(), nullable=False, primary_key=True),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("patient_hash", sa.String(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("run_id", name="uq_epicrisis_review_entry_run"),
    )
    op.create_index("ix_epicrisis_review_entry_added", "epicrisis_review_entry", ["added_at", "id"])
    op.create_index("ix_epicrisis_review_entry_patient", "epicrisis_review_entry", ["patient_hash"])
    op.create_table(
        "epicrisis_review_seen",
        sa.Column("run_id", sa.String(), nullable=False, primary_key=True),
    )
    op.create_table(
        "epicrisis_review",
        sa.Column("id", sa.Integer(), nullable=False, primary_key=True),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("reviewer_hash", sa.String(), nullable=False),
        sa.Column("patient_hash", sa.String(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("ended", sa.LargeBinary(), nullable=True),
        sa.UniqueConstraint("run_id", "reviewer_hash", name="uq_epicrisis_review_run"),
    )
    op.create_index("ix_epicrisis_review_ended", "epicrisis_review", ["ended_at", "id"])
    op.create_index("ix_epicrisis_review_patient", "epicrisis_review", ["patient_hash"])
    op.create_table(
        "epicrisis_review_act",
        sa.Column("id", sa.Integer(), nullable=False, primary_key=True),
        sa.Column("review", sa.Integer(), nullable=False),
        sa.Column("patient_hash", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["review"], ["epicrisis_review.id"], name="fk_epicrisis_review_act_review"),
    )
    op.create_index("ix_epicrisis_review_act_review", "epicrisis_review_act", ["review", "id"])
    op.create_index("ix_epicrisis_review_act_patient", "epicrisis_review_act", ["patient_hash"])
