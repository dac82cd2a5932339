"""A summary that nobody follows any more stops at the real engine too."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from fixtures.facts import NOW
from service.engine.local import LocalEngine
from service.engine.prompt import EngineInfo, Profile
from service.engine.shared import SharedEngine
from service.ondemand import OnDemand, Pace
from service.ports.ondemand import Asked, GenerationState
from service.store.database import open_cipher
from service.store.ondemand import SqlGenerations
from service.summarize import Progress, Summarizer
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.test_ondemand import Hands
from tests.unit.test_summarize import EhrDouble

pytestmark = pytest.mark.engine

ASKED = Asked("http://127.0.0.1:1/fhir", "Patient/1", "history", "", "system:none", "user:1")
GONE_S = 600.0
"""By a clock that the test moves on: in place of fifteen seconds, in which a busy machine may do nothing."""
FREE = Profile("free", "free", 8192, 2048, 0.0)
"""One long answer, as a large model is asked for."""


class Free(SharedEngine):
    """The small model, asked for the whole summary at once."""

    async def describe(self) -> EngineInfo:
        return replace(await super().describe(), profile=FREE)


async def running(engine: LocalEngine) -> float:
    """How many requests vLLM says it is answering."""
    base = await engine.server.ready()
    async with httpx.AsyncClient(trust_env=False) as client:
        said = (await client.get(f"{base}/metrics")).text
    return sum(float(value) for value in re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", said, re.M))


async def until(engine: LocalEngine, expected: float) -> None:
    async with asyncio.timeout(120):
        while await running(engine) != expected:  # noqa: ASYNC110 - another process tells no event
            await asyncio.sleep(0.1)


async def test_without_a_follower_vllm_runs_no_request(engine: LocalEngine, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/epicrisis.db"
    store, runs, clock = SqlGenerations(url, open_cipher(tmp_path / "key", url)), InMemoryStore(), Hands()
    one = OnDemand(
        store=store, runs=runs, clock=lambda: NOW, pace=Pace(look_s=0.1, gone_s=GONE_S), monotonic=clock
    )

    @asynccontextmanager
    async def opened(tell: Progress) -> AsyncIterator[Summarizer]:
        yield Summarizer(
            ehr=EhrDouble(), engine=Free(engine, "salt"), store=runs, audit=InMemoryAudit(),
            clock=lambda: NOW, software_version="0",
        )  # fmt: skip

    await engine.server.ready()
    generation = await one.want(ASKED, opened)
    async for told in one.follow(generation.id):
        if told.data.get("stage") == "generate":
            break
    await until(engine, 1)
    clock.ahead += GONE_S + 1.5
    await until(engine, 0)
    async with asyncio.timeout(20):
        while one._made:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    found = await one.get(generation.id)
    assert found is not None
    assert found.state is GenerationState.CANCELLED
    assert runs.runs == []
    await one.aclose()
    store.close()
