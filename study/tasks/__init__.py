"""What a stage trains the model to do."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from study.graph import GraphSet
from study.models.potential import Potential


class Task(Protocol):
    """A loss to train on and metrics to judge by, over one set of graphs."""

    graphs: GraphSet
    criterion: str
    """Validation metric whose lowest value marks the best epoch."""

    def loss(
        self, model: Potential, frames: Tensor, generator: torch.Generator, step: int = 0
    ) -> Tensor:
        """Scalar training loss of the chosen frames; all randomness comes from `generator`."""

    def hopeless(self, metrics: dict[str, float]) -> str:
        """Why training cannot recover, by its metrics after a tenth of the epochs; or empty."""

    def evaluate(
        self, model: Potential, batches: list[Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        """Validation metrics over all batches together."""


class PretextTask:
    """What all tasks without labels have in common."""

    criterion = "val_loss"

    def hopeless(self, metrics: dict[str, float]) -> str:
        """A pretext task is never given up."""
        del metrics
        return ""
