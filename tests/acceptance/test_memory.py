"""What a worker still holds of visits that ended: nothing, but what its bounded caches keep."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

import pytest

from fixtures.servers import SekmetServer
from service.store import envelope
from tests.acceptance.house import House

WARM, MORE = range(6), range(6, 26)
WATCHED = ("service", "connectors", "dbos", "asyncio", "_asyncio", "httpx", "httpcore", "h11", "concurrent")
"""Packages whose objects a visit makes by the hundred."""
CANCELLED = "asyncio.events.TimerHandle"
"""Deadlines that were kept: a loop throws them away by the hundred."""
MOST_KEYS = 4


def held() -> Counter[str]:
    """Count what is alive of each watched type that the garbage collector knows."""
    gc.collect()
    kinds = (type(one) for one in gc.get_objects())
    return Counter(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in kinds
        if str(kind.__module__).partition(".")[0] in WATCHED
    )


async def test_a_worker_holds_nothing_of_visits_that_ended(
    sekmet: SekmetServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One object a visit, kept in some list for ever, is what a night of ten thousand would be told by."""
    monkeypatch.setattr(envelope, "MOST_OPEN", MOST_KEYS)  # full after the first pass
    house = House(sekmet.base_url, tmp_path / "home")
    house.admit(*WARM)
    async with house.open() as rounds:
        assert (await house.sweep(rounds)).runs == len(WARM)
        before = held()
        house.admit(*MORE)
        assert (await house.sweep(rounds)).runs == len(MORE)
        grown = held() - before
    assert not {kind for kind, count in grown.items() if count >= len(MORE) and kind != CANCELLED}
