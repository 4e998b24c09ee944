"""Paired changes with their intervals.

One seed fixes split, initial weights and order of batches for all arms, so arms are compared
seed by seed: the unit is the log-ratio of their errors. The interval is that of the signed-rank
test, in which a trial that diverged counts as worst, wherever so many pairs can decide anything at
the level of the family; below that it is Student's, which needs an error in every pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

from analysis.statistics import student
from analysis.statistics.ranks import fewest_ranked, rank_interval, rank_p_value, typical

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
"""Chance that all intervals of a family cover, and 1 − that of a false verdict in it."""
FEWEST = 3
"""Below this many pairs nothing is concluded."""
MOST_LOG = 700.0
"""Larger logarithms are of infinity."""


@dataclass(frozen=True)
class Change:
    """Relative difference of an arm from its reference.

    Args:
        n: pairs in which both have an error.
        percent: 100 (exp(typical log-ratio) − 1); nan if so many trials diverged that there is
            none.
        low: lower end of its interval, of level `LEVEL` for all intervals of its family together.
        high: upper end.
        p: two-sided p of no difference, not corrected.
        spread: standard deviation of the log-ratio over the pairs.
        family: comparisons that `LEVEL` is for (Bonferroni).
        logs: log-ratio of each pair that ended; +inf where only the arm failed, −inf where only its
            reference did, nan where both did.
        missing: pairs of which one trial has not ended, or was not run.
    """

    n: int
    percent: float
    low: float
    high: float
    p: float
    spread: float = math.nan
    family: int = 1
    logs: tuple[float, ...] = field(default=(), compare=False, repr=False)
    missing: int = field(default=0, compare=False)

    @property
    def effect(self) -> float:
        """Change over standard deviation of the log-ratio (Cohen's d of paired samples)."""
        if not self.spread > 0:
            return math.nan
        return math.log1p(self.percent / 100) / self.spread

    @property
    def ended(self) -> int:
        """Pairs of which both trials ended, well or badly."""
        return max(self.n, len(self.logs))

    @property
    def failed(self) -> int:
        """Pairs in which the arm failed."""
        return sum(math.isnan(log) or log == math.inf for log in self.logs)

    @property
    def reference_failed(self) -> int:
        """Pairs in which the reference failed."""
        return sum(math.isnan(log) or log == -math.inf for log in self.logs)

    @property
    def adjusted(self) -> float:
        """`p`, corrected for the family (Bonferroni)."""
        return min(1.0, self.family * self.p) if math.isfinite(self.p) else self.p

    def within(self, limit: float) -> bool:
        """Check whether the interval lies within ± `limit` %."""
        return max(abs(self.low), abs(self.high)) <= limit

    def simultaneous(self, family: int) -> Change:
        """The same with the interval that it has among so many comparisons."""
        return change_of(self.logs, family, self.missing)


def paired_change(arm: pd.Series[float], reference: pd.Series[float], family: int = 1) -> Change:
    """Change of `arm` against `reference`, paired by their index (seeds); see `log_ratios`."""
    logs = log_ratios(arm, reference)
    seeds = arm.index.union(reference.index)
    return change_of([float(log) for log in logs], family, len(seeds) - len(logs))


def log_ratios(arm: pd.Series[float], reference: pd.Series[float]) -> pd.Series[float]:
    """ln(arm / reference) of each seed that both have.

    An infinite error is that of a trial that failed (see `Change.logs`); a missing one makes no
    pair, and neither does one that is not positive.
    """
    import pandas as pd  # The terminal judges logarithms, and must not wait for it.

    pairs = pd.concat([arm, reference], axis=1, join="inner").astype(float)
    kept = pairs[(pairs > 0).all(axis=1)]
    with np.errstate(invalid="ignore"):
        logs = np.log(kept.iloc[:, 0].to_numpy()) - np.log(kept.iloc[:, 1].to_numpy())
    return pd.Series(logs, kept.index)


def change_of(logs: Sequence[float], family: int = 1, missing: int = 0) -> Change:
    """Summarize log-ratios, one per pair, as a change.

    Args:
        logs: as in `Change.logs`.
        family: number of comparisons that the interval is simultaneous with.
        missing: pairs that are not among them.
    """
    if not logs:
        unknown = math.nan
        return Change(0, unknown, unknown, unknown, unknown, family=family, missing=missing)
    finite = [log for log in logs if math.isfinite(log)]
    spread = stdev(finite) if len(finite) > 1 else math.nan
    middle, alpha = _middle(logs), (1 - LEVEL) / family
    if math.isnan(middle):
        low, high, p = (math.nan,) * 3
    else:
        (low, high), p = _interval(logs, alpha), _p_value(logs, alpha)
    ends = percent(middle), percent(low), percent(high)
    return Change(len(finite), *ends, p, spread, family, tuple(logs), missing)


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Student's interval for the mean; not a number for fewer than two values."""
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    mean, half = fmean(values), student.quantile(level, n - 1) * _standard_error(values)
    return mean - half, mean + half


def percent(log_ratio: float) -> float:
    """A log-ratio as a change in %."""
    return math.inf if log_ratio > MOST_LOG else 100 * math.expm1(log_ratio)


def _middle(logs: Sequence[float]) -> float:
    """Typical log-ratio: by ranks where they can decide anything alone, else the mean."""
    if len(logs) >= fewest_ranked(1 - LEVEL):
        return typical(logs)
    return fmean(logs) if all(map(math.isfinite, logs)) else math.nan


def _interval(logs: Sequence[float], alpha: float) -> tuple[float, float]:
    if len(logs) >= fewest_ranked(alpha):
        return rank_interval(logs, alpha)
    if not all(map(math.isfinite, logs)):
        return math.nan, math.nan
    return t_interval(logs, 1 - alpha)


def _p_value(logs: Sequence[float], alpha: float) -> float:
    if len(logs) >= fewest_ranked(alpha):
        return rank_p_value(logs)
    if len(logs) < 2 or not all(map(math.isfinite, logs)):
        return math.nan
    error, mean = _standard_error(logs), fmean(logs)
    if error == 0:
        return 0.0 if mean else 1.0
    return 1 - student.central(abs(mean) / error, len(logs) - 1)


def _standard_error(values: Sequence[float]) -> float:
    return stdev(values) / math.sqrt(len(values))
