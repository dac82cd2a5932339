"""The viewer over a real PACS: a run with one study among its sources, a chart in this process, a launch."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
from fastapi import FastAPI
from PIL import Image

from connectors.dicomweb.archives import Archives
from connectors.limits import Limits
from fixtures.sample_run import sample_run
from service.api.app import create_app
from service.api.cookies import LAUNCH
from service.api.gallery import Gallery
from service.api.pages import number_sources
from service.api.sidebar.room import Sidebar
from service.api.viewer import Viewer
from service.context.templates import open_library
from service.imaging.reader import PictureReader
from service.ports import StoredRun
from service.record.facts import FactId, Kind, ResourceVersion
from tests.integration.connectors.conftest import IMPATIENT
from tests.integration.dicomweb.archive import dicom_file
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.api.sidebar.chart import SERVER, Chart, bare, sample_chart
from tests.unit.api.sidebar.desk import NOW, VISIT, OneLaunch, a_launch

NUMBER, BORN = "MRN 0049-1187", "19510504"
READER = PictureReader()
"""One process reads the pictures of all tests; it ends with its parent."""
SUBJECT = {"reference": "Patient/1"}
PAST_AIR, PAST_BONE = -1000, 1000


def pictured_run(reference: str = "ImagingStudy/7") -> StoredRun:
    """The sample run with one more source: a study, a picture."""
    run = sample_run()
    fact = replace(
        run.summary.facts[0], id=FactId(reference), kind=Kind.IMAGING, name="CT chest",
        text="CT chest: study, done 04-May-2026", source=ResourceVersion(reference, "1", ""),
        copies=(), body="", span=None,
    )  # fmt: skip
    return replace(run, summary=replace(run.summary, facts=(*run.summary.facts, fact)))


def number_of(run: StoredRun) -> int:
    """The number of the source that was added."""
    numbers = number_sources(run.summary, {fact.id: fact for fact in run.summary.facts})
    return numbers[run.summary.facts[-1].id]


@dataclass(frozen=True)
class Study:
    """A CT of a few slices, each brighter than the one before."""

    uid: str = field(default_factory=lambda: f"2.25.{uuid4().int % 10**30}")
    slices: int = 3
    elements: dict[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> list[bytes]:
        """All of it."""
        return [self.file(number) for number in range(1, self.slices + 1)]

    def file(self, number: int) -> bytes:
        """One slice."""
        ramp = np.linspace(PAST_AIR, PAST_BONE, 64)[None, :].repeat(64, axis=0) + 10 * number
        elements = {
            "StudyInstanceUID": self.uid, "SeriesInstanceUID": f"{self.uid}.1",
            "SOPInstanceUID": f"{self.uid}.1.{number}", "PatientID": NUMBER, "PatientBirthDate": BORN,
            "Rows": 64, "Columns": 64, "PixelData": (ramp + 1024).astype("<u2").tobytes(),
            "RescaleIntercept": -1024, "RescaleSlope": 1, "StudyDate": "20260504",
            "SeriesDescription": "Chest 5 mm", "BodyPartExamined": "CHEST", "InstanceNumber": number,
            "ImagePositionPatient": [0, 0, number * 5], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            **self.elements,
        }  # fmt: skip
        return dicom_file(number, **elements)

    def resource(self, **more: Any) -> dict[str, Any]:
        """The ImagingStudy."""
        identifier = [{"system": "urn:dicom:uid", "value": f"urn:oid:{self.uid}"}]
        return bare("ImagingStudy/7", "1", status="available", subject=SUBJECT, identifier=identifier, **more)


@dataclass
class Looking:
    """One application with the viewer, and everything that a test may turn."""

    pacs_url: str = ""
    run: StoredRun = field(default_factory=pictured_run)
    chart: Chart = field(default_factory=sample_chart)
    allowed: tuple[str, ...] = ()
    ohif_url: str = ""
    is_ours: bool = True

    def __post_init__(self) -> None:
        self.store, self.audit = InMemoryStore(self.run), InMemoryAudit()
        has_any = bool(self.pacs_url or self.allowed)
        limits = Limits(connect_s=1.0, read_s=1.0, total_s=3.0, retries=0)
        self.archives = (
            Archives(self.pacs_url, allowed_origins=self.allowed, limits=limits, patience=IMPATIENT)
            if has_any
            else None
        )
        self.gallery = Gallery(self.archives, READER, limit_s=30.0)
        self.number = number_of(self.run)
        charts = self.chart
        viewer = Viewer(
            self.gallery, self.store, self.audit, lambda: NOW,
            lambda run: charts.client() if self.is_ours else None, charts, self.ohif_url,
        )  # fmt: skip
        sidebar = Sidebar(
            store=self.store, audit=self.audit, clock=lambda: NOW, charts=charts, library=open_library(),
            has_viewer=True, version="0.1.0",
        )  # fmt: skip
        self.app: FastAPI = create_app(
            store=self.store, audit=self.audit, clock=lambda: NOW, access=OpenDoor(),
            allowed_hosts=("127.0.0.1",), version="0.1.0", rooms=[viewer, sidebar],
            closing=(self.archives.aclose,) if self.archives else (),
            launched=OneLaunch(a_launch(server=SERVER)),
        )  # fmt: skip

    async def get(self, path: str, **query: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        headers = {"cookie": f"{LAUNCH}={'s' * 43}", "sec-fetch-site": "same-origin"}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path, params=query or None, headers=headers)

    async def page(self, **query: Any) -> httpx.Response:
        """The page of the study's source for who signed in."""
        return await self.get(f"/runs/{self.run.run_id}/viewer/{self.number}", **query)

    async def picture(self, **query: Any) -> httpx.Response:
        """Its picture."""
        return await self.get(f"/runs/{self.run.run_id}/pictures/{self.number}", **query)

    async def page_of_launch(self, **query: Any) -> httpx.Response:
        """The page for who was launched."""
        return await self.get(
            f"/sidebar/viewer/{self.number}", visit=VISIT, run=str(self.run.run_id), **query
        )

    async def picture_of_launch(self, **query: Any) -> httpx.Response:
        """The picture for who was launched."""
        return await self.get(
            f"/sidebar/pictures/{self.number}", visit=VISIT, run=str(self.run.run_id), **query
        )


@asynccontextmanager
async def looking(pacs_url: str = "", *resources: dict[str, Any], **more: Any) -> AsyncIterator[Looking]:
    """Open the viewer on a chart with these resources."""
    opened = Looking(pacs_url, **more)
    opened.chart.put(*resources)
    try:
        yield opened
    finally:
        if opened.archives is not None:
            await opened.archives.aclose()


def grey(png: bytes) -> np.ndarray[Any, Any]:
    """The grey of the middle row."""
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    row: np.ndarray[Any, Any] = picture[picture.shape[0] // 2]
    return row


def words_of(answer: httpx.Response, wanted: Sequence[str]) -> list[str]:
    """Which of these a page does not say."""
    return [one for one in wanted if one not in answer.text]
