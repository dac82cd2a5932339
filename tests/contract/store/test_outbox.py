"""What every Outbox knows of what a collector does not have yet."""

from __future__ import annotations

from datetime import timedelta

import pytest

from service.ports import Action, AuditEntry, DueEntry
from service.store.outbox import SqlOutbox
from service.store.trail import SqlAuditLog
from tests.conftest import CANARY
from tests.unit.writeback.charts import CREATED

EHR, OTHER = "http://127.0.0.1:1/fhir", "http://127.0.0.1:2/fhir"
COLLECTOR = "http://127.0.0.1:3/fhir"


@pytest.fixture
def outbox(audit: SqlAuditLog) -> SqlOutbox:
    return SqlOutbox(audit.database)


def entry_of(number: int, **more: object) -> AuditEntry:
    given: dict[str, object] = {"server": EHR, "target": f"DocumentReference/{CANARY}-{number}"}
    at = CREATED + timedelta(minutes=number)
    return AuditEntry(Action.WITHDRAW, "system:cli", "Patient/77", at, **given | more)  # type: ignore[arg-type]


def filled(audit: SqlAuditLog, count: int = 3) -> list[AuditEntry]:
    entries = [entry_of(number) for number in range(count)]
    for entry in entries:
        audit.append(entry)
    return entries


def numbers(due: object) -> list[int]:
    assert isinstance(due, list | tuple)
    return [one.number for one in due if isinstance(one, DueEntry)]


def test_everything_is_due_until_it_was_sent_oldest_first(audit: SqlAuditLog, outbox: SqlOutbox) -> None:
    entries = filled(audit)
    due = outbox.due(COLLECTOR)
    begun = outbox.begin(COLLECTOR, due, CREATED)
    assert [one.entry for one in begun] == entries
    assert numbers(begun) == list(due)
    assert not any(one.was_tried for one in begun)
    outbox.settle(COLLECTOR, due[:2], (), CREATED)
    assert outbox.due(COLLECTOR) == due[2:]
    assert outbox.count(COLLECTOR) == 1
    assert outbox.due(COLLECTOR, limit=0) == []


def test_what_was_begun_and_not_settled_may_be_there_already(audit: SqlAuditLog, outbox: SqlOutbox) -> None:
    filled(audit)
    due = outbox.due(COLLECTOR)
    outbox.begin(COLLECTOR, due[:1], CREATED)
    again = outbox.begin(COLLECTOR, outbox.due(COLLECTOR), CREATED)
    assert [one.was_tried for one in again] == [True, False, False]


def test_what_was_refused_stays_due_and_comes_last(audit: SqlAuditLog, outbox: SqlOutbox) -> None:
    filled(audit)
    due = outbox.due(COLLECTOR)
    outbox.begin(COLLECTOR, due[:1], CREATED)
    outbox.settle(COLLECTOR, (), due[:1], CREATED)
    assert outbox.due(COLLECTOR) == [*due[1:], due[0]]
    assert not any(one.was_tried for one in outbox.begin(COLLECTOR, due, CREATED))


def test_each_collector_gets_everything(audit: SqlAuditLog, outbox: SqlOutbox) -> None:
    filled(audit)
    due = outbox.due(COLLECTOR)
    outbox.begin(COLLECTOR, due, CREATED)
    outbox.settle(COLLECTOR, due, (), CREATED)
    assert outbox.count(COLLECTOR) == 0
    assert outbox.due(EHR) == due


def test_a_server_gets_what_is_about_its_own_patients_and_about_none(
    audit: SqlAuditLog, outbox: SqlOutbox
) -> None:
    entries = [
        entry_of(1),
        entry_of(2, server=OTHER),
        entry_of(3, server=""),
        AuditEntry(Action.STOP, "system:cli", "", CREATED, outcome="stopped:all"),
    ]
    for entry in entries:
        audit.append(entry)
    begun = outbox.begin(EHR, outbox.due(EHR, EHR), CREATED)
    assert [one.entry for one in begun] == [entries[0], entries[3]]
    assert outbox.count(EHR, EHR) == 2
    assert outbox.count(COLLECTOR) == 4


def test_a_handle_is_an_entrys_own_stays_the_same_and_tells_nothing(
    audit: SqlAuditLog, outbox: SqlOutbox
) -> None:
    same = entry_of(1)
    audit.append(same)
    audit.append(same)
    due = outbox.due(COLLECTOR)
    first, second = (one.handle for one in outbox.begin(COLLECTOR, due, CREATED))
    assert first != second
    assert [first, second] == [one.handle for one in outbox.begin(EHR, due, CREATED)]
    assert CANARY not in first + second


def test_one_sender_at_a_time_for_each_collector(outbox: SqlOutbox) -> None:
    held = outbox.hold(COLLECTOR)
    assert held is not None
    assert outbox.hold(COLLECTOR) is None
    held.close()
    again = outbox.hold(COLLECTOR)
    assert again is not None
    again.close()


def test_who_answers_for_an_act_and_its_server_come_back(audit: SqlAuditLog) -> None:
    entry = entry_of(1, by="Practitioner/roe")
    audit.append(entry)
    assert audit.entries() == (entry,)


def test_what_was_sent_meanwhile_is_begun_no_more_and_stays_sent(
    audit: SqlAuditLog, outbox: SqlOutbox
) -> None:
    filled(audit)
    due = outbox.due(COLLECTOR)
    outbox.settle(COLLECTOR, due[:1], (), CREATED)
    assert numbers(outbox.begin(COLLECTOR, due, CREATED)) == list(due[1:])
    outbox.settle(COLLECTOR, (), due[:1], CREATED)
    assert outbox.due(COLLECTOR) == due[1:]
    assert outbox.due(COLLECTOR, after=due[1]) == due[2:]
