"""The same trials without us: a loop of Optuna's, or Ray Tune with MLflow's callback.

Run as `python -m tests.benchmarks.plain optuna|ray STUDY`, where STUDY is a JSON file with the
trials, the folder of the frames and a folder to write to. Prints the seconds spent in training,
wall and processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

METRIC = "val_force_rmse"
COMPUTE = ("compute", "compute_cpu")
"""Seconds of both stages of a trial, wall and processor time."""


def train(trial: dict[str, Any], frames: str) -> Iterator[tuple[dict[str, float], Any]]:
    """Both stages of a trial; metrics of finetuning, and the model, after each epoch."""
    import torch

    from study.datasets.frames import Frames
    from study.datasets.splits import split
    from study.graphs.graph_set import GraphSet, index_tensor
    from study.models.build import build_model
    from study.space.trial import Trial
    from study.tasks.energy_forces import EnergyForces, LabelStatistics
    from study.training.loop import fit

    torch.set_num_threads(1)
    settings = Trial.model_validate(trial)
    loaded = Frames.load(Path(frames))
    graphs = GraphSet.build(loaded, settings.model.cutoff)
    splits = split(loaded, settings.split, settings.seed)
    parts = [index_tensor(part) for part in (splits.train, splits.validation)]
    model = build_model(settings.model, settings.seed)
    spent = cpu_spent = 0.0
    if settings.pretrain is not None:
        task = settings.pretrain.task.build(graphs)
        history = list(fit(model, task, settings.pretrain, *parts, settings.seed))
        spent, cpu_spent = history[-1]["seconds"], history[-1]["cpu_seconds"]
        pretrained, model = model, build_model(settings.model, settings.seed)
        model.load_pretrained(pretrained.state_dict(), include_heads=settings.transfer == "all")
    model.zero_init_readout()
    statistics = LabelStatistics.fit(graphs, parts[0])
    statistics.apply(model, settings.finetune.task)
    task = EnergyForces(settings.finetune.task, graphs, statistics)
    for metrics in fit(model, task, settings.finetune, *parts, settings.seed):
        compute = spent + metrics["seconds"], cpu_spent + metrics["cpu_seconds"]
        yield metrics | dict(zip(COMPUTE, compute, strict=True)), model


def with_optuna(trials: list[dict[str, Any]], frames: str) -> list[dict[str, float]]:
    """One trial after the other in this process, in memory; the last metrics of each."""
    import optuna

    last = []

    def objective(trial: optuna.Trial) -> float:
        number = trial.suggest_categorical("trial", list(range(len(trials))))
        best = float("inf")
        for epoch, (metrics, _) in enumerate(train(trials[number], frames)):
            trial.report(metrics[METRIC], epoch)
            best = min(best, metrics[METRIC])
        last.append(metrics)
        return best

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.GridSampler({"trial": list(range(len(trials)))})
    optuna.create_study(sampler=sampler).optimize(objective, n_trials=len(trials))
    return last


def with_ray(trials: list[dict[str, Any]], frames: str, folder: str) -> list[dict[str, float]]:
    """One worker of Ray Tune; metrics and a checkpoint of each epoch go to MLflow's database."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    ray.init(num_cpus=1, log_to_driver=False, include_dashboard=False)
    callback = MLflowLoggerCallback(
        tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="plain", save_artifact=False
    )
    tuner = tune.Tuner(
        tune.with_resources(_trainable, {"cpu": 1}),
        param_space={"trial": tune.grid_search(trials), "frames": frames},
        tune_config=tune.TuneConfig(metric=METRIC, mode="min"),
        run_config=tune.RunConfig(storage_path=folder, callbacks=[callback], verbose=0),
    )
    results = tuner.fit()
    last = [result.metrics for result in results]
    ray.shutdown()
    return last


def _trainable(config: dict[str, Any]) -> None:
    import torch
    from ray import tune

    for metrics, model in train(config["trial"], config["frames"]):
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder) / "model.pt")
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def main() -> None:
    """Run the trials of a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=["optuna", "ray"])
    parser.add_argument("study", type=Path)
    chosen = parser.parse_args()
    study = json.loads(chosen.study.read_text())
    if chosen.how == "optuna":
        last = with_optuna(study["trials"], study["frames"])
    else:
        last = with_ray(study["trials"], study["frames"], study["folder"])
    spent = {name: float(sum(metrics[name] for metrics in last)) for name in COMPUTE}
    sys.stdout.write(json.dumps(spent) + "\n")


if __name__ == "__main__":
    main()
