"""Sending: once each in effect, nothing lost, whatever the collector does and wherever it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import ConnectorError, NothingListens, RequestRejected, Unauthorized
from connectors.fhir.audit import has_handle
from service.audit.balp import Scene
from service.audit.send import BATCH, MOST_REFUSED, Courier, Sender, send_regularly
from service.ports import Action, AuditEntry
from service.store.database import open_cipher
from service.store.outbox import SqlOutbox
from service.store.trail import SqlAuditLog
from tests.unit.writeback.charts import CREATED

SERVER = "http://127.0.0.1:1/fhir"


class Died(BaseException):
    """The process ends here."""


class CollectorDouble:
    """Keeps events in a list; `fail` is asked before and after each is kept."""

    base_url = SERVER

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.asked = 0
        self.fail: Callable[[str, dict[str, Any]], BaseException | None] = lambda when, event: None

    async def append(self, event: dict[str, Any], handle: str, *, may_be_there: bool) -> bool:
        self.asked += may_be_there
        if may_be_there and any(has_handle(one, handle) for one in self.events):
            return False
        for when in ("before", "after"):
            if when == "after":
                self.events.append(event)
            error = self.fail(when, event)
            if error is not None:
                raise error
        return True


@pytest.fixture
def log(tmp_path: Path) -> Any:
    url = f"sqlite:///{tmp_path}/epicrisis.db"
    audit = SqlAuditLog(url, open_cipher(tmp_path / "key", url))
    yield audit
    audit.close()


def fill(log: SqlAuditLog, count: int) -> None:
    for number in range(count):
        target = f"DocumentReference/{number}/_history/2"
        log.append(
            AuditEntry(Action.WITHDRAW, "system:t", "Patient/77", CREATED, target=target, server=SERVER)
        )


def sender_of(log: SqlAuditLog, collector: CollectorDouble) -> Sender:
    return Sender(SqlOutbox(log.database), collector, lambda: CREATED, Scene("m", "0"), SERVER)


def targets(collector: CollectorDouble) -> list[str]:
    return [event["entity"][1]["what"]["reference"] for event in collector.events]


async def test_what_is_due_is_sent_once_in_order_and_a_second_time_nothing(log: SqlAuditLog) -> None:
    fill(log, BATCH + 3)
    collector = CollectorDouble()
    sender = sender_of(log, collector)
    assert await sender.send() == (BATCH + 3, 0, 0, None)
    assert await sender.send() == (0, 0, 0, None)
    assert targets(collector) == [f"DocumentReference/{n}/_history/2" for n in range(BATCH + 3)]
    assert collector.asked == 0


async def test_a_collector_that_is_down_leaves_everything_due_and_is_asked_once(log: SqlAuditLog) -> None:
    fill(log, 5)
    collector = CollectorDouble()
    tried: list[str] = []
    collector.fail = lambda when, event: tried.append(when) or NothingListens("Nothing listens.")  # type: ignore[func-returns-value]
    done = await sender_of(log, collector).send()
    assert (done.sent, done.due, done.failed) == (0, 5, 0)
    assert isinstance(done.error, NothingListens)
    assert tried == ["before"]
    collector.fail = lambda when, event: None
    assert await sender_of(log, collector).send() == (5, 0, 0, None)
    assert len(set(targets(collector))) == len(collector.events) == 5


@pytest.mark.parametrize("error", [Unauthorized("No."), NothingListens("Lost.")])
async def test_an_answer_that_is_lost_after_the_write_writes_nothing_twice(
    log: SqlAuditLog, error: ConnectorError
) -> None:
    fill(log, 4)
    collector = CollectorDouble()
    collector.fail = lambda when, event: error if when == "after" and len(collector.events) == 2 else None
    done = await sender_of(log, collector).send()
    assert (done.sent, done.due) == (1, 3)
    collector.fail = lambda when, event: None
    again = await sender_of(log, collector).send()
    assert (again.sent, again.due) == (3, 0)
    assert len(set(targets(collector))) == len(collector.events) == 4


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(3))
async def test_a_process_that_dies_at_any_event_loses_none_and_writes_none_twice(
    log: SqlAuditLog, when: str, at: int
) -> None:
    fill(log, 3)
    collector = CollectorDouble()
    collector.fail = lambda now, event: (
        Died() if now == when and len(collector.events) == at + (when == "after") else None
    )
    outbox = SqlOutbox(log.database)
    outbox.settle = lambda *arguments: None  # type: ignore[method-assign] # a dead process settles nothing
    with pytest.raises(Died):
        await Sender(outbox, collector, lambda: CREATED, Scene("m", "0"), SERVER).send()
    collector.fail = lambda now, event: None
    assert (await sender_of(log, collector).send()).due == 0
    assert sorted(targets(collector)) == [f"DocumentReference/{n}/_history/2" for n in range(3)]


async def test_one_that_is_refused_holds_up_no_other_and_stays_due(log: SqlAuditLog) -> None:
    fill(log, 4)
    collector = CollectorDouble()

    def fail(when: str, event: dict[str, Any]) -> BaseException | None:
        return RequestRejected("No.") if "Reference/1/" in event["entity"][1]["what"]["reference"] else None

    collector.fail = fail
    for sent in (3, 0):
        done = await sender_of(log, collector).send()
        assert (done.sent, done.due, done.failed, done.error) == (sent, 1, 1, None)
    collector.fail = lambda when, event: None
    assert await sender_of(log, collector).send() == (1, 0, 0, None)


async def test_a_collector_that_refuses_all_is_not_asked_for_each(log: SqlAuditLog) -> None:
    fill(log, MOST_REFUSED * 3)
    collector = CollectorDouble()
    collector.fail = lambda when, event: RequestRejected("No.")
    done = await sender_of(log, collector).send()
    assert (done.sent, done.due, done.failed) == (0, MOST_REFUSED * 3, MOST_REFUSED)
    assert isinstance(done.error, RequestRejected)


async def test_while_another_process_sends_nothing_is_sent_here(log: SqlAuditLog) -> None:
    fill(log, 2)
    held = SqlOutbox(log.database).hold(SERVER)
    assert held is not None
    collector = CollectorDouble()
    assert await sender_of(log, collector).send() == (0, 2, 0, None)
    held.close()
    assert (await sender_of(log, collector).send()).sent == 2


async def test_in_passing_no_more_is_sent_than_was_said_and_nothing_is_raised(
    log: SqlAuditLog, caplog: pytest.LogCaptureFixture
) -> None:
    fill(log, 5)
    collector = CollectorDouble()
    courier = Courier(sender_of(log, collector), limit=2)
    await courier()
    assert len(collector.events) == 2
    tried: list[str] = []
    collector.fail = lambda when, event: tried.append(when) or NothingListens("Down.")  # type: ignore[func-returns-value]
    for _ in range(3):
        await courier()
    assert len(tried) == 1  # let be after the first failure
    await courier(last=True)
    assert len(tried) == 2
    assert "connection_refused" in caplog.text
    assert "Patient/77" not in caplog.text


async def test_in_passing_a_store_that_fails_and_a_collector_that_hangs_fail_nothing(
    log: SqlAuditLog, caplog: pytest.LogCaptureFixture
) -> None:
    import asyncio

    fill(log, 1)
    collector = CollectorDouble()

    async def hang(*arguments: Any, **more: Any) -> bool:
        await asyncio.Event().wait()
        return True

    collector.append = hang  # type: ignore[method-assign]
    await Courier(sender_of(log, collector), timeout_s=0.05)(last=True)
    assert "timeout" in caplog.text
    assert SqlOutbox(log.database).count(SERVER, SERVER) == 1


async def test_an_entry_that_makes_no_event_holds_up_no_other(
    log: SqlAuditLog, caplog: pytest.LogCaptureFixture
) -> None:
    log.append(AuditEntry(Action.READ, "system:t", "Patient/77", CREATED, server=SERVER, counts={"": 1}))
    fill(log, 2)
    collector = CollectorDouble()
    done = await sender_of(log, collector).send()
    assert (done.sent, done.due, done.failed, done.error) == (2, 1, 1, None)
    assert "makes no valid AuditEvent" in caplog.text
    assert "77" not in caplog.text


async def test_in_passing_what_is_new_goes_at_once_and_what_was_refused_with_the_last(
    log: SqlAuditLog,
) -> None:
    fill(log, 2)
    collector = CollectorDouble()

    def fail(when: str, event: dict[str, Any]) -> BaseException | None:
        return RequestRejected("No.") if "Reference/0/" in event["entity"][1]["what"]["reference"] else None

    collector.fail = fail
    courier = Courier(sender_of(log, collector))
    await courier()
    collector.fail = lambda when, event: None
    fill(log, 2)
    await courier()
    assert targets(collector) == [f"DocumentReference/{n}/_history/2" for n in (1, 0, 1)]
    await courier(last=True)
    assert len(collector.events) == 4


@pytest.mark.parametrize("call", ["hold", "due", "begin", "settle"])
async def test_one_that_is_cancelled_at_any_point_leaves_no_lock_and_writes_nothing_twice(
    log: SqlAuditLog, call: str
) -> None:
    import asyncio
    import threading

    fill(log, 3)
    collector = CollectorDouble()
    outbox = SqlOutbox(log.database)
    real, met, go_on = getattr(outbox, call), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(*arguments: Any) -> Any:
        loop.call_soon_threadsafe(met.set)
        go_on.wait(10)
        return real(*arguments)

    setattr(outbox, call, slow)
    sender = Sender(outbox, collector, lambda: CREATED, Scene("m", "0"), SERVER)
    task = asyncio.create_task(sender.send())
    await asyncio.wait_for(met.wait(), 10)
    task.cancel()
    loop.call_later(0.05, go_on.set)
    await asyncio.wait((task,))
    go_on.set()
    assert task.cancelled()
    assert (await sender_of(log, collector).send()).due == 0
    assert sorted(targets(collector)) == [f"DocumentReference/{n}/_history/2" for n in range(3)]


async def test_whoever_stays_open_sends_again_once_the_collector_is_back(log: SqlAuditLog) -> None:
    import asyncio

    fill(log, 2)
    collector = CollectorDouble()
    tried = asyncio.Event()

    def down(when: str, event: dict[str, Any]) -> BaseException | None:
        tried.set()
        return NothingListens("Down.")

    collector.fail = down
    courier = Courier(sender_of(log, collector))
    task = asyncio.create_task(send_regularly(courier, every_s=0.01))
    await asyncio.wait_for(tried.wait(), 10)
    collector.fail = lambda when, event: None
    while len(collector.events) < 2:  # noqa: ASYNC110 - the double sets no event
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait((task,))
    await courier(last=True)
    assert len(collector.events) == 2
    fill(log, 1)
    await courier()  # in passing again, too
    assert len(collector.events) == 3
