"""`epicrisis verify`: a document proves itself on its server, and each planted change is named."""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.errors import NotFoundError
from connectors.fhir.client import FhirClient
from fixtures.charts import LOINC, SCT, canary_bundle, canary_patient, concept, status
from fixtures.servers import SekmetServer
from service.grounding.summary import Claim, Origin, SummarySection, Verdict
from service.ports import RunId, StoredRun
from service.proof.check import Prover
from service.proof.report import Report, State
from service.record.facts import Fact, Kind
from service.settings import load_settings
from service.signing import KEY_FILE, Signer
from service.wiring import open_store
from service.writeback.transaction import build_transaction
from tests.acceptance.conftest import Run
from tests.acceptance.test_faults import start_command
from tests.conftest import CANARY

PATIENT = "proof"
EACH = 20
NOTE = "\n".join(f"Seen on the ward, day {n}: walks {n}0 metres without aid." for n in range(1, EACH + 1))


def chart() -> list[dict[str, Any]]:
    """Twenty problems, twenty results and a note of twenty sentences."""
    subject = {"reference": f"Patient/{PATIENT}"}
    problems = [
        {
            "resourceType": "Condition", "id": f"proof-c{n}", "subject": subject,
            "clinicalStatus": status("condition-clinical", "active"),
            "verificationStatus": status("condition-ver-status", "confirmed"),
            "code": {"coding": [{"system": SCT, "code": str(90560007 + n)}], "text": f"Finding {word}"},
            "onsetDateTime": f"2011-03-{n:02d}",
        }
        for n, word in enumerate(WORDS, 1)
    ]  # fmt: skip
    results = [
        {
            "resourceType": "Observation", "id": f"proof-o{n}", "subject": subject, "status": "final",
            "code": concept(LOINC, "4548-4", "Hemoglobin A1c"),
            "effectiveDateTime": f"2020-11-{n:02d}",
            "valueQuantity": {"value": 5 + n / 10, "unit": "%", "system": "http://unitsofmeasure.org",
                              "code": "%"},
        }
        for n in range(1, EACH + 1)
    ]  # fmt: skip
    text = base64.b64encode(NOTE.encode()).decode()
    note = {
        "resourceType": "DocumentReference", "id": "proof-note", "subject": subject, "status": "current",
        "type": concept(LOINC, "11506-3", "Progress note"), "date": "2021-05-03T10:00:00Z",
        "content": [{"attachment": {"contentType": "text/plain", "data": text}}],
    }  # fmt: skip
    return [canary_patient(PATIENT), *problems, *results, note]


WORDS = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa "
    "quebec romeo sierra tango"
).split()


@dataclass(frozen=True)
class Bench:
    """One chart on the server, a run over it that states sixty things, and the key it is signed with."""

    server: SekmetServer
    run: StoredRun
    signer: Signer

    def bundle(self, run: StoredRun | None = None) -> dict[str, Any]:
        return build_transaction(run or self.run, software_version="0.1.0", sign=self.signer.sign)

    def document(self, run: StoredRun | None = None) -> dict[str, Any]:
        return next(
            copy.deepcopy(entry["resource"])
            for entry in self.bundle(run)["entry"]
            if entry["resource"].get("subject", {}).get("reference") == f"Patient/{PATIENT}"
        )

    @cached_property
    def untouched(self) -> dict[str, Any]:
        return self.document()

    def check(self, content: Any, wrap: Callable[[FhirClient], Any] = lambda client: client) -> Report:
        async def go() -> Report:
            async with FhirClient(self.server.base_url) as client:
                prover = Prover(wrap(client), self.signer.jwks(), base_url=self.server.base_url)
                return await prover.check(content)

        return asyncio.run(go())


def load(server: SekmetServer, resources: list[dict[str, Any]]) -> None:
    for resource in resources:
        url = f"{server.base_url}/{resource['resourceType']}/{resource['id']}"
        httpx.put(url, json=resource, timeout=30).raise_for_status()


def stored(tmp_home: Path, run_id: str) -> StoredRun:
    store, audit = open_store(load_settings(home=tmp_home))
    try:
        run = store.get(RunId(run_id))
    finally:
        store.close()
        audit.close()
    assert run is not None
    return run


def stating(run: StoredRun) -> StoredRun:
    """The run with one statement of the model for each problem, result and sentence of the note."""
    claims = []
    for fact in run.summary.facts:
        if fact.kind is Kind.PROBLEM or fact.kind is Kind.RESULT or fact.span is not None:
            claims.append(Claim("all", fact.text, (fact.id,), Origin.MODEL, Verdict.SUPPORTED))
    summary = replace(run.summary, sections=(SummarySection("all", "All", tuple(claims)),))
    return replace(run, summary=summary)


@pytest.fixture(scope="module")
def bench(sekmet: SekmetServer, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    home = tmp_path_factory.mktemp("bench")
    load(sekmet, chart())
    arguments = ("summarize", PATIENT, "--fhir-url", sekmet.base_url, "--dry-run", "--json")
    process = start_command(home, *arguments)
    told, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    run = stating(stored(home / "home", json.loads(told)["run_id"]))
    return Bench(sekmet, run, Signer.from_file(home / "home" / KEY_FILE))


def proof_of(document: dict[str, Any]) -> dict[str, Any]:
    form = json.loads(base64.b64decode(form_of(document, "application/json")["data"]))
    assert isinstance(form, dict)
    return form


def form_of(document: dict[str, Any], media_type: str) -> dict[str, Any]:
    (found,) = (
        c["attachment"] for c in document["content"] if c["attachment"]["contentType"].startswith(media_type)
    )
    assert isinstance(found, dict)
    return found


def rewrite(document: dict[str, Any], media_type: str, change: Callable[[bytes], bytes]) -> dict[str, Any]:
    """Change one form, with the size and the hash that belong to it: as one who knows FHIR would."""
    form = form_of(document, media_type)
    data = change(base64.b64decode(form["data"]))
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    form |= {
        "data": base64.b64encode(data).decode(),
        "size": len(data),
        "hash": base64.b64encode(digest).decode(),
    }
    return document


def change_proof(document: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    def apply(data: bytes) -> bytes:
        form = json.loads(data)
        change(form)
        return json.dumps(form).encode()

    return rewrite(document, "application/json", apply)


def change_statement(document: dict[str, Any], place: int, **more: Any) -> dict[str, Any]:
    return change_proof(document, lambda form: form["sections"][0]["statements"][place].update(more))


def replace_bytes(document: dict[str, Any], media_type: str, old: str, new: str) -> dict[str, Any]:
    return rewrite(document, media_type, lambda data: data.replace(old.encode(), new.encode()))


def fact_at(run: StoredRun, place: int) -> Fact:
    return run.summary.fact(run.summary.published[place].citations[0])


def source_of(bench: Bench, place: int) -> str:
    return f"source {proof_of(bench.untouched)['sections'][0]['statements'][place]['sources'][0]}"


def named(report: Report) -> set[tuple[str, str]]:
    return {(finding.code, finding.where) for finding in report.findings}


def replace_claim(run: StoredRun, place: int, **more: Any) -> StoredRun:
    (section,) = run.summary.sections
    claims = list(section.claims)
    claims[place] = replace(claims[place], **more)
    return replace(run, summary=replace(run.summary, sections=(replace(section, claims=tuple(claims)),)))


def replace_fact(run: StoredRun, place: int, **more: Any) -> StoredRun:
    cited = run.summary.published[place].citations[0]
    facts = tuple(replace(f, **more) if f.id == cited else f for f in run.summary.facts)
    return replace(run, summary=replace(run.summary, facts=facts))


def places(run: StoredRun, wanted: Callable[[Fact], bool]) -> list[int]:
    return [
        n for n, claim in enumerate(run.summary.published) if wanted(run.summary.fact(claim.citations[0]))
    ]


def test_the_untouched_document_is_valid_as_resource_and_as_its_json_form(bench: Bench) -> None:
    document = bench.document()
    for content in (document, proof_of(document)):
        report = bench.check(content)
        assert report.findings == ()
        assert report.state is State.VALID
        assert (report.statements, report.sources) == (3 * EACH, 3 * EACH)


Planted = tuple[Any, set[tuple[str, str]]]
"""A document with one change, and the findings (code, where) that must name it."""


def wrong_numbers(bench: Bench, results: list[int]) -> Iterator[Planted]:
    """A number in a claim: in the text form, in the proof, or before signing, so that all forms agree."""
    for turn, place in enumerate(results):
        where, text = f"statement {place + 1}", bench.run.summary.published[place].text
        other = text.replace(" %", "9 %")
        document = copy.deepcopy(bench.untouched)
        if turn % 3 == 0:
            changed = replace_bytes(document, "text/plain", text, other)
            yield changed, {("claim_differs", where), ("form_differs", "text/plain")}
        elif turn % 3 == 1:
            changed = change_statement(document, place, text=other)
            named_so = {
                "wrong_signature": "document",
                "claim_differs": where,
                "verdict_does_not_follow": where,
            }
            yield changed, set(named_so.items())
        else:
            changed = bench.document(replace_claim(bench.run, place, text=other))
            yield changed, {("verdict_does_not_follow", where)}


def wrong_citations(bench: Bench, problems: list[int], results: list[int]) -> Iterator[Planted]:
    """A citation: of nothing, or before signing of another entry."""
    for turn, place in enumerate(problems):
        where = f"statement {place + 1}"
        if turn % 2:
            changed = change_statement(copy.deepcopy(bench.untouched), place, sources=[999])
            yield changed, {("citation_missing", where), ("wrong_signature", "document")}
        else:
            other = bench.run.summary.published[results[turn]].citations
            changed = bench.document(replace_claim(bench.run, place, citations=other))
            yield changed, {("verdict_does_not_follow", where)}


def wrong_spans(bench: Bench, spans: list[int]) -> Iterator[Planted]:
    """The place of a sentence in its note, before signing."""
    for place in spans:
        span = fact_at(bench.run, place).span
        assert span is not None
        moved = bench.document(replace_fact(bench.run, place, span=(span[0] + 1, span[1] + 1)))
        yield moved, {("span_not_in_note", source_of(bench, place))}


def wrong_digests(bench: Bench, problems: list[int]) -> Iterator[Planted]:
    """The digest of a source, before signing."""
    for place in problems:
        source = replace(fact_at(bench.run, place).source, digest="0" * 64)
        changed = bench.document(replace_fact(bench.run, place, source=source))
        yield changed, {("source_digest_differs", source_of(bench, place))}


def kinds(bench: Bench) -> tuple[list[int], list[int], list[int]]:
    """The places of the statements about results, problems and sentences of the note."""
    results = places(bench.run, lambda fact: fact.kind is Kind.RESULT)
    problems = places(bench.run, lambda fact: fact.kind is Kind.PROBLEM)
    spans = places(bench.run, lambda fact: fact.span is not None)
    assert len(results) == len(problems) == len(spans) == EACH
    return results, problems, spans


def test_eighty_documents_with_one_planted_change_each_are_all_named(bench: Bench) -> None:
    results, problems, spans = kinds(bench)
    planted = [
        *wrong_numbers(bench, results),
        *wrong_citations(bench, problems, results),
        *wrong_spans(bench, spans),
        *wrong_digests(bench, problems),
    ]
    assert len(planted) == 4 * EACH
    as_read = Remembering().over
    for document, expected in planted:
        report = bench.check(document, as_read)
        assert expected <= named(report)
        assert report.state is State.ALTERED


def test_each_of_twenty_sources_that_changed_on_the_server_is_named(bench: Bench) -> None:
    originals = {f"{r['resourceType']}/{r['id']}": r for r in chart()}
    for turn, place in enumerate(kinds(bench)[0]):
        resource, source = originals[fact_at(bench.run, place).source.reference], source_of(bench, place)
        load(bench.server, [{**resource, "valueQuantity": {**resource["valueQuantity"], "value": 44 + turn}}])
        report = bench.check(bench.untouched)
        assert named(report) == {("source_changed_since", source)}
        assert report.state is State.VALID
        without = bench.check(bench.untouched, WithoutHistory)
        assert ("version_not_kept", source) in named(without)
        assert without.state is State.CANNOT_CHECK
        load(bench.server, [resource])


def test_a_source_that_was_deleted_is_named_and_its_version_is_still_checked(bench: Bench) -> None:
    place = kinds(bench)[0][3]
    original = next(
        r for r in chart() if f"Observation/{r['id']}" == fact_at(bench.run, place).source.reference
    )
    url = f"{bench.server.base_url}/{fact_at(bench.run, place).source.reference}"
    httpx.delete(url, timeout=30).raise_for_status()
    report = bench.check(bench.untouched)
    assert named(report) == {("source_deleted_since", source_of(bench, place))}
    without = bench.check(bench.untouched, WithoutHistory)
    assert ("source_not_found", source_of(bench, place)) in named(without)
    load(bench.server, [original])


@dataclass
class Remembering:
    """A server as it was when first read, so that a hundred documents about one chart cost one reading."""

    client: Any = None
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def over(self, client: FhirClient) -> Remembering:
        self.client = client
        return self

    async def read(self, reference: str) -> dict[str, Any]:
        if reference not in self.known:
            self.known[reference] = await self.client.read(reference)
        return copy.deepcopy(self.known[reference])


class WithoutHistory:
    """A server that keeps no versions."""

    def __init__(self, client: FhirClient) -> None:
        self._client = client

    async def read(self, reference: str) -> dict[str, Any]:
        if "/_history/" in reference:
            raise NotFoundError("There is no such resource.")
        return await self._client.read(reference)


def test_a_server_without_history_is_enough_while_nothing_changed(bench: Bench) -> None:
    assert bench.check(bench.document(), WithoutHistory).state is State.VALID


def test_unsigned_unknown_and_stripped(bench: Bench, tmp_path: Path) -> None:
    unsigned = change_proof(bench.document(), lambda form: form.pop("signature"))
    assert bench.check(unsigned).state is State.UNSIGNED
    stranger = replace(bench, signer=Signer.from_file(tmp_path / "other.key"))
    report = stranger.check(bench.document())
    assert named(report) == {("unknown_key", "document")}
    assert report.state is State.CANNOT_CHECK
    without = bench.document()
    without["content"] = [c for c in without["content"] if "/json" not in c["attachment"]["contentType"]]
    assert bench.check(without).state is State.CANNOT_CHECK


def test_a_form_whose_size_or_hash_is_wrong_is_named(bench: Bench) -> None:
    document = bench.document()
    form_of(document, "text/plain")["size"] += 1
    form_of(document, "application/xhtml")["hash"] = base64.b64encode(b"0" * 20).decode()
    form_of(document, "application/fhir+json")["data"] = "?"
    report = bench.check(document)
    assert {
        ("attachment_size_differs", "text/plain"),
        ("attachment_hash_differs", "application/xhtml+xml"),
        ("attachment_not_readable", "application/fhir+json"),
    } <= named(report)
    assert report.state is State.ALTERED


def test_a_document_under_another_patient_or_key_is_named(bench: Bench) -> None:
    document = bench.document()
    document["subject"] = {"reference": "Patient/other"}
    document["identifier"][0]["value"] = "0" * 64
    findings = [f for f in bench.check(document).findings if f.code == "document_differs"]
    assert {f.detail for f in findings} == {"subject", "identifier"}


def test_other_rules_are_named_and_are_no_fault(bench: Bench) -> None:
    run = replace(bench.run, inputs=replace(bench.run.inputs, rules_version="0"))
    report = bench.check(bench.document(run))
    assert named(report) == {("rules_differ", "document")}
    assert report.state is State.VALID


@pytest.mark.parametrize(
    "content", [None, 3, [], {}, {"format": "other/9"}, {"resourceType": "DocumentReference"}]
)
def test_what_is_no_document_cannot_be_checked(content: Any) -> None:
    assert asyncio.run(Prover().check(content)).state is State.CANNOT_CHECK


def file(server: SekmetServer, bundle: dict[str, Any]) -> str:
    answer = httpx.post(server.base_url, json=bundle, timeout=60)
    answer.raise_for_status()
    locations = [entry["response"]["location"] for entry in answer.json()["entry"]]
    return "DocumentReference/" + str(locations[3]).partition("DocumentReference/")[2].partition("/")[0]


def test_every_filed_document_passes_after_the_store_is_gone_and_the_command_says_so(
    epicrisis: Run, sekmet: SekmetServer, tmp_path: Path
) -> None:
    home, keys = tmp_path / "home", tmp_path / "jwks.json"
    filed = []
    load(sekmet, chart())
    for patient in ("kept1", "kept2", PATIENT):
        if patient != PATIENT:
            httpx.post(sekmet.base_url, json=canary_bundle(patient), timeout=30).raise_for_status()
        done = epicrisis("summarize", patient, "--fhir-url", sekmet.base_url, "--dry-run", "--json")
        signer = Signer.from_file(home / KEY_FILE)
        run = stored(home, done.json["run_id"])
        filed.append(file(sekmet, build_transaction(run, software_version="0.1.0", sign=signer.sign)))
    keys.write_text(json.dumps(signer.jwks()))
    shutil.rmtree(home)
    for document in filed:
        arguments = ("verify", document, "--fhir-url", sekmet.base_url, "--jwks", str(keys), "--json")
        ended = epicrisis(*arguments)
        assert (ended.code, ended.json["state"], ended.json["findings"]) == (0, "valid", []), ended.stderr
        assert ended.json["statements"] > 0
    assert not (home / "epicrisis.db").exists()
    assert CANARY not in ended.stdout + ended.stderr
    content = httpx.get(f"{sekmet.base_url}/{filed[0]}").json()
    path = tmp_path / "document.json"
    for name, change, code, state in (
        ("altered", lambda form: form["sections"][0].update(title="x"), 14, "altered"),
        ("unsigned", lambda form: form.pop("signature"), 15, "unsigned"),
    ):
        path.write_text(json.dumps(change_proof(copy.deepcopy(content), change)))
        ended = epicrisis("verify", str(path), "--fhir-url", sekmet.base_url, "--jwks", str(keys), "--json")
        assert (ended.code, ended.json["state"]) == (code, state), name
    path.write_text(json.dumps(proof_of(content)))
    ended = epicrisis("verify", str(path), "--jwks", str(keys))
    assert ended.code == 16
    assert "Cannot check" in ended.stdout
