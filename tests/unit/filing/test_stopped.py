"""Which runs a stop concerns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.filing.stopped import find_stop, is_stopped, wards_of
from service.ports import Stop, StopScope, StoredRun
from service.record.facts import FactId, Kind, ResourceVersion, Status
from tests.unit.writeback.charts import CREATED, fact, make_run, make_summary


def stay(number: int, ward: str, status: Status) -> StoredRun:
    encounter = fact(
        number,
        "Admission",
        id=FactId(f"Encounter/{number}"),
        kind=Kind.ENCOUNTER,
        source=ResourceVersion(f"Encounter/{number}", "1", "0" * 64),
        status=status,
        details=(("location", ward),),
    )
    return make_run(summary=make_summary(facts=(*make_summary().facts, encounter)))


@pytest.mark.parametrize(
    ("scope", "value", "stopped"),
    [
        (StopScope.ALL, "", True),
        (StopScope.MODEL, "f" * 64, True),
        (StopScope.MODEL, "google/medgemma-1.5-4b-it", True),
        (StopScope.MODEL, "google/medgemma", False),
        (StopScope.MODEL, "", False),
        (StopScope.PROMPT, "history", True),
        (StopScope.PROMPT, "history@3", True),
        (StopScope.PROMPT, "history@30", False),
        (StopScope.PROMPT, "hist", False),
        (StopScope.WARD, "ward 7", True),
        (StopScope.WARD, "Ward 7B", True),
        (StopScope.WARD, "Ward", False),
        (StopScope.WARD, "", False),
    ],
)
def test_a_run_is_stopped_by_what_concerns_it(scope: StopScope, value: str, stopped: bool) -> None:
    run = stay(9, "Ward 7, Ward 7B", Status.IN_PROGRESS)
    assert is_stopped(run, [Stop(scope, value, CREATED, "x")]) is stopped


def test_a_ward_of_a_stay_that_has_ended_does_not_count_unless_it_is_at_hand() -> None:
    run = stay(9, "Ward 7", Status.COMPLETED)
    assert wards_of(run) == ()
    assert wards_of(replace(run, inputs=replace(run.inputs, encounter="Encounter/9"))) == ("Ward 7",)


def test_without_stops_nothing_is_stopped_and_the_first_that_concerns_it_is_told() -> None:
    run = make_run()
    first, second = (Stop(StopScope.PROMPT, v, CREATED, "x") for v in ("other", "history"))
    assert find_stop(run, []) is None
    assert find_stop(run, [first, second]) is second
