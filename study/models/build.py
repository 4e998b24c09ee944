"""New models of given settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from study.models.potential import Potential

if TYPE_CHECKING:
    from study.models.config import ModelConfig


def build_model(settings: ModelConfig, seed: int) -> Potential:
    """A new model; its initial weights are a function of the settings and the seed alone."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = settings.build()
    model.settings = settings
    return model
