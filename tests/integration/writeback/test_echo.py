"""What we file is never evidence for the next summary, and does not make the chart look changed."""

from __future__ import annotations

import pytest

from service.record.assemble import assemble_record
from service.writeback.labels import WriteProfile
from service.writeback.transaction import build_transaction
from tests.unit.writeback.charts import make_run

PATIENT = {"resourceType": "Patient", "id": "77", "active": True, "birthDate": "1951-05-04"}
CONDITION = {
    "resourceType": "Condition",
    "id": "1",
    "subject": {"reference": "Patient/77"},
    "code": {"text": "Diabetes mellitus type 2"},
}


@pytest.mark.parametrize("only", ["Device", "DocumentReference", "Provenance", None])
@pytest.mark.parametrize("profile", [WriteProfile(), WriteProfile(device_author=False)])
def test_our_own_output_changes_neither_facts_nor_digest(profile: WriteProfile, only: str | None) -> None:
    chart = [PATIENT, CONDITION]
    bundle = build_transaction(make_run(), software_version="0.1.0", profile=profile)
    written = [
        {
            **entry["resource"],
            "id": f"w{number}",
            "meta": {**entry["resource"].get("meta", {}), "versionId": "1"},
        }
        for number, entry in enumerate(bundle["entry"])
        if only in (None, entry["resource"]["resourceType"])
    ]
    before, after = assemble_record(chart, "77"), assemble_record([*chart, *written], "77")
    assert len(before.facts) >= 2
    assert after.facts == before.facts
    assert after.digest == before.digest
    assert after.seen == before.seen + len(written)
