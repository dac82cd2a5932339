"""Who waits for the engine, told between processes by the database that they share."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import text

from service.engine.window import Urgency
from service.errors import StoreError
from service.store.cipher import Cipher
from service.store.database import Database
from service.store.urgency import CLEAR_S, STILL_S, SqlUrgency


class Hands:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Edge(NamedTuple):
    here: Urgency
    there: SqlUrgency
    """The same database as another process sees it, with a clock of its own."""
    clock: Hands
    database: Database


@pytest.fixture
def edge(url: str, cipher: Cipher) -> Iterator[Edge]:
    one, other, clock = Database(url, cipher), Database(url, cipher), Hands()
    yield Edge(SqlUrgency(one), SqlUrgency(other, monotonic=clock), clock, one)
    for database in (one, other):
        database.close()


async def until(edge: Edge, before: int, expected: bool) -> None:
    """Wait until the other process sees what is expected."""
    async with asyncio.timeout(5):
        while await edge.there.waits(before) is not expected:  # noqa: ASYNC110 - another process tells no event
            await asyncio.sleep(0.01)


def rows(edge: Edge) -> int:
    with edge.database.reading() as session:
        return int(session.execute(text("SELECT count(*) FROM epicrisis_urgent")).scalar_one())


async def test_who_waits_is_seen_by_those_who_are_less_urgent_alone_and_no_longer_than_it_waits(
    edge: Edge,
) -> None:
    assert not await edge.there.waits(10)
    async with edge.here.hold(5):
        await until(edge, 10, True)
        assert not await edge.there.waits(5)
        assert not await edge.there.waits(0)
    assert not await edge.there.waits(10)
    assert rows(edge) == 0


async def test_one_of_two_that_goes_leaves_the_other_waiting(edge: Edge) -> None:
    async with edge.here.hold(0):
        async with edge.here.hold(0):
            await until(edge, 10, True)
        assert await edge.there.waits(10)
    assert not await edge.there.waits(10)


async def test_a_block_that_fails_or_is_cancelled_waits_no_more(edge: Edge) -> None:
    async def fail() -> None:
        async with edge.here.hold(0):
            await until(edge, 10, True)
            raise KeyError

    async def held() -> None:
        async with edge.here.hold(0):
            await asyncio.Event().wait()

    with pytest.raises(KeyError):
        await fail()
    assert rows(edge) == 0
    task = asyncio.create_task(held())
    await until(edge, 10, True)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert rows(edge) == 0


async def test_a_block_that_ends_at_once_leaves_nothing_behind(edge: Edge) -> None:
    for _ in range(20):
        async with edge.here.hold(0):
            await asyncio.sleep(0)
    assert rows(edge) == 0


async def test_who_goes_on_waiting_is_seen_for_as_long_as_its_beat_goes_on(
    url: str, cipher: Cipher, edge: Edge
) -> None:
    async def quick(_: float) -> None:
        await asyncio.sleep(0.005)

    database = Database(url, cipher)
    async with SqlUrgency(database, sleep=quick).hold(0):
        await until(edge, 10, True)
        for _ in range(5):
            edge.clock.now += STILL_S + 1
            await until(edge, 10, True)  # a new beat comes, and is seen
    database.close()


async def test_a_row_whose_process_is_gone_counts_for_seconds_and_is_then_removed(edge: Edge) -> None:
    with edge.database.writing() as session:
        session.execute(text("INSERT INTO epicrisis_urgent (id, priority, beat) VALUES ('dead', 0, 3)"))
    assert await edge.there.waits(10)
    edge.clock.now += STILL_S
    assert await edge.there.waits(10)
    edge.clock.now += 0.1
    assert not await edge.there.waits(10)
    assert rows(edge) == 1
    edge.clock.now += CLEAR_S
    assert not await edge.there.waits(10)
    assert rows(edge) == 0


HOLDER = """
    import asyncio, sys
    from pathlib import Path
    from service.store.cipher import Cipher
    from service.store.database import Database
    from service.store.urgency import SqlUrgency

    async def main():
        database = Database(sys.argv[1], Cipher.from_file(Path(sys.argv[2]), create=False))
        async with SqlUrgency(database).hold(0):
            print("waits", flush=True)
            await asyncio.sleep(60)

    asyncio.run(main())
"""


async def test_a_process_that_is_killed_while_it_waits_is_forgotten(
    edge: Edge, url: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), url, str(tmp_path / "key")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "waits\n"
        await until(edge, 10, True)
        process.kill()
    await edge.there.waits(10)
    edge.clock.now += STILL_S + 0.1
    assert not await edge.there.waits(10)


async def test_a_database_that_fails_hinders_nobody_who_waits_and_is_said_to_who_looks(
    url: str, cipher: Cipher
) -> None:
    database = Database(url, cipher)
    with database.writing() as session:
        session.execute(text("DROP TABLE epicrisis_urgent"))
    urgency = SqlUrgency(database)
    async with urgency.hold(0):
        await asyncio.sleep(0.01)
    with pytest.raises(StoreError):
        await urgency.waits(10)
    database.close()
