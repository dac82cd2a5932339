"""What the engine serves from its prefix cache: for further tasks, and after one new Observation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fixtures.engines import demonstration_model
from service.context.choose import choose_facts
from service.context.render import whole_chat
from service.context.stay import find_stay
from service.context.templates import load
from service.engine.local import LocalEngine
from service.engine.prompt import Message, Profile, Prompt, Sampling, Usage
from service.engine.tokens import FolderTokenizer
from service.record.assemble import assemble_record, resources_of
from service.record.facts import PatientRecord
from service.record.required import required_facts
from service.settings import load_settings
from tests.bench.charts import Chart
from tests.bench.compaction import token_counter
from tests.bench.table import Row, Table, at_least, percent

ANSWER_TOKENS = 8
PROFILE = Profile("free, on the demonstration's weights", "free", 8192, ANSWER_TOKENS, 0.0)
BUDGET_TOKENS = 8_000
TASKS = ("history", "admission", "handover", "problems", "history")
AFTER_CHANGE, FURTHER_TASK = 0.80, 0.90
LOADED_AT = "2026-01-01T00:00:00Z"
COLUMNS = ("work", "request", "prompt tokens", "from the cache", "share", "seconds", "target")


@dataclass(frozen=True)
class Asking:
    """The engine and the tokenizer that counts for it."""

    engine: LocalEngine
    tokenizer: FolderTokenizer

    def chat(self, record: PatientRecord, task: str) -> tuple[Message, ...]:
        """Return the whole prompt of a task, within the budget."""
        templates = load(task)
        at_hand = find_stay(record, None)
        context = choose_facts(
            record, required_facts(record, encounter=at_hand.reference if at_hand else None), templates,
            PROFILE, BUDGET_TOKENS, self.tokenizer.count, stay=find_stay(record, None, ended=True),
        )  # fmt: skip
        return whole_chat(context, templates, PROFILE)

    async def ask(self, chat: tuple[Message, ...]) -> tuple[Usage, float]:
        """Have a few tokens answered; the grammar is no part of the prompt and is left out."""
        completion = await self.engine.generate(Prompt(chat, Sampling(ANSWER_TOKENS)))
        return completion.usage, completion.seconds


async def bench_cache(chart: Chart, folder: Path) -> Table:
    """Ask the real engine, with the small model, about one chart: further tasks, then a changed chart."""
    model = demonstration_model()
    table = Table("Prefix cache", COLUMNS)
    async with LocalEngine(
        model,
        state_dir=folder,
        profile=PROFILE,
        base_environment=load_settings(home=folder, model=None).engine_environment(),
    ) as engine:
        asking = Asking(engine, FolderTokenizer(model, PROFILE))
        await asking.ask((Message("user", "Say yes."),))
        table.rows += await _of_chart(asking, chart)
    table.remarks += [
        f"Real vLLM, one prompt of at most {BUDGET_TOKENS:,} tokens a task, {ANSWER_TOKENS} tokens answered; "
        "`from the cache` is the engine's own `cached_tokens`, of all that it has read before.",
        "`same beginning` is counted by the tokenizer, up to the first character that differs.",
    ]
    return table


async def _of_chart(asking: Asking, chart: Chart) -> list[Row]:
    resources = list(resources_of(chart.bundle))
    rows: list[Row] = []
    record = assemble_record(resources)
    for number, task in enumerate(TASKS, 1):
        usage, taken = await asking.ask(asking.chat(record, task))
        name = f"{task}, again" if task in TASKS[: number - 1] else task
        rows.append(
            _row(f"{chart.name}, task {number}", name, usage, taken, FURTHER_TASK if number > 1 else None)
        )
    now = datetime.now(UTC)
    first, second = _both(asking, resources, like_the_newest(resources, now))
    await asking.ask(first)
    usage, taken = await asking.ask(second)
    rows.append(_row(chart.name, "history, one new Observation today", usage, taken, AFTER_CHANGE))
    return rows + _by_text(asking, chart.name, resources, record, now)


def _by_text(
    asking: Asking, work: str, resources: list[Any], record: PatientRecord, now: datetime
) -> list[Row]:
    """Return what a change leaves of the prompt's beginning; asking the engine each time takes minutes."""
    newest = record.as_of.latest if record.as_of else now
    next_day = newest + timedelta(days=1)
    stamped = [_stamped(resource, LOADED_AT) for resource in resources]
    at = now.isoformat(timespec="seconds")
    rows: list[Row] = []
    for name, before, new in (
        ("one new Observation today", resources, like_the_newest(resources, now)),
        ("one a day after the newest fact", resources, like_the_newest(resources, next_day)),
        ("one today, the server says when all were stored", stamped,
         _stamped(like_the_newest(resources, now), at)),
    ):  # fmt: skip
        first, second = _both(asking, before, new)
        texts = ["\n".join(message.content for message in chat) for chat in (first, second)]
        pairs = enumerate(zip(*texts, strict=False))
        same = next((place for place, (one, other) in pairs if one != other), len(texts[1]))
        size, count = asking.tokenizer.count(second), token_counter(asking.tokenizer)
        kept = count(texts[1][:same])
        share = percent(kept / size)
        rows.append(
            (work, f"history, {name}: same beginning", f"{size:,}", f"{kept:,}", share, "", "by text")
        )
    return rows


def _both(asking: Asking, before: list[Any], new: dict[str, Any]) -> list[tuple[Message, ...]]:
    """Return the history's prompt before and after a resource came."""
    return [asking.chat(assemble_record(found), "history") for found in (before, [*before, new])]


def like_the_newest(resources: Sequence[Any], when: datetime) -> dict[str, Any]:
    """Return a new result of the analyte that the chart's newest laboratory result is of."""
    results = [
        resource
        for resource in resources
        if resource.get("resourceType") == "Observation"
        and "valueQuantity" in resource
        and any(
            c.get("code") == "laboratory" for k in resource.get("category", ()) for c in k.get("coding", ())
        )
    ]
    newest = max(results, key=lambda resource: (resource.get("effectiveDateTime", ""), resource["id"]))
    at = when.isoformat(timespec="seconds")
    new = {key: value for key, value in newest.items() if key != "encounter"}
    return {**new, "id": "bench-new", "effectiveDateTime": at, "issued": at}


def _stamped(resource: dict[str, Any], at: str) -> dict[str, Any]:
    return {**resource, "meta": {**resource.get("meta", {}), "lastUpdated": at, "versionId": "1"}}


def _row(work: str, request: str, usage: Usage, taken: float, target: float | None) -> Row:
    share = usage.cached_tokens / usage.prompt_tokens
    verdict = "" if target is None else at_least(share, target, percent(target))
    return (
        work, request, f"{usage.prompt_tokens:,}", f"{usage.cached_tokens:,}", percent(share),
        f"{taken:.1f}", verdict,
    )  # fmt: skip
