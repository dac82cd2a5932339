"""The chain of the audit log. Its genesis seals what was recorded before: no link of theirs is made up later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from service.audit.chain import make_genesis
from service.store.trail import digest_of_earlier

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

LINK = "epicrisis_audit_link"


def upgrade() -> None:
    table = op.create_table(
        LINK,
        sa.Column("number", sa.Integer(), nullable=False, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.Integer(), nullable=False),
        *[sa.Column(name, sa.String(), nullable=False) for name in ("key_id", "mac", "hash")],
    )
    op.create_index("ix_epicrisis_audit_link_entry", LINK, ["entry"], unique=True)
    connection = op.get_bind()
    genesis = make_genesis(*digest_of_earlier(connection))
    connection.execute(sa.insert(table).values(genesis._asdict()))
    if connection.dialect.name == "postgresql":
        _make_append_only_on_postgresql()
    else:
        _make_append_only()


def _make_append_only_on_postgresql() -> None:
    """TRUNCATE fires no trigger of a row, and a privileged session's replica role none at all, unless ALWAYS."""
    for name, when in (
        ("change", "UPDATE OR DELETE ON {} FOR EACH ROW"),
        ("truncate", "TRUNCATE ON {} FOR EACH STATEMENT"),
    ):
        op.execute(
            f"CREATE TRIGGER {LINK}_no_{name} BEFORE {when.format(LINK)} "
            "EXECUTE FUNCTION epicrisis_audit_entry_refuse()"
        )
        op.execute(f"ALTER TABLE {LINK} ENABLE ALWAYS TRIGGER {LINK}_no_{name}")


def _make_append_only() -> None:
    """INSERT OR REPLACE deletes without a DELETE trigger where recursive_triggers is off: it is refused itself."""
    refuse = "BEGIN SELECT RAISE(ABORT, 'the audit log is append only'); END"
    op.execute(f"CREATE TRIGGER {LINK}_no_update BEFORE UPDATE ON {LINK} {refuse}")
    op.execute(f"CREATE TRIGGER {LINK}_no_delete BEFORE DELETE ON {LINK} {refuse}")
    op.execute(
        f"CREATE TRIGGER {LINK}_no_replace BEFORE INSERT ON {LINK} "
        f"WHEN EXISTS (SELECT 1 FROM {LINK} WHERE number = NEW.number) {refuse}"
    )
