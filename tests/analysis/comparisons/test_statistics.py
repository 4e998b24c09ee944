"""Paired changes, against hand calculations and scipy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.comparisons.statistics import (
    Change,
    holm,
    paired_change,
    seeds_needed,
    t_interval,
    t_test_power,
    verdict,
)


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


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    """An arm differs if every family with it has a p value below the level over its size."""
    p_values = list(np.random.default_rng(0).uniform(size=9) ** 3)
    expected = [0.0] * len(p_values)
    for size in range(1, len(p_values) + 1):
        for family in itertools.combinations(range(len(p_values)), size):
            p = min(1.0, size * min(p_values[arm] for arm in family))
            for arm in family:
                expected[arm] = max(expected[arm], p)
    assert holm(p_values) == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 4])
@pytest.mark.parametrize("effect", [0.01, 0.3, 1.0, 5.0])
def test_power_is_that_of_known_mean_and_uncertain_spread(
    effect: float, alpha: float, power: Callable[..., float]
) -> None:
    pairs = np.array([3, 4, 8, 34, 200])
    found = t_test_power(effect, pairs, alpha)
    expected = [power(effect, int(n), alpha) for n in pairs]
    assert found == pytest.approx(expected, rel=0, abs=1e-12)


def test_power_agrees_with_that_of_simulated_studies() -> None:
    samples = np.random.default_rng(0).normal(0.5, 1, size=(100_000, 34))
    found = np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05)
    power = t_test_power(0.5, np.array([34]), 0.05)[0]
    assert found == pytest.approx(power, abs=4 * math.sqrt(0.16 / 100_000))


@pytest.mark.parametrize("effect", [5, 10, 40, 1e3, 1e6])
def test_power_of_large_effects_is_a_number(effect: float) -> None:
    assert t_test_power(effect, np.arange(3, 1000), 0.05) == pytest.approx(1, abs=0.03)


def test_as_many_seeds_are_needed_as_a_book_says() -> None:
    # Cohen's medium and large effects with a power of 80 % at 5 %: 34 and 15 pairs.
    assert seeds_needed(1.0, 100 * math.expm1(0.5)) == 34
    assert seeds_needed(1.0, 100 * math.expm1(0.8)) == 15


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
        (Change(4, -10, -15, -5, 0.01), 0.06, "inconclusive"),
        (Change(4, 1, -3, 4, 0.5), 0.5, "no difference"),
    ],
)
def test_a_verdict_needs_seeds_and_a_corrected_p(change: Change, p: float, expected: str) -> None:
    assert verdict(change, p) == expected
