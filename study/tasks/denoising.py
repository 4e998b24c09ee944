"""Denoising (arXiv:2206.00133, arXiv:2303.02216): predict how far atoms were pushed.

Also of structures out of equilibrium, given their forces (DeNS, arXiv:2403.09549).
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
from study.tasks.task import PretextTask, Term

if TYPE_CHECKING:
    from study.tasks.config import Denoising as DenoisingSettings


@dataclass(frozen=True)
class NoisyBatch:
    """Graphs with pushed atoms.

    Args:
        graph: positions after the push, with the neighbours that they have there.
        targets: (N, 3) the way back in units of the frame's noise scale: standard normal numbers.
        scales: (N, 1) the frame's noise scale in units of the largest.
        pushed: (N, 1) 1 for pushed atoms, 0 for others.
    """

    graph: Batch
    targets: Tensor
    scales: Tensor
    pushed: Tensor


class Denoising(PretextTask):
    """Every atom is pushed by Gaussian noise, and must point back to where it was.

    The way back has the sign of a force: for a conservative network the clean structure lies in
    the minimum. Errors are mean squares in units of the noise scale: 1 is chance. Frames may differ
    in their noise scale; the network then has to guess it, or its output is divided by it.

    Atoms may be pushed with a probability; errors count pushed atoms alone. What a pushed frame
    with forces on it would be is not unique, unless the network is told these forces: then it gets
    those of the pushed atoms, eV/Å, as `graph.given_force`. Unlike the authors' code, labels of
    the frame before the push are never asked of the frame after it.
    """

    def __init__(self, settings: DenoisingSettings, graphs: GraphSet) -> None:
        self.settings, self.graphs = settings, graphs

    def terms(self, frames: Tensor, generator: torch.Generator, step: int = 0) -> list[Term]:
        """Mean square error per component."""
        del step
        noisy, settings = self.example(frames, generator), self.settings
        noisy.graph.noise = noisy.targets
        name = f"{settings.reduction} of squares of the noise"
        if settings.corrupted < 1:
            noisy.graph.pushed = noisy.pushed
            name += " of pushed atoms"
        if settings.conditioned:
            noisy.graph.noise_scale = noisy.scales
            name += ", conditioned"
        if settings.given == "forces":
            name += ", given forces"
        return [Term(name, partial(squares, settings.reduction), noisy.graph)]

    def evaluate(
        self, model: Potential, batches: list[Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        """The same over all components of all batches."""
        squares = [self._squares(model, frames, generator).detach() for frames in batches]
        found = torch.cat(squares)
        # Where a small set has no pushed atom at all there is nothing to be wrong about.
        return {"val_loss": float(found.mean()) if len(found) else 0.0}

    def example(self, frames: Tensor, generator: torch.Generator) -> NoisyBatch:
        """Push the atoms of the chosen frames.

        Args:
            frames: (G,) indices into the graphs.
            generator: draws the noise; on the graphs' device.
        """
        graph = self.graphs.gather_atoms(frames)
        noise = self._normal(graph, generator)
        if self.settings.center:
            noise = noise - _mean_per_graph(noise, graph)[graph.batch]
        scales = self._scales(graph, generator)
        pushed = self._pushed(graph, generator)
        noise = pushed * noise
        graph.pos = graph.pos + self.settings.noise_scale * scales * noise
        if self.settings.given == "forces":
            graph.given_force = pushed * graph.force
        graph.edge_index, graph.shift = connect(graph, self.graphs.cutoff)
        targets = pushed * self._normal(graph, generator) if self.settings.placebo else -noise
        return NoisyBatch(graph, targets, scales, pushed)

    def _pushed(self, graph: Batch, generator: torch.Generator) -> Tensor:
        """(N, 1) 1 for atoms to push, 0 for others."""
        pos = graph.pos[:, :1]
        if self.settings.corrupted == 1:
            return torch.ones_like(pos)
        drawn = torch.rand(pos.shape, generator=generator, device=pos.device, dtype=pos.dtype)
        return (drawn < self.settings.corrupted).to(pos.dtype)

    def _scales(self, graph: Batch, generator: torch.Generator) -> Tensor:
        """(N, 1) noise scale of each atom's frame in units of the largest."""
        lowest, largest = self.settings.lowest_scale, self.settings.noise_scale
        if lowest is None:
            return torch.ones_like(graph.pos[:, :1])
        drawn = torch.rand(
            graph.num_graphs, generator=generator, device=graph.pos.device, dtype=graph.pos.dtype
        )
        return ((lowest / largest) ** drawn)[graph.batch, None]

    def _normal(self, graph: Batch, generator: torch.Generator) -> Tensor:
        pos = graph.pos
        return torch.randn(pos.shape, generator=generator, device=pos.device, dtype=pos.dtype)

    def _squares(self, model: Potential, frames: Tensor, generator: torch.Generator) -> Tensor:
        noisy = self.example(frames, generator)
        predicted = model.vectors(noisy.graph)
        if self.settings.conditioned:
            predicted = predicted / noisy.scales
        return (predicted - noisy.targets)[noisy.pushed.squeeze(-1) > 0].square()


def squares(reduction: str, model: Potential, batch: Batch) -> Tensor:
    """() mean or sum of the square deviations of a batch.

    Args:
        reduction: `mean` over the components of atoms that count, or `sum` over them.
        model: whose vectors are to be the batch's `noise`.
        batch: may have a `noise_scale` to divide them by, and say which atoms count by `pushed`.
    """
    predicted = model.vectors(batch)
    if "noise_scale" in batch:
        predicted = predicted / batch.noise_scale
    off = predicted - batch.noise
    if "pushed" not in batch:
        return off.square().mean() if reduction == "mean" else off.square().sum()
    total = (batch.pushed * off).square().sum()
    return total / (3 * batch.pushed.sum()).clamp(min=1) if reduction == "mean" else total


def _mean_per_graph(values: Tensor, graph: Batch) -> Tensor:
    total = values.new_zeros(graph.num_graphs, values.shape[1]).index_add(0, graph.batch, values)
    return total / graph.ptr.diff()[:, None]
