"""Places, signs of life, and the work of workers that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from fixtures.facts import NOW
from service.durable import Durable
from service.errors import StoreError
from service.ports import LASTING, WorkerRow
from service.worker import MOST_PLACES, Pulse, arrive, take_place
from tests.unit.in_memory_admissions import InMemoryAdmissions


@dataclass
class Work:
    """A queue that notes whose work was taken over."""

    taken: list[str] = field(default_factory=list)
    count: int = 3
    fails: bool = False

    async def take_over(self, worker: str) -> int:
        if self.fails:
            raise StoreError("The queue's database cannot be used.")
        self.taken.append(worker)
        return self.count


@dataclass
class Bench:
    store: InMemoryAdmissions = field(default_factory=InMemoryAdmissions)
    work: Work = field(default_factory=Work)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        place = take_place(self.store, "here")
        self.pulse = Pulse(
            place, self.store, cast(Durable, self.work), lambda: NOW, "9", lambda: self.seconds,
            beat_s=0.01, hung_s=120.0,
        )  # fmt: skip

    def beat(self, worker: str, beats: int = 1) -> None:
        self.store.beat(WorkerRow(worker, beats, NOW, NOW, "9"))

    def lock(self, worker: str) -> Any:
        return self.store.hold(f"{LASTING}worker {worker}")


def test_a_worker_takes_the_first_place_that_is_free_and_finds_it_again() -> None:
    store = InMemoryAdmissions()
    first, second = take_place(store, "host"), take_place(store, "host")
    assert (first.name, second.name) == ("host-1", "host-2")
    first.lock.close()
    assert take_place(store, "host").name == "host-1"
    assert take_place(store, "other").name == "other-1"


def test_a_host_has_so_many_places_and_no_more() -> None:
    store = InMemoryAdmissions()
    for _ in range(MOST_PLACES):
        take_place(store, "host")
    with pytest.raises(StoreError, match=str(MOST_PLACES)):
        take_place(store, "host")


def test_who_arrives_is_seen_before_any_work_is_taken() -> None:
    store = InMemoryAdmissions()
    arrive(take_place(store, "host"), store, lambda: NOW, "9")
    assert store.workers() == [WorkerRow("host-1", 0, NOW, NOW, "9")]


async def test_the_work_of_a_worker_whose_place_is_empty_is_taken_over_at_once_and_once() -> None:
    bench = Bench()
    bench.beat("gone-1")
    await bench.pulse.look()
    await bench.pulse.look()
    assert bench.work.taken == ["gone-1"]
    assert bench.pulse.taken_over == 3
    assert bench.store.workers() == []
    assert bench.lock("gone-1") is not None, "its place is free again"


async def test_a_worker_that_lives_keeps_its_work_and_so_do_we() -> None:
    bench = Bench()
    bench.lock("alive-1")
    for beats in range(5):
        bench.beat("alive-1", beats)
        bench.beat("here-1", 1)
        bench.seconds += 100
        await bench.pulse.look()
    assert bench.work.taken == []
    assert [worker.id for worker in bench.store.workers()] == ["alive-1", "here-1"]


async def test_a_worker_that_holds_its_place_and_gives_no_sign_for_long_is_hung() -> None:
    bench = Bench()
    bench.lock("hung-1")
    bench.beat("hung-1", 7)
    await bench.pulse.look()
    bench.seconds = 120.0
    await bench.pulse.look()
    assert bench.work.taken == []
    bench.seconds = 120.1
    await bench.pulse.look()
    assert bench.work.taken == ["hung-1"]
    bench.beat("hung-1", 8)  # it comes back to life
    await bench.pulse.look()
    assert bench.work.taken == ["hung-1"]


async def test_a_sign_of_life_is_counted_by_its_number_and_never_by_a_clock() -> None:
    bench = Bench()
    bench.lock("odd-1")
    for beats in (9, 3, 4):
        bench.beat("odd-1", beats)
        await bench.pulse.look()
        bench.seconds += 119
    await bench.pulse.look()
    assert bench.work.taken == []


async def test_a_place_is_given_back_where_its_work_could_not_be_taken_over() -> None:
    bench = Bench()
    bench.beat("gone-1")
    bench.work.fails = True
    with pytest.raises(StoreError):
        await bench.pulse.look()
    assert [worker.id for worker in bench.store.workers()] == ["gone-1"]
    bench.work.fails = False
    await bench.pulse.look()
    assert bench.work.taken == ["gone-1"]


async def test_signs_of_life_go_on_after_the_database_was_away() -> None:
    bench, stop = Bench(), asyncio.Event()
    bench.store.broken = True
    task = asyncio.create_task(bench.pulse.keep(stop))
    async with asyncio.timeout(5):
        while bench.pulse._beats < 3:  # noqa: ASYNC110 - a thread sets no event
            await asyncio.sleep(0.005)
        bench.store.broken = False
        while not bench.store.rows or bench.store.rows["here-1"].beats < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        stop.set()
        await task
    row = bench.store.rows["here-1"]
    assert (row.started_at, row.beat_at, row.version) == (NOW, NOW, "9")


async def test_after_a_restart_of_the_database_a_worker_takes_its_place_again_and_takes_nobody_for_dead() -> (
    None
):
    bench, stop = Bench(), asyncio.Event()
    bench.pulse.place.lock.close()  # the restart ends all locks at once: ours, and that of one who lives
    bench.beat("alive-1")
    keeping = asyncio.create_task(bench.pulse.keep(stop))
    await _until(lambda: bench.pulse.place.lock.is_held() and bool(bench.pulse.store.workers()))
    await bench.pulse.look()
    assert bench.work.taken == []
    bench.seconds = 1.0  # it did not come back
    await _until(lambda: bench.work.taken == ["alive-1"])
    stop.set()
    await keeping


async def test_a_worker_whose_place_another_took_meanwhile_ends() -> None:
    bench, stop = Bench(), asyncio.Event()
    bench.pulse.place.lock.close()
    taken = take_place(bench.store, "here")
    await bench.pulse.keep(stop)
    assert stop.is_set()
    assert taken.lock.is_held()
    assert bench.store.workers() == []


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.001)
