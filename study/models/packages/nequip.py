"""NequIP (arXiv:2101.03164) as a potential, around the layers of the package nequip."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from e3nn.o3 import Irreps, SphericalHarmonics
from nequip.data import AtomicDataDict as Keys
from nequip.nn import ConvNetLayer
from nequip.utils import conditional_torchscript_mode
from torch import Tensor, nn
from torch_geometric.data import Data

from study.models.layers.edges import nearest_edges
from study.models.layers.embedding import AtomEmbedding
from study.models.layers.radial import bessel_basis
from study.models.potential import ConservativePotential

if TYPE_CHECKING:
    from study.models.packages.config import NequIP as NequIPSettings

ATOMS_PER_VOLUME = 0.1
"""Å⁻³, of water and most dense matter; gives the neighbours that messages are divided by."""


class NequIP(ConservativePotential):
    """The layers of `NequIPGNNModel` and its readout; forces are the gradient of the energy.

    They are given our atom embedding, which knows all elements, and our edges, and make of their
    lengths and directions what the package does.
    """

    compilable = False

    settings: NequIPSettings

    def __init__(self, settings: NequIPSettings) -> None:
        super().__init__()
        self.settings = settings
        directions = Irreps.spherical_harmonics(settings.l_max)
        self.embedding = AtomEmbedding(settings.hidden)
        with conditional_torchscript_mode(False):  # noqa: FBT003 - the package's signature
            self.directions = SphericalHarmonics(
                directions, normalize=False, normalization="component"
            )
            self.layers = nn.ModuleList(_layers(settings, directions))
        self.readout = nn.Sequential(nn.Linear(settings.hidden, 1))

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        """Predict the energy (N,) of each atom, in units of `scale`."""
        edge_index, vectors, length = nearest_edges(graph, positions, None)
        length = length[:, None]
        atoms = self.embedding(graph)
        data = {
            # Edges are all that is used. Leaves of the graph of gradients cannot be followed into
            # modules by who counts operations.
            Keys.POSITIONS_KEY: positions.detach(),
            # The first end of an edge takes in messages, and its vector points to the second.
            Keys.EDGE_INDEX_KEY: edge_index.flip(0),
            Keys.EDGE_ATTRS_KEY: self.directions(-vectors / length),
            Keys.EDGE_EMBEDDING_KEY: self._radial(length),
            Keys.NODE_ATTRS_KEY: atoms,
            Keys.NODE_FEATURES_KEY: atoms,
        }
        for layer in self.layers:
            data = layer(data)
        return self.readout(data[Keys.NODE_FEATURES_KEY]).squeeze(-1)

    def _radial(self, length: Tensor) -> Tensor:
        """Bessel functions (E, B) of lengths (E, 1) Å that fade out at the cutoff."""
        cutoff, p = self.settings.cutoff, self.settings.polynomial_cutoff_p
        x = (length / cutoff).clamp(max=1)
        fading = (
            1
            - (p + 1) * (p + 2) / 2 * x**p
            + p * (p + 2) * x ** (p + 1)
            - p * (p + 1) / 2 * x ** (p + 2)
        )
        size = math.sqrt(2 / cutoff)
        return size * fading * bessel_basis(length, cutoff, self.settings.num_bessels)


def _layers(settings: NequIPSettings, directions: Irreps) -> list[ConvNetLayer]:
    """As `NequIPGNNModel` makes them; the last one gives scalars alone."""
    scalars = Irreps(f"{settings.hidden}x0e")
    hidden = Irreps(
        [
            (settings.hidden, (degree, parity))
            for degree in range(settings.l_max + 1)
            for parity in ((1, -1) if settings.parity else ((-1) ** degree,))
        ]
    )
    irreps = {
        Keys.NODE_ATTRS_KEY: scalars,
        Keys.NODE_FEATURES_KEY: scalars,
        Keys.EDGE_ATTRS_KEY: directions,
        Keys.EDGE_EMBEDDING_KEY: Irreps(f"{settings.num_bessels}x0e"),
    }
    layers: list[ConvNetLayer] = []
    for number in range(settings.layers):
        last = number == settings.layers - 1
        convolution = {
            "radial_mlp_depth": settings.radial_mlp_depth,
            "radial_mlp_width": settings.radial_mlp_width,
            "use_sc": number > 0,
            "is_first_layer": number == 0,
            "avg_num_neighbors": settings.avg_num_neighbors or _usual_neighbors(settings.cutoff),
        }
        layer = ConvNetLayer(irreps, scalars if last else hidden, convolution_kwargs=convolution)
        irreps = layer.irreps_out
        layers.append(layer)
    return layers


def _usual_neighbors(cutoff: float) -> float:
    return ATOMS_PER_VOLUME * 4 / 3 * math.pi * cutoff**3
