"""What is written after the draft: valid, labelled, and without a word that is not theirs to change."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle

from service.errors import FilingError
from service.writeback.labels import WriteProfile
from service.writeback.lasting import Addition
from service.writeback.lifecycle import (
    Attestation,
    attested_transaction,
    standing_beside,
    standing_of,
    withdrawal_transaction,
)
from service.writeback.transaction import build_transaction
from tests.unit.writeback.charts import CREATED, make_run

BY = "Practitioner/7"


def draft(**more: Any) -> dict[str, Any]:
    """The draft as a server would hold it."""
    bundle = build_transaction(make_run(), software_version="0")
    document = next(e["resource"] for e in bundle["entry"] if e["resource"].get("docStatus"))
    meta = document["meta"] | {"versionId": "3", "lastUpdated": "2026-11-20T10:00:00Z"}
    return {**document, "author": [{"reference": "Device/1"}], "id": "7", "meta": meta, **more}


def attested(*replaced: dict[str, Any], **more: Any) -> dict[str, Any]:
    attestation = Attestation(BY, CREATED, **more)
    return attested_transaction(
        make_run(), attestation, replaced, software_version="0", profile=WriteProfile()
    )


def final_of(bundle: dict[str, Any]) -> dict[str, Any]:
    (found,) = [
        e["resource"] for e in bundle["entry"] if e["resource"].get("docStatus") in ("final", "amended")
    ]
    return dict(found)


ADDED = (Addition(BY, "2026-11-20T10:00:00Z", "Seen at <home> & well."),)


@pytest.mark.parametrize(
    "bundle",
    [
        attested(),
        attested(draft()),
        attested(draft(), draft(id="6", docStatus="final")),
        attested(draft(), additions=ADDED),
        withdrawal_transaction(draft(), by=BY, reason="Wrong.", at=CREATED),
        withdrawal_transaction(draft(), by="Epicrisis", reason="Expired.", at=CREATED),
    ],
)
def test_everything_is_valid_fhir(bundle: dict[str, Any]) -> None:
    Bundle.model_validate(bundle)


def test_what_is_replaced_keeps_all_but_its_status_and_only_in_the_version_that_was_read() -> None:
    there = draft(custodian={"display": "Ward"})
    entry = next(e for e in attested(there)["entry"] if e["request"]["method"] == "PUT")
    assert entry["request"] == {"method": "PUT", "url": "DocumentReference/7", "ifMatch": 'W/"3"'}
    written = copy.deepcopy(entry["resource"])
    assert written.pop("status") == "superseded"
    expected = {k: v for k, v in there.items() if k != "status"}
    expected["meta"] = {k: v for k, v in there["meta"].items() if k not in ("versionId", "lastUpdated")}
    assert written == expected


def test_the_highest_confidentiality_of_what_is_replaced_stays() -> None:
    system = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
    restricted = draft(meta={"versionId": "1", "security": [{"system": system, "code": "R"}]})
    labels = [x["code"] for x in final_of(attested(draft(), restricted))["meta"]["security"]]
    assert sorted(labels) == ["AIAST", "NOPAT", "R"]


def test_two_different_additions_are_two_documents_and_the_draft_none_of_them() -> None:
    ids = {
        final_of(bundle)["identifier"][0]["value"]
        for bundle in (attested(identifier="k"), attested(additions=ADDED, identifier="k.1"))
    }
    assert ids == {"k", "k.1"}


@pytest.mark.parametrize("by", ["Patient/1", "Device/1", "Practitioner/", "Dr. Roe", ""])
def test_only_a_clinician_attests(by: str) -> None:
    with pytest.raises(FilingError, match="clinician"):
        attested_transaction(
            make_run(), Attestation(by, CREATED), (), software_version="0", profile=WriteProfile()
        )


@pytest.mark.parametrize(
    ("statuses", "standing"),
    [
        (("current", "preliminary"), "draft"),
        (("current", None), "draft"),
        (("current", "final"), "attested"),
        (("current", "amended"), "amended"),
        (("superseded", "final"), "superseded"),
        (("entered-in-error", "final"), "withdrawn"),
        (("current", "entered-in-error"), "withdrawn"),
        (("superseded", "entered-in-error"), "withdrawn"),
    ],
)
def test_where_a_document_stands(statuses: tuple[str, str | None], standing: str) -> None:
    assert standing_of({"status": statuses[0], "docStatus": statuses[1]}) == standing


def test_a_draft_stands_beside_what_is_attested_and_replaces_nothing() -> None:
    bundle = standing_beside(build_transaction(make_run(), software_version="0"), ["DocumentReference/1"])
    related = [e["resource"].get("relatesTo") for e in bundle["entry"] if "docStatus" in e["resource"]]
    assert related == [[{"code": "appends", "target": {"reference": "DocumentReference/1"}}]]
    Bundle.model_validate(bundle)
