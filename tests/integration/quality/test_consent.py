"""Whose text is not handed out for training: who said no, and whoever of whom that cannot be read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from connectors.admissions.consents import PreferenceRules
from connectors.admissions.sitelist import SiteList
from connectors.fhir.client import FhirClient
from service.quality.consent import find_refusals
from tests.integration.connectors.fault_server import FaultServer, Reply
from tests.integration.connectors.test_admissions_preferences import (
    ANN,
    NOTHING,
    bundle,
    consent,
    ref,
    statement,
)

NOW = datetime(2026, 11, 28, 9, tzinfo=UTC)
PEOPLE = ("Patient/ann", "Patient/bea")


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer() as up:
        up.on("GET", "/fhir/metadata", statement("Patient", "Consent"))
        up.on("GET", "/fhir/Patient", Reply(json=bundle(ANN)))
        up.on("GET", "/fhir/Patient/bea", Reply(404))
        yield up


async def refusals(server: FaultServer, listed: SiteList | None = SiteList()) -> dict[str, str]:  # noqa: B008
    async with FhirClient(server.base_url) as client:
        return dict(await find_refusals(client, PreferenceRules(), listed, PEOPLE, NOW))


async def test_who_said_nothing_is_not_left_out_and_who_cannot_be_read_is(server: FaultServer) -> None:
    server.on("GET", "/fhir/Consent", NOTHING)
    assert await refusals(server) == {"Patient/bea": "not_readable"}


async def test_a_consent_that_refuses_is_a_no(server: FaultServer) -> None:
    server.on("GET", "/fhir/Consent", Reply(json=bundle({**consent(ref(ANN)), "id": "1"})))
    assert (await refusals(server))["Patient/ann"] == "opted_out_by_consent"


@pytest.mark.parametrize("reply", [Reply(403), Reply(500), Reply(body=b"<html>")])
async def test_where_wishes_cannot_be_read_everybody_is_left_out(server: FaultServer, reply: Reply) -> None:
    server.on("GET", "/fhir/Consent", reply)
    server.on("POST", "/fhir", reply)
    found = await refusals(server)
    assert found == {"Patient/ann": "preferences_unknown", "Patient/bea": "not_readable"}


async def test_a_list_that_cannot_be_read_or_names_everyone_leaves_everybody_out(server: FaultServer) -> None:
    assert await refusals(server, None) == dict.fromkeys(PEOPLE, "list_unreadable")
    assert await refusals(server, SiteList(is_everyone=True)) == dict.fromkeys(PEOPLE, "switched_off")
    assert server.requests == []
