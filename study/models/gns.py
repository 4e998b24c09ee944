"""GNS, the graph network simulator (arXiv:2002.09405), as a potential with forces of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from study.graph import edge_vectors
from study.models.embedding import AtomEmbedding
from study.models.initial import initialize
from study.models.potential import DirectPotential
from study.models.radial import bessel_basis, distances, fade

if TYPE_CHECKING:
    from study.trial import GNS as GNSSettings  # noqa: N811 - names a model, no constant


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers with ReLU, linear output: the network used all over GNS."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )


class Layer(nn.Module):
    """One step of the processor: an interaction network."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        # The first layer of the edge network acts on [v_target, v_source, e]: the parts for v are
        # computed once per atom instead of once per edge.
        self.target = nn.Linear(hidden, hidden)
        self.source = nn.Linear(hidden, hidden, bias=False)
        self.state = nn.Linear(hidden, hidden, bias=False)
        self.edge = nn.Sequential(
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
        )
        self.node = nn.Sequential(mlp(2 * hidden, hidden, hidden), nn.LayerNorm(hidden))

    def messages(self, nodes: Tensor, edges: Tensor, edge_index: Tensor) -> Tensor:
        """(E, F) what every edge tells its target, and by how much its own state changes."""
        source, target = edge_index
        return self.edge(
            self.target(nodes)[target] + self.source(nodes)[source] + self.state(edges)
        )

    def update(self, nodes: Tensor, target: Tensor, messages: Tensor) -> Tensor:
        """(N, F) new node states, from the sum of the messages."""
        received = torch.zeros_like(nodes).index_add(0, target, messages)
        return nodes + self.node(torch.cat([nodes, received], dim=-1))


class GNS(DirectPotential):
    """Encode, process, decode; energy and forces are decoded each on its own.

    Translation and permutation invariant, but neither rotation equivariant nor conservative: edges
    know their vector by its Cartesian components, and nothing ties forces to the energy or makes
    them sum to zero.

    The released code of arXiv:2402.15921 (`abs_pos`) also feeds wrapped absolute positions to the
    nodes. That is not offered here: a periodic system has no origin, and moving an atom by a
    lattice vector must change nothing.
    """

    equivariant = False

    settings: GNSSettings

    def __init__(self, settings: GNSSettings) -> None:
        super().__init__()
        self.settings = settings
        hidden = settings.hidden
        radial = settings.basis if settings.radial == "bessel" else 1
        self.embedding = AtomEmbedding(hidden)
        self.encode_node = nn.Sequential(mlp(hidden, hidden, hidden), nn.LayerNorm(hidden))
        self.encode_edge = nn.Sequential(mlp(3 + radial, hidden, hidden), nn.LayerNorm(hidden))
        self.layers = nn.ModuleList(Layer(hidden) for _ in range(settings.layers))
        self.readout = mlp(hidden, hidden, 1)
        self.vector_readout = mlp(hidden, hidden, 3)
        initialize(self, settings.init)

    def features(self, graph: Data) -> Tensor:
        """(N, F) node states after the last step."""
        vectors = edge_vectors(graph, graph.pos)
        distance = distances(vectors)
        weight = fade(distance, self.settings.cutoff, self.settings.envelope)
        nodes: Tensor = self.encode_node(self.embedding(graph))
        edges = self.encode_edge(self._describe(vectors, distance))
        for layer in self.layers:
            assert isinstance(layer, Layer)
            messages = layer.messages(nodes, edges, graph.edge_index)
            nodes = layer.update(nodes, graph.edge_index[1], weight * messages)
            # The released code adds to the edge state not its change, but the state itself.
            edges = edges + (edges if self.settings.edge_update == "legacy" else messages)
        return nodes

    def _describe(self, vectors: Tensor, distance: Tensor) -> Tensor:
        """(E, 3 + radial) relative vector and distance.

        Beside a Bessel basis, which tells the length, the vector has the length √3: components of
        variance 1. Otherwise both are in units of the cutoff, as in the paper.
        """
        cutoff = self.settings.cutoff
        if self.settings.radial == "bessel":
            direction = math.sqrt(3) * vectors / distance
            return torch.cat([direction, bessel_basis(distance, cutoff, self.settings.basis)], -1)
        return torch.cat([vectors, distance], dim=-1) / cutoff
