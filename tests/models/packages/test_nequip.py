"""NequIP against the package's own, on a molecule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import molecule

from study.checks.structures import Structure, build_graphs
from study.models.build import build_model
from study.models.packages.config import NequIP

pytest.importorskip("nequip")

CUTOFF = 3.4
TYPES = ["H", "C", "N", "O"]
NUMBERS = [1, 6, 7, 8]


@pytest.mark.parametrize("parity", [True, False])
def test_it_is_that_of_nequip(*, parity: bool) -> None:
    from nequip.data import AtomicDataDict as Keys
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    ethanol = molecule("CH3CH2OH")
    structure = Structure(ethanol.numbers, ethanol.positions, 50 * np.eye(3))
    graph = build_graphs([structure], CUTOFF).gather(torch.tensor([0]))
    settings = NequIP(name="nequip", hidden=4, layers=3, l_max=2, cutoff=CUTOFF, parity=parity)
    ours = build_model(settings, seed=0).double().eval()
    theirs = NequIPGNNModel(
        seed=0,
        model_dtype="float64",
        type_names=TYPES,
        r_max=CUTOFF,
        num_layers=3,
        l_max=2,
        parity=parity,
        num_features=4,
        avg_num_neighbors=0.1 * 4 / 3 * np.pi * CUTOFF**3,
        per_type_energy_scales=1.0,
        per_type_energy_shifts=0.0,
        do_derivatives=False,
    )
    network = next(each for each in theirs.modules() if hasattr(each, "layer0_convnet"))
    for number, layer in enumerate(ours.layers):
        network.get_submodule(f"layer{number}_convnet").load_state_dict(layer.state_dict())
    with torch.no_grad():
        network.type_embed.embed_module.weight.copy_(ours.embedding.species.weight[NUMBERS])
        (weights,) = network.per_atom_energy_readout.parameters()
        weights.copy_(ours.readout[0].weight.reshape(weights.shape))
    found = network(
        {
            Keys.POSITIONS_KEY: graph.pos,
            Keys.EDGE_INDEX_KEY: graph.edge_index,
            Keys.ATOM_TYPE_KEY: torch.tensor([NUMBERS.index(z) for z in graph.z.tolist()]),
        }
    )[Keys.PER_ATOM_ENERGY_KEY][:, 0]
    scale = 1 / np.sqrt(settings.hidden)
    with torch.no_grad():
        ours.readout[0].bias.zero_()
    torch.testing.assert_close(
        ours.atomic_energies(graph, graph.pos), found / scale, rtol=1e-9, atol=1e-9
    )
