"""The statistics that quality is told by. Pure; no dependency but NumPy for resampling.

Which interval stands where, each at 95 %:

* a share of things that are counted one by one (statements, facts, summaries): Wilson's score interval, which
  keeps its coverage near 0 and 1, where our shares lie;
* the same share within an evaluation, whose statements come in charts: Wilson's interval on the effective
  number of statements, which the spread between charts gives (Kish's design effect, never below 1);
* a median: the exact interval between two ordered values (binomial), which assumes nothing of the shape;
* the mean of a quantity per summary, a ratio of two sums, and every paired difference: the percentile
  bootstrap over whole charts, with a fixed seed, so that the same runs give the same figures.

Two shares are compared by the two-proportion z test, and by Fisher's exact test where an expected count is
below 5; the same facts told by two models by McNemar's exact test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import Final

import numpy

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2000
SEED: Final = 20_261
SMALL_EXPECTED: Final = 5.0
"""Below this expected count in a cell the normal approximation is not used (Cochran)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval. `n` is out of how many things it was computed."""

    value: float
    low: float
    high: float
    n: int


def share(hits: int, n: int, confidence: float = CONFIDENCE) -> Estimate | None:
    """Return a share with Wilson's score interval (1927); None of nothing."""
    return _wilson(hits / n, float(n), n, confidence) if n else None


def clustered_share(clusters: Sequence[tuple[int, int]], confidence: float = CONFIDENCE) -> Estimate | None:
    """Return the share of hits in all clusters (hits, n), by Wilson's interval on the effective number.

    Statements of one chart are alike, so that they tell less than as many of many charts. The variance of the
    ratio between charts, by that of independent statements, is the design effect (Kish 1965).
    """
    filled = [(hits, n) for hits, n in clusters if n]
    total = sum(n for _, n in filled)
    if not total:
        return None
    value = sum(hits for hits, _ in filled) / total
    return _wilson(value, total / _design_effect(filled, value, total), total, confidence)


def _design_effect(clusters: Sequence[tuple[int, int]], value: float, total: int) -> float:
    k, simple = len(clusters), value * (1 - value) / total
    if k < 2 or not simple:
        return 1.0
    spread = sum((hits - value * n) ** 2 for hits, n in clusters) * k / (k - 1) / total**2
    return max(1.0, spread / simple)


def _wilson(value: float, effective: float, n: int, confidence: float) -> Estimate:
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    scale = 1 + z * z / effective
    middle = (value + z * z / (2 * effective)) / scale
    half = z / scale * math.sqrt(value * (1 - value) / effective + z * z / (4 * effective**2))
    # The bounds of 0 and 1 are 0 and 1 themselves, whatever rounding says.
    low = 0.0 if value == 0 else max(0.0, middle - half)
    high = 1.0 if value == 1 else min(1.0, middle + half)
    return Estimate(value, low, high, n)


def middle(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate | None:
    """Return the median with the exact interval between two of the ordered values; None of nothing.

    With fewer than six values no such interval reaches 95 %: then it is from the lowest to the highest.
    """
    if not values:
        return None
    ordered, n = sorted(values), len(values)
    below = _lowest_rank(n, (1 - confidence) / 2)
    return Estimate(median(ordered), ordered[below], ordered[n - 1 - below], n)


def _lowest_rank(n: int, tail: float) -> int:
    """Return the highest rank (from 0) whose value lies above the median with at most the tail's chance."""
    if n > 1000:  # the normal approximation is exact to the rank there
        return max(0, math.floor(n / 2 + NormalDist().inv_cdf(tail) * math.sqrt(n) / 2) - 1)
    reached, rank = 0.0, -1
    while reached + (chance := math.comb(n, rank + 1) / 2**n) <= tail:
        reached, rank = reached + chance, rank + 1
    return max(0, rank)


def ratio(pairs: Sequence[tuple[float, float]], confidence: float = CONFIDENCE) -> Estimate | None:
    """Return the sum of the firsts by the sum of the seconds, bootstrapped over pairs; None by nothing.

    With ones as seconds it is the mean.
    """
    data = numpy.asarray([pair for pair in pairs if pair[1]], dtype=float).reshape(-1, 2)
    if not len(data):
        return None
    sums = data[_resampled(len(data))].sum(axis=1)
    low, high = _percentiles(sums[:, 0] / sums[:, 1], confidence)
    value = float(data[:, 0].sum() / data[:, 1].sum())
    return Estimate(value, min(low, value), max(high, value), len(data))


def paired_difference(
    one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]], confidence: float = CONFIDENCE
) -> Estimate | None:
    """Return ratio(one) - ratio(other) on the same charts, bootstrapped over charts; None by nothing."""
    both = numpy.asarray([(*a, *b) for a, b in zip(one, other, strict=True)], dtype=float).reshape(-1, 4)
    if not len(both) or not both[:, 1].sum() or not both[:, 3].sum():
        return None
    sums = both[_resampled(len(both))].sum(axis=1)
    sums = sums[(sums[:, 1] > 0) & (sums[:, 3] > 0)]
    drawn = sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]
    total = both.sum(axis=0)
    value = float(total[0] / total[1] - total[2] / total[3])
    low, high = _percentiles(drawn, confidence) if len(drawn) else (value, value)
    return Estimate(value, min(low, value), max(high, value), len(both))


def _resampled(n: int) -> numpy.ndarray:
    return numpy.random.default_rng(SEED).integers(0, n, size=(RESAMPLES, n))


def _percentiles(drawn: numpy.ndarray, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = numpy.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def compare_shares(hits: int, n: int, other_hits: int, other_n: int) -> float:
    """Return the two-sided p value of two independent shares; 1 where one is of nothing."""
    if not n or not other_n:
        return 1.0
    pooled = (hits + other_hits) / (n + other_n)
    expected = [size * part for size in (n, other_n) for part in (pooled, 1 - pooled)]
    if min(expected) < SMALL_EXPECTED:
        return _fisher(hits, n, other_hits, other_n)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / other_n))
    return math.erfc(abs(hits / n - other_hits / other_n) / error / math.sqrt(2))


def _fisher(hits: int, n: int, other_hits: int, other_n: int) -> float:
    """Return Fisher's exact p: all tables with these margins that are no likelier than the one seen."""
    drawn, total = hits + other_hits, n + other_n
    logs = [
        _log_choose(n, k) + _log_choose(other_n, drawn - k) - _log_choose(total, drawn)
        for k in range(max(0, drawn - other_n), min(n, drawn) + 1)
    ]
    seen = logs[hits - max(0, drawn - other_n)]
    return min(1.0, math.fsum(math.exp(one) for one in logs if one <= seen + 1e-7))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def mcnemar(only_one: int, only_other: int) -> float:
    """Return McNemar's exact two-sided p of discordant pairs: a fair coin's chance of such a split."""
    n = only_one + only_other
    if not n:
        return 1.0
    fewer = min(only_one, only_other)
    log_half = n * math.log(0.5)
    tail = math.fsum(math.exp(_log_choose(n, k) + log_half) for k in range(fewer + 1))
    return min(1.0, 2 * tail)
