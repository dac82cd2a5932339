"""Many at once: nothing is lost, nothing is doubled, and who reads sees one state."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import col, select

from service.errors import StoreError
from service.ports import Action, AuditEntry, DocumentState, FiledDocument, RunId, RunState, Stop, StopScope
from service.store.cipher import Cipher
from service.store.database import Database
from service.store.sql import SqlStore
from service.store.tables import RunTable
from service.store.trail import SqlAuditLog
from tests.conftest import ROOT
from tests.unit.writeback.charts import CREATED, make_run

THREADS = 4


def start_writer(url: str, key: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.unit.store.writer", url, str(key), *args]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def at_once(act: Any) -> list[Any]:
    """Do something in every thread, all beginning together."""
    together = threading.Barrier(THREADS)

    def begin(number: int) -> Any:
        together.wait(10)
        return act(number)

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(begin, range(THREADS)))


def test_four_threads_and_two_processes_write_at_once_and_lose_nothing(
    store: SqlStore, audit: SqlAuditLog, url: str, tmp_path: Path
) -> None:
    processes = [start_writer(url, tmp_path / "key", "many", name, "10") for name in ("a", "b")]

    def write(number: int) -> None:
        for turn in range(10):
            run_id = RunId(f"thread-{number}-{turn}")
            store.save(make_run(run_id=run_id))
            store.finish(run_id, RunState.FILED, f"DocumentReference/{number}-{turn}/_history/1")
            audit.append(AuditEntry(Action.WRITE, "system:cli", "Patient/77", CREATED, run_id=run_id))

    at_once(write)
    for process in processes:
        assert process.wait(120) == 0
        assert process.stdout is not None
        process.stdout.close()
    rows, total = store.rows(1000)
    ours = {f"thread-{number}-{turn}" for number in range(THREADS) for turn in range(10)}
    assert total == 60
    assert {row.run_id for row in rows} == ours | {f"{name}-{n}" for name in "ab" for n in range(10)}
    assert {row.run_id for row in rows if row.state is RunState.FILED} == ours
    assert sorted(entry.run_id for entry in audit.entries(1000)) == sorted(ours)
    for run_id in ours:
        found = store.get(RunId(run_id))
        assert found is not None
        assert replace(found, state=RunState.GENERATED, document="") == make_run(run_id=RunId(run_id))


def test_what_several_add_to_one_run_at_once_is_all_kept(store: SqlStore) -> None:
    store.save(make_run())

    def add(number: int) -> None:
        for turn in range(10):
            stage = f"stage-{number}-{turn}"
            store.finish(make_run().run_id, RunState.GENERATED, seconds={stage: 1.0})

    at_once(add)
    found = store.get(make_run().run_id)
    assert found is not None
    assert len(found.seconds) == len(make_run().seconds) + THREADS * 10


def test_one_document_put_by_several_at_once_is_one(store: SqlStore) -> None:
    given = FiledDocument(
        "DocumentReference/1", "http://127.0.0.1:1/fhir", "1", make_run().run_id, "Patient/77",
        DocumentState.DRAFT, CREATED,
    )  # fmt: skip
    at_once(lambda number: store.put_document(replace(given, version=str(number))))
    (found,) = store.documents_of("Patient/77")
    assert found.version in {str(number) for number in range(THREADS)}


def test_one_stop_lifted_by_several_at_once_is_lifted_once(store: SqlStore) -> None:
    store.add_stop(Stop(StopScope.ALL, "", CREATED, "system:cli"))
    assert sorted(at_once(lambda number: store.lift_stop(StopScope.ALL, "", "x", CREATED))) == [0, 0, 0, 1]
    assert store.stops() == ()


def test_one_run_saved_by_several_at_once_is_stored_once(store: SqlStore) -> None:
    def save(number: int) -> str:
        try:
            store.save(make_run())
        except StoreError as error:
            return error.message
        return ""

    stored, *refused = sorted(at_once(save))
    assert stored == ""
    assert all("already stored" in message for message in refused)
    assert store.rows()[1] == 1
    assert store.get(make_run().run_id) == make_run()


def test_one_key_is_held_by_one_of_several_at_once(store: SqlStore) -> None:
    held = [one for one in at_once(lambda number: store.hold("a" * 64)) if one is not None]
    assert len(held) == 1
    held[0].close()


def test_a_page_and_its_total_are_of_one_state_whatever_is_written_between(
    store: SqlStore, url: str, cipher: Cipher
) -> None:
    store.save(make_run())
    other = SqlStore(url, cipher)

    @event.listens_for(store.database.engine, "after_cursor_execute")
    def write_between(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lower().startswith("select count"):
            other.save(make_run(run_id=RunId("between")))

    rows, total = store.rows()
    assert ([row.run_id for row in rows], total) == (["run-1"], 1)
    event.remove(store.database.engine, "after_cursor_execute", write_between)
    assert store.rows()[1] == 2
    other.close()


def test_what_is_read_to_be_changed_is_what_the_last_writer_left(url: str, cipher: Cipher) -> None:
    """A read-modify-write on plain sessions, as every method of the store does it: no increment is lost."""
    databases = [Database(url, cipher) for _ in range(THREADS)]
    store = SqlStore(url, cipher)
    store.save(make_run())
    store.close()

    def count_up(number: int) -> None:
        for _ in range(20):
            with databases[number].writing() as session:
                row = session.exec(select(RunTable).where(col(RunTable.run_id) == "run-1")).one()
                row.attempt += 1

    at_once(count_up)
    with databases[0].reading() as session:
        assert session.exec(select(RunTable.attempt)).one() == make_run().inputs.attempt + THREADS * 20
    for database in databases:
        database.close()


def test_a_reader_does_not_wait_for_a_writer(store: SqlStore, url: str, cipher: Cipher) -> None:
    store.save(make_run())
    other = SqlStore(url, cipher)
    with other.database.writing() as session:
        row = session.exec(select(RunTable)).one()
        row.attempt = 9
        session.flush()
        assert store.get(make_run().run_id) == make_run()
        assert store.rows()[1] == 1
    other.close()


@pytest.mark.parametrize("table", ["epicrisis_run", "epicrisis_claim", "epicrisis_citation"])
def test_a_process_killed_in_the_middle_of_a_save_leaves_nothing_of_it(
    store: SqlStore, url: str, tmp_path: Path, table: str
) -> None:
    process = start_writer(url, tmp_path / "key", "stall", "killed", table)
    assert process.stdout is not None
    assert process.stdout.readline() == "in the middle\n"
    process.kill()
    process.wait(30)
    process.stdout.close()
    assert store.rows() == ((), 0)
    run = make_run(run_id=RunId("killed"))
    store.save(run)  # its locks are gone as well
    assert store.get(run.run_id) == run
