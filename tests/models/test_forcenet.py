"""ForceNet beyond its contract."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from study.core.quantities.elements import RADII
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import ForceNet
from study.models.forcenet import EdgeBasis


def test_an_edge_is_described_by_harmonics_times_mixed_sines() -> None:
    settings = ForceNet(name="forcenet", cutoff=3.0, frequencies=5, max_n=2)
    basis = EdgeBasis(settings).double()
    vector = torch.tensor([[0.0, 1.2, -0.9]], dtype=torch.float64)
    described = basis(vector, torch.tensor([[1.5]]).double(), torch.tensor([[8], [1]]))
    lengths = np.array([1.5, 1.5 - 0.63, 1.5 - 0.32, 1.5 - 0.63 - 0.32]) / 3.0
    sines = np.array([np.sin(1.1**k * length) for length in lengths for k in range(5)])
    mixed = basis.mix.weight.detach().numpy() @ sines + basis.mix.bias.detach().numpy()
    uniform, linear = np.sqrt(1 / (4 * np.pi)), np.sqrt(3 / (4 * np.pi))
    # Order y, z, x for l = 1.
    harmonics = [uniform, linear * 0.8, linear * -0.6, 0]
    expected = [a * b for a, b in itertools.product(mixed, harmonics)]
    np.testing.assert_allclose(described.detach()[0], expected, atol=1e-7)


def test_every_element_has_a_radius() -> None:
    assert len(RADII) == 119
    assert all(30 < radius < 240 for radius in RADII[1:])
    assert [RADII[z] for z in (1, 6, 8, 17, 36, 54, 79, 118)] == [
        32,
        75,
        63,
        99,
        117,
        131,
        124,
        157,
    ]


def test_batch_normalization_learns_its_statistics_in_training_only(graphs: GraphSet) -> None:
    model = build_model(ForceNet(name="forcenet", hidden=8), seed=0).double().eval()
    batch = graphs.gather(torch.tensor([0, 1, 2]))
    running = model.vector_readout[1].running_mean
    model(batch)
    assert torch.count_nonzero(running) == 0
    model.train()(batch)
    assert torch.count_nonzero(running) == 8


def test_an_offset_of_the_channels_reaches_the_energy_through_all_readout_weights(
    graphs: GraphSet,
) -> None:
    batch = graphs.gather(torch.tensor([0]))
    totals = []
    for offset in ("atom", "channels"):
        settings = ForceNet(name="forcenet", hidden=8, energy_offset=offset)
        model = build_model(settings, seed=0).double().eval()
        model.reference.fill_(-3.0)
        model.scale.fill_(2.0)
        totals.append((model(batch).energy + model.reference_energy(batch)).item())
    through = model.readout[0].weight.sum().item()
    expected = -3.0 * len(batch.z) * (through - 1)
    assert totals[1] - totals[0] == pytest.approx(expected)


def test_a_lone_atom_trains_by_the_running_statistics_and_leaves_them(graphs: GraphSet) -> None:
    model = build_model(ForceNet(name="forcenet", hidden=8), seed=0).double().train()
    model(graphs.gather(torch.tensor([0, 1])))
    before = {name: value.clone() for name, value in model.named_buffers()}
    alone = Frames(
        numbers=np.array([8]),
        positions=np.zeros((1, 3)),
        forces=np.zeros((1, 3)),
        offsets=np.array([0, 1]),
        cells=20 * np.eye(3)[None],
        energies=np.zeros(1),
        groups=np.zeros(1, int),
    )
    batch = GraphSet.build(alone, 3.4, dtype=torch.float64).gather(torch.tensor([0]))
    trained = model(batch)
    trained.energy.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    evaluated = model.eval()(batch)
    assert torch.equal(trained.energy, evaluated.energy)
    assert torch.equal(trained.forces, evaluated.forces)
