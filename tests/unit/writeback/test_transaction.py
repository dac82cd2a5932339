"""The transaction: labelled, typed, traceable, the same bytes each time, and refused where it must be."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.documentreference import DocumentReference
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.errors import FilingError
from service.grounding.summary import SummarySection, Verdict
from service.record.facts import FactId, Kind, ResourceVersion
from service.store.codec import decode_run, encode_run
from service.writeback.labels import WriteProfile, check_profile
from service.writeback.transaction import refusal
from tests.conftest import CANARY
from tests.unit.writeback.charts import (
    A1C,
    DIABETES,
    IDENTITY,
    NOTE,
    RUN_KEY,
    claim,
    make_run,
    make_summary,
    on,
    varied,
)
from tests.unit.writeback.reading import build, entry, request, resource, shared

AIAST = ("http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "AIAST")


def codes(security: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(label["system"], label["code"]) for label in security]


def test_the_same_run_gives_the_same_bytes_also_after_it_was_stored() -> None:
    run = make_run()
    first = json.dumps(build(run))
    assert json.dumps(build(run)) == first
    assert json.dumps(build(decode_run(encode_run(run)))) == first


def test_another_run_key_gives_other_names_but_the_same_device_condition() -> None:
    one, two = build(make_run()), build(make_run(key="f" * 64))
    names = {entry["fullUrl"] for entry in (*one["entry"], *two["entry"])}
    assert len(names) == 10
    assert request(one, "Device") == request(two, "Device")


def test_the_document_is_a_preliminary_labelled_draft_that_no_client_takes_for_a_summary() -> None:
    document = resource(build(make_run()), "DocumentReference")
    assert (document["status"], document["docStatus"]) == ("current", "preliminary")
    assert codes(document["meta"]["security"]) == [
        AIAST,
        ("http://terminology.hl7.org/CodeSystem/v3-ActCode", "NOPAT"),
        ("http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "N"),
    ]
    assert document["meta"]["profile"] == [
        "http://hl7.org/fhir/us/core/StructureDefinition/us-core-documentreference"
    ]
    assert codes(document["type"]["coding"]) == [
        ("http://loinc.org", "11503-0"),
        ("urn:epicrisis:document-type", "ai-draft-summary"),
    ]
    assert codes(document["category"][0]["coding"]) == [
        ("http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category", "clinical-note")
    ]
    assert document["identifier"] == [{"system": "urn:epicrisis:run-key", "value": RUN_KEY}]
    assert document["subject"] == {"reference": "Patient/77"}
    assert document["date"] == "2026-11-20T09:30:15.250Z"


def test_the_author_is_the_device_and_nobody_else() -> None:
    bundle = build(make_run())
    device = next(e["fullUrl"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Device")
    document = resource(bundle, "DocumentReference")
    assert document["author"] == [{"reference": device}]
    assert "authenticator" not in document
    assert "author" not in resource(build(make_run(), WriteProfile(device_author=False)), "DocumentReference")


def test_the_description_begins_and_ends_with_the_banner_and_names_the_patient() -> None:
    banner = "AI-GENERATED DRAFT, NOT REVIEWED"
    description = resource(build(make_run()), "DocumentReference")["description"]
    assert description.startswith(
        f"{banner} · Patient: Ada {CANARY} · born 04-May-1951 · record number MRN-4711"
    )
    assert description.endswith(f"Draft expires 23-Nov-2026 09:30 UTC · {banner}")
    incomplete = resource(build(varied(make_run(), incomplete=("Allergies",))), "DocumentReference")
    assert incomplete["description"].startswith(f"{banner} · INCOMPLETE: NOT RETRIEVED: Allergies · ")


def test_each_attachment_has_its_right_size_and_hash() -> None:
    document = resource(build(make_run()), "DocumentReference")
    attachments = [content["attachment"] for content in document["content"]]
    assert [a["contentType"] for a in attachments] == [
        "text/plain; charset=utf-8",
        "application/xhtml+xml",
        "application/json",
        "application/fhir+json",
    ]
    for attachment in attachments:
        data = base64.b64decode(attachment["data"], validate=True)
        assert attachment["size"] == len(data)
        assert base64.b64decode(attachment["hash"]) == hashlib.sha1(data).digest()
        assert attachment["title"].startswith("AI-GENERATED DRAFT, NOT REVIEWED")
        assert attachment["creation"] == document["date"]
        assert attachment["language"] == "en"


def test_the_period_runs_from_the_earliest_to_the_latest_fact_as_precisely_as_recorded() -> None:
    birth = replace(DIABETES, id=FactId("Patient/77"), kind=Kind.PATIENT, when=on("1951-05-04"))
    father = replace(A1C, id=FactId("FamilyMemberHistory/1"), kind=Kind.FAMILY_HISTORY, when=on("1930-01-01"))
    run = varied(make_run(), facts=(*make_summary().facts, birth, father))
    context = resource(build(run), "DocumentReference")["context"]
    assert context["period"] == {"start": "1999-04", "end": "2021-05-03"}


def test_related_are_the_cited_sources_that_have_an_id() -> None:
    context = resource(build(make_run()), "DocumentReference")["context"]
    assert context["related"] == [
        {"reference": "AllergyIntolerance/3"},
        {"reference": "Condition/1"},
        {"reference": "Observation/a1c"},
    ]


def test_a_summary_without_dates_and_sources_has_no_context() -> None:
    run = make_run(summary=make_summary(sections=(), facts=(), refused=()))
    assert "context" not in resource(build(run), "DocumentReference")


def test_provenance_names_the_model_and_every_version_it_was_given() -> None:
    bundle = build(make_run())
    provenance = resource(bundle, "Provenance")
    assert provenance["target"] == [{"reference": entry(bundle, "DocumentReference")["fullUrl"]}]
    assert provenance["agent"][0]["who"]["reference"] == entry(bundle, "Device")["fullUrl"]
    assert codes(provenance["reason"][0]["coding"]) == [AIAST]
    assert AIAST in codes(provenance["meta"]["security"])
    assert provenance["recorded"] == "2026-11-20T09:30:15.250Z"
    sources = [entity["what"] for entity in provenance["entity"] if entity["role"] == "source"]
    assert [what.get("reference") for what in sources] == [
        "Condition/1/_history/2",
        "Observation/a1c/_history/3",
        "AllergyIntolerance/3",
        None,
    ]
    assert sources[3]["identifier"] == {"system": "urn:ietf:rfc:3986", "value": NOTE.source.reference}
    prompt, card = (entity["what"] for entity in provenance["entity"] if entity["role"] == "derivation")
    assert prompt["identifier"] == {"system": "urn:epicrisis:prompt", "value": "b" * 64}
    assert prompt["reference"] == shared(bundle, "urn:epicrisis:prompt")["fullUrl"]
    assert card["reference"] == shared(bundle, "urn:epicrisis:model-card")["fullUrl"]
    assert "Ada" not in json.dumps(provenance)


def test_two_facts_of_one_version_are_one_source_and_given_but_uncited_ones_are_named() -> None:
    second = replace(A1C, id=FactId("Observation/a1c#3"), name="eAG")
    run = varied(make_run(), sections=(), facts=(A1C, second))
    entities = resource(build(run), "Provenance")["entity"]
    assert [e["what"]["reference"] for e in entities if e["role"] == "source"] == [
        "Observation/a1c/_history/3"
    ]


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (ResourceVersion("Condition/1", "not a version!", "0" * 64), {"reference": "Condition/1"}),
        (ResourceVersion("", None, "0" * 64), {"display": f"Content with SHA-256 {'0' * 64}"}),
        (
            ResourceVersion("https://elsewhere.example/fhir/Condition/1", "4", "0" * 64),
            {
                "display": f"Content with SHA-256 {'0' * 64}",
                "identifier": {
                    "system": "urn:ietf:rfc:3986",
                    "value": "https://elsewhere.example/fhir/Condition/1",
                },
            },
        ),
    ],
)
def test_a_source_without_a_usable_reference_is_named_all_the_same(
    source: ResourceVersion, what: dict[str, Any]
) -> None:
    run = varied(make_run(), sections=(), facts=(replace(DIABETES, source=source),))
    assert resource(build(run), "Provenance")["entity"][0]["what"] == what


def test_the_device_is_the_model_labelled_ours_and_free_of_patient_data() -> None:
    device = resource(build(make_run()), "Device")
    assert device["identifier"] == [{"system": "urn:epicrisis:model", "value": "f" * 64}]
    assert codes(device["meta"]["security"]) == [AIAST]
    assert device["manufacturer"] == "google"
    assert device["deviceName"] == [{"name": "google/medgemma-1.5-4b-it", "type": "model-name"}]
    assert [v["value"] for v in device["version"]] == ["f" * 64, "vllm 0.32.0", "0.1.0"]
    assert CANARY not in json.dumps(device)
    assert "77" not in json.dumps(device["identifier"])


@pytest.mark.parametrize("model", ["smollm2", "/srv/models/medgemma", "a/b/c", "./x"])
def test_a_model_that_is_not_a_hub_name_has_no_manufacturer(model: str) -> None:
    run = make_run()
    run = replace(run, inputs=replace(run.inputs, model=model))
    assert "manufacturer" not in resource(build(run), "Device")


def test_every_entry_is_created_on_a_condition_so_that_a_repeat_finds_it() -> None:
    bundle = build(make_run())
    by_key = f"identifier=urn:epicrisis:run-key|{RUN_KEY}"
    card = shared(bundle, "urn:epicrisis:model-card")["resource"]["identifier"][0]["value"]
    expected = [
        ("Device", f"identifier=urn:epicrisis:model|{'f' * 64}"),
        ("DocumentReference", f"identifier=urn:epicrisis:prompt|{'b' * 64}"),
        ("DocumentReference", f"identifier=urn:epicrisis:model-card|{card}"),
        ("DocumentReference", by_key),
        ("Provenance", f"target:DocumentReference.{by_key}"),
    ]
    assert bundle["type"] == "transaction"
    assert [(e["request"]["url"], e["request"]["ifNoneExist"]) for e in bundle["entry"]] == expected
    assert {e["request"]["method"] for e in bundle["entry"]} == {"POST"}
    assert all(e["fullUrl"].startswith("urn:uuid:") for e in bundle["entry"])


def test_a_condition_cannot_be_widened_by_an_odd_model_digest() -> None:
    run = make_run()
    run = replace(run, inputs=replace(run.inputs, model_digest="unknown:a,b|c$d\\e&status=x y+z"))
    condition = request(build(run), "Device")["ifNoneExist"]
    assert (
        condition
        == "identifier=urn:epicrisis:model|unknown:a%5C%2Cb%5C%7Cc%5C%24d%5C%5Ce%26status%3Dx%20y%2Bz"
    )


def test_provenance_can_be_put_under_an_id_of_ours() -> None:
    bundle = build(make_run(), WriteProfile(provenance="put"))
    provenance = resource(bundle, "Provenance")
    assert provenance["id"] == f"epicrisis-{RUN_KEY[:40]}"
    assert request(bundle, "Provenance") == {"method": "PUT", "url": f"Provenance/{provenance['id']}"}
    assert len(provenance["id"]) <= 64


def test_what_was_built_reads_back_as_r4() -> None:
    bundle = Bundle.model_validate_json(json.dumps(build(make_run())))
    assert bundle.entry is not None
    document = bundle.entry[3].resource
    assert isinstance(document, DocumentReference)
    assert document.docStatus == "preliminary"
    assert document.subject is not None
    assert document.subject.reference == "Patient/77"


@pytest.mark.parametrize(
    ("profile", "lost"),
    [
        (WriteProfile(keeps_doc_status=False), "docStatus"),
        (WriteProfile(keeps_labels=False), "the AI label"),
        (WriteProfile(keeps_doc_status=False, keeps_labels=False), "docStatus and the AI label"),
    ],
)
def test_a_server_that_would_drop_the_label_is_not_written_to(profile: WriteProfile, lost: str) -> None:
    for check in (lambda: check_profile(profile), lambda: build(make_run(), profile)):
        with pytest.raises(FilingError, match=lost) as caught:
            check()
        assert CANARY not in str(caught.value)
    check_profile(WriteProfile())


@pytest.mark.parametrize("level", ["N", "R", "V"])
def test_a_site_can_raise_the_confidentiality_of_its_drafts(level: Any) -> None:
    bundle = build(make_run(), WriteProfile(confidentiality=level))
    for kind in ("DocumentReference", "Provenance"):
        assert codes(resource(bundle, kind)["meta"]["security"])[2][1] == level


def test_no_draft_for_the_deceased() -> None:
    run = varied(make_run(), identity=replace(IDENTITY, deceased=True))
    said = refusal(run.summary)
    assert said is not None
    assert "deceased" in said
    assert CANARY not in said
    with pytest.raises(FilingError, match="deceased"):
        build(run)


def test_an_incomplete_summary_is_not_filed_by_itself() -> None:
    said = refusal(make_summary(incomplete=("Allergies", "Active problems")))
    assert said is not None
    assert said.startswith("INCOMPLETE: not retrieved: Allergies, Active problems")
    assert refusal(make_summary()) is None


def _section(*claims: Any) -> tuple[SummarySection, ...]:
    return (SummarySection("x", "X", claims),)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sections": _section(claim(f"{CANARY}", DIABETES, verdict=Verdict.NOT_CHECKED))}, "bears it out"),
        ({"sections": _section(claim(f"{CANARY}"))}, "bears it out"),
        ({"facts": ()}, "not in the summary"),
        ({"identity": replace(IDENTITY, reference="Patient/78")}, "another patient"),
    ],
)
def test_nothing_is_filed_that_breaks_a_promise(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(FilingError, match=reason) as caught:
        build(varied(make_run(), **changes))
    assert CANARY not in str(caught.value)


def test_a_patient_without_an_id_on_the_server_is_not_filed() -> None:
    run = make_run(patient="urn:uuid:1")
    with pytest.raises(FilingError, match="no id on the server"):
        build(varied(run, identity=replace(IDENTITY, reference="urn:uuid:1")))


def test_what_is_not_valid_fhir_is_refused_without_repeating_it() -> None:
    run = make_run()
    broken: Any = ["bad", CANARY]
    with pytest.raises(FilingError, match="not valid FHIR R4") as caught:
        build(replace(run, inputs=replace(run.inputs, template_digest=broken)))
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(), max_size=80))
@example("\ud800")
def test_any_text_in_the_record_gives_a_valid_transaction(text: str) -> None:
    facts = (
        replace(DIABETES, name=text, text=text, source=ResourceVersion(text, text, "0" * 64)),
        replace(A1C, source=ResourceVersion("Observation/a1c", text, "a" * 64)),
    )
    run = varied(
        make_run(),
        identity=replace(IDENTITY, name=text, birth_date=text, record_number=text),
        facts=facts,
        sections=_section(claim(text, *facts)),
    )
    run = replace(run, inputs=replace(run.inputs, model=text, engine_version=text, model_digest=text or "x"))
    json.dumps(build(run)).encode()
