"""What it saves to have the engine read a chart when its patient is opened, before anybody asks for anything.

The same tasks in the same order, with and without: each time under another cache salt, so that nothing of
the one serves the other. The model is real and small; the free way of asking is MedGemma's.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fixtures.engines import demonstration_model, local_engine
from service.ask.asking import Asking
from service.engine.local import LocalEngine
from service.engine.profiles import profile_for
from service.engine.prompt import Completion, EngineInfo, Message, Profile, Prompt, Sampling, Usage
from service.grounding.summary import Claim
from service.ports.questions import Question, QuestionId
from service.record.assemble import resources_of
from service.summarize import Progress, Summarizer
from tests.bench.charts import Chart
from tests.bench.table import Row, Table, percent
from tests.contract.context.published import OneChart
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.ask.in_memory import InMemoryQuestions

BUDGET_TOKENS = 4_000
ANSWER_TOKENS = 64
FACTS = 6
"""Of one guided summary: a request each. The rest, and what would go back for repair, is left out."""
FREE = Profile("free, on the demonstration's weights", "free", 8192, ANSWER_TOKENS, 0.0)
KINDS = ("history", "handover")
QUESTION = "What is the latest body weight?"
COLUMNS = (
    "asked", "task", "warmed", "prompt tokens", "from the cache", "share", "first token, s",
    "first verified claim, s",
)  # fmt: skip


@dataclass
class Heard:
    """The engine under one salt and profile, and what it was heard to answer."""

    engine: LocalEngine
    profile: Profile
    salt: str
    first_at: float | None = None
    usages: list[Usage] = field(default_factory=list)
    requests: int = 0
    """How many requests of a task are still let through; the rest is answered with nothing."""

    async def describe(self) -> EngineInfo:
        """Say which model serves, under this profile."""
        return replace(await self.engine.describe(), profile=self.profile)

    async def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Count with the model's own tokenizer."""
        return await self.engine.count_tokens(messages)

    async def generate(self, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Completion:
        """Answer one prompt, noting when its first token came."""
        if prompt.sampling.max_tokens > 1:
            self.requests -= 1
            if self.requests < 0:
                return Completion('{"claims": []}', "stop", Usage(0, 0), 0.0)

        def hear(piece: str) -> None:
            self.first_at = self.first_at or time.perf_counter()
            if on_text is not None:
                on_text(piece)

        done = await self.engine.generate(prompt, hear, cache_salt=self.salt)
        self.usages.append(done.usage)
        return done

    def begin(self) -> float:
        """Forget what was heard, and return the time."""
        self.first_at, self.usages = None, []
        self.requests = FACTS if self.profile.mode == "guided" else 1
        return time.perf_counter()


async def bench_warm(chart: Chart, folder: Path) -> Table:
    """Ask the real engine for two summaries and an answer, with and without a warmed prefix."""
    table = Table("Warmed prefix", COLUMNS)
    resources = list(resources_of(chart.bundle))
    with local_engine(folder) as engine:
        guided = profile_for(str(demonstration_model()))
        await engine.generate(Prompt((Message("user", "Say yes."),), Sampling(1)))
        for profile in (FREE, guided):
            for warmed in (False, True):
                heard = Heard(engine, profile, f"{profile.mode} {warmed}")
                table.rows += await _tasks(heard, resources, warmed=warmed)
    table.remarks += [
        f"Real vLLM with the small model: at most {BUDGET_TOKENS:,} tokens of context; `free` is one prompt "
        f"with the whole chart, {ANSWER_TOKENS} tokens answered; `guided` is {FACTS} requests.",
        "`from the cache` is the engine's own count. A dash: no sentence of this model passed the rules.",
        "The model has full attention. What warming is for besides, a model with sliding-window layers whose "
        "second task finds nothing in the cache, is not measured here.",
    ]
    return table


async def _tasks(heard: Heard, resources: Sequence[Any], *, warmed: bool) -> list[Row]:
    ehr = OneChart(resources)
    summarizer = Summarizer(
        ehr=ehr, engine=heard, store=InMemoryStore(), audit=InMemoryAudit(),
        clock=lambda: datetime.now(UTC), software_version="0", budget_tokens=BUDGET_TOKENS,
    )  # fmt: skip
    rows: list[Row] = []
    said = "yes" if warmed else "no"
    if warmed:
        ready = await summarizer.prepare(ehr.patient_id)
        began = heard.begin()
        await summarizer.warm(ready)
        rows.append(_row(heard, "the warming itself", said, time.perf_counter() - began, None))
    for number, kind in enumerate(KINDS):
        ready = await summarizer.prepare(ehr.patient_id, kind=kind)
        claimed: list[float] = []

        def listen(claim: Claim, claimed: list[float] = claimed) -> None:
            claimed.append(time.perf_counter())

        began = heard.begin()
        await summarizer.draft(ready, listen)
        name = f"{'second task' if number else 'first summary'} ({kind})"
        first = heard.first_at - began if heard.first_at is not None else None
        rows.append(_row(heard, name, said, first, claimed[0] - began if claimed else None))
    rows.append(await _question(heard, ehr, summarizer, said))
    return rows


async def _question(heard: Heard, ehr: OneChart, summarizer: Summarizer, said: str) -> Row:
    """Ask a question; its claims are judged together, when all that was asked is answered."""

    @asynccontextmanager
    async def opened(tell: Progress) -> AsyncIterator[Summarizer]:
        yield summarizer

    store = InMemoryQuestions()
    asking = Asking(
        store=store, audit=InMemoryAudit(), clock=lambda: datetime.now(UTC), engine_s=300, whole_s=600
    )
    question = Question(
        QuestionId("0" * 32), ehr.base_url, f"Patient/{ehr.patient_id}", "user:ab", "system:none", QUESTION,
        datetime.now(UTC),
    )  # fmt: skip
    store.ask(question)
    began = heard.begin()
    answer = (await asking.ask(question, opened)).answer
    took = time.perf_counter() - began
    first = heard.first_at - began if heard.first_at is not None else None
    has_claims = answer is not None and any(claim.origin.value == "model" for claim in answer.claims)
    return _row(heard, "question", said, first, took if has_claims else None)


def _row(heard: Heard, task: str, warmed: str, first: float | None, claim: float | None) -> Row:
    read = sum(usage.prompt_tokens for usage in heard.usages)
    cached = sum(usage.cached_tokens for usage in heard.usages)
    share = percent(cached / read) if read else "–"
    return (
        heard.profile.mode, task, warmed, f"{read:,}", f"{cached:,}", share, _shown(first), _shown(claim)
    )  # fmt: skip


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
