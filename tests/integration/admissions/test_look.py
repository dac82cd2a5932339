"""A look at the sources, from a server that falls short to the admissions that are kept and ordered."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from connectors.admissions.cursor import Cursor
from connectors.admissions.encounter import Ward
from connectors.admissions.resolve import Resolver
from connectors.errors import ConnectorError
from connectors.fhir.client import FhirClient
from connectors.limits import Limits
from service.admissions.ears import Ears
from service.admissions.roster import Roster
from service.durable import Durable
from service.errors import SettingsError
from service.filing.desk import Desk, Manner
from service.ports import Admission
from service.sweep import Sweep, Watch, _report
from service.visits import Everyone
from tests.integration.connectors.conftest import IMPATIENT
from tests.integration.connectors.fault_server import Answer, FaultServer, Reply, Request
from tests.integration.connectors.test_admissions_polling import Hospital
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.in_memory_admissions import InMemoryAdmissions

WARD = Watch("all", ward=Ward(classes=("IMP",)))
NOT_FOUND = {"resourceType": "OperationOutcome", "issue": [{"code": "not-found"}]}
PAGE = 3


class Readable(Hospital):
    """A hospital whose stays and patients can be read one by one, too."""

    def any(self, request: Request) -> Answer:
        _, _, kind, name = request.path.split("/")
        if kind == "Patient":
            return Reply(json={"resourceType": "Patient", "id": name})
        found = self.encounters.get(name)
        return Reply(json=found) if found else Reply(404, json=NOT_FOUND)


@dataclass
class Works:
    """A queue that notes what was ordered."""

    ordered: list[str] = field(default_factory=list)

    async def order(self, occasion: str, admission_id: str, kind: str) -> str:
        self.ordered.append(f"{occasion} {kind}")
        return admission_id

    async def outcome(self, visit: str) -> dict[str, Any]:
        return {"state": "filed", "engine_calls": 2, "requests": 1}


@dataclass
class Night:
    """Looks, one after the other, over one store."""

    client: FhirClient
    server: FaultServer
    hospital: Readable
    store: InMemoryAdmissions = field(default_factory=InMemoryAdmissions)
    works: Works = field(default_factory=Works)
    odd: Counter[str] = field(default_factory=Counter)
    ordered: list[str] = field(default_factory=list)
    census: Path | None = None

    def __post_init__(self) -> None:
        documents = InMemoryStore()
        desk = Desk(cast(Any, self.client), documents, documents, InMemoryAudit(), self.now, Manner("0"))
        self.sweep = Sweep(
            self.store, desk, Everyone(), cast(Durable, self.works), self.now,
            lambda: Ears(self.client, self.store, self.now, census=self.census),
            lambda: Roster(self.store, Resolver(self.client), desk),
        )  # fmt: skip

    def now(self) -> Any:
        return self.hospital.now

    async def look(self, watch: Watch = WARD) -> list[str]:
        """Look, and return who is meant."""
        for name in [*self.hospital.encounters, *(f"of-{one}" for one in self.hospital.encounters)]:
            kind = "Patient" if name.startswith("of-") else "Encounter"
            self.server.on("GET", f"/fhir/{kind}/{name}", self.hospital.any)

        async def order(admission: Admission) -> None:
            self.ordered.append(admission.encounter.partition("/")[2])

        is_meant = await self.sweep.look(watch, self.odd, order)
        return sorted(one.encounter.partition("/")[2] for one in self.open() if is_meant(one))

    def open(self) -> list[Admission]:
        """Who is admitted."""
        return list(self.store.admissions(self.client.base_url))


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer() as running:
        yield running


@pytest.fixture
async def night(server: FaultServer) -> AsyncIterator[Night]:
    hospital = Readable()
    server.on("GET", "/fhir/Encounter", hospital.answer)
    limits = Limits(page_size=PAGE, max_pages=40)
    async with FhirClient(server.base_url, limits=limits, patience=IMPATIENT) as client:
        yield Night(client, server, hospital)


async def test_who_is_admitted_is_kept_ordered_and_meant_and_no_news_is_no_order(night: Night) -> None:
    for name in ("a", "b", "c", "d"):
        night.hospital.put(name)
        night.hospital.tick()
    assert await night.look() == ["a", "b", "c", "d"]
    assert sorted(night.ordered) == ["a", "b", "c", "d"]
    night.ordered.clear()
    assert await night.look() == ["a", "b", "c", "d"]
    assert night.ordered == []


async def test_a_server_whose_last_updated_has_second_precision_loses_nobody(night: Night) -> None:
    night.hospital.precision = "seconds"
    night.hospital.put("a")
    await night.look()
    night.hospital.put("b")  # in the same second as the newest that was seen
    night.hospital.put("a", extra=1)
    assert await night.look() == ["a", "b"]
    assert sorted(night.ordered) == ["a", "a", "b"]


async def test_a_stay_that_is_deleted_is_ended_by_the_next_look_at_all(night: Night) -> None:
    for name in ("a", "b"):
        night.hospital.put(name)
    await night.look()
    del night.hospital.encounters["b"]
    night.server.on("GET", "/fhir/Encounter/b", Reply(410, json=NOT_FOUND))
    night.hospital.tick(25 * 3600)
    assert await night.look() == ["a"]
    (gone,) = [one for one in night.store.stays.values() if not one.is_open]
    assert gone.reason == "cancelled"


async def test_a_paging_without_end_is_an_error_that_ends_and_the_cursor_stays(night: Night) -> None:
    night.hospital.put("a")
    await night.look()
    before = dict(night.store.cursors)

    def forever(request: Request) -> Answer:
        number = int(dict(request.query).get("_offset", "0")) + 1
        url = f"http://{request.headers['host']}/fhir/Encounter?_offset={number}"
        stay = {**night.hospital.encounters["a"], "id": f"x{number}"}
        link = [{"relation": "next", "url": url}]
        return Reply(
            json={"resourceType": "Bundle", "type": "searchset", "link": link, "entry": [{"resource": stay}]}
        )

    night.server.on("GET", "/fhir/Encounter", forever)
    night.hospital.tick(3600)
    await night.look()
    assert (night.odd["failed:paging_loop"], night.odd["look_incomplete"]) == (1, 1)
    then, now = (Cursor.load(next(iter(one.values()))) for one in (before, night.store.cursors))
    assert (now.since, now.whole_at) == (then.since, then.whole_at), "the next look asks for the same again"
    night.server.on("GET", "/fhir/Encounter", night.hospital.answer)
    assert "a" in await night.look()


async def test_a_cursor_that_cannot_be_read_begins_at_the_beginning(night: Night) -> None:
    night.hospital.put("a")
    await night.look()
    night.store.cursors = dict.fromkeys(night.store.cursors, b"garbage")
    assert await night.look() == ["a"]
    assert night.ordered == ["a"], "the same news from the same source is heard once"


async def test_two_wards_have_a_cursor_each(night: Night) -> None:
    night.hospital.put("a")
    await night.look()
    other = Watch("other", ward=Ward(classes=("IMP", "EMER")))
    night.hospital.put("e", code="EMER")
    assert await night.look(other) == ["a", "e"]
    assert len(night.store.cursors) == 2


async def test_a_server_without_a_search_for_stays_is_counted_and_other_sources_tell(
    night: Night, tmp_path: Path
) -> None:
    night.server.on("GET", "/fhir/Encounter", Reply(400, json=NOT_FOUND))
    night.hospital.put("a")
    listed = tmp_path / "list.txt"
    listed.write_text("Encounter/a\n")
    assert await night.look() == []
    assert night.odd["no_encounter_search"] == 1
    assert await night.look(Watch("hand", listed=listed)) == ["a"]


async def test_a_list_by_hand_is_all_that_is_asked_for(night: Night, tmp_path: Path) -> None:
    for name in ("a", "b"):
        night.hospital.put(name)
    listed = tmp_path / "list.txt"
    listed.write_text("Encounter/a\nPatient/of-b and more\n")
    assert await night.look(Watch("hand", listed=listed)) == ["a"]
    assert not any(request.path == "/fhir/Encounter" for request in night.server.requests)
    with pytest.raises(SettingsError, match=r"none\.txt"):
        await night.look(Watch("hand", listed=tmp_path / "none.txt"))


async def test_a_census_is_read_with_every_look(night: Night, tmp_path: Path) -> None:
    night.census = tmp_path / "census.csv"
    with pytest.raises(SettingsError, match=r"census\.csv"):
        await night.look()
    night.census.write_text("patient,encounter,class,location\n")
    await night.look()
    assert "census" in night.store.cursors


async def test_a_server_that_is_away_is_an_error_and_nothing_is_forgotten(night: Night) -> None:
    night.hospital.put("a")
    await night.look()
    night.server.on("GET", "/fhir/Encounter", Reply(503))
    with pytest.raises(ConnectorError):
        await night.look()
    assert [one.encounter for one in night.open()] == ["Encounter/a"]


async def test_a_part_of_the_house_means_whom_the_server_or_a_message_says_is_there(night: Night) -> None:
    place = [{"location": {"reference": "Location/a"}, "status": "active"}]
    night.hospital.put("here", location=place)
    night.hospital.put("there")
    part = Watch("part", ward=Ward(classes=("IMP",), locations=("Location/a", "W1")))
    assert await night.look() == ["here", "there"]
    assert await night.look(part) == ["here"]
    there = next(one for one in night.open() if one.encounter == "Encounter/there")
    night.store.put_admission(
        Admission(there.id, there.server, there.patient, there.encounter, location="W1^101^A")
    )
    assert await night.look(part) == ["here", "there"]


async def test_a_pass_is_made_once_for_a_tick_and_goes_on_when_it_was_cut_off(night: Night) -> None:
    night.hospital.put("a")
    await night.look()
    report = await night.sweep.run(WARD, "all@1")
    assert report is not None
    assert (report.admissions, report.runs, report.engine_calls) == (1, 1, 2)
    assert await night.sweep.run(WARD, "all@1") is None
    last = night.store.last_tick("all")
    assert last is not None
    assert last.finished_at is not None
    assert last.report["runs"] == 1
    night.server.on("GET", "/fhir/Encounter", Reply(503))
    with pytest.raises(ConnectorError):
        await night.sweep.run(WARD, "all@2")
    night.hospital.tick(1)
    night.server.on("GET", "/fhir/Encounter", night.hospital.answer)
    assert await night.sweep.run(WARD, "all@2") is not None
    assert night.works.ordered == ["all@1 admission", "all@2 admission"]


async def test_a_pass_that_another_process_is_at_is_left_to_it(night: Night) -> None:
    held = night.store.hold("lasting:tick all@1")
    assert await night.sweep.run(WARD, "all@1") is None
    assert night.store.ticks == {}
    assert held is not None
    held.close()
    assert await night.sweep.run(WARD, "all@1") is not None


def test_every_outcome_is_counted_as_one_thing() -> None:
    report = _report(
        [
            {"state": "filed", "is_shared": False, "engine_calls": 3, "requests": 4},
            {"state": "generated", "requests": 1},
            {"state": "filed", "is_shared": True},
            {"state": "unchanged", "requests": 1},
            {"state": "skipped", "reason": "minor"},
            {"state": "skipped", "reason": "minor"},
            {"state": "failed", "reason": "engine", "engine_calls": 5},
        ],
        10, 1.23456, Counter(admitted=2), 1,
    )  # fmt: skip
    assert report.shape() == {
        "admissions": 7, "runs": 2, "unchanged": 2, "skipped": [{"reason": "minor", "count": 2}], "failed": 1,
        "engine_calls": 8, "fhir_requests": 16, "seconds": 1.235,
        "failures": [{"code": "engine", "count": 1}], "odd": {"admitted": 2}, "withdrawn": 1,
    }  # fmt: skip
