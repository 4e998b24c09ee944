"""Denoising (arXiv:2206.00133, arXiv:2303.02216): predict how far atoms were pushed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.graph import GraphSet, connect
from study.models.potential import Potential
from study.tasks import PretextTask, Term

if TYPE_CHECKING:
    from study.trial import Denoising as DenoisingSettings


@dataclass(frozen=True)
class NoisyBatch:
    """Graphs with pushed atoms.

    Args:
        graph: positions after the push, with the neighbours that they have there.
        targets: (N, 3) the way back in units of the frame's noise scale: standard normal numbers.
        scales: (N, 1) the frame's noise scale in units of the largest.
    """

    graph: Batch
    targets: Tensor
    scales: Tensor


class Denoising(PretextTask):
    """Every atom is pushed by Gaussian noise, and must point back to where it was.

    The way back has the sign of a force: for a conservative network the clean structure lies in
    the minimum. Errors are mean squares in units of the noise scale: 1 is chance. Frames may differ
    in their noise scale; the network then has to guess it, or its output is divided by it.
    """

    def __init__(self, settings: DenoisingSettings, graphs: GraphSet) -> None:
        self.settings, self.graphs = settings, graphs

    def terms(self, frames: Tensor, generator: torch.Generator, step: int = 0) -> list[Term]:
        """Mean square error per component."""
        del step
        noisy = self.example(frames, generator)
        noisy.graph.noise = noisy.targets
        if not self.settings.conditioned:
            return [Term("square of the noise", mean_square, noisy.graph)]
        noisy.graph.noise_scale = noisy.scales
        return [Term("square of the noise, conditioned", scaled_mean_square, noisy.graph)]

    def evaluate(
        self, model: Potential, batches: list[Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        """The same over all components of all batches."""
        squares = [self._squares(model, frames, generator).detach() for frames in batches]
        return {"val_loss": float(torch.cat(squares).mean())}

    def example(self, frames: Tensor, generator: torch.Generator) -> NoisyBatch:
        """Push the atoms of the chosen frames.

        Args:
            frames: (G,) indices into the graphs.
            generator: draws the noise; on the graphs' device.
        """
        graph = self.graphs.gather(frames)
        noise = self._normal(graph, generator)
        if self.settings.center:
            noise = noise - _mean_per_graph(noise, graph)[graph.batch]
        scales = self._scales(graph, generator)
        graph.pos = graph.pos + self.settings.noise_scale * scales * noise
        graph.edge_index, graph.shift = connect(graph, self.graphs.cutoff)
        targets = self._normal(graph, generator) if self.settings.placebo else -noise
        return NoisyBatch(graph, targets, scales)

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
        return (predicted - noisy.targets).square()


def mean_square(model: Potential, batch: Batch) -> Tensor:
    """() mean square deviation from the batch's `noise`."""
    return (model.vectors(batch) - batch.noise).square().mean()


def scaled_mean_square(model: Potential, batch: Batch) -> Tensor:
    """() the same for vectors divided by the batch's `noise_scale`."""
    return (model.vectors(batch) / batch.noise_scale - batch.noise).square().mean()


def _mean_per_graph(values: Tensor, graph: Batch) -> Tensor:
    total = values.new_zeros(graph.num_graphs, values.shape[1]).index_add(0, graph.batch, values)
    return total / graph.ptr.diff()[:, None]
