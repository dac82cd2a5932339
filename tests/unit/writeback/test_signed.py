"""The signature: in the proof and in the Provenance, over all of a document, the same on every retry."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.record.facts import FactId, Kind, ResourceVersion, Status
from service.signing import Signer, check_signature
from service.store.codec import decode_run, encode_run
from service.writeback.json_form import signed_content
from service.writeback.rules import lexicon_digest
from tests.unit.writeback.charts import A1C, make_run, make_summary, varied
from tests.unit.writeback.reading import build, entry, forms, resource


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer.from_file(tmp_path / "signing.key")


def proof_of(bundle: dict[str, Any]) -> dict[str, Any]:
    document = resource(bundle, "DocumentReference")
    proof = json.loads(base64.b64decode(document["content"][2]["attachment"]["data"]))
    assert isinstance(proof, dict)
    return proof


def test_a_retry_files_the_same_bytes(signer: Signer) -> None:
    run = make_run()
    first = json.dumps(build(run, sign=signer.sign))
    assert json.dumps(build(decode_run(encode_run(run)), sign=signer.sign)) == first


def test_the_signature_covers_every_field_of_the_proof(signer: Signer) -> None:
    proof = proof_of(build(make_run(), sign=signer.sign))
    signature = proof.pop("signature")
    assert check_signature(signature, signed_content(proof), signer.jwks()) == ""
    for name in proof:
        changed = {key: value for key, value in proof.items() if key != name}
        assert check_signature(signature, signed_content(changed), signer.jwks()) == "wrong_signature", name


def test_another_program_gets_the_signed_bytes_from_the_documented_rule(signer: Signer) -> None:
    proof = proof_of(build(make_run(), sign=signer.sign))
    signature = proof.pop("signature")
    content = json.dumps(proof, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert check_signature(signature, content, signer.jwks()) == ""


def test_the_proof_holds_the_digest_of_every_other_form(signer: Signer) -> None:
    told = {form["type"]: form["sha256"] for form in proof_of(build(make_run(), sign=signer.sign))["forms"]}
    filed = forms(make_run())
    del filed["application/json"]
    assert told == {media_type: hashlib.sha256(data).hexdigest() for media_type, data in filed.items()}


def test_the_proof_says_by_which_rules_it_was_judged() -> None:
    run = varied(make_run(), second_pass="off: 11 of 24 right")
    rules = json.loads(forms(run)["application/json"])["rules"]
    assert rules == {"version": "1", "lexicon_sha256": lexicon_digest(), "second_pass": "off: 11 of 24 right"}
    assert len(lexicon_digest()) == 64


def test_the_provenance_carries_the_same_signature_by_the_device(signer: Signer) -> None:
    bundle = build(make_run(), sign=signer.sign)
    provenance = resource(bundle, "Provenance")
    (signature,) = provenance["signature"]
    assert base64.b64decode(signature["data"]).decode() == proof_of(bundle)["signature"]
    assert signature["who"] == {"reference": entry(bundle, "Device")["fullUrl"]}
    assert (signature["sigFormat"], signature["targetFormat"]) == ("application/jose", "application/json")
    assert signature["type"][0]["code"] == "1.2.840.10065.1.12.1.5"
    assert signature["when"] == provenance["recorded"]


def test_without_a_key_nothing_is_signed() -> None:
    bundle = build(make_run())
    assert "signature" not in resource(bundle, "Provenance")
    assert "signature" not in proof_of(bundle)


STAY = replace(
    A1C,
    id=FactId("Encounter/9"),
    kind=Kind.ENCOUNTER,
    source=ResourceVersion("Encounter/9", "1", "1" * 64),
    status=Status.IN_PROGRESS,
)


@pytest.mark.parametrize(
    ("named", "stays", "expected"),
    [
        ("Encounter/4", (), [{"reference": "Encounter/4"}]),
        ("", (STAY,), [{"reference": "Encounter/9"}]),
        ("Encounter/4", (STAY,), [{"reference": "Encounter/4"}]),
        ("", (replace(STAY, status=Status.COMPLETED),), None),
        ("", (STAY, replace(STAY, source=ResourceVersion("Encounter/10", "1", "2" * 64))), None),
        ("urn:uuid:1", (), None),
        ("", (), None),
    ],
)
def test_the_encounter_at_hand_is_named_once(named: str, stays: tuple[Any, ...], expected: Any) -> None:
    run = varied(make_run(), facts=(*make_summary().facts, *stays))
    run = replace(run, inputs=replace(run.inputs, encounter=named))
    assert resource(build(run), "DocumentReference")["context"].get("encounter") == expected


def test_the_study_behind_a_picture_is_a_source_by_its_version() -> None:
    study = ResourceVersion("ImagingStudy/5", "2", "5" * 64)
    image = replace(A1C, id=FactId("ImagingStudy/5"), kind=Kind.IMAGING, source=study)
    run = varied(make_run(), facts=(*make_summary().facts, image))
    what = [entity["what"] for entity in resource(build(run), "Provenance")["entity"]]
    assert {"reference": "ImagingStudy/5/_history/2"} in what
