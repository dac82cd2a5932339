"""Whatever changes on a real server, a glance never calls that type unchanged; all the others it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from connectors.errors import NotFoundError
from connectors.fhir.client import FhirClient, identity
from connectors.fhir.ehr import FhirEhr, utc_now
from connectors.fhir.glance import Glance, glance_at
from connectors.fhir.patient import pull_patient
from connectors.fhir.pull import Pull
from connectors.fhir.refresh import refresh_patient
from connectors.fhir.stamp import Held
from connectors.limits import Limits
from fixtures.servers import SekmetServer
from tests.conftest import CANARY
from tests.integration.connectors.medplum import medplum_server

LAB: dict[str, Any] = {"status": "final", "code": {"text": "HbA1c"}}
INPATIENT: dict[str, Any] = {"status": "finished", "class": {"code": "IMP"}}
NO_OVERLAP = 0.0
OVERLAP = Limits().refresh_overlap_s


@pytest.fixture(scope="module", params=["sekmet", "medplum"])
def base_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "medplum":
        with medplum_server(folder) as base:
            yield base
        return
    pytest.importorskip("sekmet")
    with SekmetServer(folder) as server:
        yield server.base_url


@dataclass
class Ward:
    """One server with a patient of ours and a neighbour."""

    client: FhirClient
    http: httpx.AsyncClient
    patient: str = ""
    neighbour: str = ""

    async def admit(self) -> None:
        """Create both patients and a chart of a few types."""
        self.patient, self.neighbour = [await self._patient() for _ in range(2)]
        for _ in range(4):
            await self.create("Observation", **LAB)
        await self.create("Condition", code={"text": "hypertension"})
        await self.create("Encounter", **INPATIENT)
        await self.create("MedicationRequest", status="active", intent="order",
                          medicationCodeableConcept={"text": "metformin"})  # fmt: skip

    async def _patient(self) -> str:
        name = [{"family": CANARY}]
        return (await self.client.create({"resourceType": "Patient", "name": name})).reference.id

    async def create(self, kind: str, patient: str = "", **fields: Any) -> str:
        """Create a resource of our patient, or of another one; return its id."""
        holder = "patient" if kind == "AllergyIntolerance" else "subject"
        subject = {holder: {"reference": f"Patient/{patient or self.patient}"}}
        return (await self.client.create({"resourceType": kind, **subject, **fields})).reference.id

    async def amend(self, reference: str, **fields: Any) -> None:
        """Write the next version of a resource."""
        await self.client.update({**await self.client.read(reference), **fields})

    async def delete(self, reference: str) -> None:
        """Delete a resource."""
        answer = await self.http.delete(f"{self.client.base_url}/{reference}")
        assert answer.status_code in (200, 204)

    async def first(self, kind: str, patient: str = "") -> str:
        """Return `Type/id` of the first resource of a type."""
        found = await self.client.search(kind, (("subject", f"Patient/{patient or self.patient}"),))
        return f"{kind}/{found[0]['id']}"


@pytest.fixture(params=[NO_OVERLAP, OVERLAP], ids=["no overlap", "overlap"])
async def ward(base_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Ward]:
    limits = Limits(refresh_overlap_s=request.param)
    async with (
        FhirClient(base_url, limits=limits) as client,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        built = Ward(client, http)
        await built.admit()
        if not request.param:
            await asyncio.sleep(1.1 - datetime.now(UTC).microsecond / 1e6)
        yield built


async def _create(ward: Ward) -> None:
    await ward.create("Observation", **LAB)


async def _amend(ward: Ward) -> None:
    await ward.amend(await ward.first("Observation"), valueQuantity={"value": 7})


async def _write_the_same_again(ward: Ward) -> None:
    await ward.amend(await ward.first("Observation"), valueQuantity={"value": 8})
    await ward.amend(await ward.first("Observation"), valueQuantity={"value": 7})


async def _err(ward: Ward) -> None:
    wrong = {"coding": [{"code": "entered-in-error"}]}
    await ward.amend(await ward.first("Condition"), verificationStatus=wrong)


async def _delete(ward: Ward) -> None:
    await ward.delete(await ward.first("Observation"))


async def _delete_one_and_create_one(ward: Ward) -> None:
    await ward.delete(await ward.first("Observation"))
    await ward.create("Observation", **LAB)


async def _move_away(ward: Ward) -> None:
    elsewhere = {"reference": f"Patient/{ward.neighbour}"}
    await ward.amend(await ward.first("Observation"), subject=elsewhere)


async def _move_here(ward: Ward) -> None:
    theirs = await ward.create("Observation", ward.neighbour, **LAB)
    await ward.amend(f"Observation/{theirs}", subject={"reference": f"Patient/{ward.patient}"})


async def _create_the_first_of_a_type(ward: Ward) -> None:
    await ward.create("Procedure", status="completed", code={"text": "appendectomy"})


async def _create_the_first_of_a_vital_type(ward: Ward) -> None:
    await ward.create("AllergyIntolerance", code={"text": "penicillin"})


async def _delete_the_last_of_a_type(ward: Ward) -> None:
    await ward.delete(await ward.first("Encounter"))


async def _amend_the_patient(ward: Ward) -> None:
    await ward.amend(f"Patient/{ward.patient}", gender="female")


CHANGES: dict[Callable[[Ward], Awaitable[None]], str] = {
    _create: "Observation",
    _amend: "Observation",
    _write_the_same_again: "Observation",
    _err: "Condition",
    _delete: "Observation",
    _delete_one_and_create_one: "Observation",
    _move_away: "Observation",
    _move_here: "Observation",
    _create_the_first_of_a_type: "Procedure",
    _create_the_first_of_a_vital_type: "AllergyIntolerance",
    _delete_the_last_of_a_type: "Encounter",
    _amend_the_patient: "Patient",
}


async def _glance(ward: Ward, known: Pull) -> Glance:
    start = (known.seen_until or known.read_at) - timedelta(seconds=ward.client.limits.refresh_overlap_s)
    return await glance_at(ward.client, known, Held.of(known.resources), start.replace(microsecond=0))


async def test_whatever_changes_the_type_that_changed_is_not_called_unchanged(ward: Ward) -> None:
    known = await FhirEhr(ward.client).pull(ward.patient)
    everything = (await _glance(ward, known)).unchanged
    assert {"Patient", *CHANGES.values()} <= everything
    for change, kind in CHANGES.items():
        await change(ward)
        assert (await _glance(ward, known)).unchanged == everything - {kind}, change.__name__
        refreshed = await FhirEhr(ward.client).pull(ward.patient, known=known)
        known = await pull_patient(ward.client, ward.patient, now=utc_now)
        assert _identities(refreshed) == _identities(known), change.__name__
        assert refreshed.gaps == known.gaps, change.__name__


def _identities(pull: Pull) -> set[tuple[str, str, str]]:
    return {identity(resource) for resource in pull.resources}


async def test_an_unchanged_chart_costs_fewer_than_three_requests_for_ever(ward: Ward) -> None:
    known = await FhirEhr(ward.client).pull(ward.patient)
    for _ in range(3):
        async with FhirClient(ward.client.base_url, limits=ward.client.limits) as client:
            refreshed = await FhirEhr(client).pull(ward.patient, known=Pull.load(known.dump()))
        assert (refreshed.changed, refreshed.dropped) == (0, 0)
        assert refreshed.requests < 3
        assert (_identities(refreshed), refreshed.gaps) == (_identities(known), known.gaps)
        known = refreshed


async def test_a_refresh_with_and_without_a_glance_ends_in_the_same_record(ward: Ward) -> None:
    known = await FhirEhr(ward.client).pull(ward.patient)
    for change in (_create, _err, _move_away, _create_the_first_of_a_vital_type):
        await change(ward)
    limits = ward.client.limits
    singly = FhirClient(
        ward.client.base_url, limits=limits, amend_capabilities=lambda offered: replace(offered, batch=False)
    )
    later = datetime.now(UTC) + timedelta(seconds=1)
    async with singly:
        ordinary = await refresh_patient(singly, replace(known, capabilities=None), now=lambda: later)
    glanced = await refresh_patient(ward.client, known, now=lambda: later)
    assert ordinary is not None or glanced is None
    if ordinary is not None and glanced is not None:
        assert _identities(ordinary) == _identities(glanced)
        assert (ordinary.changed, ordinary.dropped) == (glanced.changed, glanced.dropped)
        assert glanced.requests < ordinary.requests


async def test_a_patient_that_was_deleted_is_said(ward: Ward) -> None:
    known = await FhirEhr(ward.client).pull(ward.patient)
    for kind in ("Encounter", "Condition", "MedicationRequest", *["Observation"] * 4):
        await ward.delete(await ward.first(kind))
    await ward.delete(f"Patient/{ward.patient}")
    with pytest.raises(NotFoundError):
        await FhirEhr(ward.client).pull(ward.patient, known=known)
