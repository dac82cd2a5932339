"""A night on the wards with everything killed again and again: one draft of its last state for everybody."""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from fixtures.inpatients import fill, tiny_charts
from fixtures.postgres import PostgresServer
from tests.acceptance.soak.ledger import Ledger, take, whole_drafts
from tests.acceptance.soak.moments import Queue, plan
from tests.acceptance.soak.stage import Stage
from tests.acceptance.soak.wards import Wards

ADMISSIONS = 12
KILLS = 30
MOMENT_S = 3.0
"""How long a kill waits for its moment; after that it comes at any."""
AWAY_S = (0.0, 1.5)
MOST_SWEEPS = 4
ATTESTED_AFTER = (8, 18)
PATIENCE_S = 90.0


def test_a_night_on_sqlite_files_one_draft_for_everybody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(capsys, "SQLite, 2 workers", *night(Stage(tmp_path), seed=1))


def test_a_night_on_postgresql_files_one_draft_for_everybody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with PostgresServer() as postgres:
        report(capsys, "PostgreSQL, 2 workers", *night(Stage(tmp_path, postgres), seed=2))


def night(
    stage: Stage, seed: int, kills: int = KILLS, admissions: int = ADMISSIONS
) -> tuple[Ledger, Mapping[str, object]]:
    """Kill and change, let it come to rest, and look."""
    started = time.monotonic()
    stays = fill(stage.folder / "ehr", tiny_charts(admissions))
    wards = Wards(stage, dict(enumerate(stays)), seed)
    with stage:
        stage.put({"resourceType": "Practitioner", "id": "soak", "name": [{"family": "Attending"}]})
        wards.begin()
        moments = kill_all(stage, wards, kills, seed)
        wards.end()
        killed_for = time.monotonic() - started
        stage.wait_ready()
        sweeps = come_to_rest(stage)
        exits = [worker.stop() for worker in stage.crew]
        ledger = take(stage, wards)
        assert exits == [0] * len(stage.crew), [worker.said[-500:] for worker in stage.crew]
    return ledger, {
        "kills": dict(stage.kills),
        "kills in all": stage.kills.total(),
        "at a chosen moment": dict(moments),
        "ended by themselves": dict(stage.ended_alone),
        "on the wards": dict(wards.acts),
        "sweeps to rest": [(one["runs"], one["unchanged"], one["failed"]) for one in sweeps],
        "admissions": ledger.admissions,
        "drafts": ledger.drafts,
        "attested": ledger.attested,
        "documents": ledger.documents,
        "lost": len(ledger.lost),
        "doubled": len(ledger.doubled),
        "seconds": round(time.monotonic() - started),
        "seconds of kills": round(killed_for),
    }


def kill_all(stage: Stage, wards: Wards, kills: int, seed: int) -> Counter[str]:
    """Kill what is planned, each at its moment where that comes, and start it again after a while."""
    dice = random.Random(seed)
    queue = Queue(stage.folder / "home", stage.database_url)
    moments: Counter[str] = Counter()
    for number, (target, moment) in enumerate(plan(stage.targets, kills, seed), 1):
        stage.tend()
        wait_for_a_worker(stage)
        is_met = moment != "any" and queue.wait_for(moment, MOMENT_S)
        stage.kill(target)
        moments[moment if is_met else "any"] += 1
        time.sleep(dice.uniform(*AWAY_S))
        stage.start(target)
        if number in ATTESTED_AFTER:
            attest_one(stage, wards, dice)
    return moments


def wait_for_a_worker(stage: Stage, timeout_s: float = 60.0) -> None:
    """Let one worker at least be at work: a house where none ever comes up is another test."""
    until = time.monotonic() + timeout_s
    while not any(worker.is_ready for worker in stage.crew) and time.monotonic() < until:
        stage.tend()
        time.sleep(0.05)


def attest_one(stage: Stage, wards: Wards, dice: random.Random) -> None:
    """Have a clinician make one of the drafts final; what changes afterwards stands beside it."""
    said: list[str] = []
    until = time.monotonic() + PATIENCE_S
    with wards.paused():
        while time.monotonic() < until:
            drafts = [one for one in whole_drafts(stage, wards) if one[0] not in wards.kept]
            if drafts:
                number, document = dice.choice(drafts)
                done = stage.command("attest", document, "--by", "Practitioner/soak", "--json")
                said.append(done.stderr[-300:])
                if done.returncode == 0:
                    wards.keep(number)
                    return
            time.sleep(0.5)
    pytest.fail(f"no draft could be attested: {said}")


def come_to_rest(stage: Stage) -> list[dict[str, int]]:
    """Sweep until a pass finds nothing to do, and let the workers empty the queue."""
    sweeps: list[dict[str, int]] = []
    while len(sweeps) < MOST_SWEEPS:
        sweeps.append(stage.sweep())
        if not sweeps[-1]["runs"] and not sweeps[-1]["failed"]:
            break
    queue, until = Queue(stage.folder / "home", stage.database_url), time.monotonic() + PATIENCE_S
    while left := queue.left():
        assert time.monotonic() < until, f"the queue does not get empty: {left}"
        time.sleep(0.1)
    return sweeps


def told(capsys: pytest.CaptureFixture[str], title: str, figures: Mapping[str, object]) -> None:
    """Print figures, whatever becomes of the test."""
    with capsys.disabled():
        sys.stdout.write(f"\n{title}: {json.dumps(figures)}\n")


def report(
    capsys: pytest.CaptureFixture[str], title: str, ledger: Ledger, figures: Mapping[str, object]
) -> None:
    """Print the figures, and let nothing be wrong."""
    told(capsys, title, figures)
    assert not ledger.faults
    assert ledger.attested == len(ATTESTED_AFTER)
    assert ledger.drafts == ledger.admissions
