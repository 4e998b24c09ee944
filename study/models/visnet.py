"""ViSNet (arXiv:2210.16518) as a potential, around torch-geometric's blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.models.visnet import (
    EdgeEmbedding,
    ExpNormalSmearing,
    NeighborEmbedding,
    Sphere,
    ViS_MP,
)

from study.models.layers.edges import nearest_edges
from study.models.layers.embedding import AtomEmbedding
from study.models.layers.radial import Envelope, lengths
from study.models.layers.silu import SiLU
from study.models.potential import MAX_ATOMIC_NUMBER, ConservativePotential

if TYPE_CHECKING:
    from study.models.config import ViSNet as ViSNetSettings


class Layer(ViS_MP):
    """One message-passing layer whose vector messages also vanish at the cutoff."""

    def message(
        self,
        q_i: Tensor,
        k_j: Tensor,
        v_j: Tensor,
        vec_j: Tensor,
        dk: Tensor,
        dv: Tensor,
        r_ij: Tensor,
        d_ij: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Compute the messages to scalars (E, F) and to vectors (E, 3 or 8, F)."""
        scalars, vectors = super().message(q_i, k_j, v_j, vec_j, dk, dv, r_ij, d_ij)
        return scalars, self.cutoff(r_ij)[:, None, None] * vectors


class ViSNet(ConservativePotential):
    """ViSNet potential: an E(3)-invariant energy, and forces as its negative gradient.

    Departures: vector messages fade out at the cutoff, where the authors' end abruptly, so that
    energy and forces are smooth; the readout is the scalar part of one gated block, on scalars and
    the lengths of vectors.
    """

    after_layers = ("norm", "vector_map")
    compilable = False

    settings: ViSNetSettings

    def __init__(self, settings: ViSNetSettings) -> None:
        super().__init__()
        self.settings = settings
        hidden, cutoff, last = settings.hidden, settings.cutoff, settings.layers - 1
        envelope = Envelope(cutoff, settings.envelope)
        self.embedding = AtomEmbedding(hidden)
        self.basis = ExpNormalSmearing(cutoff, settings.basis, trainable=False)
        self.basis.cutoff_fn = envelope
        self.sphere = Sphere(settings.degrees)
        self.neighbors = NeighborEmbedding(hidden, settings.basis, cutoff, MAX_ATOMIC_NUMBER + 1)
        self.neighbors.cutoff = envelope
        self.edges = EdgeEmbedding(settings.basis, hidden)
        self.layers = nn.ModuleList(
            Layer(settings.heads, hidden, cutoff, None, False, last_layer=number == last)  # noqa: FBT003
            for number in range(settings.layers)
        )
        for layer in self.layers:
            layer.cutoff = envelope
        self.norm = nn.LayerNorm(hidden)
        self.vector_map = nn.Linear(hidden, hidden, bias=False)
        self.readout = nn.Sequential(nn.Linear(2 * hidden, hidden), SiLU(), nn.Linear(hidden, 1))

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        """Predict the energy (N,) of each atom, in units of `scale`."""
        scalars, vectors = self.features(graph, positions)
        sizes = lengths(self.vector_map(vectors), 1)
        return self.readout(torch.cat([scalars, sizes], dim=-1)).squeeze(-1)

    def features(self, graph: Data, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Compute scalars (N, F) and vectors (N, 3 or 8, F) after the last layer."""
        limit = self.settings.max_neighbors
        edge_index, vectors, length = nearest_edges(graph, positions, limit)
        # Edges run from source to target; the authors' vectors from target to source.
        directions = self.sphere(-vectors / length[:, None])
        scalars = self._combine_neighbors(graph, edge_index, length)
        # Self-attention: a loop of length 0 and without direction at each atom.
        atoms = torch.arange(len(scalars), device=scalars.device)
        edge_index = torch.cat([edge_index, torch.stack([atoms, atoms])], dim=1)
        length = torch.cat([length, length.new_zeros(len(atoms))])
        directions = torch.cat([directions, directions.new_zeros(len(atoms), directions.shape[1])])
        states = self.edges(edge_index, self.basis(length), scalars)
        moved = scalars.new_zeros(len(atoms), directions.shape[1], scalars.shape[1])
        for layer in self.layers:
            change, push, turn = layer(scalars, moved, edge_index, length, states, directions)
            scalars, moved = scalars + change, moved + push
            states = states if turn is None else states + turn
        return self.norm(scalars), moved

    def _combine_neighbors(self, graph: Data, edge_index: Tensor, length: Tensor) -> Tensor:
        """Mix atom embeddings (N, F) with the neighbours' element embeddings.

        Calls the parts of `NeighborEmbedding`, which itself would drop an atom's own periodic
        images as self-loops.
        """
        embed = self.neighbors
        filters = embed.cutoff(length)[:, None] * embed.distance_proj(self.basis(length))
        received = embed.propagate(edge_index, x=embed.embedding(graph.z), W=filters)
        return embed.combine(torch.cat([self.embedding(graph), received], dim=1))
