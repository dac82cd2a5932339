"""The console: its queue, a review from begin to end, disputes and their rulings, and who is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fixtures.sample_run import CREATED, sample_run
from service.ports import Action, RunId, Stop, StopScope
from service.ports.feedback import Mark, Ruling
from service.ports.reviews import LONGEST_WORDS, Outcome, QueueEntry, Rule, Support
from service.review.items import items_of
from tests.conftest import CANARY
from tests.unit.api.markup import Markup
from tests.unit.api.review.conftest import Open
from tests.unit.api.review.console import EVERY, Console, seeded

RUN = sample_run(run_id="filed")
REVIEW = "/review/runs/filed"
POSTS = [
    f"{REVIEW}/{path}"
    for path in ("begin", "items/1/score", "items/1/dispute", "omissions", "form", "undo", "finish")
]
DISPUTE = "/review/disputes/" + "0" * 32


def published(number: int) -> int:
    """The number on the page of a published statement: refused ones stand before it."""
    return len(RUN.summary.refused) + number


async def begun(console: Console, *users: str) -> Console:
    for user in users or ("one",):
        assert (await console.post(f"{REVIEW}/begin", user=user)).status_code == 303
    return console


@pytest.mark.parametrize("user", ["reader", "clinician", "auditor", "admin"])
async def test_who_does_not_review_is_refused_everything(opened: Open, user: str) -> None:
    console = await begun(opened())
    for path in ("/review", "/review/agreement", REVIEW, DISPUTE):
        assert (await console.get(path, user)).status_code == 403
    for path in (*POSTS, DISPUTE):
        assert (await console.post(path, user=user)).status_code == 403
    assert console.said.kept == []
    assert console.review().last is None


async def test_the_queue_tells_rule_reason_version_counts_age_and_who_is_on_it(opened: Open) -> None:
    console = opened()
    page = Markup((await console.get("/review")).text)
    for part in (
        "New model or prompt",
        "Run 1 of this model and prompt version; the first 20 are reviewed.",
        "SmolLM2-135M-Instruct",
        "history 1",
        f"{support_count()} statements of the model let through",
        "0 hours, since 24-Nov-2026 17:06 UTC",
        "nobody yet; 0 of 1 review finished",
    ):
        assert part in page.text
    console.now += timedelta(hours=50)
    await begun(console, "two")
    assert "1 other; 0 of 1 review finished" in (await console.get("/review")).text
    page = Markup((await console.get("/review", "two")).text)
    assert "you; 0 of 1 review finished" in page.text
    assert "2 days, since" in page.text


def support_count() -> str:
    claims = [one for one in RUN.summary.published if one.origin.value == "model"]
    return f"{len(claims)} of {len(claims) + len(RUN.summary.refused)}"


async def test_nothing_of_a_patient_stands_on_the_queue(opened: Open) -> None:
    console = opened()
    console.dispute(1)
    for path in ("/review", "/review/agreement"):
        answer = await console.get(path)
        assert answer.status_code == 200
        assert CANARY.lower() not in answer.text.lower()
        assert "Patient/1" not in answer.text


async def test_the_queue_is_filtered_by_rule_and_says_when_it_is_empty(opened: Open) -> None:
    console = opened(sampling=replace(EVERY, first_of_version=0))
    assert "Nothing waits for review." in (await console.get("/review")).text
    console.reviews.enqueue(QueueEntry(RUN.run_id, Rule.WARD, "Drawn.", CREATED, "Patient/1"))
    assert "Drawn." in (await console.get("/review?rule=ward")).text
    other = await console.get("/review?rule=random")
    assert "Drawn." not in other.text
    assert "Nothing waits under this rule." in other.text
    assert (await console.get("/review?rule=nonsense")).status_code == 400


async def test_a_run_is_drawn_once_however_often_the_queue_is_opened(opened: Open) -> None:
    console = opened(sampling=replace(EVERY, first_of_version=1), runs=(RUN, sample_run(run_id="later")))
    for _ in range(3):
        page = await console.get("/review")
    assert page.text.count('class="entry"') == 1


async def test_a_disputed_run_comes_into_the_queue_by_feedback(opened: Open) -> None:
    console = opened(sampling=replace(EVERY, first_of_version=0))
    console.dispute(1)
    entry = await console.get("/review?rule=feedback")
    assert "Somebody called a statement wrong or outdated." in entry.text


async def test_before_a_review_is_begun_no_statement_is_shown(opened: Open) -> None:
    console = opened()
    page = (await console.get(REVIEW)).text
    assert RUN.summary.published[0].text not in page
    assert "is put there as asked for" in page
    await begun(console)
    entry = console.reviews.entry_of(RunId("filed"))
    assert entry is not None
    assert (entry.rule, entry.wanted) == (Rule.HAND, 1)


async def test_two_reviewers_can_be_asked_for(opened: Open) -> None:
    console = opened()
    await console.post(f"{REVIEW}/begin", {"two": "yes"})
    entry = console.reviews.entry_of(RunId("filed"))
    assert entry is not None
    assert entry.wanted == 2


async def test_refused_statements_stand_first_with_their_reasons_and_nobody_else_sees_them(
    opened: Open,
) -> None:
    console = await begun(opened())
    page = Markup((await console.get(REVIEW)).text)
    order = [element["id"] for element in page.all("article", "item")]
    assert order == [f"item-{n}" for n in range(1, len(order) + 1)]
    first = page.text.index("Potassium was 6.5 mmol/L on 23-Nov-2026.")
    assert first < page.text.index(RUN.summary.published[0].text)
    assert page.text.count("Not supported, not published") == len(RUN.summary.refused)
    assert f"0 of {len(order)}" in page.text
    assert {"Observation/71/_history/2", "MedicationRequest/62/_history/2"} <= set(page.text.split())
    readers = await console.get("/runs/filed", "reader")
    assert "6.5 mmol/L" not in readers.text


async def test_a_score_is_kept_with_its_words_and_can_be_changed(opened: Open) -> None:
    console = await begun(opened())
    path = f"{REVIEW}/items/{published(2)}/score"
    answer = await console.post(path, {"support": "not_supported", "words": f"{CANARY}: no"}, partial=True)
    page = Markup(answer.text)
    assert "1 of" in page.text
    assert CANARY in page.text
    chosen = [one["value"] for one in page.all("button") if one.get("aria-pressed") == "true"]
    assert chosen == ["not_supported"]
    plain = await console.post(path, {"support": "supported"})
    assert (plain.status_code, plain.headers["location"]) == (303, f"{REVIEW}#item-{published(2)}")
    scores = console.review().scores
    assert [(one.ordinal, one.support) for one in scores] == [(1, Support.SUPPORTED)]


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("items/1/score", {"support": "certainly"}, 400),
        ("items/999/score", {"support": "supported"}, 404),
        ("items/0/score", {"support": "supported"}, 400),
        ("items/1/score", {"support": "supported", "words": "w" * (LONGEST_WORDS + 1)}, 400),
        ("items/1/dispute", {"mark": "wrong"}, 400),
        (f"items/{published(1)}/dispute", {"mark": "missing"}, 400),
        ("omissions", {"words": ""}, 400),
        ("omissions", {"words": "x", "source": "99999"}, 400),
        ("form", {"accurate": "6"}, 400),
        ("form", {"stigmatizing": "2"}, 400),
        ("finish", {"outcome": "perhaps"}, 400),
    ],
)
async def test_what_makes_no_sense_is_refused_and_keeps_nothing(
    opened: Open, path: str, fields: dict[str, str], status: int
) -> None:
    console = await begun(opened())
    assert (await console.post(f"{REVIEW}/{path}", fields)).status_code == status
    assert console.review().last is None
    assert console.said.kept == []


async def test_nobody_writes_into_a_review_that_is_not_theirs_or_not_begun(opened: Open) -> None:
    console = await begun(opened())
    for path in POSTS[1:]:
        fields = {"support": "supported", "words": "x", "outcome": "accepted", "accurate": "5"}
        assert (await console.post(path, fields, "two")).status_code == 404
    assert console.review().last is None


async def test_a_dispute_is_seen_by_every_viewer_at_once_and_undone_with_the_last_act(opened: Open) -> None:
    console = await begun(opened())
    path = f"{REVIEW}/items/{published(1)}/dispute"
    answer = await console.post(path, {"mark": "outdated", "words": "stopped in May"}, partial=True)
    assert "disputed, marked for every viewer" in answer.text
    assert [(one.mark, one.text, one.words) for one in console.said.kept] == [
        (Mark.OUTDATED, RUN.summary.published[0].text, "stopped in May")
    ]
    readers = await console.get("/runs/filed", "reader")
    assert readers.text.count("disputed by a colleague") == 1
    await console.post(path, {"mark": "wrong"})
    assert len(console.said.kept) == 1
    undone = await console.post(f"{REVIEW}/undo")
    assert undone.headers["location"] == f"{REVIEW}?undone=dispute#acts"
    assert "disputed by a colleague" not in (await console.get("/runs/filed", "reader")).text
    assert "Taken back: your last dispute." in (await console.get(f"{REVIEW}?undone=dispute")).text


async def test_acts_are_undone_one_by_one_the_last_first(opened: Open) -> None:
    console = await begun(opened())
    await console.post(f"{REVIEW}/items/1/score", {"support": "supported"})
    await console.post(f"{REVIEW}/items/1/score", {"support": "not_addressed"})
    await console.post(f"{REVIEW}/form", {"accurate": "4"})
    await console.post(f"{REVIEW}/omissions", {"words": "the fall of May"})
    kinds = []
    for _ in range(5):
        answer = await console.post(f"{REVIEW}/undo")
        kinds.append(answer.headers["location"].removeprefix(REVIEW))
        if len(kinds) == 3:
            assert [one.support for one in console.review().scores] == [Support.SUPPORTED]
    assert kinds == [*(f"?undone={k}#acts" for k in ("omission", "form", "score", "score")), "#acts"]
    assert console.review().last is None


async def test_omissions_and_the_form_are_kept(opened: Open) -> None:
    console = await begun(opened())
    await console.post(f"{REVIEW}/omissions", {"words": "lives alone", "source": "1"})
    await console.post(f"{REVIEW}/form", {"accurate": "4", "stigmatizing": "0", "words": "long"})
    review = console.review()
    assert [(one.words, bool(one.fact)) for one in review.omissions] == [("lives alone", True)]
    assert review.form is not None
    assert (review.form.answers, review.form.words) == ({"accurate": 4, "stigmatizing": 0}, "long")
    assert "lives alone" in (await console.get(REVIEW)).text


async def test_the_queue_page_reports_attestations_under_ten_seconds(opened: Open) -> None:
    console = opened()
    assert "0 of 0 attestations made within" in (await console.get("/review")).text
    for run, seconds in (("a", 9), ("b", 10), ("c", 400)):
        console.attest(run, seconds)
    page = await console.get("/review")
    assert "1 of 3 attestations made within ten seconds of opening the text." in page.text


async def test_a_review_is_accepted_once_everything_is_scored_and_then_stands(opened: Open) -> None:
    console = await begun(opened())
    early = await console.post(f"{REVIEW}/finish", {"outcome": "accepted"})
    assert early.status_code == 409
    assert "statements have no score yet." in early.text
    console.score_all("one")
    done = await console.post(f"{REVIEW}/finish", {"outcome": "accepted"})
    assert done.status_code == 303
    assert console.review().outcome is Outcome.ACCEPTED
    assert "Accepted 24-Nov-2026 17:06 UTC" in (await console.get(REVIEW)).text
    for path in POSTS[1:]:
        fields = {"support": "supported", "words": "x", "outcome": "rejected", "reason": "x"}
        assert (await console.post(path, fields)).status_code == 404
    assert "Nothing waits for review." in (await console.get("/review")).text


async def test_a_rejection_needs_its_reason(opened: Open) -> None:
    console = await begun(opened())
    bare = await console.post(f"{REVIEW}/finish", {"outcome": "rejected"})
    assert bare.status_code == 409
    assert "Say why it is rejected." in bare.text
    await console.post(f"{REVIEW}/finish", {"outcome": "rejected", "reason": "two drugs are wrong"})
    assert (console.review().outcome, console.review().reason) == (Outcome.REJECTED, "two drugs are wrong")


async def test_a_planted_error_stands_in_one_review_alone_and_is_told_at_its_end(opened: Open) -> None:
    console = await begun(opened(sampling=seeded()))
    planted = console.review().seeded
    assert planted is not None
    page = await console.get(REVIEW)
    assert planted.text in Markup(page.text).text
    assert "planted" not in page.text
    run = console.store.get(RunId("filed"))
    assert run is not None
    assert run.summary == RUN.summary
    number = next(i.number for i in items_of(RUN.summary, planted) if i.is_seeded)
    scored = {"support": "not_supported", "words": "the source says another"}
    answer = await console.post(f"{REVIEW}/items/{number}/score", scored, partial=True)
    assert "the source says another" in answer.text
    await console.post(f"{REVIEW}/items/{number}/dispute", {"mark": "wrong"})
    assert console.said.kept == []
    console.score_all("one")
    await console.post(f"{REVIEW}/items/{number}/score", scored)
    await console.post(f"{REVIEW}/finish", {"outcome": "accepted"})
    told = Markup((await console.get(REVIEW)).text)
    assert "was a planted error" in told.text
    assert "You found it." in told.text
    assert "1 of 1 planted error found by reviewers" in (await console.get("/review")).text
    assert planted.ordinal not in {one.ordinal for one in console.review().scores}
    for path in ("/runs/filed", "/runs/filed.json"):
        assert planted.text not in (await console.get(path, "reader")).text


async def test_a_planted_error_and_a_statement_look_the_same_until_the_end(opened: Open) -> None:
    console = await begun(opened(sampling=seeded()))
    planted = console.review().seeded
    assert planted is not None
    items = items_of(RUN.summary, planted)
    number = next(i.number for i in items if i.is_seeded)
    answers = []
    for one in (number, number - 1 if items[number - 2].is_published else number + 1):
        scored = await console.post(f"{REVIEW}/items/{one}/score", {"support": "supported"}, partial=True)
        disputed = await console.post(f"{REVIEW}/items/{one}/dispute", {"mark": "wrong"}, partial=True)
        shape = [
            [(tag, sorted(attributes)) for tag, attributes in Markup(answer.text).elements if tag != "span"]
            for answer in (scored, disputed)
        ]
        right = [part[[tag for tag, _ in part].index("form") :] for part in shape[:1]]
        answers.append((right, disputed.text.count("disputed, marked for every viewer")))
    assert answers[0] == answers[1]


async def test_what_others_said_is_shown_only_after_ones_own_end(opened: Open) -> None:
    console = await begun(opened(), "one", "two")
    console.score_all("two", Support.NOT_SUPPORTED)
    await console.post(f"{REVIEW}/finish", {"outcome": "accepted"}, "two")
    assert "Reviewer 2 said" not in (await console.get(REVIEW)).text
    console.score_all("one")
    await console.post(f"{REVIEW}/finish", {"outcome": "accepted"})
    page = Markup((await console.get(REVIEW)).text)
    assert page.text.count("Reviewer 2 said: Not supported, which is something else") == len(
        items_of(RUN.summary)
    )
    agreement = Markup((await console.get("/review/agreement")).text)
    assert f"0 of {len(items_of(RUN.summary))}" in agreement.text
    assert agreement.text.count("Supported · Not supported") == len(items_of(RUN.summary))


@pytest.mark.parametrize(("ruling", "marked"), [("upheld", 1), ("dismissed", 0)])
async def test_a_reviewer_rules_on_a_dispute(opened: Open, ruling: str, marked: int) -> None:
    console = opened()
    path = console.dispute(1)
    assert "Called wrong" in (await console.get("/review")).text
    page = await console.get(path)
    assert RUN.summary.published[0].text in Markup(page.text).text
    assert f"{CANARY} never had it" in page.text
    answer = await console.post(path, {"ruling": ruling, "words": "read the letter"})
    assert answer.headers["location"] == "/review"
    assert [(one.ruling, one.ruled_by, one.ruled_words) for one in console.said.kept] == [
        (Ruling(ruling), "user:one", "read the letter")
    ]
    assert "Every dispute has its ruling." in (await console.get("/review")).text
    readers = await console.get("/runs/filed", "reader")
    assert readers.text.count("disputed by a colleague") == marked
    assert (await console.post(path, {"ruling": ruling})).status_code == 404


async def test_who_disputed_a_statement_does_not_rule_on_it(opened: Open) -> None:
    console = opened()
    path = console.dispute(1, "user:one")
    assert "another reviewer rules on it" in (await console.get(path)).text
    assert (await console.post(path, {"ruling": "dismissed"})).status_code == 403
    assert console.said.kept[0].ruling is None


async def test_a_dispute_about_labelled_data_is_withheld_from_who_treats_nobody(opened: Open) -> None:
    run = replace(RUN, summary=replace(RUN.summary, restricted=True))
    console = opened(runs=(run,))
    path = console.dispute(1)
    for answer in (
        await console.get(path, "outsider"),
        await console.post(path, {"ruling": "upheld"}, "outsider"),
    ):
        assert answer.status_code == 403
        assert CANARY not in answer.text
    assert console.said.kept[0].ruling is None
    assert (await console.get(path)).status_code == 200


async def test_a_dispute_about_an_answer_is_for_reviewers_who_treat_patients(opened: Open) -> None:
    console = opened()
    path = console.dispute(1)
    console.said.kept[0] = replace(console.said.kept[0], about="question")
    assert (await console.get(path, "outsider")).status_code == 403
    assert "an answer to a question" in (await console.get(path)).text
    assert (await console.post(path, {"ruling": "dismissed"})).headers["location"] == "/review"
    assert console.said.kept[0].ruling is Ruling.DISMISSED


async def test_a_ruling_from_a_review_leads_back_to_its_statement(opened: Open) -> None:
    console = await begun(opened())
    path = console.dispute(1)
    assert path in (await console.get(REVIEW)).text
    answer = await console.post(path, {"ruling": "dismissed", "item": str(published(1))})
    assert answer.headers["location"] == f"{REVIEW}#item-{published(1)}"


async def test_every_view_and_every_act_is_in_the_audit_log(opened: Open) -> None:
    console = opened()
    path = console.dispute(2)
    await console.get("/review")
    await console.get("/review/agreement")
    await begun(console)
    await console.get(REVIEW)
    await console.post(f"{REVIEW}/items/1/score", {"support": "supported"})
    await console.post(f"{REVIEW}/items/{published(1)}/dispute", {"mark": "wrong"})
    await console.post(f"{REVIEW}/undo")
    await console.post(f"{REVIEW}/omissions", {"words": "x"})
    await console.post(f"{REVIEW}/form", {"accurate": "5"})
    await console.get(path)
    await console.post(path, {"ruling": "upheld"})
    await console.post(f"{REVIEW}/finish", {"outcome": "rejected", "reason": "x"})
    assert [(one.action, one.target, one.patient) for one in console.audit.entries] == [
        (Action.VIEW, "review:queue", ""),
        (Action.VIEW, "review:agreement", ""),
        (Action.REVIEW, "begin", "Patient/1"),
        (Action.VIEW, RUN.document, "Patient/1"),
        (Action.REVIEW, "score", "Patient/1"),
        (Action.FEEDBACK, "wrong", "Patient/1"),
        (Action.REVIEW, "undo", "Patient/1"),
        (Action.REVIEW, "omission", "Patient/1"),
        (Action.REVIEW, "form", "Patient/1"),
        (Action.VIEW, "", "Patient/1"),
        (Action.REVIEW, "upheld", "Patient/1"),
        (Action.REVIEW, "finish:rejected", "Patient/1"),
    ]
    assert {one.by for one in console.audit.entries} == {"Practitioner/one"}


async def test_without_its_audit_entry_nothing_is_shown_or_kept(opened: Open) -> None:
    console = await begun(opened())
    path = console.dispute(2)
    console.audit.break_down()
    for where in ("/review", "/review/agreement", REVIEW, path):
        assert (await console.get(where)).status_code == 503
    await console.post(f"{REVIEW}/items/1/score", {"support": "supported"})
    await console.post(f"{REVIEW}/items/{published(1)}/dispute", {"mark": "wrong"})
    await console.post(path, {"ruling": "upheld"})
    assert console.review().last is None
    assert len(console.said.kept) == 1
    assert console.said.kept[0].ruling is None


async def test_a_stopped_run_is_not_reviewed(opened: Open) -> None:
    console = await begun(opened())
    path = console.dispute(2)
    console.store.add_stop(Stop(StopScope.ALL, "", CREATED, "user:admin"))
    assert (await console.get(REVIEW)).status_code == 423
    assert (await console.get(path)).status_code == 423
    assert 'class="entry"' not in (await console.get("/review")).text


async def test_what_a_chart_says_never_becomes_markup(opened: Open) -> None:
    claims = RUN.summary.sections[0].claims
    evil = replace(claims[0], text="<script>alert(1)</script> \u202e")
    sections = (replace(RUN.summary.sections[0], claims=(evil, *claims[1:])), *RUN.summary.sections[1:])
    run = replace(RUN, summary=replace(RUN.summary, sections=sections))
    console = await begun(opened(runs=(run,)))
    text = (await console.get(REVIEW)).text
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text
    assert "[U+202E]" in text
