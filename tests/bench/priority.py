"""What a clinician waits while a night sweeps, and what the night loses to clinicians, for several windows.

All of it in one run: an on-demand summary on an idle engine, then a sweep alone and the same sweep with
on-demand summaries, a few seconds apart, for each window.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from connectors.fhir.codec import decode
from fixtures.engines import local_engine
from service.context.choose import choose_facts
from service.context.chosen import Context
from service.context.render import Request, requests_for
from service.context.stay import find_stay
from service.context.templates import TemplateSet, load
from service.engine.openai import OpenAIEngine
from service.engine.profiles import profile_for
from service.engine.prompt import Completion, Engine, Message, Prompt, Usage
from service.engine.window import BESIDE, SCHEDULE, Pressing, UrgencyHere, Window
from service.grounding.parse import parse_claims
from service.grounding.summary import Origin
from service.record.assemble import assemble_record, resources_of
from service.record.facts import PatientRecord
from service.record.required import required_facts
from service.summarize import REQUESTS_IN_FLIGHT
from service.verify import verify_completions
from tests.bench.charts import Charts
from tests.bench.table import Row, Table, at_least, at_most, percent, seconds, times

LATENCY, THROUGHPUT = 1.5, 0.70
CHARTS = 8
RESTS = 3
"""Between two on-demand summaries an engine has this many times the seconds that one takes when idle."""
COLUMNS = (
    "work", "window", "first verified claim, s", "of idle", "target", "whole summary, s", "tokens/s of sweep",
    "of sweep alone", "target", "given up",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One engine to measure on, and how."""

    work: str
    budget_tokens: int
    windows: tuple[int | None, ...]
    """None is a sweep that knows no window."""
    sweep_s: float
    summaries: int
    most_requests: int = 100
    """Of one summary, where a model is asked fact by fact."""


SCRIPTED = Setting("scripted, 8,000 tokens/s read and 60 written", 6_000, (None, 8), 15.0, 3)
REAL = Setting("real vLLM, small model, 8 facts a summary", 1_200, (None, 8), 20.0, 3, 8)
PACE = ("--prefill-tokens-per-s", "8000", "--decode-tokens-per-s", "60", "--seats", "64", "--seed", "7")
"""About what one data centre card does with a model of 27 billion parameters."""


class Job(NamedTuple):
    """One chart, ready to be asked about."""

    record: PatientRecord
    context: Context
    templates: TemplateSet
    requests: tuple[Request, ...]

    def fresh(self, number: int) -> Job:
        """Return the same work with a beginning that the engine has not read yet."""
        return self._replace(requests=tuple(_marked(request, number) for request in self.requests))

    def is_borne_out(self, request: Request, text: str) -> bool:
        """Verify what was decoded so far; True where a sentence of the model's passes every check."""
        answer = Completion(text, "stop", Usage(0, 0), 0.0)
        summary = verify_completions(
            "history", self.record, self.context, self.templates, [request], [answer]
        )
        return any(claim.origin is Origin.MODEL for claim in summary.published)


def _marked(request: Request, number: int) -> Request:
    first, *rest = request.prompt.messages
    marked = replace(first, content=f"({number}) {first.content}")
    return replace(request, prompt=replace(request.prompt, messages=(marked, *rest)))


@dataclass
class Waited:
    """How long a clinician waited for a summary: for its first verified claim, and for all of it."""

    first_s: float = 0.0
    whole_s: float = 0.0


@dataclass
class Sweep:
    """A night that never ends: charts in turn, as many at a time as keep the window full."""

    engine: Engine
    jobs: Sequence[Job]
    numbers: Iterator[int]
    tokens: int = 0
    """Written in answers that came whole; what was given up does not count."""
    answers: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, at_a_time: int) -> None:
        """Begin."""
        turns = itertools.cycle(self.jobs)
        self._tasks = [asyncio.create_task(self._work(turns)) for _ in range(at_a_time)]

    async def stop(self) -> None:
        """End, and leave nothing at the engine."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def rate(self, during_s: float, first: int) -> float:
        """Return the tokens per second of so many seconds, once the first so many answers have come."""
        while self.answers < first:  # noqa: ASYNC110 - a night tells no event
            await asyncio.sleep(0.05)
        began, before = time.perf_counter(), self.tokens
        await asyncio.sleep(during_s)
        return (self.tokens - before) / (time.perf_counter() - began)

    async def _work(self, turns: Iterator[Job]) -> None:
        while True:
            job = next(turns).fresh(next(self.numbers))
            await asyncio.gather(*(self._ask(request.prompt) for request in job.requests))

    async def _ask(self, prompt: Prompt) -> None:
        done = await self.engine.generate(prompt)
        self.tokens += done.usage.completion_tokens
        self.answers += 1


async def summarise(engine: Engine, job: Job) -> Waited:
    """Ask as an on-demand run asks, and note when the first sentence passed its checks."""
    began, waited, seats = time.perf_counter(), Waited(), asyncio.Semaphore(REQUESTS_IN_FLIGHT)

    async def ask(request: Request) -> None:
        pieces: list[str] = []
        seen = 0

        def hear(piece: str) -> None:
            nonlocal seen
            pieces.append(piece)
            if waited.first_s or "}" not in piece:
                return
            text = "".join(pieces)
            found = len(parse_claims(text, request.section))
            if found > seen and job.is_borne_out(request, text):
                waited.first_s = time.perf_counter() - began
            seen = found

        async with seats:
            await engine.generate(request.prompt, hear)

    await asyncio.gather(*map(ask, job.requests))
    waited.whole_s = time.perf_counter() - began
    waited.first_s = waited.first_s or waited.whole_s
    return waited


async def bench_scripted(charts: Charts) -> Table:
    """Measure every window on the scripted engine."""
    async with scripted() as engine:
        return _table(await _measure(engine, charts, SCRIPTED))


async def bench_real(charts: Charts, folder: Path) -> Table:
    """Measure the window that is the default, and none, on the real engine."""
    with local_engine(folder) as local:
        rows = await _measure(local, charts, REAL)
        await local.aclose()
    return _table(rows)


def _table(rows: list[Row]) -> Table:
    table = Table("Priority: a sweep, and a clinician beside it", COLUMNS)
    table.rows += rows
    table.remarks.append(
        f"Medians. An on-demand summary begins {RESTS} × its idle time after the last one ended; its prompt "
        "shares nothing with any before it. Tokens count where the answer came whole. While a clinician "
        f"waits, the sweep keeps {BESIDE} requests in flight. `none` is a sweep that knows no window and "
        "no urgency."
    )
    return table


@asynccontextmanager
async def scripted() -> AsyncIterator[Engine]:
    """The scripted engine as its own process."""
    command = [sys.executable, "-m", "service.engine.scripted_server", "--port", "0", *PACE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        engine = OpenAIEngine(url, "scripted", profile=profile_for("scripted"))
        try:
            yield engine
        finally:
            await engine.aclose()
            process.terminate()


async def _measure(engine: Engine, charts: Charts, setting: Setting) -> list[Row]:
    jobs = await _jobs(engine, charts, setting)
    numbers = itertools.count()
    await engine.generate(jobs[0].requests[0].prompt)  # starts the server
    idle = [await summarise(engine, jobs[0].fresh(next(numbers))) for _ in range(setting.summaries)]
    first, whole = (statistics.median(found) for found in zip(*map(_both, idle), strict=True))
    rows: list[Row] = [(setting.work, "idle engine", seconds(first), "", "", seconds(whole), "", "", "", "")]
    for size in setting.windows:
        rows.append(await _beside(engine, jobs, numbers, setting, size, (first, whole)))
    return rows


async def _beside(
    engine: Engine,
    jobs: Sequence[Job],
    numbers: Iterator[int],
    setting: Setting,
    size: int | None,
    idle: tuple[float, float],
) -> Row:
    """Measure one window: the sweep alone, then with on-demand summaries."""
    urgency = UrgencyHere()
    window = Window(engine, size, lambda: urgency.waits(SCHEDULE)) if size else None
    sweep = Sweep(window or engine, jobs, numbers)
    sweep.start(max(2, (size or 48) if len(jobs[0].requests) == 1 else 3))
    alone = await sweep.rate(setting.sweep_s, 2 * size if size else 1)
    pressing: Engine = Pressing(engine, urgency) if size else engine
    began, before, found = time.perf_counter(), sweep.tokens, []
    for _ in range(setting.summaries):
        await asyncio.sleep(RESTS * idle[1])
        found.append(await summarise(pressing, jobs[0].fresh(next(numbers))))
    both = (sweep.tokens - before) / (time.perf_counter() - began)
    await sweep.stop()
    first, whole = (statistics.median(some) for some in zip(*map(_both, found), strict=True))
    share = both / alone if alone else 0.0
    return (
        setting.work, str(size or "none"), seconds(first), times(first / idle[0]),
        at_most(first / idle[0], LATENCY, times(LATENCY)), seconds(whole), f"{both:.0f} of {alone:.0f}",
        percent(share), at_least(share, THROUGHPUT, percent(THROUGHPUT)),
        str(window.given_up if window else 0),
    )  # fmt: skip


def _both(waited: Waited) -> tuple[float, float]:
    return waited.first_s, waited.whole_s


async def _jobs(engine: Engine, charts: Charts, setting: Setting) -> list[Job]:
    """Return the requests of some ordinary charts."""
    info, templates, loop = await engine.describe(), load("history"), asyncio.get_running_loop()

    def count(chat: tuple[Message, ...]) -> int:
        return asyncio.run_coroutine_threadsafe(engine.count_tokens(chat), loop).result()

    def job(data: bytes) -> Job:
        record = assemble_record(resources_of(decode(data)))
        context = choose_facts(
            record, required_facts(record), templates, info.profile, setting.budget_tokens, count,
            stay=find_stay(record, None, ended=True),
        )  # fmt: skip
        requests = requests_for(context, templates, info.profile)[: setting.most_requests]
        return Job(record, context, templates, requests)

    middle = len(charts.all) // 2
    some = charts.all[max(0, middle - CHARTS // 2) :][:CHARTS]
    return [await asyncio.to_thread(job, data) for data in some]
