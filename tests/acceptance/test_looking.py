"""From a chart whose study points at a real PACS to its image on a page, all parts plugged together."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from fixtures.pacs import Linked, PacsServer, linked_patient
from fixtures.servers import SekmetServer
from service.api.app import create_app
from service.api.pages import number_sources
from service.ports import Action, RunId, StoredRun
from service.settings import load_settings
from service.store.sql import SqlStore
from service.wiring.engines import open_summarizer
from service.wiring.installation import open_store, utc_now
from service.wiring.viewer import open_gallery, open_viewer
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit

pytestmark = pytest.mark.shared


@dataclass
class Seat:
    """One application in front of a FHIR server and a PACS."""

    client: httpx.AsyncClient
    store: SqlStore
    audit: InMemoryAudit
    linked: Linked
    run: StoredRun

    @property
    def number(self) -> int:
        """The number of the source that is the linked study."""
        numbers = number_sources(self.run.summary, {fact.id: fact for fact in self.run.summary.facts})
        reference = f"ImagingStudy/{self.linked.studies[0].resource_id}"
        wanted = (fact.id for fact in self.run.summary.facts if fact.source.reference == reference)
        return numbers[next(wanted)]


@pytest.fixture
async def seat(
    sekmet: SekmetServer, pacs: PacsServer, shared_data: Path, tmp_path: Path
) -> AsyncIterator[Seat]:
    linked = linked_patient(sekmet.base_url, pacs, shared_data, "e1dbcb04")
    settings = load_settings(
        home=tmp_path, fhir_url=sekmet.base_url, engine="scripted", pacs_url=pacs.dicomweb_url
    )
    async with open_summarizer(settings, None, lambda stage, detail: None) as summarizer:
        made = await summarizer.summarize(linked.patient_id, dry_run=True)
    store, kept = open_store(settings)
    kept.close()
    run = store.get(RunId(made.run_id))
    assert run is not None
    gallery, audit = open_gallery(settings), InMemoryAudit()
    app = create_app(
        store=store, audit=audit, clock=utc_now, access=OpenDoor(), allowed_hosts=("127.0.0.1",), version="0",
        rooms=[open_viewer(settings, gallery, store, audit, None)],
    )  # fmt: skip
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield Seat(client, store, audit, linked, run)
    await gallery.aclose()
    store.close()


async def test_the_image_of_a_linked_study_is_seen_and_that_is_on_record(seat: Seat) -> None:
    page = await seat.client.get(f"/runs/{seat.run.run_id}/viewer/{seat.number}")
    assert page.status_code == 200
    (source,) = re.findall(r'<img src="([^"]+)"', page.text)
    picture = await seat.client.get(source.replace("&amp;", "&"))
    shown = Image.open(io.BytesIO(picture.content)).convert("L")
    assert shown.size == (896, 896)
    assert len(np.unique(np.asarray(shown))) > 100
    study = seat.linked.studies[0]
    assert not [uid for uid in (study.study, study.series, study.instance) if uid in page.text]
    views = [entry.target for entry in seat.audit.entries if entry.action is Action.VIEW]
    assert views == [f"ImagingStudy/{study.resource_id}"] * 2
    other = dataclasses.replace(
        seat.run,
        run_id=RunId("elsewhere"),
        inputs=dataclasses.replace(seat.run.inputs, server="https://other.example"),
    )
    seat.store.save(other)
    assert (await seat.client.get(f"/runs/elsewhere/viewer/{seat.number}")).status_code == 404
