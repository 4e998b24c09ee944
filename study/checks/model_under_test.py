"""A model while it is checked, and how far two of its predictions are apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.checks.structures import Structure, build_graphs
from study.models.config import ModelConfig
from study.models.potential import Potential

Outputs = tuple[Tensor, Tensor, Tensor]
"""Energies, forces and vectors."""

TOLERANCE = 1e-8
"""Largest relative difference of float64 results that should be equal."""


@dataclass(frozen=True)
class ModelUnderTest:
    """The model to check.

    Args:
        build: builds a new model.
        settings: its settings.
        model: a model in float64 without very small weights.
        water: a structure to predict.
    """

    build: Callable[[], Potential]
    settings: ModelConfig
    model: Potential
    water: Structure

    @classmethod
    def of(cls, build: Callable[[], Potential], settings: ModelConfig, water: Structure) -> Self:
        """Build a float64 model, and randomize weights too small for an effect to be measured."""
        model = build().double().eval()
        with torch.no_grad():
            for weights in model.parameters():
                if weights.abs().max() < 0.01:
                    weights.normal_(generator=generator())
        return cls(build, settings, model, water)

    def graph(self, *structures: Structure) -> Batch:
        """Collate structures into one batch with edges up to the model's cutoff."""
        graphs = build_graphs(structures, self.settings.cutoff)
        return graphs.gather(torch.arange(len(graphs)))

    def predict(self, *structures: Structure) -> Outputs:
        """Predict energies (G,), forces (N, 3) and vectors (N, 3) of structures."""
        return outputs(self.model, self.graph(*structures))


def outputs(model: Potential, graph: Batch) -> Outputs:
    """Predict energies (G,), forces (N, 3) and vectors (N, 3) of a batch."""
    predicted = model(graph)
    vectors = model.vectors(graph).detach()
    return predicted.energy.detach(), predicted.forces.detach(), vectors


def generator() -> torch.Generator:
    """Return a source of the same random numbers in every check."""
    return torch.Generator().manual_seed(0)


def difference(got: Outputs, expected: Outputs, what: str) -> str:
    """Say which of a model's outputs differ by more than rounding; empty if none does."""
    for name, one, other in zip(("energy", "forces", "vectors"), got, expected, strict=True):
        size = max(1.0, float(other.abs().max()))
        apart = float((one - other).abs().max())
        if not apart <= TOLERANCE * size:
            return f"{what} changes {name} by {apart:.3g}"
    return ""
