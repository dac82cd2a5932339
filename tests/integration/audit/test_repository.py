"""AuditEvents on real servers: appended once each, also where an answer was lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from connectors.errors import ConnectorError
from connectors.fhir.audit import AuditRepository, has_handle
from connectors.fhir.client import FhirClient
from fixtures.servers import SekmetServer
from service.audit.balp import Scene, build_event
from service.ports import Action, AuditEntry
from tests.integration.connectors.conftest import IMPATIENT
from tests.integration.connectors.cut_proxy import CutProxy
from tests.integration.connectors.fault_server import FaultServer, Reply
from tests.integration.connectors.medplum import medplum_server
from tests.integration.writeback.test_validators import Validate, validate
from tests.unit.api.sidebar.desk import Desk
from tests.unit.writeback.charts import CREATED

__all__ = ["validate"]

SERVER = "https://ehr.example.org/fhir"
SCENE = Scene("ward-7", "0.1.0")


@pytest.fixture(scope="module", params=["sekmet", "medplum"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "medplum":
        with medplum_server(folder) as url:
            yield url
        return
    with SekmetServer(folder) as server:
        yield server.base_url


def event_of(handle: str, at: datetime = CREATED, collector: str = SERVER, **more: Any) -> dict[str, Any]:
    entry = AuditEntry(
        Action.WITHDRAW, "system:t", "Patient/77", at, target="DocumentReference/7/_history/2", server=SERVER
    )
    return build_event(replace(entry, **more), handle, SCENE, collector)


async def held(base: str, handle: str) -> int:
    async with FhirClient(base) as client:
        return sum(has_handle(one, handle) for one in await client.search("AuditEvent"))


async def test_an_event_that_may_be_there_is_found_among_others_of_the_same_instant(base: str) -> None:
    async with FhirClient(base) as client:
        repository = AuditRepository(client)
        for handle in ("a" * 64, "b" * 64):
            assert await repository.append(event_of(handle), handle, may_be_there=True)
        for handle in ("a" * 64, "b" * 64):
            assert not await repository.append(event_of(handle), handle, may_be_there=True)
    assert [await held(base, handle) for handle in ("a" * 64, "b" * 64)] == [1, 1]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_answer_that_is_lost_writes_nothing_twice(base: str, when: Any) -> None:
    handle = f"{when}{len(base)}".ljust(64, "c")
    event = event_of(handle, CREATED + timedelta(days=1))
    async with CutProxy(base) as proxy, FhirClient(proxy.base_url, patience=IMPATIENT) as client:
        proxy.cut(1, when)
        with pytest.raises(ConnectorError):
            await AuditRepository(client).append(event, handle, may_be_there=False)
        proxy.heal()
        assert await AuditRepository(client).append(event, handle, may_be_there=True) is (when == "before")
    assert await held(base, handle) == 1


async def test_a_lost_answer_is_looked_up_at_once_where_the_server_lives_on(base: str) -> None:
    handle = f"live{len(base)}".ljust(64, "d")
    event = event_of(handle, CREATED + timedelta(days=2))
    async with CutProxy(base) as proxy, FhirClient(proxy.base_url, patience=IMPATIENT) as client:
        proxy.cut(1, "after", stays_dead=False)
        assert await AuditRepository(client).append(event, handle, may_be_there=False)
    assert await held(base, handle) == 1


async def test_a_collector_that_only_takes_events_needs_neither_a_place_nor_a_search() -> None:
    async with FaultServer() as server, FhirClient(server.base_url, patience=IMPATIENT) as client:
        server.on("POST", "/fhir/AuditEvent", Reply(202))
        server.on("GET", "/fhir/AuditEvent", Reply(403))
        event, handle = event_of("e" * 64), "e" * 64
        assert await AuditRepository(client).append(event, handle, may_be_there=False)
        assert await AuditRepository(client).append(event, handle, may_be_there=True)


@pytest.mark.node
@pytest.mark.shared
def test_the_event_of_every_act_passes_two_validators(validate: Validate) -> None:
    entries = [
        AuditEntry(action, actor, patient, CREATED, outcome, run_id, target, counts, server, by)
        for action in Action
        for actor, patient, outcome, run_id, target, counts, server, by in (
            ("system:cli", "Patient/77", "ok", "", "", {"resources": 3}, SERVER, ""),
            ("user:local", "Patient/77", "ok", "run-1", "DocumentReference/7/_history/2", {}, SERVER, ""),
            ("system:cli", "Patient/77", "timeout", "run-1", "", {}, SERVER, "Practitioner/roe"),
            ("system:cli", "", "stopped:all", "", "", {}, "", "Epicrisis"),
            ("system:cli", "Patient/77", "ok", "", "DocumentReference/7", {}, "", "Practitioner/roe"),
        )
    ]
    events = [
        build_event(e, "f" * 64, SCENE, c) for e in entries for c in (SERVER, "https://audit.example.org")
    ]
    done = validate(events)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = events[0] | {"action": "X"}
    assert validate([broken]).returncode == 1


@pytest.mark.node
@pytest.mark.shared
def test_the_audit_of_one_view_of_the_sidebar_passes_two_validators(validate: Validate) -> None:
    """Whoever was launched reads a chart, which BALP has a pattern for, and views what is stored."""
    desk = Desk()
    assert desk.get("/sidebar").status_code == 200
    entries = list(desk.audit.entries)
    assert {Action.READ, Action.VIEW} <= {entry.action for entry in entries}
    events = [
        build_event(entry, "f" * 64, SCENE, collector)
        for entry in entries
        for collector in (entry.server, "https://audit.example.org")
    ]
    (view,) = [one for one, entry in zip(events[::2], entries, strict=True) if entry.action is Action.VIEW]
    assert [agent["who"] for agent in view["agent"] if agent["requestor"]] == [
        {"reference": "Practitioner/7"}
    ]
    assert view["entity"][0]["what"] == {"reference": "Patient/1"}
    assert any(one["meta"]["profile"][0].endswith("PatientRead") for one in events if "meta" in one)
    done = validate(events)
    assert done.returncode == 0, done.stdout + done.stderr
