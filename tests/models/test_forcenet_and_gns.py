"""GNS and ForceNet: their parts against independent definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import lebedev_rule
from scipy.special import sph_harm_y
from torch import Tensor

from study.core.elements import RADII
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import GNS, ForceNet, ModelConfig
from study.models.forcenet import EdgeBasis
from study.models.layers.radial import bessel_basis, nearest_neighbor_mask
from study.models.layers.spherical_harmonics import spherical_harmonics

DEGREES = 8


def directions(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    return torch.cat([axes, random / random.norm(dim=1, keepdim=True)])


def test_spherical_harmonics_are_the_real_forms_of_scipys() -> None:
    vectors = directions(50)
    x, y, z = vectors.numpy().T
    polar, azimuth = np.arccos(z), np.arctan2(y, x)
    expected = []
    for degree in range(DEGREES):
        for order in range(-degree, degree + 1):
            # Scipy's sign (-1)^m is not part of ours.
            value = (-1) ** order * sph_harm_y(degree, abs(order), polar, azimuth)
            part = value.imag if order < 0 else value.real
            expected.append(part * (np.sqrt(2) if order else 1))
    actual = spherical_harmonics(vectors, DEGREES)
    np.testing.assert_allclose(actual, np.stack(expected, axis=1), atol=1e-12)


def test_spherical_harmonics_are_orthonormal() -> None:
    points, weights = lebedev_rule(17)
    values = spherical_harmonics(torch.tensor(points.T), DEGREES).numpy()
    gram = values.T @ (weights[:, None] * values)
    np.testing.assert_allclose(gram, np.eye(DEGREES**2), atol=1e-10)


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_the_nearest_neighbours_are_those_of_a_sorted_list(limit: int) -> None:
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(5, (60,), generator=generator)
    distance = torch.rand(60, 1, generator=generator)
    expected = torch.zeros(60, 1)
    for atom in range(5):
        edges = torch.nonzero(target == atom).flatten().tolist()
        expected[sorted(edges, key=lambda edge: float(distance[edge]))[:limit]] = 1
    assert torch.equal(nearest_neighbor_mask(target, distance, limit), expected)


def test_no_edges_have_no_nearest() -> None:
    assert nearest_neighbor_mask(torch.zeros(0, dtype=torch.long), torch.zeros(0, 1), 3).shape == (
        0,
        1,
    )


def test_a_limit_above_the_number_of_neighbours_changes_nothing(graphs: GraphSet) -> None:
    batch = graphs.gather(torch.tensor([0, 1]))
    most = int(torch.bincount(batch.edge_index[1]).max())
    forces = [
        build_model(ForceNet(name="forcenet", hidden=8, max_neighbors=limit), seed=0)
        .double()
        .eval()(batch)
        .forces
        for limit in (None, most, most - 1)
    ]
    assert torch.equal(forces[0], forces[1])
    assert not torch.allclose(forces[0], forces[2])


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


def test_gns_edges_are_told_vector_and_distance_in_units_of_the_cutoff(graphs: GraphSet) -> None:
    batch, told = graphs.gather(torch.tensor([0])), []
    model = build_model(GNS(name="gns", hidden=8, layers=1), seed=0).double()
    model.encode_edge.register_forward_hook(lambda _, inputs, __: told.append(inputs[0]))
    model(batch)
    source, target = batch.edge_index
    vectors = batch.pos[target] - batch.pos[source] + batch.shift
    expected = torch.cat([vectors, vectors.norm(dim=1, keepdim=True)], dim=1) / 3.4
    torch.testing.assert_close(told[0], expected)


def test_gns_edges_with_a_bessel_basis_are_told_the_direction_alone(graphs: GraphSet) -> None:
    settings, told = GNS(name="gns", hidden=8, layers=1, radial="bessel", basis=5), []
    batch = graphs.gather(torch.tensor([0]))
    model = build_model(settings, seed=0).double()
    model.encode_edge.register_forward_hook(lambda _, inputs, __: told.append(inputs[0]))
    model(batch)
    source, target = batch.edge_index
    vectors = batch.pos[target] - batch.pos[source] + batch.shift
    distance = vectors.norm(dim=1, keepdim=True)
    torch.testing.assert_close(told[0][:, :3], 3**0.5 * vectors / distance)
    torch.testing.assert_close(told[0][:, 3:], bessel_basis(distance, 3.4, 5))


def edge_states(edge_update: str, batch: Tensor) -> list[Tensor]:
    """The edge states that each of four steps starts from."""
    settings = GNS(name="gns", hidden=8, layers=4, edge_update=edge_update)
    model, states = build_model(settings, seed=0).double(), []
    for layer in model.layers:
        layer.state.register_forward_hook(lambda _, inputs, __: states.append(inputs[0]))
    model(batch)
    return states


def test_legacy_edge_states_double_at_every_step_and_others_do_not(water: Frames) -> None:
    batch = GraphSet.build(water, 3.4, dtype=torch.float64).gather(torch.tensor([0]))
    first, *legacy = edge_states("legacy", batch)
    for step, state in enumerate(legacy, start=1):
        assert torch.equal(state, 2**step * first)
    first, second, *_ = edge_states("residual", batch)
    # What is added to a state has been through a layer norm.
    change = second - first
    torch.testing.assert_close(change.mean(dim=1), torch.zeros(len(change)).double())
    torch.testing.assert_close(
        change.var(dim=1, correction=0), torch.ones(len(change)).double(), rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("init", ["torch", "xavier"])
@pytest.mark.parametrize(
    "settings", [GNS(name="gns"), ForceNet(name="forcenet")], ids=lambda value: value.name
)
def test_initial_weights_are_as_wide_as_asked_for(init: str, settings: ModelConfig) -> None:
    model = build_model(settings.model_copy(update={"init": init}), seed=0)
    weights, biases = model.layers[0].target.weight, model.layers[0].target.bias
    width = {"torch": 1 / 128, "xavier": 3 / 128}[init] ** 0.5
    assert weights.detach().abs().max().item() == pytest.approx(width, rel=1e-3)
    assert (torch.count_nonzero(biases) == 0) == (init == "xavier")


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [(GNS(name="gns"), (128, 10, 3.4)), (ForceNet(name="forcenet"), (128, 5, 3.4))],
)
def test_default_sizes_are_the_papers(
    settings: GNS | ForceNet, sizes: tuple[int, int, float]
) -> None:
    assert (settings.hidden, settings.layers, settings.cutoff) == sizes
