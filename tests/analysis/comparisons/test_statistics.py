"""Paired changes, against hand calculations and scipy."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.comparisons.statistics import Change, holm, paired_change, t_interval, verdict


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


def test_interval_and_p_agree_with_a_t_test_on_the_logs() -> None:
    rng = np.random.default_rng(0)
    arm, reference = rng.uniform(1, 2, size=(2, 6))
    change = paired_change(series(*arm), series(*reference))
    test = stats.ttest_1samp(np.log(arm / reference), 0)
    interval = test.confidence_interval(0.95)
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


def test_holm_agrees_with_statsmodels() -> None:
    p_values = list(np.random.default_rng(0).uniform(size=9) ** 3)
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_holm_agrees_with_a_hand_calculation() -> None:
    adjusted = holm([0.04, math.nan, 0.01, 0.03])
    assert adjusted[0] == adjusted[3] == pytest.approx(0.06)
    assert adjusted[2] == pytest.approx(0.03)
    assert math.isnan(adjusted[1])


@pytest.mark.parametrize(
    ("change", "p", "expected"),
    [
        (Change(2, -50, -51, -49, 0.001), 0.001, "too few seeds"),
        (Change(4, -10, -15, -5, 0.01), 0.01, "lower"),
        (Change(4, 10, 5, 15, 0.01), 0.01, "higher"),
        (Change(4, -10, -15, -5, 0.01), 0.06, "cannot tell"),
        (Change(4, 1, -3, 4, 0.5), 0.5, "no difference"),
    ],
)
def test_a_verdict_needs_seeds_and_a_corrected_p(change: Change, p: float, expected: str) -> None:
    assert verdict(change, p) == expected
