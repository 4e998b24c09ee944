"""Asynchronous successive halving decides as Ray Tune's scheduler does."""

from __future__ import annotations

import random

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler

from study.scheduling.asha import Asha
from study.space.search.stopping import EarlyStopping


@pytest.mark.parametrize("reduction_factor", [1.5, 2.0, 3.0, 4.0, 10.0])
@pytest.mark.parametrize(("grace", "epochs"), [(1, 9), (2, 25), (5, 300), (40, 30)])
@pytest.mark.parametrize("seed", range(3))
def test_every_decision_over_whole_curves_is_that_of_ray(
    grace: int, epochs: int, reduction_factor: float, seed: int
) -> None:
    """Workers finish epochs in any order; values are rounded, so that some are equal."""
    rng = random.Random(seed)
    settings = EarlyStopping(grace_epochs=grace, reduction_factor=reduction_factor)
    mine = Asha(settings, epochs)
    rays = ASHAScheduler(
        time_attr="epoch",
        metric="value",
        mode="min",
        max_t=epochs,
        grace_period=min(grace, epochs),
        reduction_factor=reduction_factor,
        stop_last_trials=False,
    )
    trials = [Trial("curve", stub=True, trial_id=str(number)) for number in range(40)]
    levels = [rng.random() for _ in trials]
    for trial in trials:
        rays.on_trial_add(None, trial)
    running = dict.fromkeys(range(8), 0)
    waiting = list(range(8, len(trials)))
    stopped = 0
    while running:
        number = rng.choice(sorted(running))
        epoch = running[number] = running[number] + 1
        value = round(levels[number] + 2 / epoch + 0.1 * rng.random(), 2)
        decision = rays.on_trial_result(None, trials[number], {"epoch": epoch, "value": value})
        expected = decision == ASHAScheduler.STOP and epoch < epochs
        assert mine.should_prune(number, epoch, value) == expected
        # A crash brings the last epoch again.
        assert not mine.should_prune(number, epoch, value)
        stopped += expected
        if expected or epoch == epochs:
            del running[number]
            if waiting:
                running[waiting.pop(0)] = 0
    assert (stopped > 0) == (grace < epochs)


def asha(epochs: int = 9) -> Asha:
    return Asha(EarlyStopping(grace_epochs=1, reduction_factor=3), epochs)


def test_asha_stops_who_is_not_among_the_best_third_at_a_rung() -> None:
    stopper = asha()
    for number, value in enumerate((0.1, 0.2, 0.3)):
        stopper.should_prune(number, 1, value)
    assert stopper.should_prune(3, 1, 0.4)
    assert not stopper.should_prune(4, 1, 0.05)


def test_between_rungs_nobody_is_stopped() -> None:
    stopper = asha()
    for number in range(3):
        stopper.should_prune(number, 1, 0.1)
        stopper.should_prune(number, 3, 0.1)
    assert not stopper.should_prune(0, 2, 9.0)


def test_asha_decides_once_per_rung_and_never_at_the_last_epoch() -> None:
    stopper = asha()
    assert not stopper.should_prune(0, 1, 0.4)
    for number, value in enumerate((0.1, 0.2, 0.3), start=1):
        stopper.remember(number, [value])
    assert not stopper.should_prune(0, 1, 0.4)
    for number in range(1, 4):
        stopper.remember(number, [0.1] * 9)
    assert not stopper.should_prune(0, 9, 0.4)
