"""What holds for every chart, every template set and every budget."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.context.choose import BudgetTooSmall
from service.context.chosen import Context
from service.context.layout import known_since, label_facts
from service.context.manifest import NO_EVIDENCE
from service.context.render import requests_for, whole_chat
from service.context.stay import find_stay
from service.context.written import Form
from service.record.assemble import assemble_record
from service.record.facts import Fact, Kind, PatientRecord
from tests.unit.context.charts import (
    END,
    FREE,
    GUIDED,
    SETS,
    choose,
    count,
    flag,
    lab,
    pressure,
    problem,
    prompt_of,
    updated,
    vital,
)
from tests.unit.record.charts import named, patient, resource
from tests.unit.record.test_assemble import CHART, _paths, _put, json_values

SLOW = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = ("Sodium", "Potassium", "Urate", "sodium")
TIMES = ("", "2021-01-01T00:00:00Z", "2021-01-01T01:00:00+01:00", "2021-06-01T00:00:00Z")
DATES = ("2019", "2019-01", "2019-01-01", "2019-01-01T08:00:00Z", "2019-01-01T09:30:00+01:00", "2020-05-05")


@st.composite
def charts(draw: st.DrawFn, most: int = 18) -> list[dict[str, Any]]:
    """Resources of one chart: problems, results, vital signs, encounters, of odd days, units and statuses."""
    found: list[dict[str, Any]] = []
    for n in range(draw(st.integers(0, most))):
        ident, on = f"r{n:02}", draw(st.sampled_from(DATES))
        kind = draw(st.sampled_from(("lab", "lab", "vital", "pressure", "problem", "visit", "fetal")))
        value = draw(st.sampled_from(("4.20", "140", "0.01")))
        status = draw(st.sampled_from(("final", "final", "preliminary", "corrected", "cancelled")))
        name = draw(st.sampled_from(NAMES))
        if kind in ("lab", "fetal"):
            item = lab(ident, name, on, value, draw(st.sampled_from(("mmol/L", "mg/dL"))), status=status)
            if kind == "fetal":
                item["focus"] = [{"reference": "RelatedPerson/fetus", "display": "fetus"}]
            if draw(st.booleans()):
                item["interpretation"] = flag(draw(st.sampled_from(("N", "H", "HH"))))
        elif kind == "vital":
            item = vital(ident, value, on, status=status)
        elif kind == "pressure":
            item = pressure(ident, "120", value, on)
        elif kind == "problem":
            item = problem(ident, name, state=draw(st.sampled_from(("active", "resolved"))))
        else:
            state = draw(st.sampled_from(("finished", "in-progress")))
            item = {**resource("Encounter", status=state, period={"start": on}), "id": ident}
            item["class"] = {"code": "IMP"}
        at = draw(st.sampled_from(TIMES))
        found.append(updated(item, at) if at else item)
    return found


def assembled(resources: list[dict[str, Any]]) -> PatientRecord:
    return assemble_record([patient(), *resources], "1")


def chosen(record: PatientRecord, budget: int, name: str) -> Context:
    return choose(record, budget, name, find_stay(record))


def commonprefix(texts: list[str]) -> str:
    """The beginning that all texts share."""
    length = next((n for n, marks in enumerate(zip(*texts, strict=False)) if len(set(marks)) > 1), None)
    return min(texts, key=len)[:length]


def counted(context: Context, record: PatientRecord) -> bool:
    patients = sum(fact.kind is Kind.PATIENT for fact in record.facts)
    shown = len({fact.id for fact in context.facts.values()})
    left_out = sum(item.count for item in context.left_out if item.reason != NO_EVIDENCE)
    return shown + left_out + patients == len(record.facts)


def labels_in(context: Context, name: str) -> list[str]:
    """The labels that stand in the evidence of the prompt."""
    text = prompt_of(context, name)
    evidence = text[text.index("PATIENT:") : text.index("NOT SHOWN")]
    return re.findall(r"(?:^|: |; )\[([A-Z](?:\d+|@[\w-]+))\]", evidence, re.MULTILINE)


@SLOW
@given(charts(), st.sampled_from(sorted(SETS)), st.integers(1, 1500))
def test_a_prompt_fits_its_budget_shows_what_is_required_and_accounts_for_the_rest(
    resources: list[dict[str, Any]], name: str, budget: int
) -> None:
    record = assembled(resources)
    try:
        context = chosen(record, budget, name)
    except BudgetTooSmall as error:
        least = int(error.message.split()[-1].rstrip("."))
        assert least > budget
        context = chosen(record, least, name)
        assert context.tokens <= least
        with pytest.raises(BudgetTooSmall):
            chosen(record, least - 1, name)
        budget = least
    assert context.tokens == count(whole_chat(context, SETS[name], FREE)) <= budget
    needed = {i for kind in context.required for i in kind.facts if record.fact(i).kind is not Kind.PATIENT}
    assert needed <= {fact.id for fact in context.facts.values()}
    assert counted(context, record)
    found = labels_in(context, name)
    assert set(found) <= set(context.cites) | set(context.facts)
    assert set(context.cites) <= set(found)
    assert all(f in record.facts for facts in context.cites.values() for f in facts)
    text = prompt_of(context, name)
    assert text.index("NOT SHOWN") < text.index(END) < text.index("\nTASK:")


@SLOW
@given(charts(15), charts(10), st.integers(500, 1500))
def test_more_facts_never_drop_a_required_one(
    few: list[dict[str, Any]], more: list[dict[str, Any]], budget: int
) -> None:
    added = [{**item, "id": f"more-{item['id']}"} for item in more]
    for record in (assembled(few), assembled([*few, *added])):
        try:
            context = chosen(record, budget, "history")
        except BudgetTooSmall:
            continue
        shown = {fact.id for fact in context.facts.values()}
        needed = {fact_id for kind in context.required for fact_id in kind.facts}
        assert {i for i in needed if record.fact(i).kind is not Kind.PATIENT} <= shown


@SLOW
@given(charts(), st.randoms(use_true_random=False), st.sampled_from(sorted(SETS)), st.integers(600, 2000))
def test_the_same_record_gives_the_same_bytes_whatever_the_order_of_arrival(
    resources: list[dict[str, Any]], random: Any, name: str, budget: int
) -> None:
    shuffled = list(resources)
    random.shuffle(shuffled)
    one, other = assembled(resources), assembled(shuffled)
    assert label_facts(one) == label_facts(other)
    try:
        first = chosen(one, budget, name)
    except BudgetTooSmall:
        return
    assert prompt_of(first, name) == prompt_of(chosen(other, budget, name), name)


@SLOW
@given(charts())
def test_the_evidence_is_the_same_for_every_task(resources: list[dict[str, Any]]) -> None:
    record = assembled(resources)
    contexts = {name: chosen(record, 2500, name) for name in SETS}
    assert len({context.blocks for context in contexts.values()}) == 1
    texts = {name: prompt_of(context, name) for name, context in contexts.items()}
    evidence = {text[: text.index("NOT SHOWN")] for name, text in texts.items() if not contexts[name].focus}
    assert len(evidence) <= 1
    if not any(context.focus for context in contexts.values()):
        assert len({text[: text.index("\nTASK:")] for text in texts.values()}) == 1
    blocks = next(iter(contexts.values())).blocks
    lines = [line for block in blocks for line in block.lines if line.label]
    shared = commonprefix(list(texts.values()))
    assert all(f"[{line.label}]" in shared for line in lines)


@SLOW
@given(charts())
def test_blocks_stand_in_order_of_update_then_id_and_tables_have_one_row_a_day(
    resources: list[dict[str, Any]],
) -> None:
    context = choose(assembled(resources))
    forms = {rule.key: rule.form for rule in SETS["history"].blocks}
    for block in context.blocks:
        if forms.get(block.key) is Form.LINES:
            facts = [fact for line in block.lines for fact in line.facts]
            assert facts == sorted(facts, key=known_since)
        table: list[str] = []
        for line in block.lines:
            table = [] if line.label is None else [*table, line.label] if "@" in line.label else table
            assert len(set(table)) == len(table)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_mutated_json_raises_on_its_way_to_the_prompts(data: st.DataObject) -> None:
    mutated: list[Any] = [patient()]
    for original in data.draw(st.lists(st.sampled_from(CHART), min_size=1, max_size=4)):
        item = copy.deepcopy(dict(original))
        for path in data.draw(st.lists(st.sampled_from(list(_paths(item))), max_size=3)):
            _put(item, path, data.draw(json_values))
        mutated.append(item)
    record = assemble_record(mutated, "1")
    name = data.draw(st.sampled_from(sorted(SETS)))
    context = chosen(record, 1500, name)
    assert context.tokens == count(whole_chat(context, SETS[name], FREE)) <= 1500
    assert counted(context, record)
    for profile in (FREE, GUIDED):
        asked = {label for request in requests_for(context, SETS[name], profile) for label in request.labels}
        assert asked <= set(context.facts) | set(context.cites)


def panel(ident: str, n: int, day: int, at: str) -> dict[str, Any]:
    month, first = 1 + day % 12, 1 + n // 10
    on = f"2020-{month:02}-{first:02}"
    return updated(lab(ident, f"Analyte {n:02}", on, f"{n}.{day}0", "mmol/L"), at)


def check_up(day: str) -> dict[str, Any]:
    """An ambulatory Encounter of one day."""
    period = {"start": day, "end": day}
    visit = resource("Encounter", status="finished", period=period, type=[named("Check-up")])
    return {**visit, "id": f"v{day}", "class": {"code": "AMB"}}


def synthetic() -> list[dict[str, Any]]:
    """40 analytes in four panels, each measured on 12 days at an encounter of its own; and 20 problems."""
    problems = [
        updated(problem(f"p{n:02}", f"Problem number {n}"), "2020-01-01T00:00:00Z") for n in range(20)
    ]
    days = sorted({(f"2020-{1 + day:02}-{first:02}") for day in range(12) for first in (1, 2, 3, 4)})
    encounters = [updated(check_up(day), f"{day}T12:00:00Z") for day in days]
    return problems + encounters + [
        panel(f"a{n:02}-{day:02}", n, day, f"2020-{1 + day:02}-{1 + n // 10:02}T12:00:00Z")
        for n in range(40)
        for day in range(12)
    ]  # fmt: skip


def test_a_newer_result_changes_no_label_and_nothing_before_its_own_table() -> None:
    before = assembled(synthetic())
    newer = updated(lab("new", "Analyte 35", "2021-02-01", "9.99", "mmol/L"), "2021-02-01T12:00:00Z")
    after = assembled([*synthetic(), newer])
    labels = label_facts(after)
    assert {fact_id: labels[fact_id] for fact_id in label_facts(before)} == label_facts(before)
    first, second = (prompt_of(choose(record)) for record in (before, after))
    shared = len(commonprefix([first, second]))
    assert shared >= 0.8 * len(second), shared / len(second)
    assert "9.99" not in first
    touched = second[: second.index("9.99")]
    assert shared >= touched.rindex("\n") - 1  # nothing before its own row has changed


def test_a_newer_result_of_the_first_table_keeps_everything_before_its_row() -> None:
    newer = updated(lab("new", "Analyte 05", "2021-02-01", "9.99", "mmol/L"), "2021-02-01T12:00:00Z")
    first, second = (prompt_of(choose(assembled(items))) for items in (synthetic(), [*synthetic(), newer]))
    shared = commonprefix([first, second])
    assert "R@01-Dec-2020" in shared
    assert len(shared) >= second.index("9.99") - len("\n[R@01-Feb-2021]  |  |  |  |  |  ")


def test_a_newer_problem_appends_to_its_block() -> None:
    old = [updated(problem(f"p{n}", f"Problem {n}"), f"2020-01-{n + 1:02}T00:00:00Z") for n in range(9)]
    newer = updated(problem("new", "Newest"), "2021-01-01T00:00:00Z")
    first, second = (prompt_of(choose(assembled(items))) for items in (old, [*old, newer]))
    shared = commonprefix([first, second])
    assert "[P9] Problem 8" in shared
    assert second[len(shared) :].startswith("[P10] Newest")


def test_values_of_another_site_have_a_column_of_their_own() -> None:
    fetal = [lab(f"f{n}", on=f"2020-01-0{n}", value="9") for n in (1, 2)]
    for item in fetal:
        item["bodySite"] = named("umbilical cord")
    record = assembled([*fetal, *[lab(f"m{n}", on=f"2020-01-0{n}") for n in (1, 2)]])
    facts: list[Fact] = [fact for fact in record.facts if fact.kind is Kind.RESULT]
    assert len(facts) == 4
    assert "Sodium (mmol/L; umbilical cord)" in prompt_of(choose(record))
