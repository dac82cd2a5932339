"""The audit log's chain on each kind of database: many writers, one line, and every change is found."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from service.audit.anchor import AnchorFile
from service.audit.chain import Kind, Report
from service.errors import StoreError
from service.store.cipher import Cipher
from service.store.columns import attach_cipher
from service.store.database import place_of
from service.store.trail import SqlAuditLog
from tests.conftest import ROOT
from tests.contract.store.conftest import WITHOUT_TABLES
from tests.contract.store.test_migrations import migrate_to, write_entry
from tests.unit.audit.appender import now
from tests.unit.audit.trails import Ticking, entry_of, fill, open_log
from tests.unit.store.test_contents import ENTRY as OLD_ENTRY
from tests.unit.writeback.charts import CREATED

ENTRY, LINK = "epicrisis_audit_entry", "epicrisis_audit_link"


@pytest.fixture
def log(url: str, cipher: Cipher, tmp_path: Path) -> Iterator[SqlAuditLog]:
    opened = open_log(url, cipher, tmp_path / "anchors", Ticking(61))
    yield opened
    opened.close()


def start_appender(url: str, folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.unit.audit.appender", url]
    command += [str(folder / "key"), str(folder / "anchors"), name, str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def read_numbers(log: SqlAuditLog) -> list[int]:
    with log.database.engine.connect() as connection:
        found = connection.exec_driver_sql(f"SELECT number FROM {LINK} ORDER BY number").scalars()
        return [int(number) for number in found]


@pytest.fixture
def intruder(url: str, log: SqlAuditLog) -> Iterator[Engine]:
    """The database's owner, with the triggers switched off."""
    place = place_of(url)
    engine = place.engine()
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            for table in (ENTRY, LINK):
                connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        else:
            named = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            for name in connection.exec_driver_sql(named).scalars().all():
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
    yield engine
    engine.dispose()


def change(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def told(report: Report) -> list[tuple[Kind, int]]:
    return [(fault.kind, fault.at) for fault in report.faults]


def test_four_threads_and_two_processes_make_one_chain_without_gaps_that_is_intact_all_the_while(
    log: SqlAuditLog, url: str, tmp_path: Path
) -> None:
    processes = [start_appender(url, tmp_path, name, 15) for name in ("a", "b")]
    done, seen = threading.Event(), list[Report]()

    def look() -> None:
        while not done.is_set():
            seen.append(log.verify())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        fill(log, 15)
        for process in processes:
            assert process.wait(120) == 0
            assert process.stdout is not None
            process.stdout.close()
    finally:
        done.set()
        looking.join()
    assert seen
    assert [report.faults for report in seen if not report.is_intact] == []
    report = log.verify()
    assert (report.is_intact, report.entries, report.torn) == (True, 90, 0)
    assert read_numbers(log) == list(range(91))
    wanted = [f"{name}-{n}" for name in ("a", "b", *(f"run-{w}" for w in range(4))) for n in range(15)]
    assert sorted(entry.run_id for entry in log.entries(1000)) == sorted(wanted)


def test_a_process_killed_while_it_writes_leaves_a_chain_that_holds(
    log: SqlAuditLog, url: str, tmp_path: Path
) -> None:
    for _ in range(3):
        process = start_appender(url, tmp_path, "killed", 100_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        log.append(entry_of(1))
        process.kill()
        process.wait(30)
        process.stdout.close()
        assert log.verify().is_intact
        log.append(entry_of(2))
    report = log.verify()
    assert report.is_intact
    assert read_numbers(log) == list(range(report.entries + 1))


def test_an_entry_that_is_not_stored_leaves_no_gap(log: SqlAuditLog) -> None:
    log.append(entry_of(1))
    with pytest.raises(StoreError):
        log.append(type(entry_of(2))(entry_of(2).action, "x", "Patient/1", CREATED.replace(tzinfo=None)))
    log.append(entry_of(3))
    assert read_numbers(log) == [0, 1, 2]
    assert log.verify().is_intact


def test_what_a_hostile_actor_is_called_accuses_nobody(log: SqlAuditLog) -> None:
    for name in ("nul\0 in the middle", 'quo"te\\', "ünïcode \u2028 \U0001f9ea", "x" * 20_000, ""):
        log.append(
            type(entry_of(1))(entry_of(1).action, name, f"Patient/{name[:9]}", CREATED, counts={name: 1})
        )
    report = log.verify()
    assert (report.is_intact, report.entries) == (True, 5)


@pytest.mark.parametrize(
    ("statements", "faults"),
    [
        ((f"UPDATE {ENTRY} SET actor = 'nobody' WHERE id = %(row)s",), [(Kind.EDITED, 3)]),
        ((f"UPDATE {ENTRY} SET counts = '{{}}' WHERE id = %(row)s",), [(Kind.EDITED, 3)]),
        ((f"UPDATE {ENTRY} SET at = '2026-01-01 00:00:00+00:00' WHERE id = %(row)s",), [(Kind.EDITED, 3)]),
        ((f"UPDATE {ENTRY} SET target = patient WHERE id = %(row)s",), [(Kind.EDITED, 3)]),
        ((f"UPDATE {ENTRY} SET on_behalf = patient WHERE id = %(row)s",), [(Kind.EDITED, 3)]),
        ((f"DELETE FROM {ENTRY} WHERE id = %(row)s",), [(Kind.DELETED, 3)]),
        (
            (f"DELETE FROM {ENTRY} WHERE id = %(row)s", f"DELETE FROM {LINK} WHERE number = 3"),
            [(Kind.DELETED, 3)],
        ),
        (
            (
                f"UPDATE {LINK} SET number = 99 WHERE number = 3",
                f"UPDATE {LINK} SET number = 3 WHERE number = 4",
                f"UPDATE {LINK} SET number = 4 WHERE number = 99",
            ),
            [(Kind.EDITED, 3), (Kind.FORKED, 3), (Kind.REORDERED, 4), (Kind.FORKED, 4), (Kind.EDITED, 5)],
        ),
        ((f"DELETE FROM {LINK} WHERE number >= 5", f"DELETE FROM {ENTRY} WHERE id > %(row)s + 1"),
         [(Kind.TRUNCATED, 5)]),
        ((f"DELETE FROM {LINK}", f"DELETE FROM {ENTRY}"), [(Kind.TRUNCATED, 0)]),
    ],
)  # fmt: skip
def test_what_the_owner_of_the_database_changes_is_found(
    log: SqlAuditLog, intruder: Engine, statements: tuple[str, ...], faults: list[tuple[Kind, int]]
) -> None:
    for number in range(6):
        log.append(entry_of(number))
    assert log.verify().is_intact
    with intruder.connect() as connection:
        row = connection.exec_driver_sql(f"SELECT entry FROM {LINK} WHERE number = 3").scalar_one()
    change(intruder, *[statement.replace("%(row)s", str(row)) for statement in statements])
    assert told(log.verify()) == faults


@WITHOUT_TABLES
def test_what_was_recorded_before_the_chain_is_sealed_by_its_genesis(
    url: str, cipher: Cipher, tmp_path: Path
) -> None:
    migrate_to(url, "0007")
    engine = place_of(url).engine()
    attach_cipher(engine, cipher)
    for _ in range(3):
        write_entry(engine, cipher)
    engine.dispose()
    log = open_log(url, cipher, tmp_path / "anchors", Ticking(61))
    assert (log.verify().is_intact, log.verify().entries) == (True, 0)
    log.append(entry_of(1))
    assert (log.verify().is_intact, log.verify().entries) == (True, 1)
    assert log.entries() == (entry_of(1), *[OLD_ENTRY] * 3)
    log.close()


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE {ENTRY} SET outcome = 'x' WHERE id = 2",
        f"UPDATE {ENTRY} SET target = patient WHERE id = 1",
        f"UPDATE {ENTRY} SET patient_hash = 'x' WHERE id = 1",
        f"DELETE FROM {ENTRY} WHERE id = 3",
        f"UPDATE {ENTRY} SET id = 0 WHERE id = 1",
        f"UPDATE {LINK} SET mac = 'x' WHERE number = 0",
    ],
)
@WITHOUT_TABLES
def test_a_change_of_what_was_recorded_before_the_chain_is_found(
    url: str, cipher: Cipher, tmp_path: Path, statement: str, request: pytest.FixtureRequest
) -> None:
    migrate_to(url, "0007")
    engine = place_of(url).engine()
    attach_cipher(engine, cipher)
    for _ in range(3):
        write_entry(engine, cipher)
    engine.dispose()
    log: SqlAuditLog = request.getfixturevalue("log")
    log.append(entry_of(1))
    change(request.getfixturevalue("intruder"), statement)
    assert (Kind.GENESIS, 0) in told(log.verify())


@pytest.mark.parametrize(
    "statement",
    [f"UPDATE {LINK} SET mac = mac", f"DELETE FROM {LINK}", f"DELETE FROM {LINK} WHERE number = 0"],
)
def test_no_link_can_be_changed_by_anyones_connection(log: SqlAuditLog, url: str, statement: str) -> None:
    log.append(entry_of(1))
    engine = place_of(url).engine()
    with pytest.raises(IntegrityError, match="append only"), engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
    assert log.verify().is_intact


def test_the_check_tells_how_far_it_is_and_holds_few_entries_at_a_time(
    log: SqlAuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.trail.PAGE", 4)
    for number in range(10):
        log.append(entry_of(number))
    heard: list[tuple[int, int]] = []
    report = log.verify(lambda done, total: heard.append((done, total)))
    assert (report.is_intact, report.entries) == (True, 10)
    assert heard == [(0, 11), (4, 11), (8, 11), (11, 11)]


def test_each_host_of_a_shared_database_has_its_own_anchors(
    log: SqlAuditLog, url: str, cipher: Cipher, tmp_path: Path
) -> None:
    log.append(entry_of(1))
    other: Any = SqlAuditLog(url, cipher, partial(AnchorFile, tmp_path / "other", now))
    assert told(other.verify()) == [(Kind.ANCHORS_MISSING, 0)]
    other.append(entry_of(2))
    assert other.verify().is_intact
    assert log.verify().is_intact
    other.close()
