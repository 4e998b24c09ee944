"""What a stage trains the model to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.graphs.graph_set import GraphSet
from study.models.potential import Potential

Penalty = Callable[[Potential, Batch], Tensor]
Counts = Callable[[Batch], Tensor | int]


@dataclass(frozen=True)
class Term:
    """A part of a loss.

    Args:
        name: of the penalty; equal names compute the same.
        penalty: scalar; depends on the model and the tensors of the batch alone, so that it can be
            compiled once for all batches.
        batch: what the model sees, and what it should have predicted.
        weight: of the penalty in the loss.
        counts: how many values of a batch the penalty is the mean of, 1 if it is their sum, so that
            workers can share a batch; (K,) if it weighs K means by `batch.weights` (K,). None if
            it is neither, or nobody has said so.
    """

    name: str
    penalty: Penalty
    batch: Batch
    weight: float | Tensor = 1.0
    counts: Counts | None = None


def count_frames(batch: Batch) -> int:
    """Count the values of a mean over frames."""
    return len(batch.ptr) - 1


def count_atoms(batch: Batch) -> int:
    """Count the values of a mean over atoms."""
    return len(batch.z)


def count_once(batch: Batch) -> int:
    """Count nothing: the penalty is a sum."""
    del batch
    return 1


class Task:
    """A loss to train on and metrics to judge by, over one set of graphs."""

    graphs: GraphSet
    criterion: str
    """Validation metric whose lowest value marks the best epoch."""

    @property
    def period(self) -> int:
        """Steps after which the terms are of the same kinds again."""
        return 1

    def terms(self, frames: Tensor, generator: torch.Generator, step: int = 0) -> list[Term]:
        """The loss of the chosen frames in its parts.

        Args:
            frames: (G,) indices into the graphs, on the processor.
            generator: source of all randomness, on the graphs' device.
            step: number of the training step.
        """
        raise NotImplementedError

    def loss(
        self, model: Potential, frames: Tensor, generator: torch.Generator, step: int = 0
    ) -> Tensor:
        """Scalar training loss of the chosen frames: the weighted sum of the terms."""
        terms = self.terms(frames, generator, step)
        return torch.stack([term.weight * term.penalty(model, term.batch) for term in terms]).sum()

    def prepare(self, model: Potential, train: Tensor) -> None:
        """Measure the frames to train on, once before training, and set the model's units by them.

        Args:
            model: to be trained.
            train: (frames,) indices into the graphs.
        """

    def divergence_reason(self, metrics: dict[str, float]) -> str:
        """Why training cannot recover, by its metrics after a tenth of the epochs; or empty."""
        raise NotImplementedError

    def evaluate(
        self, model: Potential, batches: list[Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        """Validation metrics over all batches together."""
        raise NotImplementedError

    def test_errors(self, model: Potential, batches: list[Tensor]) -> dict[str, float]:
        """Final metrics on test frames; none where there are no labels."""
        del model, batches
        return {}


class PretextTask(Task):
    """What all tasks without labels have in common."""

    criterion = "val_loss"

    def divergence_reason(self, metrics: dict[str, float]) -> str:
        """A pretext task is never given up."""
        del metrics
        return ""
