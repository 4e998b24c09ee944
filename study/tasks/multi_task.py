"""Multi-task pretraining: several pretext tasks in one stage."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from study.graphs.graph_set import GraphSet
from study.models.potential import Potential
from study.tasks.task import PretextTask, Term

if TYPE_CHECKING:
    from study.tasks.pretext_config import Mixed as MixedSettings


class Mixed(PretextTask):
    """Sums the losses of its tasks, or alternates between them by step.

    Each task corrupts the same frames in its own way.
    """

    def __init__(self, settings: MixedSettings, graphs: GraphSet) -> None:
        self.settings, self.graphs = settings, graphs
        self.tasks = [part.task.build(graphs) for part in settings.tasks]
        self.weights = [part.weight for part in settings.tasks]

    @property
    def period(self) -> int:
        """Number of steps after which the kinds of terms repeat: one per alternating task."""
        return len(self.tasks) if self.settings.schedule == "alternating" else 1

    def terms(self, frames: Tensor, generator: torch.Generator, step: int = 0) -> list[Term]:
        """Weighted terms of all tasks, or of the one task of this step if they alternate."""
        parts = list(zip(self.weights, self.tasks, strict=True))
        if self.settings.schedule == "alternating":
            parts = [parts[step % len(parts)]]
        return [
            replace(term, weight=weight * term.weight)
            for weight, task in parts
            for term in task.terms(frames, generator, step)
        ]

    def evaluate(
        self, model: Potential, batches: list[Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        """Weighted sum of the validation losses of all tasks, with either schedule."""
        losses = [task.evaluate(model, batches, generator)["val_loss"] for task in self.tasks]
        total = sum(weight * loss for weight, loss in zip(self.weights, losses, strict=True))
        return {"val_loss": total}
