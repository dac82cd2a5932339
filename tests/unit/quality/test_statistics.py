"""Intervals and tests, against published values and SciPy's."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from service.quality.statistics import (
    clustered_share,
    compare_shares,
    mcnemar,
    middle,
    paired_difference,
    ratio,
    share,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 29), (15, 148), (81, 263), (10, 10), (999, 1000)])
def test_a_share_has_wilsons_interval(hits: int, n: int) -> None:
    found = share(hits, n)
    assert found is not None
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert (found.value, found.n) == (hits / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_newcombes_example_of_wilsons_interval() -> None:
    found = share(81, 263)  # Newcombe 1998, table I, method 3
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_a_share_of_nothing_is_not_known() -> None:
    assert share(0, 0) is None
    assert clustered_share([(0, 0)]) is None
    assert middle([]) is None
    assert ratio([(1.0, 0.0)]) is None
    assert paired_difference([(1, 0)], [(1, 1)]) is None


def test_statements_of_charts_that_agree_with_each_other_tell_less_than_as_many_single_ones() -> None:
    alone = share(50, 100)
    mixed = clustered_share([(5, 10)] * 10)
    alike = clustered_share([(10, 10)] * 5 + [(0, 10)] * 5)
    assert alone is not None
    assert mixed is not None
    assert alike is not None
    assert (mixed.low, mixed.high) == pytest.approx((alone.low, alone.high))
    # Each chart speaks with one voice: ten charts, not a hundred statements, with k/(k-1) for the estimate.
    ten = share(5, 10)
    assert ten is not None
    assert alike.high - alike.low == pytest.approx(ten.high - ten.low, rel=0.06)
    assert (alike.value, alike.n) == (0.5, 100)


def test_a_share_of_all_has_a_lower_bound_below_one() -> None:
    found = clustered_share([(7, 7), (8, 8)])
    assert found is not None
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(stats.binomtest(15, 15).proportion_ci(method="wilson").low)


@pytest.mark.parametrize("n", [6, 11, 50, 400, 1001])
def test_a_medians_interval_holds_it_in_95_of_100(n: int) -> None:
    found = middle([float(number) for number in range(n)])
    assert found is not None
    rank = int(found.low)
    assert (found.value, found.high) == ((n - 1) / 2, n - 1 - rank)
    # P(fewer than rank + 1 of n below the median), twice, is what is outside.
    assert 2 * stats.binom.cdf(rank, n, 0.5) <= 0.05 + 1e-3
    assert 2 * stats.binom.cdf(rank + 1, n, 0.5) > 0.05 - 1e-3


def test_few_values_span_their_whole_range() -> None:
    found = middle([3.0, 1.0, 2.0])
    assert found is not None
    assert (found.low, found.value, found.high) == (1.0, 2.0, 3.0)


@given(
    st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60)).filter(
        lambda four: four[0] + four[1] > 0 and four[2] + four[3] > 0
    )
)
@settings(deadline=None, max_examples=60)
def test_two_shares_are_compared_as_scipy_does(four: tuple[int, int, int, int]) -> None:
    a, b, c, d = four
    found = compare_shares(a, a + b, c, c + d)
    n, m = a + b, c + d
    pooled = (a + c) / (n + m)
    expected = [size * part for size in (n, m) for part in (pooled, 1 - pooled)]
    if min(expected) < 5:
        assert found == pytest.approx(stats.fisher_exact([[a, b], [c, d]])[1], abs=1e-6)
    else:
        chi = stats.chi2_contingency([[a, b], [c, d]], correction=False)
        assert found == pytest.approx(chi.pvalue, abs=1e-9)


def test_a_share_of_nothing_differs_from_none() -> None:
    assert compare_shares(0, 0, 5, 10) == 1.0


@pytest.mark.parametrize(("one", "other"), [(0, 0), (1, 9), (5, 5), (0, 6), (30, 12), (400, 350)])
def test_mcnemar_is_a_fair_coins_test(one: int, other: int) -> None:
    n = one + other
    expected = stats.binomtest(one, n).pvalue if n else 1.0
    assert mcnemar(one, other) == pytest.approx(expected, abs=1e-9)


def test_a_ratio_and_its_bootstrap_agree_with_scipys() -> None:
    pairs = [(float(7 + number % 5), 10.0 + number % 3) for number in range(40)]
    found = ratio(pairs)
    assert found is not None
    assert found.value == pytest.approx(sum(a for a, _ in pairs) / sum(b for _, b in pairs))
    other = stats.bootstrap(
        tuple(zip(*pairs, strict=True)), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True,
        vectorized=True, method="percentile", rng=1,
    )  # fmt: skip
    low, high = other.confidence_interval
    width = high - low
    assert math.isclose(found.low, low, abs_tol=width / 8)
    assert math.isclose(found.high, high, abs_tol=width / 8)
    assert ratio(pairs) == found  # the same runs, the same figures


def test_a_paired_difference_is_zero_where_both_are_the_same_and_narrow_where_all_differ_alike() -> None:
    one = [(float(number % 4), 4.0) for number in range(30)]
    same = paired_difference(one, one)
    assert same is not None
    assert (same.low, same.value, same.high) == (0.0, 0.0, 0.0)
    more = paired_difference([(a + 0.4, b) for a, b in one], one)
    assert more is not None
    assert (more.low, more.value, more.high) == pytest.approx((0.1, 0.1, 0.1))
    mixed = paired_difference(one, one[::-1])
    assert mixed is not None
    assert mixed.low < 0 < mixed.high
