"""SchNet (arXiv:1706.08566) as a potential, around torch-geometric's convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.models.schnet import CFConv, GaussianSmearing, ShiftedSoftplus

from study.graphs.graph_set import edge_vectors
from study.models.layers.embedding import AtomEmbedding
from study.models.layers.init import initialize
from study.models.layers.radial import distances, edge_weights
from study.models.potential import ConservativePotential

if TYPE_CHECKING:
    from study.models.config import SchNet as SchNetSettings


class Layer(nn.Module):
    """One interaction block; the envelope multiplies its filters."""

    def __init__(self, hidden: int, basis: int, cutoff: float) -> None:
        super().__init__()
        filters = nn.Sequential(
            nn.Linear(basis, hidden), ShiftedSoftplus(), nn.Linear(hidden, hidden)
        )
        self.convolution = CFConv(hidden, hidden, hidden, filters, cutoff)
        self.node = nn.Sequential(ShiftedSoftplus(), nn.Linear(hidden, hidden))

    def forward(
        self, features: Tensor, edge_index: Tensor, basis: Tensor, weight: Tensor
    ) -> Tensor:
        """Update features (N, F), from radial basis (E, B) and envelope (E, 1)."""
        convolve = self.convolution
        received = convolve.propagate(
            edge_index, x=convolve.lin1(features), W=weight * convolve.nn(basis)
        )
        return features + self.node(convolve.lin2(received))


class SchNet(ConservativePotential):
    """SchNet potential: an E(3)-invariant energy, and forces as its negative gradient."""

    settings: SchNetSettings

    def __init__(self, settings: SchNetSettings) -> None:
        super().__init__()
        self.settings = settings
        hidden, half = settings.hidden, (settings.hidden + 1) // 2
        self.embedding = AtomEmbedding(hidden)
        self.basis = GaussianSmearing(0.0, settings.cutoff, settings.basis)
        self.layers = nn.ModuleList(
            Layer(hidden, settings.basis, settings.cutoff) for _ in range(settings.layers)
        )
        self.readout = nn.Sequential(nn.Linear(hidden, half), ShiftedSoftplus(), nn.Linear(half, 1))
        initialize(self, "xavier")

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        """Predict the energy (N,) of each atom, in units of `scale`."""
        distance = distances(edge_vectors(graph, positions))
        weight = edge_weights(distance, graph.edge_index[1], self.settings)
        basis = self.basis(distance)
        features: Tensor = self.embedding(graph)
        for layer in self.layers:
            features = layer(features, graph.edge_index, basis, weight)
        return self.readout(features).squeeze(-1)
