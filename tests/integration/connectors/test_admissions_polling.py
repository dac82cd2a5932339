"""Polling while the ward changes: nothing lost, nothing twice, whatever pages and filters do."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connectors.admissions.cursor import Cursor
from connectors.admissions.encounter import Ward
from connectors.admissions.events import Admitted, Batch, Cancelled, Discharged, Event, Updated
from connectors.admissions.polling import Pace, poll_encounters
from connectors.errors import ConnectorError, RequestRejected
from connectors.fhir.client import FhirClient
from connectors.limits import Limits
from tests.conftest import CANARY
from tests.integration.connectors.conftest import IMPATIENT
from tests.integration.connectors.fault_server import Answer, FaultServer, Reply, Request

BEGIN = datetime(2026, 11, 24, 8, tzinfo=UTC)
WARD = Ward(classes=("IMP",))


@dataclass
class Hospital:
    """Encounters behind a search by pages that are cut by offset, newest first, as many servers do."""

    now: datetime = BEGIN
    encounters: dict[str, dict[str, Any]] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    totals: bool = True
    versions: bool = True
    precision: str = "microseconds"
    before_page: Callable[[int], None] = lambda number: None
    """Called before each page after a search's first, with its number."""
    outcome: dict[str, Any] | None = None

    def put(self, name: str, status: str = "in-progress", code: str = "IMP", **more: Any) -> None:
        """Write an encounter at the present instant."""
        before = self.encounters.get(name, {}).get("meta", {})
        version = int(before.get("versionId") or before.get("hidden") or 0) + 1
        instant = self.now.isoformat(timespec=self.precision).replace("+00:00", "Z")
        meta = {"lastUpdated": instant, "versionId" if self.versions else "hidden": str(version)}
        self.encounters[name] = {
            "resourceType": "Encounter", "id": name, "meta": meta, "status": status, "class": {"code": code},
            "subject": {"reference": f"Patient/of-{name}", "display": CANARY}, **more,
        }  # fmt: skip

    def tick(self, seconds: float = 1.0) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def answer(self, request: Request) -> Answer:
        query = dict(request.query)
        wrong = self.refused & query.keys()
        if wrong:
            return Reply(400, json={"resourceType": "OperationOutcome", "issue": [{"code": "not-supported"}]})
        offset, count = int(query.get("_offset", "0")), int(query.get("_count", "10"))
        if offset:
            self.before_page(offset // count + 1)
        found = [one for one in self.encounters.values() if self._matches(one, query)]
        found.sort(key=lambda one: (str(one["meta"]["lastUpdated"]), str(one["id"])), reverse=True)
        links = []
        if offset + count < len(found):
            kept = "&".join(f"{k}={v}" for k, v in request.query if k != "_offset")
            url = f"http://{request.headers['host']}/fhir/Encounter?{kept}&_offset={offset + count}"
            links.append({"relation": "next", "url": url})
        entries = [{"resource": one} for one in found[offset : offset + count]]
        if self.outcome:
            entries.append({"resource": self.outcome})
        total = {"total": len(found)} if self.totals else {}
        return Reply(
            json={"resourceType": "Bundle", "type": "searchset", "link": links, "entry": entries, **total}
        )

    def read(self, name: str) -> Callable[[Request], Answer]:
        def answer(_request: Request) -> Answer:
            found = self.encounters.get(name)
            return Reply(json=found) if found else Reply(404, json={"resourceType": "OperationOutcome"})

        return answer

    def _matches(self, encounter: dict[str, Any], query: dict[str, str]) -> bool:
        values = {"status": encounter["status"], "class": encounter["class"]["code"]}
        for name, value in values.items():
            if name in query and name not in self.ignored and value not in query[name].split(","):
                return False
        since = query.get("_lastUpdated", "")
        if not since or "_lastUpdated" in self.ignored:
            return True
        return datetime.fromisoformat(encounter["meta"]["lastUpdated"]) >= datetime.fromisoformat(since[2:])


@pytest.fixture
def hospital(server: FaultServer) -> Hospital:
    made = Hospital()
    server.on("GET", "/fhir/Encounter", made.answer)
    return made


@pytest.fixture
async def small(server: FaultServer) -> AsyncIterator[FhirClient]:
    """A client that asks for three at a time."""
    async with FhirClient(
        server.base_url, limits=Limits(page_size=3, max_pages=40), patience=IMPATIENT
    ) as made:
        yield made


@dataclass
class Night:
    """Polls with a cursor that goes through its bytes, and keeps all events."""

    client: FhirClient
    hospital: Hospital
    ward: Ward = WARD
    cursor: Cursor = field(default_factory=Cursor)
    events: list[Event] = field(default_factory=list)

    async def poll(self, ahead: timedelta = timedelta(0), pace: Pace | None = None) -> Batch[Cursor]:
        now = self.hospital.now + ahead
        batch = await poll_encounters(self.client, self.ward, self.cursor, now=now, pace=pace)
        self.cursor = Cursor.load(batch.cursor.dump())
        self.events += batch.events
        return batch

    def of(self, kind: type[Event]) -> list[str]:
        return sorted(e.visit.reference.partition("/")[2] for e in self.events if type(e) is kind)


@pytest.fixture
def night(small: FhirClient, hospital: Hospital) -> Night:
    return Night(small, hospital)


async def test_one_who_is_admitted_while_pages_are_read_pushes_nobody_out(night: Night) -> None:
    hospital = night.hospital
    for number in range(8):
        hospital.put(f"e{number}")
        hospital.tick()

    def admit_once(number: int) -> None:
        if number == 2 and "late" not in hospital.encounters:
            hospital.tick()
            hospital.put("late")

    hospital.before_page = admit_once
    batch = await night.poll()
    assert batch.is_complete
    assert night.of(Admitted) == sorted([*(f"e{n}" for n in range(8)), "late"])


@pytest.mark.parametrize("totals", [True, False])
async def test_one_who_leaves_the_search_while_pages_are_read_hides_nobody(
    night: Night, totals: bool
) -> None:
    hospital = night.hospital
    hospital.totals = totals
    for number in range(8):
        hospital.put(f"e{number}")
        hospital.tick(3_600)

    def discharge_once(number: int) -> None:
        if number == 2 and hospital.encounters["e7"]["status"] == "in-progress":
            hospital.tick()
            hospital.put("e7", status="finished")

    hospital.before_page = discharge_once
    assert (await night.poll()).is_complete
    assert night.of(Admitted) == [f"e{n}" for n in range(8)]
    assert night.of(Discharged) == ["e7"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("totals", [True, False])
async def test_a_busy_ward_loses_and_doubles_nobody(night: Night, seed: int, totals: bool) -> None:
    """Whatever changes between any two pages: at rest, every stay was admitted once, and every end told."""
    dice, hospital = random.Random(seed), night.hospital
    hospital.totals = totals
    hospital.precision = dice.choice(["seconds", "microseconds"])
    names = [f"e{number}" for number in range(9)]
    for name in names:
        hospital.put(name)
        hospital.tick(dice.choice([0.0, 0.3]))
    began = set(names)

    def disturb(_number: int) -> None:
        if dice.random() < 0.5:
            hospital.tick(dice.choice([0.0, 0.4]))
            if dice.random() < 0.3:
                began.add(f"new{len(began)}")
                hospital.put(f"new{len(began) - 1}")
            else:
                name = dice.choice(sorted(began))
                ended = hospital.encounters[name]["status"] == "finished"
                hospital.put(name, status="finished" if ended or dice.random() < 0.4 else "in-progress")

    hospital.before_page = disturb
    for _ in range(6):
        hospital.tick(30)
        await night.poll()
    hospital.before_page = lambda number: None
    for _ in range(2):
        hospital.tick(30)
        assert (await night.poll()).is_complete
    ended = {name for name in began if hospital.encounters[name]["status"] == "finished"}
    admitted = night.of(Admitted)
    assert len(admitted) == len(set(admitted))
    assert set(admitted) >= began - ended
    assert night.of(Discharged) == sorted(ended & set(admitted))
    assert len({event.key for event in night.events}) == len(night.events)
    assert (await night.poll()).events == ()


async def test_changes_at_the_very_same_instant_are_all_found_once(night: Night) -> None:
    hospital = night.hospital
    hospital.precision = "seconds"
    hospital.put("e1")
    await night.poll()
    hospital.put("e2")
    hospital.put("e3")
    hospital.put("e1", priority={"text": "urgent"})
    await night.poll()
    hospital.put("e1", status="finished")
    await night.poll()
    await night.poll()
    assert (night.of(Admitted), night.of(Updated), night.of(Discharged)) == (
        ["e1", "e2", "e3"],
        ["e1"],
        ["e1"],
    )


async def test_a_change_that_was_committed_late_is_found_within_the_overlap(night: Night) -> None:
    hospital = night.hospital
    hospital.put("e1")
    hospital.tick(200)
    hospital.put("e2")
    await night.poll()
    hospital.now -= timedelta(seconds=150)
    hospital.put("late")
    hospital.tick(200)
    await night.poll()
    assert night.of(Admitted) == ["e1", "e2", "late"]


async def test_a_server_without_versions_is_told_apart_by_content(night: Night) -> None:
    hospital = night.hospital
    hospital.versions = False
    hospital.precision = "seconds"
    hospital.put("e1")
    await night.poll()
    await night.poll()
    hospital.put("e1", status="finished")
    await night.poll()
    await night.poll()
    assert [type(event) for event in night.events] == [Admitted, Discharged]


async def test_an_older_answer_undoes_nothing(night: Night) -> None:
    hospital = night.hospital
    hospital.put("e1")
    old = hospital.encounters["e1"]
    await night.poll()
    hospital.tick()
    hospital.put("e1", status="finished")
    await night.poll()
    hospital.encounters["e1"] = old
    assert (await night.poll(timedelta(days=2))).events == ()


async def test_a_discharge_is_heard_though_the_filter_by_status_hides_it(night: Night) -> None:
    night.hospital.put("e1")
    await night.poll()
    night.hospital.tick()
    night.hospital.put("e1", status="finished")
    assert [type(event) for event in (await night.poll()).events] == [Discharged]


async def test_a_deleted_stay_is_cancelled_by_the_next_whole_look(night: Night) -> None:
    night.hospital.put("e1")
    night.hospital.put("e2")
    await night.poll()
    del night.hospital.encounters["e1"]
    assert (await night.poll()).events == ()
    (gone,) = (await night.poll(timedelta(days=2))).events
    assert (type(gone), gone.visit.reference) == (Cancelled, "Encounter/e1")
    assert (await night.poll(timedelta(days=4))).events == ()


async def test_a_ward_that_vanishes_at_once_is_not_believed(night: Night) -> None:
    for number in range(8):
        night.hospital.put(f"e{number}")
    await night.poll()
    hidden, night.hospital.encounters = night.hospital.encounters, {}
    batch = await night.poll(timedelta(days=2))
    assert (batch.events, batch.is_complete, batch.odd["too_many_unfound"]) == ((), False, 8)
    night.hospital.encounters = hidden
    again = await night.poll(timedelta(days=2))
    assert (again.events, again.is_complete) == ((), True)


async def test_a_clock_of_ours_that_jumps_back_costs_one_whole_look_and_no_event(night: Night) -> None:
    night.hospital.put("e1")
    await night.poll()
    night.hospital.tick()
    night.hospital.put("e1", status="finished")
    night.hospital.put("e2")
    await night.poll(timedelta(hours=-5))
    await night.poll()
    assert (night.of(Admitted), night.of(Discharged)) == (["e1", "e2"], ["e1"])


async def test_a_clock_of_ours_that_jumped_back_does_not_put_off_the_next_whole_look(night: Night) -> None:
    night.hospital.put("e1")
    await night.poll(timedelta(days=10))
    del night.hospital.encounters["e1"]
    await night.poll()
    assert night.of(Cancelled) == ["e1"]


async def test_a_clock_of_ours_that_is_ahead_hides_no_change(night: Night) -> None:
    night.hospital.put("e1")
    await night.poll(timedelta(hours=2))
    night.hospital.tick()
    night.hospital.put("e2")
    await night.poll(timedelta(hours=2))
    assert night.of(Admitted) == ["e1", "e2"]


async def test_a_record_from_the_future_hides_nothing(night: Night) -> None:
    hospital = night.hospital
    hospital.put("e1")
    now, hospital.now = hospital.now, datetime(2035, 1, 1, tzinfo=UTC)
    hospital.put("e2")
    hospital.now = now
    first = await night.poll()
    hospital.tick()
    hospital.put("e3")
    await night.poll()
    assert first.odd["updated_in_the_future"] == 1
    assert night.of(Admitted) == ["e1", "e2", "e3"]


@pytest.mark.parametrize("how", ["refused", "ignored"])
async def test_filters_the_server_does_not_honour_are_applied_here(night: Night, how: str) -> None:
    setattr(night.hospital, how, frozenset({"class"}))
    night.hospital.put("e1")
    night.hospital.put("e2", code="AMB")
    night.hospital.put("e3", status="planned")
    batch = await night.poll()
    assert night.of(Admitted) == ["e1"]
    assert ("filter_applied_here:class" in batch.odd) == (how == "refused")


async def test_without_last_updated_every_look_is_whole_and_ends_are_looked_up(
    night: Night, server: FaultServer
) -> None:
    hospital = night.hospital
    hospital.ignored = frozenset({"_lastUpdated"})
    for number in range(5):
        hospital.put(f"e{number}")
        server.on("GET", f"/fhir/Encounter/e{number}", hospital.read(f"e{number}"))
    await night.poll()
    hospital.tick()
    hospital.put("e0", status="finished")
    hospital.put("e9")
    del hospital.encounters["e1"]
    await night.poll()
    await night.poll()
    assert night.of(Admitted) == ["e0", "e1", "e2", "e3", "e4", "e9"]
    assert (night.of(Discharged), night.of(Cancelled)) == (["e0"], ["e1"])


async def test_pages_that_never_end_stop_and_the_cursor_does_not_move(
    night: Night, server: FaultServer
) -> None:
    def endless(request: Request) -> Answer:
        if dict(request.query).get("_lastUpdated", "").startswith("ge2999"):
            return Reply(json={"resourceType": "Bundle", "type": "searchset"})
        number = int(dict(request.query).get("_offset", "0"))
        encounter = {
            "resourceType": "Encounter",
            "id": f"e{number}",
            "status": "in-progress",
            "class": {"code": "IMP"},
            "subject": {"reference": "Patient/x"},
            "meta": {"versionId": "1", "lastUpdated": BEGIN.isoformat()},
        }
        link = {"relation": "next", "url": f"{server.base_url}/Encounter?_offset={number + 1}"}
        return Reply(json={"resourceType": "Bundle", "link": [link], "entry": [{"resource": encounter}]})

    server.on("GET", "/fhir/Encounter", endless)
    first = await night.poll()
    assert (first.is_complete, first.odd["failed:paging_loop"], len(first.events)) == (False, 1, 40)
    assert first.cursor.since is None
    again = await night.poll()
    assert again.events == ()


async def test_a_page_that_links_to_itself_stops(night: Night, server: FaultServer) -> None:
    def loop(request: Request) -> Answer:
        if "_lastUpdated" in dict(request.query):
            return Reply(json={"resourceType": "Bundle"})
        link = {"relation": "next", "url": f"{server.base_url}/Encounter?page=2"}
        return Reply(json={"resourceType": "Bundle", "link": [link]})

    server.on("GET", "/fhir/Encounter", loop)
    batch = await night.poll()
    assert (batch.is_complete, batch.odd["failed:paging_loop"]) == (False, 1)


async def test_results_that_the_server_leaves_out_end_no_stay(night: Night) -> None:
    night.hospital.put("e1")
    await night.poll()
    hidden, night.hospital.encounters = night.hospital.encounters, {}
    night.hospital.outcome = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "warning", "code": "suppressed", "diagnostics": CANARY}],
    }
    batch = await night.poll(timedelta(days=2))
    assert (batch.events, batch.is_complete, batch.odd) == ((), False, {"server_left_results_out": 1})
    assert hidden


async def test_a_page_that_was_cut_without_a_link_is_noticed(night: Night, server: FaultServer) -> None:
    night.hospital.put("e1")

    def cut(request: Request) -> Answer:
        reply = night.hospital.answer(request)
        assert isinstance(reply, Reply)
        return Reply(json={**reply.json, "total": 7 if reply.json["entry"] else 0})

    server.on("GET", "/fhir/Encounter", cut)
    batch = await night.poll()
    assert (batch.is_complete, batch.odd["page_cut_off"], batch.cursor.since) == (False, 1, None)
    assert night.of(Admitted) == ["e1"]


async def test_odd_records_are_counted_and_the_others_found(night: Night) -> None:
    hospital = night.hospital
    hospital.put("e1")
    hospital.put("e2", status="unknown")
    hospital.put("e3")
    hospital.encounters["e3"]["subject"] = {"reference": "Group/1"}
    hospital.put("e4")
    del hospital.encounters["e4"]["meta"]["lastUpdated"]
    hospital.encounters["e4"]["meta"]["lastUpdated"] = "nonsense"
    hospital.ignored = frozenset({"status", "_lastUpdated"})
    batch = await night.poll()
    assert night.of(Admitted) == ["e1", "e4"]
    assert batch.odd == {"unknown_status": 1, "without_patient": 1, "without_last_updated": 1}
    assert batch.seen == 4


async def test_a_server_that_refuses_every_search_is_an_error(night: Night, server: FaultServer) -> None:
    server.on("GET", "/fhir/Encounter", Reply(400, json={"resourceType": "OperationOutcome"}))
    with pytest.raises(RequestRejected):
        await night.poll()


async def test_a_failure_in_the_middle_keeps_what_came_and_asks_again(
    night: Night, server: FaultServer
) -> None:
    hospital = night.hospital
    for number in range(7):
        hospital.put(f"e{number}")
        hospital.tick()

    def broken(request: Request) -> Answer:
        return Reply(500) if "_offset" in dict(request.query) else hospital.answer(request)

    server.on("GET", "/fhir/Encounter", broken)
    batch = await night.poll()
    assert (batch.is_complete, batch.odd["failed:server_failed"], len(batch.events)) == (False, 1, 3)
    server.on("GET", "/fhir/Encounter", hospital.answer)
    assert (await night.poll()).is_complete
    assert night.of(Admitted) == [f"e{n}" for n in range(7)]


async def test_errors_and_batches_tell_nothing_of_a_patient(night: Night, server: FaultServer) -> None:
    night.hospital.put("e1", location=[{"location": {"reference": f"Location/{CANARY}"}}])
    batch = await night.poll()
    assert CANARY not in repr(batch)
    assert "of-e1" not in repr(batch)
    server.on("GET", "/fhir/Encounter", Reply(403, json={"issue": [{"diagnostics": CANARY}]}))
    with pytest.raises(ConnectorError) as raised:
        await night.poll()
    assert CANARY not in str(raised.value)
