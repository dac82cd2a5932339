"""The durable queue on SQLite and PostgreSQL: what is ordered is done once, whoever dies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from fixtures.postgres import PostgresServer
from service.durable import MOST_MOVES, Durable, Json, Queue, Waits, open_queue
from service.errors import StoreError
from tests.conftest import CANARY

SET = ("workflow_uuid", "status", "inputs", "executor_id", "name", "queue_name")
"""Columns of DBOS that a test writes garbage into."""
QUICK = Waits((0.01,) * 2, (0.01,) * 2, (0.01,) * 2, (0.01,) * 2)


@dataclass
class Desk:
    """An Office that answers from what a test says, and notes what it was asked for."""

    keys: dict[str, str] = field(default_factory=dict)
    """Admission → run key."""
    epochs: Counter[str] = field(default_factory=Counter)
    done: list[str] = field(default_factory=list)
    answers: dict[str, list[Any]] = field(default_factory=dict)
    """Step → what it answers first: JSON, an exception, or an event to wait for."""
    concluded: dict[str, Json] = field(default_factory=dict)

    async def _next(self, step: str, *about: str) -> Json | None:
        self.done.append(" ".join((step, *about)))
        waiting = self.answers.get(step, [])
        answer = waiting.pop(0) if waiting else None
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            return None
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def read(self, admission_id: str, kind: str) -> Json:
        answer = await self._next("read", admission_id)
        key = self.keys.get(admission_id, f"key-{admission_id}")
        return answer or {"key": key, "epoch": self.epochs[admission_id], "requests": 2}

    async def draft(self, admission_id: str, kind: str, key: str) -> Json:
        return await self._next("draft", key) or {"run": f"run-{key}", "engine_calls": 3, "requests": 1}

    async def file(self, admission_id: str, kind: str, run_id: str) -> Json:
        answer = await self._next("file", run_id)
        return answer or {"outcome": {"state": "filed", "run": run_id}, "requests": 1}

    async def conclude(self, admission_id: str, outcome: Json) -> Json:
        answer = await self._next("conclude", admission_id)
        self.concluded[admission_id] = outcome
        return answer or outcome

    def count(self, step: str) -> int:
        """How often a step was asked for."""
        return sum(one.startswith(step) for one in self.done)


@dataclass
class Place:
    """One queue's database, its workers one after the other."""

    url: str
    tag: str

    @asynccontextmanager
    async def worker(self, desk: Desk, name: str = "w-1", **more: Any) -> AsyncIterator[Durable]:
        """Open the queue as a worker; it closes without waiting, as if it were killed."""
        given = {"seats": 4, "poll_s": 0.02, "waits": QUICK, **more}
        durable = await open_queue(Queue(self.url, name, **given), desk)
        try:
            yield durable
        finally:
            await durable.close()

    def name(self, admission: str) -> str:
        """An admission that no other test knows."""
        return f"{self.tag}-{admission}"

    def rows(self) -> str:
        """Everything that the queue's tables hold."""
        engine = create_engine(self.url.replace("postgresql://", "postgresql+psycopg://"))
        found = []
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                names = "SELECT name FROM sqlite_master WHERE type = 'table'"
                tables = [row[0] for row in connection.execute(text(names))]
            else:
                names = (
                    "SELECT table_name FROM information_schema.tables WHERE table_schema = 'epicrisis_queue'"
                )
                tables = [f"epicrisis_queue.{row[0]}" for row in connection.execute(text(names))]
            for table in tables:
                found += [str(tuple(row)) for row in connection.execute(text(f"SELECT * FROM {table}"))]
        engine.dispose()
        return "\n".join(found)


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One queue for all tests here: its tables take seconds to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('queue')}/queue.db"


@pytest.fixture(scope="module")
def postgresql(postgres: PostgresServer) -> str:
    """The same on PostgreSQL."""
    return postgres.new_schema()


def place_at(url: str, request: pytest.FixtureRequest) -> Place:
    return Place(url, f"{abs(hash(request.node.nodeid)) % 16**8:08x}")


@pytest.fixture
def place(request: pytest.FixtureRequest, sqlite: str) -> Place:
    return place_at(sqlite, request)


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest) -> Place:
    """What depends on the database is tried on both kinds."""
    return place_at(request.getfixturevalue(request.param), request)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - steps set no event
            await asyncio.sleep(0.01)


async def done(durable: Durable, *visits: str) -> list[Json]:
    async with asyncio.timeout(30):
        return [await durable.outcome(visit) for visit in visits]


async def test_a_visit_is_read_drafted_filed_and_concluded_and_says_what_it_cost(place: Place) -> None:
    desk, one = Desk(), place.name("a")
    async with place.worker(desk) as durable:
        visit = await durable.order("night@1", one, "admission")
        (outcome,) = await done(durable, visit)
    assert visit == f"night@1/{one}"
    expected = {
        "state": "filed", "run": f"run-key-{one}", "is_shared": False, "engine_calls": 3, "requests": 4,
    }  # fmt: skip
    assert outcome == desk.concluded[one] == expected
    assert desk.done == [
        f"read {one}", f"draft key-{one}", f"file run-key-{one}", f"conclude {one}",
    ]  # fmt: skip


async def test_two_visits_to_the_same_chart_are_one_run_and_one_bill(either: Place) -> None:
    desk, names = Desk(), [either.name(one) for one in "abc"]
    gate = asyncio.Event()
    desk.keys = dict.fromkeys(names, either.name("same"))
    desk.answers["draft"] = [gate]
    async with either.worker(desk) as durable:
        visits = [await durable.order(f"tick-{n}", name, "admission") for n, name in enumerate(names)]
        await until(lambda: desk.count("read") == 3)
        gate.set()
        outcomes = await done(durable, *visits)
    assert (desk.count("draft"), desk.count("file")) == (1, 1)
    assert sorted(one["is_shared"] for one in outcomes) == [False, True, True]
    assert sum(one["engine_calls"] for one in outcomes) == 3
    assert {one["state"] for one in outcomes} == {"filed"}


async def test_a_visit_on_one_occasion_is_ordered_once_and_on_the_next_again(either: Place) -> None:
    desk, one = Desk(), either.name("a")
    async with either.worker(desk) as durable:
        first = await durable.order("tick-1", one, "admission")
        await done(durable, first)
        assert await durable.order("tick-1", one, "admission") == first
        await done(durable, first)
        assert desk.count("read") == 1
        await done(durable, await durable.order("tick-2", one, "admission"))
    assert (desk.count("read"), desk.count("draft")) == (2, 1)


async def test_a_visit_that_calls_for_no_run_ends_with_its_outcome(place: Place) -> None:
    desk, one = Desk(), place.name("a")
    desk.answers["read"] = [{"outcome": {"state": "skipped", "reason": "minor"}, "requests": 0}]
    async with place.worker(desk) as durable:
        (outcome,) = await done(durable, await durable.order("t", one, "admission"))
    assert outcome == {"state": "skipped", "reason": "minor", "requests": 0, "engine_calls": 0}
    assert desk.concluded[one] == outcome


FAILED = {"failed": "engine", "again": True, "engine_calls": 1}


@pytest.mark.parametrize("step", ["read", "draft", "file"])
async def test_what_may_pass_is_tried_again_after_a_wait(place: Place, step: str) -> None:
    desk, one = Desk(), place.name(step)
    desk.answers[step] = [FAILED, FAILED]
    async with place.worker(desk) as durable:
        (outcome,) = await done(durable, await durable.order("t", one, "admission"))
    assert outcome["state"] == "filed"
    assert outcome["engine_calls"] == 5
    assert desk.count(step) == 3


@pytest.mark.parametrize("step", ["read", "draft", "file"])
async def test_what_does_not_pass_is_a_failure_with_its_reason(place: Place, step: str) -> None:
    desk, one = Desk(), place.name(step)
    desk.answers[step] = [FAILED] * 9
    async with place.worker(desk) as durable:
        (outcome,) = await done(durable, await durable.order("t", one, "admission"))
    assert (outcome["state"], outcome["reason"]) == ("failed", "engine")
    assert desk.count(step) == 3
    assert desk.concluded[one]["state"] == "failed"


async def test_what_will_not_pass_is_not_tried_again(place: Place) -> None:
    desk, one = Desk(), place.name("a")
    desk.answers["read"] = [{"failed": "forbidden", "again": False}]
    async with place.worker(desk) as durable:
        (outcome,) = await done(durable, await durable.order("t", one, "admission"))
    assert (outcome["reason"], desk.count("read")) == ("forbidden", 1)


async def test_a_failed_run_is_not_the_run_of_the_next_visit(place: Place) -> None:
    desk, one = Desk(), place.name("a")
    desk.answers["draft"] = [{"failed": "engine", "again": False}]
    async with place.worker(desk) as durable:
        (first,) = await done(durable, await durable.order("t1", one, "admission"))
        desk.epochs[one] += 1
        (second,) = await done(durable, await durable.order("t2", one, "admission"))
    assert (first["state"], second["state"]) == ("failed", "filed")


async def test_an_outcome_that_cannot_be_kept_is_tried_again_and_then_a_failure(place: Place) -> None:
    desk, one, two = Desk(), place.name("a"), place.name("b")
    lost = {"failed": "store", "again": True}
    desk.answers["conclude"] = [lost]
    async with place.worker(desk) as durable:
        (outcome,) = await done(durable, await durable.order("t", one, "admission"))
        assert outcome["state"] == "filed"
        desk.answers["conclude"] = [lost] * 9
        (outcome,) = await done(durable, await durable.order("t", two, "admission"))
    assert (outcome["state"], outcome["reason"]) == ("failed", "store")


async def test_an_exception_is_a_failure_and_its_text_reaches_neither_the_queue_nor_a_log(
    either: Place, caplog: pytest.LogCaptureFixture
) -> None:
    desk, one = Desk(), either.name("a")
    desk.answers["draft"] = [ValueError(f"patient {CANARY}")]
    async with either.worker(desk) as durable:
        (outcome,) = await done(durable, await durable.order("t", one, "admission"))
    assert (outcome["state"], outcome["reason"]) == ("failed", "internal")
    assert "ValueError" in caplog.text
    assert CANARY not in caplog.text
    assert CANARY not in either.rows()


async def test_a_chart_that_moved_is_read_again_and_not_for_ever(place: Place) -> None:
    desk, one, two = Desk(), place.name("a"), place.name("b")
    desk.answers["read"] = [{"key": f"{one}-{n}", "epoch": 0} for n in range(2)]
    desk.answers["draft"] = [{"moved": True}]
    async with place.worker(desk) as durable:
        (outcome,) = await done(durable, await durable.order("t", one, "admission"))
        assert (outcome["state"], outcome["run"]) == ("filed", f"run-{one}-1")
        desk.answers["read"] = [{"key": f"{two}-{n}", "epoch": 0} for n in range(MOST_MOVES)]
        desk.answers["draft"] = [{"moved": True}] * MOST_MOVES
        (outcome,) = await done(durable, await durable.order("t", two, "admission"))
    assert (outcome["state"], outcome["reason"]) == ("failed", "chart_keeps_changing")


async def test_a_stay_that_ends_stops_its_visit_and_the_generation_it_waits_for(either: Place) -> None:
    desk, one, other = Desk(), either.name("a"), either.name("b")
    gates = [asyncio.Event(), asyncio.Event()]
    desk.answers["draft"] = [*gates]
    async with either.worker(desk) as durable:
        visit = await durable.order("t", one, "admission")
        await until(lambda: desk.count("draft") == 1)
        kept = await durable.order("t", other, "admission")
        await until(lambda: desk.count("draft") == 2)
        assert await durable.cancel(one) == 1
        assert await done(durable, visit) == [{"state": "skipped", "reason": "ended"}]
        for gate in gates:
            gate.set()
        assert (await done(durable, kept))[0]["state"] == "filed"
        assert await durable.cancel(one) == 0
    assert f"file run-key-{one}" not in desk.done
    assert one not in desk.concluded


async def test_a_worker_that_starts_again_goes_on_where_it_was_and_repeats_no_step(
    either: Place, caplog: pytest.LogCaptureFixture
) -> None:
    desk, one = Desk(), either.name("a")
    desk.answers["file"] = [asyncio.Event()]
    async with either.worker(desk) as durable:
        visit = await durable.order("t", one, "admission")
        await until(lambda: desk.count("file") == 1)
    assert await asyncio.to_thread(lambda: "threads are there again") == "threads are there again"
    again = Desk()
    async with either.worker(again) as durable:
        assert (await done(durable, visit))[0]["state"] == "filed"
    assert again.done == [f"file run-key-{one}", f"conclude {one}"]
    assert caplog.text == ""


@pytest.mark.parametrize("seats", [1, 4])
async def test_the_work_of_a_dead_worker_goes_on_with_another_whatever_its_seats(
    either: Place, seats: int
) -> None:
    desk, names = Desk(), [either.name(f"{one}{seats}") for one in "abc"]
    desk.answers["draft"] = [asyncio.Event() for _ in names]
    async with either.worker(desk, "dead-1") as durable:
        visits = [await durable.order("t", name, "admission") for name in names]
        await until(lambda: desk.count("draft") == 3)
    other = Desk()
    async with either.worker(other, "alive-1", seats=seats) as durable:
        assert await durable.waiting() >= 3
        assert await durable.take_over("dead-1") == 6  # visits and their runs
        assert await durable.take_over("dead-1") == 0
        assert {one["state"] for one in await done(durable, *visits)} == {"filed"}
        assert await durable.waiting() == 0
    assert other.count("read") == 0
    assert other.count("draft") == other.count("conclude") == 3


async def test_what_is_heard_goes_before_the_pass_of_the_night(either: Place) -> None:
    desk, gate = Desk(), asyncio.Event()
    desk.answers["read"] = [gate]
    first, night, heard = (either.name(one) for one in ("first", "night", "heard"))
    async with either.worker(desk, seats=1) as durable:
        visits = [await durable.order("t", first, "admission")]
        await until(lambda: desk.count("read") == 1)
        visits.append(await durable.order("t", night, "admission"))
        visits.append(await durable.order("h", heard, "admission", priority=5))
        gate.set()
        await done(durable, *visits)
    reads = [one for one in desk.done if one.startswith("read")]
    assert reads == [f"read {first}", f"read {heard}", f"read {night}"]


async def test_who_only_orders_does_nothing_and_another_does_it(place: Place) -> None:
    idle, desk, one = Desk(), Desk(), place.name("a")
    async with place.worker(idle, "orders-1", is_listening=False) as durable:
        visit = await durable.order("t", one, "admission")
        await asyncio.sleep(0.2)
        assert await durable.waiting() >= 1
    assert idle.done == []
    async with place.worker(desk, "works-1") as durable:
        assert (await done(durable, visit))[0]["state"] == "filed"


async def test_a_worker_that_is_told_to_stop_finishes_what_is_under_way(place: Place) -> None:
    desk, gate, one = Desk(), asyncio.Event(), place.name("a")
    desk.answers["draft"] = [gate]
    durable = await open_queue(Queue(place.url, "drains-1", poll_s=0.02, waits=QUICK), desk)
    visit = await durable.order("t", one, "admission")
    await until(lambda: desk.count("draft") == 1)
    asyncio.get_running_loop().call_later(0.2, gate.set)
    async with asyncio.timeout(20):
        await durable.close(15)
    assert desk.concluded[one]["state"] == "filed"
    idle = Desk()
    async with place.worker(idle, "drains-1") as durable:
        assert (await done(durable, visit))[0]["state"] == "filed"
    assert idle.done == []


async def test_what_ended_is_deleted_and_what_goes_on_is_not(either: Place) -> None:
    desk, one, two = Desk(), either.name("a"), either.name("b")
    async with either.worker(desk) as durable:
        await done(durable, await durable.order("t", one, "admission"))
        desk.answers["read"] = [asyncio.Event()]
        await durable.order("t", two, "admission")
        await until(lambda: f"read {two}" in desk.done)
        assert await durable.forget_before(datetime.now(UTC) - timedelta(days=1)) == 0
        assert one in either.rows()
        assert await durable.forget_before(datetime.now(UTC) + timedelta(seconds=5)) >= 2
        assert await durable.forget_before(datetime.now(UTC) + timedelta(seconds=5)) == 0
        held = either.rows()
        assert one not in held
        assert two in held
        await durable.cancel(two)


async def test_garbage_in_the_queue_holds_up_nobody(either: Place) -> None:
    desk, one = Desk(), either.name("a")
    async with either.worker(desk) as durable:
        await done(durable, await durable.order("t", one, "admission"))
    engine = create_engine(either.url.replace("postgresql://", "postgresql+psycopg://"))
    table = "workflow_status" if engine.dialect.name == "sqlite" else "epicrisis_queue.workflow_status"
    with engine.begin() as connection:
        found = list(connection.execute(text(f"SELECT * FROM {table} LIMIT 1")).keys())
        kept = ", ".join(f'"{column}"' for column in found if column not in SET)
        for number, (name, inputs, status) in enumerate(
            [
                ("visit", "{garbage", "ENQUEUED"),
                ("visit", '{"positionalArgs": []}', "ENQUEUED"),
                ("nothing", "[]", "ENQUEUED"),
                ("visit", "", "PENDING"),
            ]
        ):
            connection.execute(
                text(
                    f"INSERT INTO {table} ({kept}, {', '.join(SET)}) "
                    f"SELECT {kept}, :id, :status, :inputs, 'w-1', :name, 'admissions' FROM {table} "
                    f"WHERE workflow_uuid = :like"
                ),
                {
                    "id": f"garbage-{either.tag}-{number}",
                    "status": status,
                    "inputs": inputs,
                    "name": name,
                    "like": f"t/{one}",
                },
            )
    engine.dispose()
    two, other = either.name("b"), Desk()
    async with either.worker(other) as durable:
        assert (await done(durable, await durable.order("t", two, "admission")))[0]["state"] == "filed"
        assert await durable.take_over("w-1") >= 0


async def test_a_queue_is_open_once_in_a_process(place: Place) -> None:
    async with place.worker(Desk()):
        with pytest.raises(StoreError, match="already"):
            await open_queue(Queue(place.url, "w-2"), Desk())
    async with place.worker(Desk()):
        pass


async def test_a_queue_that_cannot_be_opened_is_a_store_error_and_can_be_opened_later(
    tmp_path: Path, place: Place
) -> None:
    (tmp_path / "queue.db").write_bytes(f"this is no database {CANARY}".encode() * 100)
    with pytest.raises(StoreError) as raised:
        await open_queue(Queue(f"sqlite:///{tmp_path}/queue.db", "w-1"), Desk())
    assert CANARY not in str(raised.value)
    async with place.worker(Desk()):
        pass


def test_waits_are_scaled_all_alike() -> None:
    assert Waits((1.0,), (2.0,), (3.0, 4.0), (5.0,)).scaled(0.5) == Waits((0.5,), (1.0,), (1.5, 2.0), (2.5,))
