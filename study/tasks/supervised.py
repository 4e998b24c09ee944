"""What tasks that learn from labels have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import huber_loss, l1_loss, mse_loss
from torch_geometric.data import Batch

from study.graphs.graph_set import GraphSet
from study.models.potential import MAX_ATOMIC_NUMBER, Potential
from study.tasks.pretext import build_pretext
from study.tasks.task import Task, Term

if TYPE_CHECKING:
    from study.tasks.config import EnergyForces, Scalar

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1_loss,
    "l2": mse_loss,
    "huber": huber_loss,
}


class LabelledTask(Task):
    """Learns labels of the frames, and goes on with a pretext task meanwhile if it is told to.

    An auxiliary pretext task shares all weights. With denoising this is Noisy Nodes
    (arXiv:2106.07971), but that labels belong to the clean structures alone: energies and forces
    do not stay the same when atoms move.
    """

    def __init__(self, settings: EnergyForces | Scalar, graphs: GraphSet) -> None:
        self.graphs, self.auxiliary_settings = graphs, settings.auxiliary
        self.marked = settings.mask_embedding == "zeros"
        self.auxiliary = (
            build_pretext(settings.auxiliary.task, graphs) if settings.auxiliary else None
        )

    def gather(self, frames: Tensor) -> Batch:
        """A batch as the model sees it."""
        batch = self.graphs.gather(frames)
        if self.marked:
            batch.masked = torch.zeros_like(batch.z)
        return batch

    def evaluate(
        self, model: Potential, batches: list[Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        """Errors on validation frames."""
        del generator
        return {f"val_{name}": value for name, value in self.errors(model, batches).items()}

    def errors(self, model: Potential, batches: list[Tensor]) -> dict[str, float]:
        """Errors by name, in the units of the labels."""
        raise NotImplementedError

    def trivial_errors(self, model: Potential, batches: list[Tensor]) -> dict[str, float]:
        """The same of what needs no model: the mean of the training frames, or of elements."""
        raise NotImplementedError

    def auxiliary_terms(
        self, frames: Tensor, generator: torch.Generator, step: int
    ) -> Iterator[Term]:
        """Weighted terms, whose atoms are marked: so the network knows them from labelled ones."""
        if self.auxiliary is None or self.auxiliary_settings is None:
            return
        for term in self.auxiliary.terms(frames, generator, step):
            if "masked" not in term.batch:
                term.batch.masked = torch.ones_like(term.batch.z)
            yield replace(term, weight=self.auxiliary_settings.weight * term.weight)


def element_counts(graphs: GraphSet, frames: Tensor) -> Tensor:
    """(frames, elements) atoms of each element in the chosen frames, float64 on the CPU."""
    rows, owner = graphs.atoms.rows(frames)
    counts = torch.zeros(len(frames), MAX_ATOMIC_NUMBER + 1, dtype=torch.float64)
    counts.index_put_((owner.cpu(), graphs.z[rows].cpu()), torch.ones(()).double(), True)  # noqa: FBT003
    return counts


def fit_element_contributions(counts: Tensor, values: Tensor) -> Tensor:
    """(elements,) the least squares fit of a sum over atoms, the smallest of equally good ones."""
    return torch.linalg.lstsq(counts, values, driver="gelsd").solution


def rms(values: Tensor) -> float:
    """Root mean square."""
    return float(values.square().mean().sqrt())
