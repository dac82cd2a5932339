"""Launches in the database: sealed under their patient, found by the browser's secret, taken once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from service.errors import ShreddedError, StoreError
from service.ports.launches import Attempt, Launch, LaunchStore, Seen, Tokens
from service.store.cipher import Cipher
from service.store.database import open_cipher
from service.store.envelope import ID_BYTES
from service.store.keys import KeyRoom
from service.store.launches import SqlLaunches
from tests.conftest import CANARY
from tests.unit.in_memory_launches import InMemoryLaunches

NOW = datetime(2026, 11, 28, 8, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)
STATE, BROWSER, OTHER = "s" * 43, "b" * 43, "o" * 43
ATTEMPT = Attempt("general", "nonce", "verifier", "https://us.example/launch/callback", "openid", NOW)
TOKENS = Tokens("access-1", "refresh-1", NOW + timedelta(minutes=5), NOW + timedelta(minutes=4))
LAUNCH = Launch(
    visit="v" * 22, ehr="general", server="https://ehr.example.org/fhir", patient=f"Patient/{CANARY}",
    encounter="Encounter/e-9", actor="user:0a1b", fhir_user="Practitioner/roe", scope="openid patient/*.rs",
    access_profile="user:77", needs_banner=False, context={"run": "7"},
    messaging=("handle", "https://ehr.example.org"), tokens=TOKENS,
)  # fmt: skip


@dataclass
class Desk:
    store: SqlLaunches

    def run(self, statement: str) -> None:
        with self.store.database.writing() as session:
            session.connection().execute(text(statement))

    def lying(self) -> str:
        """All that lies in the two tables, as bytes and texts."""
        found: list[object] = []
        with self.store.database.reading() as session:
            for name in ("epicrisis_launch", "epicrisis_launch_attempt"):
                for row in session.connection().execute(text(f"SELECT * FROM {name}")):
                    found += [bytes(cell) if isinstance(cell, memoryview) else cell for cell in row]
        return repr(found)


@pytest.fixture
def desk(url: str, cipher: Cipher) -> Iterator[Desk]:
    store = SqlLaunches(url, cipher)
    yield Desk(store)
    store.close()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LaunchStore]:
    if request.param == "memory":
        yield InMemoryLaunches()
        return
    url = f"sqlite:///{tmp_path}/launches.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").ready_database()
    opened = SqlLaunches(url, open_cipher(tmp_path / "launches-key", url))
    yield opened
    opened.close()


def found(store: LaunchStore, visit: str = LAUNCH.visit, at: datetime = LONG_AGO) -> Launch | None:
    return store.get_launch(visit, began_after=at, used_after=at)


def look(store: LaunchStore, visit: str, browser: str) -> Seen | None:
    return store.look_at(visit, browser, began_after=LONG_AGO, used_after=LONG_AGO)


def test_an_attempt_is_taken_once_and_by_its_browser_alone(store: LaunchStore) -> None:
    store.put_attempt(STATE, BROWSER, ATTEMPT)
    assert store.take_attempt("x" * 43, BROWSER) is None
    assert store.take_attempt(STATE, OTHER) is None
    assert store.take_attempt(STATE, BROWSER) == ATTEMPT
    assert store.take_attempt(STATE, BROWSER) is None


def test_an_old_attempt_is_forgotten_with_the_next_one(store: LaunchStore) -> None:
    store.put_attempt(STATE, BROWSER, ATTEMPT)
    store.put_attempt("t" * 43, BROWSER, replace(ATTEMPT, began_at=NOW + timedelta(minutes=9)))
    store.put_attempt("u" * 43, BROWSER, replace(ATTEMPT, began_at=NOW + timedelta(minutes=11)))
    assert store.take_attempt(STATE, BROWSER) is None
    assert store.take_attempt("t" * 43, BROWSER) is not None


def test_whoever_begins_without_end_pushes_out_the_oldest_and_fills_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.launches.MOST_ATTEMPTS", 3)
    for n in range(6):
        desk.store.put_attempt(str(n) * 43, BROWSER, replace(ATTEMPT, began_at=NOW + timedelta(seconds=n)))
    kept = [n for n in range(6) if desk.store.take_attempt(str(n) * 43, BROWSER) is not None]
    assert kept == [3, 4, 5]


def test_a_launch_comes_back_as_it_was(store: LaunchStore) -> None:
    store.put_launch(BROWSER, LAUNCH, NOW)
    assert found(store) == LAUNCH
    assert found(store, "w" * 22) is None
    seen = [look(store, LAUNCH.visit, browser) for browser in (BROWSER, OTHER, "")]
    assert seen == [Seen(LAUNCH, True, NOW), Seen(LAUNCH, False, NOW), Seen(LAUNCH, False, NOW)]
    assert look(store, "w" * 22, BROWSER) is None


def test_a_browser_has_its_own_launches_the_newest_first(store: LaunchStore) -> None:
    for n, browser in enumerate((BROWSER, OTHER, BROWSER)):
        store.put_launch(browser, replace(LAUNCH, visit=str(n) * 22), NOW + timedelta(seconds=n))
    assert store.visits_of(BROWSER) == ("2" * 22, "0" * 22)
    assert store.visits_of(OTHER) == ("1" * 22,)
    assert store.visits_of("x" * 43) == ()
    store.end_launch("2" * 22)
    store.end_launch("2" * 22)
    assert store.visits_of(BROWSER) == ("0" * 22,)


def test_a_launch_is_over_by_its_age_and_by_disuse(store: LaunchStore) -> None:
    store.put_launch(BROWSER, LAUNCH, NOW)
    second = timedelta(seconds=1)
    assert store.get_launch(LAUNCH.visit, began_after=NOW, used_after=NOW - second) is None
    assert store.get_launch(LAUNCH.visit, began_after=NOW - second, used_after=NOW) is None
    store.use_launch(LAUNCH.visit, NOW + timedelta(minutes=2))
    assert store.get_launch(LAUNCH.visit, began_after=NOW - second, used_after=NOW) == LAUNCH
    store.use_launch("w" * 22, NOW)
    assert store.forget_launches(NOW, NOW) == 0
    assert store.forget_launches(NOW, NOW + timedelta(minutes=3)) == 1
    assert found(store) is None


def test_new_tokens_are_kept_for_a_launch_that_stands(store: LaunchStore) -> None:
    store.put_launch(BROWSER, LAUNCH, NOW)
    newer = replace(TOKENS, access="access-2", refresh="refresh-2", renew_at=None)
    assert store.renew_launch(LAUNCH.visit, newer, "openid", "user:88")
    assert found(store) == replace(LAUNCH, tokens=newer, scope="openid", access_profile="user:88")
    store.end_launch(LAUNCH.visit)
    assert not store.renew_launch(LAUNCH.visit, TOKENS, "openid", "user:88")
    assert found(store) is None


def test_one_renews_at_a_time(store: LaunchStore) -> None:
    right = store.hold(LAUNCH.visit)
    assert right is not None
    assert store.hold(LAUNCH.visit) is None
    right.close()
    again = store.hold(LAUNCH.visit)
    assert again is not None
    again.close()


def test_of_many_who_bring_the_same_answer_at_once_one_has_it(desk: Desk) -> None:
    desk.store.put_attempt(STATE, BROWSER, ATTEMPT)
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda _: desk.store.take_attempt(STATE, BROWSER), range(8)))
    assert [one for one in taken if one is not None] == [ATTEMPT]


def test_neither_a_patient_nor_a_secret_lies_open(desk: Desk) -> None:
    desk.store.put_attempt(STATE, BROWSER, ATTEMPT)
    desk.store.put_launch(BROWSER, LAUNCH, NOW)
    lying = desk.lying()
    for secret in (
        CANARY,
        "access-1",
        "refresh-1",
        "roe",
        "e-9",
        "verifier",
        "nonce",
        "handle",
        STATE,
        BROWSER,
    ):
        assert secret not in lying
    assert LAUNCH.visit in lying


def test_new_tokens_are_sealed_under_the_same_patient_s_key(desk: Desk) -> None:
    desk.store.put_launch(BROWSER, LAUNCH, NOW)
    assert desk.store.renew_launch(LAUNCH.visit, TOKENS, "openid", "user:88")
    with desk.store.database.reading() as session:
        rows = session.connection().execute(text("SELECT content, tokens FROM epicrisis_launch")).all()
    ((content, tokens),) = [[bytes(cell)[: 1 + ID_BYTES] for cell in row] for row in rows]
    assert content == tokens
    assert content[1:] != desk.store.database.envelope.of_house().id


@pytest.mark.parametrize("column", ["content", "tokens"])
def test_what_was_moved_to_another_launch_opens_nothing(desk: Desk, column: str) -> None:
    desk.store.put_launch(BROWSER, LAUNCH, NOW)
    desk.store.put_launch(OTHER, replace(LAUNCH, visit="w" * 22), NOW)
    moved = f"(SELECT {column} FROM epicrisis_launch WHERE visit = '{LAUNCH.visit}')"
    desk.run(f"UPDATE epicrisis_launch SET {column} = {moved} WHERE visit = '{'w' * 22}'")
    with pytest.raises(StoreError, match="changed"):
        found(desk.store, "w" * 22)


def test_a_launch_that_was_given_to_another_browser_opens_nothing(desk: Desk) -> None:
    desk.store.put_launch(BROWSER, LAUNCH, NOW)
    desk.store.put_launch(OTHER, replace(LAUNCH, visit="w" * 22), NOW)
    mine = "(SELECT browser_hash FROM epicrisis_launch WHERE visit LIKE 'w%')"
    desk.run(f"UPDATE epicrisis_launch SET browser_hash = {mine} WHERE visit LIKE 'v%'")
    with pytest.raises(StoreError, match="changed"):
        found(desk.store)


def test_an_attempt_that_was_moved_opens_nothing(desk: Desk) -> None:
    desk.store.put_attempt(STATE, BROWSER, ATTEMPT)
    hashed = desk.store.database.cipher.keyed_hash("launch state", "t" * 43)
    desk.run(f"UPDATE epicrisis_launch_attempt SET state_hash = '{hashed}'")
    with pytest.raises(StoreError, match="changed"):
        desk.store.take_attempt("t" * 43, BROWSER)


def test_who_is_destroyed_has_no_launch_any_more_and_gets_none(desk: Desk) -> None:
    desk.store.put_launch(BROWSER, LAUNCH, NOW)
    desk.store.put_launch(BROWSER, replace(LAUNCH, visit="w" * 22, patient="Patient/2"), NOW)
    KeyRoom(desk.store.database, lambda: NOW).shred(LAUNCH.patient, "court order")
    assert found(desk.store) is None
    assert desk.store.visits_of(BROWSER) == ("w" * 22,)
    assert not desk.store.renew_launch(LAUNCH.visit, TOKENS, "openid", "user:88")
    with pytest.raises(ShreddedError):
        desk.store.put_launch(BROWSER, replace(LAUNCH, visit="x" * 22), NOW)
    assert found(desk.store, "w" * 22) is not None


def test_a_launch_that_a_copy_brings_back_reads_as_none(desk: Desk) -> None:
    desk.store.put_launch(BROWSER, LAUNCH, NOW)
    desk.run("CREATE TABLE epicrisis_launch_copy AS SELECT * FROM epicrisis_launch")
    KeyRoom(desk.store.database, lambda: NOW).shred(LAUNCH.patient, "court order")
    desk.run("INSERT INTO epicrisis_launch SELECT * FROM epicrisis_launch_copy")
    desk.run("DROP TABLE epicrisis_launch_copy")
    assert found(desk.store) is None
    assert not desk.store.renew_launch(LAUNCH.visit, TOKENS, "openid", "user:88")


def test_a_broken_table_is_a_store_error(desk: Desk) -> None:
    desk.run("DROP TABLE epicrisis_launch")
    with pytest.raises(StoreError):
        found(desk.store)
