"""Admissions, events, ticks and workers, on every store: nothing twice, nothing lost, nothing readable."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import select

from fixtures.facts import NOW
from fixtures.postgres import PostgresServer
from service.errors import StoreError
from service.ports import Admission, AdmissionStore, Standing, Tick, WorkerRow
from service.store.admission_tables import AdmissionTable
from service.store.database import open_cipher
from service.store.sweeps import MOST_TRIES, SqlAdmissions
from tests.conftest import CANARY
from tests.unit import in_memory_admissions
from tests.unit.in_memory_admissions import InMemoryAdmissions

SERVER = "https://ehr.hospital.example/fhir"
LATER = NOW + timedelta(days=1)


class Hands:
    """A clock that a test sets."""

    now = NOW

    def __call__(self) -> datetime:
        return self.now


CLOCK = Hands()

TABLES = ("admission", "heard", "source", "tick", "paused", "worker")


@dataclass
class Every:
    """A store, and its clock."""

    store: AdmissionStore
    clock: Hands


def open_at(url: str, folder: Path) -> Iterator[SqlAdmissions]:
    made = SqlAdmissions(url, open_cipher(folder / "key", url), CLOCK)
    yield made
    made.close()


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlAdmissions]:
    """One database for all tests here: a new one costs a second on PostgreSQL."""
    folder = tmp_path_factory.mktemp("sqlite")
    yield from open_at(f"sqlite:///{folder}/epicrisis.db", folder)


@pytest.fixture(scope="module")
def on_postgresql(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SqlAdmissions]:
    """The same on PostgreSQL."""
    yield from open_at(postgres.ready_database(), tmp_path_factory.mktemp("postgresql"))


def emptied(opened: SqlAdmissions) -> SqlAdmissions:
    with opened.database.writing() as session:
        for table in TABLES:
            session.execute(text(f"DELETE FROM epicrisis_{table}"))
    CLOCK.now = NOW
    return opened


@pytest.fixture(params=["on_sqlite", "on_postgresql"])
def sql(request: pytest.FixtureRequest) -> SqlAdmissions:
    return emptied(request.getfixturevalue(request.param))


@pytest.fixture(params=["on_sqlite", "on_postgresql", "memory"])
def every(request: pytest.FixtureRequest) -> Every:
    if request.param == "memory":
        return Every(InMemoryAdmissions(CLOCK), CLOCK)
    return Every(emptied(request.getfixturevalue(request.param)), CLOCK)


@pytest.fixture
def store(every: Every) -> AdmissionStore:
    return every.store


def admission(number: int = 1, **more: object) -> Admission:
    whole = Admission(
        f"a{number}", SERVER, f"Patient/{CANARY}{number}", f"Encounter/{CANARY}{number}", "IMP", "Location/7",
        Standing.FRESH, NOW, "", NOW, NOW, "run-1", 2, 3,
    )  # fmt: skip
    return replace(whole, **more)  # type: ignore[arg-type]


def test_an_admission_comes_back_as_it_was_by_its_id_and_by_its_stay(store: AdmissionStore) -> None:
    one = admission()
    store.put_admission(one)
    assert store.get_admission("a1") == one
    assert store.find_admission(SERVER, one.encounter) == one
    assert store.find_admission("https://other.example/fhir", one.encounter) is None
    assert store.find_admission(SERVER, "Encounter/none") is None
    assert store.get_admission("none") is None


def test_an_admission_is_kept_in_place_of_what_was_known_of_it(store: AdmissionStore) -> None:
    store.put_admission(admission())
    store.put_admission(admission(standing=Standing.STALE, patient="Patient/other"))
    found = store.get_admission("a1")
    assert found is not None
    assert (found.standing, found.patient) == (Standing.STALE, "Patient/other")
    assert len(store.admissions(SERVER)) == 1


def test_a_stay_has_one_admission(store: AdmissionStore) -> None:
    store.put_admission(admission())
    with pytest.raises(StoreError):
        store.put_admission(admission(id="a2"))
    assert [one.id for one in store.admissions(SERVER)] == ["a1"]


def test_who_is_admitted_is_listed_by_server_oldest_first_and_who_has_left_only_when_asked_for(
    store: AdmissionStore,
) -> None:
    for number in (3, 1, 2):
        store.put_admission(admission(number))
    store.put_admission(admission(1, standing=Standing.ENDED))
    store.put_admission(admission(4, server="https://other.example/fhir"))
    store.put_admission(admission(3, standing=Standing.STALE))
    assert [one.id for one in store.admissions(SERVER)] == ["a3", "a2"]
    assert [one.id for one in store.admissions(SERVER, is_open=False)] == ["a3", "a1", "a2"]


def test_a_change_reads_and_keeps_in_one_transaction(store: AdmissionStore) -> None:
    store.put_admission(admission(failures=0))

    def fail_once_more(one: Admission) -> Admission:
        return replace(one, failures=one.failures + 1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.change_admission("a1", fail_once_more), range(12)))
    found = store.get_admission("a1")
    assert found is not None
    assert found.failures == 12
    with pytest.raises(StoreError):
        store.change_admission("none", fail_once_more)
    assert store.change_admission("a1", lambda one: one) == found


def test_an_event_is_heard_once_and_one_without_a_key_each_time(store: AdmissionStore) -> None:
    assert store.hear([("k1", b"one"), ("k2", b"two"), ("k1", b"again"), ("", b"x"), ("", b"x")]) == 4
    assert store.hear([("k2", b"two")]) == 0
    assert [heard.content for heard in store.unheeded()] == [b"one", b"two", b"x", b"x"]
    assert len(store.unheeded(2)) == 2


def test_an_event_that_was_heeded_is_not_heard_again(store: AdmissionStore) -> None:
    store.hear([("k1", b"one")])
    store.heed(store.unheeded()[0].id)
    assert store.unheeded() == []
    assert store.hear([("k1", b"one")]) == 0
    store.heed(12345)


def test_what_is_to_be_tried_again_comes_after_what_was_never_tried_and_not_for_ever(
    store: AdmissionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.sweeps.MOST_TRIES", 3)
    monkeypatch.setattr(in_memory_admissions, "MOST_TRIES", 3)
    store.hear([("k1", b"one"), ("k2", b"two")])
    first = store.unheeded()[0]
    store.heed(first.id, again=True)
    assert [(heard.content, heard.tries) for heard in store.unheeded()] == [(b"two", 0), (b"one", 1)]
    store.heed(first.id, again=True)
    store.heed(first.id, again=True)
    assert [heard.content for heard in store.unheeded()] == [b"two"]
    assert MOST_TRIES > 3


def test_a_cursor_is_kept_with_the_events_that_it_stands_behind(store: AdmissionStore) -> None:
    assert store.cursor("poll") is None
    store.hear([("k1", b"one")], "poll", b"\x00\xffcursor")
    assert store.cursor("poll") == b"\x00\xffcursor"
    store.hear([], "poll", b"next")
    store.hear([("k2", b"two")], "other", b"there")
    store.hear([("k3", b"three")], "poll")
    assert (store.cursor("poll"), store.cursor("other")) == (b"next", b"there")


def test_events_and_cursor_are_kept_together_or_not_at_all(sql: SqlAdmissions) -> None:
    with pytest.raises((StoreError, AttributeError, TypeError)):
        sql.hear([("k1", b"one"), ("k2", None)], "poll", b"cursor")  # type: ignore[list-item]
    assert sql.unheeded() == []
    assert sql.cursor("poll") is None


def test_a_nudge_is_counted_and_is_no_source(store: AdmissionStore) -> None:
    assert store.nudges() == 0
    store.nudge()
    store.nudge()
    assert store.nudges() == 2
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.nudge(), range(8)))
    assert store.nudges() == 10


def test_a_tick_begins_once_and_ends_with_its_report(store: AdmissionStore) -> None:
    tick = Tick("morning@2026-11-24T05:30", "morning", NOW)
    assert store.begin_tick(tick)
    assert not store.begin_tick(replace(tick, started_at=LATER))
    assert store.last_tick("morning") == tick
    assert store.last_tick("night") is None
    store.end_tick(tick.id, LATER, {"runs": 3, "skipped": [{"reason": "minor", "count": 1}]})
    last = store.last_tick("morning")
    assert last is not None
    assert (last.finished_at, last.report["runs"]) == (LATER, 3)
    store.end_tick("none", LATER, {})
    store.begin_tick(replace(tick, id="morning@2026-11-25T05:30", started_at=LATER))
    store.begin_tick(replace(tick, id="z-older", started_at=NOW - timedelta(days=1)))
    newest = store.last_tick("morning")
    assert newest is not None
    assert (newest.id, newest.finished_at, dict(newest.report)) == ("morning@2026-11-25T05:30", None, {})


def test_of_two_processes_that_begin_a_tick_one_does(store: AdmissionStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        began = list(pool.map(lambda _: store.begin_tick(Tick("t", "morning", NOW)), range(8)))
    assert sorted(began) == [False] * 7 + [True]


def test_a_schedule_rests_until_it_is_resumed(store: AdmissionStore) -> None:
    store.pause("morning", True, "ann", NOW)
    store.pause("night", True, "ann", NOW)
    store.pause("morning", True, "bob", LATER)
    assert store.paused() == {"morning": ("bob", LATER), "night": ("ann", NOW)}
    store.pause("morning", False, "ann", LATER)
    store.pause("morning", False, "ann", LATER)
    assert store.paused() == {"night": ("ann", NOW)}


def test_signs_of_life_are_seen_until_a_worker_is_dismissed(store: AdmissionStore) -> None:
    rows = [WorkerRow(name, 1, NOW, NOW, "0.1") for name in ("b-1", "a-1")]
    for row in rows:
        store.beat(row)
    store.beat(replace(rows[0], beats=2, beat_at=LATER))
    assert store.workers() == [rows[1], replace(rows[0], beats=2, beat_at=LATER)]
    store.dismiss("b-1")
    store.dismiss("none")
    assert store.workers() == [rows[1]]


def test_a_right_is_held_by_one(store: AdmissionStore) -> None:
    held = store.hold("lasting:x")
    assert held is not None
    assert store.hold("lasting:x") is None
    other = store.hold("lasting:y")
    assert other is not None
    held.close()
    again = store.hold("lasting:x")
    assert again is not None
    again.close()
    other.close()


def test_what_is_old_and_done_with_is_deleted_and_nothing_else(every: Every) -> None:
    store = every.store
    old, new = NOW - timedelta(days=31), NOW - timedelta(days=29)
    store.put_admission(admission(1, standing=Standing.ENDED, since=old))
    store.put_admission(admission(2, standing=Standing.ENDED, since=new))
    store.put_admission(admission(3, since=old))
    every.clock.now = old
    store.hear([("k1", b"one"), ("k2", b"two")], "poll", b"cursor")
    store.heed(store.unheeded()[0].id)
    every.clock.now = new
    store.hear([("k3", b"three")])
    store.heed(store.unheeded()[1].id)
    for number, at in enumerate((old - timedelta(days=1), old)):
        store.begin_tick(Tick(f"resting@{number}", "resting", at))
    for number, at in enumerate((old, new)):
        store.begin_tick(Tick(f"daily@{number}", "daily", at))
    assert store.forget_before(NOW - timedelta(days=30)) == 4
    assert [one.id for one in store.admissions(SERVER, is_open=False)] == ["a2", "a3"]
    assert [heard.content for heard in store.unheeded()] == [b"two"]
    assert store.cursor("poll") == b"cursor"
    last = [store.last_tick("resting"), store.last_tick("daily")]
    assert [tick.id for tick in last if tick] == ["resting@1", "daily@1"]
    assert store.begin_tick(Tick("resting@0", "resting", NOW)), "an old tick that is not the last is gone"
    assert store.hear([("k1", b"one")]) == 1
    assert store.hear([("k3", b"three")]) == 0


def test_nothing_of_a_patient_stands_in_the_tables_in_the_open(sql: SqlAdmissions) -> None:
    sql.put_admission(admission())
    sql.hear([(CANARY, f'["Admitted", "{CANARY}"]'.encode())], "poll", CANARY.encode())
    with sql.database.reading() as session:
        for table in TABLES:
            for row in session.execute(text(f"SELECT * FROM epicrisis_{table}")):
                assert CANARY not in str(tuple(row))
    assert CANARY not in repr(sql.get_admission("a1"))
    assert CANARY not in repr(sql.unheeded())


def test_a_row_that_cannot_be_read_is_an_error_that_repeats_nothing(sql: SqlAdmissions) -> None:
    sql.put_admission(admission())
    with sql.database.writing() as session:
        found = session.exec(select(AdmissionTable)).one()
        found.content = f'{{"id": "{CANARY}"}}'
    with pytest.raises(StoreError) as raised:
        sql.get_admission("a1")
    assert CANARY not in str(raised.value)
    assert raised.value.__suppress_context__


def test_a_database_that_is_gone_is_a_store_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/epicrisis.db"
    store = SqlAdmissions(url, open_cipher(tmp_path / "key", url), lambda: NOW)
    with sqlite3.connect(tmp_path / "epicrisis.db") as connection:
        for (table,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE name LIKE 'epicrisis_%'"
        ).fetchall():
            connection.execute(f"DROP TABLE IF EXISTS {table}")
    connection.close()
    for act in (
        lambda: store.admissions(SERVER),
        lambda: store.put_admission(admission()),
        lambda: store.hear([("k", b"x")]),
        store.unheeded,
        lambda: store.heed(1),
        lambda: store.cursor("poll"),
        store.nudge,
        store.nudges,
        lambda: store.begin_tick(Tick("t", "s", NOW)),
        lambda: store.end_tick("t", NOW, {}),
        lambda: store.last_tick("s"),
        lambda: store.pause("s", True, "x", NOW),
        store.paused,
        lambda: store.beat(WorkerRow("w", 1, NOW, NOW, "0")),
        store.workers,
        lambda: store.dismiss("w"),
        lambda: store.forget_before(NOW),
    ):
        with pytest.raises(StoreError):
            act()
    store.close()
