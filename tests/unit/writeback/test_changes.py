"""What a clinician wrote in the place of a statement, or left out, in every form of the attested text."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle

from service.context.pictures import SECTION
from service.filing.proofs import additions_in, changes_in
from service.grounding.summary import SummarySection
from service.proof.forms import check_forms, open_document
from service.proof.statements import check_citations
from service.writeback.lasting import Addition, Change, filed_changes
from service.writeback.lifecycle import standing_of
from tests.unit.writeback.charts import NOTE, claim, make_run, varied
from tests.unit.writeback.test_lifecycle import BY, attested, draft, final_of

AT = "2026-11-20T09:30:15.250Z"
OWN = "Diabetes mellitus type 2 <since> 2011 & well controlled."
CHANGES = (Change(0, BY, AT), Change(1, BY, AT, OWN))
MACHINE = (
    "Allergy to Penicillin (active)",
    "Diabetes mellitus type 2, hemoglobin A1c 6.10 % on 25-Nov-2020.",
)
KEPT = "A progress note of 03-May-2021 calls it well controlled."


def forms(document: dict[str, Any]) -> dict[str, str]:
    attached = (content["attachment"] for content in document["content"])
    return {a["contentType"].partition(";")[0]: base64.b64decode(a["data"]).decode() for a in attached}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return final_of(attested(draft(), changes=CHANGES))


def test_it_is_valid_and_final(document: dict[str, Any]) -> None:
    Bundle.model_validate(attested(draft(), changes=CHANGES))
    assert (document["docStatus"], standing_of(document)) == ("final", "attested")


def test_each_human_readable_form_says_which_words_are_the_clinicians(document: dict[str, Any]) -> None:
    told = forms(document)
    lines = told["text/plain"].split("\n")
    place = lines.index(f"- {OWN}")
    assert lines[place + 1] == f"Written by {BY} on 20-Nov-2026 09:30 UTC, in place of a statement of the AI."
    assert f"A statement of the AI was left out here by {BY} on 20-Nov-2026 09:30 UTC." in lines
    assert lines[place + 2] == f"- {KEPT} [4] (citation corrected)"  # numbers stay those of the draft
    page = told["application/xhtml+xml"]
    assert "&lt;since&gt; 2011 &amp; well" in page
    assert "in place of a statement of the AI." in page
    for form in (told["text/plain"].partition("\nSources\n")[0], page.partition("Sources")[0]):
        assert not any(text in form for text in MACHINE)


def test_the_json_form_keeps_the_machines_words_beside_the_clinicians(document: dict[str, Any]) -> None:
    form = json.loads(forms(document)["application/json"])
    assert form["written"] == [
        {"section": "problem", "place": 2, "by": BY, "at": AT, "text": OWN, "in_place_of": MACHINE[1]}
    ]
    assert form["rejected"] == [{"section": "allergy", "place": 1, "by": BY, "at": AT}]
    assert [s["text"] for section in form["sections"] for s in section["statements"]] == [KEPT]


def test_a_composition_which_has_no_place_for_them_is_left_out(document: dict[str, Any]) -> None:
    assert "application/fhir+json" not in forms(document)
    assert "application/fhir+json" in forms(final_of(attested(draft())))


def test_whoever_checks_the_document_finds_its_forms_the_same_and_every_statement_cited(
    document: dict[str, Any],
) -> None:
    filed = open_document(document)
    findings = [*filed.findings, *check_forms(filed, None), *check_citations(filed.statements, filed.sources)]
    assert {finding.code for finding in findings} == {"not_signed"}


def test_what_was_changed_is_read_back_from_the_document(document: dict[str, Any]) -> None:
    assert changes_in(document) == CHANGES
    assert changes_in(final_of(attested(draft()))) == ()
    assert changes_in({**document, "content": document["content"][:1]}) is None
    broken = {"attachment": {"contentType": "application/json", "data": "e30="}}
    assert changes_in({**document, "content": [broken]}) == ()


def test_what_is_added_later_keeps_what_was_changed() -> None:
    theirs = (Addition(BY, AT, "Seen at home."),)
    amended = final_of(attested(draft(), changes=CHANGES, additions=theirs))
    assert amended["docStatus"] == "amended"
    assert (additions_in(amended), changes_in(amended)) == (theirs, CHANGES)
    assert f"- {OWN}" in forms(amended)["text/plain"]


def test_what_is_not_filed_of_pictures_shifts_no_change_to_another_statement() -> None:
    run = make_run()
    apart = SummarySection(SECTION, "Images", (claim("An opacity.", NOTE, section=SECTION),))
    first, *others = run.summary.sections
    with_pictures = varied(run, sections=(first, apart, *others))
    changes = (Change(0, BY, AT), Change(1, BY, AT, "Not filed."), Change(2, BY, AT, OWN))
    assert filed_changes(with_pictures, changes) == CHANGES
    assert filed_changes(run, CHANGES) == CHANGES
    filed = replace(with_pictures, inputs=replace(with_pictures.inputs, files_images=True))
    assert filed_changes(filed, changes) == changes
