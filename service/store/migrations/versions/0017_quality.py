"""Numbers of runs, shadow runs that are never filed, and evaluations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "epicrisis_measure",
        sa.Column("run_id", sa.String(), nullable=False, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("week", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("model_digest", sa.String(), nullable=False),
        sa.Column("prompt", sa.String(), nullable=False),
        sa.Column("template_digest", sa.String(), nullable=False),
        sa.Column("rules_version", sa.String(), nullable=False),
        sa.Column("ward_hash", sa.String(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in COUNTS),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("refused", sa.JSON(), nullable=False),
    )
    op.create_index("ix_epicrisis_measure_week", "epicrisis_measure", ["week"])
    op.create_table(
        "epicrisis_measured_ward",
        sa.Column("ward_hash", sa.String(), nullable=False, primary_key=True),
        sa.Column("name", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "epicrisis_evaluation",
        sa.Column("id", sa.String(), nullable=False, primary_key=True),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("identity", sa.JSON(), nullable=False),
        sa.Column("against", sa.JSON(), nullable=True),
        sa.Column("cohort_digest", sa.String(), nullable=False),
        sa.Column("charts", sa.Integer(), nullable=False),
        sa.Column("report", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_epicrisis_evaluation_ended", "epicrisis_evaluation", ["ended_at"])
    op.create_table(
        "epicrisis_shadow",
        sa.Column("run_id", sa.String(), nullable=False, primary_key=True),
        sa.Column("evaluation", sa.String(), nullable=False),
        sa.Column("arm", sa.Integer(), nullable=False),
        sa.Column("patient_hash", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("evaluation", "arm", "patient_hash", name="uq_epicrisis_shadow_chart"),
    )
    op.create_index("ix_epicrisis_shadow_patient", "epicrisis_shadow", ["patient_hash"])


COUNTS = (
    "claims", "supported", "contradicted", "told", "added", "missing", "headings", "not_retrieved",
    "fabricated", "characters", "prompt_tokens", "completion_tokens",
)  # fmt: skip
