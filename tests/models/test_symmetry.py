"""Rotation error and net force, of models that have them and of models that do not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN, GNS, ForceNet, ModelConfig
from study.models.potential import Prediction
from study.models.symmetry import random_rotation, symmetry_errors

DIRECT = [GNS(name="gns", hidden=8, layers=2), ForceNet(name="forcenet", hidden=8, layers=2)]


@pytest.fixture
def batch(mixed_water: Frames) -> Batch:
    """Frames of 24 and 12 atoms, single precision."""
    return GraphSet.build(mixed_water, 3.4).gather(torch.tensor([0, 1]))


def measure(settings: ModelConfig, batch: Batch, seed: int = 0) -> dict[str, float]:
    return symmetry_errors(build_model(settings, seed=0).eval(), batch, seeded(seed))


def test_an_equivariant_conservative_model_has_no_errors(batch: Batch) -> None:
    errors = measure(EGNN(name="egnn", hidden=8, layers=2), batch)
    assert errors["rotation_error"] < 1e-4
    assert errors["energy_rotation_error"] < 1e-6
    assert errors["net_force"] < 1e-6


@pytest.mark.parametrize("settings", DIRECT, ids=lambda settings: settings.name)
def test_direct_models_have_errors(settings: ModelConfig, batch: Batch) -> None:
    errors = measure(settings, batch)
    assert set(errors) == {"rotation_error", "energy_rotation_error", "net_force"}
    assert errors["rotation_error"] > 0.1
    assert errors["energy_rotation_error"] > 1e-5
    assert errors["net_force"] > 1e-3


@pytest.mark.parametrize("settings", DIRECT, ids=lambda settings: settings.name)
def test_errors_are_a_function_of_the_generator(settings: ModelConfig, batch: Batch) -> None:
    first, same, other = (measure(settings, batch, seed) for seed in (0, 0, 1))
    assert first == same
    assert first["rotation_error"] != other["rotation_error"]


def test_the_batch_is_left_as_it_is(batch: Batch) -> None:
    positions, shift = batch.pos.clone(), batch.shift.clone()
    measure(DIRECT[0], batch)
    assert torch.equal(batch.pos, positions)
    assert torch.equal(batch.shift, shift)


def test_no_forces_have_no_error(batch: Batch) -> None:
    model = build_model(DIRECT[0], seed=0).eval()
    model.zero_init_readout()
    assert set(symmetry_errors(model, batch, seeded(0)).values()) == {0.0}


def toy(batch: Batch) -> Prediction:
    """Energy Σx, and forces of 3 eV/Å along x on every atom."""
    energy = torch.zeros(2).index_add(0, batch.batch, batch.pos[:, 0])
    return Prediction(energy, torch.tensor([3.0, 0, 0]).expand(len(batch.z), 3))


def test_errors_are_those_of_their_definitions() -> None:
    batch = SimpleNamespace(
        z=torch.tensor([1, 1, 8]),
        pos=torch.eye(3),
        shift=torch.zeros(0, 3),
        cell=torch.zeros(2, 3, 3),
        batch=torch.tensor([0, 0, 1]),
        ptr=torch.tensor([0, 2, 3]),
    )
    generator = seeded(3)
    rotations = [random_rotation(generator).float() for _ in range(4)]
    force = torch.tensor([1.0, 0, 0])
    missed = torch.stack([force - turn @ force for turn in rotations])
    # Row 0 of a rotation holds the x of the turned unit vectors.
    rows = torch.stack([turn[0] - force for turn in rotations])
    per_atom = torch.stack([(rows[:, 0] + rows[:, 1]) / 2, rows[:, 2]])
    errors = symmetry_errors(toy, batch, seeded(3))
    assert errors["net_force"] == pytest.approx(3)
    assert errors["rotation_error"] == pytest.approx(float(missed.square().sum(1).mean().sqrt()))
    assert errors["energy_rotation_error"] == pytest.approx(float(per_atom.square().mean().sqrt()))


def test_random_rotations_are_proper_and_uniform() -> None:
    generator = seeded(0)
    turns = torch.stack([random_rotation(generator) for _ in range(4000)])
    identity = torch.eye(3, dtype=torch.float64).expand(4000, 3, 3)
    torch.testing.assert_close(turns @ turns.mT, identity)
    torch.testing.assert_close(turns.det(), torch.ones(4000).double())
    # Uniform over the group: entries have mean 0, variance 1/3, and the trace has mean square 1.
    assert turns.mean(0).abs().max() < 0.04
    assert (turns.square().mean(0) - 1 / 3).abs().max() < 0.02
    trace: Tensor = turns.diagonal(dim1=1, dim2=2).sum(-1)
    assert float(trace.square().mean()) == pytest.approx(1, abs=0.06)
