"""Power and numbers of seeds, by an integral, by simulation and by the book."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.change import change_of
from analysis.statistics.power import seeds_needed, t_test_power


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
    # Cohen's medium and large effects with a power of 80 % at 5 %: 34 and 15 pairs of a t test, of
    # which the signed-rank test needs π / 3 times as many.
    assert seeds_needed(1.0, 100 * math.expm1(0.5)) == math.ceil(34 * math.pi / 3)
    assert seeds_needed(1.0, 100 * math.expm1(0.8)) == math.ceil(15 * math.pi / 3)
    assert seeds_needed(1.0, 100 * math.expm1(3)) == 4


@pytest.mark.parametrize("family", [1, 3])
@pytest.mark.parametrize("effect", [0.8, 1.2, 1.6])
def test_the_seeds_that_are_asked_for_find_the_change(effect: float, family: int) -> None:
    seeds = seeds_needed(1 / effect, 100 * math.expm1(1), family)
    assert seeds is not None
    samples = np.random.default_rng(0).normal(effect, 1, size=(1000, seeds))
    found = np.mean([change_of(sample, family).low > 0 for sample in samples.tolist()])
    assert 0.8 - 4 * math.sqrt(0.16 / 1000) <= found < 0.95
