"""TensorNet against the package's own, on a molecule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import molecule

from study.checks.structures import Structure, build_graphs
from study.models.build import build_model
from study.models.packages.config import TensorNet

pytest.importorskip("torchmdnet.models.tensornet")

CUTOFF = 3.4


@pytest.mark.parametrize("group", ["O(3)", "SO(3)"])
def test_it_is_that_of_torchmd_net(group: str) -> None:
    from torchmdnet.models.tensornet import TensorNet as Network

    ethanol = molecule("CH3CH2OH")
    structure = Structure(ethanol.numbers, ethanol.positions, 50 * np.eye(3))
    graph = build_graphs([structure], CUTOFF).gather(torch.tensor([0]))
    settings = TensorNet(
        name="tensornet",
        hidden=8,
        cutoff=CUTOFF,
        equivariance_invariance_group=group,
        envelope="raised_cosine",
    )
    ours = build_model(settings, seed=0).double().eval()
    theirs = Network(
        8,
        2,
        32,
        cutoff_upper=CUTOFF,
        max_z=119,
        equivariance_invariance_group=group,
        static_shapes=False,
    ).double()
    theirs.load_state_dict(
        ours.network.state_dict() | {"tensor_embedding.emb.weight": ours.embedding.species.weight},
        strict=False,
    )
    expected = ours.readout(theirs(graph.z, graph.pos, graph.batch)[0])[:, 0]
    actual = ours.atomic_energies(graph, graph.pos)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
