"""EGNN, the E(n)-equivariant graph neural network (arXiv:2102.09844), as a potential."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from study.graphs.graph_set import edge_vectors, gather_rows, nearest_images
from study.models.layers.embedding import AtomEmbedding
from study.models.layers.radial import bessel_basis, distances, edge_weights, nearest_neighbor_mask
from study.models.layers.silu import SiLU
from study.models.potential import ConservativePotential

if TYPE_CHECKING:
    from study.models.config import EGNN as EGNNSettings  # noqa: N811 - names a model, no constant

COORDINATE_GAIN = 1e-3
"""Gain of the initial coordinate weights, so that an untrained network hardly moves atoms."""

NORM_EPSILON = 1e-8
"""Å, added to the lengths that vectors are divided by, as in the authors' code."""


class Layer(nn.Module):
    """One message-passing layer, eqs. 3–6."""

    def __init__(self, hidden: int, radial: int) -> None:
        super().__init__()
        # The first layer of the edge network acts on [h_target, h_source, radial]: the parts for
        # h are computed once per atom instead of once per edge.
        self.target = nn.Linear(hidden, hidden)
        self.source = nn.Linear(hidden, hidden, bias=False)
        self.radial = nn.Linear(radial, hidden, bias=False)
        self.edge = nn.Sequential(SiLU(), nn.Linear(hidden, hidden), SiLU())
        self.node = nn.Sequential(nn.Linear(2 * hidden, hidden), SiLU(), nn.Linear(hidden, hidden))
        last = nn.Linear(hidden, 1, bias=False)
        nn.init.xavier_uniform_(last.weight, gain=COORDINATE_GAIN)
        self.coordinate = nn.Sequential(nn.Linear(hidden, hidden), SiLU(), last)

    def messages(self, features: Tensor, radial: Tensor, edge_index: Tensor) -> Tensor:
        """Compute the messages (E, F), eq. 3."""
        source, target = edge_index
        return self.edge(
            gather_rows(self.target(features), target)
            + gather_rows(self.source(features), source)
            + self.radial(radial)
        )

    def move(self, positions: Tensor, target: Tensor, pull: Tensor, degree: Tensor) -> Tensor:
        """Update positions (N, 3) by eq. 4, normalized by the mean over neighbours."""
        return positions.index_add(0, target, pull / gather_rows(degree, target))

    def update(self, features: Tensor, target: Tensor, messages: Tensor) -> Tensor:
        """Update features (N, F) by eqs. 5 and 6, with the residual of the authors' code."""
        received = torch.zeros_like(features).index_add(0, target, messages)
        return features + self.node(torch.cat([features, received], dim=-1))


class EGNN(ConservativePotential):
    """EGNN potential: an E(3)-invariant energy, and forces as its negative gradient.

    Coordinates move along (x_i − x_j) / (|x_i − x_j| + 1), as in equivariant diffusion
    (arXiv:2203.17003); eq. 4 has x_i − x_j. Messages and moves fade out with the envelope
    of the initial distance, and the mean of eq. 4 is over Σ envelope + 1 neighbours: both keep
    energy and forces smooth when an atom crosses the cutoff.

    The released code of arXiv:2402.15921 divides by the length alone, through which no gradient
    passes, averages over the number of neighbours, finds nearest images anew in each layer, and
    normalizes the features before the readout: `coordinate_norm`, `mean`, `rewrap`, `final_norm`.
    """

    after_layers = ("final_norm",)
    settings: EGNNSettings

    def __init__(self, settings: EGNNSettings) -> None:
        super().__init__()
        self.settings = settings
        radial = settings.basis if settings.radial == "bessel" else 1
        # A detached length makes forces differ from the gradient of the energy.
        self.conservative = settings.coordinate_norm == "smooth"
        self.needs_cell = settings.rewrap
        self.embedding = AtomEmbedding(settings.hidden, mask_init=settings.mask_init)
        self.layers = nn.ModuleList(Layer(settings.hidden, radial) for _ in range(settings.layers))
        self.final_norm = nn.LayerNorm(settings.hidden) if settings.final_norm else nn.Identity()
        self.readout = nn.Sequential(
            nn.Linear(settings.hidden, settings.hidden),
            SiLU(),
            nn.Linear(settings.hidden, 1),
        )

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        """Predict the energy (N,) of each atom, in units of `scale`."""
        features, _ = self._propagate(graph, positions, move_last=False)
        return self.readout(self.final_norm(features)).squeeze(-1)

    def vectors(self, graph: Data) -> Tensor:
        """Predict (N, 3) for pretext tasks: −∂E/∂x, or the displacement by all layers, Å."""
        if self.settings.vector_output == "gradient":
            return super().vectors(graph)
        _, moved = self._propagate(graph, graph.pos, move_last=True)
        return moved - graph.pos

    def _propagate(
        self, graph: Data, positions: Tensor, *, move_last: bool
    ) -> tuple[Tensor, Tensor]:
        """Run all layers and return features (N, F) and positions (N, 3) Å.

        Only `vectors` needs the coordinate update of the last layer, so energies skip it.
        """
        target = graph.edge_index[1]
        distance = distances(edge_vectors(graph, positions))
        weight = edge_weights(distance, target, self.settings)
        degree = torch.zeros_like(positions[:, :1]).index_add(
            0, target, self._counted(distance, target, weight)
        )
        degree = degree.clamp(min=1) if self.settings.mean == "count" else degree + 1
        features: Tensor = self.embedding(graph)
        for number, layer in enumerate(self.layers, start=1):
            assert isinstance(layer, Layer)
            vectors = self._edge_vectors(graph, positions)
            distance = distances(vectors)
            messages = weight * layer.messages(features, self._radial(distance), graph.edge_index)
            if number < len(self.layers) or move_last:
                pull = -self._directions(vectors, distance) * layer.coordinate(messages) * weight
                positions = layer.move(positions, target, pull, degree)
            features = layer.update(features, target, messages)
        return features, positions

    def _edge_vectors(self, graph: Data, positions: Tensor) -> Tensor:
        """Vectors (E, 3) Å from source to target, wrapped to their nearest images if set."""
        vectors = edge_vectors(graph, positions)
        return nearest_images(graph, vectors) if self.settings.rewrap else vectors

    def _counted(self, distance: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """What each edge (E, 1) adds to the neighbours that moves are averaged over."""
        if self.settings.mean == "smooth":
            return weight
        limit = self.settings.max_neighbors
        if limit is None:
            return torch.ones_like(weight)
        return nearest_neighbor_mask(target, distance, limit)

    def _directions(self, vectors: Tensor, distance: Tensor) -> Tensor:
        """Directions (E, 3) along which atoms move."""
        if self.settings.coordinate_norm == "detached":
            return vectors / (distance.detach() + NORM_EPSILON)
        return vectors / (distance + 1)

    def _radial(self, distance: Tensor) -> Tensor:
        if self.settings.radial == "squared":
            return distance.square()
        return bessel_basis(distance, self.settings.cutoff, self.settings.basis)
