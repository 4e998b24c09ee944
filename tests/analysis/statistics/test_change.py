"""Paired changes, against hand calculations and scipy."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.statistics.change import Change, change_of, log_ratios, paired_change, t_interval
from analysis.statistics.ranks import rank_interval, rank_p_value


def series(*values: float) -> pd.Series[float]:
    return pd.Series(values, index=range(len(values)))


def test_halved_and_doubled_errors_cancel() -> None:
    change = paired_change(series(1.0, 4.0), series(2.0, 2.0))
    assert change.percent == pytest.approx(0)


def test_change_agrees_with_a_hand_calculation() -> None:
    change = paired_change(series(0.9, 0.81, 0.9), series(1.0, 1.0, 1.0))
    step = math.log(0.9)  # Logs are 1, 2 and 1 steps: mean 4/3, s.d. 1/sqrt(3), t = 4.30265.
    assert change.n == 3
    assert change.percent == pytest.approx(100 * (math.exp(4 / 3 * step) - 1))
    assert change.low == pytest.approx(100 * (math.exp((4 / 3 + 4.30265 / 3) * step) - 1), abs=1e-4)
    assert change.high == pytest.approx(
        100 * (math.exp((4 / 3 - 4.30265 / 3) * step) - 1), abs=1e-4
    )


@pytest.mark.parametrize(("pairs", "family"), [(5, 1), (6, 3), (6, 8)])
def test_interval_and_p_of_few_pairs_agree_with_a_t_test_on_the_logs(
    pairs: int, family: int
) -> None:
    rng = np.random.default_rng(0)
    arm, reference = rng.uniform(1, 2, size=(2, pairs))
    change = paired_change(series(*arm), series(*reference), family)
    test = stats.ttest_1samp(np.log(arm / reference), 0)
    interval = test.confidence_interval(1 - 0.05 / family)
    assert change.p == pytest.approx(test.pvalue)
    assert (change.low, change.high) == pytest.approx(
        (100 * math.expm1(interval.low), 100 * math.expm1(interval.high))
    )


def test_only_seeds_of_both_arms_are_compared() -> None:
    arm = pd.Series([1.0, 9.0], index=[0, 7])
    assert paired_change(arm, pd.Series([2.0], index=[0])).n == 1


@pytest.mark.parametrize("values", [[], [1.0]])
def test_fewer_than_two_values_have_no_interval(values: list[float]) -> None:
    assert all(math.isnan(end) for end in t_interval(values))


def test_one_pair_has_no_interval() -> None:
    change = paired_change(series(1.0), series(2.0))
    assert (change.n, change.percent) == (1, pytest.approx(-50))
    assert math.isnan(change.low)
    assert math.isnan(change.high)


def test_equal_errors_change_nothing() -> None:
    change = paired_change(series(1.0, 2.0), series(1.0, 2.0))
    assert change == Change(2, 0.0, 0.0, 0.0, 1.0, 0.0)


@pytest.mark.parametrize(("pairs", "family"), [(6, 1), (7, 3), (9, 8)])
def test_from_where_signs_can_decide_ranks_do(pairs: int, family: int) -> None:
    logs = np.random.default_rng(pairs).normal(-0.1, 0.1, pairs).tolist()
    change = change_of(logs, family)
    low, high = rank_interval(logs, 0.05 / family)
    assert (change.low, change.high) == (100 * math.expm1(low), 100 * math.expm1(high))
    assert change.p == rank_p_value(logs)
    assert change.adjusted == min(1, family * change.p)


def test_an_interval_of_a_larger_family_is_wider() -> None:
    change = change_of([0.1, 0.2, 0.15, 0.12])
    wide = change.simultaneous(4)
    test = stats.ttest_1samp([0.1, 0.2, 0.15, 0.12], 0).confidence_interval(1 - 0.05 / 4)
    assert (wide.low, wide.high) == pytest.approx(
        (100 * math.expm1(test.low), 100 * math.expm1(test.high))
    )
    assert wide.percent == change.percent
    assert wide.simultaneous(1) == change


def test_failures_are_pairs_and_missing_trials_are_not() -> None:
    inf, nan = math.inf, math.nan
    arm = series(1.0, inf, 1.0, inf, nan, 1.0)
    logs = log_ratios(arm, series(2.0, 1.0, inf, inf, 1.0))
    assert logs.tolist() == pytest.approx([math.log(0.5), inf, -inf, nan], nan_ok=True)
    change = paired_change(arm, series(2.0, 1.0, inf, inf, 1.0))
    assert (change.n, change.ended, change.missing) == (1, 4, 2)
    assert (change.failed, change.reference_failed) == (2, 2)


def test_few_pairs_with_a_failure_have_no_interval() -> None:
    change = change_of([-0.08, -0.09, math.inf, -0.07, -0.08])
    assert all(math.isnan(x) for x in (change.percent, change.low, change.high, change.p))
    assert change.n == 4
