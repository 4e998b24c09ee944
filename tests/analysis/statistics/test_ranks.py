"""The signed-rank test and its interval, against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.ranks import (
    fewest_ranked,
    rank_interval,
    rank_p_value,
    signed_rank_cdf,
    typical,
)

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize("n", [6, 9, 20])
def test_p_is_that_of_scipy(n: int) -> None:
    logs = np.random.default_rng(n).normal(0.4, 1, n)
    assert rank_p_value(logs.tolist()) == pytest.approx(stats.wilcoxon(logs).pvalue)


def test_the_null_distribution_counts_all_signs() -> None:
    # Of the 8 ways to sign the ranks 1, 2 and 3: sums 0, 1, 2, 3, 3, 4, 5, 6.
    assert (8 * signed_rank_cdf(3)).tolist() == [1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3, 0.05 / 8])
def test_the_fewest_pairs_are_those_whose_signs_alone_decide(alpha: float) -> None:
    n = fewest_ranked(alpha)
    for pairs, decided in ((n, True), (n - 1, False)):
        assert (rank_p_value([1.0 + place for place in range(pairs)]) <= alpha) == decided
        assert math.isfinite(rank_interval([1.0] * pairs, alpha)[0]) == decided


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3])
def test_the_interval_holds_what_the_test_does_not_reject(alpha: float) -> None:
    logs = np.random.default_rng(3).normal(0.1, 0.1, 9)
    low, high = rank_interval(logs.tolist(), alpha)
    for shift, kept in ((low - 1e-9, False), (low + 1e-9, True), (high - 1e-9, True)):
        assert (stats.wilcoxon(logs - shift).pvalue > alpha) == kept
    assert stats.wilcoxon(logs - high - 1e-9).pvalue <= alpha


def test_the_estimate_is_the_median_of_the_averages_of_pairs() -> None:
    # Averages of 0, 1 and 5: 0, 0.5, 1, 2.5, 3, 5.
    assert typical([0.0, 1.0, 5.0]) == pytest.approx(1.75)


def test_a_bad_seed_moves_the_estimate_little() -> None:
    good = [-0.08, -0.09, -0.07, -0.085, -0.075, -0.08, -0.082]
    assert typical([*good, 3.0]) == pytest.approx(-0.08, abs=0.005)
    assert typical([*good, INF]) == pytest.approx(typical([*good, 3.0]))


def test_a_failure_is_worse_than_any_error() -> None:
    others = [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.7]
    assert rank_p_value([*others, INF]) == rank_p_value([*others, 9.0])
    assert rank_interval([*others, INF], 0.01)[1] == INF
    assert rank_p_value([*others, -INF]) == rank_p_value([*others, -9.0])


def test_where_both_failed_the_worse_of_both_counts() -> None:
    others = [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.7]
    for sign in (1, -1):
        logs = [sign * log for log in others]
        low, high = rank_interval([*logs, NAN], 0.05)
        assert low == rank_interval([*logs, -INF], 0.05)[0]
        assert high == rank_interval([*logs, INF], 0.05)[1]
        assert rank_p_value([*logs, NAN]) == max(rank_p_value([*logs, x]) for x in (INF, -INF))


def test_without_a_typical_pair_there_is_no_estimate() -> None:
    assert math.isnan(typical([-0.08] * 3 + [INF] * 5))
    assert math.isnan(typical([0.0] * 4 + [-INF] * 4))
    assert math.isfinite(typical([0.0] * 6 + [-INF] * 2))


def test_opposite_failures_cancel_in_nothing() -> None:
    logs = [0.01, -0.01, 0.02, -0.02, INF, -INF, 0.0]
    low, high = rank_interval(logs, 0.05)
    assert (low, high) == (-INF, INF)
    assert rank_p_value(logs) == 1
