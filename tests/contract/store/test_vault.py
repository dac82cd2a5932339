"""What every Vault does, whatever lies below."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import NamedTuple

import pytest

from service.errors import StoreError
from service.ports import KEPT_AREAS, Vault
from service.store.cipher import Cipher
from service.store.vault import SqlVault
from tests.conftest import CANARY
from tests.unit.writeback.charts import CREATED, east

HOUR = timedelta(hours=1)
KEY = f"Patient/{CANARY}"


class Hands:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = CREATED

    def __call__(self) -> datetime:
        return self.now


class Edge(NamedTuple):
    vault: Vault
    other: Vault
    """The same vault as another process sees it."""
    clock: Hands


@pytest.fixture
def edge(url: str, cipher: Cipher) -> Iterator[Edge]:
    clock = Hands()
    vaults = SqlVault(url, cipher, clock), SqlVault(url, cipher, clock)
    yield Edge(*vaults, clock)
    for vault in vaults:
        vault.close()


@pytest.mark.parametrize("size", [0, 1, 20_000_000])
def test_what_was_put_comes_back(edge: Edge, size: int) -> None:
    content = random.Random(size).randbytes(size)
    edge.vault.put("snapshot", KEY, content)
    assert edge.vault.get("snapshot", KEY) == content
    assert edge.other.get("snapshot", KEY) == content


@pytest.mark.parametrize("key", ["", "\0", "Patient/1\0x", "\ud800", "x" * 100_000, "'; DROP TABLE x; --"])
def test_any_text_is_a_key_of_its_own(edge: Edge, key: str) -> None:
    edge.vault.put("digest", "Patient/1", b"first")
    assert edge.vault.get("digest", key) is None
    edge.vault.put("digest", key, b"second")
    assert edge.vault.get("digest", key) == b"second"
    assert edge.vault.get("digest", "Patient/1") == b"first"


def test_what_was_never_put_is_none(edge: Edge) -> None:
    assert edge.vault.get("snapshot", KEY) is None


def test_the_last_put_replaces(edge: Edge) -> None:
    for content in (b"first and longer", b"", b"last"):
        edge.vault.put("snapshot", KEY, content)
    assert edge.vault.get("snapshot", KEY) == b"last"
    assert edge.vault.prune("snapshot", CREATED + HOUR) == 1


def test_areas_are_apart(edge: Edge) -> None:
    edge.vault.put("snapshot", KEY, b"chart")
    assert edge.vault.get("digest", KEY) is None
    edge.vault.put("digest", KEY, b"window")
    assert edge.vault.get("snapshot", KEY) == b"chart"
    edge.vault.drop("snapshot", KEY)
    assert edge.vault.get("snapshot", KEY) is None
    assert edge.vault.get("digest", KEY) == b"window"


def test_what_was_dropped_is_gone_and_may_be_dropped_again(edge: Edge) -> None:
    edge.vault.put("snapshot", KEY, b"chart")
    edge.vault.put("snapshot", "other", b"stays")
    for _ in range(2):
        edge.vault.drop("snapshot", KEY)
    assert edge.other.get("snapshot", KEY) is None
    assert edge.vault.get("snapshot", "other") == b"stays"


def test_pruning_takes_what_is_old_in_its_area_and_counts_it(edge: Edge) -> None:
    for hours in range(4):
        edge.clock.now = CREATED + hours * HOUR
        for area in KEPT_AREAS:
            edge.vault.put(area, f"key-{hours}", b"x")
    assert edge.vault.prune("snapshot", CREATED + 2 * HOUR) == 2
    assert edge.vault.prune("snapshot", CREATED + 2 * HOUR) == 0
    kept = {
        (area, n) for area in KEPT_AREAS for n in range(4) if edge.vault.get(area, f"key-{n}") is not None
    }
    assert kept == {
        ("snapshot", 2),
        ("snapshot", 3),
        *((area, n) for area in KEPT_AREAS - {"snapshot"} for n in range(4)),
    }


def test_pruning_reads_other_zones_as_instants(edge: Edge) -> None:
    edge.vault.put("digest", KEY, b"x")
    assert edge.vault.prune("digest", CREATED.astimezone(east(9))) == 0
    assert edge.vault.prune("digest", (CREATED + timedelta(microseconds=1)).astimezone(east(9))) == 1


def test_an_instant_without_a_zone_is_refused(edge: Edge) -> None:
    edge.vault.put("digest", KEY, b"x")
    with pytest.raises(StoreError, match="without a zone"):
        edge.vault.prune("digest", CREATED.replace(tzinfo=None) + 99 * HOUR)
    assert edge.vault.get("digest", KEY) == b"x"


def test_what_is_read_is_not_pruned(edge: Edge) -> None:
    edge.vault.put("digest", "read", b"x")
    edge.vault.put("digest", "unread", b"x")
    edge.clock.now = CREATED + 48 * HOUR
    assert edge.other.get("digest", "read") == b"x"
    assert edge.vault.prune("digest", CREATED + 47 * HOUR) == 1
    assert edge.vault.get("digest", "read") == b"x"
    assert edge.vault.get("digest", "unread") is None


def test_what_is_replaced_is_new_again(edge: Edge) -> None:
    edge.vault.put("digest", KEY, b"x")
    edge.clock.now = CREATED + 48 * HOUR
    edge.vault.put("digest", KEY, b"y")
    assert edge.vault.prune("digest", CREATED + 48 * HOUR) == 0
    assert edge.vault.get("digest", KEY) == b"y"


def test_eight_writers_of_one_key_leave_one_of_their_contents_whole(edge: Edge) -> None:
    contents = [bytes([number]) * 300_000 for number in range(8)]
    together = threading.Barrier(8)

    def write(number: int) -> None:
        together.wait(10)
        for _ in range(5):
            (edge.vault, edge.other)[number % 2].put("snapshot", KEY, contents[number])
            assert edge.vault.get("snapshot", KEY) in contents

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    assert edge.vault.get("snapshot", KEY) in contents
    edge.vault.put("snapshot", KEY, b"last")
    assert edge.other.get("snapshot", KEY) == b"last"
    assert edge.vault.prune("snapshot", CREATED + HOUR) == 1


def test_another_area_is_refused_and_not_repeated(edge: Edge) -> None:
    for act in (
        lambda: edge.vault.get(CANARY, KEY),
        lambda: edge.vault.put(CANARY, KEY, b"x"),
        lambda: edge.vault.drop(CANARY, KEY),
        lambda: edge.vault.prune(CANARY, CREATED),
    ):
        with pytest.raises(StoreError, match="no such area") as caught:
            act()
        assert CANARY not in str(caught.value)


def test_what_no_database_takes_is_refused_and_the_earlier_entry_stays(edge: Edge) -> None:
    edge.vault.put("snapshot", KEY, b"small")
    with pytest.raises(StoreError, match="too large to be kept"):
        edge.vault.put("snapshot", KEY, bytes(512 * 1024 * 1024 + 1))
    assert edge.vault.get("snapshot", KEY) == b"small"
