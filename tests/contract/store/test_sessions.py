"""Sessions in the database, and the limits that are kept on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from service.errors import StoreError
from service.identity.sessions import Sessions
from service.identity.visitor import LOCAL, Role, Visitor
from service.store.cipher import Cipher
from service.store.sessions import SqlSessions

IDLE, LONGEST = timedelta(minutes=30), timedelta(hours=12)
ROE = Visitor("user:0a1b", frozenset({Role.CLINICIAN}), "Practitioner/roe")


@dataclass
class Desk:
    store: SqlSessions
    now: datetime = datetime(2026, 11, 28, 8, 0, tzinfo=UTC)

    def sessions(self, issuer: str = "") -> Sessions:
        return Sessions(self.store, lambda: self.now, IDLE, LONGEST, issuer)

    def rows(self) -> list[tuple[object, ...]]:
        with self.store.database.reading() as session:
            found = session.connection().execute(text("SELECT id_hash, content FROM epicrisis_session"))
            return [tuple(row) for row in found]

    def run(self, statement: str) -> None:
        with self.store.database.writing() as session:
            session.connection().execute(text(statement))


@pytest.fixture
def desk(url: str, cipher: Cipher) -> Iterator[Desk]:
    store = SqlSessions(url, cipher)
    yield Desk(store)
    store.close()


def test_a_session_says_who_it_is_until_it_ends(desk: Desk) -> None:
    sessions = desk.sessions()
    one = sessions.begin(ROE)
    assert sessions.find(one) == ROE
    sessions.end(one)
    assert sessions.find(one) is None
    sessions.end(one)
    assert desk.rows() == []


def test_neither_the_id_nor_who_it_is_lies_open(desk: Desk) -> None:
    one = desk.sessions().begin(ROE)
    lying = repr(
        [bytes(cell) if isinstance(cell, memoryview) else cell for row in desk.rows() for cell in row]
    )
    assert one not in lying
    for word in ("roe", "0a1b", "clinician"):
        assert word not in lying


def test_it_ends_when_nobody_used_it_for_the_idle_limit(desk: Desk) -> None:
    sessions = desk.sessions()
    one = sessions.begin(LOCAL)
    for _ in range(4):
        desk.now += IDLE - timedelta(seconds=61)
        assert sessions.find(one) == LOCAL
    desk.now += IDLE
    assert sessions.find(one) is None
    assert desk.rows() == []


def test_it_ends_at_the_absolute_limit_however_much_it_is_used(desk: Desk) -> None:
    sessions = desk.sessions()
    one, began = sessions.begin(LOCAL), desk.now
    while desk.now - began < LONGEST - timedelta(minutes=20):
        desk.now += timedelta(minutes=20)
        assert sessions.find(one) == LOCAL
    desk.now = began + LONGEST
    assert sessions.find(one) is None


def test_each_sign_in_has_an_id_of_its_own_and_ends_the_browsers_previous_session(desk: Desk) -> None:
    sessions = desk.sessions()
    first = sessions.begin(ROE)
    second = sessions.begin(LOCAL, previous=first)
    assert first != second
    assert sessions.find(first) is None
    assert sessions.find(second) == LOCAL


def test_a_sign_in_forgets_the_sessions_that_are_over_and_no_other(desk: Desk) -> None:
    sessions = desk.sessions()
    sessions.begin(ROE)
    desk.now += timedelta(minutes=20)
    young = sessions.begin(ROE)
    desk.now += timedelta(minutes=20)
    sessions.begin(LOCAL)
    assert len(desk.rows()) == 2
    assert sessions.find(young) == ROE


def test_a_session_of_another_way_of_signing_in_is_not_honoured(desk: Desk) -> None:
    alone = desk.sessions().begin(LOCAL)
    assert desk.sessions("https://login.example").find(alone) is None
    theirs = desk.sessions("https://login.example").begin(ROE)
    assert desk.sessions().find(theirs) is None
    assert desk.sessions("https://login.example").find(theirs) == ROE


@pytest.mark.parametrize(
    "made_up", ["", "x", "0" * 43, "0" * 42, "'; DROP TABLE x; --", "é" * 43, "0" * 9999]
)
def test_a_made_up_id_is_nobody(desk: Desk, made_up: str) -> None:
    desk.sessions().begin(LOCAL)
    assert desk.sessions().find(made_up) is None
    desk.sessions().end(made_up)
    assert len(desk.rows()) == 1


def test_what_was_moved_to_another_row_or_changed_opens_nothing(desk: Desk) -> None:
    sessions = desk.sessions()
    mine = sessions.begin(ROE)
    hashed = str(desk.rows()[0][0])
    sessions.begin(LOCAL)
    desk.run(
        "UPDATE epicrisis_session SET content = "
        f"(SELECT content FROM epicrisis_session WHERE id_hash <> '{hashed}') WHERE id_hash = '{hashed}'"
    )
    with pytest.raises(StoreError):
        sessions.find(mine)


def test_a_database_that_fails_lets_nobody_in(desk: Desk) -> None:
    one = desk.sessions().begin(LOCAL)
    desk.run("DROP TABLE epicrisis_session")
    with pytest.raises(StoreError):
        desk.sessions().find(one)
