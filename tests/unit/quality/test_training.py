"""Attested edits as rows of a training set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fixtures.answers import copy_lines
from fixtures.facts import NOW
from service.engine.prompt import Completion, Usage
from service.engine.scripted import ScriptedEngine
from service.grounding.summary import Origin
from service.ports import StoredRun
from service.ports.attesting import Edit
from service.quality.training import rows_of
from tests.unit.test_summarize import Bench


async def a_run() -> StoredRun:
    bench = Bench(engine=ScriptedEngine(copy_lines))
    await bench.summarizer.summarize("1", dry_run=True)
    return bench.store.runs[0]


def ordinals(run: StoredRun, origin: Origin = Origin.MODEL) -> list[int]:
    return [number for number, claim in enumerate(run.summary.published) if claim.origin is origin]


def edit(run: StoredRun, ordinal: int, after: str = "Gout, in the clinician's words.") -> Edit:
    before = run.summary.published[ordinal].text
    return Edit(run.run_id, ordinal, before, after, 9, "Practitioner/7", NOW)


def answers(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [claim["text"] for row in rows for claim in json.loads(row["messages"][-1]["content"])["claims"]]


async def test_a_row_is_what_was_asked_and_the_answer_as_it_was_attested() -> None:
    run = await a_run()
    ordinal = ordinals(run)[0]
    rows = list(rows_of(run, [edit(run, ordinal)], frozenset()))
    assert len(rows) == 1
    messages = rows[0]["messages"]
    assert messages[-1]["role"] == "assistant"
    asked = [(one["role"], one["content"]) for one in messages[:-1]]
    assert asked == [(one.role, one.content) for one in run.prompts[0].messages]
    texts = answers(rows)
    assert "Gout, in the clinician's words." in texts
    assert run.summary.published[ordinal].text not in texts
    claims = json.loads(messages[-1]["content"])["claims"]
    assert all(claim["cites"] for claim in claims)


async def test_what_was_refused_or_rejected_is_no_part_of_the_answer() -> None:
    run = await a_run()
    first, second, *_ = ordinals(run)
    rejected = run.summary.published[second].text
    lie = {"cites": ["P1"], "text": "Something that the rules refused."}
    answer = json.loads(run.completions[0].text)
    told = Completion(json.dumps({"claims": [lie, *answer["claims"]]}), "stop", Usage(1, 1), 0.1)
    run = replace(run, completions=(told, *run.completions[1:]))
    texts = answers(list(rows_of(run, [edit(run, first)], frozenset({second}))))
    assert lie["text"] not in texts
    assert rejected not in texts
    assert list(rows_of(run, [edit(run, first)], frozenset({first}))) == []  # rejected after all


async def test_what_nobody_edited_and_what_code_added_is_no_row() -> None:
    run = await a_run()
    assert list(rows_of(run, [], frozenset())) == []
    added = ordinals(run, Origin.RECORD)
    assert all(list(rows_of(run, [edit(run, one)], frozenset())) == [] for one in added)


async def test_an_answer_that_was_cut_off_or_is_no_json_is_passed_over() -> None:
    run = await a_run()
    edits = [edit(run, one) for one in ordinals(run)]
    for text in (run.completions[0].text[:-9], "no", "[]", '{"claims": 3}', ""):
        broken = replace(run, completions=(replace(run.completions[0], text=text), *run.completions[1:]))
        assert list(rows_of(broken, edits, frozenset())) == []
    fenced = replace(run.completions[0], text=f"Thinking {{.\n```json\n{run.completions[0].text}\n```")
    assert len(list(rows_of(replace(run, completions=(fenced,)), edits, frozenset()))) == 1
