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
"""Largest attention score of an edge, approached smoothly."""


def couplings(first: int, second: int) -> list[int]:
    """List the degrees J that couple two degrees and preserve parity."""
    return list(range(abs(first - second), first + second + 1, 2))


def coupling_tensor(first: int, second: int, third: int) -> Tensor:
    """Compute ∫ Y_first Y_second Y_third over the sphere, a rotation-equivariant coupling.

    These real Gaunt coefficients are proportional to Clebsch–Gordan coefficients. The quadrature
    is exact: products of harmonics are polynomials in cos θ times trigonometric functions of φ.

    Returns:
        (2 first + 1, 2 second + 1, 2 third + 1) float64, of norm 1.
    """
    total = first + second + third
    heights, weights = np.polynomial.legendre.leggauss(total // 2 + 1)
    azimuths = 2 * np.pi * np.arange(total + 1) / (total + 1)
    height, azimuth = (grid.ravel() for grid in np.meshgrid(heights, azimuths, indexing="ij"))
    radius = np.sqrt(1 - height**2)
    points = np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), height], axis=-1)
    parts = [
        spherical_harmonics(torch.tensor(points), degree + 1)[:, degree**2 :]
        for degree in (first, second, third)
    ]
    weight = torch.tensor(np.repeat(weights, len(azimuths)))
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
        """Compute the messages (E, outputs, 2 target + 1).

        Args:
            features: (E, C, 2 source + 1) of the neighbours.
            basis: (E, B) radial basis.
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
        """Update the features (N, C, 2l + 1) by degree l.

        Args:
            features: (N, C, 2l + 1) by degree l.
            edge_index: (2, E).
            basis: (E, B) radial basis.
            weight: (E, 1) envelope.
            harmonics: (E, 2 J + 1) of the directions, for every degree J.
        """
        source, target = edge_index
        keys, values = {}, {}
        for degree in self.outputs:
            messages = [
                self.kernels[f"{source_degree} to {degree}"](
                    gather_rows(features[source_degree], source), basis, harmonics
                )
                for source_degree in self.inputs
            ]
            keys[degree], values[degree] = torch.stack(messages).sum(dim=0).chunk(2, dim=1)
        attention = self._attention(features, keys, target, weight)
        updated = {}
        for degree, value in values.items():
            shape = (len(features[0]), *value.shape[1:])
            aggregated = value.new_zeros(shape).index_add(0, target, attention[..., None] * value)
            if (own := str(degree)) in self.own:
                aggregated = aggregated + _mix_channels(self.own[own], features[degree])
            updated[degree] = aggregated
        return self._gate(updated)

    def _attention(
        self, features: dict[int, Tensor], keys: dict[int, Tensor], target: Tensor, weight: Tensor
    ) -> Tensor:
        """Attention weights (E, C): softmax over neighbours and a null key with score 0.

        Without the null key (attention sink) the weight of a single neighbour would not vanish at
        the cutoff, and without a limit on scores it would vanish only right at the cutoff.
        """
        scores = []
        for name, linear in self.queries.items():
            query = gather_rows(_mix_channels(linear, features[int(name)]), target)
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
        """Apply SiLU to scalars, and gate higher degrees by scalars and lengths."""
        scalars = self.norm(features[0].squeeze(-1))
        sizes = [(features[degree].square().sum(dim=-1) + 1).sqrt() for degree in self.outputs[1:]]
        gates = self.gates(torch.cat([scalars, *sizes], dim=-1)).chunk(len(self.outputs), dim=-1)
        gated = {0: (scalars + nn.functional.silu(gates[0])).unsqueeze(-1)}
        for degree, gate in zip(self.outputs[1:], gates[1:], strict=True):
            gated[degree] = gate.sigmoid().unsqueeze(-1) * features[degree]
        return gated


class SE3Transformer(ConservativePotential):
    """SE(3)-Transformer: an E(3)-invariant energy, and forces as its negative gradient.

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
        all_degrees = list(range(settings.degrees))
        first = [0, 1] if settings.force_input else [0]
        degrees = [first, *[all_degrees] * (settings.layers - 1), [0]]
        self.embedding = AtomEmbedding(hidden)
        self.layers = nn.ModuleList(
            Layer(inputs, outputs, hidden, heads, basis)
            for inputs, outputs in itertools.pairwise(degrees)
        )
        self.readout = nn.Sequential(nn.Linear(hidden, hidden), SiLU(), nn.Linear(hidden, 1))
        initialize(self, "xavier")
        self.force = ForceEmbedding(hidden) if settings.force_input else None

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        """Predict the energy (N,) of each atom, in units of `scale`."""
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
        features = self._embed(graph)
        for layer in self.layers:
            features = layer(features, graph.edge_index, basis, weight, by_degree)
        return self.readout(features[0].squeeze(-1)).squeeze(-1)

    def _embed(self, graph: Data) -> dict[int, Tensor]:
        """Embed elements as scalars, and given forces as vectors, zero without forces."""
        scalars = self.embedding(graph)
        if self.force is None:
            return {0: scalars.unsqueeze(-1)}
        forces = self.force(graph)
        if forces is None:
            return {0: scalars.unsqueeze(-1), 1: scalars.new_zeros(*scalars.shape, 3)}
        # Harmonics of degree 1 are y, z and x, in this order.
        vectors = forces[1].transpose(1, 2)[..., [1, 2, 0]]
        return {0: (scalars + forces[0]).unsqueeze(-1), 1: vectors}


def _mix_channels(linear: nn.Module, features: Tensor) -> Tensor:
    """Mix the channels of features (N, C, 2l + 1) of one degree."""
    mixed: Tensor = linear(features.transpose(1, 2))
    return mixed.transpose(1, 2)
