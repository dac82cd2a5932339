"""What clinicians said of statements, what they asked, and who wants no summaries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "epicrisis_feedback",
        sa.Column("id", sa.Integer(), nullable=False, primary_key=True),
        sa.Column("feedback_id", sa.String(), nullable=False),
        sa.Column("about", sa.String(), nullable=False),
        sa.Column("patient_hash", sa.String(), nullable=False),
        sa.Column("chart_hash", sa.String(), nullable=False),
        sa.Column("claim_hash", sa.String(), nullable=False),
        sa.Column("actor_hash", sa.String(), nullable=False),
        sa.Column("mark", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ruling", sa.String(), nullable=True),
        sa.Column("ruled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("ruled", sa.LargeBinary(), nullable=True),
        sa.UniqueConstraint("feedback_id", name="uq_epicrisis_feedback_feedback_id"),
    )
    op.create_index("ix_epicrisis_feedback_about", "epicrisis_feedback", ["about", "id"])
    op.create_index("ix_epicrisis_feedback_chart", "epicrisis_feedback", ["chart_hash", "claim_hash"])
    op.create_index("ix_epicrisis_feedback_patient", "epicrisis_feedback", ["patient_hash"])
    op.create_table(
        "epicrisis_question",
        sa.Column("id", sa.Integer(), nullable=False, primary_key=True),
        sa.Column("question_id", sa.String(), nullable=False),
        sa.Column("patient_hash", sa.String(), nullable=False),
        sa.Column("chart_hash", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("model_digest", sa.String(), nullable=False),
        sa.Column("template_digest", sa.String(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("question_id", name="uq_epicrisis_question_question_id"),
    )
    op.create_index("ix_epicrisis_question_chart", "epicrisis_question", ["chart_hash", "id"])
    op.create_index("ix_epicrisis_question_patient", "epicrisis_question", ["patient_hash"])
    op.create_table(
        "epicrisis_sidebar_off",
        sa.Column("actor_hash", sa.String(), nullable=False, primary_key=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
    )
