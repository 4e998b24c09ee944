"""MACE (arXiv:2206.07697) of mace-torch as a potential.

The network is the package's own `ScaleShiftMACE`, whose parts are called one after the other as its
`forward` does, because that neither marks atoms nor takes edges whose shifts have a gradient.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from study.core.errors import UserError
from study.core.quantities.elements import ATOMIC_NUMBERS, SYMBOLS
from study.graphs.graph_set import edge_vectors, gather_rows
from study.models.layers.radial import distances
from study.models.potential import MAX_ATOMIC_NUMBER, ConservativePotential

if TYPE_CHECKING:
    from study.models.packages.config import MACE as MACESettings  # noqa: N811 - names a model

__all__ = ["MACE", "keywords", "modules"]

UNPICKLES = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""Environment variable that lets `torch.load` run code; importing mace-torch sets it for good."""

ATOMS_PER_VOLUME = 0.1
"""Å⁻³, of water and most dense matter; gives the neighbours that messages are divided by."""


@contextmanager
def _as_safe_as_before() -> Iterator[None]:
    """Import the package without what it changes for everybody else."""
    before = os.environ.get(UNPICKLES)
    try:
        # It tells what else could be installed. e3nn loads its own table of constants.
        with redirect_stdout(io.StringIO()), torch.serialization.safe_globals([slice]):
            yield
    finally:
        os.environ.pop(UNPICKLES, None)
        if before is not None:
            os.environ[UNPICKLES] = before


with _as_safe_as_before():
    from e3nn import get_optimization_defaults, o3, set_optimization_defaults
    from mace import modules


class MACE(ConservativePotential):
    """The energy of `ScaleShiftMACE` without its isolated atoms, and forces as its gradient."""

    compilable = False  # Tracing takes minutes.
    settings: MACESettings
    rows: Tensor
    one_hot: Tensor

    def __init__(self, settings: MACESettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = _network(settings)
        self.heads = tuple(f"network.readouts.{each}" for each in range(len(self.network.readouts)))
        self.mask = nn.Embedding(2, settings.hidden)
        nn.init.zeros_(self.mask.weight)
        rows = torch.full((MAX_ATOMIC_NUMBER + 1,), len(settings.elements))
        rows[self.network.atomic_numbers] = torch.arange(len(settings.elements))
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("one_hot", torch.eye(len(settings.elements)), persistent=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Build a twin; copied modules of e3nn would be TorchScript."""
        with torch.random.fork_rng(devices=[]):
            twin = type(self)(self.settings)
        twin.to(self.scale)
        kept = {name: value.clone() for name, value in self.state_dict().items()}
        twin.load_state_dict(kept, assign=True)
        for copied, own in zip(twin.parameters(), self.parameters(), strict=True):
            copied.requires_grad_(own.requires_grad)
        memo[id(self)] = twin.train(self.training)
        return twin

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """An interaction and its product each."""
        pairs = zip(self.network.interactions, self.network.products, strict=True)
        return [nn.ModuleList(pair) for pair in pairs]

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        """Predict the energy (N,) of each atom, in units of `scale`."""
        network, edge_index = self.network, graph.edge_index
        vectors = edge_vectors(graph, positions)
        elements = self._elements_of(graph.z)
        features = network.node_embedding(elements)
        if "masked" in graph:
            features = features + gather_rows(self.mask.weight, graph.masked.long())
        lengths = distances(vectors)
        directions = network.spherical_harmonics(vectors / lengths)
        radial, envelope = network.radial_embedding(
            lengths, elements, edge_index, network.atomic_numbers
        )
        layers: list[Tensor] = []
        for interaction, product in zip(network.interactions, network.products, strict=True):
            message, skipped = interaction(
                node_attrs=elements,
                node_feats=features,
                edge_attrs=directions,
                edge_feats=radial,
                edge_index=edge_index,
                cutoff=envelope,
                first_layer=not layers,
            )
            features = product(node_feats=message, sc=skipped, node_attrs=elements)
            layers.append(features)
        # With `use_last_readout_only` there is one, of the last layer.
        read = layers[-len(network.readouts) :]
        energies = [each(x)[:, 0] for each, x in zip(network.readouts, read, strict=True)]
        if self.settings.pair_repulsion:
            energies.append(
                network.pair_repulsion_fn(lengths, elements, edge_index, network.atomic_numbers)
            )
        return network.scale_shift(torch.stack(energies).sum(dim=0), torch.zeros_like(graph.z))

    def _elements_of(self, z: Tensor) -> Tensor:
        """Which of `settings.elements` each atom is: (N, elements), one 1 in each row.

        Raises:
            UserError: if it is none; on a GPU torch's error, because looking would wait for it.
        """
        try:
            return gather_rows(self.one_hot, gather_rows(self.rows, z))
        except IndexError:
            known = self.settings.elements
            unknown = {SYMBOLS[number - 1] for number in z.tolist()} - {*known}
            raise UserError(
                f"model.elements: must name all elements of the data, but lacks "
                f"{', '.join(sorted(unknown))}; it has {', '.join(known)}"
            ) from None


def _network(settings: MACESettings) -> Any:
    """The package's network, of plain torch code.

    TorchScript would end in other bits after its first steps.
    """
    scripted = get_optimization_defaults()["jit_script_fx"]
    set_optimization_defaults(jit_script_fx=False)
    try:
        return modules.ScaleShiftMACE(**keywords(settings))
    finally:
        set_optimization_defaults(jit_script_fx=scripted)


def keywords(settings: MACESettings) -> dict[str, Any]:
    """What `ScaleShiftMACE` calls the settings; energies of lone atoms are our `reference`."""
    neighbors = settings.avg_num_neighbors
    if neighbors is None:
        neighbors = ATOMS_PER_VOLUME * 4 / 3 * math.pi * settings.cutoff**3
    parities = ["e" if degree % 2 == 0 or settings.use_so3 else "o" for degree in range(4)]
    degrees = range(settings.max_L + 1)
    return {
        "r_max": settings.cutoff,
        "num_bessel": settings.num_radial_basis,
        "num_polynomial_cutoff": settings.num_cutoff_basis,
        "max_ell": settings.max_ell,
        "interaction_cls": modules.interaction_classes[settings.interaction],
        "interaction_cls_first": modules.interaction_classes[settings.interaction_first],
        "num_interactions": settings.layers,
        "num_elements": len(settings.elements),
        "hidden_irreps": o3.Irreps(
            [(settings.hidden, f"{degree}{parities[degree]}") for degree in degrees]
        ),
        "MLP_irreps": o3.Irreps(settings.MLP_irreps),
        "atomic_energies": [0.0] * len(settings.elements),
        "avg_num_neighbors": neighbors,
        "atomic_numbers": [ATOMIC_NUMBERS[symbol] for symbol in settings.elements],
        "correlation": settings.correlation,
        "gate": modules.gate_dict[settings.gate],
        "pair_repulsion": settings.pair_repulsion,
        "use_reduced_cg": settings.use_reduced_cg,
        "use_so3": settings.use_so3,
        "use_agnostic_product": settings.use_agnostic_product,
        "use_last_readout_only": settings.use_last_readout_only,
        "distance_transform": settings.distance_transform,
        "radial_MLP": settings.radial_MLP,
        "radial_type": settings.radial_type,
        "atomic_inter_scale": 1.0,
        "atomic_inter_shift": 0.0,
    }
