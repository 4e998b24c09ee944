"""Models of other packages keep the contracts, and see periodic images in the smallest cells."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from study.checks.model_contract import CHECKS, examine
from study.checks.structures import Structure, build_graphs, water_box
from study.core.config import shipped
from study.models.build import build_model
from study.models.config import ModelConfig

CUTOFF = 3.4
NAMES = ("dimenet_plus_plus", "tensornet", "nequip")


@pytest.fixture(params=NAMES)
def settings(request: pytest.FixtureRequest) -> ModelConfig:
    kind = shipped(ModelConfig)[request.param]
    if kind.package and not kind.package_version():
        pytest.skip(f"{kind.package} is not installed")
    return kind.model_validate({"name": request.param, "hidden": 8, "layers": 2, "cutoff": CUTOFF})


def test_contracts_are_kept(settings: ModelConfig) -> None:
    found = dict(examine(settings.build, settings))
    assert {name: problem for name, problem in found.items() if problem} == {}
    assert found.keys() == CHECKS.keys()


def test_operations_of_a_step_can_be_counted(settings: ModelConfig) -> None:
    model = build_model(settings, seed=0).double().train()
    graph = build_graphs([water_box(seed=1)], CUTOFF).gather(torch.tensor([0]))
    with FlopCounterMode(display=False) as counter:
        predicted = model(graph)
        (predicted.energy.sum() + predicted.forces.square().sum()).backward()
    assert counter.get_total_flops() > 0


def test_cells_thinner_than_the_cutoff_are_those_of_a_supercell(settings: ModelConfig) -> None:
    model = build_model(settings, seed=0).double().eval()
    cell = np.array([[2.6, 0, 0], [0.5, 2.7, 0], [0.3, -0.4, 2.8]])
    numbers, positions = np.array([8, 1], np.uint8), np.array([[0, 0, 0], [1.1, 1.3, 0.9]])
    images = np.array(list(itertools.product((0, 1, 2), repeat=3))) @ cell
    large = (images[:, None] + positions).reshape(-1, 3)
    structures = [
        Structure(numbers, positions, cell),
        Structure(np.tile(numbers, 27), large, 3 * cell),
    ]
    graphs = build_graphs(structures, CUTOFF)
    found = [model(graphs.gather(torch.tensor([frame]))) for frame in range(2)]
    # Edges from an atom to its own images are the rule here.
    torch.testing.assert_close(27 * found[0].energy, found[1].energy, rtol=1e-9, atol=1e-9)
    expected = found[0].forces.repeat(27, 1)
    torch.testing.assert_close(found[1].forces, expected, rtol=1e-9, atol=1e-9)
