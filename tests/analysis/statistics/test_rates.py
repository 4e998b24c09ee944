"""Rates and their exact tests, by hand."""

from __future__ import annotations

import pytest

from analysis.statistics.rates import (
    fisher,
    mcnemar,
    paired_rates,
    proportion_interval,
    rate_verdict,
)
from analysis.statistics.verdict import Verdict


def test_mcnemar_counts_the_pairs_that_differ() -> None:
    # Five coins, all heads or all tails; whatever pairs agree say nothing.
    assert mcnemar(5, 0) == mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar(1, 1) == mcnemar(0, 0) == 1
    assert paired_rates([True] * 5 + [False] * 3, [False] * 8) == pytest.approx(2 / 2**5)
    assert paired_rates([True] * 8, [True] * 8) == 1


def test_fisher_is_two_sided() -> None:
    # All failures in one of two groups of three: two of the (6 choose 3) ways.
    assert fisher(0, 3, 3, 3) == fisher(3, 3, 0, 3) == pytest.approx(2 / 20)


def test_an_interval_of_another_level_is_wider() -> None:
    low, high = proportion_interval(0, 8, 1 - 0.05 / 3)
    # Clopper and Pearson: 0 of n has the upper end 1 − (α/2)^(1/n).
    assert (low, high) == pytest.approx((0, 1 - (0.05 / 6) ** (1 / 8)))


@pytest.mark.parametrize(
    ("rate", "p", "family", "expected"),
    [
        (0.0, 0.01, 3, Verdict.LOWER),
        (1.0, 0.01, 3, Verdict.HIGHER),
        (0.0, 0.02, 3, Verdict.INCONCLUSIVE),
        (0.5, 1.0, 1, Verdict.INCONCLUSIVE),
    ],
)
def test_a_verdict_on_a_rate_is_corrected(
    rate: float, p: float, family: int, expected: Verdict
) -> None:
    assert rate_verdict(rate, 0.5, p, family) == expected
