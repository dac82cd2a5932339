"""What of the required facts is in the published summary, who wrote it, and what no model would have told."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any

from connectors.fhir.codec import decode
from fixtures.engines import local_engine
from service.engine.prompt import Engine
from service.engine.scripted import ScriptedEngine
from service.grounding.summary import Origin
from service.record.assemble import resources_of
from service.record.facts import Fact, FactId
from tests.bench.table import Row, Table, at_least, percent
from tests.contract.context.published import Published, publish, tells, told_in

COLUMNS = (
    "chart", "engine", "required facts", "in the summary", "told by the model", "added by code", "characters",
    "no model, same length: required", "further facts, published", "further facts, no model",
    "further facts, no model, required first", "seconds", "target",
)  # fmt: skip
REAL, SCRIPTED = "the small model", "scripted"


@dataclass(frozen=True)
class Counts:
    """Facts and characters of one or more summaries, and the seconds that they took."""

    required: int
    published: int
    by_model: int
    characters: int
    cut_required: int
    further: int
    cut_further: int
    first_further: int
    seconds: float

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Counts)))


async def bench_omission(demo: Sequence[bytes], shared: Sequence[bytes], folder: Path) -> Table:
    """Summarise the demonstration's charts with the small model where it runs, and all others scripted."""
    table = Table("Omission: required facts in the published summary", COLUMNS)
    real = importlib.util.find_spec("vllm") is not None
    with ExitStack() as opened:
        engine: Engine = opened.enter_context(local_engine(folder)) if real else ScriptedEngine()
        name, each = REAL if real else SCRIPTED, [await _counts(data, engine) for data in demo]
    table.rows += [_row(f"demonstration {number}", name, one) for number, one in enumerate(each, 1)]
    table.rows.append(_row(f"demonstration, all {len(demo)}", name, _sum(each)))
    if shared:
        others = [await _counts(data, ScriptedEngine()) for data in shared]
        table.rows.append(_row(f"shared, all {len(shared)}", SCRIPTED, _sum(others)))
    table.remarks += [
        "`told by the model`: a published sentence of the model cites the fact and holds every number and "
        "longer word of its line. The scripted engine writes no sentence of its own: all is added by code.",
        "`no model, same length`: the facts' own lines in the record's order, cut where the published "
        "summary ends. `required first`: the same, all required facts before any other, so that none is "
        "missing: what it tells beyond them is what the model has to beat.",
    ]
    return table


async def _counts(data: bytes, engine: Engine) -> Counts:
    return count_facts(await publish(list[Any](resources_of(decode(data))), engine))


def count_facts(made: Published) -> Counts:
    """Count what a published summary tells, beside lines of the record cut at its length."""
    required = made.required
    ids = {fact.id for fact in required}
    characters = sum(len(claim.text) + 1 for claim in made.summary.published)
    cited = {cite for claim in made.summary.published for cite in claim.citations}
    cut = cut_at(made.record.facts, characters)
    first = cut_at([*required, *(fact for fact in made.record.facts if fact.id not in ids)], characters)
    return Counts(
        required=len(required),
        published=sum(told_in(made.summary, fact) for fact in required),
        by_model=sum(_by_model(made, fact) for fact in required),
        characters=characters,
        cut_required=len(cut & ids),
        further=len(cited - ids),
        cut_further=len(cut - ids),
        first_further=len(first - ids),
        seconds=sum(made.seconds.values()),
    )


def cut_at(facts: Sequence[Fact], characters: int) -> set[FactId]:
    """Return the facts whose own lines, one after the other, fit a number of characters."""
    ends = accumulate(len(fact.text) + 1 for fact in facts)
    return {fact.id for fact, end in zip(facts, ends, strict=True) if end <= characters}


def _by_model(made: Published, fact: Fact) -> bool:
    return any(
        claim.origin is Origin.MODEL and fact.id in claim.citations and tells(claim.text, fact)
        for claim in made.summary.published
    )


def _sum(counts: Sequence[Counts]) -> Counts:
    total = counts[0]
    for one in counts[1:]:
        total += one
    return total


def _row(chart: str, engine: str, one: Counts) -> Row:
    share = one.published / one.required if one.required else 1.0
    shown = (
        one.required, one.published, one.by_model, one.published - one.by_model, one.characters,
        one.cut_required, one.further, one.cut_further, one.first_further,
    )  # fmt: skip
    figures = (f"{number:,}" for number in shown)
    return chart, engine, *figures, f"{one.seconds:.1f}", at_least(share, 1.0, percent(1.0))
