"""Looking for pictures with archives that fail in every way: what is seen, and what is not."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from PIL import Image

from connectors.dicomweb.client import Fetched, StudyFound
from connectors.errors import (
    ConnectorError,
    ForeignLink,
    NotFoundError,
    NothingListens,
    TimedOut,
    TooLarge,
    Unauthorized,
)
from connectors.fhir.pull import Gap, GapReason
from service.imaging.picture import Header, Rendered, Spot, Unreadable
from service.imaging.reader import Measured
from service.imaging.volume import MOST_MEASURED
from service.pictures import (
    BY_ARCHIVE,
    MOST_ASKED,
    MOST_STUDIES,
    NO_HEADER,
    NO_PICTURES,
    NOT_ASKED,
    NOT_SENT,
    TOO_LATE,
    Pictures,
)
from service.ports.images import Looked, Wanted
from service.record.assemble import assemble_record

MR = {"type": {"coding": [{"code": "MR"}]}, "system": "http://hospital.example/mrn", "value": "4711"}
PATIENT = {"resourceType": "Patient", "id": "1", "birthDate": "1951-05-04", "identifier": [MR]}
PACS = "http://127.0.0.1:9/dicom-web"
MINE = Header(
    Spot("1.2.3", "1.2.3.4", "1.2.3.4.1"), "1.2.840.10008.5.1.4.1.1.1.1", "DX",
    patient_id="4711", birth_date="19510504", taken="20190504", study_description="Chest",
)  # fmt: skip


def study(uid: str = "1.2.3", number: str = "img1", started: str = "2019-05-04") -> dict[str, Any]:
    return {
        "resourceType": "ImagingStudy", "id": number, "status": "available", "started": started,
        "subject": {"reference": "Patient/1"}, "description": "Chest radiograph",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}],
    }  # fmt: skip


def as_json(header: Header) -> dict[str, Any]:
    told = {
        "0020000D": header.spot.study, "0020000E": header.spot.series, "00080018": header.spot.instance,
        "00080016": header.sop_class, "00080060": header.modality, "00100020": header.patient_id,
        "00100021": header.issuer, "00100030": header.birth_date, "00080020": header.taken,
        "00081030": header.study_description,
    }  # fmt: skip
    found: dict[str, Any] = {tag: {"vr": "LO", "Value": [value]} for tag, value in told.items() if value}
    return found | {"00280008": {"vr": "IS", "Value": [header.frames]}}


@dataclass
class ArchiveDouble:
    """An archive that holds headers, and what its files say of themselves."""

    listed: tuple[Header, ...] = (MINE,)
    within: Callable[[Header], Header] = lambda header: header
    failure: ConnectorError | None = None
    file_failure: ConnectorError | None = None
    gaps: tuple[Gap, ...] = ()
    hangs: bool = False
    lacks: Collection[str] = ()
    """Studies that it does not have."""
    asked: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    drawn: list[tuple[str, int]] = field(default_factory=list)
    renders: bool = True
    reads_not: str = ""
    """Why no file of it can be decoded here."""
    pacs_url: str = PACS
    allowed_origins: tuple[str, ...] = ()

    def at(self, base_url: str, /) -> ArchiveDouble:
        return self

    async def study(self, study: str, *, series: Sequence[str] = ()) -> StudyFound:
        self.asked.append(study)
        if self.hangs:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        if study in self.lacks:
            raise NotFoundError("The server has no such resource.")
        own = [as_json(one) for one in self.listed if one.spot.study == study]
        return StudyFound(study, tuple(own), self.gaps)

    async def instances(self, study: str, series: str, wanted: Sequence[str]) -> Fetched:
        self.sent += wanted
        if self.file_failure is not None:
            return Fetched({}, dict.fromkeys(wanted, self.file_failure))
        return Fetched({one: one.encode() for one in wanted}, {})

    async def rendered(self, study: str, series: str, instance: str, frame: int = 1) -> bytes:
        self.drawn.append((instance, frame))
        if not self.renders:
            raise NotFoundError("The server has no such resource.")
        return b"rendered"

    def read(self, data: bytes, spot: Spot, **more: Any) -> tuple[Rendered, ...] | Unreadable:
        """Stand in for the process that reads files."""
        if data == b"rendered":
            assert spot == Spot("", "", "")
            return (Rendered(b"png by the archive", "colours as stored", 1, True, 9, 9, more["side"]),)
        if self.reads_not:
            return Unreadable(self.reads_not)
        if data == b"broken":
            return Unreadable("its content is broken")
        header = next(one for one in self.listed if one.spot.instance == data.decode())
        frame, side = more["frames"][0], more["side"]
        pixels = io.BytesIO()
        Image.new("RGB", (side, side), (frame % 256, 0, 0)).save(pixels, "PNG")
        return (Rendered(pixels.getvalue(), "VOI LUT", frame, False, 9, 9, side, self.within(header)),)

    def measure(self, data: bytes, spot: Spot, frames: Sequence[int], **more: Any) -> Measured:
        """Stand in for the same process."""
        header = next(one for one in self.listed if one.spot.instance == data.decode())
        return Measured(self.within(header), (0.0, 100.0))


async def look(archive: ArchiveDouble, *resources: dict[str, Any], most: int = 4, **more: Any) -> Looked:
    chart = [PATIENT, *(resources or (study(),))]
    record = assemble_record(chart, "1")

    async def read(reference: str) -> dict[str, Any]:
        raise NotFoundError("There is no such resource.")

    pictures = Pictures(archive, archive, **more)  # type: ignore[arg-type]
    return await pictures.look(Wanted(record, chart, read, most))


def why(looked: Looked) -> list[str]:
    return [one.why for one in looked.unseen]


async def test_a_picture_of_the_patient_is_shown_with_where_it_is_and_what_of() -> None:
    looked = await look(ArchiveDouble())
    (picture,) = looked.pictures
    assert (picture.spot, picture.source) == (MINE.spot, "ImagingStudy/img1")
    assert (picture.taken, picture.what, picture.modality) == ("04-May-2019", "Chest", "DX")
    assert Image.open(io.BytesIO(picture.png)).size == (896, 896)
    assert looked.unseen == ()
    assert "by rules alone" in looked.how


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (NothingListens("The image archive cannot be reached."), "the image archive cannot be reached"),
        (Unauthorized("The image archive refused us (HTTP 401)."), "the image archive refused us (HTTP 401)"),
        (TimedOut("The image archive did not answer in time."), "the image archive did not answer in time"),
        (NotFoundError("The PACS has no images of this study."), "the PACS has no images of this study"),
        (TooLarge("The answer is too large."), "the answer is too large"),
        (ForeignLink("Not an allowed origin."), "not an allowed origin"),
    ],
)
async def test_an_archive_that_fails_is_a_reason_and_no_failure(failure: ConnectorError, told: str) -> None:
    looked = await look(ArchiveDouble(failure=failure))
    assert (looked.pictures, why(looked)) == ((), [told])
    assert looked.is_for_now is isinstance(failure, NothingListens | TimedOut)  # the others say no for good
    assert looked.unseen[0].what == "Chest radiograph"
    assert looked.unseen[0].day == "04-May-2019"


async def test_an_archive_that_never_answers_costs_the_time_that_is_given_and_is_named() -> None:
    looked = await look(ArchiveDouble(hangs=True), study(), study("1.2.9", "img2"), seconds=0.05)
    assert (looked.pictures, why(looked)) == ((), [TOO_LATE, TOO_LATE])
    assert looked.is_for_now


@pytest.mark.parametrize(
    "other",
    [
        replace(MINE, patient_id="4712"),
        replace(MINE, patient_id=""),
        replace(MINE, birth_date="19510503"),
        replace(MINE, birth_date=""),
        replace(MINE, issuer="another hospital"),
    ],
    ids=["number", "no number", "born", "no birth date", "issuer"],
)
async def test_not_one_pixel_of_another_patient_is_fetched_nor_of_their_whole_study(other: Header) -> None:
    second = replace(other, spot=replace(other.spot, instance="1.2.3.4.2"))
    archive = ArchiveDouble(listed=(MINE, second))
    looked = await look(archive)
    assert looked.pictures == ()
    assert archive.sent == []
    assert "so it is not used, nor is anything else of its study" in looked.unseen[0].why
    assert looked.unseen[0].count == 2
    assert not any(secret in looked.unseen[0].why for secret in ("4711", "4712", "1951"))


async def test_a_file_that_names_another_patient_than_its_listing_is_not_used() -> None:
    archive = ArchiveDouble(within=lambda header: replace(header, patient_id="4712"))
    looked = await look(archive)
    assert looked.pictures == ()
    assert why(looked) == ["the image names another patient, so it is not used"]


async def test_a_file_that_says_nothing_of_itself_is_not_used() -> None:
    archive = ArchiveDouble(within=lambda header: None)  # type: ignore[arg-type,return-value]
    assert why(await look(archive)) == [NO_HEADER]


async def test_an_issuer_that_the_site_knows_is_the_system_it_stands_for() -> None:
    archive = ArchiveDouble(listed=(replace(MINE, issuer="HOSP"),))
    assert (await look(archive)).pictures == ()
    known = await look(archive, issuers={"HOSP": "http://hospital.example/mrn"})
    assert len(known.pictures) == 1


async def test_a_file_that_cannot_be_had_or_read_is_named_and_the_others_are_shown() -> None:
    gone = await look(ArchiveDouble(file_failure=TimedOut("It took too long.")))
    assert (gone.pictures, why(gone), gone.is_for_now) == ((), ["it took too long"], True)

    class Half(ArchiveDouble):
        async def instances(self, study: str, series: str, wanted: Sequence[str]) -> Fetched:
            found = await super().instances(study, series, wanted)
            if wanted[0].endswith(".2"):
                return Fetched({}, {})
            return Fetched(dict.fromkeys(wanted, b"broken"), {}) if wanted[0].endswith(".3") else found

    spots = [replace(MINE.spot, instance=f"1.2.3.4.{n}") for n in (1, 2, 3)]
    looked = await look(Half(listed=tuple(replace(MINE, spot=spot) for spot in spots)))
    assert [picture.spot.instance for picture in looked.pictures] == ["1.2.3.4.1"]
    assert sorted(why(looked)) == sorted([NOT_SENT, "its content is broken"])
    assert not looked.is_for_now


async def test_part_of_a_study_that_is_not_listed_is_told_beside_what_is_shown() -> None:
    gap = Gap("ImagingStudy", GapReason.TOO_LARGE, "Only 5,000 images are listed.")
    looked = await look(ArchiveDouble(gaps=(gap,)))
    assert len(looked.pictures) == 1
    assert why(looked) == ["only 5,000 images are listed"]
    assert not looked.is_for_now
    down = await look(ArchiveDouble(gaps=(Gap("ImagingStudy", GapReason.TIMED_OUT, "It took too long."),)))
    assert down.is_for_now


async def test_a_volume_of_two_thousand_slices_is_shown_in_a_few_and_the_rest_is_counted() -> None:
    slices = tuple(
        replace(MINE, modality="CT", sop_class="1.2.840.10008.5.1.4.1.1.2", number=n,
                spot=replace(MINE.spot, instance=f"1.2.3.4.{n}"))
        for n in range(1, 2001)
    )  # fmt: skip
    archive = ArchiveDouble(listed=slices)
    looked = await look(archive, most=8)
    assert len(looked.pictures) == 8
    assert len(archive.sent) == 8
    assert sum(one.count for one in looked.unseen) == 1992


@pytest.mark.parametrize(("held", "again"), [(1_000_000, 0), (1, 4)])
async def test_a_slice_that_was_measured_is_not_fetched_again_while_what_is_held_is_little(
    held: int, again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.pictures.MOST_HELD", held)
    slices = tuple(
        replace(MINE, modality="MR", sop_class="1.2.840.10008.5.1.4.1.1.4", number=n,
                spot=replace(MINE.spot, instance=f"1.2.3.4.{n}"))
        for n in range(1, 301)
    )  # fmt: skip
    archive = ArchiveDouble(listed=slices)
    looked = await look(archive)
    assert len(looked.pictures) == 4
    assert len(set(archive.sent)) == MOST_MEASURED + 4
    assert len(archive.sent) == len(set(archive.sent)) + again


REPORT = replace(
    MINE, spot=replace(MINE.spot, series="1.2.3.5", instance="1.2.3.5.1"), modality="SR",
    sop_class="1.2.840.10008.5.1.4.1.1.88.33",
)  # fmt: skip
RAW = replace(REPORT, sop_class="1.2.840.10008.5.1.4.1.1.66", modality="MR")
UNREAD = "structured report: not read from an image archive"


@pytest.mark.parametrize(
    ("listed", "told"),
    [((REPORT,), [UNREAD]), ((RAW,), [NO_PICTURES]), ((REPORT, RAW), [UNREAD, NO_PICTURES])],
)
async def test_what_is_no_picture_is_not_taken_for_one(listed: tuple[Header, ...], told: list[str]) -> None:
    archive = ArchiveDouble(listed=listed)
    assert (why(await look(archive)), archive.sent) == (told, [])


async def test_a_report_beside_pictures_is_counted_and_costs_no_picture() -> None:
    second = replace(REPORT, spot=replace(REPORT.spot, instance="1.2.3.5.2"))
    looked = await look(ArchiveDouble(listed=(MINE, REPORT, second)))
    assert [one.spot for one in looked.pictures] == [MINE.spot]
    assert [(one.why, one.count) for one in looked.unseen] == [(UNREAD, 2)]


async def test_only_so_many_studies_are_asked_for_the_newest_first() -> None:
    studies = [study(f"1.2.3.{n}", f"img{n}", f"20{n:02}-01-01") for n in range(1, 16)]
    archive = ArchiveDouble(listed=())
    looked = await look(archive, *studies)
    assert archive.asked == [f"1.2.3.{n}" for n in range(15, 3, -1)]
    assert why(looked).count(NOT_ASKED) == 3


async def test_a_study_that_the_archive_does_not_have_makes_room_for_the_next() -> None:
    studies = [study(f"1.2.3.{n}", f"img{n}", f"20{n:02}-01-01") for n in range(1, 61)]
    archive = ArchiveDouble(listed=(), lacks={f"1.2.3.{n}" for n in range(47, 61)})
    looked = await look(archive, *studies)
    assert archive.asked == [f"1.2.3.{n}" for n in range(60, 34, -1)]
    assert (why(looked).count(NO_PICTURES), why(looked).count(NOT_ASKED)) == (12, 34)


async def test_an_archive_that_has_none_is_asked_for_so_many_and_one_that_is_down_for_fewer() -> None:
    studies = [study(f"1.2.3.{n}", f"img{n}", f"20{n:02}-01-01") for n in range(1, 61)]
    empty = ArchiveDouble(listed=(), lacks={f"1.2.3.{n}" for n in range(61)})
    await look(empty, *studies)
    assert 30 < len(empty.asked) <= MOST_ASKED
    down = ArchiveDouble(failure=NothingListens("The connection was refused."))
    await look(down, *studies)
    assert len(down.asked) == MOST_STUDIES


async def test_a_study_of_someone_else_in_the_chart_is_not_looked_for() -> None:
    other = study() | {"subject": {"reference": "Patient/2"}}
    archive = ArchiveDouble()
    assert (await look(archive, other), archive.asked) == (
        Looked((), (), (await look(archive, other)).how),
        [],
    )


async def test_a_record_that_names_no_archive_where_none_is_configured_says_so() -> None:
    looked = await look(ArchiveDouble(pacs_url=""))
    assert why(looked) == ["the record names no image archive, and none is configured"]


async def test_a_file_that_only_we_cannot_decode_is_shown_as_its_archive_renders_it() -> None:
    archive = ArchiveDouble(reads_not="its transfer syntax is not known")
    (picture,) = (await look(archive)).pictures
    assert (picture.png, picture.window, picture.spot) == (b"png by the archive", BY_ARCHIVE, MINE.spot)
    assert picture.burned_in
    none = await look(ArchiveDouble(reads_not="its transfer syntax is not known", renders=False))
    assert (none.pictures, why(none)) == ((), ["its transfer syntax is not known"])


@pytest.mark.parametrize(
    "reason", ["another instance than the one that was asked for", "its content is broken", "took too long"]
)
async def test_what_is_wrong_with_a_file_itself_is_not_gone_round(reason: str) -> None:
    archive = ArchiveDouble(reads_not=reason)
    looked = await look(archive)
    assert (looked.pictures, why(looked), archive.drawn) == ((), [reason], [])


async def test_what_was_seen_before_time_was_over_is_shown() -> None:
    class Stalls(ArchiveDouble):
        async def instances(self, study: str, series: str, wanted: Sequence[str]) -> Fetched:
            if wanted[0].endswith(".2"):
                await asyncio.Event().wait()
            return await super().instances(study, series, wanted)

    older = replace(MINE, spot=Spot("1.2.2", "1.2.2.4", "1.2.3.4.2"), taken="20180504")
    chart = (study(), study("1.2.2", "img2", "2018-05-04"))
    looked = await look(Stalls(listed=(MINE, older)), *chart, seconds=2.0)
    assert [picture.spot for picture in looked.pictures] == [MINE.spot]
    assert [(one.source, one.why) for one in looked.unseen] == [("ImagingStudy/img2", TOO_LATE)]
