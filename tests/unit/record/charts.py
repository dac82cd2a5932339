"""Small hand-built charts, and the hazard charts of fixtures/hazards."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from service.record.assemble import assemble_record, resources_of
from service.record.facts import Fact, PatientRecord
from tests.conftest import CANARY, ROOT

SUBJECT: dict[str, Any] = {"subject": {"reference": "Patient/1"}}
PATIENT_REFERENCE: dict[str, Any] = {"patient": {"reference": "Patient/1"}}
_DECODER = msgspec.json.Decoder(float_hook=Decimal)


def patient(**fields: Any) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "id": "1",
        "name": [{"family": CANARY, "given": ["Ann"]}],
        "gender": "female",
        "birthDate": "1951-05-04",
        **fields,
    }


def named(text: str, system: str = "", code: str = "") -> dict[str, Any]:
    return {"text": text, "coding": [{"system": system, "code": code}]} if code else {"text": text}


def resource(kind: str, **fields: Any) -> dict[str, Any]:
    """A resource of the patient with id `x`."""
    subject = PATIENT_REFERENCE if kind in _OF_PATIENT else SUBJECT
    return {"resourceType": kind, "id": "x", **subject, **fields}


_OF_PATIENT = ("AllergyIntolerance", "Immunization", "FamilyMemberHistory", "Device", "Consent")


def record_of(*resources: Any, **options: Any) -> PatientRecord:
    record = assemble_record([patient(), *resources], "1", **options)
    assert record.seen == record.kept + sum(record.skipped.values())
    assert not [p for p in record.problems if "reader failed" in p]
    return record


def facts_of(*resources: Any, **options: Any) -> list[Fact]:
    return [f for f in record_of(*resources, **options).facts if f.kind != "patient"]


def fact_of(kind: str, *others: Any, **fields: Any) -> Fact:
    """The first fact of one resource; `others` are further resources of the chart."""
    found = [f for f in facts_of(resource(kind, **fields), *others) if f.source.reference == f"{kind}/x"]
    return min(found, key=lambda f: (len(f.id), f.id))


def text_of(kind: str, *others: Any, **fields: Any) -> str:
    return fact_of(kind, *others, **fields).text


def hazard_bundle(name: str) -> Any:
    return _DECODER.decode((ROOT / "fixtures" / "hazards" / f"{name}.json").read_bytes())


def hazard(name: str, **options: Any) -> PatientRecord:
    """Assemble a hazard chart."""
    record = assemble_record(resources_of(hazard_bundle(name)), **options)
    assert record.seen == record.kept + sum(record.skipped.values())
    return record


def ids(record: PatientRecord) -> set[str]:
    return {str(f.id) for f in record.facts}
