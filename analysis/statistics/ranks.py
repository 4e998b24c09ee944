"""The signed-rank test of paired log-ratios, and its interval for the typical pair.

A pair in which only the arm failed counts as +∞, one in which only its reference failed as −∞, and
one in which both did as either of them (nan), whichever is worse for the conclusion. No
distribution of errors is assumed, and a few bad seeds move neither estimate nor interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def fewest_ranked(alpha: float) -> int:
    """Fewest pairs that can differ at the two-sided level `alpha`: all of one sign, 2 · 2⁻ⁿ ≤ α."""
    return 1 + math.ceil(-math.log2(alpha) - 1e-9)


@cache
def signed_rank_cdf(n: int) -> Values:
    """P(W ≤ w) of the signed-rank statistic of n pairs without effect, for each w from 0."""
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1.0
    for rank in range(1, n + 1):
        shifted = np.roll(ways, rank)
        shifted[:rank] = 0
        ways = (ways + shifted) / 2
    return np.cumsum(ways)


def walsh_averages(logs: Sequence[float]) -> tuple[Values, Values]:
    """Means of all pairs of values, each with itself, in order.

    Returns:
        Those with every unknown value at its lowest, and at its highest.
    """
    values = np.asarray(logs, dtype=float)
    first, second = np.triu_indices(len(values))
    ends = []
    for unknown in (-math.inf, math.inf):
        known = np.where(np.isnan(values), unknown, values)
        with np.errstate(invalid="ignore"):
            means = (known[first] + known[second]) / 2
        ends.append(np.sort(np.where(np.isnan(means), unknown, means)))
    return ends[0], ends[1]


def rank_interval(logs: Sequence[float], alpha: float) -> tuple[float, float]:
    """Hodges and Lehmann's interval of level 1 − `alpha`; all numbers where pairs are too few."""
    low, high = walsh_averages(logs)
    left_out = int(np.searchsorted(signed_rank_cdf(len(logs)), alpha / 2, side="right"))
    if not left_out:
        return -math.inf, math.inf
    return float(low[left_out - 1]), float(high[-left_out])


def rank_p_value(logs: Sequence[float]) -> float:
    """Two-sided p of no difference: the largest `alpha` whose `rank_interval` contains 0."""
    low, high = walsh_averages(logs)
    cdf = signed_rank_cdf(len(logs))
    fewest = min(int((low <= 0).sum()), int((high >= 0).sum()))
    return float(min(1.0, 2 * cdf[fewest]))


def typical(logs: Sequence[float]) -> float:
    """Hodges and Lehmann's estimate: the median of the averages of pairs; nan if unbounded."""
    ends = [_median(averages) for averages in walsh_averages(logs)]
    return sum(ends) / 2 if all(map(math.isfinite, ends)) else math.nan


def _median(ordered: Values) -> float:
    """Median of sorted values; infinite if one of the middle ones is."""
    below, above = float(ordered[(len(ordered) - 1) // 2]), float(ordered[len(ordered) // 2])
    return (below + above) / 2 if math.isfinite(below) and math.isfinite(above) else math.inf
