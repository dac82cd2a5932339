"""All of Synthea's charts and of HL7's and US Core's examples are read and accounted for."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.record.assemble import assemble_record, resources_of
from service.record.facts import Kind, PatientRecord, Status
from service.record.readers import READERS
from service.record.required import required_facts
from tests.conftest import synthea_bundles

pytestmark = pytest.mark.shared

_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_DONE = re.compile(r"\b(completed|given|administered|performed|dispensed)\b(?! NOT)")


def accounted(record: PatientRecord) -> PatientRecord:
    assert record.seen == record.kept + sum(record.skipped.values())
    assert not [p for p in record.problems if "reader failed" in p]
    assert len({f.id for f in record.facts}) == len(record.facts)
    for fact in record.facts:
        assert fact.text
        assert "\n" not in fact.text
        assert fact.name in fact.text or fact.kind in (Kind.PATIENT, Kind.FAMILY_HISTORY)
    return record


def examples(folder: Path) -> Iterator[tuple[str, Any]]:
    for path in sorted((folder / "fhir-examples").rglob("*.json")):
        yield path.name, _DECODER.decode(path.read_bytes())


def test_every_synthea_chart_is_read_whole(shared_data: Path) -> None:
    charts = 0
    for name, bundle in synthea_bundles(shared_data):
        resources = list(resources_of(bundle))
        record = accounted(assemble_record(resources))
        assert set(record.skipped) <= {"administrative", "unsupported_type", "supporting"}, name
        assert record.kept > len(resources) * 0.6, name
        assert record.identity.birth_date
        assert record.as_of is not None
        assert not record.problems, name
        assert required_facts(record)
        charts += 1
    assert charts == 42


def test_a_synthea_charts_order_changes_nothing(shared_data: Path) -> None:
    _, bundle = next(synthea_bundles(shared_data))
    resources = list(resources_of(bundle))
    expected = assemble_record(resources)
    random.Random(7).shuffle(resources)
    assert assemble_record(resources) == expected


def test_every_example_alone_is_read(shared_data: Path) -> None:
    seen = 0
    for name, example in examples(shared_data):
        resources = list(resources_of(example))
        accounted(assemble_record(resources))
        record = accounted(assemble_record([*resources, *_patients_of(resources)]))
        for resource in resources:
            kind = resource.get("resourceType") if isinstance(resource, dict) else None
            if kind in READERS and kind != "Device":
                assert "no_statement" not in record.skipped, name
        seen += 1
    assert seen > 600


def _patients_of(resources: list[Any]) -> list[dict[str, Any]]:
    """A bare Patient for whoever the first resource is about, so that its reader runs."""
    for resource in resources:
        subject = (resource.get("subject") or resource.get("patient")) if isinstance(resource, dict) else None
        reference = subject.get("reference") if isinstance(subject, dict) else None
        if isinstance(reference, str) and reference.startswith("Patient/"):
            return [{"resourceType": "Patient", "id": reference.removeprefix("Patient/")}]
    return []


@pytest.mark.parametrize(("patient", "kept"), [("example", 300), ("pat1", 80), ("f001", 20), ("infant", 5)])
def test_all_examples_together_are_read_for_one_patient(shared_data: Path, patient: str, kept: int) -> None:
    resources = [r for _, example in examples(shared_data) for r in resources_of(example)]
    record = accounted(assemble_record(resources, patient))
    assert record.kept >= kept
    assert record.skipped["other_patient"] > 100


def test_nothing_that_is_not_done_reads_as_done(shared_data: Path) -> None:
    scanned = 0
    for _, example in examples(shared_data):
        resources = list(resources_of(example))
        by_reference = {f"{r.get('resourceType')}/{r.get('id')}": r for r in resources if isinstance(r, dict)}
        record = assemble_record([*resources, *_patients_of(resources)])
        for fact in record.facts:
            source = by_reference.get(fact.source.reference, {})
            status = source.get("status")
            assert status != "entered-in-error"
            if status in ("not-done", "not-taken", "declined") or source.get("doNotPerform") is True:
                assert fact.status is Status.NOT_DONE
                assert re.search(r"\bnot\b", fact.text, re.IGNORECASE)
                assert not _DONE.search(fact.text.split(": ", 1)[1].split(";")[0].split("(")[0])
                scanned += 1
    assert scanned >= 2
