"""How work survives: visits and runs as durable workflows. The only module that knows DBOS.

A visit looks after one admission once: it has the chart read, and learns the run key. What the key stands for
is a workflow of its own, named by it, so that two visits to the same chart, by two schedules or two workers,
are one run. Steps take and give ids, digests, codes and counts alone: a queue is no place for charts. A step
never raises: what went wrong is an outcome with a code, and whether it is worth trying again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Protocol

from dbos import (
    DBOS,
    DBOSConfig,
    DBOSPortableJSONSerializer,
    SetEnqueueOptions,
    SetWorkflowID,
    WorkflowHandleAsync,
    WorkflowStatus,
)
from dbos._error import (
    DBOSAwaitedWorkflowCancelledError,
    DBOSException,
    DBOSWorkflowCancelledError,
)
from sqlalchemy.exc import SQLAlchemyError

from service.errors import StoreError

QUEUE = "admissions"
VERSION = "1"
"""Of the workflows below. Raise it when their steps change: a worker leaves another version's work alone."""
MOST_MOVES = 3
"""A chart that changes so often between its reading and its run waits for the next visit."""
RECOVERIES = 10_000
"""How often a workflow may be taken up again: tries of a step are limited, not the crashes around it."""
_SCHEMA = "epicrisis_queue"
_ACTIVE = ["PENDING", "ENQUEUED", "DELAYED"]
_DONE = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_PAGE = 500
_ENDED = {"state": "skipped", "reason": "ended"}
"""What a visit comes to that was cancelled: the stay ended meanwhile."""
_log = logging.getLogger(__name__)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds before each further try, by step. After the last one the visit has failed."""

    read: tuple[float, ...] = (2.0, 15.0, 60.0, 300.0)
    draft: tuple[float, ...] = (5.0, 30.0, 120.0, 600.0)
    file: tuple[float, ...] = (2.0, 15.0, 60.0, 300.0, 900.0)
    conclude: tuple[float, ...] = (2.0, 15.0, 60.0, 300.0, 900.0)

    def scaled(self, scale: float) -> Waits:
        """Return waits that are so many times as long."""
        return Waits(*(tuple(wait_s * scale for wait_s in getattr(self, one.name)) for one in fields(self)))


class Office(Protocol):
    """What visits need done. Answers are JSON without patient data; an expected error is an answer too.

    A failure is `{"failed": code, "again": bool}`. `engine_calls` and `requests` say what an answer cost.
    """

    async def read(self, admission_id: str, kind: str) -> Json:
        """Read the chart: `{"key", "epoch"}` of the run to make, or `{"outcome": …}` where none is."""
        ...

    async def draft(self, admission_id: str, kind: str, key: str) -> Json:
        """Make the run of this key: `{"run": id}`, or `{"moved": True}` where the chart is another by now."""
        ...

    async def file(self, admission_id: str, kind: str, run_id: str) -> Json:
        """File what was made: `{"outcome": …}`."""
        ...

    async def conclude(self, admission_id: str, outcome: Json) -> Json:
        """Keep what became of the visit, and return it; or a failure."""
        ...


@dataclass(frozen=True, slots=True)
class Queue:
    """Where the queue lies, and how much of it one worker takes at a time."""

    url: str
    """SQLAlchemy URL of a SQLite file or of PostgreSQL."""
    worker: str
    """Stable from start to start, and of one process at a time: what it left is taken up by this id."""
    seats: int = 4
    """Visits under way at once in this process."""
    poll_s: float = 0.5
    is_listening: bool = True
    """False for a process that orders visits and leaves them to others."""
    waits: Waits = field(default_factory=Waits)


@dataclass(frozen=True, slots=True)
class _Desk:
    office: Office
    waits: Waits


_desks: list[_Desk] = []
"""At most one: DBOS finds workflows by name and is one to a process."""
_tasks: set[asyncio.Task[Any]] = set()
"""The workflows that run in this process."""


@DBOS.workflow(name="visit", max_recovery_attempts=RECOVERIES)
async def _visit(admission_id: str, kind: str) -> Json:
    desk, me = _desk(), DBOS.workflow_id or ""
    _note_task()
    spent: Json = {}
    outcome: Json = {"state": "failed", "reason": "chart_keeps_changing"}
    for _ in range(MOST_MOVES):
        found = await _insist("read", desk.office.read, desk.waits.read, spent, admission_id, kind)
        if "key" not in found:
            outcome = _ended(found)
            break
        with SetWorkflowID(f"run-{found['key']}-{found['epoch']}"):
            handle = await DBOS.start_workflow_async(_run, admission_id, kind, found["key"], me)
        try:
            made = await handle.get_result()
        except DBOSAwaitedWorkflowCancelledError:
            outcome = dict(_ENDED)
            break
        is_mine = made.get("visit") == me
        if is_mine:
            _add(spent, made)
        if not made.get("moved"):
            outcome = {**_ended(made), "is_shared": not is_mine}
            break
    whole = {**outcome, **spent}
    kept = await _insist("conclude", desk.office.conclude, desk.waits.conclude, {}, admission_id, whole)
    return {**whole, "state": "failed", "reason": kept["failed"]} if "failed" in kept else whole


@DBOS.workflow(name="run", max_recovery_attempts=RECOVERIES)
async def _run(admission_id: str, kind: str, key: str, visit: str) -> Json:
    desk = _desk()
    _note_task()
    spent: Json = {}
    answer = await _insist("draft", desk.office.draft, desk.waits.draft, spent, admission_id, kind, key)
    if "run" in answer:
        answer = await _insist(
            "file", desk.office.file, desk.waits.file, spent, admission_id, kind, answer["run"]
        )
    return {**answer, **spent, "visit": visit}


async def _insist(
    name: str, act: Callable[..., Awaitable[Json]], waits: Sequence[float], spent: Json, *arguments: Any
) -> Json:
    """Run a step, again after each wait while that may help. What it cost is added to `spent`."""
    answer: Json = {}
    for wait_s in (*waits, None):
        answer = await DBOS.run_step_async({"name": name, "preemptible": True}, _told, act, *arguments)
        _add(spent, answer)
        if wait_s is None or not answer.get("again"):
            break
        await DBOS.sleep_async(wait_s)
    return answer


async def _told(act: Callable[..., Awaitable[Json]], *arguments: Any) -> Json:
    """Let no exception reach the queue: its text, which may quote a record, would be stored and logged."""
    try:
        return await act(*arguments)
    except Exception as error:
        _log.error("A step ended with %s; the visit has failed.", type(error).__name__)
        return {"failed": "internal", "again": False}


def _note_task() -> None:
    task = asyncio.current_task()
    if task is not None:
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


def _let_go() -> None:
    """Stop what is under way here: nothing is recorded of it, and the next start goes on with it."""
    for task in tuple(_tasks):
        task.cancel()


def _desk() -> _Desk:
    if not _desks:
        raise StoreError("The queue is not open in this process.")
    return _desks[0]


def _add(spent: Json, answer: Json) -> None:
    for name in ("engine_calls", "requests"):
        spent[name] = spent.get(name, 0) + answer.get(name, 0)


def _ended(answer: Json) -> Json:
    if "failed" in answer:
        return {"state": "failed", "reason": answer["failed"]}
    return dict(answer.get("outcome", {}))


class Durable:
    """The queue, open in this process. Use `open_queue`; one at a time."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def order(self, occasion: str, admission_id: str, kind: str, *, priority: int = 10) -> str:
        """Order a visit on an occasion, and return its id; one on the same occasion is not ordered twice.

        A lower priority goes first. Raises StoreError.
        """
        visit = f"{occasion}/{admission_id}"
        with _plainly(), SetWorkflowID(visit), SetEnqueueOptions(priority=priority):
            await DBOS.enqueue_workflow_async(QUEUE, _visit, admission_id, kind)
        return visit

    async def outcome(self, visit: str) -> Json:
        """Wait for what became of a visit. Raises StoreError."""
        with _plainly():
            handle: WorkflowHandleAsync[Json] = await DBOS.retrieve_workflow_async(visit)
            try:
                answer: Json = await handle.get_result(polling_interval_sec=self._queue.poll_s)
            except DBOSAwaitedWorkflowCancelledError:
                return dict(_ENDED)
        return answer

    async def cancel(self, admission_id: str) -> int:
        """Stop every visit to an admission and the generation it waits for; return how many those were."""
        with _plainly():
            visits = [one for one in await self._active("visit") if one.endswith(f"/{admission_id}")]
            runs = await DBOS.list_workflows_async(
                status=_ACTIVE, parent_workflow_id=visits or [""], load_input=False, load_output=False
            )
            for one in (*visits, *(run.workflow_id for run in runs)):
                with suppress(DBOSException):
                    await DBOS.cancel_workflow_async(one)
        return len(visits)

    async def _active(self, name: str) -> list[str]:
        found = await DBOS.list_workflows_async(
            status=_ACTIVE, name=name, load_input=False, load_output=False
        )
        return [one.workflow_id for one in found]

    async def waiting(self) -> int:
        """Return how many visits are ordered or under way, in all processes. Raises StoreError."""
        with _plainly():
            return len(await self._active("visit"))

    async def take_over(self, worker: str) -> int:
        """Order again what a worker that is dead had under way, and return how much that was.

        Runs go on outside of the queue: in it, visits that wait for them would hold every seat.
        """
        with _plainly():
            left = await DBOS.list_workflows_async(
                status="PENDING", executor_id=worker, load_input=False, load_output=False
            )
            runs = [one.workflow_id for one in left if one.name == "run"]
            visits = [one.workflow_id for one in left if one.name != "run"]
            if runs:
                await DBOS.resume_workflows_async(runs)
            if visits:
                await DBOS.resume_workflows_async(visits, queue_name=QUEUE)
        return len(left)

    async def forget_before(self, before: datetime) -> int:
        """Delete what ended before an aware instant, and return how many workflows that were."""
        count = 0
        with _plainly():
            while old := await self._ended_before(before):
                await DBOS.delete_workflows_async([one.workflow_id for one in old])
                count += len(old)
        return count

    async def _ended_before(self, before: datetime) -> list[WorkflowStatus]:
        return await DBOS.list_workflows_async(
            status=_DONE,
            completed_before=before.isoformat(),
            limit=_PAGE,
            load_input=False,
            load_output=False,
        )

    async def close(self, drain_s: int = 0) -> None:
        """Take nothing new, give what is under way so many seconds, and close.

        What is not done by then goes on at the next start.
        """
        _log.info("The queue is closing.")
        loop = asyncio.get_running_loop()
        ending = loop.call_later(max(0.0, drain_s - 1.0), _let_go)  # before the threads are gone
        if not drain_s:
            _let_go()
            await asyncio.sleep(0)
        try:
            await asyncio.to_thread(DBOS.destroy, workflow_completion_timeout_sec=drain_s)
        finally:
            ending.cancel()
            _let_go()
            loop.set_default_executor(ThreadPoolExecutor())  # DBOS's own, which it gave the loop, is closed
            _desks.clear()


async def open_queue(queue: Queue, office: Office) -> Durable:
    """Open the queue in the running loop; what this worker left behind goes on. Raises StoreError."""
    if _desks:
        raise StoreError("The queue is open in this process already.")
    _quieten()
    _desks.append(_Desk(office, queue.waits))
    try:
        with _plainly():
            DBOS(config=_config(queue))
            DBOS.listen_queues([QUEUE] if queue.is_listening else [])
            DBOS.launch()  # in the loop's own thread: here the workflows run
            await DBOS.register_queue_async(
                QUEUE, worker_concurrency=queue.seats, polling_interval_sec=queue.poll_s,
                on_conflict="always_update",
            )  # fmt: skip
    except BaseException:
        _desks.clear()
        with suppress(Exception):
            DBOS.destroy(workflow_completion_timeout_sec=0)
        raise
    return Durable(queue)


def _config(queue: Queue) -> DBOSConfig:
    return {
        "name": "epicrisis",
        "system_database_url": queue.url,
        "dbos_system_schema": _SCHEMA,
        "executor_id": queue.worker,
        "application_version": VERSION,
        "serializer": DBOSPortableJSONSerializer(),
        "log_level": "ERROR",
        "enable_otlp": False,
        "use_listen_notify": False,
        "db_engine_kwargs": {"hide_parameters": True, "pool_pre_ping": True},
        "notification_listener_polling_interval_sec": queue.poll_s,
    }


def _quieten() -> None:
    """Let what DBOS has to say come out where our own logs do."""
    logger = logging.getLogger("dbos")
    logger.setLevel(logging.ERROR)
    logger.propagate = True
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    if _is_news not in logger.filters:
        logger.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out that a workflow was cancelled: DBOS tells it as an error, with a page of traceback."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, DBOSAwaitedWorkflowCancelledError | DBOSWorkflowCancelledError)


@contextmanager
def _plainly() -> Iterator[None]:
    """Tell failures of the queue's database without its text."""
    try:
        yield
    except (DBOSException, SQLAlchemyError) as error:
        raise StoreError(
            f"The queue's database cannot be used ({type(error).__name__}).",
            "See that the database answers and has room.",
        ) from None
