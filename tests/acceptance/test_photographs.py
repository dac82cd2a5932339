"""From a photograph that a chart keeps itself to a filed summary that cites it, without any image archive."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from connectors.fhir.client import FhirClient
from fixtures.charts import canary_bundle
from fixtures.servers import SekmetServer
from service.context.pictures import DIGEST, SECTION, spot_of
from service.engine.copying import answer_by_copying
from service.engine.prompt import Prompt
from service.engine.scripted import ScriptedEngine
from service.grounding.readings import NOT_CHECKED
from service.photographs import NO_PHOTOGRAPH
from service.pictures import NO_ARCHIVE
from service.ports import RunState
from service.proof.check import Prover
from tests.acceptance.test_images import opened

PATIENT = "canary"
SEEN = "a shallow wound with a red edge"
PHOTO = {"coding": [{"system": "http://loinc.org", "code": "72170-4", "display": "Photographic image"}]}


def picture(red: int) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (80, 40), (red, 40, 40)).save(written, "JPEG")
    return written.getvalue()


def inline(content: bytes) -> dict[str, str]:
    return {"contentType": "image/jpeg", "data": base64.b64encode(content).decode()}


def media(number: str, content: dict[str, str], patient: str = PATIENT) -> dict[str, Any]:
    return {
        "resourceType": "Media", "id": number, "status": "completed",
        "subject": {"reference": f"Patient/{patient}"}, "createdDateTime": "2026-11-01",
        "bodySite": {"text": "Left heel"}, "content": {"title": f"Wound {number}", **content},
    }  # fmt: skip


def document(number: str, name: dict[str, Any], url: str) -> dict[str, Any]:
    return {
        "resourceType": "DocumentReference", "id": number, "status": "current",
        "date": "2026-10-01T09:00:00Z",
        "subject": {"reference": f"Patient/{PATIENT}"}, "type": name,
        "content": [{"attachment": {"contentType": "image/jpeg", "url": url}}],
    }  # fmt: skip


def chart() -> list[dict[str, Any]]:
    return [
        {"resourceType": "Patient", "id": "other"},
        {"resourceType": "Binary", "id": "rash", **inline(picture(9))},
        {"resourceType": "Binary", "id": "page", **inline(picture(5))},
        media("heel", inline(picture(220))),
        media("broken", inline(b"\xff\xd8\xff\xe0 not a picture")),
        media("foreign", {"contentType": "image/jpeg", "url": "https://elsewhere.example/Binary/1"}),
        media("others", inline(picture(10)), "other"),
        document("rash", PHOTO, "Binary/rash"),
        document("page", {"text": "Referral letter"}, "Binary/page"),
        {"resourceType": "ImagingStudy", "id": "chest", "status": "available", "started": "2026-10-01",
         "subject": {"reference": f"Patient/{PATIENT}"}, "description": "Chest radiograph",
         "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}]},
    ]  # fmt: skip


@pytest.fixture(scope="module")
def ehr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SekmetServer]:
    with SekmetServer(tmp_path_factory.mktemp("ehr")) as server:
        bundle = canary_bundle(PATIENT)
        bundle["entry"] += [
            {"resource": one, "request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"}}
            for one in chart()
        ]
        httpx.post(server.base_url, json=bundle, trust_env=False).raise_for_status()
        yield server


def reading(prompt: Prompt) -> str:
    """Copy the record's lines, and say one thing of the first picture."""
    if not prompt.messages[-1].images:
        return answer_by_copying(prompt)
    return json.dumps({"claims": [{"cites": ["F1"], "sees": "shows", "text": SEEN}]})


async def test_a_photograph_of_the_chart_is_read_filed_and_cited_by_its_entry(
    tmp_path: Path, ehr: SekmetServer
) -> None:
    engine = ScriptedEngine(reading)
    async with opened(tmp_path, ehr, engine, images="file") as plugged:
        outcome = await plugged.summarizer.summarize(PATIENT)
        assert outcome.state is RunState.FILED, outcome.reason
        run = plugged.store.get(outcome.run_id)
        again = await plugged.summarizer.summarize(PATIENT)
        assert again.state is RunState.UNCHANGED
    shown = [fact for fact in run.summary.facts if spot_of(fact) is not None]
    assert [fact.source.reference for fact in shown] == ["Media/heel", "DocumentReference/rash"]
    assert [dict(fact.details)[DIGEST] for fact in shown] == list(run.inputs.images)
    (asked,) = (prompt for prompt in engine.prompts if prompt.messages[-1].images)
    first = np.asarray(Image.open(io.BytesIO(asked.messages[-1].images[0].png)))
    assert first[448, 448, 0] > 200
    reasons = {one.title: one.reason for one in run.summary.left_out if one.kind == "picture"}
    assert reasons["Pictures of Chest radiograph"] == f"not seen: {NO_ARCHIVE}"
    assert reasons["Pictures of documents that are kept as pictures"] == f"not seen: {NO_PHOTOGRAPH}"
    assert "broken" in reasons["Pictures of Wound broken"]
    assert "not followed" in reasons["Pictures of Wound foreign"]
    assert not any("others" in title for title in reasons)

    async with FhirClient(ehr.base_url) as client:
        filed = await client.read(run.document.partition("/_history")[0])
        report = await Prover(client, base_url=ehr.base_url).check(filed)
    codes = [one.code for one in report.findings if one.code.startswith(("verdict_", "source_", "citation_"))]
    assert codes == []
    told = {one["attachment"]["contentType"]: one["attachment"] for one in filed["content"]}
    form = json.loads(base64.b64decode(told["application/json"]["data"]))
    section = next(one for one in form["sections"] if one["key"] == SECTION)
    (statement,) = section["statements"]
    assert (section["title"], section["reason"]) == ("What the model reads from the images", NOT_CHECKED)
    assert (statement["text"], statement["verdict"]) == (f"The picture shows {SEEN}.", "not_verifiable")
    source = next(one for one in form["sources"] if one["number"] == statement["sources"][0])
    assert (source["reference"], source["version"]) == ("Media/heel", "1")
    assert source["picture"] == {
        "study": "", "series": "", "instance": "", "frame": 1, "sha256": run.inputs.images[0],
    }  # fmt: skip


async def test_nothing_is_looked_at_where_images_are_off(tmp_path: Path, ehr: SekmetServer) -> None:
    engine = ScriptedEngine(reading)
    async with opened(tmp_path, ehr, engine) as plugged:
        outcome = await plugged.summarizer.summarize(PATIENT)
        run = plugged.store.get(outcome.run_id)
    assert (run.inputs.images, run.inputs.unseen) == ((), ())
    assert not any(prompt.messages[-1].images for prompt in engine.prompts)
