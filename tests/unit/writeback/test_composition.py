"""The document as a FHIR document: it says what the other forms say, and its sections name their sources."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from fhir.resources.R4B.bundle import Bundle

from service.ports import StoredRun
from service.writeback import composition
from service.writeback.composition import encoded
from tests.conftest import CANARY
from tests.unit.writeback.charts import A1C, IDENTITY, RUN_KEY, make_run, make_summary, varied
from tests.unit.writeback.reading import build, forms, lines_of, page, resource

DIV = "{http://www.w3.org/1999/xhtml}"


def read(run: StoredRun) -> dict[str, Any]:
    decoded = json.loads(forms(run)["application/fhir+json"])
    assert isinstance(decoded, dict)
    return decoded


def test_it_is_a_valid_document_with_composition_patient_and_device() -> None:
    bundle = read(make_run())
    Bundle.model_validate(bundle)
    assert bundle["type"] == "document"
    assert bundle["identifier"] == {"system": "urn:epicrisis:run-key", "value": RUN_KEY}
    assert bundle["timestamp"] == "2026-11-20T09:30:15.250Z"
    composed, patient, device = (entry["resource"] for entry in bundle["entry"])
    names = [entry["fullUrl"] for entry in bundle["entry"]]
    assert [r["resourceType"] for r in (composed, patient, device)] == ["Composition", "Patient", "Device"]
    assert composed["subject"] == {"reference": names[1], "display": "Patient/77"}
    assert composed["author"] == [{"reference": names[2]}]
    assert patient["name"] == [{"text": f"Ada {CANARY}"}]
    assert patient["identifier"] == [{"value": "MRN-4711"}]
    assert patient["birthDate"] == "1951-05-04"


def test_it_is_a_labelled_draft() -> None:
    composed = read(make_run())["entry"][0]["resource"]
    document = resource(build(make_run()), "DocumentReference")
    assert composed["status"] == "preliminary"
    assert composed["title"] == "AI-GENERATED DRAFT, NOT REVIEWED"
    assert composed["type"] == document["type"]
    assert composed["meta"]["security"] == document["meta"]["security"]


def test_each_section_names_the_versions_that_its_statements_cite() -> None:
    allergies, problems, implants, orders, *_ = read(make_run())["entry"][0]["resource"]["section"]
    assert [entry.get("reference") for entry in allergies["entry"]] == ["AllergyIntolerance/3"]
    assert [entry.get("reference") for entry in problems["entry"]] == [
        "Condition/1/_history/2",
        "Observation/a1c/_history/3",
        None,
    ]
    assert "entry" not in implants
    assert "emptyReason" not in implants
    assert orders["emptyReason"]["coding"][0]["code"] == "unavailable"


def test_what_says_the_same_is_a_source_too() -> None:
    copy = replace(A1C.source, reference="Observation/copy", version="9")
    facts = tuple(replace(f, copies=(copy,)) if f.id == A1C.id else f for f in make_summary().facts)
    problems = read(varied(make_run(), facts=facts))["entry"][0]["resource"]["section"][1]
    assert {"reference": "Observation/copy/_history/9"} in problems["entry"]


def test_its_lines_are_those_of_the_page_with_the_banner_first_and_last() -> None:
    composed = read(make_run())["entry"][0]["resource"]
    texts = [composed["text"], *(section["text"] for section in composed["section"])]
    assert {text["status"] for text in texts} == {"generated"}
    told = [line for text in texts for line in lines(text["div"])]
    shown = lines_of(page(make_run()))
    assert sorted(told) == sorted(shown)
    assert told[0] == told[-1] == "AI-GENERATED DRAFT, NOT REVIEWED"


def lines(div: str) -> list[str]:
    tags = {f"{DIV}{tag}" for tag in ("p", "h2", "li")}
    return [
        "".join(element.itertext()) for element in ElementTree.fromstring(div).iter() if element.tag in tags
    ]


@pytest.mark.parametrize("born", ["", "soon", "1951-13-01", "1951-02-30", "1951-05-04T00:00:00Z"])
def test_a_patient_of_whom_nothing_is_recorded_is_nobody_in_particular(born: str) -> None:
    run = varied(make_run(), identity=replace(IDENTITY, name="", birth_date=born, record_number=""))
    bundle = read(run)
    Bundle.model_validate(bundle)
    assert bundle["entry"][1]["resource"] == {"resourceType": "Patient"}


def test_one_that_is_too_large_is_not_filed_and_the_other_forms_are(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    size = len(forms(run)["application/fhir+json"])
    monkeypatch.setattr(composition, "LARGEST_BYTES", size)
    assert encoded({"x": "y" * (size - len('{"x":""}'))}) is not None
    monkeypatch.setattr(composition, "LARGEST_BYTES", size - 1)
    filed = forms(run)
    assert list(filed) == ["text/plain", "application/xhtml+xml", "application/json"]
    assert [form["type"] for form in json.loads(filed["application/json"])["forms"]] == list(filed)[:2]
