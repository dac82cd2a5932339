"""Pictures that the record itself keeps: inline, in a Binary, or behind a link of the same server."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.errors import ConnectorError, ForeignLink, NotUnderstoodError, TooLarge
from connectors.fhir.client import FhirClient
from connectors.fhir.pictures import fetch_picture, pictures_of
from connectors.limits import ImagingLimits
from tests.integration.connectors.conftest import IMPATIENT, SHORT
from tests.integration.connectors.fault_server import FaultServer, Reply

JPEG = b"\xff\xd8\xff\xe0photo"
PDF = b"%PDF-1.7 page"
TEXT = b64encode(JPEG).decode()


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer() as running:
        yield running


@pytest.fixture
async def client(server: FaultServer) -> AsyncIterator[FhirClient]:
    async with FhirClient(server.base_url, limits=SHORT, patience=IMPATIENT) as opened:
        yield opened


def media(**content: Any) -> dict[str, Any]:
    return {"resourceType": "Media", "id": "1", "meta": {"versionId": "2"}, "status": "completed",
            "createdDateTime": "2024-05-01", "content": {"contentType": "image/jpeg", **content}}  # fmt: skip


def document(media_type: str, url: str = "Binary/1") -> dict[str, Any]:
    attachment = {"contentType": media_type, "url": url, "creation": "2023-01-02"}
    return {
        "resourceType": "DocumentReference",
        "id": "9",
        "status": "current",
        "content": [{"attachment": attachment}],
    }


async def fetched(client: FhirClient, *resources: dict[str, Any], **limits: int) -> bytes:
    (link,) = pictures_of(resources)
    return await fetch_picture(client, link, ImagingLimits(**limits))


async def test_an_inline_picture_needs_no_request(server: FaultServer, client: FhirClient) -> None:
    (link,) = pictures_of([media(data=TEXT)])
    assert (link.source, link.source_version, link.media_type, link.taken) == (
        "Media/1", "2", "image/jpeg", "2024-05-01",
    )  # fmt: skip
    assert await fetch_picture(client, link) == JPEG
    binary = {"resourceType": "Binary", "id": "1", "contentType": "image/jpeg", "data": TEXT}
    assert await fetched(client, document("image/jpg"), binary) == JPEG
    assert server.requests == []


async def test_a_linked_picture_comes_raw_or_as_a_binary(server: FaultServer, client: FhirClient) -> None:
    server.on("GET", "/fhir/Binary/1", Reply(body=JPEG, content_type="image/jpeg"))
    assert await fetched(client, media(url=f"{server.base_url}/Binary/1")) == JPEG
    server.on("GET", "/fhir/Binary/1", Reply(json={"resourceType": "Binary", "data": TEXT}))
    assert await fetched(client, document("image/jpeg")) == JPEG


async def test_a_link_to_elsewhere_is_not_followed(client: FhirClient) -> None:
    async with FaultServer() as elsewhere:
        with pytest.raises(ForeignLink):
            await fetched(client, media(url=f"{elsewhere.base_url}/Binary/1"))
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    "resource",
    [
        media(data=b64encode(b"<svg>").decode()),
        media(data="=broken="),
        media(url="Binary/1"),
        media(contentType="image/png", data=TEXT),
    ],
)
async def test_what_is_not_what_it_says_is_refused(
    server: FaultServer, client: FhirClient, resource: dict[str, Any]
) -> None:
    server.on("GET", "/fhir/Binary/1", Reply(json={"resourceType": "Patient"}))
    with pytest.raises(NotUnderstoodError):
        await fetched(client, resource)


async def test_a_picture_beyond_the_limit_is_refused(server: FaultServer, client: FhirClient) -> None:
    server.on("GET", "/fhir/Binary/1", Reply(body=JPEG + b"x" * 9_000, content_type="image/jpeg"))
    for resource in (media(data=TEXT * 900), media(url="Binary/1")):
        with pytest.raises(TooLarge):
            await fetched(client, resource, max_picture_bytes=5_000)


def test_a_pdf_counts_where_it_is_a_picture_and_nothing_else_does() -> None:
    assert [
        one.media_type for one in pictures_of([media(contentType="application/pdf", url="Binary/1")])
    ] == ["application/pdf"]
    for resource in (
        document("application/pdf"), document("text/plain"), media(contentType="image/svg+xml", url="x"),
        media(), {**media(data=TEXT), "status": "entered-in-error"}, {"resourceType": "Binary", "data": TEXT},
    ):  # fmt: skip
        assert pictures_of([resource]) == ()


async def test_no_failure_repeats_what_was_asked_for(server: FaultServer, client: FhirClient) -> None:
    with pytest.raises(ConnectorError) as raised:
        await fetched(client, media(url="Binary/sealed-id"))
    assert "sealed-id" not in str(raised.value)
