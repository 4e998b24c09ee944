"""PaiNN, the polarizable atom interaction network (arXiv:2102.03150), as a potential."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, cat, nn
from torch_geometric.data import Data

from study.graphs.graph_set import edge_vectors, gather_rows
from study.models.layers.embedding import AtomEmbedding
from study.models.layers.radial import bessel_basis, distances, edge_weights, lengths
from study.models.layers.silu import SiLU
from study.models.potential import ConservativePotential

if TYPE_CHECKING:
    from study.models.config import PaiNN as PaiNNSettings


class Layer(nn.Module):
    """One message block and one update block."""

    def __init__(self, hidden: int, basis: int) -> None:
        super().__init__()
        self.source = _three_fold(hidden, hidden)
        self.filter = nn.Linear(basis, 3 * hidden)
        self.mix = nn.Linear(hidden, 2 * hidden, bias=False)
        self.node = _three_fold(2 * hidden, hidden)

    def message(
        self,
        scalars: Tensor,
        vectors: Tensor,
        edge_index: Tensor,
        filters: Tensor,
        directions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Add what neighbours send, eqs. 7 and 8.

        Args:
            scalars: (N, F).
            vectors: (N, 3, F).
            edge_index: (2, E).
            filters: (E, 3F), zero at the cutoff.
            directions: (E, 3) unit vectors.

        Returns:
            scalars (N, F) and vectors (N, 3, F).
        """
        source, target = edge_index
        sent = gather_rows(self.source(scalars), source) * filters
        scalar, radial, carried = sent[:, None].chunk(3, dim=-1)
        moved = directions[..., None] * radial + gather_rows(vectors, source) * carried
        return (
            scalars.index_add(0, target, scalar.squeeze(1)),
            vectors.index_add(0, target, moved),
        )

    def update(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the channels of each atom, eqs. 9 and 10; shapes as in `message`."""
        left, right = self.mix(vectors).chunk(2, dim=-1)
        gates = self.node(cat([scalars, lengths(right, 1)], dim=-1))
        scalar, product, vector = gates.chunk(3, dim=-1)
        inner = (left * right).sum(dim=1)
        return scalars + scalar + product * inner, vectors + vector[:, None] * left


class PaiNN(ConservativePotential):
    """Rotation, translation and permutation invariant energy; forces are its gradient.

    Filters are made of Bessel functions, √(2/c) times the paper's sines, and end at the cutoff with
    our envelope.
    """

    settings: PaiNNSettings

    def __init__(self, settings: PaiNNSettings) -> None:
        super().__init__()
        self.settings = settings
        hidden, half = settings.hidden, (settings.hidden + 1) // 2
        self.embedding = AtomEmbedding(hidden)
        self.layers = nn.ModuleList(Layer(hidden, settings.basis) for _ in range(settings.layers))
        self.readout = nn.Sequential(nn.Linear(hidden, half), SiLU(), nn.Linear(half, 1))

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        """Compute the energies (N,) of the atoms, in units of `scale`."""
        vectors = edge_vectors(graph, positions)
        distance = distances(vectors)
        weight = edge_weights(distance, graph.edge_index[1], self.settings)
        basis = bessel_basis(distance, self.settings.cutoff, self.settings.basis)
        features: Tensor = self.embedding(graph)
        directed = features.new_zeros(len(features), 3, self.settings.hidden)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            filters = weight * layer.filter(basis)
            features, directed = layer.message(
                features, directed, graph.edge_index, filters, vectors / distance
            )
            features, directed = layer.update(features, directed)
        return self.readout(features).squeeze(-1)


def _three_fold(features: int, hidden: int) -> nn.Sequential:
    """Three outputs of each channel."""
    return nn.Sequential(nn.Linear(features, hidden), SiLU(), nn.Linear(hidden, 3 * hidden))
