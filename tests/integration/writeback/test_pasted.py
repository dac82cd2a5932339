"""Ten documents of our own in one chart, three pasted into clinicians' notes, one attested with an edit.

The documents are those that real runs file; the notes hold them as people paste: whole, reflowed without
bullets and citations, and as two statements inside a sentence.
"""

from __future__ import annotations

import base64
import json
import re
import textwrap
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from fixtures.charts import canary_resources
from fixtures.facts import NOW
from service.context.choose import choose_facts
from service.context.manifest import NO_EVIDENCE, manifest_of
from service.grounding.claims import CitedClaim, judge_claims
from service.ports import StoredRun
from service.record import echo
from service.record.assemble import assemble_record
from service.record.facts import Fact, PatientRecord
from service.record.required import required_facts
from service.writeback.labels import BANNER
from service.writeback.transaction import build_transaction
from tests.unit.context.charts import FREE, HISTORY, count
from tests.unit.test_summarize import Bench
from tests.unit.writeback.charts import make_run

BEFORE = "Seen on the ward, slept well and ate her breakfast."
AFTER = "Recheck potassium and call the daughter."
AGREES = "I spoke with the pharmacist about the furosemide, who will ring back."
BEFORE_TOO = "No complaints on the round, and her appetite is back."
AFTER_TOO = "Home on Friday if the stairs go well."
AS_IT_HAS = "Her son asked me what this means:"
EDIT = "Patient tells me that the rash came with amoxicillin in 1998."


async def filed_runs(attempts: Sequence[int]) -> list[StoredRun]:
    bench = Bench()
    for attempt in attempts:
        await bench.run(attempt=attempt, dry_run=True)
    return bench.store.runs


def document_of(run: StoredRun, name: str) -> dict[str, Any]:
    """The document that a run files, as a server gives it back."""
    bundle = build_transaction(run, software_version="0")
    found = [e["resource"] for e in bundle["entry"] if e["resource"].get("docStatus") == "preliminary"]
    assert len(found) == 1
    return {**found[0], "id": name, "meta": {**found[0]["meta"], "versionId": "1"}}


def packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def text_of(document: dict[str, Any]) -> str:
    data = next(
        c["attachment"]["data"]
        for c in document["content"]
        if c["attachment"]["contentType"].startswith("text/plain")
    )
    return base64.b64decode(data).decode()


def with_text(document: dict[str, Any], text: str) -> dict[str, Any]:
    plain = {"contentType": "text/plain; charset=utf-8", "data": packed(text)}
    rest = [c for c in document["content"] if not c["attachment"]["contentType"].startswith("text/plain")]
    return {**document, "content": [{"attachment": plain}, *rest]}


def attested(document: dict[str, Any], text: str) -> dict[str, Any]:
    by = {"authenticator": {"reference": "Practitioner/d", "display": "Dr. Weiss"}, "docStatus": "final"}
    return {**with_text(document, text), **by}


def note(name: str, text: str, days: int = 1) -> dict[str, Any]:
    return {
        "resourceType": "DocumentReference",
        "id": name,
        "status": "current",
        "type": {"text": "Progress note"},
        "subject": {"reference": "Patient/1"},
        "author": [{"display": "Dr. Weiss"}],
        "date": (NOW + timedelta(days=days)).isoformat(),
        "content": [{"attachment": {"contentType": "text/plain", "data": packed(text)}}],
    }


def statements_of(text: str) -> list[str]:
    """The lines of a document that state something of the patient, without bullet, citation and mark."""
    lines = [line[2:] for line in text.split("\n") if line.startswith("- ") and re.search(r"\[\d+\]", line)]
    return [re.split(r" \[\d+\]", line)[0] for line in lines]


def reflowed(text: str) -> str:
    """As an editor leaves it: no bullets, no citations, no rules, one paragraph of 68 columns."""
    start, end = text.index("\n\n"), text.index("\nSources\n")
    lines = [line.strip("-• ") for line in text[start:end].split("\n")]
    said = " ".join(re.sub(r"\[\d+\]", "", line) for line in lines if line)
    return textwrap.fill(re.sub(r"\s+", " ", said), 68)


def edited(text: str) -> str:
    """The text of a document with a sentence that a person added below its first statement."""
    first = next(line for line in text.split("\n") if re.search(r"\[\d+\]", line))
    return text.replace(first, f"{first}\n{EDIT}", 1)


NOTES: dict[str, Callable[[str], str]] = {
    "whole": lambda text: f"{BEFORE}\n\n{text}\n\n{AFTER}\n",
    "reflowed": lambda text: f"{BEFORE_TOO}\n\n{reflowed(text)}\n\n{AFTER_TOO}\n",
    "quoting": lambda text: f"{AS_IT_HAS} {statements_of(text)[1]}\n{AGREES}\n",
}
OWN = {"whole": [BEFORE, AFTER], "reflowed": [BEFORE_TOO, AFTER_TOO], "quoting": [f"{AS_IT_HAS} […]", AGREES]}


async def chart() -> tuple[list[dict[str, Any]], dict[str, str], list[str]]:
    """The resources, the texts of the notes as filed, and all that the documents state."""
    documents = [document_of(run, f"own-{n}") for n, run in enumerate(await filed_runs(range(1, 11)))]
    texts = [text_of(document) for document in documents]
    notes = {name: make(texts[place]) for place, (name, make) in enumerate(NOTES.items())}
    documents[9] = attested(documents[9], edited(texts[9]))
    resources = [*canary_resources("1"), *documents, *(note(name, text) for name, text in notes.items())]
    return resources, notes, sorted({s for text in texts for s in statements_of(text)})


def passages(record: PatientRecord, name: str) -> list[Fact]:
    return [f for f in record.facts if f.span and f.source.reference == f"DocumentReference/{name}"]


def evidence(record: PatientRecord) -> str:
    """Everything that a note's fact could lend to a statement."""
    notes = [f for f in record.facts if f.source.reference.startswith("DocumentReference/")]
    return "\n".join(part for fact in notes for part in (fact.text, fact.value, fact.body))


async def test_nothing_of_ours_is_evidence_and_every_sentence_of_a_person_is() -> None:
    resources, notes, stated = await chart()
    record = assemble_record(resources, "1")
    assert len(stated) >= 8
    said = evidence(record)
    assert [s for s in stated if s in said] == []
    assert BANNER not in said
    assert {name: [f.value for f in passages(record, name)] for name in NOTES} == OWN
    for name, text in notes.items():
        for fact in passages(record, name):
            assert fact.span is not None
            written = " ".join(text[slice(*fact.span)].split())
            assert written == fact.value or (name == "quoting" and written.startswith(AS_IT_HAS))
    assert [f.value for f in passages(record, "own-9")] == [EDIT]
    assert record.skipped["own_output"] == 9


async def test_an_addition_is_its_authors_and_not_the_machines() -> None:
    resources, _, _ = await chart()
    (added,) = passages(assemble_record(resources, "1"), "own-9")
    assert added.author == "Dr. Weiss"
    assert added.text.startswith("Clinician's addition to a drafted summary")
    assert "AI" not in added.text


async def test_what_people_wrote_can_be_cited_and_what_was_pasted_cannot() -> None:
    resources, _, stated = await chart()
    record = assemble_record(resources, "1")
    theirs = [f for name in (*NOTES, "own-9") for f in passages(record, name) if echo.ELIDED not in f.value]
    assert len(theirs) == 6
    for fact in theirs:
        assert verdict(record, fact.text, fact.source.reference) == "supported", fact.value
    for name in NOTES:
        for sentence in stated:
            text = f"Progress note of 25-Nov-2026 by Dr. Weiss: “{sentence}”"
            assert verdict(record, text, f"DocumentReference/{name}") != "supported", sentence


def verdict(record: PatientRecord, text: str, cites: str) -> str:
    (judged,) = judge_claims(record, [CitedClaim(text, (cites,))])
    return judged.verdict


async def test_what_was_left_out_is_counted_in_the_manifest() -> None:
    resources, _, _ = await chart()
    record = assemble_record(resources, "1")
    context = choose_facts(record, required_facts(record), HISTORY, FREE, 8000, count)
    counted = {item.kind: item.count for item in context.left_out if item.reason == NO_EVIDENCE}
    assert counted == {"ai_document": 9, "ai_passage": record.pasted}
    assert record.pasted > 30
    assert f"Entries written by an AI: 9 ({NO_EVIDENCE})" in manifest_of(context)


async def test_what_was_pasted_makes_no_other_fact_and_our_documents_change_no_digest() -> None:
    resources, notes, _ = await chart()
    plain = [r for r in resources if not r["id"].startswith("own-") and r["id"] not in notes]
    record, bare = assemble_record(resources, "1"), assemble_record(plain, "1")
    others = [f for f in record.facts if not f.source.reference.startswith("DocumentReference/")]
    assert others == list(bare.facts)
    without_ours = assemble_record(
        [r for r in resources if r["id"] not in {f"own-{n}" for n in range(9)}], "1"
    )
    assert without_ours.digest == record.digest


async def test_an_attested_document_without_an_edit_or_without_its_json_is_no_evidence() -> None:
    (run,) = await filed_runs([1])
    document = document_of(run, "own")
    text = text_of(document)
    same = assemble_record([*canary_resources("1"), attested(document, text)], "1")
    assert passages(same, "own") == []
    assert same.skipped == {"own_output": 1}
    bare = attested(document, edited(text))
    bare["content"] = bare["content"][:1]
    lost = assemble_record([*canary_resources("1"), bare], "1")
    assert passages(lost, "own") == []
    assert any("human made final" in problem for problem in lost.problems)


@pytest.mark.parametrize(("old", "new"), [("Gout", "Pseudogout"), ("2011", "2012")])
async def test_a_statement_that_a_person_changed_is_that_persons(old: str, new: str) -> None:
    (run,) = await filed_runs([1])
    document = document_of(run, "own")
    text = text_of(document)
    line = next(line for line in text.split("\n") if line.startswith("- ") and old in line)
    changed = attested(document, text.replace(line, line.replace(old, new)))
    found = passages(assemble_record([*canary_resources("1"), changed], "1"), "own")
    assert len(found) == 1
    assert new in found[0].value


def test_no_line_of_a_rich_document_passes_for_a_persons() -> None:
    """Guards the lines that the JSON form does not hold word for word against a change of the page."""
    document = document_of(make_run(), "own")
    patient = {"resourceType": "Patient", "id": "77"}
    text = text_of(document)
    record = assemble_record([patient, attested(document, text)], "77")
    assert [f.value for f in passages(record, "own")] == []
    added = assemble_record([patient, attested(document, f"{text}\n\n{EDIT}")], "77")
    assert [f.value for f in passages(added, "own")] == [EDIT]


def test_the_banner_is_the_one_that_is_written() -> None:
    assert echo.BANNER == BANNER


@pytest.mark.parametrize("make", ["whole", "one line"])
async def test_a_paste_between_banners_is_known_without_our_document(make: str) -> None:
    (run,) = await filed_runs([1])
    text = text_of(document_of(run, "own"))
    pasted = text if make == "whole" else " ".join(text.split())
    filed = f"{BEFORE}\n\n{pasted}\n\n{AFTER}"
    record = assemble_record([*canary_resources("1"), note("n", filed)], "1")
    assert [f.value for f in passages(record, "n")] == [BEFORE, AFTER]
    assert record.pasted > 0


async def test_a_note_that_was_there_before_the_draft_keeps_what_the_draft_repeats() -> None:
    sentence = "Patient is on warfarin for atrial fibrillation and tolerates it well."
    bench = Bench()
    original = note("first", sentence, days=-30)
    bench.ehr.more = [original]
    await bench.run(dry_run=True)
    document = document_of(bench.store.runs[0], "own")
    changed = document | {"content": [{"attachment": {
        "contentType": "text/plain",
        "data": base64.b64encode(f"{BANNER}\n- {sentence} [1]\n{BANNER}".encode()).decode(),
    }}]}  # fmt: skip
    later = note("later", f"{sentence}\n{AFTER}")
    record = assemble_record([*canary_resources("1"), changed, original, later], "1")
    assert [f.value for f in passages(record, "first")] == [sentence]
    assert [f.value for f in passages(record, "later")] == [AFTER]
    reread = {**original, "meta": {"lastUpdated": (NOW + timedelta(days=9)).isoformat()}}
    again = assemble_record([*canary_resources("1"), document, reread], "1")
    assert [f.value for f in passages(again, "first")] == [sentence]


def form_of(document: dict[str, Any]) -> dict[str, Any]:
    found = next(
        c["attachment"] for c in document["content"] if c["attachment"]["contentType"] == "application/json"
    )
    assert isinstance(found, dict)
    return found


async def test_a_version_that_the_draft_cites_was_there_before_it_whatever_its_date_says() -> None:
    (run,) = await filed_runs([1])
    sentence = "Patient is on warfarin for atrial fibrillation and tolerates it well."
    original = note("first", sentence)
    digest = next(i.digest for i in assemble_record([*canary_resources("1"), original], "1").inputs
                  if i.reference == "DocumentReference/first")  # fmt: skip
    source = {"reference": "DocumentReference/first", "sha256": digest}
    form = {"format": "epicrisis-summary/1", "sections": [{"statements": [{"text": sentence}]}]}
    for sources, expected in (([source], [sentence]), ([], [])):
        draft = document_of(run, "own")
        form_of(draft)["data"] = packed(json.dumps({**form, "sources": sources}))
        record = assemble_record([*canary_resources("1"), draft, original], "1")
        assert [f.value for f in passages(record, "first")] == expected


async def test_the_json_of_another_program_and_a_restricted_label_keep_an_edit_out() -> None:
    (run,) = await filed_runs([1])
    document = document_of(run, "own")
    mine = attested(document, edited(text_of(document)))
    restricted = {**mine, "securityLabel": [{"coding": [{"code": "R"}]}]}
    assert passages(assemble_record([*canary_resources("1"), restricted], "1"), "own") == []
    form = form_of(mine)
    data = json.loads(base64.b64decode(form["data"]))
    form["data"] = packed(json.dumps({**data, "format": "other/1"}))
    assert passages(assemble_record([*canary_resources("1"), mine], "1"), "own") == []


async def test_a_draft_that_only_links_to_its_text_is_read_and_is_no_input() -> None:
    (run,) = await filed_runs([1])
    document = document_of(run, "own")
    linked = {"contentType": "text/plain", "url": "Binary/text"}
    draft = {**document, "content": [{"attachment": linked}]}
    filed = note("n", f"{BEFORE}\n\n{reflowed(text_of(document))}\n")
    fetched = {"Binary/text": text_of(document).encode()}
    device = {"resourceType": "Device", "id": "d", "identifier": [{"system": "urn:epicrisis:model"}]}
    record = assemble_record([*canary_resources("1"), filed, draft, device], "1", binaries=fetched)
    assert [f.value for f in passages(record, "n")] == [BEFORE]
    assert not any(version.reference == "Binary/text" for version in record.inputs)
    context = choose_facts(record, required_facts(record), HISTORY, FREE, 8000, count)
    assert {i.kind: i.count for i in context.left_out if i.reason == NO_EVIDENCE}["ai_document"] == 1
