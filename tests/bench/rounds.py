"""Measuring in turns, so that a noisy machine disturbs ours and the baselines alike; medians."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping

ROUNDS = 9


def compare(contenders: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median seconds of each contender, taking turns.

    What was there before is kept out of the garbage collector, and each begins with an empty one: none pays
    for what another left behind.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.freeze()
    try:
        for _ in range(rounds):
            for name, work in contenders.items():
                gc.collect()
                start = time.perf_counter()
                kept = work()
                taken[name].append(time.perf_counter() - start)
                del kept
    finally:
        gc.unfreeze()
    return {name: statistics.median(found) for name, found in taken.items()}


async def compare_async(
    contenders: Mapping[str, Callable[[], Awaitable[int]]], rounds: int = ROUNDS
) -> tuple[dict[str, float], dict[str, int]]:
    """The same for coroutines; also how many resources each got, which must not differ by much."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    counts: dict[str, int] = {}
    for _ in range(rounds):
        for name, work in contenders.items():
            start = time.perf_counter()
            counts[name] = await work()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in taken.items()}, counts
