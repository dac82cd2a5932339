"""Runs, claims, citations, the audit log with its triggers, and the key check.

Migrations go forward only: going back would delete the audit log.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

AUDIT = "epicrisis_audit_entry"


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False)


def _number(name: str, *, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False, primary_key=key)


def _yes_no(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def _sealed(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "epicrisis_run",
        _number("id", key=True),
        *[_text(name) for name in ("run_id", "run_key")],
        _number("attempt"),
        _text("state"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        *[_text(name) for name in ("kind", "model", "model_digest", "engine_version", "prompt_id", "prompt_version")],
        *[_text(name) for name in ("template_digest", "record_digest", "rules_version", "patient_hash")],
        *[_sealed(name) for name in ("patient", "patient_name", "document")],
        _number("published"),
        _number("refused"),
        _yes_no("incomplete"),
        _text("error"),
        sa.Column("seconds", sa.JSON(), nullable=False),
        _sealed("content"),
        sa.UniqueConstraint("run_id", name="uq_epicrisis_run_run_id"),
    )
    op.create_index("ix_epicrisis_run_newest", "epicrisis_run", ["created_at", "id"])
    op.create_index("ix_epicrisis_run_key", "epicrisis_run", ["run_key", "created_at", "id"])
    op.create_index("ix_epicrisis_run_patient", "epicrisis_run", ["patient_hash", "created_at", "id"])
    op.create_index("ix_epicrisis_run_model", "epicrisis_run", ["model_digest"])
    op.create_index("ix_epicrisis_run_prompt", "epicrisis_run", ["template_digest"])
    op.create_table(
        "epicrisis_claim",
        _number("run", key=True),
        _number("ordinal", key=True),
        *[_text(name) for name in ("section", "origin", "verdict")],
        _yes_no("published"),
        _yes_no("corrected"),
        _text("text_hash"),
        sa.ForeignKeyConstraint(["run"], ["epicrisis_run.id"], name="fk_epicrisis_claim_run"),
    )
    op.create_table(
        "epicrisis_citation",
        _number("run", key=True),
        _number("claim", key=True),
        _number("position", key=True),
        *[_text(name) for name in ("source_hash", "version", "digest")],
        sa.ForeignKeyConstraint(
            ["run", "claim"],
            ["epicrisis_claim.run", "epicrisis_claim.ordinal"],
            name="fk_epicrisis_citation_claim",
        ),
    )
    op.create_index("ix_epicrisis_citation_source", "epicrisis_citation", ["source_hash", "version"])
    op.create_table(
        AUDIT,
        _number("id", key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        *[_text(name) for name in ("action", "actor", "outcome", "run_id", "patient_hash")],
        _sealed("patient"),
        _sealed("target"),
        sa.Column("counts", sa.JSON(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_epicrisis_audit_entry_patient", AUDIT, ["patient_hash", "id"])
    op.create_index("ix_epicrisis_audit_entry_run", AUDIT, ["run_id", "id"])
    op.create_table(
        "epicrisis_key_check",
        _number("id", key=True),
        _text("lookup_hash"),
        _sealed("sealed"),
    )
    if op.get_bind().dialect.name == "postgresql":
        _make_append_only_on_postgresql()
    else:
        _make_append_only()


def _make_append_only_on_postgresql() -> None:
    """TRUNCATE fires no trigger of a row, and a privileged session's replica role none at all, unless ALWAYS."""
    op.execute(
        f"CREATE FUNCTION {AUDIT}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'the audit log is append only' USING ERRCODE = 'integrity_constraint_violation'; "
        "END $$"
    )
    for name, when in (
        ("change", "UPDATE OR DELETE ON {} FOR EACH ROW"),
        ("truncate", "TRUNCATE ON {} FOR EACH STATEMENT"),
    ):
        op.execute(
            f"CREATE TRIGGER {AUDIT}_no_{name} BEFORE {when.format(AUDIT)} EXECUTE FUNCTION {AUDIT}_refuse()"
        )
        op.execute(f"ALTER TABLE {AUDIT} ENABLE ALWAYS TRIGGER {AUDIT}_no_{name}")


def _make_append_only() -> None:
    """INSERT OR REPLACE deletes without a DELETE trigger where recursive_triggers is off: it is refused itself."""
    refuse = "BEGIN SELECT RAISE(ABORT, 'the audit log is append only'); END"
    op.execute(f"CREATE TRIGGER {AUDIT}_no_update BEFORE UPDATE ON {AUDIT} {refuse}")
    op.execute(f"CREATE TRIGGER {AUDIT}_no_delete BEFORE DELETE ON {AUDIT} {refuse}")
    op.execute(
        f"CREATE TRIGGER {AUDIT}_no_replace BEFORE INSERT ON {AUDIT} "
        f"WHEN EXISTS (SELECT 1 FROM {AUDIT} WHERE id = NEW.id) {refuse}"
    )
