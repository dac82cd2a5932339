"""Every required fact of every real chart is in its published summary, whatever the engine answers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fixtures.answers import change_numbers, copy_lines
from service.engine.prompt import Prompt
from service.engine.scripted import Answer, ScriptedEngine, answer_by_schema
from service.grounding.summary import Origin
from service.record.assemble import resources_of
from tests.conftest import synthea_bundles
from tests.contract.context.published import publish, told_in

pytestmark = pytest.mark.shared

FEW = 8
"""How many of the smallest charts stand for all, where an answer has hundreds of claims to judge."""


def only_labels(prompt: Prompt) -> str:
    """Cite every line and say next to nothing of it: a citation alone must not count as telling."""
    answer = json.loads(copy_lines(prompt))
    for claim in answer["claims"]:
        claim["text"] = " ".join(claim["text"].split()[:2])
    return json.dumps(answer)


@pytest.fixture(scope="module")
def charts(shared_data: Path) -> list[list[Any]]:
    """The resources of the 42 charts."""
    return [list(resources_of(bundle)) for _, bundle in synthea_bundles(shared_data)]


async def missing_of(chart: list[Any], answer: Answer, origins: Counter[str]) -> list[str]:
    """Publish a chart, count who wrote what, and return the required facts that nothing tells."""
    made = await publish(chart, ScriptedEngine(answer))
    origins.update(claim.origin for claim in made.summary.published)
    origins["required"] += len(made.required)
    return [fact.text for fact in made.required if not told_in(made.summary, fact)]


async def test_every_required_fact_of_every_chart_is_in_its_published_summary(
    charts: list[list[Any]],
) -> None:
    counted: Counter[str] = Counter()
    assert [lost for chart in charts for lost in await missing_of(chart, answer_by_schema, counted)] == []
    assert len(charts) == 42
    assert counted[Origin.RECORD] >= counted["required"] > 42 * 5


@pytest.mark.parametrize("answer", [copy_lines, change_numbers, only_labels])
async def test_no_answer_keeps_a_required_fact_out(charts: list[list[Any]], answer: Answer) -> None:
    counted: Counter[str] = Counter()
    assert [lost for chart in charts[:FEW] for lost in await missing_of(chart, answer, counted)] == []
    assert counted["required"] > FEW
    assert counted[Origin.RECORD] > 0
    assert counted[Origin.MODEL] > 0  # what the engine wrote could have stood in a required fact's place
