"""Own metrics: what they are given, which are errors, and that studies without any stay."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from study.core.errors import UserError
from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN
from study.tasks.build import build_task
from study.tasks.config import EnergyForces, OwnMetric, Scalar
from study.tasks.metrics import FrameValues, Metric, made_up, noised, own_errors, try_out

SMALL = EGNN(name="egnn", hidden=8, layers=2, basis=8)
ALL = torch.arange(12)
BATCHES = [torch.tensor([3, 1]), torch.tensor([7, 0, 5])]


def force_rms(predicted: FrameValues, labels: FrameValues) -> float:
    assert predicted.forces is not None
    assert labels.forces is not None
    return float(np.sqrt(np.nanmean((predicted.forces - labels.forces) ** 2)))


def per_atom(predicted: FrameValues, labels: FrameValues) -> float:
    atoms = np.bincount(labels.frame)
    return float(np.nanmean(np.abs(predicted.energies - labels.energies) / atoms))


def stress_mean(predicted: FrameValues, labels: FrameValues) -> float:
    assert predicted.stress is not None
    assert labels.stress is not None
    return float(np.nanmean(np.abs(predicted.stress - labels.stress)))


def configs(**metrics: Metric) -> Any:
    return [SimpleNamespace(name=name, build=lambda m=m: m) for name, m in metrics.items()]


@pytest.fixture
def labelled(water: Frames) -> Frames:
    stress = np.random.default_rng(2).normal(scale=1e-3, size=(len(water), 3, 3))
    return replace(water, stresses=stress + stress.transpose(0, 2, 1))


def measured(
    frames: Frames, settings: EnergyForces | Scalar, **metrics: Metric
) -> dict[str, float]:
    graphs = GraphSet.build(frames, 3.4, dtype=torch.float64)
    model = build_model(SMALL, seed=0).double()
    own = settings.model_copy(update={"metrics": configs(**metrics)})
    task = build_task(own, model, graphs, ALL)
    validated = task.evaluate(model, BATCHES, seeded(0))
    assert not metrics or f"trivial_{next(iter(metrics))}" in task.test_errors(model, BATCHES)
    return validated


def test_metrics_see_what_the_errors_of_the_task_see(labelled: Frames) -> None:
    settings = EnergyForces(name="energy_forces", stress_weight=0.1)
    own = {"rms": force_rms, "atoms": per_atom, "pressure": stress_mean}
    found = measured(labelled, settings, **own)
    assert found["val_rms"] == pytest.approx(found["val_force_rmse"], rel=1e-12)
    assert found["val_atoms"] == pytest.approx(found["val_energy_mae"], rel=1e-9)
    assert found["val_pressure"] == pytest.approx(found["val_stress_mae"], rel=1e-12)
    plain = measured(labelled, settings)
    assert plain == {name: found[name] for name in plain}
    assert list(found)[: len(plain)] == list(plain)


def test_metrics_of_a_scalar_see_its_target(water: Frames) -> None:
    found = measured(water, Scalar(name="scalar", target="energy"), atoms=per_atom)
    assert found["val_atoms"] == pytest.approx(found["val_energy_mae"], rel=1e-9)


def test_settings_without_metrics_are_as_before() -> None:
    assert "metrics" not in EnergyForces(name="energy_forces").model_dump(mode="json")


@pytest.mark.parametrize("names", [["force_rmse"], ["hash"], ["a b"], ["same", "same"]])
def test_names_that_tables_have_are_refused(names: list[str]) -> None:
    metrics = [OwnMetric(name=name, code="my.py") for name in names]
    with pytest.raises(ValueError, match=r"`metrics` must have names .*, but got"):
        EnergyForces(name="energy_forces", metrics=metrics)


def fails(predicted: FrameValues, labels: FrameValues) -> float:
    del predicted, labels
    raise KeyError("oxygen")


def of_each_frame(predicted: FrameValues, labels: FrameValues) -> Any:
    return np.abs(predicted.energies - labels.energies)


def similarity(predicted: FrameValues, labels: FrameValues) -> float:
    return 1 / (1 + per_atom(predicted, labels))


@pytest.mark.parametrize(
    ("metric", "rule"),
    [
        (fails, "KeyError"),
        (of_each_frame, "is an array of shape (3,) ("),
        (lambda *_: float("nan"), "is nan ("),
        (lambda *_: -1.0, "is -1 ("),
        (lambda *_: None, "is nan ("),
        (lambda *_: "good", "could not convert string"),
        (similarity, "but is 1 for the labels themselves and 0."),
        (partial(similarity), "test_metrics.py:"),
    ],
)
def test_what_is_no_error_is_told_in_a_line(metric: Metric, rule: str) -> None:
    with pytest.raises(UserError) as refused:
        try_out(configs(mine=metric))
    (line,) = refused.value.problems
    assert line.startswith("metric mine: ")
    assert rule in line
    assert "\n" not in line


@pytest.mark.parametrize("metric", [force_rms, per_atom, stress_mean])
def test_errors_are_accepted(metric: Metric) -> None:
    try_out(configs(mine=metric))


def test_predictions_that_are_no_numbers_are_no_fault_of_a_metric() -> None:
    labels = made_up()
    broken = replace(noised(labels), energies=np.full(3, np.nan))
    found = own_errors({"mine": fails}, broken, labels)
    assert list(found) == ["mine"]
    assert np.isnan(found["mine"])


def test_metrics_without_forces_are_tried_without() -> None:
    seen: list[FrameValues] = []

    def looks(predicted: FrameValues, labels: FrameValues) -> float:
        seen.append(predicted)
        return per_atom(predicted, labels)

    try_out(configs(mine=looks), forces=False)
    assert all(each.forces is None for each in seen)
