"""Finetuning on a number that belongs to a whole structure: a property, or the energy alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.graphs.graph_set import GraphSet
from study.models.potential import Potential, sum_per_graph
from study.tasks.supervised import (
    LOSSES,
    LabelledTask,
    element_counts,
    fit_element_contributions,
    rms,
)
from study.tasks.task import Term

if TYPE_CHECKING:
    from study.tasks.config import Scalar as ScalarSettings


@dataclass(frozen=True)
class ScalarStatistics:
    """What the training labels look like; fitted on training frames alone.

    Args:
        mean: of the frames.
        elements: value of each element by its atomic number, the least squares fit of their sum.
        std: standard deviation of the frames about what they are predicted about.
    """

    mean: float
    elements: tuple[float, ...]
    std: float

    @classmethod
    def fit(cls, values: Tensor, graphs: GraphSet, frames: Tensor, *, extensive: bool) -> Self:
        """Measure the labels of the chosen frames.

        Args:
            values: (frames,) of all frames.
            graphs: all frames.
            frames: the chosen ones.
            extensive: predicted about a sum over elements, or else about the mean.
        """
        chosen, counts = values[frames].cpu(), element_counts(graphs, frames)
        mean, per_atom = chosen.mean(), (chosen / counts.sum(dim=1)).mean()
        # About the mean per atom: the nearest to it of all fits that are equally good.
        elements = per_atom + fit_element_contributions(
            counts, chosen - per_atom * counts.sum(dim=1)
        )
        left = chosen - (counts @ elements if extensive else mean)
        # A single frame has no spread; any unit will do then.
        return cls(float(mean), tuple(elements.tolist()), rms(left) or 1.0)


class Scalar(LabelledTask):
    """Error of one number per structure, in standard deviations of its training labels.

    Atoms' numbers from the readout are summed if the property is extensive, and predicted about a
    sum over elements; else they are averaged, and predicted about the mean.
    """

    def __init__(self, settings: ScalarSettings, graphs: GraphSet, train: Tensor) -> None:
        super().__init__(settings, graphs)
        self.settings = settings
        energy = settings.target == "energy"
        self.values = graphs.energy if energy else graphs.properties[settings.target]
        self.statistics = ScalarStatistics.fit(
            self.values, graphs, train, extensive=settings.extensive
        )
        self.criterion = f"val_{settings.target}_{settings.criterion}"
        self.units = torch.tensor(
            [self.statistics.std], dtype=graphs.pos.dtype, device=graphs.device
        )

    def apply(self, model: Potential) -> None:
        """Let the model put out values about the reference, in standard deviations."""
        model.scale.fill_(self.statistics.std)
        model.reference.zero_()
        model.frame_reference.zero_()
        if self.settings.extensive:
            elements = torch.tensor(self.statistics.elements, dtype=torch.float64)
            model.reference.copy_(elements)
        else:
            model.frame_reference.fill_(self.statistics.mean)

    def terms(self, frames: Tensor, generator: torch.Generator, step: int = 0) -> list[Term]:
        """The errors of a batch, and the terms of the auxiliary task."""
        batch = self.gather(frames)
        batch.units = self.units
        batch.y = self.values[frames.to(self.values.device, non_blocking=True)]
        kind, pool = self.settings.loss, POOLINGS[self.settings.extensive]
        name = f"{kind} of {pool.__name__}"
        errors = Term(name, partial(scalar_errors, kind, pool), batch)
        return [errors, *self.auxiliary_terms(frames, generator, step)]

    def errors(self, model: Potential, batches: list[Tensor]) -> dict[str, float]:
        """Errors per frame in the property's unit; of the energy also per atom."""
        pool = POOLINGS[self.settings.extensive]
        return self._errors(batches, lambda batch: predicted(pool, model, batch))

    def trivial_errors(self, model: Potential, batches: list[Tensor]) -> dict[str, float]:
        """The same for the mean of the training frames, or the sum over elements."""
        return self._errors(batches, model.reference_energy)

    def divergence_reason(self, metrics: dict[str, float]) -> str:
        """Never: there is no error that training could not recover from."""
        del metrics
        return ""

    def _errors(
        self, batches: list[Tensor], predict: Callable[[Batch], Tensor]
    ) -> dict[str, float]:
        errors, sizes = [], []
        for frames in batches:
            batch = self.gather(frames)
            errors.append(predict(batch).detach() - self.values[frames])
            sizes.append(batch.ptr.diff())
        per_frame, name = torch.cat(errors), self.settings.target
        if name != "energy":
            return {f"{name}_rmse": rms(per_frame), f"{name}_mae": float(per_frame.abs().mean())}
        per_atom = per_frame / torch.cat(sizes)
        return {
            "energy_rmse": rms(per_atom),
            "energy_mae": float(per_atom.abs().mean()),
            "frame_energy_rmse": rms(per_frame),
            "frame_energy_mae": float(per_frame.abs().mean()),
        }


def mean_per_graph(values: Tensor, graph: Batch) -> Tensor:
    """(G,) means of per-atom values."""
    return sum_per_graph(values, graph) / graph.ptr.diff()


Pool = Callable[[Tensor, Batch], Tensor]
POOLINGS: dict[bool, Pool] = {True: sum_per_graph, False: mean_per_graph}
"""What makes a structure's number of its atoms', by whether the property is extensive."""


def predicted(pool: Pool, model: Potential, batch: Batch) -> Tensor:
    """(G,) float64, in the property's unit."""
    pooled = pool(model.scalars(batch), batch)
    return (model.scale * pooled).double() + model.reference_energy(batch)


def scalar_errors(kind: str, pool: Pool, model: Potential, batch: Batch) -> Tensor:
    """() errors in the unit of the batch's `units`."""
    found = model.scale * pool(model.scalars(batch), batch)
    label = (batch.y - model.reference_energy(batch)).to(found.dtype)
    return LOSSES[kind](found / batch.units, label / batch.units)
