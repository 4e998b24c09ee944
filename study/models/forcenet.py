"""ForceNet (arXiv:2103.01436) as a direct-force potential, and its edge basis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from study.core.quantities.elements import RADII
from study.graphs.graph_set import edge_vectors, gather_rows
from study.models.layers.embedding import AtomEmbedding
from study.models.layers.init import initialize
from study.models.layers.radial import distances, edge_weights
from study.models.layers.spherical_harmonics import spherical_harmonics
from study.models.potential import DirectPotential, batch_of, sum_per_graph

if TYPE_CHECKING:
    from study.models.config import ForceNet as ForceNetSettings

OXYGEN = 8
FREQUENCY_RATIO = 1.1
"""Ratio of successive frequencies of the sine basis."""

SHORTEST = 1e-3
"""In units of the cutoff, where lengths of edges are clamped."""


class EdgeBasis(nn.Module):
    """Edge features: spherical harmonics of the direction times sines of the lengths.

    Four lengths describe an edge: r, and r less the radius of its source, of its target, of both,
    all in units of the cutoff. The sines sin(1.1^k · length) of all four are mixed linearly to
    four functions, and each is multiplied with every harmonic of the direction.

    Departures: harmonics are real and orthonormal (the authors take real and imaginary parts; the
    next linear map cannot tell), lengths may be negative unless `clamped` (the authors' clamp has a
    kink), radii are covalent ones, which are known for all elements.
    """

    lengths = 4
    radii: Tensor

    def __init__(self, settings: ForceNetSettings) -> None:
        super().__init__()
        self.cutoff, self.degrees = settings.cutoff, settings.max_n
        self.frequencies = settings.frequencies
        self.clamped = settings.lengths == "clamped"
        self.size = self.lengths * self.degrees**2
        self.register_buffer("radii", torch.tensor(RADII) / 100, persistent=False)
        self.mix = nn.Linear(self.lengths * self.frequencies, self.lengths)

    def forward(self, vectors: Tensor, distance: Tensor, elements: Tensor) -> Tensor:
        """Compute the features (E, 4 · max_n²) of all edges.

        Args:
            vectors: (E, 3) Å.
            distance: (E, 1) Å.
            elements: (2, E) atomic numbers of source and target.
        """
        source, target = self.radii[elements][..., None]
        radii = torch.cat([0 * source, source, target, source + target], dim=-1)
        power = torch.arange(self.frequencies, dtype=distance.dtype, device=distance.device)
        lengths = (distance - radii)[..., None] / self.cutoff
        if self.clamped:
            lengths = lengths.clamp(min=SHORTEST)
        waves = torch.sin(lengths * FREQUENCY_RATIO**power)
        radial = self.mix(waves.flatten(1))
        angular = spherical_harmonics(vectors / distance, self.degrees)
        return (radial[:, :, None] * angular[:, None]).flatten(1)


class AtomBatchNorm(nn.BatchNorm1d):
    """Batch normalization over atoms, by the running statistics where a batch has only one."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, F) normalized."""
        # By its shape: `len` would fix the size in compiled code.
        if features.shape[0] > 1 or not self.training:
            return super().forward(features)
        # One atom has no variance: it is seen as in evaluation, and teaches no statistics.
        return nn.functional.batch_norm(
            features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def normalization(kind: str, hidden: int) -> nn.Module:
    """Build a normalization: over a batch of atoms, over the features of an atom, or none."""
    if kind == "batch":
        return AtomBatchNorm(hidden)
    return nn.LayerNorm(hidden) if kind == "layer" else nn.Identity()


def decoder(hidden: int, norm: str, outputs: int) -> nn.Sequential:
    """Build an MLP with one normalized hidden layer, for node updates and the force head."""
    return nn.Sequential(
        nn.Linear(hidden, hidden),
        normalization(norm, hidden),
        nn.SiLU(),
        nn.Linear(hidden, outputs),
    )


class Layer(nn.Module):
    """One interaction block: a convolution whose filter depends on edge, source and target."""

    def __init__(self, hidden: int, basis: int, norm: str) -> None:
        super().__init__()
        # The filter network acts on [h_target, h_source, basis]: the parts for h are computed once
        # per atom, and the two linear maps that the authors apply to the basis in a row are one.
        self.target = nn.Linear(hidden, hidden)
        self.source = nn.Linear(hidden, hidden, bias=False)
        self.basis = nn.Linear(basis, hidden, bias=False)
        self.filter = nn.Sequential(
            nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )
        self.value = nn.Linear(hidden, hidden)
        self.own = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, hidden)))
        self.node = decoder(hidden, norm, hidden)

    def filters(self, features: Tensor, basis: Tensor, edge_index: Tensor) -> Tensor:
        """Compute the filters (E, F) of the convolution."""
        source, target = edge_index
        return self.filter(
            gather_rows(self.target(features), target)
            + gather_rows(self.source(features), source)
            + self.basis(basis)
        )

    def update(self, features: Tensor, edge_index: Tensor, filters: Tensor) -> Tensor:
        """Update features (N, F) by the filtered sum over neighbours and the atom itself."""
        source, target = edge_index
        values = self.value(features)
        received = (self.own * values).index_add(0, target, filters * gather_rows(values, source))
        return features + self.node(received)


class ForceNet(DirectPotential):
    """ForceNet potential: continuous-filter convolutions, separate heads for energy and forces.

    Translation and permutation invariant, but neither rotation equivariant nor conservative: edges
    know their direction by its spherical harmonics, and nothing ties forces to the energy or makes
    them sum to zero.

    The nearest `max_neighbors` of an atom are seen. Where more lie within the cutoff, a neighbour
    that drops out makes energy and forces jump; water at 3.4 Å has fewer than 50. With `batch`
    normalization a prediction depends on the rest of the batch in training, but not in evaluation,
    which uses running statistics.

    Departure: atoms start from a learned embedding of their element. The authors feed nine
    properties of the element through the sine basis, which for given elements is the same thing.
    """

    equivariant = False

    after_layers = ("output",)
    readout: nn.Sequential
    settings: ForceNetSettings

    def __init__(self, settings: ForceNetSettings) -> None:
        super().__init__()
        self.settings = settings
        hidden = settings.hidden
        self.embedding = AtomEmbedding(
            hidden, species_blind=settings.species_blind, mask_init=settings.mask_init
        )
        self.basis = EdgeBasis(settings)
        self.layers = nn.ModuleList(
            Layer(hidden, self.basis.size, settings.norm) for _ in range(settings.layers)
        )
        self.output = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU())
        self.independent_frames = settings.norm != "batch"
        self.readout = nn.Sequential(nn.Linear(hidden, 1))
        self.vector_readout = decoder(hidden, settings.norm, 3)
        initialize(self, settings.init)
        self.force = nn.Linear(3, hidden, bias=False) if settings.force_input else None

    def features(self, graph: Data) -> Tensor:
        """Compute the features (N, F) before the heads."""
        vectors = edge_vectors(graph, graph.pos)
        distance = distances(vectors)
        weight = edge_weights(distance, graph.edge_index[1], self.settings)
        basis = self.basis(vectors, distance, self._elements(graph)[graph.edge_index])
        features: Tensor = self.embedding(graph)
        if self.force is not None and "given_force" in graph:
            features = features + self.force(graph.given_force)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            filters = weight * layer.filters(features, basis, graph.edge_index)
            features = layer.update(features, graph.edge_index, filters)
        return self.output(features)

    def scalars(self, graph: Data) -> Tensor:
        """Predict (N,) the energy of each atom, in units of `scale`."""
        return self._atomic_energies(self.features(graph), graph)

    def _energy(self, features: Tensor, graph: Data) -> Tensor:
        offsets = self.settings.energy_offset == "channels"
        if offsets:
            features = features + (self.reference[graph.z] / self.scale).to(features.dtype)[:, None]
        energy = sum_per_graph(self.scale * self._atomic_energies(features, graph), graph)
        if not offsets:
            return energy
        # What was added to the channels must not be added to the energy, too.
        return energy - sum_per_graph(self.reference[graph.z], graph).to(energy.dtype)

    def _atomic_energies(self, features: Tensor, graph: Data) -> Tensor:
        """Read out (N,) energies of atoms; a bias of the frame is shared by its atoms."""
        if self.settings.energy_bias == "atom":
            return self.readout(features).squeeze(-1)
        last = self.readout[0]
        assert isinstance(last, nn.Linear)
        energies = nn.functional.linear(features, last.weight).squeeze(-1)
        sizes = sum_per_graph(torch.ones_like(energies), graph)
        return energies + last.bias / gather_rows(sizes, batch_of(graph))

    def _elements(self, graph: Data) -> Tensor:
        """Atomic numbers (N,) from which the radii follow; all oxygen if `species_blind`."""
        return torch.full_like(graph.z, OXYGEN) if self.settings.species_blind else graph.z
