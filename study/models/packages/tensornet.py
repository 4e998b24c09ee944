"""TensorNet (arXiv:2306.06482) as a potential, around the network of TorchMD-NET."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import warp
from torch import Tensor, nn
from torch_geometric.data import Data
from torchmdnet.models.tensornet import TensorNet as Network

from study.models.layers.edges import nearest_edges
from study.models.layers.embedding import AtomEmbedding
from study.models.layers.radial import Envelope
from study.models.layers.silu import SiLU
from study.models.potential import ConservativePotential, batch_of

if TYPE_CHECKING:
    from study.models.packages.config import TensorNet as TensorNetSettings

warp.config.quiet = True  # Otherwise it prints a line for each kernel that it compiles.

Edges = tuple[Tensor, Tensor, Tensor]
"""Target and source (2, E), lengths (E,) Å, and vectors (E, 3) Å from source to target."""


class GivenEdges(nn.Module):
    """Takes the place of the network's search for neighbours, with edges in place of a box."""

    def forward(self, positions: Tensor, batch: Tensor, box: Edges) -> Edges:
        """Return the edges."""
        del positions, batch
        return box


class TensorNet(ConservativePotential):
    """TensorNet potential: an O(3)-invariant energy, and forces as its negative gradient.

    The network is given our atom embedding, edges and envelope. The readout is the package's.
    """

    after_layers = ("network.linear", "network.out_norm")
    compilable = False

    settings: TensorNetSettings

    def __init__(self, settings: TensorNetSettings) -> None:
        super().__init__()
        self.settings = settings
        hidden, half, cutoff = settings.hidden, (settings.hidden + 1) // 2, settings.cutoff
        self.embedding = AtomEmbedding(hidden)
        self.network = Network(
            hidden,
            settings.layers,
            settings.num_rbf,
            cutoff_upper=cutoff,
            equivariance_invariance_group=settings.equivariance_invariance_group,
            static_shapes=False,
        )
        self.network.distance = GivenEdges()
        self.network.tensor_embedding.emb = nn.Identity()
        envelope = Envelope(cutoff, settings.envelope)
        self.network.distance_expansion.cutoff_fn = envelope
        for part in (self.network.tensor_embedding, *self.network.layers):
            part.cutoff = envelope
        self.readout = nn.Sequential(nn.Linear(hidden, half), SiLU(), nn.Linear(half, 1))

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        """Predict the energy (N,) of each atom, in units of `scale`."""
        batch = batch_of(graph)
        charges = positions.new_zeros(len(graph.z))
        # Whoever counts operations cannot follow leaves of the graph of gradients into modules.
        places = positions.detach()
        features, *_ = self.network(
            self.embedding(graph), places, batch, self._edges(graph, positions), charges
        )
        return self.readout(features).squeeze(-1)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The layers of the network."""
        return list(self.network.layers)

    def _edges(self, graph: Data, positions: Tensor) -> Edges:
        """Edges with a loop of length 0 at each atom, as the network takes them."""
        limit = self.settings.max_neighbors
        edge_index, vectors, length = nearest_edges(graph, positions, limit)
        # Vectors of edges that begin and end at the same atom are taken for those of loops, and
        # not divided by their lengths. Those to its own images have lengths.
        own = edge_index[0] == edge_index[1]
        vectors = vectors / torch.where(own, length, torch.ones_like(length))[:, None]
        atoms = torch.arange(len(graph.z), device=graph.z.device).expand(2, -1)
        return (
            torch.cat([edge_index.flip(0), atoms], dim=1),
            torch.cat([length, length.new_zeros(len(graph.z))]),
            torch.cat([vectors, vectors.new_zeros(len(graph.z), 3)]),
        )
