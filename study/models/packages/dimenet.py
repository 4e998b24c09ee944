"""DimeNet++ (arXiv:2011.14115) as a potential, around torch-geometric's blocks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import spherical_jn
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.models.dimenet import (
    BesselBasisLayer,
    EmbeddingBlock,
    Envelope,
    InteractionPPBlock,
    OutputPPBlock,
)
from torch_geometric.nn.models.dimenet_utils import Jn_zeros

from study.graphs.graph_set import gather_rows
from study.models.layers.edges import nearest_edges
from study.models.layers.embedding import AtomEmbedding
from study.models.layers.silu import SiLU
from study.models.potential import ConservativePotential

if TYPE_CHECKING:
    from study.models.packages.config import DimeNetPlusPlus as Settings

AROUND_SKIP = (1, 2)
"""Residual layers before and after the skip connection of an interaction block, as published."""
NO_TURN = 1e-6
"""Å². Two edges lead back to where they began if the square of their sum is smaller."""


def edge_pairs(edge_index: Tensor, vectors: Tensor, atoms: int) -> tuple[Tensor, Tensor]:
    """All pairs of edges k → j → i, but those that lead back to where they began.

    Unlike those of torch-geometric, k may be another periodic image of i.

    Args:
        edge_index: (2, E) source and target.
        vectors: (E, 3) Å, from source to target.
        atoms: their number.

    Returns:
        Rows (P,) of the first edges k → j, and of the second edges j → i.
    """
    source, target = edge_index
    arriving = torch.bincount(target, minlength=atoms)
    by_target, first = torch.argsort(target, stable=True), arriving.cumsum(0) - arriving
    counts = arriving[source]
    second = torch.arange(len(source), device=source.device).repeat_interleave(counts)
    place = torch.arange(len(second), device=source.device)
    place = place - (counts.cumsum(0) - counts)[second] + first[source][second]
    before = by_target[place]
    returns = source[before] == target[second]
    returns &= (vectors[before] + vectors[second]).square().sum(dim=-1) < NO_TURN
    return before[~returns], second[~returns]


class EdgeEmbedding(EmbeddingBlock):
    """Embeds edges, with the embeddings of atoms given."""

    def __init__(self, basis: int, hidden: int) -> None:
        super().__init__(basis, hidden, SiLU())
        del self.emb

    def reset_parameters(self) -> None:
        """Draw the weights of what is used."""
        self.lin_rbf.reset_parameters()
        self.lin.reset_parameters()

    def forward(self, atoms: Tensor, radial: Tensor, target: Tensor, source: Tensor) -> Tensor:
        """Embed edges to (E, F) from atoms (N, F) and radial functions (E, B)."""
        ends = [gather_rows(atoms, each) for each in (target, source)]
        return self.act(self.lin(torch.cat([*ends, self.act(self.lin_rbf(radial))], dim=-1)))


class AngularBasis(nn.Module):
    """Functions of the length of the first edge and the angle between both.

    They are spherical Bessel functions times Legendre polynomials (arXiv:2003.03123, eq. 6), as in
    torch-geometric, which takes half a minute to derive their formulas.
    """

    roots: Tensor
    sizes: Tensor

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.degrees, self.cutoff = settings.num_spherical, settings.cutoff
        self.envelope = Envelope(settings.envelope_exponent)
        roots = Jn_zeros(self.degrees, settings.num_radial).astype(float)
        slopes = spherical_jn(np.arange(1, self.degrees + 1)[:, None], roots)
        self.register_buffer("roots", torch.tensor(roots, dtype=torch.float64), persistent=False)
        sizes = torch.tensor(np.sqrt(2 / slopes**2), dtype=torch.float64)
        self.register_buffer("sizes", sizes, persistent=False)

    def forward(self, distance: Tensor, cosine: Tensor, before: Tensor) -> Tensor:
        """Compute (P, D · B) from lengths (E,) Å, cosines of angles (P,) and first edges (P,)."""
        x = distance / self.cutoff
        radial = self.envelope(x)[:, None, None] * self.sizes.to(x) * self._bessel(x)
        angular = self._legendre(cosine)[:, :, None]
        return (gather_rows(radial, before) * angular).flatten(1)

    def _bessel(self, x: Tensor) -> Tensor:
        """Spherical Bessel functions of each degree that vanish at 1, (E, D, B), by recursion."""
        z = x[:, None, None] * self.roots.to(x)
        lower, value = torch.cos(z) / z, torch.sin(z) / z
        values = []
        for degree in range(self.degrees):
            values.append(value[:, 0])
            z, lower, value = z[:, 1:], lower[:, 1:], value[:, 1:]
            lower, value = value, (2 * degree + 1) / z * value - lower
        return torch.stack(values, dim=1)

    def _legendre(self, cosine: Tensor) -> Tensor:
        """Legendre polynomials, normalized on the sphere, (P, D)."""
        lower, value, values = torch.zeros_like(cosine), torch.ones_like(cosine), []
        for degree in range(self.degrees):
            values.append(math.sqrt((2 * degree + 1) / (4 * math.pi)) * value)
            higher = ((2 * degree + 1) * cosine * value - degree * lower) / (degree + 1)
            lower, value = value, higher
        return torch.stack(values, dim=1)


class Interaction(InteractionPPBlock):
    """Changes edges by those before them; its gradient is summed in the same order in every run."""

    def forward(
        self, edges: Tensor, radial: Tensor, pairs: Tensor, before: Tensor, after: Tensor
    ) -> Tensor:
        """Update edges (E, F) from radial functions (E, B) and functions of pairs (P, D · B)."""
        sent = self.act(self.lin_kj(edges)) * self.lin_rbf2(self.lin_rbf1(radial))
        narrow = self.act(self.lin_down(sent))
        turned = gather_rows(narrow, before) * self.lin_sbf2(self.lin_sbf1(pairs))
        received = narrow.new_zeros(narrow.shape).index_add(0, after, turned)
        new = self.act(self.lin_ji(edges)) + self.act(self.lin_up(received))
        for residual in self.layers_before_skip:
            new = residual(new)
        new = self.act(self.lin(new)) + edges
        for residual in self.layers_after_skip:
            new = residual(new)
        return new


class Layer(nn.Module):
    """One interaction block, and the output block after it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.interaction = Interaction(
            settings.hidden,
            settings.int_emb_size,
            settings.basis_emb_size,
            settings.num_spherical,
            settings.num_radial,
            *AROUND_SKIP,
            SiLU(),
        )
        self.output = _output(settings)


class DimeNetPlusPlus(ConservativePotential):
    """DimeNet++ potential: an E(3)-invariant energy, and forces as its negative gradient.

    The output blocks end in a vector, whose sum over blocks a linear readout makes the energy of:
    the same functions as with a number from each block.
    """

    compilable = False

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        hidden, basis, exponent = settings.hidden, settings.num_radial, settings.envelope_exponent
        self.embedding = AtomEmbedding(hidden)
        self.edge_embedding = EdgeEmbedding(basis, hidden)
        self.radial = BesselBasisLayer(basis, settings.cutoff, exponent)
        self.angular = AngularBasis(settings)
        self.output = _output(settings)
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.layers))
        self.readout = nn.Sequential(nn.Linear(hidden, 1))

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        """Predict the energy (N,) of each atom, in units of `scale`."""
        limit, atoms = self.settings.max_neighbors, len(graph.z)
        edge_index, vectors, length = nearest_edges(graph, positions, limit)
        source, target = edge_index
        before, after = edge_pairs(edge_index, vectors.detach(), atoms)
        radial = self.radial(length)
        pairs = self.angular(length, _cosines(vectors, length, before, after), before)
        edges = self.edge_embedding(self.embedding(graph), radial, target, source)
        total = self.output(edges, radial, target, atoms)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            edges = layer.interaction(edges, radial, pairs, before, after)
            total = total + layer.output(edges, radial, target, atoms)
        return self.readout(total).squeeze(-1)


def _output(settings: Settings) -> OutputPPBlock:
    return OutputPPBlock(
        settings.num_radial,
        settings.hidden,
        settings.out_emb_channels,
        settings.hidden,
        settings.num_output_layers,
        SiLU(),
        output_initializer="glorot_orthogonal",
    )


def _cosines(vectors: Tensor, length: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Cosines (P,) of the angles between pairs of edges."""
    directions = vectors / length[:, None]
    return (gather_rows(directions, before) * gather_rows(directions, after)).sum(dim=-1)
