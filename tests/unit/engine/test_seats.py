"""The batch without a model: its pace, its seats, and what it need not read twice."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from service.engine.seats import BLOCK, JITTER, Pace, Seats

PROMPT = [f"t{number}" for number in range(100)]


class Naps:
    """Sleeps that take no time. The steps of a batch add up, since no real time passes between them."""

    def __init__(self) -> None:
        self.total_s = 0.0

    async def __call__(self, seconds: float) -> None:
        self.total_s = max(self.total_s, seconds)
        await asyncio.sleep(0)


async def served(seats: Seats, prompt: list[str], to_write: int, priority: int = 0) -> list[int]:
    async with aclosing(seats.serve(prompt, to_write, priority)) as told:
        return [number async for number in told]


def about(seconds: float) -> object:
    return pytest.approx(seconds, rel=JITTER, abs=0.05)


def test_a_step_costs_one_token_s_time_and_a_little_for_each_further_one() -> None:
    pace = Pace(prefill_tokens_per_s=1000.0, decode_tokens_per_s=50.0)
    assert pace.step_s(1) == pytest.approx(0.02)
    assert pace.step_s(501) == pytest.approx(0.52)
    assert Pace().step_s(10_000) == 0.0


async def test_an_answer_takes_the_time_to_read_its_prompt_and_to_write_each_token() -> None:
    naps = Naps()
    seats = Seats(4, Pace(100.0, 10.0, step_tokens=50), sleep=naps)
    assert await served(seats, PROMPT, 5) == [0, 1, 2, 3, 4, 5]
    assert naps.total_s == about(2 * (0.1 + 0.49) + 4 * 0.1)
    assert (seats.read, seats.generated) == (100, 5)


async def test_streams_beside_each_other_are_written_in_the_same_steps() -> None:
    naps = Naps()
    seats = Seats(4, Pace(float("inf"), 10.0), sleep=naps)
    await asyncio.gather(*(served(seats, [str(n)] * 20, 10) for n in range(4)))
    assert naps.total_s == about(1.0)


async def test_a_full_batch_seats_the_next_by_priority_and_then_by_arrival() -> None:
    seats, order = Seats(1), []

    async def ask(name: str, priority: int) -> None:
        await served(seats, PROMPT, 3, priority)
        order.append(name)

    names = [("first", 10), ("night", 10), ("night too", 10), ("audit", 5), ("sidebar", 0)]
    await asyncio.gather(*(ask(name, priority) for name, priority in names))
    assert order == ["sidebar", "audit", "first", "night", "night too"]


async def test_the_same_beginning_is_read_once_in_whole_blocks_and_never_the_last_token() -> None:
    seats = Seats()
    assert (await served(seats, PROMPT, 1))[0] == 0
    assert (await served(seats, [*PROMPT[:70], "other"], 1))[0] == 4 * BLOCK
    assert (await served(seats, PROMPT[: 2 * BLOCK], 1))[0] == BLOCK
    assert (await served(seats, ["other", *PROMPT], 1))[0] == 0


async def test_who_goes_away_leaves_a_free_seat_or_queue_and_the_others_are_served() -> None:
    seats = Seats(1, Pace(decode_tokens_per_s=200.0))
    talking = [asyncio.create_task(served(seats, PROMPT, 1000)) for _ in range(2)]
    while not seats.running:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    assert (seats.running, seats.waiting) == (1, 1)
    for task in talking:
        task.cancel()
    await asyncio.gather(*talking, return_exceptions=True)
    assert (seats.running, seats.waiting) == (0, 0)
    assert await served(seats, ["?"], 1) == [0, 1]
    await seats.aclose()
