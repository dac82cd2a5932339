"""Calls of CDS Hooks on each kind of database: a token is used once, a card is one, and nothing lies open."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from service.errors import ShreddedError, StoreError
from service.ports.hooks import CardFeedback, HookStore, ShownCard
from service.store.cipher import Cipher
from service.store.database import Database, open_cipher
from service.store.hook_calls import PRUNED_AT_ONCE, SqlHookCalls
from service.store.keys import KeyRoom
from service.store.sql import SqlStore
from tests.conftest import CANARY
from tests.unit.in_memory_hooks import InMemoryHooks
from tests.unit.writeback.charts import make_run

NOW = datetime(2026, 11, 28, 8, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
TABLES = ("epicrisis_hook_call", "epicrisis_hook_card", "epicrisis_hook_feedback")
SERVER = "https://ehr.example.org/fhir"


@pytest.fixture
def calls(url: str, cipher: Cipher) -> Iterator[SqlHookCalls]:
    opened = SqlHookCalls(url, cipher)
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HookStore]:
    """Every implementation of the seam."""
    if request.param == "memory":
        yield InMemoryHooks()
        return
    url = f"sqlite:///{tmp_path}/kept.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").ready_database()
    opened = SqlHookCalls(url, open_cipher(tmp_path / "kept-key", url))
    yield opened
    opened.close()


def card_of(
    kept: HookStore, patient: str = "Patient/77", run_id: str = "run-1", ehr: str = "general"
) -> ShownCard:
    return ShownCard(kept.card_of(ehr, run_id), ehr, SERVER, patient, run_id)


def act(card: ShownCard, outcome: str = "overridden", minute: int = 0, **more: str) -> CardFeedback:
    return CardFeedback(card.id, outcome, NOW + timedelta(minutes=minute), **more)


def lying(database: Database) -> str:
    """Everything that the tables hold, as bytes."""
    with database.reading() as session:
        rows = [
            tuple(bytes(cell) if isinstance(cell, memoryview) else cell for cell in row)
            for table in TABLES
            for row in session.connection().execute(text(f"SELECT * FROM {table}"))
        ]
    return repr(rows)


def count(database: Database, table: str) -> int:
    with database.reading() as session:
        return int(session.connection().execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def test_a_token_is_used_once(kept: HookStore) -> None:
    assert kept.use("iss\0jti-1", NOW, LATER)
    assert not kept.use("iss\0jti-1", NOW, LATER)
    assert not kept.use("iss\0jti-1", LATER, LATER)
    assert kept.use("iss\0jti-2", NOW, LATER)
    assert kept.use("other\0jti-1", NOW, LATER)


def test_of_many_at_once_one_uses_a_token(url: str, cipher: Cipher) -> None:
    together = threading.Barrier(8)

    def use(number: int) -> list[bool]:
        calls = SqlHookCalls(url, cipher)
        try:
            together.wait(20)
            return [calls.use(f"token-{n}", NOW, LATER) for n in range(10)]
        finally:
            calls.close()

    SqlHookCalls(url, cipher).close()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(use, range(8)))
    assert [sum(one[n] for one in found) for n in range(10)] == [1] * 10


def _use_in_a_process(url: str, key: str) -> int:
    calls = SqlHookCalls(url, open_cipher(Path(key), url))
    try:
        return sum(calls.use(f"token-{n}", NOW, LATER) for n in range(20))
    finally:
        calls.close()


def test_of_two_processes_one_uses_a_token(url: str, cipher: Cipher, tmp_path: Path) -> None:
    SqlHookCalls(url, cipher).close()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as processes:
        both = [processes.submit(_use_in_a_process, url, str(tmp_path / "key")) for _ in range(2)]
        assert sum(one.result(120) for one in both) == 20


def test_a_token_is_forgotten_when_it_has_expired_and_no_other(calls: SqlHookCalls) -> None:
    calls.use("short", NOW, NOW + timedelta(seconds=10))
    calls.use("long", NOW, LATER)
    calls.use("third", NOW + timedelta(seconds=10), LATER)
    assert count(calls.database, TABLES[0]) == 3
    calls.use("fourth", NOW + timedelta(seconds=11), LATER)
    assert count(calls.database, TABLES[0]) == 3
    assert not calls.use("long", LATER, LATER)


def test_however_many_have_expired_the_table_comes_back_to_size(calls: SqlHookCalls) -> None:
    for n in range(PRUNED_AT_ONCE + 5):
        calls.use(f"token-{n}", NOW, NOW)
    for n in range(2):
        calls.use(f"later-{n}", LATER, LATER)
    assert count(calls.database, TABLES[0]) == 2


def test_a_card_is_found_by_its_id_and_kept_once(kept: HookStore) -> None:
    card = card_of(kept)
    for _ in range(2):
        kept.keep_card(card)
    assert kept.find_card(card.id) == card
    assert kept.find_card(card_of(kept, run_id="run-2").id) is None
    assert card.id != card_of(kept, ehr="county").id


def test_a_cards_id_tells_nothing_without_the_key(calls: SqlHookCalls, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/other.db"
    other = SqlHookCalls(url, open_cipher(tmp_path / "other-key", url))
    assert calls.card_of("general", "run-1") == calls.card_of("general", "run-1")
    assert calls.card_of("general", "run-1") != other.card_of("general", "run-1")
    other.close()


def test_an_act_is_kept_once_however_often_it_is_told(kept: HookStore) -> None:
    card = card_of(kept)
    kept.keep_card(card)
    said = [act(card, reason="outdated", words="x"), act(card, "accepted", 1)]
    assert kept.keep_feedback(card, said, NOW) == 2
    assert kept.keep_feedback(card, said, LATER) == 0
    assert kept.keep_feedback(card, [act(card, minute=2)], LATER) == 1
    assert kept.outcomes() == {"overridden:outdated": 1, "overridden": 1, "accepted": 1}


def test_no_patient_no_word_and_no_token_lies_open(calls: SqlHookCalls) -> None:
    card = card_of(calls)
    calls.use("https://ehr.example\0jti-secret", NOW, LATER)
    calls.keep_card(card)
    calls.keep_feedback(card, [act(card, reason="wrong", words=f"{CANARY} was her sister")], NOW)
    found = lying(calls.database)
    for secret in (CANARY, "Patient/77", "jti-secret", SERVER, card.id):
        assert secret not in found
    assert [one.words for one in calls.feedback_of("run-1")] == [f"{CANARY} was her sister"]


def test_shredding_a_patient_reaches_cards_and_feedback_and_nobody_elses(
    calls: SqlHookCalls, store: SqlStore
) -> None:
    store.save(make_run(patient="Patient/77"))
    mine, others = card_of(calls), card_of(calls, "Patient/78", "run-2")
    for card in (mine, others):
        calls.keep_card(card)
        calls.keep_feedback(card, [act(card, words=CANARY)], NOW)
    KeyRoom(calls.database, lambda: NOW).shred("Patient/77", "asked for", leave_drafts=True)
    assert calls.find_card(mine.id) is None
    assert calls.feedback_of("run-1") == []
    assert calls.find_card(others.id) == others
    assert [one.words for one in calls.feedback_of("run-2")] == [CANARY]
    assert count(calls.database, TABLES[1]) == 1
    with pytest.raises(ShreddedError):
        calls.keep_card(mine)
    with pytest.raises(ShreddedError):
        calls.keep_feedback(mine, [act(mine, minute=9)], LATER)


def test_a_card_moved_to_another_row_opens_nothing(calls: SqlHookCalls) -> None:
    one, other = card_of(calls), card_of(calls, run_id="run-2")
    for card in (one, other):
        calls.keep_card(card)
    with calls.database.writing() as session:
        session.connection().execute(
            text(
                "UPDATE epicrisis_hook_card SET content ="
                " (SELECT content FROM epicrisis_hook_card WHERE run_id = 'run-2') WHERE run_id = 'run-1'"
            )
        )
    with pytest.raises(StoreError):
        calls.find_card(one.id)


def test_a_database_that_fails_lets_nobody_in(calls: SqlHookCalls) -> None:
    with calls.database.writing() as session:
        session.connection().execute(text(f"DROP TABLE {TABLES[0]}"))
    with pytest.raises(StoreError):
        calls.use("token", NOW, LATER)
