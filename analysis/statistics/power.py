"""How many seeds find a change."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics.change import FEWEST, LEVEL
from analysis.statistics.ranks import fewest_ranked

POWER = 0.8
"""Chance of finding an effect, by which the number of seeds is planned."""
MOST_SEEDS = 1000
EFFICIENCY = 3 / math.pi
"""Pairs that a t test needs over those that the signed-rank test needs, of normal log-ratios."""


@cache
def seeds_needed(spread: float, change: float, tests: int = 1) -> int | None:
    """Seeds that find a change in `POWER` of all studies; none if more than `MOST_SEEDS`.

    Args:
        spread: standard deviation of the log-ratio over seeds.
        change: to be found, %.
        tests: comparisons of the family.
    """
    if not (math.isfinite(spread) and change):
        return None
    effect, alpha = abs(math.log1p(change / 100)) / max(spread, 1e-6), (1 - LEVEL) / tests
    counts = np.arange(FEWEST, MOST_SEEDS)
    enough = counts[t_test_power(effect, counts, alpha) >= POWER]
    if not len(enough):
        return None
    needed = int(enough[0])
    return needed if needed < fewest_ranked(alpha) else math.ceil(needed / EFFICIENCY)


def t_test_power(effect: float, n: NDArray[np.int_], alpha: float) -> NDArray[np.float64]:
    """Chance that a paired t test finds an effect.

    Args:
        effect: true mean over standard deviation (Cohen's d of paired samples).
        n: pairs, of each of several studies.
        alpha: two-sided level of the test.
    """
    shift, bound = effect * np.sqrt(n), stats.t.isf(alpha / 2, n - 1)
    # The lower tail as an upper one: scipy's `cdf` is not a number where that tail vanishes.
    power = stats.nct.sf(bound, n - 1, shift) + stats.nct.sf(bound, n - 1, -shift)
    return np.asarray(power, dtype=np.float64)
