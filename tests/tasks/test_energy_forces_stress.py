"""Finetuning on stresses, too: errors, losses, what cannot work, and numbers that stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from study.core.errors import UserError
from study.core.quantities.metrics import METRICS
from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.datasets.splits import sizes_of
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN, GNS
from study.models.potential import Potential
from study.space.trial import Trial
from study.tasks.build import build_task
from study.tasks.config import EnergyForces as Settings
from study.tasks.energy_forces import EnergyForces, LabelStatistics
from study.training.config import Stage
from study.training.loop import fit

SMALL = EGNN(name="egnn", hidden=8, layers=2, basis=8)
EVERYTHING = torch.arange(12)


def settings_of(**settings: Any) -> Settings:
    return Settings(name="energy_forces", **settings)


def task_of(frames: Frames, **settings: Any) -> tuple[EnergyForces, Potential]:
    """A task over all frames in float64, and a model that is prepared for it."""
    graphs = GraphSet.build(frames, 3.4, dtype=torch.float64)
    model = build_model(SMALL, seed=0).double()
    task = build_task(settings_of(**settings), model, graphs, EVERYTHING)
    assert isinstance(task, EnergyForces)
    return task, model


def trained(frames: Frames, **settings: Any) -> tuple[list[dict[str, float]], Potential]:
    """Metrics of all epochs, without what they cost, and the model, as training has it: float32."""
    graphs, model = GraphSet.build(frames, 3.4), build_model(SMALL, seed=0)
    model.zero_init_readout()
    settings = {"energy_weight": 0.1, **settings}
    stage = Stage(task=settings_of(**settings), epochs=12, batch_size=3, lr=0.01, compile=False)
    train, validation = EVERYTHING[:9], EVERYTHING[9:]
    task = build_task(stage.task, model, graphs, train)
    costs = ("seconds", "cpu_seconds", "energy_joule")
    history = [
        {name: value for name, value in metrics.items() if name not in costs}
        for metrics in fit(model, task, stage, train, validation, seed=0)
    ]
    return history, model


def test_weight_zero_changes_no_number(water: Frames, stressed_water: Frames) -> None:
    plain, model = trained(water)
    measured, same = trained(stressed_water)
    for before, after in zip(plain, measured, strict=True):
        assert set(after) - set(before) == {"val_stress_rmse", "val_stress_mae"}
        assert before == {name: after[name] for name in before}
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, same.state_dict()[name]), name


def test_training_on_stresses_lowers_their_error(stressed_water: Frames) -> None:
    learned, _ = trained(stressed_water, stress_weight=1.0)
    first, last = learned[0]["val_stress_rmse"], learned[-1]["val_stress_rmse"]
    assert last < 0.85 * first


def test_errors_and_loss_are_those_of_numpy(stressed_water: Frames) -> None:
    labels = stressed_water.stresses.copy()
    labels[[2, 5]] = np.nan
    task, model = task_of(replace(stressed_water, stresses=labels), stress_weight=2.0)
    model.eval()
    predicted = model.with_stress(task.gather(EVERYTHING)).stress
    assert predicted is not None
    off = (predicted.detach().numpy() - labels)[~np.isnan(labels)]
    errors = task.errors(model, [EVERYTHING[:4], EVERYTHING[4:]])
    assert errors["stress_rmse"] == pytest.approx(np.sqrt(np.mean(off**2)))
    assert errors["stress_mae"] == pytest.approx(np.mean(np.abs(off)))
    size = np.sqrt(np.nanmean(labels**2))
    assert task.statistics.stress_rms == pytest.approx(size)
    trivial = task.trivial_errors(model, [EVERYTHING])
    assert trivial["stress_rmse"] == pytest.approx(size)
    plain, _ = task_of(stressed_water)
    losses = [each.loss(model, EVERYTHING, seeded(0)).detach() for each in (task, plain)]
    assert float(losses[0] - losses[1]) == pytest.approx(2.0 * np.mean(off**2) / size**2)
    some = task.loss(model.train(), torch.tensor([2, 5]), seeded(0))
    some.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_forces_beside_the_stress_are_the_same_bits(stressed_water: Frames) -> None:
    task, model = task_of(stressed_water)
    batch = task.gather(EVERYTHING)
    plain, strained = model(batch), model.with_stress(batch)
    assert torch.equal(plain.forces, strained.forces)
    assert torch.equal(plain.energy, strained.energy)


def test_frames_without_a_volume_have_no_stress_and_no_gradient_of_it(water: Frames) -> None:
    pbc = np.ones((12, 3), bool)
    pbc[1] = False, True, True
    labels = np.zeros((12, 3, 3))
    labels[1] = np.nan
    task, model = task_of(replace(water, pbc=pbc, stresses=labels), stress_weight=1.0)
    predicted = model.with_stress(task.gather(torch.tensor([0, 1]))).stress
    assert predicted is not None
    assert predicted.isnan().all(dim=(1, 2)).tolist() == [False, True]
    task.loss(model, torch.tensor([0, 1]), seeded(0)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_what_cannot_work_is_refused(
    water: Frames, stressed_water: Frames, tiny: Callable[..., Trial]
) -> None:
    weighted = {"name": "energy_forces", "stress_weight": 0.1}
    with pytest.raises(ValidationError, match=r"`finetune\.task\.stress_weight` must be 0 with"):
        tiny(finetune__task=weighted, model={"name": "gns", "hidden": 8, "layers": 2})
    trial = tiny(finetune__task=weighted, dataset={"name": "ase_file", "path": "x"})
    with pytest.raises(ValueError, match="`dataset` must be labelled with stress for `finetune"):
        trial.check_sizes(sizes_of(water))
    trial.check_sizes(sizes_of(stressed_water))
    graphs = GraphSet.build(stressed_water, 3.4)
    direct = build_model(GNS(name="gns", hidden=8, layers=2), seed=0)
    with pytest.raises(UserError, match="`stress_weight`: must be 0 with a model whose forces"):
        build_task(settings_of(stress_weight=0.1), direct, graphs, EVERYTHING)
    with pytest.raises(UserError, match="`stress_weight`: must be 0 with data without stresses"):
        task_of(water, stress_weight=0.1)


def test_stress_errors_are_metrics_of_a_task_that_learns_them() -> None:
    assert "stress_rmse" not in settings_of().errors
    for error in settings_of(stress_weight=0.1).errors:
        for part in ("val", "test"):
            assert METRICS[f"{part}_{error}"][0].startswith("eV")
    assert METRICS["test_stress_rmse"][0] == "eV/Å³"


def test_statistics_of_data_without_stresses_are_neutral(water: Frames) -> None:
    assert LabelStatistics.fit(GraphSet.build(water, 3.4), EVERYTHING).stress_rms == 1.0
