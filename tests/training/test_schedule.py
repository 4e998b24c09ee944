"""Learning rates by step, and learning rates by layer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from study.models.build import build_model
from study.models.config import EGNN
from study.space.trial import Trial
from study.training.schedule import layer_groups, learning_rate, scheduled_epochs


def test_the_learning_rate_is_continuous_where_warmup_plateau_and_decay_meet(
    tiny: Callable[..., Trial],
) -> None:
    stage = tiny(
        finetune__epochs=8, finetune__lr=0.1, finetune__warmup=2, finetune__plateau=2
    ).finetune
    steps = 1000
    rates = [learning_rate(stage, step, steps) for step in range(8 * steps)]
    assert max(abs(after - before) for before, after in pairwise(rates)) < 1e-4
    assert rates[0] == stage.min_lr
    assert rates[2 * steps] == rates[4 * steps] == stage.lr
    assert rates[6 * steps] == pytest.approx((stage.lr + stage.min_lr) / 2)


def test_a_shorter_stage_has_the_rates_of_its_whole_schedule(tiny: Callable[..., Trial]) -> None:
    short, long = (
        tiny(pretrain__epochs=epochs, pretrain__schedule_epochs=6).pretrain for epochs in (3, 6)
    )
    assert short is not None
    assert long is not None
    assert scheduled_epochs(short) == scheduled_epochs(long) == 6
    assert [learning_rate(short, step, 2) for step in range(6)] == [
        learning_rate(long, step, 2) for step in range(6)
    ]


def test_every_parameter_is_in_the_group_of_its_depth() -> None:
    model = build_model(EGNN(name="egnn", hidden=4, layers=2, basis=4), seed=0)
    factors = {
        id(weights): group["lr_factor"]
        for group in layer_groups(model, 0.5)
        for weights in group["params"]
    }
    named = dict(model.named_parameters())
    assert len(factors) == len(named)
    assert factors[id(named["readout.0.weight"])] == 1
    assert factors[id(named["layers.1.source.weight"])] == 0.5
    assert factors[id(named["layers.0.source.weight"])] == 0.25
    assert factors[id(named["embedding.species.weight"])] == 0.125
