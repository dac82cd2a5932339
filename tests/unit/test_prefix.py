"""What is read ahead is what every task on a chart begins with, to its last character and no further."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fixtures.answers import copy_lines
from fixtures.facts import A1C, GOUT, LISINOPRIL, SODIUM, context
from service.context.render import requests_for, whole_chat
from service.context.templates import open_library
from service.engine.prompt import Message
from service.engine.scripted import SCRIPTED_PROFILE, ScriptedEngine
from service.prefix import beginnings
from tests.unit.test_summarize import Bench

LIBRARY = open_library()
FACTS = [GOUT, A1C, SODIUM, LISINOPRIL]
GUIDED = replace(SCRIPTED_PROFILE, mode="guided", facts_per_request=1)


def read_ahead(**more: Any) -> tuple[str, str]:
    """What is read to the end of the chart, and to the end of what stands behind it."""
    shown = replace(context(FACTS), **more)
    chart, whole = beginnings(shown, LIBRARY.load("history"), SCRIPTED_PROFILE)
    assert chart.sampling.max_tokens == whole.sampling.max_tokens == 1
    return text_of(chart.messages), text_of(whole.messages)


def text_of(chat: Sequence[Message]) -> str:
    return "\n".join(message.content for message in chat)


def asked_of(kind: str, **more: Any) -> str:
    return text_of(whole_chat(replace(context(FACTS), **more), LIBRARY.load(kind), SCRIPTED_PROFILE))


@pytest.mark.parametrize("kind", ["history", "handover", "problems", "admission"])
def test_every_task_begins_with_what_was_read_ahead(kind: str) -> None:
    chart, whole = read_ahead()
    asked = asked_of(kind)
    assert asked.startswith(whole)
    assert whole.startswith(chart)
    assert asked.removeprefix(chart).startswith("\n\nNOT SHOWN\n")
    assert asked.removeprefix(whole).lstrip().startswith("TASK")
    assert all(fact.name in chart for fact in FACTS)


def test_what_one_task_wants_beside_is_no_part_of_the_chart() -> None:
    focus = context(FACTS).blocks[:1]
    chart, whole = read_ahead(focus=focus)
    assert chart == read_ahead()[0]
    assert asked_of("history", focus=focus).startswith(whole)
    assert asked_of("handover").startswith(chart)
    assert not asked_of("handover").startswith(whole)


def test_a_guided_model_is_woken_by_its_first_request() -> None:
    templates = LIBRARY.load("history")
    (read,) = beginnings(context(FACTS), templates, GUIDED)
    asked = requests_for(context(FACTS), templates, GUIDED)[0].prompt
    assert (read.messages, read.schema) == (asked.messages, asked.schema)
    assert read.sampling == replace(asked.sampling, max_tokens=1)
    assert read.priority > asked.priority
    assert beginnings(context([]), templates, GUIDED) == ()


async def test_a_chart_that_is_told_by_digests_is_not_read_ahead() -> None:
    engine = ScriptedEngine(copy_lines, profile=replace(SCRIPTED_PROFILE, digest_windows=4))
    bench = Bench(engine=engine, budget_tokens=490)
    ready = await bench.summarizer.prepare("1")
    run = await bench.summarizer.draft(ready)
    assert run.summary.left_out or len(engine.prompts) > 1
    engine.prompts.clear()
    assert not await bench.summarizer.warm(ready)
    assert engine.prompts == []


async def test_reading_ahead_stores_nothing_and_asks_for_one_token() -> None:
    bench = Bench()
    assert await bench.summarizer.warm(await bench.summarizer.prepare("1"))
    assert [prompt.sampling.max_tokens for prompt in bench.engine.prompts] == [1, 1]
    assert (bench.store.runs, bench.ehr.written) == ([], [])
