"""Hand-written studies: what MLflow would hold, small enough to read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from analysis.records.export import export
from analysis.records.mlflow_reader import Point, Run
from analysis.records.parquet_tables import write_tables
from analysis.records.study_tables import Study, load
from study.core.records import MASKING_RATIO, Tag

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
EPOCHS = 4
SEEDS = range(3)
PARENT = "study-run"


def _study(name: str, profile: str, warning: str, space: dict[str, object]) -> Run:
    """The parent run."""
    tags = {
        Tag.KIND: "study",
        Tag.KEY: "5" * 64,
        Tag.SCHEMA: "1",
        Tag.QUESTION: "Does masking help?",
        Tag.PROFILE: profile,
        Tag.WARNING: warning,
        Tag.SPACE: json.dumps({"trial": {"seed": 0}} | space),
        Tag.PACKAGES: '{"torch": "2.13.0"}',
        Tag.HARDWARE: '{"cores": 2}',
        Tag.GIT: "abc123",
        "mlflow.runName": name,
    }
    return Run(PARENT, "FINISHED", 1_700_000_000_000, 1_700_000_900_000, {}, tags)


@pytest.fixture
def power() -> Callable[..., float]:
    """Chance that a two-sided t test finds an effect, without the noncentral t distribution.

    The mean is normal and the standard deviation s (in units of the true one) is from chi squared,
    independent of it: for each s the normal chance to pass the bound is known, and s is integrated.
    """

    def integrated(effect: float, n: int, alpha: float) -> float:
        bound, shift = stats.t.isf(alpha / 2, n - 1), effect * np.sqrt(n)

        def passes(s: float) -> float:
            beyond = stats.norm.sf(bound * s - shift) + stats.norm.sf(bound * s + shift)
            return float(beyond * stats.chi.pdf(s, n - 1, scale=1 / np.sqrt(n - 1)))

        middle = 1 + 5 / np.sqrt(n)
        parts = [(0, 1), (1, middle), (middle, np.inf)]
        return sum(integrate.quad(passes, *part, epsabs=1e-14, limit=200)[0] for part in parts)

    return integrated


@pytest.fixture
def scratch() -> Callable[..., Run]:
    """A trial from scratch; `force` is its test force RMSE in eV/Å."""

    def build(number: int, seed: int, force: float, **changes: object) -> Run:
        return _trial(number, seed, force, None, changes)

    return build


@pytest.fixture
def masked() -> Callable[..., Run]:
    """A trial that was pretrained by masking."""

    def build(number: int, seed: int, ratio: float, force: float, **changes: object) -> Run:
        return _trial(number, seed, force, ratio, changes)

    return build


@pytest.fixture
def audited() -> Callable[..., Run]:
    """A stopped trial that was finished afterwards."""

    def build(number: int, seed: int, ratio: float, force: float, **changes: object) -> Run:
        run = _trial(number, seed, force, ratio, changes)
        run.tags[Tag.KIND] = "audit"
        return replace(run, run_id=f"audit-{number}")

    return build


@pytest.fixture
def pretrained() -> Callable[..., Run]:
    """A pretraining whose validation loss falls to `loss`."""

    def build(seed: int, ratio: float, loss: float, **more_tags: str) -> Run:
        tags = _tags("pretrain", _pretraining_key(seed, ratio)) | {Tag.STATUS: "completed"}
        tags |= more_tags
        tags["study.train_frames"] = "8"
        params = _settings(seed) | _pretrain_settings(ratio)
        curve = [
            Point("pretrain/val_loss", epoch, loss ** (epoch / EPOCHS))
            for epoch in range(1, EPOCHS + 1)
        ]
        points = [*curve, Point("seconds", 0, 10.0)]
        return Run(f"pre-{seed}-{ratio}", "FINISHED", 1, 2, params, tags, points)

    return build


def _pretraining_key(seed: int, ratio: float) -> str:
    return f"pretraining-{seed}-{ratio}".ljust(64, "0")


def _trial(
    number: int, seed: int, force: float, ratio: float | None, changes: dict[str, object]
) -> Run:
    status = str(changes.pop("status", "completed"))
    tags = _tags("trial", f"{number:064d}") | {Tag.NUMBER: str(number), "study.train_frames": "8"}
    tags[Tag.EXEMPT] = str(changes.pop("exempt", True))
    params = _settings(seed) | {str(name): str(value) for name, value in changes.items()}
    if ratio is not None:
        tags[Tag.PRETRAINING] = _pretraining_key(seed, ratio)
        params |= _pretrain_settings(ratio)
    if status == "running":
        return Run(f"trial-{number}", "RUNNING", 1, None, params, tags, _curves(force)[:6])
    tags |= {Tag.STATUS: status}
    if status != "completed":
        tags |= {Tag.REASON: f"it {status} in epoch 2"}
        return Run(f"trial-{number}", "FAILED", 1, 2, params, tags, _curves(force)[:6])
    return Run(
        f"trial-{number}", "FINISHED", 1, 2, params, tags, [*_curves(force), *_finals(force)]
    )


def _tags(kind: str, key: str) -> dict[str, str]:
    return {
        "mlflow.parentRunId": PARENT,
        Tag.KIND: kind,
        Tag.KEY: key,
        Tag.DATA: "d" * 64,
        Tag.SPLIT: "e" * 64,
        Tag.CODE: "c" * 64,
    }


def _settings(seed: int) -> dict[str, str]:
    return {
        "dataset.name": "tip3p_water",
        "model.name": "egnn",
        "seed": str(seed),
        "model.cutoff": "3.4",
        "finetune.epochs": str(EPOCHS),
        "finetune.batch_size": "2",
    }


def _pretrain_settings(ratio: float) -> dict[str, str]:
    return {
        "pretrain.task.name": "masking",
        "pretrain.task.masking_ratio": str(ratio),
        "pretrain.epochs": str(EPOCHS),
        "pretrain.batch_size": "2",
    }


def _curves(force: float) -> list[Point]:
    """Errors that fall from four times their last value, and a steady gradient."""
    return [
        Point(f"finetune/{metric}", epoch, value * 4 ** (1 - epoch / EPOCHS))
        for epoch in range(1, EPOCHS + 1)
        for metric, value in _errors("val", force).items()
    ] + [Point("finetune/grad_norm", epoch, 1.0) for epoch in range(1, EPOCHS + 1)]


def _finals(force: float) -> list[Point]:
    metrics = (
        _errors("test", force) | _errors("trivial", 0.6) | {"best_epoch": 4.0, "seconds": 30.0}
    )
    return [Point(name, 0, value) for name, value in metrics.items()]


def _errors(prefix: str, force: float) -> dict[str, float]:
    return {
        f"{prefix}_force_rmse": force,
        f"{prefix}_energy_rmse": force / 100,
        f"{prefix}_frame_energy_rmse": force,
    }


@pytest.fixture
def tabulate(tmp_path: Path) -> Callable[..., Study]:
    """Write runs as the tables of a study in `tmp_path`, and load them."""

    def write(
        *runs: Run,
        name: str = "masking_ratio-quick",
        profile: str = "quick",
        warning: str = "",
        **space: object,
    ) -> Study:
        write_tables(
            [_study(name, profile, warning, space), *runs], "experiment", tmp_path / "tables"
        )
        return load(tmp_path / "tables")

    return write


EXPERIMENT = "masking_ratio-quick"
LOGGED = [
    ("finetune/val_force_rmse", 3.0, 1, 10),
    ("finetune/val_force_rmse", 2.0, 1, 20),
    ("finetune/val_force_rmse", math.nan, 2, 30),
    ("val/force_rmse", math.inf, 3, 40),
    ("val/force_rmse", -math.inf, 4, 50),
    ("work/seconds", 5.0, 4, 50),
    ("test_force_rmse", math.inf, 0, 60),
]
"""Points of a diverged trial: a step logged twice, NaN, infinities, its last epoch and a final.

The first epochs were logged by a version that named the stage.
"""


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An MLflow store with a study of one pretraining and two trials; one still runs."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment(EXPERIMENT)

    def run(
        tags: dict[str, str], params: dict[str, str], points: list[tuple[str, float, int, int]]
    ) -> str:
        run_id: str = client.create_run(experiment, start_time=1_700_000_000_123).info.run_id
        metrics = [Metric(name, value, time, step) for name, value, step, time in points]
        texts = [Param(name, value) for name, value in params.items()]
        client.log_batch(run_id, metrics, texts, [RunTag(*tag) for tag in tags.items()])
        return run_id

    study = {Tag.KIND: "study", Tag.KEY: "s", Tag.SCHEMA: "1", Tag.SPACE: '{"trials": 2}'}
    parent = run({**study, "mlflow.runName": "masking_ratio"}, {}, [])
    child = {"mlflow.parentRunId": parent}
    run(
        {**child, Tag.KIND: "pretrain", Tag.KEY: "p", Tag.STATUS: "completed"},
        {"seed": "0", "pretrain.task.masking_ratio": "1.0"},
        [("pretrain/val/loss", 0.5, 1, 1), ("seconds", 7.0, 0, 2)],
    )
    finished = run(
        {**child, Tag.KIND: "trial", Tag.KEY: "t1", Tag.NUMBER: "1", Tag.STATUS: "diverged"},
        {"seed": "1", "finetune.lr": "1e-3", "model.name": "egnn", "finetune.frames": "None"}
        | {MASKING_RATIO: "0"},
        LOGGED,
    )
    client.set_terminated(finished, "FAILED", end_time=1_700_000_005_000)
    run(
        {**child, Tag.KIND: "trial", Tag.KEY: "t0", Tag.NUMBER: "0"},
        {"seed": "0", "finetune.lr": "2", "model.name": "7x"},
        [],
    )
    client.delete_run(run({**child, Tag.KIND: "trial", Tag.KEY: "t9", Tag.NUMBER: "9"}, {}, []))
    return uri


@pytest.fixture
def exported(store: str, tmp_path: Path) -> Study:
    export(EXPERIMENT, store, tmp_path)
    return load(tmp_path)
