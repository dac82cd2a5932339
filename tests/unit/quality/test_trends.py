"""Quality over time, and alarms where it became worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from fixtures.facts import NOW
from service.errors import SettingsError
from service.ports.attesting import Attested
from service.ports.quality import Counts, Group, Measure
from service.ports.reviews import Omission, Review, Rule, Score, Support
from service.ports.runs import RunId
from service.quality.chart import draw_trend
from service.quality.drift import find_drift
from service.quality.thresholds import DriftLimits, Thresholds, read_thresholds
from service.quality.trends import KINDS, Trends, Wanted, read_trends
from tests.conftest import ROOT
from tests.unit.quality.in_memory import InMemoryQuality

TODAY = date(2026, 11, 29)
GROUP = Group("2026-11-23", "small", "d1", "history@1", "Ward 7")
GOOD = Counts(claims=20, supported=20, told=8, added=2, headings=5, seconds=4.0)
WEEKS = [(date(2026, 11, 23) - timedelta(weeks=back)).isoformat() for back in range(12)]


def filled(
    store: InMemoryQuality, counts: Callable[[str], Counts], runs: int = 10, group: Group = GROUP
) -> None:
    for week in WEEKS:
        for number in range(runs):
            run_id = RunId(f"{group.prompt}-{group.model}-{week}-{number}")
            store.keep(Measure(run_id, NOW, replace(group, week=week), "t", "6", counts(week)))


def trends(
    store: InMemoryQuality, wanted: Wanted | None = None, **more: list[Review] | list[Attested]
) -> Trends:
    return read_trends(store, wanted or Wanted(weeks=12), TODAY, **more)[0]  # type: ignore[arg-type]


def test_a_measure_is_told_by_week_and_series_with_its_interval() -> None:
    store = InMemoryQuality()
    filled(store, lambda week: GOOD if week != WEEKS[0] else replace(GOOD, supported=10))
    found = trends(store)
    (series,) = found.series
    assert found.weeks == tuple(reversed(WEEKS))
    assert found.runs[series] == 120
    last = found.estimate("support", series, WEEKS[0])
    before = found.estimate("support", series, WEEKS[1])
    assert last is not None
    assert before is not None
    assert (last.value, last.n, before.value) == (0.5, 200, 1.0)
    assert last.low < 0.5 < last.high
    told = found.estimate("told", series, WEEKS[0])
    assert told is not None
    assert (told.value, told.n) == (0.8, 100)
    assert found.estimate("hallucinated", series, WEEKS[0]) is None


@pytest.mark.parametrize(
    ("wanted", "runs"),
    [
        (Wanted(model="d2"), 12),
        (Wanted(prompt="history@1"), 24),
        (Wanted(ward="Ward 7"), 24),
        (Wanted(ward="x"), 0),
    ],
)
def test_runs_are_filtered_by_model_prompt_and_ward(wanted: Wanted, runs: int) -> None:
    store = InMemoryQuality()
    filled(store, lambda week: GOOD, 1)
    filled(store, lambda week: GOOD, 1, replace(GROUP, model="large", model_digest="d2"))
    filled(store, lambda week: GOOD, 1, replace(GROUP, prompt="history@2", ward=""))
    assert sum(trends(store, replace(wanted, weeks=12)).runs.values()) == runs


def review(run_id: RunId, *supports: Support, missed: bool = False) -> Review:
    scores = tuple(Score(run_id, number, "user:r", NOW, one) for number, one in enumerate(supports))
    omissions = (Omission(run_id, "user:r", NOW, "something"),) if missed else ()
    return Review(run_id, "user:r", Rule.RANDOM, NOW, "Patient/1", scores=scores, omissions=omissions)


def attested(run_id: RunId, distance: int) -> Attested:
    return Attested(
        run_id, "Patient/1", "DocumentReference/1", "Practitioner/7", "user:c", NOW, NOW, 1, distance, 400
    )


def test_what_reviewers_and_clinicians_found_counts_in_the_week_in_which_the_run_was_made() -> None:
    store = InMemoryQuality()
    filled(store, lambda week: GOOD, 2)
    first, second = list(store.measures)[-2:]  # of the oldest week
    reviews = [
        review(first, Support.SUPPORTED, Support.NOT_SUPPORTED, Support.NOT_ADDRESSED, missed=True),
        review(second, Support.SUPPORTED),
        review(RunId("not counted"), Support.NOT_SUPPORTED),
    ]
    store.marks = {first: 1}
    found = trends(store, reviews=reviews, attestations=[attested(first, 40), attested(second, 0)])
    (series,) = found.series
    told = {kind.key: found.estimate(kind.key, series, WEEKS[-1]) for kind in KINDS}
    values = {key: (one.value, one.n) for key, one in told.items() if one is not None}
    assert values["hallucinated"] == (0.25, 4)
    assert values["omitted"] == (0.5, 2)
    assert values["edited"] == (0.05, 2)
    assert values["marked"] == (0.5, 2)
    assert values["latency"] == (4.0, 2)
    assert found.estimate("hallucinated", series, WEEKS[0]) is None


def test_a_fall_of_support_is_an_alarm_in_words_and_a_steady_one_is_none() -> None:
    steady, fallen = InMemoryQuality(), InMemoryQuality()
    filled(steady, lambda week: replace(GOOD, supported=19))
    filled(fallen, lambda week: GOOD if week not in WEEKS[:2] else replace(GOOD, supported=17))
    assert find_drift(trends(steady), DriftLimits()).alarms == ()
    (alarm,) = find_drift(trends(fallen), DriftLimits()).alarms
    assert alarm.kind.key == "support"
    assert alarm.sentence.startswith("Support: 85.0% of 400 in the last weeks, 100.0% of 1,600 before (p = ")
    assert alarm.sentence.endswith("small · history@1.")


def test_what_became_better_is_no_alarm() -> None:
    store = InMemoryQuality()
    filled(store, lambda week: GOOD if week in WEEKS[:2] else replace(GOOD, supported=15))
    assert find_drift(trends(store), DriftLimits()).alarms == ()


@pytest.mark.parametrize(
    "limits",
    [DriftLimits(least_change=0.2), DriftLimits(least_things=500), DriftLimits(alpha=0.0)],
)
def test_a_change_that_is_small_or_not_certain_or_of_few_things_is_no_alarm(limits: DriftLimits) -> None:
    store = InMemoryQuality()
    filled(store, lambda week: GOOD if week not in WEEKS[:2] else replace(GOOD, supported=17))
    watched = find_drift(trends(store), limits)
    assert watched.alarms == ()
    if limits.least_things == 500:
        assert (watched.compared, "support" in {kind.key for kind in watched.thin}) == (0, True)


def test_the_level_is_shared_out_among_all_comparisons_that_are_made() -> None:
    store = InMemoryQuality()
    counts = replace(GOOD, claims=5, headings=0, told=0, added=0, seconds=0.0)
    filled(store, lambda week: replace(counts, supported=4 if week in WEEKS[:2] else 5), 2)
    filled(store, lambda week: replace(counts, supported=5), 2, replace(GROUP, prompt="history@2"))
    limits = DriftLimits(least_things=20, least_change=0.01)
    (alarm, *_) = find_drift(trends(store), limits).alarms
    assert alarm.p is not None
    watched = find_drift(trends(store), replace(limits, alpha=alarm.p * 1.5))  # once it would be enough
    assert watched.compared == 3
    assert watched.alarms == ()


def test_a_new_version_is_compared_with_what_all_reached_before() -> None:
    store = InMemoryQuality()
    for week in WEEKS:
        is_new = week in WEEKS[:2]
        group = replace(GROUP, week=week, prompt="history@2" if is_new else "history@1")
        for number in range(10):
            counts = replace(GOOD, supported=12) if is_new else GOOD
            store.keep(Measure(RunId(f"{week}-{number}"), NOW, group, "t", "6", counts))
    (alarm,) = find_drift(trends(store), DriftLimits()).alarms
    assert alarm.series.name == "All models · all prompts"


def test_summaries_that_take_much_longer_are_an_alarm() -> None:
    store = InMemoryQuality()
    filled(store, lambda week: replace(GOOD, seconds=9.0 if week in WEEKS[:2] else 4.0), 30)
    (alarm,) = find_drift(trends(store), DriftLimits()).alarms
    assert alarm.sentence.startswith("Time to the checked summary: 9.0 s in the last weeks, 4.0 s before.")
    assert find_drift(trends(store), DriftLimits(slower=3.0)).alarms == ()


def test_a_chart_lies_within_its_frame_and_its_table_says_the_same() -> None:
    store = InMemoryQuality()
    for number in range(8):
        filled(store, lambda week: GOOD, number + 1, replace(GROUP, prompt=f"history@{number}"))
    found = trends(store)
    chart = draw_trend(KINDS[0], found)
    assert chart is not None
    assert (len(chart.lines), chart.not_drawn) == (6, 2)
    assert len(chart.rows) == 8 * 12
    marks = [mark for line in chart.lines for mark in line.marks]
    assert all(0 <= place <= chart.height for mark in marks for place in (mark.low, mark.y, mark.high))
    assert all(mark.high <= mark.y <= mark.low for mark in marks)  # up is less in an SVG
    assert [tick.text for tick in chart.y_ticks] == ["0 %", "25 %", "50 %", "75 %", "100 %"]
    assert chart.rows[0].when == "23-Nov-2026"
    assert draw_trend(KINDS[3], found) is None


@pytest.mark.parametrize("value", [0.0, 0.004, 0.031, 0.2, 0.49])
def test_an_axis_of_small_shares_reaches_over_them(value: float) -> None:
    store = InMemoryQuality()
    counts = replace(GOOD, headings=1000, not_retrieved=round(1000 * value))
    filled(store, lambda week: counts, 1)
    found = trends(store)
    chart = draw_trend(KINDS[2], found)
    assert chart is not None
    assert 2 <= len(chart.y_ticks) <= 6
    marks = [mark for line in chart.lines for mark in line.marks]
    assert min(mark.high for mark in marks) >= chart.y_ticks[-1].at


def test_the_limits_in_the_example_are_those_built_in() -> None:
    assert read_thresholds(ROOT / "ops/quality.toml") == Thresholds() == read_thresholds(None)


@pytest.mark.parametrize(
    "text",
    [
        "[drift",
        "[other]\na = 1",
        "[gate]\nsuport_low = 0.9",
        "[gate]\nsupport_low = 'high'",
        "[gate]\ncoverage = 2",
        "[drift]\nrecent_weeks = 0",
        "gate = 1",
    ],
)
def test_a_file_of_limits_that_would_not_hold_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "quality.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="EPICRISIS_QUALITY"):
        read_thresholds(path)
    with pytest.raises(SettingsError):
        read_thresholds(tmp_path / "none.toml")


def test_a_site_sets_one_limit_and_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "quality.toml"
    path.write_text("[gate]\nsupport_low = 0.9\n")
    limits = read_thresholds(path)
    assert (limits.gate.support_low, limits.gate.coverage, limits.drift) == (0.9, 1.0, DriftLimits())
