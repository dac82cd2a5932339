"""An evaluation: shadow runs chart by chart, gone on with, compared on the same charts, and judged."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fixtures.answers import change_numbers, copy_lines
from fixtures.facts import NOW
from service.engine.prompt import Prompt
from service.engine.scripted import ScriptedEngine
from service.errors import EngineError, SettingsError
from service.ports import Action
from service.ports.quality import Evaluation, EvaluationId, Identity
from service.quality.evaluate import ACTOR, Arm, read_cohort, run_arm
from service.quality.gate import check_arm, identify, stand_at_gate
from service.quality.report import build_report
from service.quality.thresholds import GateLimits
from tests.conftest import CANARY
from tests.unit.quality.in_memory import InMemoryQuality
from tests.unit.test_summarize import Bench

ID = EvaluationId("e1")
COHORT = ("Patient/1", "Patient/2", "Patient/3")
IDENTITY = Identity("copying", "d1", "history@1", "t1", "6", "scripted/1")
OTHER = replace(IDENTITY, model="changing", model_digest="d2")


async def arm(store: InMemoryQuality, bench: Bench, number: int = 0) -> tuple[Arm, list[int]]:
    told: list[int] = []
    made = await run_arm(
        store, bench.summarizer, ID, number, COHORT, "history", lambda done, stage: told.append(done)
    )
    return made, told


async def test_every_chart_has_a_shadow_run_that_no_store_of_summaries_has_and_nothing_is_filed() -> None:
    store, bench = InMemoryQuality(), Bench()
    made, told = await arm(store, bench)
    assert sorted(made.shadows) == sorted(COHORT)
    assert (bench.store.runs, bench.ehr.written) == ([], [])
    assert (told[0], told[-1]) == (0, 3)
    assert {entry.action for entry in bench.audit.entries} == {Action.READ, Action.GENERATE}
    assert {entry.actor for entry in bench.audit.entries} == {ACTOR}
    counts = made.shadows["Patient/1"].counts
    assert counts.claims >= 5
    assert counts.told > 0
    assert (counts.missing, counts.fabricated) == (0, 0)
    assert counts.seconds > 0


async def test_an_evaluation_goes_on_with_the_charts_that_have_no_run_yet() -> None:
    store, asked = InMemoryQuality(), Counter[bool]()
    bench = Bench(engine=ScriptedEngine(copy_lines, failures=[EngineError("no answer")]))
    made, _ = await arm(store, bench)
    assert (sorted(made.shadows), made.failed) == (["Patient/2", "Patient/3"], Counter(engine=1))

    def answer(prompt: Prompt) -> str:
        asked[True] += 1
        return copy_lines(prompt)

    made, _ = await arm(store, Bench(engine=ScriptedEngine(answer)))
    assert (sorted(made.shadows), made.failed) == (sorted(COHORT), Counter())
    assert len(store.kept) == 3  # the two that were there were not made again


async def test_what_was_made_before_it_was_interrupted_is_kept() -> None:
    store = InMemoryQuality()

    def interrupt(done: int, stage: str) -> None:
        task = asyncio.current_task()
        if done == 2 and task is not None:
            task.cancel()

    cut_off = asyncio.create_task(run_arm(store, Bench().summarizer, ID, 0, COHORT, "history", interrupt))
    with pytest.raises(asyncio.CancelledError):
        await cut_off
    assert [one.run.inputs.patient for one in store.kept] == ["Patient/1", "Patient/2"]
    made, _ = await arm(store, Bench())
    assert (sorted(made.shadows), len(store.kept)) == (sorted(COHORT), 3)


async def test_an_engine_that_is_gone_ends_the_evaluation() -> None:
    failures = [EngineError("gone") for _ in range(9)]
    with pytest.raises(EngineError):
        await arm(InMemoryQuality(), Bench(engine=ScriptedEngine(copy_lines, failures=failures)))


async def both() -> dict[str, Any]:
    store = InMemoryQuality()
    first, _ = await arm(store, Bench())
    second, _ = await arm(store, Bench(engine=ScriptedEngine(change_numbers)), 1)
    begun = Evaluation(ID, NOW, IDENTITY, OTHER, "cohort", 3)
    return build_report(begun, "history", [first, second], GateLimits(), NOW + timedelta(hours=1))


async def test_a_model_that_copies_is_told_from_one_that_changes_numbers() -> None:
    report = await both()
    good, bad = report["arms"]
    assert good["measures"]["support"]["value"] > bad["measures"]["support"]["value"]
    assert [one["measures"]["coverage"]["value"] for one in (good, bad)] == [
        1.0,
        1.0,
    ]  # by code where not told
    assert bad["refused"][0]["count"] > 0
    assert all(one["words"].endswith(".") for one in bad["refused"])
    assert bad["gate"]["is_passed"] is False

    paired = report["paired"]
    assert (paired["charts"], paired["changed_meanwhile"]) == (3, 0)
    assert paired["differences"]["support"]["low"] > 0
    assert paired["differences"]["coverage"]["value"] == 0
    facts = paired["facts"]
    assert facts["told_by_first_alone"] > facts["told_by_second_alone"] == 0
    assert facts["p"] < 0.05
    assert CANARY.casefold() not in str(report).casefold()
    assert "Patient/" not in str(report)


async def test_charts_that_changed_in_between_are_not_compared() -> None:
    store, changed = InMemoryQuality(), Bench()
    first, _ = await arm(store, Bench())
    changed.ehr.more = [
        {
            "resourceType": "Condition",
            "id": "new",
            "subject": {"reference": "Patient/1"},
            "code": {"text": "Gout"},
        }
    ]
    second, _ = await arm(store, changed, 1)
    begun = Evaluation(ID, NOW, IDENTITY, OTHER, "cohort", 3)
    paired = build_report(begun, "history", [first, second], GateLimits(), NOW)["paired"]
    assert (paired["charts"], paired["changed_meanwhile"]) == (2, 1)  # what changed is in the first chart
    assert paired["differences"]["support"]["n"] == 2


def arm_told(**more: Any) -> dict[str, Any]:
    measures = {
        "support": {"value": 0.99, "low": 0.96, "high": 1.0},
        "coverage": {"value": 1.0, "low": 0.9, "high": 1.0},
        "told": {"value": 0.5, "low": 0.4, "high": 0.6},
        "contradicted": {"value": 0.0, "low": 0.0, "high": 0.01},
    }  # fmt: skip
    return {"charts": 3, "failed": {}, "fabricated": 0, "measures": measures} | more


def failed(told: dict[str, Any], limits: GateLimits | None = None) -> list[str]:
    return [check.name for check in check_arm(told, limits or GateLimits()) if not check.is_passed]


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"charts": 2}, "charts"),
        ({"failed": {"engine": 1}}, "failed charts"),
        ({"fabricated": 1}, "fabricated core facts"),
        ({"fabricated": None}, "fabricated core facts"),
    ],
)
def test_what_does_not_reach_a_limit_is_not_passed(more: dict[str, Any], name: str) -> None:
    assert failed(arm_told()) == []
    assert failed(arm_told(**more)) == [name]


@pytest.mark.parametrize(
    ("key", "bound", "value", "name"),
    [
        ("support", "low", 0.949, "support, lower bound"),
        ("coverage", "value", 0.99, "coverage"),
        ("contradicted", "high", 0.021, "contradicted, upper bound"),
    ],
)
def test_an_interval_that_reaches_over_a_limit_is_not_passed(
    key: str, bound: str, value: float, name: str
) -> None:
    told = arm_told()
    told["measures"][key][bound] = value
    assert failed(told) == [name]


def test_what_an_evaluation_does_not_say_is_not_passed_unless_nothing_is_asked() -> None:
    told = arm_told(measures={})
    assert failed(told) == ["support, lower bound", "coverage", "contradicted, upper bound"]
    assert failed(told, GateLimits(support_low=0, coverage=0, contradicted_high=1)) == []
    assert "charts" in failed({})


def ended(identity: Identity = IDENTITY, days: int = 0, **more: Any) -> Evaluation:
    return Evaluation(
        EvaluationId(f"e{days}"), NOW, identity, None, "c", 3, NOW - timedelta(days=days),
        {"arms": [arm_told(**more)]},
    )  # fmt: skip


@pytest.mark.parametrize("change", ["model_digest", "template_digest", "rules_version", "profile"])
def test_an_evaluation_of_anything_else_does_not_open_the_gate(change: str) -> None:
    stands = stand_at_gate(IDENTITY, [ended()], GateLimits(), NOW)
    assert stands.is_released
    other = stand_at_gate(replace(IDENTITY, **{change: "other"}), [ended()], GateLimits(), NOW)
    assert (other.is_released, other.why) == (False, "it was never evaluated")


def test_the_newest_evaluation_counts_and_one_that_is_too_old_does_not() -> None:
    worse = ended(charts=1)
    assert not stand_at_gate(IDENTITY, [ended(days=3), worse], GateLimits(), NOW).is_released
    assert stand_at_gate(IDENTITY, [ended(days=0), ended(days=3, charts=1)], GateLimits(), NOW).is_released
    old = stand_at_gate(IDENTITY, [ended(days=366)], GateLimits(), NOW)
    assert (old.is_released, "age in days is 366" in old.why) == (False, True)


def test_what_was_compared_with_is_released_by_its_own_arm() -> None:
    report = {"arms": [arm_told(charts=1), arm_told()]}
    compared = replace(ended(), against=OTHER, report=report)
    assert not stand_at_gate(IDENTITY, [compared], GateLimits(), NOW).is_released
    assert stand_at_gate(OTHER, [compared], GateLimits(), NOW).is_released


async def test_a_tokenizer_and_a_window_make_no_other_model_and_a_temperature_does() -> None:
    info = await ScriptedEngine().describe()
    same = replace(info, profile=replace(info.profile, tokenizer="/a", context_tokens=5))
    hotter = replace(info, profile=replace(info.profile, temperature=0.7))
    one, two, three = (identify(each, "history@1", "t1") for each in (info, same, hotter))
    assert one.is_same(two)
    assert not one.is_same(three)


def test_a_cohort_is_read_line_by_line() -> None:
    assert read_cohort(["Patient/1", "2  # a remark", "", "# none", "1"]) == ("Patient/1", "Patient/2")
    for lines in ([], ["# nobody"], ["Patient/1", "Encounter/2"], ["one two"]):
        with pytest.raises(SettingsError):
            read_cohort(lines)
