"""Every model learns both stages on frames it has not seen, within seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.potential import Potential
from study.tasks.energy_forces import EnergyForces, LabelStatistics
from study.tasks.masking import Masking
from study.tasks.task import Task
from study.training.config import Stage
from study.training.loop import fit
from tests.native import NATIVE

SIZES = {"hidden": 24, "layers": 2}
OTHER_SIZES: dict[str, dict[str, int]] = {
    "egnn": {"hidden": 16, "basis": 8},
    "schnet": {"basis": 20},
    "visnet": {"hidden": 16, "basis": 8, "heads": 2},
    "equivariant_transformer": {"hidden": 16, "basis": 8, "heads": 2},
    "se3_transformer": {"hidden": 8},
}
"""Of models that learn as well when they are smaller than `SIZES`."""
SMALL = {
    name: kind.model_validate({"name": name} | SIZES | OTHER_SIZES.get(name, {}))
    for name, kind in NATIVE.items()
}
TRAINING = {"epochs": 25, "batch_size": 4, "lr": 0.002}
QUICK = {"epochs": 8, "batch_size": 4, "lr": 0.01}
SLOW = ("egnn", "gns", "forcenet")
"""Models that learn slowly, but whose steps are short; a third of the epochs does for others."""
COPIES = 6
FRAMES = 12

every_model = pytest.mark.parametrize("name", SMALL)


@pytest.fixture(scope="module")
def graphs(water: Frames, relabel: Callable[[Frames], Frames]) -> GraphSet:
    """Copies of the frames with their atoms pushed about, labelled anew."""
    rng = np.random.default_rng(0)
    copies = water.select(np.tile(np.arange(FRAMES), COPIES))
    pushes = rng.normal(0, 0.1, copies.positions.shape)
    return GraphSet.build(relabel(replace(copies, positions=copies.positions + pushes)), 3.4)


@pytest.fixture(scope="module")
def parts() -> tuple[torch.Tensor, torch.Tensor]:
    """Training and validation; all copies of a frame are in one of them."""
    frames = torch.arange(FRAMES * COPIES)
    return frames[frames % FRAMES < 10], frames[frames % FRAMES >= 10]


def stage_of(name: str, task: dict[str, object]) -> Stage:
    """As long as the model needs."""
    return Stage.model_validate((TRAINING if name in SLOW else QUICK) | {"task": task})


def lowest(
    model: Potential, task: Task, stage: Stage, parts: tuple[torch.Tensor, torch.Tensor]
) -> float:
    """The criterion of the best epoch."""
    return min(metrics[task.criterion] for metrics in fit(model, task, stage, *parts, seed=0))


@every_model
def test_finetuning_predicts_forces_far_better_than_zero(
    name: str, graphs: GraphSet, parts: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model = build_model(SMALL[name], seed=0)
    stage = stage_of(name, {"name": "energy_forces"})
    statistics = LabelStatistics.fit(graphs, parts[0])
    statistics.apply(model, stage.task)
    task = EnergyForces(stage.task, graphs, statistics)
    trivial = task.trivial_errors(model, [parts[1]])["force_rmse"]
    assert lowest(model, task, stage, parts) < 0.5 * trivial


@every_model
def test_masking_is_learned_far_better_than_by_chance(
    name: str, graphs: GraphSet, parts: tuple[torch.Tensor, torch.Tensor]
) -> None:
    stage = stage_of(name, {"name": "masking", "masking_ratio": 0.5})
    task = Masking(stage.task, graphs)
    limit = 0.75 if name in SLOW else 0.8
    assert lowest(build_model(SMALL[name], seed=0), task, stage, parts) < limit
