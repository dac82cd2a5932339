"""What every Store and AuditLog does, whatever lies below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

import pytest

from service.errors import StoreError
from service.ports import Action, AuditEntry, AuditLog, RunId, RunState, Store, StoredRun
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog
from tests.conftest import CANARY
from tests.unit.writeback.charts import CREATED, east, make_run, varied


class Edge(NamedTuple):
    store: Store
    audit: AuditLog
    find_by_patient: Callable[[str], tuple[RunId, ...]]
    find_by_source: Callable[..., tuple[RunId, ...]]
    entries: Callable[..., tuple[AuditEntry, ...]]


@pytest.fixture
def edge(store: SqlStore, audit: SqlAuditLog) -> Edge:
    return Edge(store, audit, store.find_by_patient, store.find_by_source, audit.entries)


def numbered(number: int, **more: object) -> StoredRun:
    """Run `run-<n>`, created n minutes after the first."""
    return make_run(
        **{"run_id": RunId(f"run-{number}"), "created_at": CREATED + timedelta(minutes=number)} | more
    )


def test_a_run_comes_back_whole(edge: Edge) -> None:
    run = make_run()
    edge.store.save(run)
    assert edge.store.get(run.run_id) == run


def test_an_unknown_run_is_none(edge: Edge) -> None:
    assert edge.store.get(RunId("none")) is None
    assert edge.store.find_by_key("none") is None
    assert edge.store.rows() == ((), 0)


def test_a_run_is_stored_once(edge: Edge) -> None:
    edge.store.save(make_run())
    with pytest.raises(StoreError, match="already stored") as caught:
        edge.store.save(varied(make_run(), searched=1))
    assert CANARY not in str(caught.value)
    assert edge.store.get(make_run().run_id) == make_run()
    assert edge.store.rows()[1] == 1


def test_finishing_records_what_became_of_a_run_and_nothing_else(edge: Edge) -> None:
    run = make_run()
    edge.store.save(run)
    edge.store.save(numbered(2))
    edge.store.finish(run.run_id, RunState.FILED, "DocumentReference/7/_history/1", seconds={"publish": 0.25})
    assert edge.store.get(run.run_id) == replace(
        run,
        state=RunState.FILED,
        document="DocumentReference/7/_history/1",
        seconds={"generate": 1.5, "publish": 0.25},
    )
    assert edge.store.get(RunId("run-2")) == numbered(2)


def test_a_known_document_survives_a_later_failure(edge: Edge) -> None:
    run = make_run()
    edge.store.save(run)
    edge.store.finish(run.run_id, RunState.FILED, "DocumentReference/7/_history/1")
    edge.store.finish(run.run_id, RunState.FAILED, error="unreachable")
    found = edge.store.get(run.run_id)
    assert found is not None
    assert (found.state, found.document, found.error) == (
        RunState.FAILED,
        "DocumentReference/7/_history/1",
        "unreachable",
    )


def test_an_unknown_run_cannot_be_finished(edge: Edge) -> None:
    with pytest.raises(StoreError, match="no such run"):
        edge.store.finish(RunId("none"), RunState.FILED)


def test_the_newest_run_of_a_key_is_found_whatever_the_order_of_saving(edge: Edge) -> None:
    for number in (2, 3, 1):
        edge.store.save(numbered(number))
    edge.store.save(numbered(9, key="f" * 64))
    found = edge.store.find_by_key(make_run().inputs.key)
    assert found == numbered(3)


def test_of_two_runs_of_one_instant_the_later_saved_is_the_newest(edge: Edge) -> None:
    edge.store.save(numbered(1, created_at=CREATED))
    edge.store.save(numbered(2, created_at=CREATED))
    assert edge.store.find_by_key(make_run().inputs.key) == numbered(2, created_at=CREATED)


def test_instants_of_other_zones_are_ordered_by_time(edge: Edge) -> None:
    edge.store.save(numbered(1, created_at=CREATED))
    edge.store.save(numbered(2, created_at=(CREATED - timedelta(hours=1)).astimezone(east(9))))
    assert [row.run_id for row in edge.store.rows()[0]] == ["run-1", "run-2"]


@pytest.mark.parametrize("state", [state for state in RunState if state is not RunState.FAILED])
def test_a_run_that_did_not_fail_is_found_by_its_key(edge: Edge, state: RunState) -> None:
    edge.store.save(numbered(1))
    edge.store.finish(RunId("run-1"), state)
    found = edge.store.find_by_key(make_run().inputs.key)
    assert found is not None
    assert found.state is state


def test_a_failed_run_is_not_found_by_its_key_but_an_older_good_one_is(edge: Edge) -> None:
    edge.store.save(numbered(1))
    edge.store.save(numbered(2))
    edge.store.finish(RunId("run-2"), RunState.FAILED, error="engine")
    assert edge.store.find_by_key(make_run().inputs.key) == numbered(1)
    edge.store.finish(RunId("run-1"), RunState.FAILED, error="engine")
    assert edge.store.find_by_key(make_run().inputs.key) is None


def test_pages_are_newest_first_and_miss_nothing(edge: Edge) -> None:
    for number in (4, 1, 5, 2, 3):
        edge.store.save(numbered(number))
    pages = [edge.store.rows(2, offset) for offset in (0, 2, 4, 6)]
    assert [[row.run_id for row in rows] for rows, _ in pages] == [
        ["run-5", "run-4"],
        ["run-3", "run-2"],
        ["run-1"],
        [],
    ]
    assert {total for _, total in pages} == {5}
    assert edge.store.rows(-1, -1) == ((), 5)


def test_a_row_says_what_a_list_shows(edge: Edge) -> None:
    edge.store.save(varied(make_run(), incomplete=("Allergies",)))
    ((row,), _) = edge.store.rows()
    assert (row.patient, row.patient_name) == ("Patient/77", f"Ada {CANARY}")
    assert (row.published, row.refused, row.incomplete) == (3, 2, True)
    assert (row.created_at, row.state, row.kind) == (CREATED, RunState.GENERATED, "history")
    assert (row.model, row.document) == ("google/medgemma-1.5-4b-it", "")


def filed(edge: Edge, number: int, kind: str = "history", **more: object) -> None:
    run = numbered(number, **more)
    edge.store.save(replace(run, inputs=replace(run.inputs, kind=kind)))
    edge.store.finish(RunId(f"run-{number}"), RunState.FILED, f"DocumentReference/{number}/_history/1")


def test_the_latest_filed_run_of_a_patient_is_found_whatever_the_order_of_saving(edge: Edge) -> None:
    for number in (2, 3, 1):
        filed(edge, number)
    found = edge.store.find_latest("Patient/77", "history")
    assert found == replace(numbered(3), state=RunState.FILED, document="DocumentReference/3/_history/1")


def test_of_two_filed_runs_of_one_instant_the_later_saved_is_the_latest(edge: Edge) -> None:
    for number in (2, 1):
        filed(edge, number, created_at=CREATED)
    found = edge.store.find_latest("Patient/77", "history")
    assert found is not None
    assert found.run_id == "run-1"


ON_THE_SERVER = (RunState.FILED, RunState.UNCHANGED)


def test_a_run_that_was_cut_off_after_its_write_and_found_its_document_there_is_the_latest(
    edge: Edge,
) -> None:
    filed(edge, 1)
    edge.store.save(numbered(2))
    edge.store.finish(RunId("run-2"), RunState.UNCHANGED, "DocumentReference/2/_history/1")
    found = edge.store.find_latest("Patient/77", "history")
    assert found is not None
    assert found.run_id == "run-2"


@pytest.mark.parametrize("state", [state for state in RunState if state not in ON_THE_SERVER])
def test_a_run_that_was_not_filed_is_not_the_latest(edge: Edge, state: RunState) -> None:
    filed(edge, 1)
    edge.store.save(numbered(2))
    edge.store.finish(RunId("run-2"), state, "DocumentReference/2/_history/1")
    found = edge.store.find_latest("Patient/77", "history")
    assert found is not None
    assert found.run_id == "run-1"


def test_the_latest_run_is_of_this_patient_and_this_kind(edge: Edge) -> None:
    filed(edge, 1)
    filed(edge, 2, kind="handover")
    filed(edge, 3, patient="Patient/7")
    latest = {
        (patient, kind): edge.store.find_latest(patient, kind)
        for patient in ("Patient/77", "Patient/7", "Patient/777")
        for kind in ("history", "handover")
    }
    assert {at: run and run.run_id for at, run in latest.items()} == {
        ("Patient/77", "history"): "run-1",
        ("Patient/77", "handover"): "run-2",
        ("Patient/7", "history"): "run-3",
        ("Patient/7", "handover"): None,
        ("Patient/777", "history"): None,
        ("Patient/777", "handover"): None,
    }


def test_runs_are_found_by_patient(edge: Edge) -> None:
    edge.store.save(numbered(1))
    edge.store.save(numbered(2, patient="Patient/8"))
    edge.store.save(numbered(3))
    assert edge.find_by_patient("Patient/77") == ("run-3", "run-1")
    assert edge.find_by_patient("Patient/7") == ()


def test_runs_are_found_by_the_version_of_a_source(edge: Edge) -> None:
    edge.store.save(numbered(1))
    other = varied(numbered(2), sections=(), refused=())
    edge.store.save(other)
    assert edge.find_by_source("Observation/a1c") == ("run-1",)
    assert edge.find_by_source("Observation/a1c", "3") == ("run-1",)
    assert edge.find_by_source("Observation/a1c", "2") == ()
    assert edge.find_by_source("Condition/none") == ("run-1",)


def test_hostile_and_large_text_comes_back(edge: Edge) -> None:
    text = "'; DROP TABLE epicrisis_run; -- \x00\u202e<script>]]>\U0001f9ec" + "x" * 1_000_000
    run = varied(make_run(), kind=text)
    edge.store.save(run)
    assert edge.store.get(run.run_id) == run


def test_audit_entries_come_back_newest_first(edge: Edge) -> None:
    entries = [
        AuditEntry(
            action, "system:cli", f"Patient/{number % 2}", CREATED, "ok", f"run-{number}", "", {"n": number}
        )
        for number, action in enumerate(Action)
    ]
    for entry in entries:
        edge.audit.append(entry)
    assert edge.entries() == tuple(reversed(entries))
    assert edge.entries(1) == (entries[-1],)
    assert edge.entries(patient="Patient/0") == tuple(reversed(entries[::2]))


def test_an_act_without_a_zone_in_its_time_is_refused(edge: Edge) -> None:
    with pytest.raises(StoreError):
        edge.audit.append(AuditEntry(Action.READ, "system:cli", "Patient/1", CREATED.replace(tzinfo=None)))
    assert edge.entries() == ()
