"""Feedback in one tap: what it takes, whom it reaches, and what it refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import Response

from fixtures.sample_run import sample_run
from service.api.app import create_app
from service.api.ask import AskRoom
from service.api.cookies import LAUNCH
from service.api.disputes import marks_of
from service.api.feedback import Feedbacks
from service.api.pages import build_page
from service.ask.asking import Asking
from service.errors import StoreError
from service.grounding.summary import Claim
from service.identity.visitor import Role, Visitor
from service.ports import Action, StoredRun
from service.ports.feedback import LONGEST_WORDS, Mark, Ruling
from service.ports.launches import Launch, Tokens
from tests.conftest import CANARY
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.ask.in_memory import InMemoryFeedback, InMemoryQuestions

RUN = sample_run()
NOW = RUN.created_at
HERE = "https://127.0.0.1"


def launch_for(run: StoredRun, actor: str, visit: str) -> Launch:
    """A launch on a run's patient."""
    return Launch(
        visit=visit,
        ehr="general",
        server=run.inputs.server.rstrip("/"),
        patient=run.inputs.patient,
        encounter="",
        actor=actor,
        fhir_user="Practitioner/7",
        scope="patient/*.rs",
        access_profile=f"user:{actor}",
        needs_banner=True,
        context={},
        messaging=("", ""),
        tokens=Tokens("a", "", NOW + timedelta(hours=1)),
    )


@dataclass
class Launchers:
    """Launches by the visit that a request names; the cookie is not looked at here."""

    known: dict[str, Launch] = field(default_factory=dict)

    def frames(self, launch: Launch | None = None) -> tuple[str, ...]:
        return ()

    async def find(self, browser: str, visit: str) -> tuple[Launch, Visitor] | None:
        launch = self.known.get(visit)
        return None if launch is None else (launch, Visitor(launch.actor, frozenset({Role.CLINICIAN})))

    def invite(self) -> Response:
        return Response(status_code=401)


class Site:
    """The application with feedback, two launched clinicians, and who signed in."""

    def __init__(self, run: StoredRun = RUN, roles: frozenset[Role] = frozenset({Role.CLINICIAN})) -> None:
        self.run, self.audit = run, InMemoryAudit()
        self.said, self.questions = InMemoryFeedback(), InMemoryQuestions()
        store = InMemoryStore(run)
        self.feedbacks = Feedbacks(store, self.questions, self.said, self.audit, lambda: NOW)
        self.launchers = Launchers(
            {
                "one": launch_for(run, "user:one", "one"),
                "two": launch_for(run, "user:two", "two"),
                "elsewhere": replace(launch_for(run, "user:one", "elsewhere"), patient="Patient/other"),
            }
        )
        door = OpenDoor()
        self.app: FastAPI = create_app(
            store=store,
            audit=self.audit,
            clock=lambda: NOW,
            access=door,
            allowed_hosts=("127.0.0.1",),
            version="0",
            rooms=[self.asking()],
            feedback=self.said,
            feedbacks=self.feedbacks,
            launched=self.launchers,
        )
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url=HERE)

    def asking(self) -> AskRoom:
        def never(launch: Launch) -> object:
            raise StoreError("no chart here")

        asking = Asking(store=self.questions, audit=self.audit, clock=lambda: NOW)
        return AskRoom(
            asking=asking,
            questions=self.questions,
            feedback=self.said,
            feedbacks=self.feedbacks,
            audit=self.audit,
            clock=lambda: NOW,
            opener=never,  # type: ignore[arg-type]
        )

    def key(self, claim: Claim) -> str:
        return str(self.said.claim_key(self.run.inputs.server, self.run.inputs.patient, claim))

    async def post(
        self, path: str, visit: str = "", *, partial: bool = True, **fields: str
    ) -> httpx.Response:
        headers = {"sec-fetch-site": "same-origin"} | ({"hx-request": "true"} if partial else {})
        if visit:
            fields = {"visit": visit, **fields}
            headers["cookie"] = f"{LAUNCH}=secret"
        return await self.client.post(path, data=fields, headers=headers)

    async def tap(self, mark: str, visit: str = "one", **fields: str) -> httpx.Response:
        said: dict[str, Any] = {
            "about": self.run.run_id,
            "claim": self.key(self.claim),
            "mark": mark,
            **fields,
        }
        return await self.post("/sidebar/feedback", visit, **{k: v for k, v in said.items() if v})

    @property
    def claim(self) -> Claim:
        return self.run.summary.published[0]

    def disputed(self) -> list[str]:
        shown = build_page(self.run, NOW, marks_of(self.said, self.run))
        return [c.anchor for s in shown.sections for c in (*s.claims, *s.folded) if c.disputed]


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.mark.parametrize("mark", ["wrong", "outdated"])
async def test_one_tap_disputes_a_statement_for_every_viewer(site: Site, mark: str) -> None:
    assert site.disputed() == []
    answer = await site.tap(mark)
    assert answer.status_code == 200
    assert f"You said: {mark}. Marked as disputed for every viewer." in answer.text
    assert site.disputed() == ["statement-1"]
    (kept,) = site.said.kept
    assert (kept.about, kept.mark, kept.actor, kept.by) == (
        RUN.run_id,
        Mark(mark),
        "user:one",
        "Practitioner/7",
    )
    assert kept.text == site.claim.text


async def test_a_regenerated_summary_that_says_the_same_is_disputed_too(site: Site) -> None:
    await site.tap("wrong")
    again = replace(RUN, run_id="another", created_at=NOW + timedelta(days=1))  # type: ignore[arg-type]
    shown = build_page(again, NOW, marks_of(site.said, again))
    assert [c.anchor for s in shown.sections for c in (*s.claims, *s.folded) if c.disputed] == ["statement-1"]


@pytest.mark.parametrize("mark", ["unhelpful", "missing"])
async def test_what_does_not_call_it_wrong_disputes_nothing(site: Site, mark: str) -> None:
    await site.tap(mark)
    assert len(site.said.kept) == 1
    assert site.disputed() == []


async def test_an_undone_tap_is_no_dispute_and_another_ones_stays(site: Site) -> None:
    await site.tap("wrong")
    await site.tap("wrong", "two")
    undone = await site.post("/sidebar/feedback/undo", "one", about=RUN.run_id, claim=site.key(site.claim))
    assert "Still disputed by another colleague" in undone.text
    assert site.disputed() == ["statement-1"]
    undone = await site.post("/sidebar/feedback/undo", "two", about=RUN.run_id, claim=site.key(site.claim))
    assert "disputed" not in undone.text
    assert site.disputed() == []
    assert [one.undone_at for one in site.said.kept] == [NOW, NOW]


async def test_the_same_tap_twice_is_kept_once(site: Site) -> None:
    await site.tap("wrong")
    await site.tap("wrong")
    assert len(site.said.kept) == 1


async def test_what_a_reviewer_dismissed_is_not_disputed_until_somebody_says_it_again(site: Site) -> None:
    await site.tap("wrong")
    (one,) = site.said.unsettled()
    assert site.said.settle(one.server, one.patient, one.claim, Ruling.DISMISSED, "user:r", NOW) == 1
    assert site.disputed() == []
    await site.tap("wrong", "two")
    assert site.disputed() == ["statement-1"]


async def test_a_section_and_the_whole_may_lack_something(site: Site) -> None:
    key = RUN.summary.sections[0].key
    assert (await site.tap("missing", claim="", section=key, words="the 2019 echo")).status_code == 200
    assert (await site.tap("missing", claim="", section="")).status_code == 200
    assert [(one.claim, one.section, one.words) for one in site.said.kept] == [
        ("", key, "the 2019 echo"),
        ("", "", ""),
    ]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"mark": "brilliant"}, 400),
        ({"mark": "wrong", "claim": ""}, 400),
        ({"mark": "wrong", "claim": "0" * 64}, 404),
        ({"mark": "wrong", "claim": "../../etc"}, 400),
        ({"mark": "missing", "claim": "", "section": "nonsense"}, 400),
        ({"mark": "wrong", "about": "nobody"}, 404),
        ({"mark": "wrong", "about": "a/b"}, 400),
        ({"mark": "wrong", "words": "x" * (LONGEST_WORDS + 1)}, 400),
    ],
)
async def test_what_names_nothing_here_is_refused(site: Site, fields: dict[str, str], status: int) -> None:
    answer = await site.tap(**fields)
    assert answer.status_code == status
    assert site.said.kept == []


async def test_nobody_says_anything_about_another_patients_summary(site: Site) -> None:
    assert (await site.tap("wrong", "elsewhere")).status_code == 404
    undo = await site.post("/sidebar/feedback/undo", "elsewhere", about=RUN.run_id)
    assert undo.status_code == 404
    assert site.said.kept == []


async def test_without_a_script_the_form_leads_back_to_the_page(site: Site) -> None:
    fields = {"about": RUN.run_id, "claim": site.key(site.claim), "mark": "wrong"}
    answer = await site.post("/sidebar/feedback", "one", partial=False, **fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sidebar?visit=one")
    assert site.disputed() == ["statement-1"]


async def test_who_is_signed_in_says_it_on_the_page_of_the_run(site: Site) -> None:
    path = f"/runs/{RUN.run_id}/feedback"
    answer = await site.post(path, claim=site.key(site.claim), mark="wrong", partial=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{RUN.run_id}")
    page = (await site.client.get(f"/runs/{RUN.run_id}")).text
    assert page.count("disputed by a colleague") == 1
    await site.post(f"{path}/undo", claim=site.key(site.claim))
    assert "disputed by a colleague" not in (await site.client.get(f"/runs/{RUN.run_id}")).text


async def test_a_tap_is_on_record_without_its_words(site: Site) -> None:
    await site.tap("wrong", words=f"{CANARY} never had gout")
    await site.post("/sidebar/feedback/undo", "one", about=RUN.run_id, claim=site.key(site.claim))
    told = [(e.action, e.actor, e.patient, e.run_id, e.target) for e in site.audit.entries]
    assert told == [
        (Action.FEEDBACK, "user:one", RUN.inputs.patient, RUN.run_id, target)
        for target in ("wrong", "wrong:undone")
    ]
    assert CANARY not in repr(site.said.kept)


async def test_a_tap_that_cannot_be_recorded_is_not_kept(site: Site) -> None:
    site.audit.break_down()
    assert (await site.tap("wrong")).status_code == 503
    assert site.said.kept == []


async def test_whoever_wants_no_summaries_says_so_once_and_may_change_their_mind(site: Site) -> None:
    off = await site.post("/sidebar/off", "one")
    assert (off.status_code, off.headers["location"]) == (303, "/sidebar?visit=one")
    assert (site.said.is_off("user:one"), site.said.is_off("user:two")) == (True, False)
    await site.post("/sidebar/on", "one")
    assert not site.said.is_off("user:one")


async def test_words_with_markup_come_back_as_text(site: Site) -> None:
    answer = await site.tap("wrong", words="<script>alert(1)</script>\x00\x1b")
    assert "<script>" not in answer.text
    assert site.said.kept[0].words == "<script>alert(1)</script>"


async def test_a_form_names_nothing_twice_and_nothing_but_a_form_is_read(site: Site) -> None:
    headers = {"sec-fetch-site": "same-origin", "cookie": f"{LAUNCH}=s", "x-epicrisis-visit": "one"}
    twice = f"visit=one&about={RUN.run_id}&mark=wrong&mark=missing"
    form = {**headers, "content-type": "application/x-www-form-urlencoded"}
    assert (await site.client.post("/sidebar/feedback", content=twice, headers=form)).status_code == 400
    assert (
        await site.client.post("/sidebar/feedback", json={"mark": "wrong"}, headers=headers)
    ).status_code == 400
    assert re.search("disputed", repr(site.said.kept)) is None
