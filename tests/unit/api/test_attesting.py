"""The rooms of clinicians: who verifies, what must be decided on, what is hidden, recalled and withheld."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from connectors.errors import TimedOut
from fixtures.sample_run import sample_run
from service import recall as recalling
from service.api.app import create_app
from service.api.review.attesting import Attesting
from service.api.review.glass import Glasses
from service.api.review.recall import Recalls
from service.errors import StoreError
from service.filing.desk import Desk as FilingDesk
from service.filing.desk import Manner
from service.identity.visitor import Role, Visitor
from service.ports import Action, DocumentState, FiledDocument, Stop, StopScope, StoredRun, Wanted
from service.ports.attesting import Act, Attested, Disposal, Edit, ProposalState
from service.recall import Recall, Recalled
from service.record.facts import Code
from service.review.attesting import items_of
from tests.conftest import CANARY
from tests.contract.context.published import OneChart
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.api.sidebar.desk import Desk as Sidebars
from tests.unit.api.sidebar.desk import a_launch
from tests.unit.ask.in_memory import InMemoryFeedback
from tests.unit.in_memory_attesting import InMemoryAttesting

NOW = datetime.fromisoformat("2026-11-24T09:00:00+00:00")
ROE = "Practitioner/roe"
RUN = sample_run(run_id="filed")
PLACE = "/review/attest/filed"
CLINICIAN = Visitor("user:roe", frozenset({Role.CLINICIAN}), ROE)
REVIEWER = Visitor("user:rev", frozenset({Role.REVIEWER}))


class Turned(OpenDoor):
    """Whoever a test says comes in."""


@dataclass
class Filing:
    """Stands for the record system: remembers what was asked of it."""

    asked: list[tuple[str, str, str, tuple[Any, ...]]] = field(default_factory=list)
    error: Exception | None = None

    async def attest(
        self, desk: FilingDesk, document: str, *, by: str, actor: str, changes: tuple[Any, ...] = ()
    ) -> str:
        if self.error is not None:
            raise self.error
        self.asked.append((document, by, actor, changes))
        return "DocumentReference/9/_history/1"


@dataclass
class Site:
    """One application with the rooms, and everything that a test may turn."""

    run: StoredRun = RUN
    visitor: Visitor = CLINICIAN
    now: datetime = NOW
    is_ours: bool = True

    def __post_init__(self) -> None:
        self.store, self.kept = InMemoryStore(self.run), InMemoryAttesting()
        self.audit, self.feedback = InMemoryAudit(), InMemoryFeedback()
        self.door = Turned(self.visitor)
        self.attesting = Attesting(
            self.store, self.kept, self.audit, lambda: self.now, lambda server: self.is_ours, self.desk,
            self.feedback,
        )  # fmt: skip
        self.recalls = Recalls(self.store, self.kept, self.audit, lambda: self.now, self.desk)
        self.glasses = Glasses(self.store, self.kept, self.audit, lambda: self.now)
        self.app: FastAPI = create_app(
            store=self.store, audit=self.audit, clock=lambda: self.now, access=self.door,
            allowed_hosts=("127.0.0.1",), version="0", rooms=[self.attesting, self.recalls, self.glasses],
            feedback=self.feedback, guard=self.glasses.guard, attesting=self.kept,
        )  # fmt: skip

    @asynccontextmanager
    async def desk(self) -> AsyncIterator[FilingDesk]:
        yield FilingDesk(OneChart([]), self.store, self.store, self.audit, lambda: self.now, Manner("0"))

    async def send(self, method: str, path: str, **fields: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        headers = {"sec-fetch-site": "same-origin"}
        more: dict[str, Any] = {"data": fields} if method == "POST" else {}
        if method == "POST" and not fields:
            more = {"content": "", "headers": {"content-type": "application/x-www-form-urlencoded"}}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", headers=headers
        ) as client:
            return await client.request(method, path, **more)

    async def get(self, path: str = PLACE) -> httpx.Response:
        return await self.send("GET", path)

    async def decide(self, item: str, act: str = "accepted", **more: str) -> httpx.Response:
        return await self.send("POST", f"{PLACE}/decide", item=item, act=act, **more)

    async def decide_all(self) -> None:
        for item in items_of(self.run.summary):
            if item.why:
                assert (await self.decide(item.key)).status_code == 303

    def as_who(self, visitor: Visitor) -> None:
        self.door.visitor = visitor


@pytest.fixture
def filing(monkeypatch: pytest.MonkeyPatch) -> Filing:
    one = Filing()
    monkeypatch.setattr("service.api.review.attesting.attest", one.attest)
    monkeypatch.setattr(
        "service.api.review.attesting.attest_run",
        lambda desk, run, **more: one.attest(desk, "", **more),
    )
    return one


async def test_attesting_waits_until_each_conflict_and_each_added_fact_is_decided_on(filing: Filing) -> None:
    site = Site()
    await site.get()
    must = [item for item in items_of(RUN.summary) if item.why]
    assert len(must) > 3
    for item in must:
        answer = await site.send("POST", f"{PLACE}/attest")
        assert answer.status_code == 409
        assert "must be decided on first" in answer.text
        await site.decide(item.key)
    assert filing.asked == []
    assert (await site.send("POST", f"{PLACE}/attest")).status_code == 303
    assert len(filing.asked) == 1


async def test_the_verifier_is_of_the_token_whatever_a_form_says(filing: Filing) -> None:
    site = Site()
    await site.get()
    await site.decide_all()
    forged = {"by": "Practitioner/evil", "fhirUser": "Practitioner/evil", "opened_at": "2020-01-01T00:00:00Z"}
    await site.send("POST", f"{PLACE}/attest", **forged)
    ((_, by, actor, _),) = filing.asked
    assert (by, actor) == (ROE, "user:roe")
    kept = site.kept.attested["filed"]
    assert (kept.by, kept.actor, kept.opened_at) == (ROE, "user:roe", NOW)
    assert kept.is_hasty


@pytest.mark.parametrize(
    ("visitor", "is_ours"),
    [(replace(CLINICIAN, fhir_user=""), True), (CLINICIAN, False)],
    ids=["no fhirUser", "another server"],
)
async def test_whom_the_token_does_not_name_there_is_refused_and_that_is_on_record(
    filing: Filing, visitor: Visitor, is_ours: bool
) -> None:
    site = Site(visitor=visitor, is_ours=is_ours)
    page = await site.get()
    assert page.status_code == 200
    assert "You cannot attest this summary" in page.text
    for act in ("decide", "attest", "withdraw", "undo"):
        answer = await site.send("POST", f"{PLACE}/{act}", item="claim-0", act="accepted", by=ROE)
        assert answer.status_code == 403
    assert filing.asked == []
    assert site.kept.decisions == []
    assert sum(entry.action is Action.REFUSED for entry in site.audit.entries) == 4


@pytest.mark.parametrize("role", sorted(set(Role) - {Role.CLINICIAN}))
async def test_nobody_but_a_clinician_sees_the_page(role: Role) -> None:
    site = Site(visitor=Visitor("user:x", frozenset({role}), ROE))
    assert (await site.get()).status_code == 403
    assert (await site.send("POST", f"{PLACE}/hide", reason="x")).status_code == 403


async def test_refused_statements_are_not_shown_and_the_machines_text_stays_beside_an_edit() -> None:
    site = Site()
    text = RUN.summary.published[0].text
    own = f"{text} and more"
    await site.decide("claim-0", "edited", text=f"  {own}\n")
    page = (await site.get()).text
    assert text in page
    assert "<ins>" in page
    assert all(claim.text not in page for claim in RUN.summary.refused)
    (edit,) = site.kept.edits_of(RUN.run_id, "user:roe")
    assert (edit.before, edit.after, edit.by, edit.distance) == (text, own, ROE, len(" and more"))
    assert site.store.get(RUN.run_id) == RUN  # the stored summary never changes


@pytest.mark.parametrize(("text", "status"), [("", 409), (" . ", 409), ("x" * 2001, 400)])
async def test_words_that_are_none_or_too_many_are_no_edit(text: str, status: int) -> None:
    site = Site()
    assert (await site.decide("claim-0", "edited", text=text)).status_code == status
    assert site.kept.decisions == []


async def test_the_machines_own_words_are_an_acceptance() -> None:
    site = Site()
    await site.decide("claim-0", "edited", text=RUN.summary.published[0].text)
    assert [one.act for one in site.kept.disposals(RUN.run_id, "user:roe")] == [Act.ACCEPTED]


@pytest.mark.parametrize(
    "fields",
    [
        {"item": "claim-999", "act": "accepted"},
        {"item": "claim-0", "act": "published"},
        {"item": "conflict-allergies", "act": "rejected"},
        {"act": "accepted"},
    ],
)
async def test_what_cannot_be_decided_is_not_understood(fields: dict[str, str]) -> None:
    site = Site()
    assert (await site.send("POST", f"{PLACE}/decide", **fields)).status_code == 400
    assert site.kept.decisions == []


async def test_an_attestation_that_fails_is_told_and_keeps_nothing(filing: Filing) -> None:
    site = Site()
    await site.get()
    await site.decide_all()
    filing.error = TimedOut("no answer")
    answer = await site.send("POST", f"{PLACE}/attest")
    assert answer.status_code == 409
    assert "The record system did not take it" in answer.text
    assert site.kept.attested == {}


@pytest.mark.parametrize(
    ("state", "named"), [(DocumentState.ATTESTED, ""), (DocumentState.DRAFT, RUN.document)]
)
async def test_one_that_was_cut_off_after_it_was_filed_without_a_draft_is_completed(
    filing: Filing, state: DocumentState, named: str
) -> None:
    site = Site()
    await site.get()
    await site.decide_all()
    document = RUN.document.partition("/_history")[0]
    site.store.put_document(
        FiledDocument(document, OneChart([]).base_url, "1", RUN.run_id, RUN.inputs.patient, state, NOW)
    )
    assert (await site.send("POST", f"{PLACE}/attest")).status_code == 303
    assert [one[0] for one in filing.asked] == [named]


async def test_after_the_attestation_nothing_is_decided_any_more(filing: Filing) -> None:
    site = Site()
    await site.get()
    await site.decide_all()
    site.now += timedelta(seconds=11)
    await site.send("POST", f"{PLACE}/attest")
    assert not site.kept.attested["filed"].is_hasty
    for act in ("attest", "undo"):
        assert (await site.send("POST", f"{PLACE}/{act}")).status_code == 409
    assert (await site.decide("claim-0", "rejected")).status_code == 409
    assert len(filing.asked) == 1


async def test_what_one_clinician_decided_is_not_what_another_attests(filing: Filing) -> None:
    site = Site()
    await site.get()
    await site.decide_all()
    site.as_who(Visitor("user:poe", frozenset({Role.CLINICIAN}), "Practitioner/poe"))
    await site.get()
    assert (await site.send("POST", f"{PLACE}/attest")).status_code == 409
    assert filing.asked == []


def changed(kept: InMemoryAttesting, run: StoredRun, *, is_attested: bool) -> str:
    """Edit the first statement and leave out the second; return the clinician's words."""
    now, first = NOW, run.summary.published[0]
    more = ("Patient/1", "user:roe", ROE)
    edit = Edit(run.run_id, 0, first.text, "In my own words.", 9, ROE, now, "user:roe")
    kept.dispose(Disposal(run.run_id, *more, Act.EDITED, now, 0), edit)
    kept.dispose(Disposal(run.run_id, *more, Act.REJECTED, now, 1))
    if is_attested:
        kept.keep_attested(
            Attested(run.run_id, "Patient/1", "DocumentReference/9", ROE, "user:roe", now, now, 1, 9, 99, 1)
        )
    return edit.after


@pytest.mark.parametrize("is_attested", [True, False])
async def test_every_page_shows_what_was_attested_in_the_place_of_the_machines_text(
    is_attested: bool,
) -> None:
    site = Site(visitor=Visitor("user:reader", frozenset({Role.READER})))
    own = changed(site.kept, RUN, is_attested=is_attested)
    page = (await site.get("/runs/filed")).text
    assert (own in page) is is_attested
    assert page.count("<del>") == (2 if is_attested else 0)
    assert ("who attested this text" in page) is is_attested


def test_the_sidebar_shows_what_was_attested_in_the_place_of_the_machines_text() -> None:
    sidebars, kept = Sidebars(launch=replace(a_launch(), fhir_user=ROE)), InMemoryAttesting()
    launched(sidebars, kept)
    own = changed(kept, sidebars.runs[0], is_attested=True)
    page = sidebars.get("/sidebar/summary").text
    assert own in page
    assert "who attested this text" in page


async def test_hiding_needs_a_reason_and_hides_the_text_on_this_page_too() -> None:
    site = Site(visitor=replace(CLINICIAN, fhir_user=""))
    assert (await site.send("POST", f"{PLACE}/hide", reason=" ")).status_code == 409
    assert site.kept.hidden() == []
    assert (await site.send("POST", f"{PLACE}/hide", reason="Somebody else's.")).status_code == 303
    page = await site.get()
    assert "hidden from everybody" in page.text
    assert RUN.summary.published[0].text not in page.text
    entry = next(one for one in site.audit.entries if one.action is Action.STOP)
    assert (entry.outcome, entry.actor) == ("stopped:run", "user:roe")
    await site.send("POST", f"{PLACE}/lift")
    assert site.kept.hidden() == []


async def test_what_cannot_be_recorded_is_not_done() -> None:
    site = Site()
    site.audit.break_down()
    for act in ("decide", "hide", "lift"):
        answer = await site.send("POST", f"{PLACE}/{act}", item="claim-0", act="accepted", reason="x")
        assert answer.status_code == 503
    assert (await site.get()).status_code == 503
    assert (site.kept.decisions, site.kept.hiding) == ([], [])


# Within a launch

LAUNCHED = "/sidebar/attest"


def launched(sidebars: Sidebars, kept: InMemoryAttesting) -> Callable[..., httpx.Response]:
    """The sidebar's application with the room in it; returns what sends a request of the launch."""
    room = Attesting(
        sidebars.store, kept, sidebars.audit, lambda: sidebars.now, lambda server: True,
        nothing, sidebars.feedback, sidebars.room.why_not_whole,
    )  # fmt: skip
    room.add_to(sidebars.app)
    sidebars.room.attesting = kept
    return sidebars.send


@asynccontextmanager
async def nothing() -> AsyncIterator[FilingDesk]:
    store = InMemoryStore()
    yield FilingDesk(OneChart([]), store, store, InMemoryAudit(), lambda: NOW, Manner("0"))


def test_a_launched_clinician_finds_the_page_from_the_sidebar_and_attests_as_whom_the_token_names(
    filing: Filing,
) -> None:
    sidebars, kept = Sidebars(launch=replace(a_launch(), fhir_user=ROE)), InMemoryAttesting()
    run = sidebars.runs[0]
    send = launched(sidebars, kept)
    assert f"{LAUNCHED}?visit=" in sidebars.get("/sidebar/summary").text
    page = sidebars.get(f"{LAUNCHED}?run={run.run_id}")
    assert page.status_code == 200
    assert "Back to the summary" in page.text
    assert run.summary.published[0].text in page.text
    for item in items_of(run.summary):
        if item.why:
            fields = {"run": run.run_id, "item": item.key, "act": "accepted"}
            assert send("POST", f"{LAUNCHED}/decide", data=fields).status_code == 303
    answer = send("POST", f"{LAUNCHED}/attest", data={"run": run.run_id, "by": "Practitioner/evil"})
    assert answer.status_code == 303
    assert [one[1] for one in filing.asked] == [ROE]


def test_a_user_who_cannot_read_all_that_it_rests_on_is_shown_nothing_and_attests_nothing(
    filing: Filing,
) -> None:
    sidebars, kept = Sidebars(launch=replace(a_launch(), fhir_user=ROE)), InMemoryAttesting()
    run = sidebars.runs[0]
    send = launched(sidebars, kept)
    sidebars.chart.refused = {"AllergyIntolerance"}
    page = sidebars.get(f"{LAUNCHED}?run={run.run_id}")
    assert "cannot be read by your account" in page.text
    assert not any(claim.text in page.text for claim in run.summary.published)
    assert CANARY not in page.text
    assert send("POST", f"{LAUNCHED}/attest", data={"run": run.run_id}).status_code == 409
    assert filing.asked == []


def test_what_was_hidden_is_gone_from_the_sidebar_and_shown_again_from_there() -> None:
    sidebars, kept = Sidebars(launch=replace(a_launch(), fhir_user=ROE)), InMemoryAttesting()
    run = sidebars.runs[0]
    send = launched(sidebars, kept)
    sidebars.store.add_stop(Stop(StopScope.RUN, run.run_id, NOW, "clinician"))
    assert (
        send("POST", f"{LAUNCHED}/hide", data={"run": run.run_id, "reason": "Not hers."}).status_code == 303
    )
    shown = sidebars.get("/sidebar/summary").text
    assert "A clinician hid it" in shown
    assert run.summary.published[0].text not in shown
    assert f"{LAUNCHED}?visit=" in shown
    page = sidebars.get(f"{LAUNCHED}?run={run.run_id}").text
    assert "Not hers." in page
    assert "Show it again" in page
    assert run.summary.published[0].text not in page


def test_a_launch_opens_its_own_patients_runs_alone() -> None:
    elsewhere = replace(RUN, inputs=replace(RUN.inputs, patient="Patient/another"))
    sidebars = Sidebars(runs=(elsewhere,), launch=replace(a_launch(), fhir_user=ROE))
    launched(sidebars, InMemoryAttesting())
    assert sidebars.get(f"{LAUNCHED}?run=filed").status_code == 404


# Recalls


async def propose(site: Site, **more: str) -> str:
    fields = {"kind": "source", "value": "Observation/7", "reason": "The lab recalled it."} | more
    answer = await site.send("POST", "/review/recall", **fields)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


@pytest.fixture
def withdrawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was withdrawn, as (reason, actor); one document of two stands in the way."""
    found: list[tuple[str, str]] = []
    documents = tuple(
        Recalled(f"DocumentReference/{n}", "Patient/1", "draft", "", "", ("store",)) for n in (6, 7)
    )

    async def find(desk: object, wanted: Wanted) -> Recall:
        assert wanted == Wanted(source="Observation/7")
        return Recall(documents, server_asked=True)

    async def take_back(
        desk: object, recall: Recall, *, reason: str, by: str, actor: str, tell: Any
    ) -> Recall:
        found.append((reason, actor))
        tell(2, 2)
        results = ("withdrawn", "not withdrawn: rejected")
        return replace(
            recall, documents=tuple(replace(d, result=r) for d, r in zip(documents, results, strict=True))
        )

    monkeypatch.setattr(recalling, "find_recalled", find)
    monkeypatch.setattr(recalling, "withdraw_recalled", take_back)
    return found


async def settled(site: Site) -> None:
    await asyncio.gather(*site.recalls._at_work.values())


async def test_a_recall_is_carried_out_once_another_person_approves_it(
    withdrawn: list[tuple[str, str]],
) -> None:
    site = Site(visitor=REVIEWER)
    place = await propose(site)
    refused = await site.send("POST", f"{place}/approve")
    assert refused.status_code == 403
    assert "somebody else must approve it" in refused.text
    await settled(site)
    assert withdrawn == []
    site.as_who(Visitor("user:admin", frozenset({Role.ADMIN})))
    assert (await site.send("POST", f"{place}/approve")).status_code == 303
    await settled(site)
    assert withdrawn == [("The lab recalled it.", "user:admin")]
    (ended,) = site.kept.proposals()
    assert (ended.state, ended.total, ended.done) == (ProposalState.DONE, 2, 1)
    page = (await site.get(place)).text
    assert "DocumentReference/7: not withdrawn: rejected" in page
    assert (await site.send("POST", f"{place}/approve")).status_code == 409
    targets = [one.target.split(":")[-1] for one in site.audit.entries if one.action is Action.WITHDRAW]
    assert targets == ["propose", "approve", "approve", "approve"]


async def test_a_recall_that_was_cut_off_goes_on_and_one_that_waits_does_not(
    withdrawn: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(visitor=REVIEWER)
    place = await propose(site)
    assert (await site.send("POST", f"{place}/resume")).status_code == 409
    whole = recalling.withdraw_recalled

    async def broken(*given: object, **more: object) -> Recall:
        raise StoreError("the disk is full")

    monkeypatch.setattr(recalling, "withdraw_recalled", broken)
    site.as_who(Visitor("user:two", frozenset({Role.REVIEWER})))
    await site.send("POST", f"{place}/approve")
    await settled(site)
    assert site.kept.proposals()[0].state is ProposalState.APPROVED
    assert "Go on" in (await site.get(place)).text
    monkeypatch.setattr(recalling, "withdraw_recalled", whole)
    await site.send("POST", f"{place}/resume")
    await settled(site)
    assert site.kept.proposals()[0].state is ProposalState.DONE


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"value": "nonsense"}, 422), ({"reason": ""}, 422), ({"kind": "everything"}, 400)],
)
async def test_a_recall_that_cannot_be_read_is_not_proposed(fields: dict[str, str], status: int) -> None:
    site = Site(visitor=REVIEWER)
    given = {"kind": "source", "value": "Observation/7", "reason": "x"} | fields
    assert (await site.send("POST", "/review/recall", **given)).status_code == status
    assert site.kept.proposals() == []


# What is withheld

RESTRICTED = replace(RUN, summary=replace(RUN.summary, restricted=True))
LABELLED = replace(
    RUN,
    summary=replace(
        RUN.summary, security=(Code("http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "R", ""),)
    ),
)


@pytest.mark.parametrize("run", [RESTRICTED, LABELLED], ids=["left out", "labelled"])
async def test_a_restricted_run_opens_to_a_reviewer_by_broken_glass_for_a_while(run: StoredRun) -> None:
    site = Site(run=run, visitor=REVIEWER)
    for path in ("/runs/filed", "/runs/filed.json", "/runs/filed/sources/1"):
        answer = await site.get(path)
        assert answer.status_code == 403
        assert "Break the glass" in answer.text
        assert CANARY not in answer.text
    assert (await site.send("POST", "/review/glass/filed", reason="..")).status_code == 422
    answer = await site.send("POST", "/review/glass/filed", reason="A complaint about it.")
    assert answer.status_code == 303
    assert (await site.get("/runs/filed")).status_code == 200
    (entry,) = [one for one in site.audit.entries if one.target == "break-glass"]
    assert (entry.action, entry.actor, entry.patient) == (Action.VIEW, "user:rev", run.inputs.patient)
    site.as_who(Visitor("user:another", frozenset({Role.REVIEWER})))
    assert (await site.get("/runs/filed")).status_code == 403
    site.as_who(REVIEWER)
    site.now += timedelta(minutes=30)
    assert (await site.get("/runs/filed")).status_code == 403
    site.as_who(Visitor("user:aud", frozenset({Role.AUDITOR})))
    listed = await site.get("/review/glass")
    assert "A complaint about it." in listed.text
    assert "user:rev" in listed.text


async def test_glass_that_cannot_be_recorded_does_not_break() -> None:
    site = Site(run=RESTRICTED, visitor=REVIEWER)
    site.audit.break_down()
    assert (await site.send("POST", "/review/glass/filed", reason="A complaint.")).status_code == 503
    assert site.kept.broken == []


async def test_what_is_not_restricted_and_whoever_treats_is_not_stopped() -> None:
    site = Site(visitor=REVIEWER)
    assert (await site.get("/runs/filed")).status_code == 200
    assert (await site.get("/review/glass/filed")).status_code == 404
    site = Site(run=RESTRICTED)
    assert (await site.get("/runs/filed")).status_code == 200
