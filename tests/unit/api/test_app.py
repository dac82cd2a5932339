from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from fixtures.sample_run import CREATED, sample_run, sample_summary
from service.api.app import ROWS_A_PAGE
from service.ports import Action, RunState, StoredRun
from service.writeback.labels import BANNER
from tests.conftest import CANARY
from tests.unit.api.markup import Markup
from tests.unit.api.serving import NOW, serve

RUN = sample_run()
PATH = f"/runs/{RUN.run_id}"
PAGES = (PATH, f"{PATH}/sources/1", f"{PATH}.json")


def _many(number: int) -> list[StoredRun]:
    return [
        sample_run(run_id=f"run{n}", created_at=CREATED - timedelta(minutes=n), patient=f"Patient/{n}")
        for n in range(number)
    ]


async def test_the_canary_is_the_patient_of_the_sample() -> None:
    assert CANARY.lower() in RUN.summary.identity.name.lower()


async def test_the_banner_says_who_this_is() -> None:
    page = Markup((await serve(RUN).ask(PATH)).text)
    assert (
        f"{CANARY.upper()}, Jane (Mrs) Born 04-May-1951 (75y) Gender Female Number MRN 0049-1187"
        in page.words
    )


async def test_what_is_missing_in_the_banner_is_said_to_be_not_known() -> None:
    bare = replace(RUN.summary.identity, name="", birth_date="", gender="", record_number="")
    run = replace(RUN, summary=replace(RUN.summary, identity=bare))
    page = Markup((await serve(run).ask(PATH)).text)
    assert "Not known Born Not known Gender Not known Number Not known" in page.words


async def test_the_banner_of_the_dead_looks_and_reads_otherwise() -> None:
    page = Markup((await serve(sample_run(deceased=True)).ask(PATH)).text)
    assert len(page.all("header", "deceased")) == 1
    assert "Born 04-May-1951 Died 23-Nov-2026 (75y)" in page.words
    assert Markup((await serve(RUN).ask(PATH)).text).all("header", "deceased") == []


async def test_the_page_begins_and_ends_with_the_label() -> None:
    words = Markup((await serve(RUN).ask(PATH)).text).words
    assert words.index(BANNER) < words.index("Known allergies") < words.index("Sources 24 cited")
    end = words.index("What is not in this text")
    tail = words[end : words.index("Sources 24 cited")]
    assert BANNER in tail
    assert "Born 04-May-1951" in tail
    assert "Lapses 27-Nov-2026 14:06 UTC unless attested" in tail


async def test_what_was_read_and_what_was_not_stands_before_the_text() -> None:
    words = Markup((await serve(RUN).ask(PATH)).text).words
    said = "Read up to 24-Nov-2026 14:05 UTC · 412 items, 1974 to 23-Nov-2026 · not retrieved: imaging, "
    assert words.index(said) < words.index("Known allergies")


async def test_an_incomplete_record_opens_with_incomplete_and_names_what_is_missing() -> None:
    run = sample_run(incomplete=True, state=RunState.INCOMPLETE)
    page = Markup((await serve(run).ask(PATH)).text)
    said = page.words.index("INCOMPLETE Not retrieved: Medications, as recorded, not reconciled.")
    assert said < page.words.index("Read up to")
    assert f"{BANNER} INCOMPLETE" in page.words
    assert "INCOMPLETE" not in Markup((await serve(RUN).ask(PATH)).text).words


async def test_every_statement_ends_in_numbers_that_lead_to_its_sources() -> None:
    page = Markup((await serve(RUN).ask(PATH)).text)
    chips = page.all("a", "chip")
    sources = {attributes["id"] for attributes in page.all("article", "source")}
    assert len(page.all("li", "statement")) == len(RUN.summary.published)
    assert len(chips) == sum(len(claim.citations) for claim in RUN.summary.published)
    assert {chip["href"].removeprefix("#") for chip in chips} <= sources
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = {link["href"] for link in page.all("a") if link["href"].startswith("#")}
    assert anchors <= {f"#{name}" for name in ids}


async def test_every_source_is_shown_as_recorded_without_a_script() -> None:
    words = Markup((await serve(RUN).ask(PATH)).text).words
    for fact in RUN.summary.facts:
        assert fact.text in words
        assert fact.source.versioned_reference in words
        assert " ".join(fact.body.split()) in words


async def test_what_code_added_is_marked() -> None:
    words = Markup((await serve(RUN).ask(PATH)).text).words
    assert "Latex: reaction not recorded. Recorded 2021. added from the record [2]" in words
    assert words.count("added from the record") == 3


async def test_refused_statements_are_a_count_and_never_shown() -> None:
    served = serve(RUN)
    for path in PAGES:
        text = (await served.ask(path)).text
        assert all(claim.text not in text for claim in RUN.summary.refused)
    words = Markup((await served.ask(PATH)).text).words
    assert "Refused: 3 statements that the record does not bear out." in words


async def test_restricted_data_is_mentioned_without_its_kind() -> None:
    run = replace(RUN, summary=replace(RUN.summary, restricted=True))
    sentence = "Some of the record was not used, because of who may read it."
    assert sentence in Markup((await serve(run).ask(PATH)).text).words
    assert sentence not in Markup((await serve(RUN).ask(PATH)).text).words


async def test_no_page_promises_more_than_was_done() -> None:
    served = serve(RUN, sample_run(run_id="b", incomplete=True, deceased=True))
    for path in (*PAGES, "/runs/b", "/", "/nothing"):
        words = Markup((await served.ask(path)).text).words
        assert not re.search(
            r"\b(verified|certified|safe|safely|confidence|accura\w+)\b", words, re.IGNORECASE
        )
        assert "✓" not in words
        assert "%" not in words.replace("7.40 %", "").replace("5.6 %", "")
    assert "values match the source" in Markup((await served.ask(PATH)).text).words


async def test_headings_descend_one_step_at_a_time() -> None:
    served = serve(RUN)
    for path in (PATH, f"{PATH}/sources/1", "/"):
        page = Markup((await served.ask(path)).text)
        levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        assert len(page.all("main")) == 1


async def test_a_source_has_a_page_of_its_own() -> None:
    answer = await serve(RUN).ask(f"{PATH}/sources/3")
    words = Markup(answer.text).words
    assert answer.status_code == 200
    assert "Community acquired pneumonia: active, confirmed" in words
    assert "Condition/21/_history/2" in words
    assert "Born 04-May-1951" in words
    assert BANNER in words


@pytest.mark.parametrize(("number", "status"), [("0", 400), ("x", 400), ("999", 404), ("9" * 30, 400)])
async def test_a_source_that_is_not_there_is_a_plain_page(number: str, status: int) -> None:
    answer = await serve(RUN).ask(f"{PATH}/sources/{number}")
    assert answer.status_code == status
    assert CANARY.lower() not in answer.text.lower()


async def test_the_json_says_what_the_page_says() -> None:
    answer = await serve(RUN).ask(f"{PATH}.json")
    said = json.loads(answer.content)
    assert answer.headers["content-type"] == "application/json"
    assert next(iter(said)) == "label"
    assert said["label"] == BANNER
    assert said["counts"] == {"published": 24, "withheld": 0, "refused": 3}
    assert said["expires_at"] == "2026-11-27T14:06:30Z"
    assert [claim["sources"] for claim in said["sections"][0]["claims"]] == [[1], [2]]
    assert said["sources"][0]["reference"] == "AllergyIntolerance/11/_history/2"
    assert sum(len(section["claims"]) for section in said["sections"]) == 24


async def test_each_view_is_on_record_before_it_is_shown() -> None:
    served = serve(RUN)
    for path in PAGES:
        await served.ask(path)
    assert [(e.action, e.actor, e.patient, e.run_id, e.target, e.at) for e in served.audit.entries] == [
        (action, "user:local", "Patient/1", RUN.run_id, RUN.document, NOW)
        for action in (Action.EXPORT if path.endswith(".json") else Action.VIEW for path in PAGES)
    ]


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("failure", [None, RuntimeError(f"disk full while writing {CANARY}")])
async def test_a_view_that_cannot_be_recorded_is_not_shown(path: str, failure: Exception | None) -> None:
    served = serve(RUN)
    served.audit.break_down(failure)
    answer = await served.ask(path)
    assert answer.status_code == 503
    assert "could not be written to the audit log" in answer.text
    assert CANARY.lower() not in answer.text.lower()


async def test_a_run_that_does_not_exist_leaves_no_entry() -> None:
    served = serve(RUN)
    assert (await served.ask("/runs/other")).status_code == 404
    assert served.audit.entries == []


@pytest.mark.parametrize("run_id", ["a.b", "a b", "%00", "é", "a" * 65, "<script>", "a'--"])
async def test_a_malformed_run_id_never_reaches_the_store(run_id: str) -> None:
    served = serve(RUN)
    served.store.break_down(AssertionError("asked for a malformed id"))
    answer = await served.ask(f"/runs/{run_id}")
    assert answer.status_code in (400, 404)
    assert run_id not in Markup(answer.text).text


async def test_an_empty_list_says_what_to_type() -> None:
    words = Markup((await serve().ask("/")).text).words
    assert "epicrisis summarize PATIENT --fhir-url" in words


async def test_the_list_says_who_when_what_and_how_many() -> None:
    words = Markup((await serve(RUN).ask("/")).text).words
    assert "1 summary, newest first" in words
    assert (
        f"{CANARY.upper()}, Jane (Mrs) Patient/1 Draft filed History, 24-Nov-2026 14:06 UTC "
        "24 statements, 3 refused Model SmolLM2-135M-Instruct" in words
    )


async def test_the_list_is_paged_newest_first() -> None:
    served = serve(*_many(ROWS_A_PAGE + 1))
    first, second = Markup((await served.ask("/")).text), Markup((await served.ask("/?page=2")).text)
    assert [len(page.all("li", "run")) for page in (first, second)] == [ROWS_A_PAGE, 1]
    assert "51 summaries, newest first; 1 to 50 on this page" in first.words
    assert "51 to 51 on this page" in second.words
    assert [link["href"] for link in first.all("a", "button")] == ["/?page=2"]
    assert [link["href"] for link in second.all("a", "button")] == ["/?page=1"]
    assert "Patient/50" in second.words


async def test_a_list_that_just_fills_a_page_has_no_second() -> None:
    served = serve(*_many(ROWS_A_PAGE))
    assert "Page 1 of" not in Markup((await served.ask("/")).text).words
    assert (await served.ask("/?page=2")).status_code == 404


@pytest.mark.parametrize("number", ["0", "-1", "x", "", "1.5", "9" * 40])
async def test_an_odd_page_number_is_not_understood(number: str) -> None:
    answer = await serve(RUN).ask(f"/?page={number}")
    assert answer.status_code == 400
    assert "does not understand this address" in answer.text


async def test_health_is_ok_once_the_store_can_be_read_and_503_otherwise() -> None:
    served = serve(RUN)
    answer = await served.ask("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    served.store.break_down(RuntimeError(CANARY))
    answer = await served.ask("/healthz")
    assert answer.status_code == 503
    assert CANARY not in answer.text
    assert served.audit.entries == []


@pytest.mark.parametrize("path", ["/", *PAGES])
async def test_a_store_that_cannot_be_read_is_a_plain_page(path: str) -> None:
    served = serve(RUN)
    served.store.break_down()
    answer = await served.ask(path)
    assert answer.status_code == 503
    assert "store of summaries cannot be read" in answer.text


async def test_an_unforeseen_error_tells_neither_page_nor_log_what_it_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    served = serve(RUN)
    served.store.break_down(RuntimeError(f"no such row: {CANARY}"))
    with caplog.at_level(logging.DEBUG):
        answer = await served.ask(PATH)
    assert answer.status_code == 500
    assert answer.headers["cache-control"] == "no-store"
    assert CANARY not in answer.text + caplog.text
    assert "GET /runs/{run_id}: RuntimeError" in caplog.text


@pytest.mark.parametrize("path", ["/", *PAGES, "/healthz"])
async def test_head_answers_as_get_does(path: str) -> None:
    served = serve(RUN)
    assert (await served.ask(path, "HEAD")).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
async def test_nothing_but_reading_is_offered(method: str) -> None:
    served = serve(RUN)
    answer = await served.ask(PATH, method)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
    assert "can be read, and nothing else" in answer.text
    assert served.audit.entries == []


@pytest.mark.parametrize(
    "path", ["/docs", "/redoc", "/openapi.json", "/static/../app.py", "/static/%2e%2e/app.py"]
)
async def test_nothing_of_the_inside_is_offered(path: str) -> None:
    assert (await serve(RUN).ask(path)).status_code == 404


async def test_a_failed_run_says_its_code() -> None:
    run = replace(sample_run(state=RunState.FAILED), summary=sample_summary())
    assert "Failed, not filed (filing)." in Markup((await serve(run).ask(PATH)).text).words
