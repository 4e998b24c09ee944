"""Outcomes of trials, and the size of the family that their comparisons make."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from analysis.comparisons.controls import compare_with_controls, final
from analysis.comparisons.error_tables import early_errors, final_errors
from analysis.comparisons.outcomes import Outcome, compared, ended, family_size, planned
from analysis.comparisons.quantities import FORCE
from analysis.comparisons.training_curves import convergence, while_learning
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study

Build = Callable[..., Run]
Tabulate = Callable[..., Study]


def test_every_planned_trial_has_an_outcome(ablation: Study) -> None:
    trials = planned(ablation).set_index("number")
    assert len(trials) == 8
    assert trials.outcome[6] == Outcome.DIVERGED
    assert trials.outcome[7] == Outcome.MISSING
    assert trials.test_force_rmse[6] == math.inf
    assert math.isnan(trials.test_force_rmse[7])
    assert set(ended(ablation).number) == set(range(7))
    assert set(compared(ablation).number) == set(range(6))


def test_what_the_scheduler_stopped_is_no_failure(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [scratch(0, 0, 0.1), masked(1, 0, 0.5, 0.1, status="stopped")]
    row = final_errors(tabulate(*runs)).query("arm == 'from scratch'").iloc[0]
    assert row.n == 1
    assert planned(tabulate(*runs)).outcome.tolist() == [Outcome.ERROR, Outcome.STOPPED]


def test_the_family_is_the_same_everywhere(extended: Study) -> None:
    """One pretrained arm is a family; its placebo and the longer scratch are another."""
    trials = planned(extended)
    assert (family_size(trials), family_size(trials, control=True)) == (1, 2)
    controls = {"masking 0.5 placebo, 4 epochs": 2, "from scratch, 8 epochs": 2}
    expected = {"masking 0.9, 4 epochs": 1} | controls
    for table in (final_errors, early_errors, convergence, while_learning):
        rows = table(extended)
        rows = rows[rows.ended > 0]
        found = dict(zip(rows.arm, rows["family_size"], strict=True))
        assert {arm: int(size) for arm, size in found.items()} == expected
    beside = compare_with_controls(final(trials, FORCE))
    assert set(beside.family_size) == {1}


def test_intervals_hold_for_all_arms_together(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.1 * (1 + seed / 50)) for seed in range(3)]
    for place, ratio in enumerate((0.25, 0.5, 0.9)):
        runs += [
            masked(10 * (1 + place) + seed, seed, ratio, 0.095 * (1 + (seed + place % 2) / 50))
            for seed in range(3)
        ]
    row = final_errors(tabulate(*runs)).query("arm == 'masking 0.5'").iloc[0]
    assert row.family_size == 3
    # Student's t of 2 degrees of freedom at 1 − 0.05 / 6: 7.6488.
    logs = [math.log(0.95 * (51 + seed) / (50 + seed)) for seed in range(3)]
    mean = sum(logs) / 3
    half = 7.6488 * math.sqrt(sum((log - mean) ** 2 for log in logs) / 2 / 3)
    assert row.low == pytest.approx(100 * math.expm1(mean - half), abs=1e-3)
    assert row.high == pytest.approx(100 * math.expm1(mean + half), abs=1e-3)
