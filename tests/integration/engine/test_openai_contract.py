"""The engine client against a server that speaks vLLM's protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fixtures.engine_double import MODEL, EngineDouble
from service.engine.openai import OpenAIEngine
from service.engine.profiles import profile_for
from tests.unit.engine.contract import EngineContract, Subject


class TestOpenAIEngineKeepsTheContract(EngineContract):
    @pytest.fixture
    async def subject(self) -> AsyncIterator[Subject]:
        async with EngineDouble(seconds_per_piece=0.002, api_key="secret") as double:
            engine = OpenAIEngine(
                double.base_url + "/v1", MODEL, profile=profile_for("smollm2-135m"), api_key="secret"
            )

            async def running() -> int:
                return double.running

            yield Subject(engine, running)
            await engine.aclose()
