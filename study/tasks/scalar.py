"""Supervised training on one number per structure: a property, or the energy alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.graphs.element_counts import ElementCounts
from study.graphs.graph_set import GraphSet
from study.models.potential import Potential, sum_per_graph
from study.tasks.supervised import (
    LOSSES,
    WHERE_KNOWN,
    LabelledTask,
    count_labels,
    fitted_once,
    known_values,
    rms,
)
from study.tasks.task import Term

if TYPE_CHECKING:
    from study.tasks.config import Scalar as ScalarSettings


@dataclass(frozen=True)
class ScalarStatistics:
    """Statistics of the training labels; fitted on training frames only.

    Args:
        mean: mean of the frames.
        elements: value of each element by its atomic number, the least squares fit of their sum.
        std: standard deviation of the frames about the sum over elements or the mean.
    """

    mean: float
    elements: tuple[float, ...]
    std: float

    @classmethod
    def fit(cls, values: Tensor, graphs: GraphSet, frames: Tensor, *, extensive: bool) -> Self:
        """Fit the statistics to the labels that the given frames have.

        Args:
            values: (frames,) labels of all frames.
            graphs: all frames.
            frames: (M,) training frames.
            extensive: predict relative to a sum over elements, or else to the mean.
        """
        frames = known_values(frames, values[frames].cpu())
        labels, counts = values[frames].cpu(), ElementCounts.of(graphs, frames)
        sizes = counts.sizes
        mean, per_atom = labels.mean(), (labels / sizes).mean()
        # Fits the deviations from the mean per atom: of equally good fits the one nearest to it.
        elements = per_atom + counts.fit(labels - per_atom * sizes)
        residual = labels - (counts.sum(elements) if extensive else mean)
        # A single frame has no standard deviation; then 1 serves as the unit.
        return cls(float(mean), tuple(elements.tolist()), rms(residual) or 1.0)


class Scalar(LabelledTask):
    """Error of one number per structure, in units of its labels' standard deviation.

    The readout of the atoms is summed if the property is extensive, and added to a sum over
    elements; else it is averaged, and added to the training mean.
    """

    def __init__(self, settings: ScalarSettings, graphs: GraphSet) -> None:
        super().__init__(settings, graphs)
        self.settings = settings
        energy = settings.target == "energy"
        self.values = graphs.energy if energy else graphs.properties[settings.target]
        self.loss_kind = settings.loss + WHERE_KNOWN * bool(self.values.isnan().any())
        self.criterion = f"val_{settings.target}_{settings.criterion}"

    def prepare(self, model: Potential, train: Tensor) -> None:
        """Measure the labels, and let the model put out values about their reference."""
        extensive = self.settings.extensive
        fit = partial(ScalarStatistics.fit, self.values, self.graphs, train, extensive=extensive)
        what = self.settings.target, extensive
        self.statistics = fitted_once(ScalarStatistics, fit, self.graphs, train, *what)
        self.units = torch.tensor(
            [self.statistics.std], dtype=self.graphs.dtype, device=self.graphs.device
        )
        self.apply(model)

    def apply(self, model: Potential) -> None:
        """Set the reference values and the output scale of a model in place."""
        model.scale.fill_(self.statistics.std)
        model.reference.zero_()
        model.frame_reference.zero_()
        if self.settings.extensive:
            elements = torch.tensor(self.statistics.elements, dtype=torch.float64)
            model.reference.copy_(elements)
        else:
            model.frame_reference.fill_(self.statistics.mean)

    def terms(self, frames: Tensor, generator: torch.Generator, step: int = 0) -> list[Term]:
        """Errors of a batch, and the terms of the auxiliary task."""
        batch, others = self.training_batch(frames, generator, step)
        batch.units = self.units
        batch.y = self.values[frames.to(self.values.device, non_blocking=True)]
        kind, pool = self.loss_kind, POOLINGS[self.settings.extensive]
        name = f"{kind} of {pool.__name__}"
        counts = partial(count_scalars, kind)
        errors = Term(name, partial(scalar_errors, kind, pool), batch, counts=counts)
        return [errors, *others]

    def errors(self, model: Potential, batches: list[Tensor]) -> dict[str, float]:
        """Errors per frame in the property's unit; for energies also per atom."""
        pool = POOLINGS[self.settings.extensive]
        predict = partial(predict_scalar, pool, model)
        return self.with_own_errors(model, batches, predict, partial(self._errors, batches))

    def trivial_errors(self, model: Potential, batches: list[Tensor]) -> dict[str, float]:
        """Errors of predicting the training mean, or the sum over elements."""
        predict, errors = model.reference_energy, partial(self._errors, batches)
        return self.with_own_errors(model, batches, predict, errors, strict=False)

    def divergence_reason(self, metrics: dict[str, float]) -> str:
        """Return no reason: no error of a scalar is taken for divergence."""
        del metrics
        return ""

    def _errors(
        self, batches: list[Tensor], predict: Callable[[Batch], Tensor]
    ) -> dict[str, float]:
        errors, sizes = [], []
        for frames in batches:
            batch = self.gather(frames)
            labels = self.values[frames]
            errors.append(known_values(predict(batch).detach() - labels, labels))
            sizes.append(known_values(batch.ptr.diff(), labels))
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
    """Average per-atom values (N,) to (G,)."""
    return sum_per_graph(values, graph) / graph.ptr.diff()


Pooling = Callable[[Tensor, Batch], Tensor]
POOLINGS: dict[bool, Pooling] = {True: sum_per_graph, False: mean_per_graph}
"""Pooling over atoms, by whether the property is extensive."""


def predict_scalar(pool: Pooling, model: Potential, batch: Batch) -> Tensor:
    """Predict (G,) the property in its unit, float64, differentiable."""
    pooled = pool(model.scalars(batch), batch)
    return (model.scale * pooled).double() + model.reference_energy(batch)


def count_scalars(kind: str, batch: Batch) -> Tensor:
    """Count the labels () that the error of a batch is the mean of."""
    return count_labels(kind, ["y"], batch)[0]


def scalar_errors(kind: str, pool: Pooling, model: Potential, batch: Batch) -> Tensor:
    """Compute () the error of a batch, in units of `batch.units`."""
    prediction = model.scale * pool(model.scalars(batch), batch)
    label = (batch.y - model.reference_energy(batch)).to(prediction.dtype)
    return LOSSES[kind](prediction / batch.units, label / batch.units)
