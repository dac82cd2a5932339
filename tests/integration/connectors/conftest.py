"""A failing server, a client that does not wait, and a watch over everything that is logged."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from connectors.fhir.client import FhirClient
from connectors.http import Patience
from connectors.limits import Limits
from tests.conftest import CANARY
from tests.integration.connectors.fault_server import FaultServer


async def no_sleep(_seconds: float) -> None:
    return None


IMPATIENT = Patience(sleep=no_sleep)
SHORT = Limits(connect_s=1.0, read_s=0.3, total_s=2.0, max_bytes=200_000, page_size=10)


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer() as running:
        yield running


@pytest.fixture
async def client(server: FaultServer) -> AsyncIterator[FhirClient]:
    async with FhirClient(server.base_url, limits=SHORT, patience=IMPATIENT) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _nothing_of_the_patient_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    for record in caplog.get_records("call"):
        text = record.getMessage()
        assert CANARY not in text
        assert "p1" not in text or record.name.startswith("asyncio"), text
