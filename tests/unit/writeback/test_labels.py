"""Everything that is written carries the highest label of its sources, and their sensitivity (SAFETY 20)."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle

from service.errors import FilingError
from service.ports import StoredRun
from service.record.facts import Code
from service.record.labels import CONFIDENTIALITY
from service.store.codec import decode_run, encode_run
from service.writeback.labels import WriteProfile
from service.writeback.lifecycle import Attestation, attested_transaction
from service.writeback.profiles import PROFILES
from tests.unit.writeback.charts import A1C, CREATED, IDENTITY, make_run, make_summary, varied
from tests.unit.writeback.reading import build, resource

ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
R, V = (Code(CONFIDENTIALITY, code, "") for code in "RV")
SUD = Code(ACT, "SUD", "substance use disorder information sensitivity")


def labelled(*labels: Code) -> StoredRun:
    """A run in which one fact of four has these labels."""
    source = replace(A1C.source, security=labels)
    facts = tuple(replace(f, source=source) if f.id == A1C.id else f for f in make_summary().facts)
    return varied(make_run(), facts=facts)


def codes(one: dict[str, Any]) -> list[str]:
    return [label["code"] for label in one["meta"]["security"]]


def inner(document: dict[str, Any]) -> dict[str, Any]:
    """The document Bundle within."""
    (data,) = (
        c["attachment"]["data"]
        for c in document["content"]
        if c["attachment"]["contentType"] == "application/fhir+json"
    )
    decoded = json.loads(base64.b64decode(data))
    assert isinstance(decoded, dict)
    return decoded


def final(run: StoredRun, *replaced: dict[str, Any], profile: WriteProfile | None = None) -> dict[str, Any]:
    return attested_transaction(
        run,
        Attestation("Practitioner/7", CREATED),
        replaced,
        software_version="0",
        profile=profile or WriteProfile(),
    )


def documents_of(bundle: dict[str, Any]) -> list[dict[str, Any]]:
    return [e["resource"] for e in bundle["entry"] if e["resource"].get("docStatus")]


@pytest.mark.parametrize(
    ("labels", "expected", "level"),
    [
        ((), ["AIAST", "NOPAT", "N"], "N"),
        ((R,), ["AIAST", "NOPAT", "R"], "R"),
        ((V, R), ["AIAST", "NOPAT", "V"], "V"),
        ((SUD, R), ["AIAST", "NOPAT", "SUD", "R"], "R"),
    ],
)
def test_a_draft_carries_the_highest_label_in_every_place(
    labels: tuple[Code, ...], expected: list[str], level: str
) -> None:
    bundle = build(labelled(*labels))
    Bundle.model_validate(bundle)
    document = resource(bundle, "DocumentReference")
    within = inner(document)
    composition = within["entry"][0]["resource"]
    for one in (document, resource(bundle, "Provenance"), within, composition):
        assert codes(one) == expected
    assert composition["confidentiality"] == level
    given = [c["coding"][0]["code"] for c in document.get("securityLabel", [])]
    assert given == expected[2:] if labels else given == []


def test_one_restricted_source_among_ordinary_ones_is_enough_cited_or_not() -> None:
    uncited = varied(labelled(V), sections=make_summary().sections[:1])
    assert codes(resource(build(uncited), "DocumentReference"))[-1] == "V"


def test_what_was_read_and_the_patients_own_label_count_too() -> None:
    read = varied(make_run(), security=(SUD, R))
    assert codes(resource(build(read), "DocumentReference")) == ["AIAST", "NOPAT", "SUD", "R"]
    banner = varied(make_run(), identity=replace(IDENTITY, security=(V,)))
    assert codes(resource(build(banner), "DocumentReference")) == ["AIAST", "NOPAT", "V"]


def test_a_sites_own_level_and_the_sources_give_the_higher_of_the_two() -> None:
    for site, source, expected in (("R", V, "V"), ("V", R, "V"), ("R", R, "R")):
        bundle = build(labelled(source), WriteProfile(confidentiality=site))  # type: ignore[arg-type]
        assert codes(resource(bundle, "DocumentReference"))[-1] == expected


def test_shared_resources_say_nothing_of_a_patients_labels() -> None:
    bundle = build(labelled(SUD, V))
    shared = [e["resource"] for e in bundle["entry"][:3]]
    assert all("docStatus" not in one for one in shared)
    assert not {"SUD", "V"} & set(re.findall(r"\w+", json.dumps(shared)))


def test_an_attested_text_carries_what_its_draft_did() -> None:
    bundle = final(labelled(SUD, R))
    (document,) = documents_of(bundle)
    assert codes(document) == ["AIAST", "NOPAT", "SUD", "R"]
    assert codes(bundle["entry"][-1]["resource"]) == codes(document)
    assert inner(document)["entry"][0]["resource"]["confidentiality"] == "R"


def test_an_attested_text_carries_what_others_labelled_its_draft_with_in_every_form() -> None:
    there = resource(build(make_run()), "DocumentReference")
    raised = {"coding": [{"system": CONFIDENTIALITY, "code": "V"}]}
    there |= {"id": "7", "meta": there["meta"] | {"versionId": "2"}, "securityLabel": [raised]}
    bundle = final(make_run(), there)
    Bundle.model_validate(bundle)
    document = documents_of(bundle)[0]
    assert codes(document) == ["AIAST", "NOPAT", "V"]
    assert [c["coding"][0]["code"] for c in document["securityLabel"]] == ["V"]
    within = inner(document)
    composition = within["entry"][0]["resource"]
    assert composition["confidentiality"] == "V"
    assert codes(within) == codes(composition) == codes(bundle["entry"][-1]["resource"]) == codes(document)


@pytest.mark.parametrize("name", sorted(n for n, p in PROFILES.items() if not p.keeps_labels))
def test_a_labelled_summary_is_not_filed_where_labels_are_dropped_whatever_was_signed(name: str) -> None:
    profile = replace(PROFILES[name], risk_signed_by="Dr. Roe")
    build(make_run(), profile)
    with pytest.raises(FilingError, match="security label"):
        build(labelled(R), profile)


def test_labels_that_no_validator_takes_are_written_in_legal_parts() -> None:
    odd = Code("urn:my  site", "A  B\u202e", "x\ny")
    bundle = build(labelled(odd, R))
    Bundle.model_validate(bundle)
    label = resource(bundle, "DocumentReference")["meta"]["security"][2]
    assert label == {"code": "A B[U+202E]", "display": "x y"}


def test_the_signed_form_tells_the_labels_of_the_document_and_of_each_source() -> None:
    document = resource(build(labelled(SUD, R)), "DocumentReference")
    data = next(
        c["attachment"] for c in document["content"] if c["attachment"]["contentType"].endswith("/json")
    )
    form = json.loads(base64.b64decode(data["data"]))
    assert [label["code"] for label in form["labels"]] == ["SUD", "R"]
    told = {s["fact"]: [label["code"] for label in s["labels"]] for s in form["sources"]}
    assert told.pop("Observation/a1c#2") == ["SUD", "R"]
    assert set(map(tuple, told.values())) == {()}


def test_a_stored_run_keeps_the_labels_and_one_of_before_is_read_without() -> None:
    run = varied(labelled(SUD, R), security=(V,), identity=replace(IDENTITY, security=(R,)))
    again = decode_run(encode_run(run)).summary
    assert again.labels == run.summary.labels
    assert [label.code for label in again.labels] == ["SUD", "V"]
    assert again.identity.security == (R,)
    old = json.loads(encode_run(make_run()))

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without(item) for name, item in value.items() if name != "security"}
        return [without(item) for item in value] if isinstance(value, list) else value

    assert "security" in json.dumps(old)
    stored = decode_run(json.dumps(without(old)))
    assert stored == make_run()
    assert stored.summary.labels == ()
