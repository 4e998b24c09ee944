"""Arms of a study, their references, and what enters their means."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from analysis.comparisons.arms import arms, references
from analysis.comparisons.error_tables import (
    final_errors,
)
from analysis.comparisons.outcomes import compared, excluded, included
from analysis.figures import against
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study
from study.core.records import flatten
from study.space.search_space import load_space

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SEEDS = range(3)


def test_longer_scratch_is_compared_with_the_shortest(extended: Study) -> None:
    assert references(compared(extended))["from scratch, 8 epochs"] == "from scratch, 4 epochs"


def test_without_scratch_arms_are_compared_with_the_first(
    tabulate: Tabulate, masked: Build
) -> None:
    study = tabulate(masked(0, 0, 0.5, 0.1), masked(1, 0, 0.5, 0.1, transfer="all"))
    assert len(references(compared(study))) == 1


@pytest.mark.parametrize(
    "space", ["transfer", "noisy_nodes", "any_model", "text_or_code", "released_reading"]
)
def test_trials_of_an_arm_differ_by_their_seed_alone(
    space: str, tabulate: Tabulate, scratch: Build
) -> None:
    runs = []
    for number, trial in enumerate(load_space(space, "quick").grid()):
        run = scratch(number, trial.seed, 0.1)
        run.params.clear()
        run.params.update(
            (name, str(value)) for name, value in flatten(trial.model_dump(mode="json"))
        )
        runs.append(run)
    trials = arms(tabulate(*runs))
    assert (trials.groupby("arm").seed.nunique() == 3).all()
    assert not trials.duplicated(["arm", "seed"]).any()
    known = references(trials)
    first = trials[trials.scratch].arm
    assert first.empty or {known[arm] for arm in trials[~trials.scratch].arm} <= set(first)


def test_equally_long_pretrainings_stand_by_their_frames_in_the_order_of_the_plan(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.1) for seed in SEEDS]
    for place, frames in enumerate((8, 50, 400), start=1):
        for seed in SEEDS:
            run = masked(10 * place + seed, seed, 0.5, 0.1 - 0.01 * place)
            told = {"pretrain.frames": frames, "pretrain.epochs": 400 // frames}
            run.params.update((name, str(value)) for name, value in told.items())
            runs.append(run)
    study = tabulate(*runs)
    names = [f"masking 0.5, frames {frames}" for frames in (8, 50, 400)]
    assert list(compared(study).arm.unique()) == ["from scratch", *names]
    drawn = {drawing.name: drawing for drawing in against.drawings(study)}
    frames = drawn["force_rmse_against_frames_to_pretrain_on"]
    across, line = [
        one
        for one in frames.figure.axes[0].lines
        if one.get_label() in ("from scratch", "masking 0.5")
    ]
    assert list(across.get_ydata()) == pytest.approx([100, 100])
    assert list(line.get_xdata()) == [8, 50, 400]
    assert list(line.get_ydata()) == pytest.approx([90, 80, 70])


def test_what_went_wrong_is_listed_and_not_imputed(ablation: Study) -> None:
    rows = excluded(ablation).set_index("number")
    assert list(rows.index) == [6, 7]
    assert rows.reason[6] == "it diverged in epoch 2"
    assert rows.reason[7] == "still running, or its process died"
    assert set(included(ablation).number) == set(range(6))


def test_an_infinite_test_error_excludes_a_completed_trial(
    tabulate: Callable[..., Study], scratch: Build
) -> None:
    study = tabulate(scratch(0, 0, 0.1), scratch(1, 1, math.inf))
    assert excluded(study).reason.item() == "completed, but without a finite test force_rmse"


def test_an_arm_is_compared_with_scratch_of_its_own_setting(
    tabulate: Callable[..., Study], scratch: Build, masked: Build
) -> None:
    trials = [
        build(number, 0, *ratio, force, **{"finetune.epochs": epochs})
        for number, (build, ratio, force, epochs) in enumerate(
            [(scratch, (), 0.4, 10), (scratch, (), 0.2, 20), (masked, (0.5,), 0.1, 20)]
        )
    ]
    rows = final_errors(tabulate(*trials)).query("quantity == 'force_rmse'").set_index("arm")
    assert rows.change["masking 0.5, 20 epochs"] == pytest.approx(-50)
