"""Alarms: where the last weeks are not as good as those before them.

Each model with its prompt is compared with itself, and all of them together with all, so that a new version
is compared too. Shares are compared by a two-proportion test (Fisher's where counts are small) and not by a
cumulative sum: the weeks hold very different numbers of summaries, the baseline is itself an estimate, and a
reader can do the sum again from the table beside the chart. The level is shared out among the comparisons
that are made (Bonferroni), and a difference must also be large enough to matter. Times, and what clinicians
changed, are no independent counts: they are compared by intervals, which must not meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.quality.statistics import compare_shares
from service.quality.thresholds import DriftLimits
from service.quality.trends import KINDS, MeasureKind, Series, Tally, Trends

_BY_INTERVAL = ("latency", "edited")
EVERYTHING = Series("all prompts", "All models", "")


@dataclass(frozen=True, slots=True)
class Alarm:
    """One measure that became worse."""

    series: Series
    kind: MeasureKind
    before: Tally
    now: Tally
    p: float | None
    """Before it is shared out; None of times."""

    @property
    def sentence(self) -> str:
        """Say what became worse, in words."""
        before, now = (_told(self.kind, tally) for tally in (self.before, self.now))
        chance = f" (p = {self.p:.2g})" if self.p is not None else ""
        return f"{self.kind.title}: {now} in the last weeks, {before} before{chance}. {self.series.name}."


@dataclass(frozen=True, slots=True)
class Watched:
    """What a look for drift came to. `thin` are the measures of which too little was counted to say."""

    alarms: tuple[Alarm, ...]
    compared: int
    thin: tuple[MeasureKind, ...]
    recent: tuple[str, ...]
    baseline: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Comparison:
    series: Series
    kind: MeasureKind
    before: Tally
    now: Tally


def find_drift(trends: Trends, limits: DriftLimits) -> Watched:
    """Return what became worse in the last weeks, against the weeks before them."""
    recent = trends.weeks[-limits.recent_weeks :]
    baseline = trends.weeks[: -limits.recent_weeks][-limits.baseline_weeks :]
    made = [one for one in _comparisons(trends, recent, baseline) if _is_enough(one, limits)]
    alarms = [alarm for one in made if (alarm := _judge(one, limits, len(made))) is not None]
    enough = {one.kind.key for one in made}
    thin = tuple(kind for kind in KINDS if kind.key not in enough)
    return Watched(tuple(alarms), len(made), thin, recent, baseline)


def _comparisons(trends: Trends, recent: Sequence[str], baseline: Sequence[str]) -> Iterator[_Comparison]:
    for kind in KINDS:
        for series in trends.series:
            yield _Comparison(
                series,
                kind,
                trends.over(kind.key, (series,), baseline),
                trends.over(kind.key, (series,), recent),
            )
        if len(trends.series) > 1:
            every = trends.series
            yield _Comparison(
                EVERYTHING, kind, trends.over(kind.key, every, baseline), trends.over(kind.key, every, recent)
            )


def _is_enough(one: _Comparison, limits: DriftLimits) -> bool:
    return all(tally.of >= limits.least_things for tally in (one.before, one.now))


def _judge(one: _Comparison, limits: DriftLimits, comparisons: int) -> Alarm | None:
    if one.kind.key in _BY_INTERVAL:
        return _judge_intervals(one, limits)
    worse = one.before.share - one.now.share if one.kind.good == "high" else one.now.share - one.before.share
    p = compare_shares(one.now.hits, one.now.of, one.before.hits, one.before.of)
    is_drift = worse >= limits.least_change and p < limits.alpha / comparisons
    return Alarm(one.series, one.kind, one.before, one.now, p) if is_drift else None


def _judge_intervals(one: _Comparison, limits: DriftLimits) -> Alarm | None:
    before, now = one.before.estimate, one.now.estimate
    if before is None or now is None:
        return None
    far = limits.slower * before.value if one.kind.unit else before.value + limits.least_change
    is_worse = now.value >= far and now.low > before.high
    return Alarm(one.series, one.kind, one.before, one.now, None) if is_worse else None


def _told(kind: MeasureKind, tally: Tally) -> str:
    if tally.estimate is None:
        return "nothing"
    if kind.unit:
        return f"{tally.estimate.value:.1f} {kind.unit}"
    return f"{tally.estimate.value:.1%} of {tally.of:,}"
