from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from datetime import date, datetime, timedelta
from enum import Enum
from typing import Any

import pytest

from connectors.errors import TimedOut
from fixtures.sample_run import CREATED, sample_run
from service.errors import ShreddedError, StoreError
from service.ports import Action, DocumentState, FiledDocument, RunId, Stop, StopScope
from service.ports.feedback import Feedback, FeedbackId, Mark
from service.ports.ondemand import ToldKind
from service.record.facts import FactId, ResourceVersion
from service.staleness import Change, Freshness, Staleness, What
from tests.unit.api.markup import Markup
from tests.unit.api.sidebar.chart import SERVER, Chart, bare, of_run, sample_chart, sample_patient
from tests.unit.api.sidebar.desk import NOW, VISIT, Desk, ScriptedMaking, a_launch
from tests.unit.api.test_security import HOSTILE
from tests.unit.test_live import allergy, dnr, order, potassium

RUN = sample_run()
LATE = "2026-11-24T14:09:00Z"
POTASSIUM = "Potassium: 5.6 mmol/L"


def page_of(desk: Desk, path: str = "/sidebar") -> Markup:
    answer = desk.get(path)
    assert answer.status_code == 200, answer.text
    return Markup(answer.text)


def places(markup: Markup, *words: str) -> list[int]:
    return [markup.words.index(one) for one in words]


def test_the_stored_summary_stands_in_the_first_answer_in_the_order_of_need() -> None:
    shown = page_of(Desk())
    order_of = places(
        shown, "ZZYZXCANARY, Jane (Mrs)", "AI-generated, not reviewed", "Read live",
        "Comparing with the chart", "Contradictions in the record", "Known allergies",
        "Penicillin: rash, hives", "What is not in this text", "Something is missing",
    )  # fmt: skip
    assert order_of == sorted(order_of)
    assert shown.all("section", "live")[0]["hx-get"] == f"/sidebar/live?visit={VISIT}&view=history"
    assert shown.all("div", "freshness")[0]["hx-trigger"] == "load"


def test_a_view_is_on_record_before_it_is_shown() -> None:
    desk = Desk()
    page_of(desk)
    views = [entry for entry in desk.audit.entries if entry.action is Action.VIEW]
    assert [(v.actor, v.by, v.run_id, v.server) for v in views] == [
        ("user:abc", "Practitioner/7", RUN.run_id, SERVER)
    ]
    assert any(entry.action is Action.READ for entry in desk.audit.entries)
    desk.audit.break_down()
    answer = desk.get("/sidebar")
    assert answer.status_code == 503
    assert "Penicillin" not in answer.text


def test_every_citation_leads_to_its_evidence() -> None:
    shown = page_of(Desk())
    chips = shown.all("a", "chip")
    assert chips
    for chip in chips:
        assert re.fullmatch(rf"/sidebar/sources/\d+\?visit={VISIT}&run={RUN.run_id}", chip["href"]), chip[
            "href"
        ]
        assert chip["hx-get"] == chip["href"]
        assert chip["aria-label"].startswith("Source ")


@pytest.mark.parametrize("kind", ["AllergyIntolerance"])
def test_what_the_user_may_not_read_is_not_in_the_page_and_the_page_says_so(kind: str) -> None:
    answer = Desk(chart=sample_chart(refused={kind})).get("/sidebar")
    shown = Markup(answer.text)
    for word in ("penicillin", "latex", "hives"):
        assert word not in answer.text.lower()
    assert "Allergies unavailable" in shown.words
    assert "not shown: your account may not read allergies" in shown.words
    assert "None recorded, search complete" in shown.words  # of code status, which may be read
    assert "INCOMPLETE" in shown.words
    assert "Withheld from you: 2 statements." in shown.words
    assert "Your account may not read allergies (2 statements)." in shown.words
    assert "412 items" not in shown.words


def test_a_number_means_the_same_source_to_every_reader() -> None:
    whole = Desk().get("/sidebar").text
    cut = Desk(chart=sample_chart(refused={"AllergyIntolerance"})).get("/sidebar").text
    number = re.search(r'statement-\d+"[^§]*?Community acquired pneumonia[^§]*?sources/(\d+)\?', whole)
    other = re.search(r'statement-\d+"[^§]*?Community acquired pneumonia[^§]*?sources/(\d+)\?', cut)
    assert number is not None
    assert other is not None
    assert number[1] == other[1]


def test_a_source_that_changed_since_is_marked_at_its_statement() -> None:
    shown = page_of(Desk(chart=sample_chart().put(bare("Observation/71", "9"))))
    assert shown.words.count("changed in the chart since") == 1


def test_a_disputed_statement_is_marked_for_every_viewer_here_and_on_the_page_of_the_run() -> None:
    desk = Desk()
    claim = RUN.summary.sections[0].claims[0]
    key = desk.feedback.claim_key(SERVER, "Patient/1", claim)
    feedback = Feedback(
        FeedbackId("f"), RUN.run_id, SERVER, "Patient/1", Mark.WRONG, "user:another", NOW, claim=key
    )
    desk.feedback.say(feedback)
    shown = page_of(desk)
    assert shown.words.count("disputed by a colleague, check the chart") == 1
    assert "1 statement disputed by a colleague, marked below." in shown.words
    assert "disputed by a colleague, check the chart" in page_of(desk, f"/runs/{RUN.run_id}").words


def test_who_sees_a_banner_of_the_ehr_still_sees_one_line() -> None:
    shown = page_of(Desk(launch=a_launch(needs_banner=False)))
    assert "ZZYZXCANARY, Jane (Mrs)" in shown.words
    assert "Born 04-May-1951" in shown.words
    assert "Number MRN 0049-1187" in shown.words
    assert "Gender" not in shown.words
    assert shown.all("header", "one-line")


def test_an_attested_summary_says_by_whom_and_an_older_one_is_named_beside_a_draft() -> None:
    document = FiledDocument(
        "DocumentReference/907", RUN.inputs.server, "2", RUN.run_id, "Patient/1", DocumentState.ATTESTED,
        CREATED, attested_by="Practitioner/9", changed_at=CREATED,
    )  # fmt: skip
    desk = Desk()
    desk.store.put_document(document)
    shown = page_of(desk)
    assert "AI-generated, attested by Practitioner/9" in shown.words
    assert "not reviewed" not in shown.words
    newer = replace(RUN, run_id=RunId("newer"), created_at=CREATED + timedelta(minutes=1))
    desk = Desk(runs=(RUN, newer))
    desk.store.put_document(document)
    shown = page_of(desk)
    assert "AI-generated, not reviewed" in shown.words
    assert "An older summary is in the chart: AI-generated, attested by Practitioner/9" in shown.words


def test_without_a_stored_summary_one_can_be_made_and_the_live_strip_stands() -> None:
    shown = page_of(Desk(runs=()))
    assert "No summary is stored" in shown.words
    assert shown.all("section", "live")
    form = shown.all("form")[0]
    assert form["hx-post"].startswith("/sidebar/generate?")
    assert page_of(Desk(runs=(), making=None)).all("form")[0]["action"] == "/launch/logout"


def test_a_view_without_a_stored_summary_offers_to_make_it() -> None:
    shown = page_of(Desk(), "/sidebar/summary?view=handover")
    assert "No summary is stored" in shown.words
    assert "view=handover" in shown.all("form")[0]["hx-post"]
    assert [one.get("aria-current") for one in shown.all("a")[:2]].count("page") <= 1
    assert Desk().get("/sidebar?view=nothing").status_code == 404


def test_a_card_s_view_is_opened_where_there_is_such_a_view() -> None:
    assert "Handover" in page_of(Desk(launch=a_launch(context={"view": "handover"}))).text
    assert page_of(Desk(launch=a_launch(context={"view": "<b>"}))).all("section", "contradictions")


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ("stopped", "This summary is stopped"),
        ("destroyed", "What was stored was destroyed"),
        ("another", "What is stored is not about this person"),
        ("down", "What you may read could not be checked"),
        ("forbidden", "Your account may not read this patient"),
        ("inactive", "This record cannot be used"),
        ("off", "Summaries are switched off for you"),
    ],
)
def test_every_state_in_which_nothing_is_shown_says_why(turn: str, words: str) -> None:
    desk = Desk()
    if turn == "stopped":
        desk.store.add_stop(Stop(StopScope.ALL, "", NOW, "user:admin"))
    elif turn == "destroyed":
        desk.store.break_down(ShreddedError())
    elif turn == "another":
        desk.chart.put(sample_patient(birthDate="1990-01-01"))
    elif turn == "down":
        desk.chart.is_down = True
    elif turn == "forbidden":
        desk.chart.refused.add("Patient")
    elif turn == "inactive":
        desk.chart.put(sample_patient(active=False))
    else:
        desk.feedback.switch_off("user:abc", NOW)
    answer = desk.get("/sidebar")
    shown = Markup(answer.text)
    assert answer.status_code == 200
    assert words in shown.words
    assert "Penicillin" not in answer.text
    assert POTASSIUM not in answer.text
    assert shown.all("section", "live")
    assert not [entry for entry in desk.audit.entries if entry.action is Action.VIEW]


def test_a_session_with_the_ehr_that_is_over_shows_nothing_of_the_patient() -> None:
    desk = Desk(chart=sample_chart(is_over=True))
    for path in ("/sidebar", "/sidebar/summary", "/sidebar/live", f"/sidebar/freshness?run={RUN.run_id}"):
        answer = desk.get(path)
        assert answer.status_code in (401, 200)
        assert "ZZYZXCANARY" not in answer.text
        assert "Penicillin" not in answer.text
    assert "Your session with the EHR is over" in desk.get("/sidebar").text


def test_a_dead_patient_s_banner_is_another() -> None:
    shown = page_of(Desk(chart=sample_chart().put(sample_patient(deceasedDateTime="2026-11-23"))))
    assert shown.all("header", "deceased")
    assert "Died 23-Nov-2026" in shown.words


def test_a_store_that_cannot_be_read_is_said_and_nothing_is_shown() -> None:
    desk = Desk()
    desk.store.break_down(StoreError("broken"))
    assert desk.get("/sidebar").status_code == 503


def test_a_chart_that_hangs_is_not_waited_for_for_ever() -> None:
    chart = sample_chart(hanging={"AllergyIntolerance"})
    shown = page_of(Desk(chart=chart, limit_s=0.2))
    assert "could not be checked now" in shown.words
    assert "Penicillin" not in shown.words


def test_who_was_not_launched_sees_nothing() -> None:
    answer = Desk().send("GET", "/sidebar?visit=another-visit-of-22-ch")
    assert answer.status_code == 401
    assert "ZZYZXCANARY" not in answer.text


def test_a_run_about_another_patient_is_not_opened() -> None:
    other = replace(RUN, run_id=RunId("other"), inputs=replace(RUN.inputs, patient="Patient/2"))
    elsewhere = replace(
        RUN, run_id=RunId("else"), inputs=replace(RUN.inputs, server="https://x.example/fhir")
    )
    desk = Desk(runs=(RUN, other, elsewhere))
    for run_id in ("other", "else", "nothing", "..%2F"):
        assert desk.get(f"/sidebar/sources/1?run={run_id}").status_code == 404
        assert desk.get(f"/sidebar/freshness?run={run_id}").status_code == 404


# Evidence


def number_of(reference: str) -> int:
    desk = Desk()
    found = re.findall(r"/sidebar/sources/(\d+)\?", desk.get("/sidebar").text)
    for number in sorted({int(one) for one in found}):
        if reference in desk.get(f"/sidebar/sources/{number}?run={RUN.run_id}").text:
            return number
    raise AssertionError("not cited")


def evidence_of(desk: Desk, reference: str = "Observation/71") -> Markup:
    return page_of(desk, f"/sidebar/sources/{number_of(reference)}?run={RUN.run_id}")


def test_evidence_shows_value_date_and_version_and_that_it_is_unchanged() -> None:
    shown = evidence_of(Desk())
    assert "Unchanged in the chart." in shown.words
    assert "Potassium: 5.6 mmol/L" in shown.words
    assert "Reference range3.5–5.1 mmol/L" in shown.words
    assert "Observation/71/_history/2" in shown.words
    assert "Open in chart" not in shown.words


def test_evidence_that_changed_shows_both_readings() -> None:
    changed = potassium(4.4, resource_id="71") | {"meta": {"versionId": "3"}}
    shown = evidence_of(Desk(chart=sample_chart().put(changed)))
    assert "Changed in the chart since the summary was made." in shown.words
    assert "Potassium: 5.6 mmol/L" in shown.words
    assert "It reads now: Potassium: 4.4 mmol/L" in shown.words


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ("gone", "No longer readable"),
        ("refused", "Not shown: your account may not read this"),
        ("failing", "Not shown: it could not be read now"),
        ("hanging", "Not shown: it could not be read now"),
    ],
)
def test_evidence_that_cannot_be_read_now_is_not_shown(turn: str, words: str) -> None:
    desk = Desk(limit_s=0.2)
    if turn == "gone":
        del desk.chart.resources["Observation/71"]
    else:
        getattr(desk.chart, turn).add("Observation")
    shown = evidence_of(desk)
    assert words in shown.words
    assert "5.6" not in shown.words


def test_evidence_names_no_further_source_that_nobody_looked_for() -> None:
    copied = tuple(
        replace(fact, copies=(ResourceVersion("DocumentReference/99", "1", "x"),))
        for fact in RUN.summary.facts
    )
    desk = Desk(runs=(replace(RUN, summary=replace(RUN.summary, facts=copied)),))
    answer = desk.get(f"/sidebar/sources/1?run={RUN.run_id}")
    assert "Unchanged in the chart" in answer.text
    assert "DocumentReference/99" not in answer.text


def test_the_sentence_of_a_note_is_highlighted_in_its_text() -> None:
    note = next(fact for fact in RUN.summary.facts if fact.id == "DocumentReference/51")
    start = note.body.index("\n\n") + 2
    end = note.body.index(".", start) + 1
    sentence = " ".join(note.body[start:end].split())
    passage = replace(
        note, id=FactId("DocumentReference/51#c1"), body="", value=sentence, span=(start, end), text=sentence
    )
    claim = replace(RUN.summary.sections[0].claims[0], text=sentence, citations=(passage.id,))
    section = replace(
        RUN.summary.sections[0], key="notes", title="From the notes", claims=(claim,), state=None
    )
    summary = replace(
        RUN.summary, facts=(*RUN.summary.facts, passage), sections=(section, *RUN.summary.sections)
    )
    desk = Desk(runs=(replace(RUN, summary=summary),))
    answer = desk.get(f"/sidebar/sources/1?run={RUN.run_id}")
    marked = re.search(r"<mark>(.*?)</mark>", answer.text, re.DOTALL)
    assert marked is not None
    assert " ".join(marked[1].split()) == sentence
    moved = replace(passage, value="Something that the note does not say.")
    summary = replace(summary, facts=(*RUN.summary.facts, moved))
    desk = Desk(runs=(replace(RUN, summary=summary),))
    assert "<mark>" not in desk.get(f"/sidebar/sources/1?run={RUN.run_id}").text


def test_the_ehr_is_asked_to_open_a_record_only_where_it_said_how() -> None:
    desk = Desk(launch=a_launch(messaging=("handle", "https://ehr.example.org")))
    button = evidence_of(desk, "Condition/21").all("button", "open-in-chart")[0]
    assert button["data-activity"] == "problem-review"
    assert button["data-parameter"] == "problemLocation"
    assert button["data-reference"] == "Condition/21"
    other = evidence_of(desk).all("button", "open-in-chart")[0]
    assert other["data-activity"] == "urn:epicrisis:activity:record-review"
    main = page_of(desk).all("main")[0]
    assert (main["data-handle"], main["data-origin"]) == ("handle", "https://ehr.example.org")


def test_a_number_that_is_none_is_not_found() -> None:
    for n in ("0", "-1", "9999", "x", "1000001"):
        assert Desk().get(f"/sidebar/sources/{n}?run={RUN.run_id}").status_code in (400, 404)


def test_without_a_script_evidence_is_a_page_of_its_own() -> None:
    alone = Desk().get(f"/sidebar/sources/1?run={RUN.run_id}", headers={"hx-request": ""})
    assert alone.text.startswith("<!doctype html>")
    assert "Back to the summary" in alone.text
    assert not Desk().get(f"/sidebar/sources/1?run={RUN.run_id}").text.startswith("<!doctype")


# The live strip


def test_the_live_strip_is_read_as_the_user() -> None:
    chart = Chart().put(sample_patient(), allergy(), dnr(), potassium(updated=LATE), order(updated=LATE))
    desk = Desk(chart=chart)
    shown = page_of(desk, "/sidebar/live")
    assert shown.words.index("Known allergies") < shown.words.index("Code status")
    assert "Not for resuscitation" in shown.words
    assert "7.1 mmol/L" in shown.words
    assert desk.audit.entries[-1].action is Action.READ


def test_a_chart_that_is_down_makes_four_failures_of_the_strip() -> None:
    desk = Desk(chart=sample_chart(is_down=True))
    shown = page_of(desk, "/sidebar/live")
    assert shown.words.count("FAILED: ") == 4
    assert "None" not in shown.words
    assert desk.audit.entries[-1].outcome != "ok"


# What changed


def _stale(*changes: Change, freshness: Freshness = Freshness.STALE) -> Staleness:
    return Staleness(RUN.run_id, freshness, RUN.read_at, NOW, changes)


def _asked(found: Staleness, **more: Any) -> Markup:
    desk = Desk(**more)

    async def ask(run: Any, actor: str) -> Staleness:
        return found

    desk.room.ask = ask
    return page_of(desk, f"/sidebar/freshness?run={RUN.run_id}")


def test_a_changed_chart_is_said_with_what_changed() -> None:
    shown = _asked(
        _stale(
            Change("Observation/71", "Observation", What.CHANGED, False, True),
            Change("AllergyIntolerance/11", "AllergyIntolerance", What.CHANGED, True, True),
        )
    )
    assert "STALE The chart changed since this was written" in shown.words
    assert "allergies: 1 changed · results and vital signs: 1 changed" in shown.words
    assert "What must not be missing is among it." in shown.words


def test_a_change_in_what_the_user_may_not_read_is_not_named() -> None:
    shown = _asked(
        _stale(Change("AllergyIntolerance/11", "AllergyIntolerance", What.CHANGED, True, True)),
        chart=sample_chart(refused={"AllergyIntolerance"}),
    )
    assert "STALE" in shown.words
    assert "allerg" not in shown.words.lower()
    assert "further changes in what your account cannot read" in shown.words


def test_a_chart_that_did_not_change_is_said_to_be_as_it_was() -> None:
    assert "Nothing changed in the chart since" in _asked(_stale(freshness=Freshness.FRESH)).words


def test_a_run_made_as_this_user_is_compared_as_this_user() -> None:
    mine = replace(RUN, inputs=replace(RUN.inputs, access_profile="user:abc"))
    shown = page_of(Desk(runs=(mine,)), f"/sidebar/freshness?run={RUN.run_id}")
    assert "did not keep what it rests on" in shown.words


# Making one


SAID = (
    (ToldKind.STAGE, {"stage": "generate", "detail": ""}),
    (ToldKind.CLAIM, {"section": "allergies", "text": "Penicillin\n</script>: rash.", "cites": ["x"]}),
    (ToldKind.DONE, {"run_id": "r"}),
)


def test_a_summary_is_asked_for_as_the_user_and_followed() -> None:
    making = ScriptedMaking(*SAID)
    desk = Desk(runs=(), making=making)
    answer = desk.post("/sidebar/generate?view=history")
    assert answer.status_code == 200
    box = Markup(answer.text).all("section", "generation")[0]
    assert box["data-stream"] == f"/sidebar/stream?visit={VISIT}&generation=g1"
    asked = making.asked[0]
    assert (asked.access_profile, asked.actor, asked.by) == ("user:abc", "user:abc", "Practitioner/7")
    assert (asked.kind, asked.attempt_wanted, asked.only_kept) == ("history", False, True)
    stream = desk.get("/sidebar/stream?generation=g1")
    assert stream.headers["content-type"].startswith("text/event-stream")
    events = stream.text.strip().split("\n\n")
    assert events[0] == 'id: 1\nevent: stage\ndata: {"stage":"generate","detail":""}'
    assert "Allergies and intolerances" in events[1]
    assert len(events[1].split("\n")) == 3
    assert events[2].startswith("id: 3\nevent: done")


def test_a_stream_goes_on_where_it_broke_off() -> None:
    making = ScriptedMaking(*SAID)
    desk = Desk(runs=(), making=making)
    desk.post("/sidebar/generate")
    stream = desk.get("/sidebar/stream?generation=g1", headers={"last-event-id": "2"})
    assert making.followed == [2]
    assert stream.text.startswith("id: 3\n")


def test_a_generation_of_another_reader_or_patient_is_not_followed_nor_stopped() -> None:
    making = ScriptedMaking(*SAID)
    Desk(runs=(), making=making).post("/sidebar/generate")
    for launch in (a_launch(access_profile="user:other"), a_launch(patient="Patient/2")):
        desk = Desk(runs=(), making=making, launch=launch)
        assert desk.get("/sidebar/stream?generation=g1").status_code == 404
        assert desk.post("/sidebar/stop?generation=g1").status_code == 404
    assert making.cancelled == []
    assert Desk(runs=(), making=making).post("/sidebar/stop?generation=g1").status_code == 204
    assert making.cancelled == ["g1"]


def test_a_stored_summary_can_be_written_anew() -> None:
    making = ScriptedMaking()
    desk = Desk(making=making)
    form = next(one for one in page_of(desk).all("form") if "again=1" in one.get("hx-post", ""))
    desk.post(form["hx-post"])
    assert making.asked[0].attempt_wanted


def test_a_summary_that_cannot_be_begun_says_so() -> None:
    making = ScriptedMaking()
    making.failure = StoreError("broken")
    answer = Desk(runs=(), making=making).post("/sidebar/generate")
    assert "could not be made (store)" in Markup(answer.text).words


def test_nothing_is_made_for_a_form_of_another_page() -> None:
    making = ScriptedMaking()
    desk = Desk(runs=(), making=making)
    for headers in ({"sec-fetch-site": "cross-site"}, {"x-epicrisis-visit": "another"}):
        assert desk.post("/sidebar/generate", headers=headers).status_code in (401, 403)
    assert making.asked == []


def test_who_opens_a_patient_has_the_engine_read_the_chart() -> None:
    making = ScriptedMaking()
    Desk(making=making).get("/sidebar")
    assert [asked.access_profile for asked in making.warmed] == ["user:abc"]


# Hostile text

KEPT = frozenset(
    {"run_id", "id", "citations", "key", "kind", "reference", "version", "digest", "updated", "server",
     "patient", "birth_date", "record_number", "resource_type", "section", "access_profile"}
)  # fmt: skip
"""What ties a run to its chart and its parts together; everything else is text that a record could hold."""


def spoil(value: Any, text: str) -> Any:
    """Return a copy in which every text of a record is `text`."""
    if isinstance(value, Enum | date | datetime | int | float) or value is None:
        return value
    if isinstance(value, str):
        return text
    if isinstance(value, tuple):
        return tuple(spoil(item, text) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        named = [field.name for field in fields(value) if field.init and field.name not in KEPT]
        return replace(value, **{name: spoil(getattr(value, name), text) for name in named})
    return value


def hostile_desk(text: str) -> Desk:
    chart = Chart().put(*of_run(RUN), sample_patient(name=[{"text": text}], gender=text))
    chart.put(
        {**allergy(), "code": {"text": text}},
        {**potassium(updated=LATE), "code": {**potassium()["code"], "text": text}},
        {**order(updated=LATE), "id": "h", "medicationCodeableConcept": {"text": text}},
        {**dnr(), "code": {**dnr()["code"], "text": text}},
    )
    return Desk(runs=(spoil(RUN, text),), chart=chart)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "path", ["/sidebar", "/sidebar/live", f"/sidebar/sources/2?run={RUN.run_id}", "/sidebar/summary"]
)
def test_no_text_of_a_record_changes_the_elements_of_the_sidebar(path: str, text: str) -> None:
    benign = page_of(hostile_desk("~plain words~"), path)
    hostile = page_of(hostile_desk(text), path)
    assert benign.text.count("~plain words~") > 2
    assert hostile.shape == benign.shape
    ours = [a[name] for _, a in hostile.elements for name in ("href", "src", "hx-get", "action") if name in a]
    assert all(address.startswith(("/", "#")) and not address.startswith("//") for address in ours)
    assert not any(name.startswith("on") for _, attributes in hostile.elements for name in attributes)


def test_no_style_and_no_script_stands_in_a_page() -> None:
    for path in ("/sidebar", "/sidebar/live", f"/sidebar/sources/2?run={RUN.run_id}"):
        shown = page_of(Desk(), path)
        assert not any("style" in attributes for _, attributes in shown.elements)
        assert all("src" in attributes for tag, attributes in shown.elements if tag == "script")
    answer = Desk().get("/sidebar")
    assert "'unsafe" not in answer.headers["content-security-policy"]
    assert "connect-src 'self'" in answer.headers["content-security-policy"]
    assert "frame-ancestors http://ehr.localhost" in answer.headers["content-security-policy"]


def test_no_identity_of_a_patient_stands_in_an_address() -> None:
    shown = page_of(Desk())
    for _, attributes in shown.elements:
        for name in ("href", "hx-get", "hx-post", "action"):
            assert "Patient" not in attributes.get(name, "")
            assert "ZZYZX" not in attributes.get(name, "")


def test_a_timeout_names_no_patient() -> None:
    assert "Patient" not in str(TimedOut("The chart did not answer in time."))
