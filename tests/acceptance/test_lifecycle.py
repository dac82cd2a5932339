"""What becomes of a document on real servers, looked at by plain GETs."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.errors import Forbidden
from fixtures.charts import canary_resources
from fixtures.servers import SekmetServer
from service.errors import FilingError
from service.filing.attest import amend, attest, attest_run
from service.filing.withdraw import DISCHARGED, expire, withdraw
from service.ports import Documents, DocumentState, Receipt, RunState, Stop, StopScope
from service.writeback.labels import BANNER
from tests.acceptance.conftest import Run
from tests.acceptance.filing import ACTOR, Hands, hands_on

DR_ROE, DR_POE = "Practitioner/roe", "Practitioner/poe"


@pytest.fixture(params=["sekmet", "medplum"])
async def hands(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Hands]:
    found = request.getfixturevalue(request.param)
    base = found.base_url if isinstance(found, SekmetServer) else found
    async with hands_on(base, tmp_path / "home") as opened:
        for clinician in (DR_ROE, DR_POE):
            kind, _, number = clinician.partition("/")
            opened.put({"resourceType": kind, "id": number})
        yield opened
        for document in opened.search("DocumentReference?patient=Patient/77&_count=1000"):
            opened.put({**document, "status": "entered-in-error", "docStatus": "entered-in-error"})


def forms(document: dict[str, Any]) -> dict[str, str]:
    """Media type → text of every form."""
    return {
        a["contentType"].partition(";")[0]: base64.b64decode(a["data"]).decode()
        for a in (content["attachment"] for content in document["content"])
    }


def key(request: pytest.FixtureRequest, number: int) -> str:
    return f"{abs(hash(request.node.nodeid)) % 16**8:08x}{number}"


@pytest.fixture
def number(request: pytest.FixtureRequest) -> Any:
    return lambda n: key(request, n)


async def test_an_attested_text_stays_current_and_a_new_draft_stands_beside_it(
    hands: Hands, number: Any
) -> None:
    draft = await hands.file(number(1))
    assert hands.states(draft) == [("current", "preliminary")]
    final = (await attest(hands.desk, draft, by=DR_ROE, actor=ACTOR)).partition("/_history")[0]
    assert hands.states(draft, final) == [("superseded", "preliminary"), ("current", "final")]

    second = await hands.file(number(2))
    assert hands.states(final, second) == [("current", "final"), ("current", "preliminary")]
    assert hands.get(second)["relatesTo"] == [{"code": "appends", "target": {"reference": final}}]

    newer = (await attest(hands.desk, second, by=DR_POE, actor=ACTOR)).partition("/_history")[0]
    assert hands.states(draft, final, second, newer) == [
        ("superseded", "preliminary"),
        ("superseded", "final"),
        ("superseded", "preliminary"),
        ("current", "final"),
    ]
    assert {(r["code"], r["target"]["reference"]) for r in hands.get(newer)["relatesTo"]} == {
        ("replaces", second),
        ("replaces", final),
    }
    assert hands.provenances(draft) == ["CREATE"]
    assert hands.provenances(newer) == ["LA"]


@pytest.mark.parametrize("server", ["sekmet", "medplum"])
def test_after_an_attestation_an_unchanged_chart_is_unchanged_and_a_changed_one_gets_a_draft_beside_it(
    server: str, request: pytest.FixtureRequest, epicrisis: Run
) -> None:
    found = request.getfixturevalue(server)
    base = found.base_url if isinstance(found, SekmetServer) else found

    def get(path: str) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{base}/{path}", trust_env=False, timeout=60).json()
        return answer

    def documents() -> dict[str, tuple[str, str]]:
        entries = get("DocumentReference?patient=Patient/unchanged&_count=1000").get("entry", [])
        return {
            f"DocumentReference/{one['id']}": (one["status"], one["docStatus"])
            for one in (entry["resource"] for entry in entries)
            if "docStatus" in one
        }

    clinician = {"resourceType": "Practitioner", "id": "roe", "name": [{"family": "Roe"}]}
    for resource in (*canary_resources("unchanged"), clinician):
        url = f"{base}/{resource['resourceType']}/{resource['id']}"
        httpx.put(url, json=resource, trust_env=False).raise_for_status()
    command = ("summarize", "unchanged", "--fhir-url", base, "--json")
    drafted = epicrisis(*command).json["document"].partition("/_history")[0]
    final = epicrisis("attest", drafted, "--by", DR_ROE, "--fhir-url", base, "--json").json["document"]
    final = final.partition("/_history")[0]
    before = documents()
    assert before == {drafted: ("superseded", "preliminary"), final: ("current", "final")}
    provenances = len(get("Provenance?_count=1000").get("entry", []))
    for _ in range(2):
        assert epicrisis(*command).json["state"] == "unchanged"
    assert documents() == before
    assert len(get("Provenance?_count=1000").get("entry", [])) == provenances

    changed = {
        "resourceType": "Condition",
        "id": "unchanged-new",
        "subject": {"reference": "Patient/unchanged"},
        "code": {"text": "Atrial fibrillation"},
    }
    httpx.put(f"{base}/Condition/unchanged-new", json=changed, trust_env=False).raise_for_status()
    outcome = epicrisis(*command).json
    second = outcome["document"].partition("/_history")[0]
    assert outcome["state"] == "filed"
    assert documents() == {**before, second: ("current", "preliminary")}
    assert get(second)["relatesTo"] == [{"code": "appends", "target": {"reference": final}}]


async def test_an_attested_document_says_who_and_no_longer_that_it_is_a_draft(
    hands: Hands, number: Any
) -> None:
    draft = hands.get(await hands.file(number(1)))
    assert all(BANNER in text for text in forms(draft).values())
    assert [c["code"] for c in draft["type"]["coding"]] == ["11503-0", "ai-draft-summary"]
    final = await attest(hands.desk, f"DocumentReference/{draft['id']}", by=DR_ROE, actor=ACTOR)
    document = hands.get(final.partition("/_history")[0])
    assert set(forms(document)) == set(forms(draft))
    for text in (*forms(document).values(), document["description"]):
        assert "DRAFT" not in text.upper().replace("DRAFT-SUMMARY", "")
        assert f"ATTESTED BY {DR_ROE}" in text
    assert document["authenticator"] == {"reference": DR_ROE}
    assert document["author"] == draft["author"]
    assert [c["code"] for c in document["type"]["coding"]] == ["60591-5"]
    assert {x["code"] for x in document["meta"]["security"]} == {"AIAST", "NOPAT", "N"}
    proof = json.loads(forms(document)["application/json"])
    assert proof["sections"] == json.loads(forms(draft)["application/json"])["sections"]
    (provenance,) = [p for p in hands.search("Provenance?_count=1000") if document["id"] in str(p["target"])]
    assert provenance["target"][0]["reference"] == final
    assert provenance["target"][1]["reference"].startswith(f"DocumentReference/{draft['id']}/_history/")
    kinds = [a["type"]["coding"][0]["code"] for a in provenance["agent"]]
    assert kinds == ["assembler", "verifier"]


async def test_attesting_twice_is_once_and_by_another_is_refused(hands: Hands, number: Any) -> None:
    draft = await hands.file(number(1))
    once = await attest(hands.desk, draft, by=DR_ROE, actor=ACTOR)
    assert (await attest(hands.desk, draft, by=DR_ROE, actor=ACTOR)).split("/")[1] == once.split("/")[1]
    with pytest.raises(FilingError, match="by someone else"):
        await attest(hands.desk, draft, by=DR_POE, actor=ACTOR)
    with pytest.raises(FilingError, match="clinician"):
        await attest(hands.desk, await hands.file(number(2)), by="Device/1", actor=ACTOR)
    assert hands.provenances(once.partition("/_history")[0]) == ["LA"]


async def test_someone_elses_change_of_the_text_is_not_overwritten(hands: Hands, number: Any) -> None:
    draft = hands.get(await hands.file(number(1)))
    edited = {**draft, "content": [{"attachment": {"contentType": "text/plain", "data": "bXkgdGV4dA=="}}]}
    hands.put(edited)
    with pytest.raises(FilingError, match="Someone changed the text"):
        await attest(hands.desk, f"DocumentReference/{draft['id']}", by=DR_ROE, actor=ACTOR)
    assert hands.get(f"DocumentReference/{draft['id']}")["content"] == edited["content"]
    hands.later(hours=73)
    (left,) = [e for e in await expire(hands.desk, hands.now, actor=ACTOR) if draft["id"] in e.document]
    assert left.result == "left: someone changed it in the EHR"
    assert hands.states(f"DocumentReference/{draft['id']}") == [("current", "preliminary")]


async def test_what_others_added_beside_the_text_is_carried_over(hands: Hands, number: Any) -> None:
    draft = hands.get(await hands.file(number(1)))
    hands.put({**draft, "custodian": {"display": "Ward 7"}})
    final = await attest(hands.desk, f"DocumentReference/{draft['id']}", by=DR_ROE, actor=ACTOR)
    for reference in (final.partition("/_history")[0], f"DocumentReference/{draft['id']}"):
        assert hands.get(reference)["custodian"] == {"display": "Ward 7"}


async def test_only_the_version_that_was_reviewed_is_attested(hands: Hands, number: Any) -> None:
    draft = hands.get(await hands.file(number(1)))
    hands.put({**draft, "custodian": {"display": "Ward 7"}})
    reviewed = f"DocumentReference/{draft['id']}/_history/{draft['meta']['versionId']}"
    with pytest.raises(FilingError, match="changed after this version"):
        await attest(hands.desk, reviewed, by=DR_ROE, actor=ACTOR)


async def test_an_older_draft_never_replaces_a_newer_attested_text(hands: Hands, number: Any) -> None:
    older, newer = await hands.file(number(1)), await hands.file(number(2))
    await attest(hands.desk, newer, by=DR_ROE, actor=ACTOR)
    with pytest.raises(FilingError, match="newer summary"):
        await attest(hands.desk, older, by=DR_ROE, actor=ACTOR)


async def test_an_amendment_marks_what_is_the_clinicians(hands: Hands, number: Any) -> None:
    draft = await hands.file(number(1))
    final = (await attest(hands.desk, draft, by=DR_ROE, actor=ACTOR)).partition("/_history")[0]
    first = await amend(hands.desk, final, by=DR_POE, text="Family was called.", actor=ACTOR)
    second = await amend(hands.desk, first, by=DR_ROE, text="Daughter visits.", actor=ACTOR)
    first, second = (one.partition("/_history")[0] for one in (first, second))
    assert hands.states(final, first, second) == [
        ("superseded", "final"),
        ("superseded", "amended"),
        ("current", "amended"),
    ]
    text = forms(hands.get(second))["text/plain"]
    assert f"Added by {DR_POE}" in text
    assert text.index("Family was called.") < text.index("Daughter visits.") < text.index("Sources")
    assert hands.provenances(second) == ["APPEND"]


async def test_a_withdrawal_is_in_both_statuses_and_leaves_the_text(hands: Hands, number: Any) -> None:
    reference = await hands.file(number(1))
    content = hands.get(reference)["content"]
    for done_now in (True, False):
        done = await withdraw(hands.desk, reference, reason="Wrong patient.", by=DR_ROE, actor=ACTOR)
        assert done.done_now is done_now
    assert hands.states(reference) == [("entered-in-error", "entered-in-error")]
    assert hands.get(reference)["content"] == content
    assert hands.provenances(reference) == ["CREATE", "NULLIFY"]
    again = hands.store.find_by_key(number(1).rjust(64, "0"))
    assert again is not None
    assert "withdrawn" in (await hands.publish(again)).reason
    row = hands.store.get_document(hands.base, reference)
    assert row is not None
    assert (row.state, row.reason) == (DocumentState.WITHDRAWN, "Wrong patient.")


async def test_with_an_attested_text_goes_the_draft_that_it_was_made_from(hands: Hands, number: Any) -> None:
    older = (await attest(hands.desk, await hands.file(number(1)), by=DR_ROE, actor=ACTOR)).split("/_h")[0]
    draft = await hands.file(number(2))
    final = (await attest(hands.desk, draft, by=DR_ROE, actor=ACTOR)).split("/_h")[0]
    amended = (await amend(hands.desk, final, by=DR_POE, text="Daughter visits.", actor=ACTOR)).split("/_h")[
        0
    ]
    for _ in range(2):
        done = await withdraw(hands.desk, amended, reason="Wrong.", by=DR_ROE, actor=ACTOR)
        assert (done.origins, done.not_withdrawn) == ((final, draft), ())
    assert set(hands.states(amended, final, draft)) == {("entered-in-error", "entered-in-error")}
    assert hands.states(older) == [("superseded", "final")]
    assert [hands.provenances(one).count("NULLIFY") for one in (amended, final, draft)] == [1, 1, 1]
    row = hands.store.get_document(hands.base, draft)
    assert row is not None
    assert (row.state, row.reason) == (DocumentState.WITHDRAWN, "Wrong.")


async def test_a_draft_that_cannot_go_along_is_listed(hands: Hands, number: Any) -> None:
    draft = await hands.file(number(1))
    final = (await attest(hands.desk, draft, by=DR_ROE, actor=ACTOR)).split("/_h")[0]
    weak = replace(hands.desk, ehr=Refusing(hands.desk.ehr, draft))
    done = await withdraw(weak, final, reason="Wrong.", by=DR_ROE, actor=ACTOR)
    assert (done.done_now, done.origins, done.not_withdrawn) == (True, (), (f"{draft}: forbidden",))
    assert hands.states(final, draft) == [
        ("entered-in-error", "entered-in-error"),
        ("superseded", "preliminary"),
    ]


class Refusing:
    """A server that lets nobody change one document."""

    def __init__(self, ehr: Documents, document: str) -> None:
        self._ehr, self._document = ehr, document
        self.base_url = ehr.base_url

    async def read(self, reference: str) -> dict[str, Any]:
        return await self._ehr.read(reference)

    async def search(self, resource_type: str, params: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        return await self._ehr.search(resource_type, params)

    async def file(self, bundle: dict[str, Any]) -> Receipt:
        if any(entry["request"]["url"] == self._document for entry in bundle["entry"]):
            raise Forbidden("The server denies this.")
        return await self._ehr.file(bundle)


async def test_what_is_not_ours_is_left_alone(hands: Hands, number: Any) -> None:
    foreign = {**hands.get(await hands.file(number(1))), "id": "foreign", "identifier": []}
    del foreign["identifier"]
    hands.put(foreign)
    with pytest.raises(FilingError, match="not written by Epicrisis"):
        await withdraw(hands.desk, "DocumentReference/foreign", reason="x", by="x", actor=ACTOR)


async def test_drafts_expire_after_72_hours_or_with_their_encounter(hands: Hands, number: Any) -> None:
    stay = {
        "resourceType": "Encounter",
        "id": "stay",
        "status": "in-progress",
        "class": {"code": "IMP"},
        "subject": {"reference": "Patient/77"},
    }
    hands.put(stay)
    old = await hands.file(number(1))
    hands.later(hours=71)
    staying = await hands.file(number(2), inputs={"encounter": "Encounter/stay"})
    kept = await hands.file(number(3))
    final = (await attest(hands.desk, kept, by=DR_ROE, actor=ACTOR)).partition("/_history")[0]
    hands.put({**stay, "status": "finished"})
    assert [e.result for e in await expire(hands.desk, hands.now, actor=ACTOR)] == ["withdrawn"]
    row = hands.store.get_document(hands.base, staying)
    assert row is not None
    assert row.reason == DISCHARGED
    hands.later(hours=2)
    assert [e.document for e in await expire(hands.desk, hands.now, actor=ACTOR)] == [old]
    hands.later(hours=200)
    assert await expire(hands.desk, hands.now, actor=ACTOR) == []
    assert hands.states(old, staying, final) == [
        ("entered-in-error", "entered-in-error"),
        ("entered-in-error", "entered-in-error"),
        ("current", "final"),
    ]


async def test_a_site_that_files_attested_texts_only(hands: Hands, number: Any, tmp_path: Path) -> None:
    async with hands_on(hands.base, tmp_path / "attested", file_when="attested") as site:
        run = site.draft(number(1))
        done = await site.publish(run)
        assert (done.state, done.document) == (RunState.GENERATED, "")
        assert site.search(f"DocumentReference?identifier=urn:epicrisis:run-key|{run.inputs.key}") == []
        final = await attest_run(site.desk, run, by=DR_ROE, actor=ACTOR)
        assert await attest_run(site.desk, run, by=DR_ROE, actor=ACTOR) == final
        assert site.states(final.partition("/_history")[0]) == [("current", "final")]
        assert site.provenances(final.partition("/_history")[0]) == ["LA"]
        stored = site.store.get(run.run_id)
        assert stored is not None
        assert (stored.state, stored.document) == (RunState.FILED, final)


@pytest.mark.parametrize(
    ("scope", "value"),
    [
        (StopScope.ALL, ""),
        (StopScope.MODEL, "f" * 64),
        (StopScope.PROMPT, "history"),
        (StopScope.PROMPT, "history@3"),
    ],
)
async def test_a_stop_halts_publishing_at_once_until_it_is_lifted(
    hands: Hands, number: Any, scope: StopScope, value: str
) -> None:
    run = hands.draft(number(1))
    hands.store.add_stop(Stop(scope, value, hands.now, ACTOR))
    done = await hands.publish(run)
    assert (done.state, done.document) == (RunState.GENERATED, "")
    assert hands.search(f"DocumentReference?identifier=urn:epicrisis:run-key|{run.inputs.key}") == []
    assert hands.store.lift_stop(scope, value, ACTOR, hands.now) == 1
    assert (await hands.publish(run)).state is RunState.FILED
