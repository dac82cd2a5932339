"""Verifying 40 claims about the largest chart, beside what the same run's engine takes to write them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from fixtures.engines import local_engine
from service.context.choose import choose_facts
from service.context.render import Request, requests_for
from service.context.stay import find_stay
from service.context.templates import load
from service.engine.local import LocalEngine
from service.engine.prompt import Completion, Message
from service.grounding.claims import CitedClaim, judge_claims
from service.grounding.parse import parse_claims
from service.record.assemble import assemble_record, resources_of
from service.record.facts import PatientRecord
from service.record.required import required_facts
from service.summarize import default_budget
from service.verify import verify_completions
from tests.bench.charts import Chart
from tests.bench.claims import DATA
from tests.bench.rounds import ROUNDS, compare
from tests.bench.table import Row, Table, at_most, percent, seconds
from tests.claims.generate import Case, make_suite

CLAIMS = 40
SHARE = 0.02
IN_FLIGHT = 32
OF_THE_WHOLE = ("latest", "first", "extreme", "no_other")
"""Kinds of claims that are judged against all facts of the record, not against what they cite alone."""
COLUMNS = ("work", "what", "seconds", "of generation", "target")


async def bench_verification(chart: Chart, folder: Path) -> Table:
    """Have the small model write 40 claims about one chart, and verify them; then claims of the hard kind."""
    record = assemble_record(resources_of(chart.bundle))
    table = Table(f"Verification of {CLAIMS} claims", COLUMNS)
    with local_engine(folder) as engine:
        table.rows += await _beside_generation(engine, record, chart.work)
    table.remarks.append(
        f"Verification is the median of {ROUNDS} rounds, each with nothing kept from the one before. "
        "Generation is the real engine's, warm, on this machine; a faster engine makes the share larger."
    )
    cases = claims_on_the_whole(chart)
    if cases:
        taken = compare({"": lambda: _judge(record, cases)})[""]
        what = f"judge {len(cases)} claims on the latest, first, highest and the like, corrections left out"
        table.rows.append((chart.work, what, seconds(taken), "", ""))
    return table


async def _beside_generation(engine: LocalEngine, record: PatientRecord, work: str) -> list[Row]:
    info = await engine.describe()
    templates, loop = load("history"), asyncio.get_running_loop()

    def count(chat: tuple[Message, ...]) -> int:
        return asyncio.run_coroutine_threadsafe(engine.count_tokens(chat), loop).result()

    context = await asyncio.to_thread(
        choose_facts, record, required_facts(record), templates, info.profile, default_budget(info), count,
        stay=find_stay(record, None, ended=True),
    )  # fmt: skip
    requests = requests_for(context, templates, info.profile)
    await engine.generate(requests[-1].prompt)  # starts the server
    began = time.perf_counter()
    completions = await _answers(engine, requests[:CLAIMS])
    generated = time.perf_counter() - began
    asked = requests[: len(completions)]
    claims = sum(
        len(parse_claims(completion.text, request.section))
        for request, completion in zip(asked, completions, strict=True)
    )

    def verify() -> object:
        return verify_completions("history", record, context, templates, asked, completions)

    verified = compare({"": verify})[""]
    share = verified / generated
    tokens = sum(completion.usage.completion_tokens for completion in completions)
    return [
        (work, f"generate {claims} claims, {tokens:,} tokens written", seconds(generated), "", ""),
        (work, f"verify them and complete the summary: {1000 * verified:.0f} ms", seconds(verified),
         percent(share), at_most(share, SHARE, percent(SHARE))),
    ]  # fmt: skip


async def _answers(engine: LocalEngine, requests: Sequence[Request]) -> list[Completion]:
    """Ask as a run asks: many at once."""
    seats = asyncio.Semaphore(IN_FLIGHT)

    async def ask(request: Request) -> Completion:
        async with seats:
            return await engine.generate(request.prompt)

    return await asyncio.gather(*map(ask, requests))


def claims_on_the_whole(chart: Chart) -> list[Case]:
    """Return 40 true claims about a chart that only its whole record bears out; none without shared data."""
    if not chart.shared:
        return []
    here = {f"{one.get('resourceType')}/{one.get('id')}" for one in resources_of(chart.bundle)}
    cases = (case for case in make_suite(DATA).cases if not case.planted and case.kind in OF_THE_WHOLE)
    return [case for case in cases if here.issuperset(case.cites)][:CLAIMS]


def _judge(record: PatientRecord, cases: Sequence[Case]) -> None:
    judged = list(judge_claims(record, [CitedClaim(case.text, case.cites) for case in cases]))
    assert len(judged) == len(cases)
