"""What a worker does beside the queue, over doubles: it watches while it has the lease, and goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from connectors.admissions.events import Admitted, Source, Subject, Visit
from connectors.admissions.resolve import Resolved, Unresolved
from connectors.errors import ServerFailed
from fixtures.facts import NOW
from service.admissions.form import dump_events
from service.errors import StoreError
from service.ports import Admission
from service.sweep import Watch
from service.watchman import LEASE, Watchman
from tests.unit.admissions.doubles import Bench

A, B = Watch("a", "admission"), Watch("b", "handover")


@dataclass
class Look:
    """A sweep whose looks are noted, and may fail."""

    bench: Bench
    looks: list[str] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    finds: list[Admission] = field(default_factory=list)
    forgotten: list[datetime] = field(default_factory=list)

    async def look(self, watch: Watch, odd: Counter[str], order: Any = None) -> Any:
        self.looks.append(watch.name)
        if self.failures:
            raise self.failures.pop(0)
        for one in self.finds:
            await order(one)

    def open_roster(self) -> Any:
        return self.bench.session()

    @property
    def durable(self) -> Any:
        return self

    async def forget_before(self, before: datetime) -> int:
        self.forgotten.append(before)
        return 0


@dataclass
class Duties:
    """A pulse and a scheduler that only live."""

    begun: int = 0
    failures: list[Exception] = field(default_factory=list)

    async def serve(self, stop: asyncio.Event) -> None:
        self.begun += 1
        if self.failures:
            raise self.failures.pop(0)
        await stop.wait()

    keep = serve


class Party:
    """A watchman with its doubles in reach."""

    def __init__(self, *watches: Watch, **more: Any) -> None:
        self.bench = Bench()
        self.look = Look(self.bench)
        self.pulse, self.scheduler = Duties(), Duties()
        self.ordered: list[tuple[str, str]] = []
        self.stop = asyncio.Event()
        self.watchman = self.another(*watches, **more)

    def another(self, *watches: Watch, **more: Any) -> Watchman:
        async def order(admission: Admission, kind: str) -> None:
            self.ordered.append((admission.encounter, kind))

        given = {"poll_s": 0.0, "listen_s": 0.005, "again_s": 0.02, "lease_poll_s": 0.01, **more}
        return Watchman(
            sweep=cast(Any, self.look),
            watches=watches or (A,),
            pulse=cast(Any, self.pulse),
            scheduler=cast(Any, self.scheduler),
            store=self.bench.store,
            client=cast(Any, None),
            clock=lambda: NOW,
            order=order,
            **given,
        )

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.watchman.serve(self.stop))
        try:
            yield
        finally:
            self.stop.set()
            async with asyncio.timeout(5):
                await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a thread sets no event
            await asyncio.sleep(0.002)


def hear(party: Party, key: str, patient: str = "Patient/1") -> None:
    event = Admitted(
        patient=Subject(patient),
        visit=Visit("Encounter/9"),
        source=Source.HL7,
        key=key,
        encounter_class="IMP",
    )
    party.bench.store.hear(dump_events([event]))


async def test_a_watcher_looks_at_once_and_then_only_when_it_is_told_where_it_does_not_poll() -> None:
    party = Party(A, B)
    party.look.finds = [Admission("1", "s", "Patient/1", "Encounter/9")]
    async with party.at_work():
        await until(lambda: party.look.looks == ["a", "b"])
        await asyncio.sleep(0.05)
        assert party.look.looks == ["a", "b"]
        party.bench.store.nudge()
        party.bench.store.nudge()
        await until(lambda: len(party.look.looks) >= 4)
        await asyncio.sleep(0.05)
    assert party.look.looks == ["a", "b", "a", "b"]
    assert party.ordered == [("Encounter/9", "admission"), ("Encounter/9", "handover")] * 2
    assert party.watchman.looks == 2


async def test_a_watcher_that_polls_looks_again_and_again() -> None:
    party = Party(poll_s=0.02)
    async with party.at_work():
        await until(lambda: len(party.look.looks) >= 3)


async def test_a_look_that_fails_stops_neither_the_next_source_nor_the_next_look() -> None:
    party = Party(A, B)
    party.look.failures = [ServerFailed("The server failed."), StoreError("The disk is full.")]
    async with party.at_work():
        await until(lambda: len(party.look.looks) == 2)
        party.bench.store.nudge()
        await until(lambda: len(party.look.looks) == 4)
    assert party.watchman.odd == {"failed:server_failed": 1, "failed:store": 1}


async def test_what_a_message_tells_is_acted_on_without_asking_the_server_who_is_admitted() -> None:
    party = Party(B, A)
    party.bench.resolver.answers["Patient/1"] = Resolved(
        "Patient/1", "Encounter/9", encounter_resource={"status": "in-progress"}
    )
    async with party.at_work():
        await until(lambda: bool(party.look.looks))
        hear(party, "1")
        await until(lambda: party.ordered == [("Encounter/9", "handover")])
    assert party.look.looks == ["b", "a"]
    assert party.watchman.odd["admitted"] == 1


async def test_what_could_not_be_acted_on_waits_for_its_turn_and_new_messages_do_not_wait_for_it() -> None:
    party = Party(again_s=1000.0)
    party.bench.resolver.answers["Patient/1"] = Resolved(reason=Unresolved.UNKNOWN_STAY)
    party.bench.resolver.answers["Patient/2"] = Resolved(
        "Patient/2", "Encounter/9", encounter_resource={"status": "in-progress"}
    )
    async with party.at_work():
        await until(lambda: bool(party.look.looks))
        hear(party, "1")
        await until(lambda: [one.tries for one in party.bench.store.unheeded()] == [1])
        hear(party, "2", "Patient/2")
        await until(lambda: bool(party.ordered))
        await asyncio.sleep(0.05)
        assert [one.tries for one in party.bench.store.unheeded()] == [1]


async def test_what_could_not_be_acted_on_is_tried_again_after_a_while() -> None:
    party = Party(again_s=0.02)
    party.bench.resolver.answers["Patient/1"] = Resolved(reason=Unresolved.UNKNOWN_STAY)
    async with party.at_work():
        await until(lambda: bool(party.look.looks))
        hear(party, "1")
        await until(lambda: [one.tries for one in party.bench.store.unheeded()] == [3])


async def test_of_two_workers_one_watches_and_the_other_takes_over_when_it_is_gone() -> None:
    party = Party()
    other, ends = party.another(B), asyncio.Event()
    async with party.at_work():
        await until(lambda: party.look.looks == ["a"])
        second = asyncio.create_task(other.watch(ends))
        party.bench.store.nudge()
        await until(lambda: len(party.look.looks) == 2)
        assert party.look.looks == ["a", "a"]
        party.stop.set()
        await until(lambda: party.look.looks[-1] == "b")
        ends.set()
        await second
    assert LEASE not in party.bench.store.locks.held


async def test_a_duty_that_is_interrupted_is_begun_again_and_disturbs_no_other() -> None:
    party = Party()
    party.scheduler.failures = [StoreError("The database is away."), ServerFailed("The server failed.")]
    async with party.at_work():
        await until(lambda: party.scheduler.begun == 3)
        assert party.pulse.begun == 1


async def test_a_listener_is_open_as_long_as_this_worker_watches() -> None:
    states: list[str] = []

    @asynccontextmanager
    async def listening() -> AsyncIterator[None]:
        states.append("open")
        yield
        states.append("closed")

    party = Party(adt=listening)
    async with party.at_work():
        await until(lambda: bool(party.look.looks))
        assert states == ["open"]
    assert states == ["open", "closed"]


async def test_a_port_that_is_taken_ends_no_worker_and_is_tried_again() -> None:
    tries: list[int] = []

    @asynccontextmanager
    async def listening() -> AsyncIterator[None]:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(98, "Address already in use")
        yield

    party = Party(adt=listening)
    async with party.at_work():
        await until(lambda: bool(party.look.looks))
    assert len(tries) == 3


async def test_what_is_older_than_is_kept_is_deleted() -> None:
    party = Party(keep_days=30)
    asked: list[datetime] = []

    def forget_before(before: datetime) -> int:
        asked.append(before)
        return 0

    party.bench.store.forget_before = forget_before  # type: ignore[method-assign]
    async with party.at_work():
        await until(lambda: bool(asked))
    assert asked == party.look.forgotten == [NOW - timedelta(days=30)]


async def test_a_worker_without_a_hook_subscribes_to_nothing() -> None:
    party = Party()
    async with asyncio.timeout(5):
        await party.watchman.subscribe(party.stop)
