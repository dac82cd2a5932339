"""Looking at images: only the patient's, only what this reader may read now, and why there are none."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from fixtures.pacs import PacsServer, linked_chart, rewritten
from fixtures.servers import free_port
from service.context.pictures import DIGEST
from service.ports import Action, Stop, StopScope
from service.record.facts import Identity
from tests.integration.connectors.fault_server import Reply
from tests.integration.dicomweb.archive import Archive, element, items, metadata
from tests.integration.dicomweb.looking import (
    BORN,
    NUMBER,
    SUBJECT,
    Looking,
    Study,
    grey,
    looking,
    pictured_run,
    words_of,
)
from tests.unit.api.sidebar.chart import bare, sample_patient
from tests.unit.api.sidebar.desk import NOW

STUDY = Study()
NOT_HIS = "these images are not surely this patient&#39;s"


@pytest.fixture(scope="module")
def filled(pacs: PacsServer) -> PacsServer:
    pacs.store(*STUDY.files)
    return pacs


@pytest.fixture
async def opened(filled: PacsServer) -> AsyncIterator[Looking]:
    async with looking(filled.dicomweb_url, STUDY.resource(), ohif_url="https://ohif.example/v") as one:
        yield one


def shown(one: Looking) -> list[tuple[str, str]]:
    """What stands in the audit log: outcome and target of each view."""
    return [(entry.outcome, entry.target) for entry in one.audit.entries if entry.action is Action.VIEW]


async def test_an_image_stands_on_its_page_with_what_its_header_says(opened: Looking) -> None:
    answer = await opened.page()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert not words_of(
        answer,
        ["ZZYZXCANARY, Jane", NUMBER, "CT Chest 5 mm", "04-May-2026", "CHEST", "Image 2 of 3",
         "<dt>Side</dt><dd><bdi>not recorded", "<dt>View</dt><dd><bdi>not recorded", "For orientation",
         "Soft tissue", "ImagingStudy/7", "https://ohif.example/v/viewer?StudyInstanceUIDs=" + STUDY.uid],
    )  # fmt: skip
    assert answer.text.count(STUDY.uid) == 1  # in the address of the site's own viewer alone
    assert "<script" not in answer.text
    (source,) = re.findall(r'<img src="([^"]+)"', answer.text)
    picture = await opened.get(source.replace("&amp;", "&"))
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["cache-control"] == "no-store"
    assert Image.open(BytesIO(picture.content)).size == (896, 896)
    assert shown(opened) == [("ok", "ImagingStudy/7")] * 2


async def test_the_next_image_is_the_next_slice_and_links_lead_there(opened: Looking) -> None:
    middle = await opened.page()
    (after,) = re.findall(r'rel="next" href="([^"]+)"', middle.text)
    last = await opened.get(after.replace("&amp;", "&").partition("#")[0])
    assert "Image 3 of 3" in last.text
    assert 'rel="next"' not in last.text
    first, third = [(await opened.picture(place=place, window="soft")).content for place in (1, 3)]
    assert grey(third).sum() > grey(first).sum()
    assert (await opened.page(place=4)).status_code == 404


async def test_a_window_by_name_shows_its_values_alone(opened: Looking) -> None:
    lung = grey((await opened.picture(place=1, window="lung")).content)
    brain = grey((await opened.picture(place=1, window="brain")).content)
    assert (lung[: len(lung) // 2].max(), brain[: len(brain) // 4].max()) == (pytest.approx(255, abs=60), 0)
    assert len(set(lung.tolist())) > len(set(brain.tolist()))
    assert (await opened.picture(window="secret")).status_code == 404


async def test_a_picture_that_the_model_was_shown_opens_as_it_was_shown(filled: PacsServer) -> None:
    run = pictured_run()
    *others, study = run.summary.facts
    uids = (("study uid", STUDY.uid), ("series uid", f"{STUDY.uid}.1"), ("frame", "1"))
    for instance, said in ((f"{STUDY.uid}.1.3", "Image 3 of 3"), ("1.2.3", "not in the study now")):
        named = replace(study, details=(*uids, ("instance uid", instance)))
        summary = replace(run.summary, facts=(*others, named))
        async with looking(filled.dicomweb_url, STUDY.resource(), run=replace(run, summary=summary)) as one:
            answer = await one.page()
            assert said in answer.text
            assert ("as red, green, blue" in answer.text) is (answer.status_code == 200)
            assert "Image 1 of 3" in (await one.page(place=1, window="bone")).text


async def test_who_was_launched_sees_it_with_the_own_token(opened: Looking) -> None:
    assert (await opened.page_of_launch()).status_code == 200
    picture = await opened.picture_of_launch(thumb="true")
    assert Image.open(BytesIO(picture.content)).size == (192, 192)
    opened.chart.refused.add("ImagingStudy")
    answer = await opened.page_of_launch()
    assert (answer.status_code, "Not allowed" in answer.text) == (403, True)
    assert (await opened.picture_of_launch()).status_code == 403
    assert [outcome for outcome, _ in shown(opened)] == ["ok", "ok", "forbidden", "forbidden"]
    opened.chart.is_over = True
    assert (await opened.page_of_launch()).status_code == 401


async def test_a_source_of_a_study_leads_to_its_images(opened: Looking) -> None:
    number, run_id = opened.number, opened.run.run_id
    page = await opened.get(f"/runs/{run_id}/sources/{number}")
    assert f"/runs/{run_id}/viewer/{number}" in page.text
    assert f"/runs/{run_id}/pictures/{number}?thumb=true" in page.text
    assert f"/runs/{run_id}/viewer/{number}" in (await opened.get(f"/runs/{run_id}")).text
    assert "/viewer/1" not in (await opened.get(f"/runs/{run_id}/sources/1")).text
    evidence = await opened.get(f"/sidebar/sources/{number}", run=str(run_id), visit="v" * 22)
    assert f"/sidebar/pictures/{number}?visit=" in evidence.text
    assert (await opened.get(f"/runs/{run_id}/viewer/1")).status_code == 404


@pytest.mark.parametrize(
    "elements",
    [
        {"PatientID": "MRN 0049-1188"},
        {"PatientBirthDate": "19510405"},
        {"PatientBirthDate": ""},
        {"PatientID": ""},
        {"IssuerOfPatientID": "OTHER"},
    ],
    ids=lambda one: next(iter(one.items())),
)
async def test_images_that_are_not_surely_the_patients_are_not_shown(
    pacs: PacsServer, elements: dict[str, str]
) -> None:
    other = Study(slices=1, elements=elements)
    pacs.store(*other.files)
    async with looking(pacs.dicomweb_url, other.resource()) as one:
        answer = await one.page()
        assert (answer.status_code, NOT_HIS in answer.text) == (403, True)
        assert (await one.picture_of_launch()).status_code == 403
        assert shown(one) == [("another", "ImagingStudy/7")] * 2


def listed(study: Study, number: int, patient_id: str = NUMBER) -> dict[str, object]:
    """What an archive's list says of a slice."""
    own = metadata(number, f"{study.uid}.1", study.uid)
    return {**own, "00100020": element("LO", patient_id), "00100030": element("DA", BORN)}


async def test_one_image_of_somebody_else_keeps_the_whole_study_closed() -> None:
    study = Study()
    async with Archive() as archive:
        archive.on_path(f"studies/{study.uid}/series", Reply(501))
        rows = [listed(study, 1), listed(study, 2), listed(study, 3, "MRN 2")]
        archive.on_path(f"studies/{study.uid}/metadata", items(rows))
        async with looking(archive.dicomweb_url, study.resource()) as one:
            assert (await one.page(place=1)).status_code == 403
        assert not [request for request in archive.requests if "/instances/" in request.path]


@pytest.mark.parametrize(("has_places", "order"), [(True, [3, 2, 1]), (False, [1, 2, 3])])
async def test_slices_stand_by_their_place_in_the_patient_else_by_number(
    has_places: bool, order: list[int]
) -> None:
    study = Study()
    place = {"00200037": element("DS", 1, 0, 0, 0, 1, 0)} if has_places else {"00200032": {"vr": "DS"}}
    rows = [
        listed(study, number) | {"00200032": element("DS", 0, 0, -number)} | place for number in (2, 3, 1)
    ]
    async with Archive() as archive:
        archive.on_path(f"studies/{study.uid}/series", Reply(501))
        archive.on_path(f"studies/{study.uid}/metadata", items(rows))
        async with looking(archive.dicomweb_url) as one, one.chart.client() as client:
            look = await one.gallery.look(client, study.resource(), sample_patient())
    assert [frame.header.number for frame in look.frames if frame.header] == order


async def test_a_file_whose_header_says_otherwise_than_the_list_is_not_shown() -> None:
    study = Study(slices=1)
    async with Archive() as archive:
        base = f"studies/{study.uid}"
        archive.on_path(f"{base}/series", Reply(501))
        archive.on_path(f"{base}/metadata", items([listed(study, 1)]))
        file = rewritten(study.file(1), PatientID="MRN 2")
        archive.on_path(
            f"{base}/series/{study.uid}.1/instances/{study.uid}.1.1",
            Reply(body=file, content_type="application/dicom"),
        )
        async with looking(archive.dicomweb_url, study.resource()) as one:
            answer = await one.page()
    assert (answer.status_code, NOT_HIS in answer.text) == (403, True)


async def test_a_chart_that_is_another_persons_now_opens_no_image(opened: Looking) -> None:
    opened.chart.put(sample_patient(birthDate="1951-05-05"))
    assert (await opened.page()).status_code == 403
    opened.chart.put(sample_patient(active=False))
    assert (await opened.page()).status_code == 403
    opened.chart.put(sample_patient(), {**STUDY.resource(), "subject": {"reference": "Patient/2"}})
    assert (await opened.page()).status_code == 403


async def test_images_of_whom_the_chart_is_now_are_not_shown_with_another_persons_summary(
    pacs: PacsServer,
) -> None:
    study = Study(slices=1, elements={"PatientBirthDate": "19510505"})
    pacs.store(*study.files)
    async with looking(pacs.dicomweb_url, study.resource(), sample_patient(birthDate="1951-05-05")) as one:
        assert (await one.page()).status_code == 403
        assert (await one.picture_of_launch()).status_code == 403


async def test_a_study_that_became_restricted_is_left_to_who_may_read_it(opened: Looking) -> None:
    system = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
    study = STUDY.resource()
    label = {"security": [{"system": system, "code": "R"}]}
    opened.chart.put({**study, "meta": {**study["meta"], **label}})
    answer = await opened.page()
    assert (answer.status_code, "There is no such image" in answer.text) == (404, True)
    assert (await opened.page_of_launch()).status_code == 200


async def test_of_a_stopped_summary_no_image_is_shown(opened: Looking) -> None:
    opened.store.add_stop(Stop(StopScope.ALL, "", NOW, "user:admin"))
    assert (await opened.page()).status_code == 423
    assert (await opened.picture_of_launch()).status_code == 423


async def test_without_an_archive_the_page_says_so() -> None:
    async with looking("", STUDY.resource()) as one:
        answer = await one.page()
    assert (answer.status_code, "No image archive is configured" in answer.text) == (404, True)
    assert shown(one) == [("not_configured", "ImagingStudy/7")]


async def test_an_archive_that_is_down_or_unknown_is_told_apart(filled: PacsServer) -> None:
    async with looking(f"http://127.0.0.1:{free_port()}/dicom-web", STUDY.resource()) as one:
        answer = await one.page()
        assert (answer.status_code, "cannot be reached now" in answer.text) == (503, True)
        thumb = await one.picture(thumb="true")
        assert (thumb.status_code, thumb.headers["location"]) == (303, "/static/nopicture.svg")
        assert (await one.get("/static/nopicture.svg")).status_code == 200
    endpoint = bare(
        "Endpoint/1",
        "1",
        status="active",
        connectionType={"code": "dicom-wado-rs"},
        address=filled.dicomweb_url,
    )
    named = STUDY.resource(endpoint=[{"reference": "Endpoint/1"}])
    async with looking("", named, endpoint, allowed=("https://pacs.example",)) as one:
        assert "not among those" in (await one.page()).text
    async with looking("", named, endpoint, allowed=(filled.root_url,)) as one:
        assert (await one.page()).status_code == 200


async def test_a_study_that_is_nowhere_or_holds_no_pictures_is_told_apart(pacs: PacsServer) -> None:
    async with looking(pacs.dicomweb_url, Study().resource()) as one:
        answer = await one.page()
        assert (answer.status_code, "There is no such image" in answer.text) == (404, True)
    report = Study(slices=1, elements={"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "Modality": "SR"})
    pacs.store(*report.files)
    async with looking(pacs.dicomweb_url, report.resource()) as one:
        assert "There are no pictures here" in (await one.page()).text


async def test_an_image_that_cannot_be_read_is_named_and_says_why(pacs: PacsServer) -> None:
    broken = Study(slices=1, elements={"PixelData": b"\0" * 100})
    pacs.store(*broken.files)
    async with looking(pacs.dicomweb_url, broken.resource()) as one:
        answer = await one.page()
    assert (answer.status_code, "The image cannot be shown" in answer.text) == (422, True)
    assert "Reason: its" in answer.text


async def test_what_was_made_on_another_server_is_not_looked_up_on_ours(opened: Looking) -> None:
    opened.is_ours = False
    answer = await opened.page()
    assert (answer.status_code, "another server" in answer.text) == (404, True)
    assert (await opened.page_of_launch()).status_code == 200


async def test_a_photograph_of_the_chart_is_shown_with_a_warning() -> None:
    written = BytesIO()
    Image.new("RGB", (40, 20), "white").save(written, "JPEG")
    content = {"contentType": "image/jpeg", "data": b64encode(written.getvalue()).decode()}
    media = bare("Media/3", "1", status="completed", subject=SUBJECT, content=content)
    async with looking("", media, run=pictured_run("Media/3")) as one:
        answer = await one.page()
        assert not words_of(answer, ["Picture of the chart", "Text may be burned into this image", "Media/3"])
        assert Image.open(BytesIO((await one.picture()).content)).size == (896, 896)
        one.chart.put({**media, "content": {**content, "data": b64encode(b"<svg>").decode()}})
        assert (await one.page()).status_code == 503


async def test_a_picture_of_the_chart_that_the_model_was_shown_opens_and_its_document_leads_there() -> None:
    written = BytesIO()
    Image.new("RGB", (40, 20), "white").save(written, "JPEG")
    attached = {"contentType": "image/jpeg", "data": b64encode(written.getvalue()).decode()}
    content = [{"attachment": attached}]
    document = bare("DocumentReference/9", "1", status="current", subject=SUBJECT, content=content)
    run = pictured_run("DocumentReference/9")
    *others, note = run.summary.facts
    for details, is_shown in (((("frame", "1"), (DIGEST, "0" * 64)), True), ((), False)):
        facts = (*others, replace(note, details=details))
        told = replace(run, summary=replace(run.summary, facts=facts))
        async with looking("", document, run=told) as one:
            answer = await one.page()
            assert not words_of(answer, ["Picture of the chart", "DocumentReference/9"])
            assert Image.open(BytesIO((await one.picture()).content)).size == (896, 896)
            page = await one.get(f"/runs/{told.run_id}/sources/{one.number}")
            evidence = await one.get(f"/sidebar/sources/{one.number}", run=str(told.run_id), visit="v" * 22)
            assert (f"/runs/{told.run_id}/viewer/{one.number}" in page.text) is is_shown
            assert (f"/sidebar/pictures/{one.number}?visit=" in evidence.text) is is_shown
    gone = replace(note, details=(("frame", "2"), (DIGEST, "0" * 64)))
    run = replace(run, summary=replace(run.summary, facts=(*others, gone)))
    async with looking("", document, run=run) as one:
        assert (await one.page()).status_code == 404


async def test_text_that_may_be_burned_in_and_the_side_are_said(pacs: PacsServer) -> None:
    study = Study(
        slices=1,
        elements={
            "Modality": "CR",
            "ImageLaterality": "L",
            "ViewPosition": "PA",
            "BurnedInAnnotation": "YES",
        },
    )
    pacs.store(*study.files)
    async with looking(pacs.dicomweb_url, study.resource()) as one:
        answer = await one.page()
        assert not words_of(answer, ["Text may be burned into this image", "<bdi>left", "<bdi>PA"])
        assert "Soft tissue" not in answer.text
        assert (await one.page(window="lung")).status_code == 404


@pytest.mark.shared
async def test_an_image_that_the_archive_cannot_decode_is_shown(pacs: PacsServer, shared_data: Path) -> None:
    (real,) = linked_chart(pacs.dicomweb_url, shared_data, "2ad91c08").studies
    study = Study()
    pacs.store(
        rewritten(
            real.file, PatientID=NUMBER, PatientBirthDate=BORN, StudyInstanceUID=study.uid,
            SeriesInstanceUID=f"{study.uid}.1", SOPInstanceUID=f"{study.uid}.1.1",
        )
    )  # fmt: skip
    async with looking(pacs.dicomweb_url, study.resource()) as one:
        assert (await one.page()).status_code == 200
        assert len(set(grey((await one.picture()).content).tolist())) > 100


async def test_a_run_is_not_opened_by_another_patients_launch(filled: PacsServer) -> None:
    run = pictured_run()
    other = replace(run, inputs=replace(run.inputs, patient="Patient/2"))
    async with looking(filled.dicomweb_url, STUDY.resource(), run=other) as one:
        assert (await one.page_of_launch()).status_code == 404
        assert (await one.picture_of_launch()).status_code == 404
        assert one.chart.asked == []


def test_the_sample_is_the_patient_of_these_images() -> None:
    identity: Identity = pictured_run().summary.identity
    assert (identity.record_number, identity.birth_date.replace("-", "")) == (NUMBER, BORN)
