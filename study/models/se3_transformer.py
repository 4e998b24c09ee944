"""The SE(3)-Transformer (arXiv:2006.10503) as a potential, written from the paper."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from study.graphs.graph_set import edge_vectors, gather_rows
from study.models.layers.embedding import AtomEmbedding, ForceEmbedding
from study.models.layers.init import initialize
from study.models.layers.radial import bessel_basis, distances, edge_weights
from study.models.layers.silu import SiLU
from study.models.layers.spherical_harmonics import spherical_harmonics
from study.models.potential import ConservativePotential

if TYPE_CHECKING:
    from study.models.config import SE3Transformer as Settings

MAX_SCORE = 8.0
"""Of an edge in attention, approached smoothly."""


def couplings(first: int, second: int) -> list[int]:
    """Degrees J whose harmonics couple two degrees without telling left from right."""
    return list(range(abs(first - second), first + second + 1, 2))


def coupling_tensor(first: int, second: int, third: int) -> Tensor:
    """∫ Y_first Y_second Y_third over the sphere, a coupling that commutes with rotations.

    These real Gaunt coefficients are Clebsch–Gordan coefficients but for a factor. The quadrature
    is exact: products of harmonics are polynomials in cos θ and waves in φ.

    Returns:
        (2 first + 1, 2 second + 1, 2 third + 1) float64, of norm 1.
    """
    total = first + second + third
    heights, weights = np.polynomial.legendre.leggauss(total // 2 + 1)
    turns = 2 * np.pi * np.arange(total + 1) / (total + 1)
    height, turn = (grid.ravel() for grid in np.meshgrid(heights, turns, indexing="ij"))
    radius = np.sqrt(1 - height**2)
    points = np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=-1)
    parts = [
        spherical_harmonics(torch.tensor(points), degree + 1)[:, degree**2 :]
        for degree in (first, second, third)
    ]
    weight = torch.tensor(np.repeat(weights, len(turns)))
    tensor = torch.einsum("s,si,sj,sk->ijk", weight, *parts)
    return tensor / tensor.norm()


class Kernel(nn.Module):
    """Messages from features of one degree to another: Σ_J φ_J(r) Σ_m Y_Jm(r̂) Q_Jm f.

    Args:
        source: degree of the neighbour's features.
        target: degree of the messages.
        channels: of the features.
        outputs: channels of the messages.
        basis: number of radial functions, from which a network makes φ.
    """

    def __init__(self, source: int, target: int, channels: int, outputs: int, basis: int) -> None:
        super().__init__()
        self.outputs, self.degrees = outputs, couplings(source, target)
        for degree in self.degrees:
            tensor = coupling_tensor(target, source, degree) * math.sqrt(2 * target + 1)
            self.register_buffer(f"coupling_{degree}", tensor, persistent=False)
        paths = len(self.degrees) * channels
        self.radial = nn.Sequential(nn.Linear(basis, 32), SiLU(), nn.Linear(32, outputs * paths))

    def forward(self, features: Tensor, basis: Tensor, harmonics: Sequence[Tensor]) -> Tensor:
        """(E, outputs, 2 target + 1) messages.

        Args:
            features: (E, C, 2 source + 1) of the neighbours.
            basis: (E, B) of the lengths.
            harmonics: (E, 2 J + 1) of the directions, for every degree J.
        """
        along = []
        for degree in self.degrees:
            coupling = getattr(self, f"coupling_{degree}").to(features.dtype)
            turned = torch.einsum("tsj,ej->ets", coupling, harmonics[degree])
            along.append(features @ turned.transpose(1, 2))
        paths = torch.cat(along, dim=1)
        weights = self.radial(basis).unflatten(-1, (self.outputs, paths.shape[1]))
        return weights @ paths / math.sqrt(paths.shape[1])


class Layer(nn.Module):
    """Attention over neighbours, eqs. 10 and 11, and a nonlinearity that keeps directions."""

    def __init__(
        self, inputs: Sequence[int], outputs: Sequence[int], channels: int, heads: int, basis: int
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.heads = inputs, outputs, heads
        self.kernels = nn.ModuleDict(
            {
                f"{source} to {target}": Kernel(source, target, channels, 2 * channels, basis)
                for source in inputs
                for target in outputs
            }
        )
        shared = [degree for degree in outputs if degree in inputs]
        self.queries = nn.ModuleDict(
            {str(degree): nn.Linear(channels, channels, bias=False) for degree in shared}
        )
        self.own = nn.ModuleDict(
            {str(degree): nn.Linear(channels, channels, bias=False) for degree in shared}
        )
        self.norm = nn.LayerNorm(channels)
        self.gates = nn.Linear(len(outputs) * channels, len(outputs) * channels)

    def forward(
        self,
        features: dict[int, Tensor],
        edge_index: Tensor,
        basis: Tensor,
        weight: Tensor,
        harmonics: Sequence[Tensor],
    ) -> dict[int, Tensor]:
        """New features (N, C, 2l + 1) by their degree l.

        Args:
            features: the same, before.
            edge_index: (2, E).
            basis: (E, B) of the lengths.
            weight: (E, 1) envelope.
            harmonics: (E, 2 J + 1) of the directions, for every degree J.
        """
        source, target = edge_index
        keys, values = {}, {}
        for degree in self.outputs:
            messages = [
                self.kernels[f"{given} to {degree}"](
                    gather_rows(features[given], source), basis, harmonics
                )
                for given in self.inputs
            ]
            keys[degree], values[degree] = torch.stack(messages).sum(dim=0).chunk(2, dim=1)
        attention = self._attention(features, keys, target, weight)
        found = {}
        for degree, value in values.items():
            shape = (len(features[0]), *value.shape[1:])
            heard = value.new_zeros(shape).index_add(0, target, attention[..., None] * value)
            if (own := str(degree)) in self.own:
                heard = heard + _mix(self.own[own], features[degree])
            found[degree] = heard
        return self._gate(found)

    def _attention(
        self, features: dict[int, Tensor], keys: dict[int, Tensor], target: Tensor, weight: Tensor
    ) -> Tensor:
        """(E, C) softmax over the neighbours of an atom, and a nothing that has the score 0.

        Without the nothing the attention to an only neighbour would not fade out with it, and
        without a limit to scores a neighbour would fade out only at the very cutoff.
        """
        scores = []
        for name, linear in self.queries.items():
            query = gather_rows(_mix(linear, features[int(name)]), target)
            per_head = (query * keys[int(name)]).sum(dim=-1).unflatten(-1, (self.heads, -1))
            scores.append(per_head.sum(dim=-1) / math.sqrt(per_head.shape[-1] * query.shape[-1]))
        score = MAX_SCORE * (torch.stack(scores).sum(dim=0) / MAX_SCORE).tanh()
        power = weight * score.exp()
        total = power.new_ones(len(features[0]), self.heads).index_add(0, target, power)
        channels = features[0].shape[1]
        return (power / gather_rows(total, target)).repeat_interleave(
            channels // self.heads, dim=-1
        )

    def _gate(self, features: dict[int, Tensor]) -> dict[int, Tensor]:
        """Scalars through SiLU; the others are multiplied by a function of scalars and lengths."""
        scalars = self.norm(features[0].squeeze(-1))
        sizes = [(features[degree].square().sum(dim=-1) + 1).sqrt() for degree in self.outputs[1:]]
        gates = self.gates(torch.cat([scalars, *sizes], dim=-1)).chunk(len(self.outputs), dim=-1)
        found = {0: (scalars + nn.functional.silu(gates[0])).unsqueeze(-1)}
        for degree, gate in zip(self.outputs[1:], gates[1:], strict=True):
            found[degree] = gate.sigmoid().unsqueeze(-1) * features[degree]
        return found


class SE3Transformer(ConservativePotential):
    """Rotation, translation and permutation invariant energy; forces are its gradient.

    The packages with this model need DGL, which no longer works with today's torch, or give each
    atom a fixed number of neighbours, so it is written here. Departures: only couplings that a
    mirror image shares, so that mirror images have equal energies; a Bessel basis of the lengths;
    attention that fades out at the cutoff; keys and values share the first layer of their radial
    networks; lengths gate features of degree 1 and more, where the paper divides by lengths, which
    has no derivative where they vanish.
    """

    compilable = False

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        hidden, heads, basis = settings.hidden, settings.heads, settings.basis
        everything = list(range(settings.degrees))
        first = [0, 1] if settings.force_input else [0]
        degrees = [first, *[everything] * (settings.layers - 1), [0]]
        self.embedding = AtomEmbedding(hidden)
        self.layers = nn.ModuleList(
            Layer(inputs, outputs, hidden, heads, basis)
            for inputs, outputs in itertools.pairwise(degrees)
        )
        self.readout = nn.Sequential(nn.Linear(hidden, hidden), SiLU(), nn.Linear(hidden, 1))
        initialize(self, "xavier")
        self.force = ForceEmbedding(hidden) if settings.force_input else None

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        """(N,) energies of the atoms, in units of `scale`."""
        vectors = edge_vectors(graph, positions)
        distance = distances(vectors)
        weight = edge_weights(distance, graph.edge_index[1], self.settings)
        basis = bessel_basis(distance, self.settings.cutoff, self.settings.basis)
        highest = 2 * self.settings.degrees - 1
        harmonics = spherical_harmonics(vectors / distance, highest)
        # Scaled so that their mean square is 1.
        by_degree = [
            math.sqrt(4 * math.pi) * harmonics[:, degree**2 : (degree + 1) ** 2]
            for degree in range(highest)
        ]
        features = self._enter(graph)
        for layer in self.layers:
            features = layer(features, graph.edge_index, basis, weight, by_degree)
        return self.readout(features[0].squeeze(-1)).squeeze(-1)

    def _enter(self, graph: Data) -> dict[int, Tensor]:
        """Elements, and vectors of given forces, which are zero where none are given."""
        scalars = self.embedding(graph)
        if self.force is None:
            return {0: scalars.unsqueeze(-1)}
        given = self.force(graph)
        if given is None:
            return {0: scalars.unsqueeze(-1), 1: scalars.new_zeros(*scalars.shape, 3)}
        # Harmonics of degree 1 are y, z and x, in this order.
        vectors = given[1].transpose(1, 2)[..., [1, 2, 0]]
        return {0: (scalars + given[0]).unsqueeze(-1), 1: vectors}


def _mix(linear: nn.Module, features: Tensor) -> Tensor:
    """(N, C, 2l + 1) with channels mixed, and directions left alone."""
    mixed: Tensor = linear(features.transpose(1, 2))
    return mixed.transpose(1, 2)
