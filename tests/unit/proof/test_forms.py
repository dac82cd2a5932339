"""The forms of a document: each read as anybody would, and compared with what was signed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from service.proof.forms import check_forms, open_document
from service.signing import Signer
from tests.unit.writeback.charts import make_run
from tests.unit.writeback.reading import build, resource


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer.from_file(tmp_path / "signing.key")


def found(document: Any, signer: Signer) -> list[tuple[str, str, str]]:
    filed = open_document(document)
    findings = [*filed.findings, *check_forms(filed, signer.jwks())]
    return [(f.code, f.where, f.detail) for f in findings]


def with_proof(document: dict[str, Any], proof: dict[str, Any]) -> dict[str, Any]:
    form = {"contentType": "application/json", "data": base64.b64encode(json.dumps(proof).encode()).decode()}
    return {**document, "content": [document["content"][0], {"attachment": form}]}


def test_what_was_built_says_the_same_in_all_forms(signer: Signer) -> None:
    document = resource(build(make_run(), sign=signer.sign), "DocumentReference")
    assert found(document, signer) == []
    filed = open_document(document)
    assert [len(filed.statements), len(filed.sources)] == [3, 4]
    assert set(filed.forms) == {
        "text/plain", "application/xhtml+xml", "application/json", "application/fhir+json",
    }  # fmt: skip


def test_a_form_that_the_server_did_not_keep_is_named(signer: Signer) -> None:
    document = resource(build(make_run(), sign=signer.sign), "DocumentReference")
    document["content"] = document["content"][:3]
    assert found(document, signer) == [("form_missing", "application/fhir+json", "")]


def test_an_attested_document_has_a_date_and_an_identifier_of_its_own(signer: Signer) -> None:
    document = resource(build(make_run()), "DocumentReference")
    proof = json.loads(base64.b64decode(document["content"][2]["attachment"]["data"]))
    at = "2026-11-21T08:00:00.000Z"
    proof["attested"] = {"by": "Practitioner/1", "at": at}
    proof["signature"] = "e30..c2ln"
    attested = with_proof(document, proof) | {"identifier": [{"system": "urn:x", "value": "1"}], "date": at}
    assert not [one for one in found(attested, signer) if one[0] == "document_differs"]
    for change in ({"date": proof["created_at"]}, {"identifier": document["identifier"]}):
        assert [one for one in found(attested | change, signer) if one[0] == "document_differs"]


def test_a_page_that_would_grow_without_end_is_read_as_nothing(signer: Signer) -> None:
    bomb = b'<!DOCTYPE html [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><html>&b;</html>'
    document = resource(build(make_run(), sign=signer.sign), "DocumentReference")
    document["content"][1]["attachment"] = {
        "contentType": "application/xhtml+xml", "data": base64.b64encode(bomb).decode(),
    }  # fmt: skip
    told = {one[0] for one in found(document, signer)}
    assert told == {"form_differs", "claim_differs"}


@pytest.mark.parametrize("content", [None, [3], {}, {"attachment": 3}, [{"attachment": {"data": 3}}], [{}]])
def test_odd_content_raises_nothing(signer: Signer, content: Any) -> None:
    assert "no_proof" in {
        one[0] for one in found({"resourceType": "DocumentReference", "content": content}, signer)
    }


@pytest.mark.parametrize(
    "proof",
    [
        {"format": "epicrisis-summary/1", "sections": 3, "sources": "x", "forms": {}, "signature": 3},
        {"format": "epicrisis-summary/1", "sections": [{"statements": [3, {"sources": 3}]}], "patient": []},
    ],
)
def test_odd_proofs_raise_nothing(signer: Signer, proof: dict[str, Any]) -> None:
    told = {one[0] for one in found(proof, signer)}
    assert told & {"wrong_signature", "not_signed"}
