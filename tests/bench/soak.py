"""What looking after admissions costs by itself, and what a worker holds over a sweep of ten thousand.

`python -m tests.bench.soak 2000` is that sweep with another number of admissions, told as JSON.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fixtures.inpatients import fill, tiny_charts
from fixtures.postgres import PostgresServer
from service.durable import Queue, open_queue
from tests.acceptance.soak.memory import Watched, sweep_watched
from tests.acceptance.soak.stage import Stage
from tests.bench.table import Table, at_most, percent, seconds

ADMISSIONS = 10_000
WARM_SHARE = 0.2
"""After a fifth of the visits everything is loaded that a worker needs."""
MOST_GROWTH = 0.1
VISITS = 300
ROUNDS = 3
POLL_S = 0.1


class Idle:
    """An Office that does nothing: what a visit then takes is the queue's own."""

    async def read(self, admission_id: str, kind: str) -> dict[str, Any]:
        """Name a run."""
        return {"key": f"{kind}-{admission_id}", "epoch": 0, "requests": 1}

    async def draft(self, admission_id: str, kind: str, key: str) -> dict[str, Any]:
        """Name what was made."""
        return {"run": key, "engine_calls": 1}

    async def file(self, admission_id: str, kind: str, run_id: str) -> dict[str, Any]:
        """Say that it is filed."""
        return {"outcome": {"state": "filed", "run": run_id}}

    async def conclude(self, admission_id: str, outcome: dict[str, Any]) -> dict[str, Any]:
        """Return what became of it."""
        return outcome


def bench_soak(admissions: int = ADMISSIONS) -> Iterator[Table]:
    """Measure the queue alone on both databases, then a sweep with the scripted engine on a real server."""
    yield bench_overhead()
    yield bench_sweep(admissions)


def bench_overhead() -> Table:
    """Measure visits that do nothing."""
    table = Table("Scheduling overhead", ("database", "visits", "ordering, s each", "all of a visit, s each"))
    with tempfile.TemporaryDirectory() as folder, PostgresServer() as postgres:
        for name, url in (
            ("SQLite", f"sqlite:///{folder}/queue.db"),
            ("PostgreSQL", postgres.new_database()),
        ):
            rounds = [asyncio.run(_visit(url, number)) for number in range(ROUNDS)]
            ordering, whole = (statistics.median(one) for one in zip(*rounds, strict=True))
            table.rows.append((name, f"{VISITS}", seconds(ordering), seconds(whole)))
    table.remarks.append("One process, eight visits at a time; the steps themselves do nothing.")
    return table


async def _visit(url: str, number: int) -> tuple[float, float]:
    """Return the seconds that an order takes, and a visit from its order to its outcome, for each visit."""
    durable = await open_queue(Queue(url, "bench-1", seats=8, poll_s=POLL_S), Idle())
    try:
        start = time.perf_counter()
        visits = [await durable.order(f"pass-{number}", f"{n}", f"round-{number}") for n in range(VISITS)]
        ordered = time.perf_counter()
        for visit in visits:
            await durable.outcome(visit)
        return (ordered - start) / VISITS, (time.perf_counter() - start) / VISITS
    finally:
        await durable.close()


def bench_sweep(admissions: int) -> Table:
    """Measure the memory of `epicrisis sweep` over tiny charts."""
    warm = int(admissions * WARM_SHARE)
    watched = sweep(admissions)
    growth = watched.growth(warm)
    table = Table(
        "Memory of a worker over a sweep",
        (
            "engine", "admissions", "runs", "failed", "held after a fifth, MB", "at the end, MB", "growth",
            "target", "seconds each",
        ),
    )  # fmt: skip
    report = watched.report
    table.rows.append(
        (
            "scripted", f"{admissions:,}", f"{report['runs']:,}", f"{report['failed']}",
            f"{watched.held_after(warm):.0f}", f"{watched.held_at_the_end:.0f}", percent(growth),
            at_most(growth, MOST_GROWTH, "10 %"), seconds(report["seconds"] / admissions),
        )
    )  # fmt: skip
    table.remarks.append("Charts of five resources on sekmet-fhir; the sweep's own process, SQLite.")
    return table


def sweep(admissions: int) -> Watched:
    """Sweep so many tiny charts once."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder) / "ehr", tiny_charts(admissions))
        more = {"EPICRISIS_ENGINE": "scripted", "EPICRISIS_SWEEP_VISITS": "8"}
        with Stage(Path(folder), workers=0, more=more) as stage:
            return sweep_watched(stage)


if __name__ == "__main__":
    count = int(sys.argv[1])
    found = sweep(count)
    told = {"growth": found.growth(int(count * WARM_SHARE)), "samples": found.samples[::20], **found.report}
    sys.stdout.write(json.dumps(told) + "\n")
