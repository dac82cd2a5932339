"""The hospital that sweeps are tried on: two hundred open stays on a real server, and tiny ones by number."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.fhir.client import FhirClient
from connectors.fhir.patient import pull_patient
from fixtures.inpatients import (
    ADMITTED_ON,
    SIZE,
    WARDS,
    Hospital,
    fill,
    make_inpatients,
    new_allergy,
    new_result,
    tiny_chart,
    tiny_charts,
)
from fixtures.servers import SekmetServer
from service.engine.copying import answer_by_copying
from service.engine.scripted import ScriptedEngine
from service.grounding.summary import Origin
from service.record.assemble import assemble_record
from tests.contract.context.published import publish


@pytest.fixture(scope="module")
def hospital() -> Hospital:
    return make_inpatients()


@pytest.fixture
def server(hospital: Hospital, tmp_path: Path) -> Any:
    hospital.copy_to(tmp_path)
    with SekmetServer(tmp_path) as running:
        yield running


def total(base_url: str, query: str) -> int:
    with httpx.Client(trust_env=False) as client:
        return int(client.get(f"{base_url}/{query}&_summary=count").json()["total"])


def test_two_hundred_patients_are_in_the_wards_and_none_twice(
    hospital: Hospital, server: SekmetServer
) -> None:
    assert len(hospital.stays) == SIZE
    assert len({stay.patient for stay in hospital.stays}) == SIZE
    open_stays = "Encounter?status=in-progress&class=IMP"
    assert total(server.base_url, open_stays) == SIZE
    in_wards = [total(server.base_url, f"{open_stays}&location=Location/ward-{n + 1}") for n in range(WARDS)]
    assert in_wards == [SIZE // WARDS] * WARDS


async def test_a_chart_reads_as_a_stay_that_goes_on_and_leads_to_claims_of_the_model_s(
    hospital: Hospital, server: SekmetServer
) -> None:
    for stay in hospital.stays[:: SIZE // 4]:
        async with FhirClient(server.base_url) as client:
            pull = await pull_patient(client, stay.patient, now=lambda: datetime.now(UTC))
        resources = list(pull.resources)
        (one,) = (r for r in resources if f"Encounter/{r.get('id')}" == stay.encounter)
        assert one["status"] == "in-progress"
        assert "end" not in one["period"]
        assert one["period"]["start"] >= ADMITTED_ON.isoformat()
        assert 30 < len(resources) < 200
        record = assemble_record(resources, stay.patient.removeprefix("Patient/"))
        assert record.as_of is not None
        assert record.as_of.latest.date() >= ADMITTED_ON
        made = await publish(resources, ScriptedEngine(answer_by_copying))
        assert sum(claim.origin is Origin.MODEL for claim in made.summary.published) >= 10


def test_what_is_new_in_a_chart_can_be_posted(hospital: Hospital, server: SekmetServer) -> None:
    stay = hospital.stays[0]
    with httpx.Client(trust_env=False) as client:
        for new in (new_result(stay, 128, ADMITTED_ON), new_allergy(stay, "Latex")):
            answer = client.post(f"{server.base_url}/{new['resourceType']}", json=new)
            assert answer.status_code == 201
    assert total(server.base_url, f"AllergyIntolerance?patient={stay.patient}") == 1


def test_tiny_charts_are_the_same_by_number_and_fill_a_server(tmp_path: Path) -> None:
    assert tiny_chart(7) == tiny_chart(7) != tiny_chart(8)
    stays = fill(tmp_path, tiny_charts(20, first=100))
    assert stays[3].patient == "Patient/tiny-103"
    with SekmetServer(tmp_path) as server:
        assert total(server.base_url, "Encounter?status=in-progress&class=IMP") == 20
        assert total(server.base_url, f"Observation?patient={stays[3].patient}") == 1
        assert total(server.base_url, f"Encounter?location={stays[3].ward}") >= 1
