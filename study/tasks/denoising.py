"""Denoising (arXiv:2206.00133, arXiv:2303.02216): predict the noise added to positions.

It includes the denoising of non-equilibrium structures given their forces (DeNS, arXiv:2403.09549).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.graphs.graph_set import GraphSet, connect
from study.models.potential import Potential
from study.tasks.task import Counts, PretextTask, Term, count_atoms, count_once

if TYPE_CHECKING:
    from study.tasks.pretext_config import Denoising as DenoisingSettings


@dataclass(frozen=True)
class NoisyBatch:
    """Graphs with noise on their positions.

    Args:
        graph: perturbed positions, with the neighbour lists of these.
        targets: (N, 3) what is to be predicted: the negative noise in units of the frame's noise
            scale, or as the settings say.
        scales: (N, 1) the frame's noise scale in units of the largest.
        noised: (N, 1) 1 for atoms with noise, 0 for others.
    """

    graph: Batch
    targets: Tensor
    scales: Tensor
    noised: Tensor


class Denoising(PretextTask):
    """Add Gaussian noise to positions and predict its negative, or the noise itself.

    The negative noise has the sign of a force: for a conservative model the clean structure lies
    in the minimum. The loss is the mean squared error in units of the noise scale; chance is 1, or
    in Å the square of the scale.
    The noise scale may vary by frame; the network then infers it, or its output is divided by it.

    Noise may be added to a fraction of the atoms; only these count in the loss. The clean
    structure of a frame out of equilibrium is not unique unless its forces are given: then
    `graph.given_force` (N, 3), eV/Å, holds the forces on atoms with noise. Unlike the authors'
    code, labels of the clean frame are never predicted from the noisy one.
    """

    def __init__(self, settings: DenoisingSettings, graphs: GraphSet) -> None:
        self.settings, self.graphs = settings, graphs

    def terms(self, frames: Tensor, generator: torch.Generator, step: int = 0) -> list[Term]:
        """Loss of a batch: the mean or sum of squared errors of the noise."""
        del step
        noisy, settings = self.example(frames, generator), self.settings
        noisy.graph.noise = noisy.targets
        name = f"{settings.reduction} of squared errors of the noise"
        if settings.corrupted < 1:
            noisy.graph.noised = noisy.noised
            name += " of corrupted atoms"
        if settings.conditioned:
            noisy.graph.noise_scale = noisy.scales
            name += ", conditioned"
        if settings.given == "forces":
            name += ", given forces"
        counts: Counts = count_once
        if settings.reduction == "mean":
            counts = count_noised if settings.corrupted < 1 else count_atoms
        penalty = partial(squared_error, settings.reduction)
        return [Term(name, penalty, noisy.graph, counts=counts)]

    def evaluate(
        self, model: Potential, batches: list[Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        """Mean squared error over all components of all batches."""
        errors = torch.cat(
            [self._squared_errors(model, frames, generator).detach() for frames in batches]
        )
        # A small set may have no atom with noise, and then no error.
        return {"val_loss": float(errors.mean()) if len(errors) else 0.0}

    def example(self, frames: Tensor, generator: torch.Generator) -> NoisyBatch:
        """Add noise to the positions of the given frames.

        Args:
            frames: (G,) frame indices.
            generator: draws the noise; on the graphs' device.
        """
        graph = self.graphs.gather_atoms(frames)
        noise = self._normal(graph, generator)
        if self.settings.center:
            noise = noise - _mean_per_graph(noise, graph)[graph.batch]
        scales = self._scales(graph, generator)
        noised = self._noised(graph, generator)
        noise = noised * noise
        graph.pos = graph.pos + self.settings.noise_scale * scales * noise
        if self.settings.given == "forces":
            graph.given_force = noised * graph.force
        graph.edge_index, graph.shift = connect(graph, self.graphs.cutoff)
        targets = noised * self._normal(graph, generator) if self.settings.placebo else -noise
        return NoisyBatch(graph, self._converted(targets, scales), scales, noised)

    def _converted(self, targets: Tensor, scales: Tensor) -> Tensor:
        """Targets (N, 3) with the sign and the unit that are asked for.

        Args:
            targets: the negative noise in units of each frame's scale.
            scales: (N, 1) in units of the largest.
        """
        if self.settings.target == "noise":
            targets = -targets
        if self.settings.target_unit == "angstrom":
            targets = self.settings.noise_scale * scales * targets
        return targets

    def _noised(self, graph: Batch, generator: torch.Generator) -> Tensor:
        """Draw (N, 1) which atoms get noise: 1 for these, 0 for others."""
        pos = graph.pos[:, :1]
        if self.settings.corrupted == 1:
            return torch.ones_like(pos)
        uniform = torch.rand(pos.shape, generator=generator, device=pos.device, dtype=pos.dtype)
        return (uniform < self.settings.corrupted).to(pos.dtype)

    def _scales(self, graph: Batch, generator: torch.Generator) -> Tensor:
        """Draw the noise scale (N, 1) of each atom's frame, in units of the largest."""
        lowest, largest = self.settings.lowest_scale, self.settings.noise_scale
        if lowest is None:
            return torch.ones_like(graph.pos[:, :1])
        uniform = torch.rand(
            graph.num_graphs, generator=generator, device=graph.pos.device, dtype=graph.pos.dtype
        )
        return ((lowest / largest) ** uniform)[graph.batch, None]

    def _normal(self, graph: Batch, generator: torch.Generator) -> Tensor:
        pos = graph.pos
        return torch.randn(pos.shape, generator=generator, device=pos.device, dtype=pos.dtype)

    def _squared_errors(
        self, model: Potential, frames: Tensor, generator: torch.Generator
    ) -> Tensor:
        noisy = self.example(frames, generator)
        predicted = model.vectors(noisy.graph)
        if self.settings.conditioned:
            predicted = predicted / noisy.scales
        return (predicted - noisy.targets)[noisy.noised.squeeze(-1) > 0].square()


def squared_error(reduction: str, model: Potential, batch: Batch) -> Tensor:
    """Compute () the mean or sum of squared errors of a batch.

    Args:
        reduction: `mean` or `sum` over the components of all atoms that count.
        model: its vectors predict the batch's `noise` (N, 3).
        batch: `noise_scale` (N, 1), if there, divides the vectors; `noised` (N, 1), if there, is 1
            for atoms that count.
    """
    predicted = model.vectors(batch)
    if "noise_scale" in batch:
        predicted = predicted / batch.noise_scale
    error = predicted - batch.noise
    if "noised" not in batch:
        return error.square().mean() if reduction == "mean" else error.square().sum()
    total = (batch.noised * error).square().sum()
    return total / count_noised(batch) if reduction == "mean" else total


def count_noised(batch: Batch) -> Tensor:
    """Count the components () of atoms with noise, at least 1."""
    return (3 * batch.noised.sum()).clamp(min=1)


def _mean_per_graph(values: Tensor, graph: Batch) -> Tensor:
    total = values.new_zeros(graph.num_graphs, values.shape[1]).index_add(0, graph.batch, values)
    return total / graph.ptr.diff()[:, None]
