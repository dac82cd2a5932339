"""The migrated schema is the one the code expects, whoever migrates beside whom, and the audit log stays."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData, Table, insert, inspect
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlmodel import SQLModel

import service.store
from service.errors import StoreError
from service.store import database
from service.store.cipher import Cipher
from service.store.columns import Encrypted, attach_cipher
from service.store.database import place_of, upgrade
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog
from service.store.vault import SqlVault
from tests.conftest import ROOT
from tests.contract.store.conftest import WITHOUT_TABLES
from tests.unit.store.test_contents import ENTRY
from tests.unit.writeback.charts import CREATED, make_run

for module in pkgutil.iter_modules(service.store.__path__):  # every room that has tables registers them
    importlib.import_module(f"service.store.{module.name}")
AUDIT = "epicrisis_audit_entry"
VERSIONS = {"version_table": "epicrisis_schema_version", "compare_type": True}


def migrate_to(url: str, revision: str) -> None:
    """Make a database of an earlier version."""
    place = place_of(url)
    engine = place.engine()
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def write_entry(engine: Engine, cipher: Cipher) -> None:
    """Write an act as the first version did, into the columns that it knew."""
    sealed = {
        name: Encrypted(f"{AUDIT}.{name}").process_bind_param(value, engine.dialect)
        for name, value in (("patient", ENTRY.patient), ("target", ENTRY.target))
    }
    plain = {"actor": ENTRY.actor, "outcome": ENTRY.outcome, "run_id": ENTRY.run_id}
    hashed = {"patient_hash": cipher.keyed_hash("patient", ENTRY.patient)}
    row = {"at": ENTRY.at, "action": ENTRY.action.value, "counts": dict(ENTRY.counts)}
    with engine.begin() as connection:
        table = Table(AUDIT, MetaData(), autoload_with=connection)
        connection.execute(insert(table).values(sealed | plain | hashed | row))


@WITHOUT_TABLES
def test_the_migrated_schema_is_what_the_tables_say(url: str) -> None:
    engine = upgrade(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=VERSIONS)
        assert compare_metadata(context, SQLModel.metadata) == []
    engine.dispose()


@WITHOUT_TABLES
def test_a_database_of_the_first_version_is_upgraded_and_loses_nothing(url: str, cipher: Cipher) -> None:
    migrate_to(url, "0001")
    engine = place_of(url).engine()
    names = set(inspect(engine).get_table_names())
    assert "epicrisis_run" in names
    assert "epicrisis_kept" not in names
    attach_cipher(engine, cipher)
    write_entry(engine, cipher)
    engine.dispose()
    store, vault = SqlStore(url, cipher), SqlVault(url, cipher, lambda: CREATED)
    audit = SqlAuditLog(url, cipher)
    store.save(make_run())
    vault.put("snapshot", "key", b"content")
    assert store.get(make_run().run_id) == make_run()
    assert audit.entries() == (ENTRY,)
    assert vault.get("snapshot", "key") == b"content"
    for edge in (store, audit, vault):
        edge.close()


@WITHOUT_TABLES
def test_a_database_of_a_newer_version_is_refused_and_left_alone(url: str, cipher: Cipher) -> None:
    engine = upgrade(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE epicrisis_schema_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="another version of Epicrisis"):
        SqlStore(url, cipher)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT version_num FROM epicrisis_schema_version").fetchall()
    engine.dispose()
    assert [tuple(row) for row in rows] == [("9999",)]


@pytest.mark.parametrize("round_", range(3))
@WITHOUT_TABLES
def test_whoever_starts_together_on_a_new_database_finds_it_whole(
    url: str, cipher: Cipher, round_: int
) -> None:
    together = threading.Barrier(8)

    def start(number: int) -> None:
        together.wait(10)
        store = SqlStore(url, cipher)
        store.save(make_run(run_id=f"run-{number}"))
        store.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(start, range(8)))
    store = SqlStore(url, cipher)
    assert store.rows()[1] == 8
    store.close()


@WITHOUT_TABLES
def test_two_processes_migrate_one_database_at_once(url: str) -> None:
    program = "import sys; from service.store.database import upgrade; upgrade(sys.argv[1]).dispose()"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, url], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    test_the_migrated_schema_is_what_the_tables_say(url)


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE {AUDIT} SET actor = 'nobody'",
        f"UPDATE {AUDIT} SET outcome = outcome",
        f"DELETE FROM {AUDIT}",
        f"INSERT INTO {AUDIT} SELECT * FROM {AUDIT} WHERE true"
        " ON CONFLICT (id) DO UPDATE SET actor = 'nobody'",
    ],
)
def test_an_audit_entry_cannot_be_changed_by_anyones_connection(
    audit: SqlAuditLog, url: str, statement: str
) -> None:
    audit.append(ENTRY)
    engine = place_of(url).engine()
    with pytest.raises(IntegrityError, match="append only"), engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
    assert audit.entries() == (ENTRY,)


@pytest.mark.parametrize(
    "before", ["SELECT 1", "SET LOCAL session_replication_role = replica"], ids=["owner", "superuser"]
)
@pytest.mark.parametrize("statement", [f"TRUNCATE {AUDIT}", f"DELETE FROM {AUDIT}"])
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_postgresql_empties_no_audit_log_not_even_for_a_superuser_who_switches_triggers_off(
    audit: SqlAuditLog, postgres: object, url: str, before: str, statement: str
) -> None:
    audit.append(ENTRY)
    if "replica" in before:
        url = url.replace("epicrisis:", "postgres:", 1)
    engine = place_of(url).engine()
    with engine.begin() as connection:
        connection.exec_driver_sql(before)
        with pytest.raises(SQLAlchemyError, match="append only"):
            connection.exec_driver_sql(statement)
    engine.dispose()
    assert audit.entries() == (ENTRY,)
