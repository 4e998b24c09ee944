"""Simulated studies of known truth: intervals cover it, and verdicts err as rarely as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis.comparisons.statistics import (
    CONTRADICTED,
    DIRECTION,
    NEGLIGIBLE,
    NULL,
    REPRODUCED,
    Change,
    Claim,
    change_of,
    holm,
    judge,
    percent,
    seeds_needed,
)

STUDIES = 2000
SPREAD = 0.05
"""Standard deviation of the log-ratio over seeds, as EGNN's."""
ERROR = 0.02
"""How far a rate of `STUDIES` may be from the truth: four standard errors of 5 %."""


def simulated(
    truth: float, seeds: int, arms: int = 1, spread: float = SPREAD
) -> list[list[Change]]:
    """Changes of `arms` arms in each of many studies.

    Arms share their scratch seeds, as in a real study; `truth` is the change of each in %.
    """
    random = np.random.default_rng(seeds)
    noise = spread / math.sqrt(2)
    logs: NDArray[np.float64] = math.log1p(truth / 100) + noise * (
        random.standard_normal((STUDIES, arms, seeds)) - random.standard_normal((STUDIES, 1, seeds))
    )
    return [[change_of(list(arm)) for arm in study] for study in logs]


def rate(verdicts: list[list[str]], *words: str) -> float:
    """Share of the studies in which one verdict is among the words."""
    return float(np.mean([any(said in words for said in study) for study in verdicts]))


def judged(studies: list[list[Change]], claim: Claim) -> list[list[str]]:
    told = []
    for study in studies:
        adjusted = holm([change.p for change in study])
        pairs = zip(study, adjusted, strict=True)
        told.append([judge(claim, c, p, tests=len(study)) for c, p in pairs])
    return told


@pytest.mark.parametrize("seeds", [3, 4, 8])
@pytest.mark.parametrize("truth", [0.0, -36.0])
def test_intervals_cover_the_truth_in_95_percent_of_studies(seeds: int, truth: float) -> None:
    covered = [c.low <= truth <= c.high for (c,) in simulated(truth, seeds)]
    assert np.mean(covered) == pytest.approx(0.95, abs=ERROR)


def test_intervals_of_skewed_errors_still_cover() -> None:
    random = np.random.default_rng(0)
    logs = stats.gamma(4, scale=SPREAD / 2).rvs((STUDIES, 4), random_state=random) - 2 * SPREAD
    covered = [c.low <= 0 <= c.high for c in (change_of(list(study)) for study in logs)]
    assert np.mean(covered) == pytest.approx(0.95, abs=3 * ERROR)


def test_a_family_without_effects_gives_one_in_twenty_false_findings() -> None:
    claim = Claim(-1, -100, 0)
    verdicts = judged(simulated(0.0, 4, arms=4), claim)
    assert rate(verdicts, REPRODUCED, DIRECTION, CONTRADICTED) <= 0.05 + ERROR


def test_without_correction_there_would_be_more() -> None:
    claim = Claim(-1, -100, 0)
    verdicts = [[judge(claim, c, c.p) for c in study] for study in simulated(0.0, 4, arms=4)]
    assert rate(verdicts, REPRODUCED, DIRECTION, CONTRADICTED) > 0.05 + ERROR


@pytest.mark.parametrize("arms", [1, 4])
@pytest.mark.parametrize("truth", [-55.0, -36.0, -15.0])
def test_true_claims_are_contradicted_in_at_most_one_study_of_twenty(
    truth: float, arms: int
) -> None:
    verdicts = judged(simulated(truth, 4, arms), Claim(-1, -55, -15))
    assert rate(verdicts, CONTRADICTED) <= 0.05


def test_a_difference_that_matters_is_called_null_in_less_than_one_study_of_twenty() -> None:
    verdicts = judged(simulated(-NEGLIGIBLE - 0.01, 8, spread=0.02), Claim(-1, -55, -15))
    assert rate(verdicts, NULL) <= 0.05


def test_a_large_true_effect_is_reproduced() -> None:
    verdicts = judged(simulated(-36.0, 4), Claim(-1, -55, -15))
    assert rate(verdicts, REPRODUCED) > 0.95


@pytest.mark.parametrize("change", [-8.0, -5.0])
def test_the_seeds_that_are_asked_for_find_the_change_in_four_of_five_studies(
    change: float,
) -> None:
    seeds = seeds_needed(SPREAD, change)
    assert seeds is not None
    found = [c.p < 0.05 for (c,) in simulated(change, seeds)]
    assert 0.8 - ERROR <= np.mean(found) < 0.9
    assert percent(math.log1p(change / 100)) == pytest.approx(change)
