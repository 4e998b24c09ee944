"""Verdicts on changes and claims, and how often they err in simulated studies of known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics.change import Change, change_of, percent
from analysis.statistics.power import seeds_needed
from analysis.statistics.verdict import NEGLIGIBLE, Claim, Verdict, judge, verdict
from tests.simulations import Case, simulate

FOUND = (Verdict.REPRODUCED, Verdict.DIRECTION, Verdict.CONTRADICTED)
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
    return [[change_of(arm.tolist(), arms) for arm in study] for study in logs]


def rate(verdicts: list[list[str]], *words: str) -> float:
    """Share of the studies in which one verdict is among the words."""
    return float(np.mean([any(said in words for said in study) for study in verdicts]))


def judged(studies: list[list[Change]], claim: Claim) -> list[list[str]]:
    return [[judge(claim, change) for change in study] for study in studies]


@pytest.mark.parametrize("seeds", [3, 4, 8])
@pytest.mark.parametrize("truth", [0.0, -36.0])
def test_intervals_cover_the_truth_in_95_percent_of_studies(seeds: int, truth: float) -> None:
    covered = [c.low <= truth <= c.high for (c,) in simulated(truth, seeds)]
    # Of eight ranks no sum is at 95 % itself; the next has 96.1 %.
    assert np.mean(covered) == pytest.approx(0.961 if seeds == 8 else 0.95, abs=ERROR)


def test_intervals_of_skewed_errors_still_cover() -> None:
    random = np.random.default_rng(0)
    logs = stats.gamma(4, scale=SPREAD / 2).rvs((STUDIES, 4), random_state=random) - 2 * SPREAD
    covered = [c.low <= 0 <= c.high for c in (change_of(list(study)) for study in logs)]
    assert np.mean(covered) == pytest.approx(0.95, abs=3 * ERROR)


@pytest.mark.parametrize(
    "case",
    [
        Case("10 % bad seeds in both", bad=(0.1, 0.1)),
        Case("10 % bad seeds in the arm", bad=(0.1, 0.0)),
        Case("30 % diverge in both", diverged=(0.3, 0.3)),
        Case("60 % of the arm diverge, the rest gain", effect=-8, diverged=(0.6, 0.0)),
    ],
    ids=lambda case: case.name,
)
def test_bad_seeds_and_divergence_make_no_verdict_false(case: Case) -> None:
    rates = simulate(case, seeds=8, arms=2, studies=400)
    assert rates.false <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 400)
    assert math.isnan(rates.covers) or rates.covers >= 0.95 - 4 * math.sqrt(0.05 * 0.95 / 400)


def test_without_what_diverged_the_rest_would_deceive() -> None:
    case = Case("the rest gain", effect=-8, diverged=(0.6, 0.0))
    assert simulate(case, seeds=8, studies=400).t_false > 0.3


def test_five_of_eight_that_diverged_leave_no_verdict() -> None:
    assert verdict(change_of([math.log(0.92)] * 3 + [math.inf] * 5, 3)) == Verdict.NO_VERDICT
    assert verdict(change_of([0.0] * 4 + [-math.inf] * 4, 3)) == Verdict.NO_VERDICT
    assert verdict(change_of([-math.inf] * 8, 3)) == Verdict.NO_VERDICT
    # Six pairs are too few for ranks of three arms, and one of them is none for Student's t.
    assert verdict(change_of([math.log(0.92)] * 5 + [math.inf], 3)) == Verdict.NO_VERDICT
    lower = [math.log(0.92) + place / 1000 for place in range(11)]
    assert verdict(change_of([*lower, math.inf])) == Verdict.LOWER


def test_one_result_has_one_word() -> None:
    """What lies beyond zero is lower, however little, for the table as for a claim."""
    small = Change(8, -2.3, -3.0, -1.6, 0.001)
    assert verdict(small) == Verdict.LOWER
    assert judge(Claim(-1, -55, -15), small) == Verdict.DIRECTION
    more = Change(8, 3.0, 0.5, 6.0, 0.01)
    assert verdict(more) == Verdict.HIGHER
    assert judge(Claim(-1, -55, -15), more) == Verdict.CONTRADICTED
    wide = Change(3, -15.5, -40.0, 9.0, 0.1)
    assert verdict(wide) == judge(Claim(-1, -55, -15), wide) == Verdict.INCONCLUSIVE
    none = Change(8, 1.0, -3.0, 4.0, 0.5)
    assert verdict(none) == judge(Claim(-1, -55, -15), none) == Verdict.NO_DIFFERENCE


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Change(2, -50, -51, -49, 0.001), "too few seeds"),
        (Change(4, -10, -15, -5, 0.01), "lower"),
        (Change(4, 10, 5, 15, 0.01), "higher"),
        (Change(4, -10, -21, 1, 0.06), "inconclusive"),
        (Change(4, 1, -3, 4, 0.5), "no difference"),
    ],
)
def test_a_verdict_needs_seeds_and_its_interval(change: Change, expected: str) -> None:
    assert verdict(change) == expected


def test_a_family_without_effects_gives_one_in_twenty_false_findings() -> None:
    claim = Claim(-1, -100, 0)
    verdicts = judged(simulated(0.0, 4, arms=4), claim)
    assert (
        rate(verdicts, Verdict.REPRODUCED, Verdict.DIRECTION, Verdict.CONTRADICTED) <= 0.05 + ERROR
    )


def test_without_correction_there_would_be_more() -> None:
    claim = Claim(-1, -100, 0)
    studies = simulated(0.0, 4, arms=4)
    verdicts = [[judge(claim, change.simultaneous(1)) for change in study] for study in studies]
    assert (
        rate(verdicts, Verdict.REPRODUCED, Verdict.DIRECTION, Verdict.CONTRADICTED) > 0.05 + ERROR
    )


@pytest.mark.parametrize("arms", [1, 4])
@pytest.mark.parametrize("truth", [-55.0, -36.0, -15.0])
def test_true_claims_are_contradicted_in_at_most_one_study_of_twenty(
    truth: float, arms: int
) -> None:
    verdicts = judged(simulated(truth, 4, arms), Claim(-1, -55, -15))
    assert rate(verdicts, Verdict.CONTRADICTED) <= 0.05


def test_a_difference_that_matters_is_called_null_in_less_than_one_study_of_twenty() -> None:
    verdicts = judged(simulated(-NEGLIGIBLE - 0.01, 8, spread=0.02), Claim(-1, -55, -15))
    assert rate(verdicts, Verdict.NO_DIFFERENCE) <= 0.05


def test_a_large_true_effect_is_reproduced() -> None:
    verdicts = judged(simulated(-36.0, 4), Claim(-1, -55, -15))
    assert rate(verdicts, Verdict.REPRODUCED) > 0.95


@pytest.mark.parametrize("change", [-8.0, -5.0])
def test_the_seeds_that_are_asked_for_find_the_change_in_four_of_five_studies(
    change: float,
) -> None:
    seeds = seeds_needed(SPREAD, change)
    assert seeds is not None
    found = [c.p <= 0.05 for (c,) in simulated(change, seeds)]
    fewer = [c.p <= 0.05 for (c,) in simulated(change, seeds - 1)]
    assert np.mean(fewer) < 0.8 + ERROR
    assert np.mean(found) >= 0.8 - ERROR
    assert percent(math.log1p(change / 100)) == pytest.approx(change)
