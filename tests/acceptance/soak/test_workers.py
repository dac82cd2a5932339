"""Single events of a night: a server away at the start, a pass that is killed, a worker told to stop."""

from __future__ import annotations

import time
from pathlib import Path

from fixtures.inpatients import fill, tiny_charts
from tests.acceptance.soak.ledger import take
from tests.acceptance.soak.moments import Queue
from tests.acceptance.soak.stage import READY_S, Stage
from tests.acceptance.soak.wards import Wards

COUNT = 6


def house(folder: Path, workers: int, **more: str) -> tuple[Stage, Wards, Queue]:
    """A house with a few patients."""
    stays = fill(folder / "ehr", tiny_charts(COUNT))
    stage = Stage(folder, workers=workers, more=more)
    return stage, Wards(stage, dict(enumerate(stays)), seed=0), Queue(folder / "home", "")


def test_a_worker_that_starts_while_the_fhir_server_is_away_waits_for_it(tmp_path: Path) -> None:
    stage, wards, queue = house(tmp_path, workers=1)
    worker = stage.crew[0]
    try:
        stage.engine.start()
        worker.start()
        until = time.monotonic() + READY_S
        while "waits for it" not in worker.said and time.monotonic() < until:
            assert worker.is_alive, worker.said
            time.sleep(0.1)
        stage.sekmet.start()
        worker.wait_ready()
        while queue.done() < COUNT and time.monotonic() < until:
            time.sleep(0.1)
        assert worker.stop() == 0
        assert not take(stage, wards).faults
    finally:
        stage.close()


def test_a_pass_that_is_killed_goes_on_with_the_next_and_makes_nothing_twice(tmp_path: Path) -> None:
    stage, wards, queue = house(tmp_path, workers=0)
    with stage:
        for moment in ("generating", "filing"):
            killed = stage.begin("sweep", "--json")
            assert queue.wait_for(moment, READY_S)
            killed.kill()
            killed.communicate()
        report = stage.sweep()
        assert (report["admissions"], report["failed"]) == (COUNT, 0)
        ledger = take(stage, wards)
    assert not ledger.faults
    assert ledger.documents == COUNT


def test_what_a_worker_had_under_way_when_it_was_told_to_stop_goes_on_with_another(tmp_path: Path) -> None:
    stage, wards, queue = house(tmp_path, workers=2, EPICRISIS_DRAIN_S="0")
    with stage:
        assert queue.wait_for("generating", READY_S)
        assert stage.crew[0].stop() == 0
        until = time.monotonic() + READY_S
        while (queue.done() < COUNT or queue.left()) and time.monotonic() < until:
            time.sleep(0.2)
        assert stage.crew[1].stop() == 0
        ledger = take(stage, wards)
    assert not ledger.faults
    assert ledger.documents == COUNT
