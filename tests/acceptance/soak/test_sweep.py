"""`epicrisis sweep --json`: what a pass costs without news and with some, and when two passes meet."""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fixtures.inpatients import SIZE, Stay, fill, make_inpatients, new_allergy, new_result, tiny_charts
from tests.acceptance.soak.ledger import take
from tests.acceptance.soak.memory import sweep_watched
from tests.acceptance.soak.stage import Stage
from tests.acceptance.soak.wards import Wards, change_of, name_of

KEYS = {"admissions", "runs", "unchanged", "skipped", "failed", "engine_calls", "fhir_requests", "seconds"}
_YEARS_AGO = date(2019, 3, 4)
CHANGED = 5
WARM = 80
"""After so many visits everything is loaded that a worker needs."""
MOST_GROWTH = 0.1
REQUESTS_EACH = 3
"""Requests for an admission of which there is no news: fewer than this."""


def told(capsys: pytest.CaptureFixture[str], what: str, report: dict[str, Any]) -> None:
    """Print the figures that the issue asks for."""
    with capsys.disabled():
        sys.stdout.write(f"\n{what}: {json.dumps({key: report[key] for key in sorted(KEYS)})}\n")


def test_two_hundred_inpatients_swept_again_cost_no_engine_time_and_few_requests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hospital = make_inpatients()
    stage = Stage(tmp_path, workers=0, more={"EPICRISIS_ENGINE": "scripted", "EPICRISIS_SWEEP_VISITS": "8"})
    hospital.copy_to(stage.folder / "ehr")
    with stage:
        watched, second = sweep_watched(stage), stage.sweep()
        first, warm, end = watched.report, watched.held_after(WARM), watched.held_at_the_end
        told(capsys, f"First pass of 200 ({warm:.0f} MB after {WARM}, {end:.0f} MB at the end)", first)
        told(capsys, "Second pass, no news", second)
        for stay in hospital.stays[:: SIZE // CHANGED]:
            stage.put({**new_allergy(stay, "Latex"), "id": f"news-{stay.patient.rpartition('/')[2]}"})
        third = stage.sweep()
        told(capsys, "Third pass, five changed", third)
    assert set(first) >= KEYS
    assert watched.growth(WARM) < MOST_GROWTH
    assert (first["admissions"], first["runs"], first["failed"]) == (SIZE, SIZE, 0)
    assert (second["admissions"], second["unchanged"], second["runs"]) == (SIZE, SIZE, 0)
    assert second["engine_calls"] == 0
    assert second["fhir_requests"] < REQUESTS_EACH * SIZE
    assert (third["runs"], third["unchanged"], third["failed"]) == (CHANGED, SIZE - CHANGED, 0)
    assert third["engine_calls"] > 0


def test_skipped_admissions_are_told_by_reason_and_count(tmp_path: Path) -> None:
    charts = list(tiny_charts(3))
    charts[0][0]["birthDate"] = "2020-01-02"
    fill(tmp_path / "ehr", charts)
    with Stage(tmp_path, workers=0, more={"EPICRISIS_ENGINE": "scripted"}) as stage:
        report = stage.sweep()
    assert (report["admissions"], report["runs"]) == (3, 2)
    assert [set(one) for one in report["skipped"]] == [{"reason", "count"}]
    assert [one["count"] for one in report["skipped"]] == [1]


def test_a_change_that_no_summary_rests_on_is_no_run(tmp_path: Path) -> None:
    stays = fill(tmp_path / "ehr", tiny_charts(2))
    with Stage(tmp_path, workers=0, more={"EPICRISIS_ENGINE": "scripted"}) as stage:
        assert stage.sweep()["runs"] == 2
        stage.put(_old_weight(stays[0]))
        report = stage.sweep()
    assert (report["runs"], report["unchanged"], report["engine_calls"]) == (0, 2, 0)


def _old_weight(stay: Stay) -> dict[str, Any]:
    """A result of a kind that the chart does not have yet, from years ago."""
    result = new_result(stay, 70, _YEARS_AGO, "old-weight")
    return {**result, "code": {"coding": [{"system": "http://loinc.org", "code": "32623-1"}], "text": "MPV"}}


def test_two_passes_at_once_make_one_run_of_each_admission(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 12
    stays = fill(tmp_path / "ehr", tiny_charts(count))
    stage = Stage(tmp_path, workers=0)
    wards = Wards(stage, dict(enumerate(stays)), seed=0)
    with stage:
        for round_number in range(2):
            passes = [stage.begin("sweep", "--json") for _ in range(2)]
            ended = [one.communicate(timeout=300) for one in passes]
            reports = [json.loads(stdout) for stdout, _ in ended]
            for report in reports:
                told(capsys, f"Two passes at once, round {round_number + 1}", report)
            assert [one.returncode for one in passes] == [0, 0], [stderr[-500:] for _, stderr in ended]
            assert [one["admissions"] for one in reports] == [count, count]
            assert sum(one["runs"] for one in reports) == count
            for number, stay in enumerate(stays):
                stage.put(change_of(stay, number, round_number))
                wards.told.setdefault(number, []).append(name_of(number, round_number))
        assert stage.sweep()["runs"] == count
        ledger = take(stage, wards)
    assert not ledger.faults
    assert ledger.documents == 3 * count
