"""What the screen holds while it reads anew what people want."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any, cast

import pytest

from connectors.admissions.lookup import Lookup
from connectors.admissions.places import Places
from connectors.admissions.preferences import Preferences
from fixtures.facts import NOW
from service.admissions import screen as room
from service.admissions.screen import AT_ONCE, FRESH_S, MOST_SINGLY, EligibilityScreen
from service.ports import Admission
from tests.unit.admissions.doubles import SERVER
from tests.unit.api.in_memory import InMemoryStore
from tests.unit.in_memory_admissions import InMemoryAdmissions

NOBODY = Admission("a1", SERVER, "", "")
"""A stay of which there is nothing to read."""


def knowledge() -> set[int]:
    """Return which pieces of knowledge about people are alive in this process."""
    gc.collect()
    return {id(one) for one in gc.get_objects() if type(one) is room._Known}


class Watching(InMemoryAdmissions):
    """An AdmissionStore that counts, whenever it is asked who is there, what is known of people so far."""

    def __init__(self) -> None:
        super().__init__()
        self.known: list[int] = []
        self.others = knowledge()

    def admissions(self, *arguments: Any, **more: Any) -> Sequence[Admission]:
        self.known.append(len(knowledge() - self.others))
        return super().admissions(*arguments, **more)


class NoServer:
    """A FhirClient that is asked nothing."""

    base_url = SERVER


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Watching:
    """Who is there, where nobody has a wish and no stay a place."""

    async def nothing(*_: Any) -> Preferences:
        return Preferences()

    async def nowhere(*_: Any) -> Places:
        return Places()

    monkeypatch.setattr(room, "read_preferences", nothing)
    monkeypatch.setattr(room, "read_places", nowhere)
    return Watching()


def screen_of(store: Watching, monotonic: Callable[[], float]) -> EligibilityScreen:
    return EligibilityScreen(
        client=cast("Any", NoServer()), store=store, documents=InMemoryStore(), clock=lambda: NOW, zone=UTC,
        monotonic=monotonic,
    )  # fmt: skip


async def test_what_is_known_of_everybody_is_let_go_before_it_is_read_anew(store: Watching) -> None:
    screen = screen_of(store, lambda: 0.0)
    for _ in range(3):
        await screen.renew()
    assert store.known == [1, 1, 1]


async def test_a_visit_that_finds_it_too_old_holds_none_of_it_while_it_is_read_anew(store: Watching) -> None:
    seconds = iter((0.0, 0.0, FRESH_S, FRESH_S + 1, FRESH_S + 1))
    screen = screen_of(store, lambda: next(seconds))
    for _ in range(4):
        assert await screen.before(NOBODY) == "ended"
    assert store.known == [1, 1]


async def test_of_everybody_else_it_keeps_json_and_no_objects_and_reads_few_singly(
    store: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People are read a few hundred at a time, all of them with one allowance of single reads."""
    asked: list[tuple[str, int, int]] = []

    async def read_many(client: Any, kind: str, ids: Sequence[str], *, max_singly: int) -> Lookup:
        asked.append((kind, len(ids), max_singly))
        found = {
            one: {"resourceType": kind, "id": one, "status": "in-progress", "tag": [{}]} for one in ids
        }  # of no other test
        return Lookup(found, singly=min(len(ids), max_singly))

    monkeypatch.setattr(room, "read_many", read_many)
    count = 2 * AT_ONCE + 7
    for number in range(count):
        store.put_admission(Admission(f"a{number}", SERVER, f"Patient/{number}", f"Encounter/{number}"))
    screen = screen_of(store, lambda: 0.0)
    assert await screen.renew() == {f"Encounter/{number}" for number in range(count)}
    left = MOST_SINGLY - AT_ONCE
    assert asked[:3] == [
        ("Patient", AT_ONCE, MOST_SINGLY), ("Patient", AT_ONCE, left), ("Patient", 7, 0),
    ]  # fmt: skip
    assert [kind for kind, *_ in asked] == ["Patient"] * 3 + ["Encounter"] * 3
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is dict and one.get("tag") == [{}]]


async def test_what_no_json_could_hold_is_not_readable(
    store: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_many(client: Any, kind: str, ids: Sequence[str], *, max_singly: int) -> Lookup:
        return Lookup({one: {"resourceType": kind, "id": one, "status": "\ud800"} for one in ids})

    monkeypatch.setattr(room, "read_many", read_many)
    admission = Admission("a1", SERVER, "Patient/1", "Encounter/1")
    store.put_admission(admission)
    assert await screen_of(store, lambda: 0.0).before(admission) == "not_readable"
