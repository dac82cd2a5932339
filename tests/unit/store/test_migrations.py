"""The migrated schema is the one the code expects, and the audit log cannot be rewritten."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlmodel import SQLModel

import service.store.admission_tables
import service.store.hook_calls
import service.store.keys
import service.store.ondemand
import service.store.sessions  # noqa: F401 - their tables are part of the schema
from service.errors import StoreError
from service.store import database
from service.store.cipher import Cipher
from service.store.database import upgrade
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog
from service.store.vault import SqlVault
from tests.unit.store.test_contents import ENTRY
from tests.unit.writeback.charts import CREATED, make_run

FIRST_TABLES = "run claim citation audit_entry key_check".split()


def first_version(path: Path, source: Path) -> None:
    """Make a database of the first version, and fill it with the rows of another."""
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("ATTACH ? AS source", (str(source),))
    for name in FIRST_TABLES:
        columns = ", ".join(row[1] for row in raw.execute(f"PRAGMA main.table_info(epicrisis_{name})"))
        raw.execute(f"INSERT INTO main.epicrisis_{name} SELECT {columns} FROM source.epicrisis_{name}")
    raw.close()


def seal_as_then(path: Path, store: SqlStore, cipher: Cipher) -> None:
    """Seal every value by the key file itself, as the first version did: it knew no key of a patient."""
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("DELETE FROM epicrisis_key_check")
    triggers = raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for trigger, _ in triggers:
        raw.execute(f"DROP TRIGGER {trigger}")
    for name in FIRST_TABLES:
        table = f"epicrisis_{name}"
        columns = [row[1] for row in raw.execute(f"PRAGMA table_info({table})") if row[2] == "BLOB"]
        for column in columns:
            for row, value in raw.execute(f"SELECT rowid, {column} FROM {table}").fetchall():
                place = f"{table}.{column}"
                sealed = cipher.seal(store.database.envelope.unseal(value, place), place)
                raw.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (sealed, row))
    for _, statement in triggers:
        raw.execute(statement)
    raw.close()


def schema(path: Path) -> list[str]:
    raw = sqlite3.connect(path)
    rows = raw.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    raw.close()
    return [row[0] for row in rows]


def test_a_database_of_the_first_version_is_upgraded_and_loses_nothing(
    store: SqlStore, audit: SqlAuditLog, cipher: Cipher, url: str, tmp_path: Path
) -> None:
    store.save(make_run())
    audit.append(ENTRY)
    current, old = Path(url.removeprefix("sqlite:///")), tmp_path / "old.db"
    first_version(old, current)
    seal_as_then(old, store, cipher)
    store.close()
    audit.close()
    assert not any("epicrisis_kept" in statement for statement in schema(old))
    old_url = f"sqlite:///{old}"
    old_store, old_audit = SqlStore(old_url, cipher), SqlAuditLog(old_url, cipher)
    vault = SqlVault(old_url, cipher, lambda: CREATED)
    vault.put("snapshot", "key", b"content")
    assert old_store.get(make_run().run_id) == make_run()
    assert old_audit.entries() == (ENTRY,)
    assert vault.get("snapshot", "key") == b"content"
    for edge in (old_store, old_audit, vault):
        edge.close()
    assert schema(old) == schema(current)


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
