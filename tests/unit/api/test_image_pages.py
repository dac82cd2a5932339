"""What is read from pictures on the pages: apart, in plain words, and never among what was checked."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from connectors.fhir.sight import FhirSight
from service.api.pages import NO_MARKS, NOT_FILED, build_page
from service.api.sidebar.sheet import build_sheet
from service.engine.prompt import Prompt
from service.engine.scripted import ScriptedEngine
from service.grounding.readings import NOT_CHECKED, TITLE
from service.ports import StoredRun
from service.ports.images import ImageUse
from service.readings import Images
from service.review.attesting import Why, items_of
from service.sight import look
from tests.unit.api.markup import Markup
from tests.unit.api.serving import NOW, serve
from tests.unit.api.sidebar.chart import Chart, of_run
from tests.unit.test_image_runs import MISSED, SHOWN, STUDY, Source, answer, run_of
from tests.unit.test_summarize import Bench, EhrDouble

REPORT = {
    "resourceType": "DiagnosticReport", "id": "rep1", "status": "final", "effectiveDateTime": "2019-05-04",
    "subject": {"reference": "Patient/1"}, "code": {"text": "Chest X-ray report"},
    "conclusion": "No pleural effusion.",
}  # fmt: skip


def with_effusion(prompt: Prompt) -> str:
    told = json.loads(answer(prompt))
    if prompt.messages[-1].images:
        told["claims"].append({"cites": ["F1"], "sees": "shows", "text": "a pleural effusion"})
    return json.dumps(told)


@pytest.fixture
async def run() -> StoredRun:
    made = Bench(
        EhrDouble(more=[STUDY, REPORT]),
        ScriptedEngine(with_effusion),
        images=Images(Source(SHOWN, unseen=(MISSED,)), ImageUse.SHOW, 8),
    )
    return await run_of(made)


async def test_the_page_says_over_the_section_that_nothing_of_it_is_checked(run: StoredRun) -> None:
    words = Markup((await serve(run).ask(f"/runs/{run.run_id}")).text).words
    assert f"{TITLE} {NOT_CHECKED} {NOT_FILED}" in words
    filed = replace(run, inputs=replace(run.inputs, files_images=True))
    assert NOT_FILED not in Markup((await serve(filed).ask(f"/runs/{run.run_id}")).text).words
    assert "The picture may show an opacity in the left lower zone. not checked against the record" in words
    assert "verified" not in words.lower()


async def test_statements_that_match_their_source_are_counted_without_them(run: StoredRun) -> None:
    words = Markup((await serve(run).ask(f"/runs/{run.run_id}")).text).words
    counted = re.search(r"In the (\d+) statements? below, values match the source", words)
    assert counted is not None
    unchecked = 2
    assert int(counted[1]) == len(run.summary.published) - unchecked


async def test_a_disagreement_stands_beside_the_report_s_own_line_and_is_not_resolved(run: StoredRun) -> None:
    page = build_page(run, NOW)
    section = next(one for one in page.sections if one.key == "image_disagreements")
    texts = [claim.before + claim.strong + claim.after for claim in section.claims]
    assert texts[0] == "The picture shows a pleural effusion."
    assert "No pleural effusion" in texts[1]
    assert [claim.unchecked for claim in section.claims] == [True, False]
    words = Markup((await serve(run).ask(f"/runs/{run.run_id}")).text).words
    assert "Picture and report differ effusion: the report tells it otherwise." in words


async def test_what_could_not_be_seen_is_told_and_not_as_left_out_for_length(run: StoredRun) -> None:
    told = "Pictures of Chest radiograph: 2 items, 04-May-2019 (not seen: the archive is down)"
    words = Markup((await serve(run).ask(f"/runs/{run.run_id}")).text).words
    assert told in words
    assert f"Left out for length: {told}" not in words


async def test_the_export_gives_the_verdict_of_each_statement(run: StoredRun) -> None:
    told = json.loads((await serve(run).ask(f"/runs/{run.run_id}.json")).text)
    verdicts = {claim["verdict"] for section in told["sections"] for claim in section["claims"]}
    assert verdicts == {"supported", "not_verifiable"}


@pytest.mark.parametrize("refused", [set(), {"ImagingStudy"}], ids=["all", "no studies"])
async def test_a_reader_who_may_not_read_the_study_sees_nothing_of_its_pictures(
    run: StoredRun, refused: set[str]
) -> None:
    chart = Chart(refused=refused).put(*of_run(run))
    async with chart.client() as client:
        sight = await look(FhirSight(client, "Patient/1", "", 5.0), run.summary)
    sheet = build_sheet(run, sight, NO_MARKS, NOW, view="history", title="History")
    assert sheet.page is not None
    texts = [claim.before + claim.strong + claim.after for one in sheet.sections for claim in one.all]
    assert any("opacity" in text for text in texts) is not bool(refused)
    assert bool(sheet.page.notes.unseen) is not bool(refused)
    assert any(one.notice.startswith(NOT_CHECKED) for one in sheet.sections) is not bool(refused)


def test_whoever_attests_decides_on_each_reading_as_what_it_is(run: StoredRun) -> None:
    of_pictures = [item for item in items_of(run.summary) if Why.FROM_PICTURE in item.why]
    assert len(of_pictures) == 2
    assert all(item.claim is not None and "picture" in item.claim.text for item in of_pictures)
    assert not any(Why.NOT_SUPPORTED in item.why for item in items_of(run.summary))
