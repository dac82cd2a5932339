"""Pictures that the record itself keeps: which are shown, whose they are, and what is said of the others."""

from __future__ import annotations

import asyncio
import io
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from connectors.fhir.client import FhirClient
from connectors.fhir.pictures import fetch_picture
from connectors.limits import ImagingLimits
from service.context.pictures import NO_HEADER, picture_facts, spot_of
from service.imaging.choice import NO_ROOM_KEPT, UNSEEN, Sight, Vector
from service.imaging.index import Entry
from service.imaging.picture import Spot
from service.imaging.reader import PictureReader
from service.photographs import (
    MOST_PHOTOGRAPHS,
    NO_PHOTOGRAPH,
    NOT_ASKED,
    NOT_READ,
    ONE_OF_ENTRY,
    is_photograph,
    photographs_of,
)
from service.pictures import NO_ARCHIVE, NO_TIME, NOT_FETCHED, TOO_LATE, Pictures
from service.ports.images import Looked, Wanted
from service.record.assemble import assemble_record
from tests.unit.test_pictures import MINE, PATIENT, ArchiveDouble, study, why

SERVER = "http://127.0.0.1:9/fhir"
PHOTO = {"type": {"coding": [{"system": "http://loinc.org", "code": "72170-4"}]}}


def jpeg(red: int = 200) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (64, 32), (red, 0, 0)).save(written, "JPEG")
    return written.getvalue()


def middle(png: bytes) -> list[int]:
    """Return the colour of the middle of a picture."""
    pixels = np.asarray(Image.open(io.BytesIO(png)))
    return [int(value) for value in pixels[len(pixels) // 2, len(pixels) // 2]]


def vector(*values: float) -> Vector:
    return np.array(values, np.float32)


def inline(content: bytes, media_type: str = "image/jpeg") -> dict[str, str]:
    return {"contentType": media_type, "data": b64encode(content).decode()}


def media(number: str = "3", day: str = "2024-05-01", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Media", "id": number, "meta": {"versionId": "2"}, "status": "completed",
        "subject": {"reference": "Patient/1"}, "createdDateTime": day,
        "content": {**inline(jpeg()), "title": "Wound of the left heel"},
        "bodySite": {"text": "Left heel"}, **more,
    }  # fmt: skip


def document(number: str = "9", /, *attachments: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "DocumentReference", "id": number, "status": "current", "date": "2024-05-02",
        "subject": {"reference": "Patient/1"}, "description": "Rash on the forearm",
        "content": [{"attachment": one} for one in attachments or (inline(jpeg(90)),)], **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def reader() -> Iterator[PictureReader]:
    with PictureReader() as opened:
        yield opened


async def look(
    reader: Any,
    *chart: dict[str, Any],
    most: int = 4,
    limit: int = 100_000,
    archives: Any = None,
    **more: Any,
) -> Looked:
    resources = [PATIENT, *chart]

    async def read(reference: str) -> dict[str, Any]:
        raise AssertionError(reference)

    async with FhirClient(SERVER) as client:
        fetch = partial(fetch_picture, client, limits=ImagingLimits(max_picture_bytes=limit))
        pictures = Pictures(archives, reader, **{"fetch": fetch, **more})
        return await pictures.look(Wanted(assemble_record(resources, "1"), resources, read, most))


async def test_a_photograph_is_shown_without_any_archive_and_cited_by_its_entry(
    reader: PictureReader,
) -> None:
    chart = (media(), document(**PHOTO), study())
    looked = await look(reader, *chart)
    assert [one.source for one in looked.pictures] == ["DocumentReference/9", "Media/3"]
    assert [(one.source, one.why) for one in looked.unseen] == [("ImagingStudy/img1", NO_ARCHIVE)]
    rash, wound = looked.pictures
    assert (wound.spot, wound.source_version, wound.modality) == (Spot("Media/3", "", ""), "2", "")
    assert (wound.taken, wound.what) == ("01-May-2024", "Wound of the left heel, Left heel")
    assert "Rash on the forearm" in rash.what
    assert wound.burned_in
    assert "picture of the record" in wound.why
    assert middle(wound.png)[0] > 190
    record = assemble_record([PATIENT, *chart], "1")
    facts = list(picture_facts(looked.pictures, record.facts, looked.how).values())
    assert [spot_of(one) for one in facts] == [("", "", "", 1)] * 2
    assert [one.source.reference for one in facts] == ["DocumentReference/9", "Media/3"]
    assert not {one.id for one in facts} & {one.id for one in record.facts}
    for one in facts:
        told = dict(one.details)
        assert told["whose it is"] == NO_HEADER
        assert not any(label.endswith("uid") for label in told)
    assert all(spot_of(one) is None for one in record.facts)


@pytest.mark.parametrize(
    ("resource", "told"),
    [
        (media(content=inline(b"\xff\xd8\xff\xe0 broken")), "its content is broken"),
        (media(content=inline(jpeg() + b"x" * 100_000)), "larger than 100,000 bytes"),
        (media(content={"contentType": "image/png", "url": "https://elsewhere.example/1"}), "not followed"),
        (media(content=inline(jpeg(), "image/png")), "a picture of the record is not what it says it is"),
        (media(content={"contentType": "image/jpeg", "url": "Binary/gone"}), "was refused"),
    ],
    ids=["broken", "too large", "foreign", "not what it says", "gone"],
)  # fmt: skip
async def test_one_that_fails_is_a_line_and_the_others_are_shown(
    reader: PictureReader, resource: dict[str, Any], told: str
) -> None:
    looked = await look(reader, resource, document(**PHOTO))
    assert [one.source for one in looked.pictures] == ["DocumentReference/9"]
    (missed,) = looked.unseen
    assert (missed.source, missed.what, missed.day) == ("Media/3", named(resource), "01-May-2024")
    assert told in missed.why
    assert "elsewhere.example/1" not in missed.why


def named(resource: dict[str, Any]) -> str:
    return str(resource["content"].get("title", "media"))


AI = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "AIAST"}


@pytest.mark.parametrize(
    "chart",
    [
        [media(subject={"reference": "Patient/2"})],
        [{key: value for key, value in media().items() if key != "subject"}],
        [media(status="entered-in-error")],
        [media(status="not-done")],
        [media(status="preparation")],
        [document(**PHOTO, docStatus="entered-in-error")],
        [document(**PHOTO) | {"status": "superseded"}],
        [media(meta={"security": [{"code": "R"}]})],
        [media(meta={"security": [AI]})],
    ],
)
async def test_what_the_record_does_not_rest_on_is_neither_shown_nor_spoken_of(
    reader: PictureReader, chart: list[dict[str, Any]]
) -> None:
    looked = await look(reader, *chart)
    assert (looked.pictures, looked.unseen) == ((), ())


def test_a_document_that_an_ai_made_gives_no_picture_though_the_record_holds_words_of_it() -> None:
    made = document(**PHOTO, author=[{"reference": "Device/model"}])
    record = assemble_record([PATIENT, made], "1")
    assert photographs_of(record, [PATIENT, made]).found
    device = {"resourceType": "Device", "id": "model", "meta": {"security": [AI]}}
    assert not photographs_of(record, [PATIENT, made, device])
    told = {"resourceType": "Provenance", "reason": [{"coding": [AI]}]}
    told |= {"target": [{"reference": "DocumentReference/9/_history/1"}]}
    assert not photographs_of(record, [PATIENT, made, told])


async def test_an_older_version_that_was_somebody_elses_is_not_shown_for_the_newer_one(
    reader: PictureReader,
) -> None:
    older = media(
        meta={"versionId": "1", "lastUpdated": "2024-01-01T00:00:00Z"}, subject={"reference": "Patient/2"},
        content=inline(jpeg(10)),
    )  # fmt: skip
    newer = media(meta={"versionId": "2", "lastUpdated": "2024-06-01T00:00:00Z"})
    for chart in ((older, newer), (newer, older)):
        (picture,) = (await look(reader, *chart)).pictures
        assert middle(picture.png)[0] > 190
    moved = [older | {"subject": {"reference": "Patient/1"}}, newer | {"subject": {"reference": "Patient/2"}}]
    assert (await look(reader, *moved)).pictures == ()


async def test_two_entries_that_say_the_same_keep_a_picture_each(reader: PictureReader) -> None:
    at = "2024-05-01T10:00:00Z"
    chart = (media("3", at), media("4", at, content={**inline(jpeg(90)), "title": "Wound of the left heel"}))
    looked = await look(reader, *chart)
    facts = picture_facts(looked.pictures, assemble_record([PATIENT, *chart], "1").facts).values()
    assert {one.source.reference for one in facts} == {"Media/3", "Media/4"}


@pytest.mark.parametrize(
    ("kind", "category", "is_one"),
    [
        (PHOTO["type"], "", True),
        ({"text": "Clinical photo"}, "", True),
        ({"text": "Wound care"}, "Clinical photo", True),
        ({"text": "Photography of skin"}, "", True),
        ({}, "imaging", True),
        ({"text": "Dermoscopy image"}, "", True),
        ({"text": "Discharge letter"}, "imaging", False),
        ({"text": "Diagnostic imaging study"}, "imaging", False),
        ({"text": "Photographic report"}, "", False),
        ({"text": "Scanned image"}, "Clinical photo", False),
        ({"coding": [{"system": "http://loinc.org", "code": "18748-4"}]}, "imaging", False),
        ({"text": "Insurance card"}, "", False),
        ({}, "", False),
    ],
)  # fmt: skip
def test_a_document_is_a_photograph_only_where_it_says_so(
    kind: dict[str, Any], category: str, *, is_one: bool
) -> None:
    told = {"type": kind, "category": [{"text": category}] if category else []}
    assert is_photograph(document(**{key: value for key, value in told.items() if value})) is is_one


async def test_pages_and_foreign_kinds_are_counted_in_one_line_each(reader: PictureReader) -> None:
    letters = [document(f"l{n}", type={"text": "Referral letter"}) for n in range(30)]
    strange = media("5", content={"contentType": "image/heic", "url": "Binary/1"})
    video = media("6", content={"contentType": "video/mp4", "url": "Binary/2"})
    twice = document("7", inline(jpeg()), inline(jpeg(10)), inline(jpeg(20)), **PHOTO)
    looked = await look(reader, *letters, strange, video, twice)
    assert [one.source for one in looked.pictures] == ["DocumentReference/7"]
    assert {(one.why, one.count) for one in looked.unseen} == {
        (NO_PHOTOGRAPH, 30), (NOT_READ, 1), (ONE_OF_ENTRY, 2),
    }  # fmt: skip
    alone = [PATIENT, *letters]
    assert photographs_of(assemble_record(alone, "1"), alone)
    assert not photographs_of(assemble_record([PATIENT], "1"), [PATIENT])


async def test_the_newest_share_what_studies_leave_and_the_rest_is_counted(reader: PictureReader) -> None:
    many = [media(str(n), f"2024-01-{n:02}") for n in range(1, 31)]
    archive = ArchiveDouble()
    mixed = _Reading(archive, reader)
    looked = await look(mixed, study(), *many, most=4, archives=archive)
    assert [one.source for one in looked.pictures] == [
        "ImagingStudy/img1",
        "Media/30",
        "Media/29",
        "Media/28",
    ]
    counts = {reason: why(looked).count(reason) for reason in why(looked)}
    assert counts[NO_ROOM_KEPT] == MOST_PHOTOGRAPHS - 3
    assert [one.count for one in looked.unseen if one.why == NOT_ASKED] == [30 - MOST_PHOTOGRAPHS]
    full = await look(mixed, study(), *many, most=1, archives=archive)
    assert [one.source for one in full.pictures] == ["ImagingStudy/img1"]


class _Reading:
    """Reads the archive's files as its double does, and all others as they are."""

    def __init__(self, archive: ArchiveDouble, reader: PictureReader) -> None:
        self._archive, self._reader = archive, reader

    def read(self, data: bytes, spot: Spot, **more: Any) -> Any:
        whose = self._archive if spot.instance else self._reader
        return whose.read(data, spot, **more)


async def test_an_encoder_looks_at_them_and_what_it_saw_is_told_by_their_entry(reader: PictureReader) -> None:
    about: dict[Spot, Entry] = {}

    class Eyes:
        def see(self, pngs: Any, prompts: Any, patient: str, told: Any) -> Sight:
            about.update(told)
            close = {spot: vector(1, 0) if spot.study == "Media/3" else vector(0, 1) for spot in pngs}
            return Sight(close, {one: vector(1, 0) for one in prompts}, 10.0)

    chart = (media("3"), media("4"), media("5", content=inline(b"\xff\xd8\xff\xe0 broken")))
    looked = await look(reader, *chart, eyes=Eyes())
    assert {one.source: round(one.score or 0.0, 2) for one in looked.pictures} == {
        "Media/3": 1.0,
        "Media/4": 0.5,
    }
    assert why(looked) == [UNSEEN]
    entry = about[Spot("Media/3", "", "")]
    assert (entry.source, entry.series, entry.instance, entry.taken) == ("Media/3", "", "", "01-May-2024")


async def test_an_archive_that_hangs_costs_no_photograph(reader: PictureReader) -> None:
    looked = await look(reader, study(), media(), archives=ArchiveDouble(hangs=True), seconds=6.0)
    assert [one.source for one in looked.pictures] == ["Media/3"]
    assert why(looked) == [TOO_LATE]

    class Stalls(ArchiveDouble):
        async def instances(self, *asked: Any, **more: Any) -> Any:
            await asyncio.Event().wait()

    stalls = Stalls(listed=(MINE,))
    looked = await look(reader, study(), media(), archives=stalls, seconds=3.0)
    assert [one.source for one in looked.pictures] == ["Media/3"]
    assert why(looked) == [TOO_LATE]


async def test_one_that_is_not_there_in_time_and_one_that_nobody_fetches_are_told(
    reader: PictureReader,
) -> None:
    async def never(link: Any) -> bytes:
        await asyncio.Event().wait()
        return b""

    assert why(await look(reader, media(), seconds=0.2, fetch=never)) == [NO_TIME]
    archive = ArchiveDouble()
    mixed = _Reading(archive, reader)
    looked = await look(mixed, study(), media(), archives=archive, seconds=4.0, fetch=never)
    assert [one.source for one in looked.pictures] == [
        "ImagingStudy/img1"
    ]  # a chart that hangs costs no study
    assert why(looked) == [NO_TIME]
    assert why(await look(reader, media(), fetch=None)) == [NOT_FETCHED]


async def test_a_site_that_refuses_burned_in_text_is_shown_none_of_them(reader: PictureReader) -> None:
    looked = await look(reader, media(), document(**PHOTO), refuses_burned_in=True)
    assert (looked.pictures, len(looked.unseen)) == ((), 2)
    assert set(why(looked)) == {"text may be burned into its pixels"}


async def test_of_a_pdf_the_first_page_is_shown_and_the_others_are_counted(reader: PictureReader) -> None:
    pages = io.BytesIO()
    first, second = Image.new("RGB", (60, 60), (0, 200, 0)), Image.new("RGB", (60, 60), (0, 0, 200))
    first.save(pages, "PDF", save_all=True, append_images=[second, second])
    looked = await look(reader, media(content=inline(pages.getvalue(), "application/pdf")))
    (picture,) = looked.pictures
    assert picture.spot.frame == 1
    assert middle(picture.png)[1] > 190
    assert [(one.why, one.count) for one in looked.unseen] == [(ONE_OF_ENTRY, 2)]


async def test_a_picture_filed_years_later_bears_its_own_day(reader: PictureReader) -> None:
    old = document("9", {**inline(jpeg()), "creation": "2010-02-03"}, **PHOTO)
    ahead = document("8", {**inline(jpeg()), "creation": "2099-02-03"}, **PHOTO)
    taken = {one.source: one.taken for one in (await look(reader, old, ahead)).pictures}
    assert taken == {"DocumentReference/9": "03-Feb-2010", "DocumentReference/8": "02-May-2024"}
