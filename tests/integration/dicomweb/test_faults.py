"""A PACS that is down, slow, suspicious or endless: what came is kept, and the rest is named."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from connectors.auth import BasicAuth
from connectors.dicomweb.archives import Archives
from connectors.dicomweb.client import Pacs
from connectors.dicomweb.keyobjects import marked_instances
from connectors.errors import (
    ConnectorError,
    CutOff,
    ForeignLink,
    InvalidId,
    NotDicom,
    NotFoundError,
    NothingListens,
    TimedOut,
    TooLarge,
    Unauthorized,
)
from connectors.fhir.pull import GapReason
from connectors.limits import ImagingLimits, Limits
from fixtures.servers import free_port
from tests.integration.connectors.conftest import IMPATIENT
from tests.integration.connectors.fault_server import Endless, HangUp, Reply
from tests.integration.dicomweb.archive import (
    BOUNDARY,
    JSON,
    OTHER_SERIES,
    PARTS,
    SERIES,
    STUDY,
    Archive,
    dicom_file,
    element,
    instance_uid,
    items,
    metadata,
    multipart,
    part,
    parts,
    series_row,
)

SHORT = Limits(connect_s=1.0, read_s=0.3, total_s=5.0, retries=2, concurrency=4)
SMALL = ImagingLimits(max_instance_bytes=200_000, max_rendered_bytes=5_000)
ONE = instance_uid(1)
HEAD = f"HTTP/1.1 200 X\r\nContent-Type: {PARTS}\r\n\r\n".encode()


@pytest.fixture
async def archive() -> AsyncIterator[Archive]:
    async with Archive() as running:
        yield running


@pytest.fixture
async def pacs(archive: Archive) -> AsyncIterator[Pacs]:
    async with Pacs(
        archive.dicomweb_url, limits=SHORT, imaging=SMALL, patience=IMPATIENT, auth=BasicAuth("u", "secret")
    ) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_uid_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("asyncio")]
    assert not [line for line in ours if STUDY in line or "secret" in line]


async def refusal(pacs: Pacs) -> ConnectorError:
    """The error of asking for the first instance. It never names what was asked for."""
    with pytest.raises(ConnectorError) as raised:
        await pacs.instance(STUDY, SERIES, ONE)
    assert STUDY not in f"{raised.value} {raised.value.advice}"
    return raised.value


async def test_one_instance_is_handed_over_byte_by_byte_as_it_is_stored(archive: Archive, pacs: Pacs) -> None:
    file = dicom_file()
    archive.on_instance(parts(file))
    assert await pacs.instance(STUDY, SERIES, ONE) == file
    (asked,) = archive.requests
    assert "transfer-syntax=*" in asked.headers["accept"]


async def test_a_pacs_that_is_down_is_asked_once_and_not_for_each_image() -> None:
    nobody = f"http://127.0.0.1:{free_port()}/dicom-web"
    async with Pacs(nobody, limits=replace(SHORT, concurrency=1), patience=IMPATIENT) as pacs:
        with pytest.raises(NothingListens):
            await pacs.study(STUDY)
        fetched = await pacs.instances(STUDY, SERIES, [instance_uid(n) for n in range(30)])
    assert not fetched.files
    assert len(fetched.failures) == 30
    assert len({id(failure) for failure in fetched.failures.values()}) == 1


async def test_a_slow_pacs_times_out_and_is_not_asked_again(archive: Archive, pacs: Pacs) -> None:
    archive.on_instance(Reply(delay_s=3.0))
    assert isinstance(await refusal(pacs), TimedOut)
    assert len(archive.requests) == 1


async def test_who_may_not_read_is_told_so(archive: Archive, pacs: Pacs) -> None:
    archive.on_instance(Reply(401))
    archive.on_path(f"studies/{STUDY}/series", Reply(401))
    assert isinstance(await refusal(pacs), Unauthorized)
    with pytest.raises(Unauthorized):
        await pacs.study(STUDY)


async def test_another_instance_than_was_asked_for_is_refused(archive: Archive, pacs: Pacs) -> None:
    archive.on_instance(parts(dicom_file(2)))
    assert isinstance(await refusal(pacs), NotDicom)


async def test_an_endless_part_is_cut_off_at_the_limit(archive: Archive, pacs: Pacs) -> None:
    archive.on_instance(Endless(HEAD + part(b""), b"x" * 4096))
    assert isinstance(await refusal(pacs), TooLarge)
    assert len(archive.requests) == 1


@pytest.mark.parametrize(
    "piece", [b"no delimiter ever", f"\r\n--{BOUNDARY}\r\nX-{'a' * 50}: b".encode()], ids=["preamble", "head"]
)
async def test_an_answer_without_a_first_part_is_cut_off(archive: Archive, pacs: Pacs, piece: bytes) -> None:
    archive.on_instance(Endless(HEAD, piece * 100))
    assert isinstance(await refusal(pacs), TooLarge | NotDicom)


async def test_after_the_first_part_nothing_more_is_read(archive: Archive, pacs: Pacs) -> None:
    file = dicom_file()
    archive.on_instance(Endless(HEAD + part(file), part(dicom_file(2))))
    assert await pacs.instance(STUDY, SERIES, ONE) == file


async def test_a_part_beyond_the_limit_is_refused(archive: Archive, pacs: Pacs) -> None:
    archive.on_instance(parts(dicom_file(PixelData=b"\0" * 190_000)), number=1)
    assert len(await pacs.instance(STUDY, SERIES, ONE)) < 200_000
    archive.on_instance(parts(dicom_file(PixelData=b"\0" * 210_000)))
    assert isinstance(await refusal(pacs), TooLarge)


async def test_a_redirect_to_elsewhere_is_not_followed(archive: Archive, pacs: Pacs) -> None:
    async with Archive() as elsewhere:
        archive.on_instance(Reply(307, headers={"Location": f"{elsewhere.dicomweb_url}/studies"}))
        assert isinstance(await refusal(pacs), ForeignLink)
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        Reply(body=b"<html>log in</html>", content_type="text/html"),
        Reply(body=multipart(b"<html>"), content_type=PARTS.replace("application/dicom", "text/html")),
        Reply(body=multipart(b"{}", content_type=JSON), content_type=PARTS),
        Reply(body=multipart(), content_type=PARTS),
        Reply(body=multipart(dicom_file()), content_type='multipart/related; type="application/dicom"'),
        Reply(body=b"DICM", content_type="application/dicom"),
    ],
    ids=["page", "page in a part", "other parts", "no part", "no boundary", "no file"],
)
async def test_what_is_no_dicom_is_refused(archive: Archive, pacs: Pacs, answer: Reply) -> None:
    archive.on_instance(answer)
    assert isinstance(await refusal(pacs), NotDicom)


async def test_a_truncated_part_is_asked_for_again_and_never_handed_over(
    archive: Archive, pacs: Pacs
) -> None:
    file = dicom_file()
    whole = parts(file)
    archive.on_instance(replace(whole, cut_after=200), whole)
    assert await pacs.instance(STUDY, SERIES, ONE) == file
    archive.on_instance(
        Reply(body=multipart(file)[:-20], content_type=PARTS)
    )  # its length is that of the rest
    assert isinstance(await refusal(pacs), CutOff)


async def test_a_pacs_that_knows_no_star_is_asked_without_it(archive: Archive, pacs: Pacs) -> None:
    file = dicom_file()
    archive.on_instance(lambda asked: Reply(406) if "*" in asked.headers["accept"] else parts(file))
    assert await pacs.instance(STUDY, SERIES, ONE) == file


async def test_some_images_of_a_series_are_kept_where_others_fail(archive: Archive, pacs: Pacs) -> None:
    archive.on_instance(parts(dicom_file(1)), number=1)
    archive.on_instance(HangUp(), number=2)
    archive.on_instance(parts(dicom_file(3)), number=3)
    fetched = await pacs.instances(STUDY, SERIES, [instance_uid(n) for n in (1, 2, 3)])
    assert set(fetched.files) == {instance_uid(1), instance_uid(3)}
    assert {uid: type(failure) for uid, failure in fetched.failures.items()} == {instance_uid(2): CutOff}


async def test_two_thousand_slices_are_listed_without_a_pixel(archive: Archive, pacs: Pacs) -> None:
    archive.on_search(series_row(SERIES, 2_000))
    archive.on_series(SERIES, items([metadata(n) for n in range(2_000)]))
    found = await pacs.study(STUDY)
    assert len(found.instances) == 2_000
    assert not found.is_partial
    assert found.instances[7]["00200013"] == {"vr": "IS", "Value": [7]}
    assert all("7FE00010" not in one and "00091010" not in one for one in found.instances)
    assert [request.path for request in archive.requests] == [
        f"/dicom-web/studies/{STUDY}/series",
        f"/dicom-web/studies/{STUDY}/series/{SERIES}/metadata",
    ]


async def test_more_images_than_the_limit_are_a_gap(archive: Archive) -> None:
    few = ImagingLimits(max_instances=5, max_series=2)
    third = f"{STUDY}.3"
    archive.on_search(series_row(SERIES), series_row(OTHER_SERIES), series_row(third))
    archive.on_series(SERIES, items([metadata(n) for n in range(4)]))
    archive.on_series(OTHER_SERIES, items([metadata(n, OTHER_SERIES) for n in range(4)]))
    async with Pacs(archive.dicomweb_url, limits=SHORT, imaging=few) as pacs:
        found = await pacs.study(STUDY)
    assert len(found.instances) == 5
    assert [gap.reason for gap in found.gaps] == [GapReason.TOO_LARGE, GapReason.TOO_LARGE]


async def test_a_series_that_fails_is_a_gap_and_the_others_are_listed(archive: Archive, pacs: Pacs) -> None:
    archive.on_search(series_row(SERIES, 1), series_row(OTHER_SERIES, 1))
    archive.on_series(SERIES, items([metadata(1)]))
    archive.on_series(OTHER_SERIES, Reply(403))
    found = await pacs.study(STUDY)
    assert len(found.instances) == 1
    assert [gap.reason for gap in found.gaps] == [GapReason.REFUSED]


async def test_what_belongs_to_another_study_is_left_out_and_told(archive: Archive, pacs: Pacs) -> None:
    archive.on_search(series_row(SERIES))
    archive.on_series(SERIES, items([metadata(1), metadata(2, study="1.2.826.9"), metadata(3, OTHER_SERIES)]))
    found = await pacs.study(STUDY)
    assert [one["00200013"]["Value"] for one in found.instances] == [[1]]
    assert found.is_partial


async def test_fewer_images_than_the_pacs_counts_are_a_gap(archive: Archive, pacs: Pacs) -> None:
    archive.on_search(series_row(SERIES, 3))
    archive.on_series(SERIES, items([metadata(1), metadata(2)]))
    found = await pacs.study(STUDY)
    assert len(found.instances) == 2
    assert [gap.reason for gap in found.gaps] == [GapReason.FAILED]


async def test_without_a_search_the_metadata_of_the_study_are_read_in_one(
    archive: Archive, pacs: Pacs
) -> None:
    archive.on_path(f"studies/{STUDY}/series", Reply(501))
    archive.on_path(f"studies/{STUDY}/metadata", items([metadata(1)]))
    assert len((await pacs.study(STUDY)).instances) == 1


async def test_a_study_that_the_pacs_does_not_have_is_not_found(archive: Archive, pacs: Pacs) -> None:
    archive.on_path(f"studies/{STUDY}/series", Reply(204, body=b""))
    archive.on_path(f"studies/{STUDY}/metadata", items([]))
    with pytest.raises(NotFoundError):
        await pacs.study(STUDY)


async def test_a_uid_that_is_none_is_never_sent(archive: Archive, pacs: Pacs) -> None:
    for wrong in ("", "1.2/../../secret", "1.2?x=1", "1" * 65, "1..2", "١.٢"):
        with pytest.raises(InvalidId):
            await pacs.instance(STUDY, wrong, ONE)
        with pytest.raises(InvalidId):
            await pacs.study(wrong)
    assert archive.requests == []


async def test_a_page_is_no_rendered_frame(archive: Archive, pacs: Pacs) -> None:
    path = f"studies/{STUDY}/series/{SERIES}/instances/{ONE}/frames/3/rendered"
    archive.on_path(path, Reply(body=b"\x89PNG\r\n\x1a\nrest", content_type="image/png"))
    assert (await pacs.rendered(STUDY, SERIES, ONE, 3, window=(40, 80))).endswith(b"rest")
    assert archive.requests[0].query == (("window", "40,80,linear"),)
    archive.on_path(path, Reply(body=b"<html>", content_type="text/html"))
    with pytest.raises(NotDicom):
        await pacs.rendered(STUDY, SERIES, ONE, 3)


async def test_credentials_go_to_the_configured_pacs_alone(archive: Archive) -> None:
    async with Archive() as allowed, Archive() as foreign:
        for one in (archive, allowed, foreign):
            one.on_instance(parts(dicom_file()))
        archives = Archives(
            archive.dicomweb_url,
            auth=BasicAuth("u", "secret"),
            allowed_origins=(allowed.root_url,),
            limits=SHORT,
        )
        await archives.at(archive.dicomweb_url).instance(STUDY, SERIES, ONE)
        await archives.at(allowed.dicomweb_url).instance(STUDY, SERIES, ONE)
        with pytest.raises(ForeignLink):
            archives.at(foreign.dicomweb_url)
        await archives.aclose()
        assert "authorization" in archive.requests[0].headers
        assert "authorization" not in allowed.requests[0].headers
        assert foreign.requests == []


def key_object(code: str, *uids: str) -> dict[str, object]:
    title = {"00080100": element("SH", code), "00080102": element("SH", "DCM")}
    content = [{"00081199": element("SQ", {"00081155": element("UI", one)})} for one in uids]
    return metadata(1) | {
        "00080016": element("UI", "1.2.840.10008.5.1.4.1.1.88.59"),
        "0040A043": element("SQ", title), "0040A730": element("SQ", *content),
    }  # fmt: skip


async def test_what_a_radiologist_marked_is_found_and_what_was_rejected_is_not(
    archive: Archive, pacs: Pacs
) -> None:
    archive.on_search(series_row(SERIES))
    rows = [key_object("113000", "1.2.5", "1.2.6", "no uid"), key_object("113001", "1.2.7"), metadata(3)]
    archive.on_series(SERIES, items(rows))
    found = await pacs.study(STUDY)
    assert marked_instances(found.instances) == ("1.2.5", "1.2.6")
