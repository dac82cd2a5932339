"""Admissions found on a real FHIR server: polling, a subscription, and a Bulk Data export of a cohort."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from connectors.admissions.backfill import Backfill, read_admissions
from connectors.admissions.cursor import Cursor
from connectors.admissions.encounter import Ward
from connectors.admissions.events import (
    Admitted,
    Batch,
    Cancelled,
    Deceased,
    Discharged,
    Event,
    Merged,
    Reinstated,
    Transferred,
    Updated,
)
from connectors.admissions.export import (
    ExportPace,
    Progress,
    Waiting,
    cancel_export,
    check_export,
    read_export,
    start_export,
    wait_for_export,
)
from connectors.admissions.notification import Call, HookState, Kind, receive
from connectors.admissions.polling import Pace, poll_encounters
from connectors.admissions.subscription import (
    Ensured,
    Hook,
    How,
    end_subscription,
    ensure_subscription,
    subscription_status,
)
from connectors.errors import NotFoundError
from connectors.fhir.client import FhirClient
from connectors.limits import Limits
from fixtures.servers import SekmetServer
from tests.conftest import CANARY
from tests.integration.connectors.fault_server import FaultServer, Reply, Request

ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
START = "2026-11-20T08:00:00Z"


@pytest.fixture(scope="module")
def sekmet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SekmetServer]:
    with SekmetServer(
        tmp_path_factory.mktemp("sekmet"), settings={"subscriptions": {"retries": 1}}
    ) as server:
        yield server


@asynccontextmanager
async def at(server: SekmetServer, page_size: int = 500) -> AsyncIterator[FhirClient]:
    async with FhirClient(server.base_url, limits=Limits(page_size=page_size)) as client:
        yield client


async def admit(client: FhirClient, ward: str, **more: Any) -> dict[str, Any]:
    """Store a patient and a stay on a ward that only this test uses."""
    patient = await client.create({"resourceType": "Patient", "name": [{"family": CANARY}]})
    encounter = {
        "resourceType": "Encounter",
        "status": "in-progress",
        "class": {"system": ACT, "code": "IMP"},
        "subject": {"reference": f"Patient/{patient.reference.id}"},
        "period": {"start": START},
        "location": [{"location": {"reference": ward}, "status": "active"}],
        **more,
    }
    written = await client.create(encounter)
    return {**encounter, "id": written.reference.id}


async def place(client: FhirClient, name: str) -> str:
    written = await client.create({"resourceType": "Location", "name": name})
    return f"Location/{written.reference.id}"


class Poller:
    """Polls as a worker does: the cursor goes through its bytes each time."""

    def __init__(self, client: FhirClient, ward: Ward) -> None:
        self.client, self.ward, self.cursor = client, ward, Cursor()

    async def poll(self, pace: Pace | None = None, ahead_s: float = 0.0) -> Batch[Cursor]:
        now = datetime.now(UTC) + timedelta(seconds=ahead_s)
        batch = await poll_encounters(self.client, self.ward, self.cursor, now=now, pace=pace)
        self.cursor = Cursor.load(batch.cursor.dump())
        return batch


def kinds(events: tuple[Event, ...]) -> list[str]:
    return sorted(type(event).__name__ for event in events)


async def test_a_stay_from_admission_over_transfer_and_discharge_to_a_discharge_taken_back(
    sekmet: SekmetServer,
) -> None:
    async with at(sekmet) as client:
        ward, other = await place(client, "A"), await place(client, "B")
        poller = Poller(client, Ward(locations=(ward, other)))
        assert (await poller.poll()).events == ()
        stay = await admit(client, ward)
        (admitted,) = (await poller.poll()).events
        assert type(admitted) is Admitted
        assert admitted.visit.reference == f"Encounter/{stay['id']}"
        assert admitted.patient.reference == stay["subject"]["reference"]
        assert (admitted.encounter_class, admitted.location) == ("IMP", ward)
        assert admitted.at == datetime(2026, 11, 20, 8, tzinfo=UTC)
        assert (await poller.poll()).events == ()

        past = {"location": {"reference": ward}, "status": "completed"}
        here = {"location": {"reference": other}, "status": "active"}
        await client.update({**stay, "location": [past, here]})
        (moved,) = (await poller.poll()).events
        assert isinstance(moved, Transferred)
        assert (moved.from_location, moved.location, moved.leaves) == (ward, other, False)

        await client.update(
            {**stay, "status": "finished", "period": {"start": START, "end": "2026-11-23T09:00:00Z"}}
        )
        (discharged,) = (await poller.poll()).events
        assert type(discharged) is Discharged
        assert discharged.at == datetime(2026, 11, 23, 9, tzinfo=UTC)
        await client.update(stay)
        assert [type(event) for event in (await poller.poll()).events] == [Reinstated]
        assert (await poller.poll()).events == ()


async def test_cancelled_dead_deleted_merged_and_moved_away(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        ward = await place(client, "C")
        stays = [await admit(client, ward) for _ in range(6)]
        poller = Poller(client, Ward(locations=(ward,)))
        assert kinds((await poller.poll()).events) == ["Admitted"] * 6
        await client.update({**stays[0], "status": "entered-in-error"})
        exp = {
            "coding": [
                {"system": "http://terminology.hl7.org/CodeSystem/discharge-disposition", "code": "exp"}
            ]
        }
        await client.update(
            {**stays[1], "status": "finished", "hospitalization": {"dischargeDisposition": exp}}
        )
        async with httpx.AsyncClient(trust_env=False) as plain:
            assert (await plain.delete(f"{sekmet.base_url}/Encounter/{stays[2]['id']}")).status_code < 300
        await client.update({**stays[3], "subject": stays[4]["subject"]})
        await client.update({**stays[5], "location": [{"location": {"reference": await place(client, "D")}}]})
        changes = await poller.poll()
        by_visit = {event.visit.reference.partition("/")[2]: event for event in changes.events}
        assert type(by_visit[stays[0]["id"]]) is Cancelled
        assert type(by_visit[stays[1]["id"]]) is Deceased
        merged = by_visit[stays[3]["id"]]
        assert isinstance(merged, Merged)
        assert merged.patient.reference == stays[4]["subject"]["reference"]
        assert merged.retired.reference == stays[3]["subject"]["reference"]
        moved = by_visit[stays[5]["id"]]
        assert isinstance(moved, Transferred)
        assert moved.leaves
        assert len(changes.events) == 4

        (gone,) = (await poller.poll(ahead_s=25 * 3600)).events
        assert (type(gone), gone.visit.reference) == (Cancelled, f"Encounter/{stays[2]['id']}")


async def test_many_pages_bring_every_stay_once_and_changes_only_what_changed(sekmet: SekmetServer) -> None:
    async with at(sekmet, page_size=4) as client:
        ward = await place(client, "E")
        stays = [await admit(client, ward) for _ in range(13)]
        poller = Poller(client, Ward(locations=(ward,)))
        first = await poller.poll()
        assert first.is_complete
        assert kinds(first.events) == ["Admitted"] * 13
        assert {e.visit.reference for e in first.events} == {f"Encounter/{stay['id']}" for stay in stays}
        await client.update({**stays[7], "priority": {"text": "urgent"}})
        (updated,) = (await poller.poll()).events
        assert (type(updated), updated.visit.reference) == (Updated, f"Encounter/{stays[7]['id']}")


async def test_a_filter_the_server_does_not_know_is_applied_here_and_named(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        ward = await place(client, "F")
        await admit(client, ward, serviceType={"coding": [{"code": "card"}]})
        await admit(client, ward, serviceType={"coding": [{"code": "onco"}]})
        batch = await Poller(client, Ward(locations=(ward,), services=("card",))).poll()
        assert kinds(batch.events) == ["Admitted"]


HOOK_SECRET = "s3cret-" * 6


async def _notifications(hooks: FaultServer, count: int) -> list[Request]:
    await until(lambda: len(hooks.requests) >= count)
    return hooks.requests


async def until(is_so: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for what another process does."""
    async with asyncio.timeout(30):
        for _ in itertools.count():
            answer = is_so()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.02)


async def _has_status(client: FhirClient, made: Ensured, status: str) -> bool:
    return await subscription_status(client, str(made.reference)) == status


async def test_a_notification_comes_with_the_secret_and_missed_ones_are_found_by_polling(
    sekmet: SekmetServer, server: FaultServer
) -> None:
    server.on("POST", "/hook", Reply(200))
    hook = Hook(f"{server.root_url}/hook", HOOK_SECRET, filters="Encounter?status=in-progress,finished")
    async with at(sekmet) as client:
        ward = await place(client, "G")
        poller = Poller(client, Ward(locations=(ward,)))
        await poller.poll()
        made = await ensure_subscription(client, hook)
        assert made.how is How.CREATED
        again = await ensure_subscription(client, hook)
        assert (again.how, again.reference.id) == (How.ADOPTED, made.reference.id)
        await until(lambda: _has_status(client, made, "active"))
        await admit(client, ward)
        (request, *_) = await _notifications(server, 1)
        call = receive(request.headers.items(), request.body, hook, HookState(), datetime.now(UTC))
        assert (call.status, call.kind, call.poll) == (200, Kind.EVENT, True)
        assert kinds((await poller.poll()).events) == ["Admitted"]

        server.on("POST", "/hook", Reply(500))
        for _ in range(10):
            await admit(client, ward)
        await until(lambda: _has_status(client, made, "error"))
        assert kinds((await poller.poll()).events) == ["Admitted"] * 10
        server.on("POST", "/hook", Reply(200))
        renewed = await ensure_subscription(client, hook)
        assert (renewed.how, renewed.status, renewed.reference.id) == (
            How.RENEWED,
            "error",
            made.reference.id,
        )


async def test_a_topic_subscription_shakes_hands_beats_and_counts(
    sekmet: SekmetServer, server: FaultServer
) -> None:
    server.on("POST", "/hook", Reply(200))
    topic = "http://sekmet.dev/fhir/SubscriptionTopic/encounter-start"
    hook = Hook(f"{server.root_url}/hook", HOOK_SECRET, filters="", topic=topic, heartbeat_s=1)
    async with at(sekmet) as client:
        ward = await place(client, "H")
        made = await ensure_subscription(client, hook)
        (handshake, *_) = await _notifications(server, 1)
        call = receive(handshake.headers.items(), handshake.body, hook, HookState(), datetime.now(UTC))
        assert (call.status, call.kind) == (200, Kind.HANDSHAKE)
        stay = await admit(client, ward)
        base = sekmet.base_url
        calls: list[Call] = []

        def has_heard_all() -> bool:
            state, calls[:] = HookState(), []
            for request in list(server.requests):
                call = receive(request.headers.items(), request.body, hook, state, datetime.now(UTC), base)
                state = call.state
                calls.append(call)
            return {Kind.EVENT, Kind.HEARTBEAT} <= {call.kind for call in calls}

        await until(has_heard_all)
        assert all(call.status == 200 and not call.missed for call in calls)
        event = next(call for call in calls if call.kind is Kind.EVENT)
        assert (event.poll, event.focus, event.state.events) == (True, (f"Encounter/{stay['id']}",), 1)
        beat = next(call for call in calls if call.kind is Kind.HEARTBEAT)
        assert not beat.poll
        await end_subscription(client, str(made.reference))
        assert await subscription_status(client, str(made.reference)) == "off"
        assert await subscription_status(client, "Subscription/none") == "gone"


async def _cohort(client: FhirClient, size: int) -> tuple[str, str]:
    ward = await place(client, "cohort")
    stays = [await admit(client, ward) for _ in range(size)]
    members = [{"entity": {"reference": stay["subject"]["reference"]}} for stay in stays]
    group = {"resourceType": "Group", "type": "person", "actual": True, "member": members}
    written = await client.create(group)
    return f"Group/{written.reference.id}", ward


async def test_a_cohort_is_exported_and_polling_goes_on_from_there(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        group, ward = await _cohort(client, 9)
        export = await start_export(client, group, types=("Encounter",))
        manifest = await wait_for_export(client, export, ExportPace(min_poll_s=0.05, max_poll_s=0.1))
        assert [(file.resource_type, file.count) for file in manifest.files] == [("Encounter", 9)]
        start = Backfill(Progress(), Cursor())
        batches = [
            batch
            async for batch in read_admissions(
                client, manifest, Ward(locations=(ward,)), start, now=datetime.now(UTC)
            )
        ]
        assert kinds(tuple(event for batch in batches for event in batch.events)) == ["Admitted"] * 9
        assert batches[-1].is_complete
        poller = Poller(client, Ward(locations=(ward,)))
        poller.cursor = batches[-1].cursor.cursor
        assert (await poller.poll()).events == ()
        await admit(client, ward)
        assert kinds((await poller.poll()).events) == ["Admitted"]
        assert await cancel_export(client, export)
        assert not await cancel_export(client, export)
        with pytest.raises(NotFoundError):
            await check_export(client, export)


async def test_an_export_that_was_read_in_part_goes_on_behind_its_last_line(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        group, _ = await _cohort(client, 6)
        export = await start_export(client, group, types=("Encounter", "Patient"))
        manifest = await wait_for_export(client, export, ExportPace(min_poll_s=0.05, max_poll_s=0.1))
        progress, odd, ids = Progress(), Counter[str](), list[str]()
        for _ in range(100):
            taken = 0
            async for line in read_export(client, type(manifest).load(manifest.dump()), progress, odd):
                if line.resource is not None:
                    ids.append(f"{line.resource['resourceType']}/{line.resource['id']}")
                progress = Progress.load(line.progress.dump())
                taken += 1
                if taken == 4:
                    break
            if not taken:
                break
        assert (len(ids), len(set(ids)), +odd) == (12, 12, Counter())
        assert len(progress.done) == 2


async def test_an_export_that_is_not_ready_says_when_to_ask_again(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        group, _ = await _cohort(client, 1)
        export = await start_export(client, group)
        state = await check_export(client, export)
        assert isinstance(state, Waiting)
        assert state.pause_s == 1.0
        assert sekmet.base_url not in repr(export)
