"""Every real chart fits its budget, keeps its required facts first, and accounts for all others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from connectors.fhir.codec import decode
from service.context.choose import choose_facts
from service.context.render import requests_for, whole_chat
from service.context.templates import load
from service.engine.prompt import Message, Profile
from service.record.assemble import assemble_record, resources_of
from service.record.facts import Kind, PatientRecord
from service.record.required import required_facts
from tests.conftest import synthea_bundles

pytestmark = pytest.mark.shared
TEMPLATES = load("history")
FREE = Profile("test", "free", 8192, 1024, 0.0)
GUIDED = Profile("test", "guided", 8192, 512, 0.0, facts_per_request=1)
BUDGET = 1500


def count(chat: tuple[Message, ...]) -> int:
    return sum(len(message.content.split()) for message in chat)


def check(record: PatientRecord) -> None:
    required = required_facts(record)
    context = choose_facts(record, required, TEMPLATES, FREE, BUDGET, count)
    assert context.tokens == count(whole_chat(context, TEMPLATES, FREE)) <= BUDGET
    patients = sum(fact.kind is Kind.PATIENT for fact in record.facts)
    assert len(context.facts) + sum(item.count for item in context.left_out) + patients == len(record.facts)
    asked = [label for r in requests_for(context, TEMPLATES, GUIDED) for label in r.labels]
    assert asked == list(context.facts)


def test_every_synthea_chart_fits_its_budget(shared_data: Path) -> None:
    charts = 0
    for _, bundle in synthea_bundles(shared_data):
        check(assemble_record(resources_of(bundle)))
        charts += 1
    assert charts == 42


def test_every_example_of_hl7_and_us_core_fits_its_budget(shared_data: Path) -> None:
    together: list[Any] = []
    for path in sorted((shared_data / "fhir-examples").glob("*/*.json")):
        content = decode(path.read_bytes())
        together.append(content)
        check(assemble_record(resources_of(content)))
    check(assemble_record(resources_of(together), "example"))
    assert len(together) > 600
