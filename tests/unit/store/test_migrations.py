"""The migrated schema is the one the code expects, and the audit log cannot be rewritten."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlmodel import SQLModel

from service.errors import StoreError
from service.store.cipher import Cipher
from service.store.database import upgrade
from service.store.sql import SqlAuditLog, SqlStore
from tests.unit.store.test_contents import ENTRY


def test_the_migrated_schema_is_what_the_tables_say(url: str) -> None:
    engine = upgrade(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "epicrisis_schema_version", "compare_type": True}
        )
        assert compare_metadata(context, SQLModel.metadata) == []
    engine.dispose()


def test_upgrading_again_changes_nothing(url: str) -> None:
    def schema() -> list[str]:
        engine = upgrade(url)
        with engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
        engine.dispose()
        return [row[0] for row in rows]

    assert schema() == schema()


def test_a_database_of_a_newer_version_is_refused_and_left_alone(url: str, cipher: Cipher) -> None:
    upgrade(url).dispose()
    path = url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE epicrisis_schema_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(StoreError, match="another version of Epicrisis"):
        SqlStore(url, cipher)
    raw = sqlite3.connect(path)
    assert raw.execute("SELECT version_num FROM epicrisis_schema_version").fetchall() == [("9999",)]
    raw.close()


def test_migrations_do_not_depend_on_the_working_folder(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    upgrade(url).dispose()
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE epicrisis_audit_entry SET actor = 'nobody'",
        "UPDATE epicrisis_audit_entry SET outcome = outcome",
        "DELETE FROM epicrisis_audit_entry",
        "INSERT OR REPLACE INTO epicrisis_audit_entry SELECT * FROM epicrisis_audit_entry",
        "REPLACE INTO epicrisis_audit_entry SELECT * FROM epicrisis_audit_entry",
    ],
)
def test_an_audit_entry_cannot_be_changed_by_anyones_connection(
    audit: SqlAuditLog, url: str, statement: str
) -> None:
    audit.append(ENTRY)
    raw = sqlite3.connect(url.removeprefix("sqlite:///"))
    with pytest.raises(sqlite3.IntegrityError, match="append only"):
        raw.execute(statement)
    raw.close()
    assert audit.entries() == (ENTRY,)
