"""Attesting with a clinician's changes on a real server, and recalls of two people at the command line."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import TimedOut
from fixtures.servers import SekmetServer
from service.errors import FilingError, StoreError
from service.filing.attest import amend, attest
from service.ports import Documents, Receipt
from service.writeback.lasting import Change
from tests.acceptance.conftest import Run
from tests.acceptance.filing import ACTOR, Hands, hands_on
from tests.acceptance.test_filing_commands import chart, states

__all__ = ["chart"]

ROE, POE = "Practitioner/roe", "Practitioner/poe"
AT = "2026-11-20T10:00:00Z"
OWN = "Her daughter says that the sugar was never treated."
CHANGES = (Change(1, ROE, AT, OWN), Change(2, ROE, AT))


@pytest.fixture
async def hands(sekmet: SekmetServer, tmp_path: Path) -> AsyncIterator[Hands]:
    async with hands_on(sekmet.base_url, tmp_path / "home") as opened:
        for number in ("roe", "poe"):
            opened.put({"resourceType": "Practitioner", "id": number})
        yield opened
        for document in opened.search("DocumentReference?patient=Patient/77&_count=1000"):
            opened.put({**document, "status": "entered-in-error", "docStatus": "entered-in-error"})


def text_of(document: dict[str, Any]) -> str:
    attached = (content["attachment"] for content in document["content"])
    return next(base64.b64decode(a["data"]).decode() for a in attached if "text/plain" in a["contentType"])


def plain(document: str) -> str:
    return document.partition("/_history")[0]


class LosesTheAnswer:
    """The server, whose first answer to a write never arrives."""

    def __init__(self, ehr: Documents) -> None:
        self._ehr, self.is_lost = ehr, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ehr, name)

    async def file(self, bundle: dict[str, Any]) -> Receipt:
        receipt = await self._ehr.file(bundle)
        if not self.is_lost:
            self.is_lost = True
            raise TimedOut("The server did not answer in time.")
        return receipt


async def test_an_attestation_whose_answer_was_lost_is_completed_and_stands_once(hands: Hands) -> None:
    draft = await hands.file("a1")
    hands.desk = replace(hands.desk, ehr=LosesTheAnswer(hands.desk.ehr))
    with pytest.raises(TimedOut):
        await attest(hands.desk, draft, by=ROE, actor=ACTOR, changes=CHANGES)
    done = [plain(await attest(hands.desk, draft, by=ROE, actor=ACTOR, changes=CHANGES)) for _ in range(2)]
    assert len(set(done)) == 1
    assert hands.states(draft, done[0]) == [("superseded", "preliminary"), ("current", "final")]
    assert f"- {OWN}\nWritten by {ROE}" in text_of(hands.get(done[0]))
    assert OWN not in text_of(hands.get(draft))
    assert hands.provenances(done[0]) == ["LA"]
    known = hands.store.get_document(hands.base, done[0])
    assert known is not None
    assert known.attested_by == ROE


async def test_what_was_attested_is_not_attested_again_with_other_words_or_by_another(hands: Hands) -> None:
    draft = await hands.file("a2")
    final = plain(await attest(hands.desk, draft, by=ROE, actor=ACTOR, changes=CHANGES))
    before = hands.get(final)
    for by, changes in ((ROE, ()), (ROE, CHANGES[:1]), (POE, CHANGES)):
        with pytest.raises(FilingError, match="attested already"):
            await attest(hands.desk, draft, by=by, actor=ACTOR, changes=changes)
    assert hands.get(final) == before


async def test_many_at_once_attest_one_text(hands: Hands) -> None:
    draft = await hands.file("a3")
    done = await asyncio.gather(
        *(attest(hands.desk, draft, by=ROE, actor=ACTOR, changes=CHANGES) for _ in range(6))
    )
    assert len({plain(document) for document in done}) == 1
    finals = [
        one
        for one in hands.search("DocumentReference?patient=Patient/77&_count=1000")
        if (one["status"], one.get("docStatus")) == ("current", "final")
    ]
    assert len(finals) == 1


async def test_a_crash_after_the_write_leaves_nothing_half_done(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = await hands.file("a4")
    with monkeypatch.context() as patch:

        def full(*given: object) -> None:
            raise StoreError("the disk is full")

        patch.setattr(hands.store, "put_document", full)
        with pytest.raises(StoreError):
            await attest(hands.desk, draft, by=ROE, actor=ACTOR, changes=CHANGES)
    final = plain(await attest(hands.desk, draft, by=ROE, actor=ACTOR, changes=CHANGES))
    assert hands.states(draft, final) == [("superseded", "preliminary"), ("current", "final")]
    assert hands.store.get_document(hands.base, final) is not None


async def test_a_draft_that_somebody_changed_in_the_ehr_is_not_attested(hands: Hands) -> None:
    draft = await hands.file("a5")
    document = hands.get(draft)
    document["content"] = document["content"][1:]
    hands.put(document)
    with pytest.raises(FilingError, match="changed"):
        await attest(hands.desk, draft, by=ROE, actor=ACTOR, changes=CHANGES)
    assert hands.states(draft) == [("current", "preliminary")]


async def test_what_is_added_later_keeps_the_clinicians_words(hands: Hands) -> None:
    final = plain(await attest(hands.desk, await hands.file("a6"), by=ROE, actor=ACTOR, changes=CHANGES))
    amended = plain(await amend(hands.desk, final, by=POE, text="She moved.", actor=ACTOR))
    said = text_of(hands.get(amended))
    assert f"- {OWN}\nWritten by {ROE}" in said
    assert f"A statement of the AI was left out here by {ROE}" in said
    assert f"Added by {POE}" in said


def test_a_recall_by_two_people_at_the_command_line(epicrisis: Run, sekmet: SekmetServer, chart: str) -> None:
    url = ("--fhir-url", sekmet.base_url, "--json")
    drafted = epicrisis("summarize", chart, *url)
    assert drafted.code == 0, drafted.stderr
    document = plain(drafted.json["document"])
    wanted = ("recall", "--prompt", "history", "--propose", "--reason", "Wrong template.")
    assert epicrisis(*wanted, *url).code == 3  # nobody is named
    proposed = epicrisis(*wanted, "--by", ROE, *url)
    assert proposed.code == 0, proposed.stderr
    approve = ("recall", "--approve", proposed.json["proposal"], "--by")
    assert epicrisis(*approve, ROE, *url).code == 11
    done = epicrisis(*approve, POE, *url)
    assert done.code == 0, done.stderr
    assert done.json["not_withdrawn"] == []
    assert done.json["withdrawn"] >= 1
    assert states(sekmet, document) == ("entered-in-error", "entered-in-error")
    assert epicrisis(*approve, POE, *url).code == 11  # decided already
