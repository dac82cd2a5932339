"""A chart on a real FHIR server, its studies at a real PACS: from the record to every byte of an image."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pydicom
import pytest

from connectors.auth import BasicAuth
from connectors.dicomweb.archives import Archives
from connectors.dicomweb.attributes import first
from connectors.dicomweb.client import Pacs
from connectors.dicomweb.links import links_of
from connectors.errors import NotFoundError, RequestRejected, Unauthorized
from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from fixtures.pacs import PASSWORD, USER, PacsServer, has_orthanc, linked_chart, linked_patient, rewritten
from fixtures.servers import SekmetServer
from tests.conftest import missing
from tests.integration.dicomweb.archive import SERIES, STUDY, dicom_file, instance_uid

pytestmark = pytest.mark.shared


@pytest.fixture
async def client(pacs: PacsServer) -> AsyncIterator[Pacs]:
    async with Pacs(pacs.dicomweb_url) as opened:
        yield opened


async def test_a_chart_leads_to_its_images(pacs: PacsServer, shared_data: Path, tmp_path: Path) -> None:
    archives = Archives(pacs.dicomweb_url)
    with SekmetServer(tmp_path) as server:
        linked = linked_patient(server.base_url, pacs, shared_data, "1c574eeb")
        async with FhirClient(server.base_url) as client:
            pull = await FhirEhr(client).pull(linked.patient_id)
    (link,) = links_of(pull.resources, allowed_origins=(pacs.root_url,))
    (wanted,) = linked.studies
    assert (link.study, link.base_url, link.source) == (
        wanted.study, pacs.dicomweb_url, f"ImagingStudy/{wanted.resource_id}",
    )  # fmt: skip
    opened = archives.at(link.base_url)
    found = await opened.study(link.study)
    (item,) = found.instances
    assert not found.is_partial
    assert first(item, "00100020") == linked.record_number
    assert first(item, "00100021") == linked.issuer
    assert first(item, "00100030") == linked.birth_date.replace("-", "")
    spot = (wanted.study, wanted.series, wanted.instance)
    assert await opened.instance(*spot) == wanted.file
    assert (await opened.rendered(*spot)).startswith(b"\x89PNG")
    await archives.aclose()


async def test_a_compressed_image_comes_as_it_is_stored(
    pacs: PacsServer, shared_data: Path, client: Pacs
) -> None:
    (wanted,) = linked_chart(pacs.dicomweb_url, shared_data, "2ad91c08").studies
    pacs.store(wanted.file)
    spot = (wanted.study, wanted.series, wanted.instance)
    assert await client.instance(*spot) == wanted.file
    with pytest.raises(RequestRejected):  # this Orthanc has no decoder of JPEG 2000
        await client.rendered(*spot)


async def test_slices_are_listed_and_some_of_them_fetched(pacs: PacsServer, client: Pacs) -> None:
    files = {instance_uid(n): dicom_file(n, PatientID="slices") for n in range(1, 31)}
    pacs.store(*files.values())
    found = await client.study(STUDY)
    assert {first(one, "00080018") for one in found.instances} == set(files)
    assert not found.is_partial
    assert all("7FE00010" not in one for one in found.instances)
    wanted = [instance_uid(n) for n in (1, 15, 30, 31)]
    fetched = await client.instances(STUDY, SERIES, wanted)
    assert fetched.files == {one: files[one] for one in wanted[:3]}
    assert isinstance(fetched.failures[instance_uid(31)], NotFoundError)


async def test_what_the_pacs_does_not_have_is_not_found(client: Pacs) -> None:
    with pytest.raises(NotFoundError):
        await client.study("1.2.3.4")


async def test_a_guarded_pacs_wants_who_we_are() -> None:
    if not has_orthanc():
        missing("Orthanc (apt: orthanc, orthanc-dicomweb)")
    with PacsServer(guarded=True) as guarded:
        guarded.store(dicom_file(PatientID="guarded"))
        async with Pacs(guarded.dicomweb_url) as nobody:
            with pytest.raises(Unauthorized):
                await nobody.study(STUDY)
        async with Pacs(guarded.dicomweb_url, auth=BasicAuth(USER, PASSWORD)) as known:
            assert len((await known.study(STUDY)).instances) == 1


def test_a_file_is_rewritten_to_another_patient_and_stays_the_same_otherwise(shared_data: Path) -> None:
    (wanted,) = linked_chart("http://127.0.0.1:1", shared_data, "e1dbcb04").studies
    changed = pydicom.dcmread(
        io.BytesIO(rewritten(wanted.file, PatientID="other", PatientBirthDate="19000101"))
    )
    original = pydicom.dcmread(io.BytesIO(wanted.file))
    assert (changed.PatientID, changed.PatientBirthDate) == ("other", "19000101")
    assert changed.PixelData == original.PixelData
