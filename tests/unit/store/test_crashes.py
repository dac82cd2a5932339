"""What goes wrong with disks, keys and processes: a clear StoreError each time, and nothing half-written."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from service.errors import StoreError
from service.ports import RunId, RunState
from service.store.cipher import Cipher
from service.store.database import Database, open_cipher, upgrade
from service.store.failure import errno_text, store_error, told_plainly
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog
from tests.conftest import CANARY, ROOT
from tests.unit.store.test_contents import ENTRY
from tests.unit.writeback.charts import make_run


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def check_safe(error: StoreError) -> None:
    """A person is told what to do, and nothing of a patient, a path or a statement."""
    said = f"{error.message} {error.advice}"
    assert error.advice
    assert error.__suppress_context__ or error.__context__ is None
    for secret in (CANARY, "Patient/77", "INSERT", "SELECT", "data/"):
        assert secret not in said


def start_writer(url: str, *args: str) -> subprocess.Popen[str]:
    key = path_of(url).parent / "key"
    command = [sys.executable, "-m", "tests.unit.store.writer", url, str(key), *args]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("table", ["epicrisis_run", "epicrisis_claim", "epicrisis_citation"])
def test_a_process_killed_in_the_middle_of_a_save_leaves_nothing_of_it(
    store: SqlStore, url: str, table: str
) -> None:
    store.save(make_run())
    process = start_writer(url, "stall", "killed", table)
    assert process.stdout is not None
    assert process.stdout.readline() == "in the middle\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    process.stdout.close()
    assert store.get(RunId("killed")) is None
    assert [row.run_id for row in store.rows()[0]] == ["run-1"]
    with store.database.engine.connect() as connection:
        counts = [
            connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar()
            for name in ("epicrisis_run", "epicrisis_claim", "epicrisis_citation")
        ]
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    assert counts == [1, 5, 6]
    store.save(make_run(run_id=RunId("killed")))
    assert store.get(RunId("killed")) == make_run(run_id=RunId("killed"))


def test_a_process_that_ends_beside_an_open_store_leaves_it_its_log(
    store: SqlStore, audit: SqlAuditLog, url: str
) -> None:
    store.save(make_run())
    audit.append(ENTRY)
    SqlStore(url, store.database.cipher).close()  # opened and closed once more in this process
    process = start_writer(url, "many", "beside", "1")
    assert process.wait(60) == 0
    assert process.stdout is not None
    process.stdout.close()
    assert path_of(url).with_name("epicrisis.db-wal").exists()
    assert store.rows()[1] == 2


def test_two_processes_write_beside_each_other_and_lose_nothing(url: str, cipher: Cipher) -> None:
    processes = [start_writer(url, "many", name, "10") for name in ("a", "b")]
    for process in processes:
        assert process.wait(60) == 0
        assert process.stdout is not None
        process.stdout.close()
    store = SqlStore(url, cipher)
    rows, total = store.rows(100)
    store.close()
    assert total == 20
    assert {row.run_id for row in rows} == {f"{name}-{n}" for name in "ab" for n in range(10)}


@pytest.mark.parametrize("round_", range(5))
def test_whoever_starts_together_on_a_new_database_finds_it_whole(
    url: str, cipher: Cipher, round_: int
) -> None:
    together = threading.Barrier(8)

    def start(number: int) -> None:
        together.wait(10)
        store = SqlStore(url, cipher)
        store.save(make_run(run_id=RunId(f"run-{number}")))
        store.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(start, range(8)))
    store = SqlStore(url, cipher)
    assert store.rows()[1] == 8
    store.close()


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_new_database_that_another_process_is_making_is_waited_for(
    url: str, cipher: Cipher, lock: str
) -> None:
    path_of(url).parent.mkdir(parents=True, exist_ok=True)
    other = sqlite3.connect(path_of(url), isolation_level=None, check_same_thread=False)
    other.execute(lock)
    release = threading.Timer(0.5, other.execute, ["ROLLBACK"])
    release.start()
    store = SqlStore(url, cipher)
    store.save(make_run(run_id=RunId("waited")))
    store.close()
    release.join()
    other.close()
    with sqlite3.connect(path_of(url)) as looked:
        assert looked.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    looked.close()


def test_a_change_that_waited_for_another_writer_is_made_and_not_refused(store: SqlStore, url: str) -> None:
    for name in ("run-1", "run-2"):
        store.save(make_run(run_id=RunId(name)))
    other = sqlite3.connect(path_of(url), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE epicrisis_run SET attempt = 2 WHERE run_id = 'run-2'")
    release = threading.Timer(0.5, other.execute, ["COMMIT"])
    release.start()
    store.finish(RunId("run-1"), RunState.FILED)
    release.join()
    other.close()
    found = store.get(RunId("run-1"))
    assert found is not None
    assert found.state is RunState.FILED


def test_not_even_an_error_of_the_engine_itself_shows_values(store: SqlStore) -> None:
    statement = "INSERT INTO epicrisis_key_check (id, lookup_hash, sealed) VALUES (1, ?, ?)"
    with store.database.engine.connect() as connection, pytest.raises(IntegrityError) as caught:
        connection.exec_driver_sql(statement, (CANARY, b""))
    assert CANARY not in str(caught.value)


def test_a_writer_waits_for_another_and_then_says_who_holds_the_database(store: SqlStore, url: str) -> None:
    @event.listens_for(store.database.engine, "connect")
    def impatient(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout=50").close()

    store.close()
    other = sqlite3.connect(path_of(url), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="Another process holds the database") as caught:
        store.save(make_run())
    check_safe(caught.value)
    assert store.rows() == ((), 0)
    other.execute("ROLLBACK")
    other.close()
    store.save(make_run())


def test_a_full_disk_stores_nothing_and_says_so(store: SqlStore, audit: SqlAuditLog) -> None:
    store.save(make_run())
    full = True

    @event.listens_for(store.database.engine, "connect")
    def fill(connection: sqlite3.Connection, _record: object) -> None:
        if full:
            used = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={used + 2}").close()

    store.close()
    big = make_run(run_id=RunId("big"), seconds={str(n): float(n) for n in range(20_000)})
    with pytest.raises(StoreError, match="The disk is full: nothing was stored") as caught:
        store.save(big)
    check_safe(caught.value)
    assert [row.run_id for row in store.rows()[0]] == ["run-1"]
    store.finish(RunId("run-1"), RunState.FILED)  # what needs no room still works
    full = False
    store.close()
    store.save(big)
    assert store.get(RunId("big")) == big


@pytest.mark.parametrize("damage", [b"", b"\0" * 4096, b"not a database, but " * 400])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(
    url: str, cipher: Cipher, damage: bytes
) -> None:
    path = path_of(url)
    SqlStore(url, cipher).close()
    if not damage:  # half of it is gone
        damage = path.read_bytes()[: path.stat().st_size // 2 // 4096 * 4096 - 100]
    path.write_bytes(damage)
    with pytest.raises(StoreError, match="damaged, or is not a database") as caught:
        SqlStore(url, cipher).save(make_run())
    check_safe(caught.value)


def test_damage_in_the_middle_of_the_file_is_found_when_it_is_read(url: str, cipher: Cipher) -> None:
    store = SqlStore(url, cipher)
    store.save(make_run())
    store.close()
    data = bytearray(path_of(url).read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path_of(url).write_bytes(data)
    with pytest.raises(StoreError) as caught:
        SqlStore(url, cipher).get(make_run().run_id)
    check_safe(caught.value)


def test_another_key_file_is_refused_before_anything_is_written(
    url: str, cipher: Cipher, tmp_path: Path
) -> None:
    SqlStore(url, cipher).close()
    before = path_of(url).read_bytes()
    other = Cipher.from_file(tmp_path / "other")
    for kind in (SqlStore, SqlAuditLog):
        with pytest.raises(StoreError, match="key file does not hold the key") as caught:
            kind(url, other)
        check_safe(caught.value)
    assert path_of(url).read_bytes() == before


def test_a_key_file_with_another_lookup_key_is_refused(url: str) -> None:
    keys = {b"\0\0\0\1": b"1" * 32}
    SqlStore(url, Cipher(keys, b"\0\0\0\1", b"a" * 32)).close()
    with pytest.raises(StoreError, match="does not belong to this database") as caught:
        SqlStore(url, Cipher(keys, b"\0\0\0\1", b"b" * 32))
    check_safe(caught.value)


def test_a_lost_key_file_is_not_replaced_by_a_new_one(url: str, cipher: Cipher, tmp_path: Path) -> None:
    SqlStore(url, cipher).close()
    key = tmp_path / "data" / "key"
    key.unlink()
    with pytest.raises(StoreError, match="key file is missing") as caught:
        open_cipher(key, url)
    check_safe(caught.value)
    assert not key.exists()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://h/d",
        "postgresql+asyncpg://h/d",
        "postgresql+psycopg2://h/d",
        "sqlite:///x.db?mode=ro",
        "nonsense",
        "",
        "a://b:c",
    ],
)
def test_a_url_that_is_neither_a_sqlite_file_nor_postgresql_is_refused(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        upgrade(url)
    assert "sqlite:///" in caught.value.advice


def test_a_folder_that_cannot_be_made_is_said_without_its_path(cipher: Cipher, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be used") as caught:
        Database(f"sqlite:///{tmp_path}/file/data/x.db", cipher)
    check_safe(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_table_that_went_missing_is_a_clear_error(store: SqlStore, url: str) -> None:
    raw = sqlite3.connect(path_of(url))
    raw.execute("DROP TABLE epicrisis_citation")
    raw.commit()
    raw.close()
    with pytest.raises(StoreError, match=r"The database refused \(OperationalError\)") as caught:
        store.save(make_run())
    check_safe(caught.value)
    assert store.rows() == ((), 0)


def test_a_read_only_database_is_a_clear_error(store: SqlStore) -> None:
    @event.listens_for(store.database.engine, "connect")
    def lock(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA query_only=ON").close()

    store.close()
    with pytest.raises(StoreError, match="cannot be written") as caught:
        store.save(make_run())
    check_safe(caught.value)


def test_an_audit_entry_that_cannot_be_written_raises(audit: SqlAuditLog, url: str) -> None:
    raw = sqlite3.connect(path_of(url))
    raw.execute("DROP TABLE epicrisis_audit_entry")
    raw.commit()
    raw.close()
    with pytest.raises(StoreError):
        audit.append(ENTRY)


def test_errors_of_the_driver_itself_are_told_plainly_too() -> None:
    with pytest.raises(StoreError, match=r"refused \(ProgrammingError\)"), told_plainly():
        raise sqlite3.ProgrammingError(CANARY)
    assert CANARY not in store_error(sqlite3.DatabaseError(CANARY)).message
    assert errno_text(OSError()) == "unknown reason"


def test_lists_are_read_along_an_index(store: SqlStore) -> None:
    def plan(statement: str) -> str:
        with store.database.engine.connect() as connection:
            return str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").fetchall())

    latest = plan(
        "SELECT content FROM epicrisis_run WHERE patient_hash = 'x' AND kind = 'history' AND state = 'filed' "
        "ORDER BY created_at DESC, id DESC LIMIT 1"
    )
    page = plan("SELECT run_id FROM epicrisis_run ORDER BY created_at DESC, id DESC LIMIT 50")
    by_key = plan(
        "SELECT id FROM epicrisis_run WHERE run_key = 'x' ORDER BY created_at DESC, id DESC LIMIT 1"
    )
    by_source = plan("SELECT run FROM epicrisis_citation WHERE source_hash = 'x' AND version = '1'")
    assert "ix_epicrisis_run_newest" in page
    assert "ix_epicrisis_run_key" in by_key
    assert "ix_epicrisis_citation_source" in by_source
    assert "ix_epicrisis_run_patient" in latest
    assert "TEMP B-TREE" not in page + by_key + latest
