"""Assembly and choosing of the largest chart, beside parsing its bytes and no more."""

from __future__ import annotations

import orjson
from fhir.resources.R4B.bundle import Bundle

from connectors.fhir.codec import decode
from fixtures.engines import demonstration_model
from service.context.choose import choose_facts
from service.context.stay import find_stay
from service.context.templates import load
from service.engine.profiles import profile_for
from service.engine.prompt import Message
from service.engine.tokens import FolderTokenizer
from service.engine.weights import DEMONSTRATION_MODEL
from service.record.assemble import assemble_record, resources_of
from service.record.required import required_facts
from tests.bench.charts import Chart
from tests.bench.rounds import ROUNDS, compare
from tests.bench.table import Row, Table, at_least, at_most, seconds, times

BUDGET_TOKENS = 8_000
ASSEMBLY, BOTH = "Epicrisis: assemble", "Epicrisis: decode and assemble"
ORJSON, FHIR, DECODE = "orjson: parse", "fhir.resources R4B: parse", "Epicrisis: decode (msgspec)"


def bench_assembly(chart: Chart) -> Table:
    """Decoded resources → record, beside orjson and fhir.resources on the same bytes."""
    data = chart.data
    resources = list(resources_of(decode(data)))
    taken = compare(
        {
            ASSEMBLY: lambda: assemble_record(resources),
            ORJSON: lambda: orjson.loads(data),
            DECODE: lambda: decode(data),
            BOTH: lambda: assemble_record(resources_of(decode(data))),
            FHIR: lambda: Bundle.model_validate_json(data),
        }
    )
    to_orjson, to_fhir = taken[ASSEMBLY] / taken[ORJSON], taken[FHIR] / taken[ASSEMBLY]
    both = (
        f"{times(taken[BOTH] / taken[ORJSON])} orjson, fhir.resources {times(taken[FHIR] / taken[BOTH])} it"
    )
    rows: list[Row] = [
        (chart.work, ASSEMBLY, seconds(taken[ASSEMBLY]), "", ""),
        (chart.work, ORJSON, seconds(taken[ORJSON]), times(to_orjson), at_most(to_orjson, 5, "5 ×")),
        (chart.work, FHIR, seconds(taken[FHIR]), times(1 / to_fhir), at_least(to_fhir, 5, "5 × faster")),
        (chart.work, DECODE, seconds(taken[DECODE]), times(taken[ASSEMBLY] / taken[DECODE]), ""),
        (chart.work, BOTH, seconds(taken[BOTH]), "", both),
    ]
    return Table(
        "Assembly", ("work", "who", "seconds", "assembly / it", "target"), rows,
        [f"Medians of {ROUNDS} rounds, taking turns."],
    )  # fmt: skip


def bench_context(chart: Chart) -> Table:
    """Record → context within the budget, counted by the demonstration model's tokenizer, beside assembly."""
    profile = profile_for(DEMONSTRATION_MODEL)
    tokenizer, templates = FolderTokenizer(demonstration_model(), profile), load("history")
    resources = list(resources_of(chart.bundle))
    record = assemble_record(resources)
    stay = find_stay(record, None, ended=True)
    counted: list[int] = []

    def count(chat: tuple[Message, ...]) -> int:
        counted.append(tokenizer.count(chat))
        return counted[-1]

    def choose() -> int:
        counted.clear()
        required = required_facts(record)
        context = choose_facts(
            record, required, templates, profile, BUDGET_TOKENS,
            count, stay=stay,
        )  # fmt: skip
        return context.tokens

    ours, base = f"Epicrisis: context at {BUDGET_TOKENS:,} tokens", "Epicrisis: assemble"
    taken = compare({ours: choose, base: lambda: assemble_record(resources)})
    ratio = taken[ours] / taken[base]
    said = f"{len(counted)} prompts rendered and counted"
    rows: list[Row] = [
        (chart.work, ours, seconds(taken[ours]), "", said),
        (chart.work, base, seconds(taken[base]), times(ratio), at_most(ratio, 2, "2 ×")),
    ]
    remark = f"Medians of {ROUNDS} rounds, taking turns; the tokenizer is loaded before."
    return Table("Context", ("work", "who", "seconds", "context / it", "target"), rows, [remark])
