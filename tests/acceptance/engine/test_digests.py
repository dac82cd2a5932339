"""A chart beyond the budget, told by digests: real FHIR server, real store, real vLLM, the small model."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.fhir.client import FhirClient
from connectors.fhir.codec import decode
from connectors.fhir.ehr import FhirEhr
from fixtures.servers import SekmetServer
from service.context.manifest import CARRIED
from service.engine.local import LocalEngine
from service.engine.prompt import Completion, EngineInfo, Message, Prompt
from service.ports import RunId, RunState
from service.record.facts import Kind
from service.settings import load_settings
from service.summarize import Summarizer
from service.wiring import open_store, open_vault, utc_now

pytestmark = [pytest.mark.engine, pytest.mark.shared]

CHART = "1c574eeb-0f08-37cd-475e-fa4021b62ad3.json.gz"
BUDGET_TOKENS = 1600
WINDOWS = 2


class Counting:
    """The real engine, and how often it was asked."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self.digests = self.others = 0

    async def describe(self) -> EngineInfo:
        return await self._engine.describe()

    async def count_tokens(self, messages: tuple[Message, ...]) -> int:
        return await self._engine.count_tokens(messages)

    async def generate(self, prompt: Prompt, on_text: Any = None) -> Completion:
        if prompt.priority:
            self.digests += 1
        else:
            self.others += 1
        return await self._engine.generate(prompt, on_text)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SekmetServer]:
    with SekmetServer(tmp_path / "ehr") as one:
        yield one


async def test_what_does_not_fit_is_told_by_digests_that_are_kept_for_the_next_run(
    engine: LocalEngine, server: SekmetServer, shared_data: Path, tmp_path: Path
) -> None:
    settings = load_settings(home=tmp_path / "home")
    store, audit = open_store(settings)
    vault = open_vault(settings)
    counting = Counting(engine)
    try:
        async with FhirClient(server.base_url) as client:
            for file in (
                *sorted((shared_data / "synthea").glob("0-*.json.gz")),
                shared_data / "synthea" / CHART,
            ):
                await client.transaction(decode(gzip.decompress(file.read_bytes())))
            (patient,) = await client.search("Patient")
            summarizer = Summarizer(
                ehr=FhirEhr(client, now=utc_now), engine=counting, store=store, audit=audit, clock=utc_now,
                software_version="0", budget_tokens=BUDGET_TOKENS, digest_windows=WINDOWS, vault=vault,
            )  # fmt: skip
            first = await summarizer.summarize(patient["id"])
            asked = counting.digests
            second = await summarizer.summarize(patient["id"], attempt=2)
        run = store.get(RunId(first.run_id))
    finally:
        store.close()
        audit.close()
        if vault is not None:
            vault.close()
    assert (first.state, second.state) == (RunState.FILED, RunState.FILED)
    assert 0 < asked <= WINDOWS * 12
    assert counting.digests == asked  # the second run made no digest anew
    assert second.resources_changed is not None
    assert run is not None
    told = [item for item in run.summary.left_out if item.reason == CARRIED]
    assert sum(item.count for item in told) > 0
    shown = {fact.id for fact in run.summary.facts}
    assert all(cite in shown for claim in run.summary.published for cite in claim.citations)
    assert any(fact.kind is not Kind.PATIENT for fact in run.summary.facts)
