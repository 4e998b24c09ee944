"""What every pretext task promises; a registered task is tested at once.

A new task needs one example of its settings in `EXAMPLES`.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN
from study.tasks.pretext import PRETEXT_TASKS, build_pretext
from study.tasks.task import Task
from study.training.config import Stage

EXAMPLES: dict[str, dict[str, Any]] = {
    "masking": {"name": "masking", "masking_ratio": 0.5},
    "masking oxygens": {"name": "masking", "masking_ratio": 0.5, "atom": "oxygen"},
    "masking placebo": {"name": "masking", "masking_ratio": 0.5, "placebo": True},
    "masking bonds": {"name": "masking", "masking_ratio": 0.5, "within": "bonds"},
    "masking any bond": {
        "name": "masking",
        "masking_ratio": 0.5,
        "within": "bonds",
        "atom": "any",
    },
    "denoising": {"name": "denoising", "noise_scale": 0.3},
    "denoising placebo": {"name": "denoising", "noise_scale": 0.3, "placebo": True},
    "denoising of many scales": {"name": "denoising", "noise_scale": 0.3, "lowest_scale": 0.03},
    "denoising conditioned": {
        "name": "denoising",
        "noise_scale": 0.3,
        "lowest_scale": 0.1,
        "conditioned": True,
    },
    "mixed": {
        "name": "mixed",
        "tasks": [
            {"task": {"name": "masking", "masking_ratio": 0.5}},
            {"task": {"name": "denoising"}, "weight": 0.5},
        ],
    },
}
CHOSEN = torch.tensor([2, 0])
every_task = pytest.mark.parametrize("name", sorted(EXAMPLES))


@pytest.fixture
def graphs(triclinic_water: Frames) -> GraphSet:
    return GraphSet.build(triclinic_water, 3.4, dtype=torch.float64)


def task(name: str, graphs: GraphSet) -> Task:
    stage = {"task": EXAMPLES[name], "epochs": 1, "batch_size": 1}
    settings = Stage.model_validate(stage).task
    assert settings.name != "energy_forces"
    return build_pretext(settings, graphs)


def model(egnn: EGNN) -> torch.nn.Module:
    return build_model(egnn, seed=0).double()


def test_every_registered_task_has_an_example() -> None:
    assert {example["name"] for example in EXAMPLES.values()} == {*PRETEXT_TASKS, "mixed"}


@every_task
def test_a_loss_is_a_function_of_its_generator(name: str, graphs: GraphSet, egnn: EGNN) -> None:
    trained, pretext = model(egnn), task(name, graphs)
    first, again, other = (
        pretext.loss(trained, CHOSEN, seeded(seed)).item()  # type: ignore[arg-type]
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert torch.isfinite(torch.tensor([first, other])).all()


@every_task
def test_the_body_of_the_model_learns_from_it(name: str, graphs: GraphSet, egnn: EGNN) -> None:
    trained = model(egnn).train()
    task(name, graphs).loss(trained, CHOSEN, seeded(1)).backward()  # type: ignore[arg-type]
    gradient = trained.get_submodule("layers.0").edge[1].weight.grad  # type: ignore[index, union-attr]
    assert gradient is not None
    assert gradient.abs().max() > 0


@every_task
def test_it_reads_no_labels_and_leaves_the_frames_alone(
    name: str, graphs: GraphSet, egnn: EGNN
) -> None:
    unlabelled = replace(
        graphs,
        energy=torch.full_like(graphs.energy, torch.nan),
        force=torch.full_like(graphs.force, torch.nan),
    )
    before = [getattr(graphs, field.name) for field in fields(graphs)]
    copies = [value.clone() if isinstance(value, torch.Tensor) else value for value in before]
    losses = [
        task(name, each).loss(model(egnn), CHOSEN, seeded(1)).item()  # type: ignore[arg-type]
        for each in (graphs, unlabelled)
    ]
    assert losses[0] == losses[1]
    for value, copy in zip(before, copies, strict=True):
        assert torch.equal(value, copy) if isinstance(value, torch.Tensor) else value == copy


@every_task
def test_validation_is_one_finite_number(name: str, graphs: GraphSet, egnn: EGNN) -> None:
    judged, everything = model(egnn).eval(), torch.arange(len(graphs))
    pretext = task(name, graphs)
    metrics = pretext.evaluate(judged, list(everything.split(2)), seeded(3))  # type: ignore[arg-type]
    assert metrics.keys() == {pretext.criterion}
    assert 0 < metrics[pretext.criterion] < 10
    assert pretext.divergence_reason(metrics) == ""


@every_task
def test_the_global_generator_is_left_alone(name: str, graphs: GraphSet, egnn: EGNN) -> None:
    trained, pretext = model(egnn), task(name, graphs)
    before = torch.random.get_rng_state()
    pretext.loss(trained, CHOSEN, seeded(1))  # type: ignore[arg-type]
    assert torch.equal(torch.random.get_rng_state(), before)
