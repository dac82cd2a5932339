"""What we file is never evidence for the next summary, and does not make the chart look changed."""

from __future__ import annotations

from typing import Any

import pytest

from service.record.assemble import assemble_record
from service.record.facts import PatientRecord
from service.texts.worker import TextReader, read_texts
from service.writeback.labels import WriteProfile
from service.writeback.lasting import Addition
from service.writeback.lifecycle import Attestation, attested_transaction, withdrawal_transaction
from service.writeback.transaction import build_transaction
from tests.unit.writeback.charts import CREATED, make_run

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


ROE: dict[str, Any] = {"resourceType": "Practitioner", "id": "roe", "name": [{"text": "Dr. Roe"}]}
ROLE: dict[str, Any] = {
    "resourceType": "PractitionerRole",
    "id": "role",
    "practitioner": {"reference": "Practitioner/roe"},
}
WORDS = "Her daughter says that the rash came with amoxicillin in 1998."


def read(*resources: dict[str, Any]) -> PatientRecord:
    """The record of a chart, the texts of its pages read as in a run."""
    chart = [PATIENT, CONDITION, *resources]
    return assemble_record(chart, "77", texts=read_texts(chart, {}, TextReader()))


def attested(*additions: str, by: str = "Practitioner/roe") -> list[dict[str, Any]]:
    """All that an attestation writes, as a server gives it back."""
    run = make_run()
    theirs = tuple(Addition(by, "2026-11-20T10:00:00Z", text) for text in additions)
    bundle = attested_transaction(
        run, Attestation(by, CREATED, theirs), [], software_version="0.1.0", profile=WriteProfile()
    )
    names = {entry["fullUrl"]: f"w{number}" for number, entry in enumerate(bundle["entry"])}
    kept = [{**entry["resource"], "id": names[entry["fullUrl"]]} for entry in bundle["entry"]]
    document = next(one for one in kept if "authenticator" in one)
    kept[-1] = {**kept[-1], "target": [{"reference": f"DocumentReference/{document['id']}/_history/1"}]}
    return kept


@pytest.mark.parametrize("named", [[ROE], [ROE, ROLE]], ids=["clinician", "role"])
def test_an_attested_text_without_a_humans_word_and_who_attested_it_are_no_input(
    named: list[dict[str, Any]],
) -> None:
    before = read()
    by = "PractitionerRole/role" if ROLE in named else "Practitioner/roe"
    after = read(*attested(by=by), *named)
    assert after.inputs == before.inputs
    assert after.digest == before.digest
    assert after.facts == before.facts
    assert after.skipped["own_output"] >= 2
    assert after.skipped["supporting"] == len(named)


def test_who_withdrew_one_of_our_documents_is_no_input() -> None:
    document = next(one for one in attested() if "authenticator" in one)
    bundle = withdrawal_transaction(document, by="Practitioner/roe", reason="Test.", at=CREATED)
    withdrawn, provenance = ({**e["resource"], "id": f"x{n}"} for n, e in enumerate(bundle["entry"]))
    del withdrawn["authenticator"]
    provenance["target"] = [{"reference": "DocumentReference/x0"}]
    del provenance["meta"]
    assert read(withdrawn, provenance, ROE).digest == read().digest


def test_what_a_human_added_to_an_attested_text_is_an_input_and_so_is_who_did() -> None:
    record = read(*attested(WORDS), ROE)
    inputs = {version.reference for version in record.inputs}
    assert "Practitioner/roe" in inputs
    assert sum(reference.startswith("DocumentReference/") for reference in inputs) == 1
    assert [fact.value for fact in record.facts if fact.span] == [WORDS]


def test_a_clinician_whom_the_chart_names_too_stays_an_input() -> None:
    condition = {**CONDITION, "id": "2", "recorder": {"reference": "PractitionerRole/role"}}
    chart: list[dict[str, Any]] = [condition, ROE, ROLE]
    before, after = read(*chart), read(*attested(), *chart)
    assert after.inputs == before.inputs
    assert {"Practitioner/roe", "PractitionerRole/role"} <= {v.reference for v in after.inputs}
