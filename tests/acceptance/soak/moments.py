"""What the queue is in the middle of, as its database shows it: the moments at which a kill hurts most."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

MOMENTS = ("ordered", "reading", "generating", "filing", "concluding")
"""A visit waits · a chart is read · a run is made · one is not filed yet · one is filed, not noted."""
_STATES = "SELECT workflow_uuid, name, status FROM {}workflow_status WHERE status IN ('PENDING', 'ENQUEUED')"
_DONE = "SELECT count(*) FROM {}workflow_status WHERE name = 'visit' AND status = 'SUCCESS'"
_STEPS = (
    "SELECT o.workflow_uuid, o.function_name FROM {0}operation_outputs o "
    "JOIN {0}workflow_status s ON s.workflow_uuid = o.workflow_uuid WHERE s.status = 'PENDING'"
)


class Queue:
    """A look at the queue from outside. Where the database is away there is nothing to see."""

    def __init__(self, home: Path, database_url: str) -> None:
        self._file = home / "epicrisis-queue.db"
        self._url = make_url(database_url) if database_url else None

    def moments(self) -> set[str]:
        """Return what is going on now."""
        try:
            states, steps = self._rows()
        except (sqlite3.Error, psycopg.Error):
            return set()
        done: dict[str, set[str]] = {}
        for workflow, step in steps:
            done.setdefault(workflow, set()).add(step)
        return {_moment(name, status, done.get(workflow, set())) for workflow, name, status in states}

    def left(self) -> list[tuple[str, str]]:
        """Return (name, status) of what is not done."""
        states, _ = self._rows()
        return [(name, status) for _, name, status in states]

    def done(self) -> int:
        """Return how many visits have ended; none where there is no queue yet."""
        with suppress(sqlite3.Error, psycopg.Error):
            return int(self._ask(_DONE)[0][0][0])
        return 0

    def _rows(self) -> tuple[Sequence[tuple[str, str, str]], Sequence[tuple[str, str]]]:
        states, steps = self._ask(_STATES, _STEPS)
        return states, steps

    def _ask(self, *questions: str) -> list[Any]:
        if self._url is None:
            uri = f"file:{self._file}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True, timeout=1)) as file:
                return [file.execute(question.format("")).fetchall() for question in questions]
        at = self._url
        with psycopg.connect(
            host=at.host, port=at.port, user=at.username, password=at.password, dbname=at.database,
            connect_timeout=2,
        ) as server:  # fmt: skip
            return [server.execute(one.format("epicrisis_queue.")).fetchall() for one in questions]

    def wait_for(self, moment: str, timeout_s: float) -> bool:
        """Wait until something is at this moment; False where nothing was in time."""
        until = time.monotonic() + timeout_s
        while moment not in self.moments():
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True


def _moment(name: str, status: str, steps: set[str]) -> str:
    if status == "ENQUEUED":
        return "ordered"
    if name == "run":
        return "filing" if "draft" in steps else "generating"
    if "read" not in steps:
        return "reading"
    return "concluding" if "DBOS.getResult" in steps else "read"


def plan(targets: Sequence[str], kills: int, seed: int) -> list[tuple[str, str]]:
    """Return (target, moment) of each kill: every target in turn, in an order that the seed gives."""
    dice = random.Random(seed)
    planned: list[tuple[str, str]] = []
    while len(planned) < kills:
        turn = list(targets)
        dice.shuffle(turn)
        planned += [(target, dice.choice((*MOMENTS, "any"))) for target in turn]
    return planned[:kills]
