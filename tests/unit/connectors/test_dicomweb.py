"""Multipart in any cuts, file heads of any bytes, and the way from a record to its images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.dicomweb import links, part10
from connectors.dicomweb.attributes import read_items
from connectors.dicomweb.links import StudyLink, links_of, missing_endpoints
from connectors.dicomweb.multipart import Splitter, boundary_of
from connectors.errors import NotDicom, TooLarge
from tests.integration.dicomweb.archive import BOUNDARY, dicom_file, instance_uid, multipart

PACS = "https://pacs.example/dicom-web"
OTHER = "https://vna.example/rs"


def split(data: bytes, cuts: Sequence[int] = (), **limits: int) -> tuple[list[bytes], bool]:
    splitter = Splitter(
        BOUNDARY.encode(), limits.get("max_part_bytes", 1_000), limits.get("max_head_bytes", 200)
    )
    found: list[bytes] = []
    places = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(places):
        found += splitter.feed(data[start:end])
    return found, splitter.has_ended


@given(
    st.lists(st.binary(max_size=60) | st.just(b"\r\n--b0undar") | st.just(b"\r\n\r\n"), max_size=4), st.data()
)
def test_parts_are_the_same_however_the_bytes_are_cut(bodies: list[bytes], data: Any) -> None:
    whole = b"preamble" + multipart(*bodies) + b"epilogue"
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=8))
    found, has_ended = split(whole, cuts)
    assert found == bodies
    assert has_ended


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=4))
def test_any_bytes_end_in_parts_or_a_refusal(noise: bytes, cuts: list[int]) -> None:
    data = b"\r\n--" + BOUNDARY.encode() + noise
    try:
        found, _ = split(data, [cut for cut in cuts if cut <= len(data)])
    except (NotDicom, TooLarge):
        return
    assert sum(len(one) for one in found) <= len(noise)


def test_a_part_may_be_as_large_as_the_limit_and_no_larger() -> None:
    assert len(split(multipart(b"x" * 1_000))[0]) == 1
    for cuts in ((), range(0, 1_050, 7)):
        with pytest.raises(TooLarge):
            split(multipart(b"x" * 1_001), cuts)


def test_a_part_without_its_end_is_none() -> None:
    whole = multipart(b"one", b"two")
    found, has_ended = split(whole[: whole.rindex(b"\r\n--")])
    assert found == [b"one"]
    assert not has_ended


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=a-b', b"a-b"),
        ('Multipart/Related;boundary="a b";type=x', b"a b"),
    ],
)
def test_a_boundary_is_read_with_and_without_quotes(content_type: str, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type", ["", "text/html; boundary=x", "multipart/related", "multipart/x; boundary=é"]
)
def test_what_is_no_multipart_has_no_boundary(content_type: str) -> None:
    with pytest.raises(NotDicom):
        boundary_of(content_type)


@given(st.integers(0, 400), st.binary(max_size=40))
def test_a_damaged_head_never_raises(place: int, damage: bytes) -> None:
    file = dicom_file()
    damaged = file[:place] + damage + file[place + len(damage) :]
    assert isinstance(part10.instance_of(damaged), str)
    assert part10.instance_of(file) == instance_uid(1)


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[1]", b"[[]]", b"[{}", b'["a"]'])
def test_what_is_no_dicom_json_is_refused(body: bytes) -> None:
    with pytest.raises(NotDicom):
        read_items(body, 10)


@pytest.mark.parametrize(
    "bulk", ['"InlineBinary": "QUJD"', '"BulkDataURI": "https://elsewhere.example/bulk"']
)
def test_bulk_is_not_kept_whatever_tag_it_stands_in(bulk: str) -> None:
    body = f'[{{"00080018": {{"Value": ["1.2"]}}, "00081030": {{"vr": "OB", {bulk}}}}}]'
    assert read_items(body.encode(), 10) == ([{"00080018": {"Value": ["1.2"]}}], False)


def test_a_value_of_a_megabyte_is_not_kept() -> None:
    big = f'[{{"00080018": {{"Value": ["1.2"]}}, "00081030": {{"Value": ["{"x" * 1_000_000}"]}}}}]'
    assert read_items(big.encode(), 10) == ([{"00080018": {"Value": ["1.2"]}}], False)


def study(*endpoints: str, series: Sequence[dict[str, Any]] = (), **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "ImagingStudy", "id": "7", "meta": {"versionId": "3"}, "status": "available",
        "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}],
        "endpoint": [{"reference": one} for one in endpoints], "series": list(series), **more,
    }  # fmt: skip


def endpoint(
    address: Any, endpoint_id: str = "1", code: str = "dicom-wado-rs", **more: Any
) -> dict[str, Any]:
    return {
        "resourceType": "Endpoint", "id": endpoint_id, "status": "active", "address": address,
        "connectionType": {"code": code}, **more,
    }  # fmt: skip


def way(*resources: dict[str, Any], pacs: str = PACS, allowed: tuple[str, ...] = ()) -> tuple[str, str]:
    (link,) = links_of(resources, pacs, allowed)
    return link.base_url, link.reason


def test_a_study_is_asked_for_where_its_endpoint_says() -> None:
    assert links_of([study("Endpoint/1"), endpoint(OTHER)], PACS, (OTHER,)) == (
        StudyLink("ImagingStudy/7", "3", "1.2.3", OTHER),
    )


@pytest.mark.parametrize("suffix", ["/", "/studies", "/studies/1.2.3", "/studies/1.2.3/series/1"])
def test_an_address_may_name_the_study_itself(suffix: str) -> None:
    assert way(study("Endpoint/1"), endpoint(OTHER + suffix), allowed=(OTHER,)) == (OTHER, "")


@pytest.mark.parametrize(
    "address",
    ["https://evil.example/rs", "http://vna.example/rs", "https://vna.example:8443/rs", "https://u:p@vna.example/rs",
     "https://vna.example/rs/../admin", "https://vna.example/rs?x=1",
     "file:///etc/passwd", "//vna.example", "", None, 7],
)  # fmt: skip
def test_an_address_elsewhere_is_never_the_way(address: Any) -> None:
    chart = (study("Endpoint/1"), endpoint(address))
    assert way(*chart, allowed=(OTHER,)) == (PACS, "")
    base_url, reason = way(*chart, pacs="", allowed=(OTHER,))
    assert base_url == ""
    assert reason in (links.FOREIGN, links.UNREADABLE)


def test_the_configured_pacs_is_asked_where_the_record_names_none() -> None:
    assert way(study()) == (PACS, "")
    assert way(study("Endpoint/9")) == (PACS, "")
    assert way(study(), pacs="") == ("", links.NO_PACS)


@pytest.mark.parametrize("status", ["off", "error", "suspended", "entered-in-error", "test"])
def test_an_endpoint_that_is_not_in_use_is_not_asked(status: str) -> None:
    assert way(study("Endpoint/1"), endpoint(OTHER, status=status), allowed=(OTHER,)) == (PACS, "")


def test_an_endpoint_of_another_kind_is_no_archive() -> None:
    assert way(study("Endpoint/1"), endpoint(OTHER, code="ihe-iid"), allowed=(OTHER,), pacs="") == (
        "", links.UNREADABLE,
    )  # fmt: skip


def test_a_contained_endpoint_and_one_in_the_words_of_r5_are_read() -> None:
    contained = {**endpoint(OTHER, "e"), "connectionType": [{"coding": [{"code": "dicom-wado-rs"}]}]}
    assert way(study("#e", contained=[contained]), allowed=(OTHER,)) == (OTHER, "")


def test_series_with_places_of_their_own_are_one_link_a_place() -> None:
    series: list[dict[str, Any]] = [
        {"uid": "1.1"},
        {"uid": "1.2", "endpoint": [{"reference": "Endpoint/1"}]},
        {"uid": "1.3"},
    ]
    found = links_of([study(series=series), endpoint(OTHER)], PACS, (OTHER,))
    assert [(one.base_url, one.series) for one in found] == [(PACS, ("1.1", "1.3")), (OTHER, ("1.2",))]


def test_a_study_without_uid_or_that_was_cancelled_has_no_way() -> None:
    assert way(study(identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:no"}])) == ("", links.NO_UID)
    assert way(study(status="entered-in-error")) == ("", links.CANCELLED)


def test_endpoints_that_did_not_come_along_are_named_once() -> None:
    series = [{"uid": "1.1", "endpoint": [{"reference": "https://ehr.example/fhir/Endpoint/2"}]}]
    chart = [study("Endpoint/1", "Endpoint/2", "#contained", series=series), endpoint(OTHER)]
    assert missing_endpoints(chart) == ("Endpoint/2",)
