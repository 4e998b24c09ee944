"""Rates of divergence and collapse: exact intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from analysis.statistics.change import LEVEL
from analysis.statistics.verdict import Verdict


def proportion_interval(events: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's interval of a rate."""
    if n == 0:
        return 0.0, 1.0
    ends = stats.binomtest(events, n).proportion_ci(level, method="exact")
    return float(ends.low), float(ends.high)


def fisher(bad: int, n: int, reference_bad: int, reference_n: int) -> float:
    """Two-sided p of equal rates of independent trials (Fisher's exact test)."""
    counts = np.array([[bad, n - bad], [reference_bad, reference_n - reference_bad]])
    return float(stats.fisher_exact(counts).pvalue)


def mcnemar(only_arm: int, only_reference: int) -> float:
    """Two-sided p of equal rates of paired trials (McNemar's exact test).

    Args:
        only_arm: pairs in which only the arm's trial failed.
        only_reference: pairs in which only the reference's did.
    """
    discordant = only_arm + only_reference
    return float(stats.binomtest(only_arm, discordant).pvalue) if discordant else 1.0


def paired_rates(arm: Sequence[bool], reference: Sequence[bool]) -> float:
    """P of equal rates, from the outcomes of the same seeds in the same order."""
    pairs = list(zip(arm, reference, strict=True))
    return mcnemar(pairs.count((True, False)), pairs.count((False, True)))


def rate_verdict(rate: float, reference: float, p: float, family: int = 1) -> Verdict:
    """Lower, higher or inconclusive; a rate has no margin in which it would be no difference.

    Args:
        rate: of the arm.
        reference: of what it is compared with.
        p: of equal rates, two-sided.
        family: number of comparisons (Bonferroni).
    """
    if p * family >= 1 - LEVEL:
        return Verdict.INCONCLUSIVE
    return Verdict.LOWER if rate < reference else Verdict.HIGHER
