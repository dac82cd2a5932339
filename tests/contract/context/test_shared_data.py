"""Every real chart fits its budget, shows what is required, and accounts for all others, for every set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from connectors.fhir.codec import decode
from fixtures.engines import model_cache
from service.context.choose import TokenCount, choose_facts
from service.context.chosen import Context
from service.context.render import requests_for, whole_chat
from service.context.stay import find_stay
from service.context.templates import available, load
from service.engine.prompt import Message, Profile
from service.engine.tokens import FolderTokenizer
from service.engine.weights import DEMONSTRATION_MODEL
from service.record.assemble import assemble_record, resources_of
from service.record.facts import Kind, PatientRecord
from service.record.required import required_facts
from tests.conftest import synthea_bundles

pytestmark = pytest.mark.shared
SETS = {name: load(name) for name in available()}
FREE = Profile("test", "free", 8192, 1024, 0.0)
GUIDED = Profile("test", "guided", 8192, 512, 0.0, facts_per_request=1)
SMALL, LARGE = 1500, 8000


def words(chat: tuple[Message, ...]) -> int:
    """Words: a stand-in for tokens where any count does."""
    return sum(len(message.content.split()) for message in chat)


def pieces(chat: tuple[Message, ...]) -> int:
    """About what a tokenizer of a small vocabulary makes of clinical lines: digits and marks one by one."""
    return sum(4 + len(re.findall(r"[A-Za-z]{1,4}|\d|[^\w\s]", message.content)) for message in chat)


@pytest.fixture(scope="module")
def tokens() -> TokenCount:
    """The demonstration model's own tokenizer where its folder is prepared, else about as many pieces."""
    folder = model_cache() / DEMONSTRATION_MODEL
    return FolderTokenizer(folder, FREE).count if folder.is_dir() else pieces


def chosen(record: PatientRecord, name: str, budget: int, count: TokenCount) -> Context:
    """Choose, and check what holds for every chart."""
    required = required_facts(record)
    context = choose_facts(record, required, SETS[name], FREE, budget, count, stay=find_stay(record))
    assert context.tokens == count(whole_chat(context, SETS[name], FREE)) <= budget
    patients = {fact.id for fact in record.facts if fact.kind is Kind.PATIENT}
    shown = {fact.id for fact in context.facts.values()}
    assert {i for kind in required for i in kind.facts} - patients <= shown
    assert len(shown) + sum(item.count for item in context.left_out) + len(patients) == len(record.facts)
    return context


def check(record: PatientRecord, budget: int) -> None:
    for name, templates in SETS.items():
        context = chosen(record, name, budget, words)
        asked = [label for r in requests_for(context, templates, GUIDED) for label in r.labels]
        headed = [label for section in context.sections for label in section.labels]
        assert asked == headed
        assert set(asked) <= set(context.facts)
        (whole,) = requests_for(context, templates, FREE)
        assert whole.labels == tuple(context.cites)


@pytest.fixture(scope="module")
def records(shared_data: Path) -> list[PatientRecord]:
    """The 42 charts, assembled once."""
    return [assemble_record(resources_of(bundle)) for _, bundle in synthea_bundles(shared_data)]


def test_every_synthea_chart_fits_its_budget_for_every_set(records: list[PatientRecord]) -> None:
    for record in records:
        check(record, SMALL)
    assert len(records) == 42


def test_at_8000_tokens_every_required_fact_of_every_chart_is_shown(
    records: list[PatientRecord], tokens: TokenCount
) -> None:
    evidence = 0
    for record in records:
        context = chosen(record, "history", LARGE, tokens)
        assert context.index == ()  # whole, not by name
        evidence += len(context.facts)
    assert evidence > 42 * 50


def test_the_evidence_of_the_largest_chart_is_the_same_for_every_task(records: list[PatientRecord]) -> None:
    largest = max(records, key=lambda record: len(record.facts))
    contexts = [chosen(largest, name, LARGE, pieces) for name in SETS]
    assert len({context.blocks for context in contexts}) == 1


@cache
def _examples(folder: Path) -> tuple[Any, ...]:
    return tuple(decode(path.read_bytes()) for path in sorted((folder / "fhir-examples").glob("*/*.json")))


def _charts(folder: Path) -> Iterator[PatientRecord]:
    yield from (assemble_record(resources_of(content)) for content in _examples(folder))
    yield assemble_record(resources_of(list(_examples(folder))), "example")


@pytest.mark.parametrize("budget", [SMALL, LARGE])
def test_every_example_of_hl7_and_us_core_fits_its_budget(shared_data: Path, budget: int) -> None:
    charts = 0
    for record in _charts(shared_data):
        check(record, budget)
        charts += 1
    assert charts > 600
