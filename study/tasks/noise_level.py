"""Noise-level prediction, as in 3D-EMGP (arXiv:2207.08824): how far were the atoms moved?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.graphs.graph_set import GraphSet, connect
from study.models.potential import Potential
from study.tasks.scalar import mean_per_graph
from study.tasks.task import PretextTask, Term, count_frames

if TYPE_CHECKING:
    from study.tasks.pretext_config import NoiseLevel as NoiseLevelSettings


class NoiseLevel(PretextTask):
    """Every frame gets Gaussian noise of a scale of its own, which the network has to tell.

    The scale is even in its logarithm, and the mean of the atoms' scalars is to be that logarithm,
    shifted and scaled to mean 0 and variance 1: a mean square error of 1 is chance. The authors
    tell 50 classes of scales apart instead.
    """

    def __init__(self, settings: NoiseLevelSettings, graphs: GraphSet) -> None:
        self.settings, self.graphs = settings, graphs

    def terms(self, frames: Tensor, generator: torch.Generator, step: int = 0) -> list[Term]:
        """Mean square error per frame."""
        del step
        batch = self.example(frames, generator)
        return [Term("square of the noise level", squared_error, batch, counts=count_frames)]

    def evaluate(
        self, model: Potential, batches: list[Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        """The same over all frames of all batches."""
        examples = (self.example(frames, generator) for frames in batches)
        errors = torch.cat([deviations(model, batch).detach() for batch in examples])
        return {"val_loss": float(errors.square().mean())}

    def example(self, frames: Tensor, generator: torch.Generator) -> Batch:
        """Add noise to the chosen frames.

        Args:
            frames: (G,) indices into the graphs.
            generator: draws scales and noise; on the graphs' device.

        Returns:
            Graphs with noised positions, their neighbours there, and `level` (G,), what is to be
            predicted.
        """
        graph = self.graphs.gather_atoms(frames)
        lowest, largest = self.settings.lowest_scale, self.settings.noise_scale
        level = self._evenly(graph, generator)
        scale = lowest * (largest / lowest) ** level
        pos = graph.pos
        noise = torch.randn(pos.shape, generator=generator, device=pos.device, dtype=pos.dtype)
        graph.pos = pos + scale[graph.batch, None] * noise
        graph.edge_index, graph.shift = connect(graph, self.graphs.cutoff)
        told = self._evenly(graph, generator) if self.settings.placebo else level
        graph.level = math.sqrt(12) * (told - 0.5)
        return graph

    def _evenly(self, graph: Batch, generator: torch.Generator) -> Tensor:
        """Draw a number (G,) between 0 and 1 for each frame."""
        pos = graph.pos
        return torch.rand(graph.num_graphs, generator=generator, device=pos.device, dtype=pos.dtype)


def deviations(model: Potential, batch: Batch) -> Tensor:
    """Compute what the network says of each frame (G,), less the truth."""
    return mean_per_graph(model.scalars(batch), batch) - batch.level


def squared_error(model: Potential, batch: Batch) -> Tensor:
    """Compute the mean square over a batch, ()."""
    return deviations(model, batch).square().mean()
