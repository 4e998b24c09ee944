"""Optimizers, learning-rate schedule, and layer-wise learning-rate decay."""

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
    """Epochs of the whole schedule; a stage may end earlier and has the same rates until then."""
    return stage.schedule_epochs or stage.epochs


def learning_rate(stage: Stage, step: int, steps_per_epoch: int) -> float:
    """Learning rate of a step: linear warmup, plateau, then cosine decay to `min_lr`."""
    warmup, hold = stage.warmup * steps_per_epoch, stage.plateau * steps_per_epoch
    if step < warmup:
        factor = step / warmup
    else:
        decay = scheduled_epochs(stage) * steps_per_epoch - warmup - hold
        factor = (1 + math.cos(math.pi * max(step - warmup - hold, 0) / decay)) / 2
    return stage.min_lr + (stage.lr - stage.min_lr) * factor


def layer_groups(model: Potential, decay: float) -> list[dict[str, Any]]:
    """Parameter groups by layer depth, each with its `lr_factor` = decay^depth.

    Raises:
        UserError: if the model's layers are not known.
    """
    if decay < 1:
        model.require_blocks("layer_decay")
    groups: dict[float, list[Tensor]] = {}
    for name, weights in model.named_parameters():
        groups.setdefault(decay ** model.layer_depth(name), []).append(weights)
    return [{"params": weights, "lr_factor": factor} for factor, weights in groups.items()]
