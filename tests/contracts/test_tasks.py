"""What every pretext task promises; a task is tested as soon as its settings are shipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from pydantic import ValidationError

from study.core.config import shipped
from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN
from study.tasks.config import TaskConfig
from study.tasks.task import Task

REQUIRED: dict[str, Any] = {
    "masking_ratio": 0.5,
    "noise_scale": 0.3,
    "tasks": [
        {"task": {"name": "masking", "masking_ratio": 0.5}},
        {"task": {"name": "denoising"}, "weight": 0.5},
    ],
}
"""Values of settings that have no default, or none that suits small cells."""
EXTRA: dict[str, dict[str, Any]] = {
    "masking any bond": {"within": "bonds", "atom": "any"},
    "denoising of many scales": {"lowest_scale": 0.03},
    "denoising conditioned": {"lowest_scale": 0.1, "conditioned": True},
}
"""What no single option with named values says; a task's name is the first word."""


def settings_of(name: str, **changes: Any) -> TaskConfig:
    """Of a shipped task."""
    kind = shipped(TaskConfig)[name]
    required = {key: value for key, value in REQUIRED.items() if key in kind.model_fields}
    return kind.model_validate({"name": name} | required | changes)


def alternatives(settings: TaskConfig) -> Iterator[tuple[str, TaskConfig]]:
    """Every other value of every option with named values, one at a time, that is allowed alone."""
    for name, info in type(settings).model_fields.items():
        kind = info.annotation
        values = get_args(kind) if get_origin(kind) is Literal else [kind is bool] * (kind is bool)
        for value in (each for each in values if each != getattr(settings, name)):
            words = name if value is True else value
            with suppress(ValidationError):
                yield f"{settings.name} {words}", settings_of(settings.name, **{name: value})


PRETEXTS = [settings_of(name) for name, kind in shipped(TaskConfig).items() if not kind.supervised]
EXAMPLES = (
    {settings.name: settings for settings in PRETEXTS}
    | {name: each for settings in PRETEXTS for name, each in sorted(alternatives(settings))}
    | {name: settings_of(name.split()[0], **changes) for name, changes in EXTRA.items()}
)
UNLABELLED = sorted(name for name, settings in EXAMPLES.items() if not settings.labels)
CHOSEN = torch.tensor([2, 0])
every_task = pytest.mark.parametrize("name", sorted(EXAMPLES))


@pytest.fixture
def graphs(triclinic_water: Frames) -> GraphSet:
    return GraphSet.build(triclinic_water, 3.4, dtype=torch.float64)


def task(name: str, graphs: GraphSet) -> Task:
    return EXAMPLES[name].build(graphs)


def model(egnn: EGNN) -> torch.nn.Module:
    return build_model(egnn, seed=0).double()


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


@pytest.mark.parametrize("name", UNLABELLED)
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
