"""Learning rates over a stage, and optimizers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from study.models.potential import Potential

if TYPE_CHECKING:
    from study.training.config import Stage

OPTIMIZERS: dict[str, type[torch.optim.Adam]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
}


def scheduled_epochs(stage: Stage) -> int:
    """Epochs after which the learning rate has fallen; what a shorter stage does is the same."""
    return stage.schedule_epochs or stage.epochs


def learning_rate(stage: Stage, step: int, steps_per_epoch: int) -> float:
    """That of a step: a linear rise, a plateau, then half a cosine down to `min_lr`."""
    rise, stay = stage.warmup * steps_per_epoch, stage.plateau * steps_per_epoch
    if step < rise:
        share = step / rise
    else:
        fall = scheduled_epochs(stage) * steps_per_epoch - rise - stay
        share = (1 + math.cos(math.pi * max(step - rise - stay, 0) / fall)) / 2
    return stage.min_lr + (stage.lr - stage.min_lr) * share


def layer_groups(model: Potential, decay: float) -> list[dict[str, Any]]:
    """The parameters by depth, with the `share` of the learning rate that theirs is."""
    groups: dict[float, list[Tensor]] = {}
    for name, weights in model.named_parameters():
        groups.setdefault(decay ** model.layer_depth(name), []).append(weights)
    return [{"params": weights, "share": share} for share, weights in groups.items()]
