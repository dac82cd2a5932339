"""A summary that somebody waits for: its first verified claim, beside the engine's own first token.

The whole way is measured, from the wish to the event that is told: the chart is pulled from a real FHIR
server, assembled and chosen from, and the engine is real. Each time is under another cache salt, so that
nothing that was read before serves again.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from fixtures.engines import demonstration_model, local_engine
from fixtures.servers import SekmetServer
from service.engine.local import LocalEngine
from service.engine.profiles import profile_for
from service.engine.prompt import Completion, EngineInfo, Message, Profile, Prompt, Sampling
from service.ondemand import OnDemand
from service.ports.ondemand import Asked, ToldKind
from service.settings import load_settings
from service.store.ondemand import SqlGenerations
from service.summarize import Progress, Summarizer
from service.wiring import utc_now
from service.wiring.installation import database_of
from tests.bench.charts import Charts, post
from tests.bench.table import Row, Table, seconds, times
from tests.bench.warm import FREE
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore

BUDGET_TOKENS = 2_000
ROUNDS = 3
COLUMNS = (
    "asked", "prompt tokens", "engine alone: first token, s", "its whole answer, s",
    "on demand: engine asked, s", "first token, s", "first verified claim, s", "× engine's first token",
)  # fmt: skip


@dataclass
class Heard:
    """The real engine under one salt and profile: when it was first asked, for what, and first answered."""

    engine: LocalEngine
    profile: Profile
    salt: str
    prompt: Prompt | None = None
    asked_at: float = 0.0
    first_at: float = 0.0
    tokens: int = 0

    async def describe(self) -> EngineInfo:
        """Say which model serves, under this profile."""
        return replace(await self.engine.describe(), profile=self.profile)

    async def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Count with the model's own tokenizer."""
        return await self.engine.count_tokens(messages)

    async def generate(self, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Completion:
        """Answer one prompt."""
        if self.prompt is None:
            self.prompt, self.asked_at = prompt, time.perf_counter()

        def hear(piece: str) -> None:
            self.first_at = self.first_at or time.perf_counter()
            if on_text is not None:
                on_text(piece)

        done = await self.engine.generate(prompt, hear, cache_salt=self.salt)
        self.tokens = self.tokens or done.usage.prompt_tokens
        return done


@dataclass(frozen=True, slots=True)
class Waited:
    """One summary on demand, in seconds from the wish, and the same prompt put to the engine alone."""

    tokens: int
    own_first: float
    own_whole: float
    asked: float
    first: float
    claim: float | None


async def bench_on_demand(charts: Charts, folder: Path) -> Table:
    """Ask for the summary of an ordinary chart, with the real engine, by both ways of asking."""
    table = Table("Sidebar: the first verified claim of a summary on demand", COLUMNS)
    with SekmetServer(folder / "sekmet") as sekmet, local_engine(folder) as engine:
        for data in charts.before:
            post(sekmet, data)
        patient = post(sekmet, charts.ordinary.data)
        sekmet.analyze()
        await engine.generate(Prompt((Message("user", "Say yes."),), Sampling(1)))  # starts it
        for profile in (profile_for(str(demonstration_model())), FREE):
            rounds = [await _round(engine, profile, sekmet, patient, folder, n) for n in range(ROUNDS)]
            table.rows.append(_row(profile.mode, rounds))
        await engine.aclose()
    table.remarks = [
        f"Medians of {ROUNDS}, {charts.ordinary.work}; real vLLM with the small model, at most "
        f"{BUDGET_TOKENS:,} tokens of context. The engine alone is asked the first prompt that "
        "the summary asks it. A dash: no sentence of this model passed the rules.",
        "A guided answer is about a few facts and is judged when it is whole, so that `its whole answer` "
        "is the least that its first claim can take; one is asked, then two, then four until a claim "
        "could be told, and then all others at a time.",
    ]
    return table


async def _round(
    engine: LocalEngine, profile: Profile, sekmet: SekmetServer, patient: str, folder: Path, number: int
) -> Waited:
    heard = Heard(engine, profile, f"{profile.mode} {number}")
    settings = load_settings(home=folder / f"home-{profile.mode}-{number}", fhir_url=sekmet.base_url)
    generations = SqlGenerations(*database_of(settings))
    on_demand = OnDemand(store=generations, runs=InMemoryStore(), clock=utc_now)

    @asynccontextmanager
    async def opened(tell: Progress) -> AsyncIterator[Summarizer]:
        async with FhirClient(sekmet.base_url) as client:
            yield Summarizer(
                ehr=FhirEhr(client, now=utc_now), engine=heard, store=InMemoryStore(), audit=InMemoryAudit(),
                clock=utc_now, software_version="0", budget_tokens=BUDGET_TOKENS,
            )  # fmt: skip

    asked = Asked(sekmet.base_url, f"Patient/{patient}", "history", "", "system:none", "user:bench")
    began, claim = time.perf_counter(), None
    generation = await on_demand.want(asked, opened)
    async for told in on_demand.follow(generation.id):
        if told.kind is ToldKind.FAILED:
            raise RuntimeError("the summary failed")
        if told.kind is ToldKind.CLAIM:
            claim = time.perf_counter() - began
            await on_demand.cancel(generation.id)
            break
    await on_demand.aclose()
    await asyncio.to_thread(generations.close)
    assert heard.prompt is not None
    alone = Heard(engine, profile, f"{heard.salt} alone")
    begun = time.perf_counter()
    await alone.generate(heard.prompt)
    whole = time.perf_counter() - begun
    return Waited(
        alone.tokens, alone.first_at - begun, whole, heard.asked_at - began, heard.first_at - began, claim
    )


def _row(mode: str, rounds: list[Waited]) -> Row:
    def middle(of: Callable[[Waited], float]) -> float:
        return statistics.median(map(of, rounds))

    own, claims = middle(lambda one: one.own_first), [one.claim for one in rounds if one.claim is not None]
    claim = statistics.median(claims) if claims else None
    return (
        mode, f"{middle(lambda one: one.tokens):,.0f}", seconds(own),
        seconds(middle(lambda one: one.own_whole)), seconds(middle(lambda one: one.asked)),
        seconds(middle(lambda one: one.first)),
        seconds(claim) if claim is not None else "–", times(claim / own) if claim is not None else "–",
    )  # fmt: skip
