"""Whole studies of short trials: through us, in a plain loop of Optuna, in plain Ray Tune.

All three run the same trials one after the other on one core. What their time exceeds the training
by is overhead: once per study, per trial, and per epoch, told apart by studies of several sizes.
Processor time, of all processes that a study starts, says the same on a busy machine.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from study.datasets.prepare import prepare
from study.space.search_space import load_space

SPACE = """\
question: What does a study cost beside its training?
seeds: [0]
baseline: false
trial:
  dataset: {{name: tip3p_water, molecules: 8, trajectories: 4, frames: 6}}
  model: {{name: egnn, hidden: 16, layers: 2}}
  pretrain: {pretrain}
  finetune:
    task: {{name: energy_forces, divergence: null}}
    epochs: {epochs}
    batch_size: 3
    lr: {{choice: {rates}}}
profiles: {{quick: }}
"""
PRETRAIN = "{task: {name: masking, masking_ratio: 0.5}, epochs: 20, batch_size: 3, lr: 1e-3}"
SYSTEMS = {"ours": "ours", "optuna": "plain Optuna loop", "ray": "plain Ray Tune + MLflow"}
FEW, MANY = 2, 8
SHORT, LONG = 4, 24
"""Trials of a study, and epochs of a trial: their differences give the overhead of each."""
HEAVY = "import mlflow, optuna, ray.tune, torch_geometric"
"""Read once before anything is timed, so that nobody pays for cold disks."""
PR_SET_CHILD_SUBREAPER, PATIENCE, EVERY = 36, 20.0, 0.1
"""Of Linux; seconds that processes left behind are waited for, and between looks at them."""
LONG_TRIAL, ITS_EPOCHS = 300.0, 50
"""Seconds and epochs of the trial whose share of overhead is stated."""


@dataclass(frozen=True)
class Shape:
    """A study.

    Args:
        trials: how many.
        epochs: of each finetuning.
        pretrained: all start from the same pretraining.
    """

    trials: int
    epochs: int
    pretrained: bool = False


@dataclass(frozen=True)
class Cost:
    """Of one study, seconds.

    Args:
        wall: from start to end of its process.
        cpu: processor time of that process and all that it started.
        compute: spent in training, wall time.
        compute_cpu: the same, processor time.
    """

    wall: float
    cpu: float
    compute: float
    compute_cpu: float

    def overhead(self, clock: str) -> float:
        """Seconds that are not training, by `wall` or `cpu` time."""
        return self.cpu - self.compute_cpu if clock == "cpu" else self.wall - self.compute


SHAPES = {
    "few short": Shape(FEW, SHORT),
    "many short": Shape(MANY, SHORT),
    "many long": Shape(MANY, LONG),
    "pretrained": Shape(MANY, SHORT, pretrained=True),
}


def measure(rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Costs of every system and shape, system after system in each round."""
    costs: dict[str, dict[str, list[Cost]]] = {
        system: {shape: [] for shape in SHAPES} for system in SYSTEMS
    }
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        frames = _frames(folder)
        subprocess.run([sys.executable, "-c", HEAVY], check=True)
        for _ in range(rounds):
            for shape, meant in SHAPES.items():
                # Ray's trials would have a pretraining each, as Optuna's do.
                for system in list(SYSTEMS)[: 2 if meant.pretrained else None]:
                    cost = _run(system, meant, folder, frames)
                    costs[system][shape].append(cost)
                    say(
                        f"{SYSTEMS[system]}, {meant.trials} trials of {meant.epochs} epochs"
                        f"{', one pretraining' * meant.pretrained}: {cost.cpu:.1f} s of "
                        f"processors, of which {cost.compute_cpu:.1f} s training; "
                        f"{cost.wall:.1f} s in all"
                    )
    return {system: _summary(found) for system, found in costs.items()} | {"store": _saved(costs)}


def _frames(folder: Path) -> Path:
    """The data set of all studies, made once."""
    space = _space(folder, Shape(FEW, SHORT))
    return prepare(space.grid()[0].dataset, folder, 1, lambda *_: None)


def _space(folder: Path, shape: Shape) -> Any:
    rates = [round(1e-3 * (1 + number / 10), 6) for number in range(shape.trials)]
    pretrain = PRETRAIN if shape.pretrained else "null"
    path = folder / "bench.yaml"
    path.write_text(SPACE.format(rates=rates, pretrain=pretrain, epochs=shape.epochs))
    return load_space(str(path), "quick")


def _run(system: str, shape: Shape, folder: Path, frames: Path) -> Cost:
    """One study in a folder of its own, by a fresh process."""
    space = _space(folder, shape)
    out = folder / "out"
    out.mkdir()
    try:
        if system == "ours":
            shutil.copytree(frames, out / "data" / frames.name)
            options = ["--space", str(space.path), "--profile", "quick", "--out", str(out)]
            options += ["--max-concurrent", "1", "--quiet", "--no-report"]
            wall, cpu, _ = _time(["study.run", *options])
            return Cost(wall, cpu, *_compute(out))
        trials = [trial.model_dump(mode="json") for trial in space.grid()]
        study = {"trials": trials, "frames": str(frames), "folder": str(out)}
        (out / "study.json").write_text(json.dumps(study))
        wall, cpu, said = _time(["tests.benchmarks.plain", system, str(out / "study.json")])
        spent = json.loads(said.splitlines()[-1])
        return Cost(wall, cpu, spent["compute"], spent["compute_cpu"])
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _time(module: list[str]) -> tuple[float, float, str]:
    """Wall and CPU seconds of a Python module and all it starts, and what it printed.

    Processes are asked for their time again and again, because those that ignore the end of
    others, as Ray's do, do not pass on what these have taken. The last `EVERY` seconds of each are
    missed.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    this = psutil.Process()
    others = set(this.children(recursive=True))
    if sys.platform == "linux":
        # What a process leaves behind, as Ray's do, becomes a child of this one.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    spent: dict[psutil.Process, float] = {}
    started = time.monotonic()
    wall = last = math.inf
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        command = [sys.executable, "-m", *module]
        running = subprocess.Popen(command, env=environment, stdout=out, stderr=err)
        while time.monotonic() < last and (left := set(this.children(recursive=True)) - others):
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    spent[process] = times.user + times.system
            if math.isinf(wall):
                with suppress(subprocess.TimeoutExpired):
                    running.wait(EVERY)
                    wall = time.monotonic() - started
                    last = time.monotonic() + PATIENCE
            else:
                time.sleep(EVERY)
            psutil.wait_procs([each for each in left if each.pid != running.pid], timeout=0)
        out.seek(0)
        err.seek(0)
        if running.wait():
            raise RuntimeError(f"{' '.join(module)} failed:\n{err.read()[-2000:]}")
        return wall, sum(spent.values()), out.read()


def _compute(out: Path) -> tuple[float, float]:
    """Wall and CPU seconds of training in all work of a folder."""
    results = [json.loads(path.read_text()) for path in out.glob("work/*/result.json")]
    last = [result["history"][-1]["metrics"] for result in results]
    return sum(each["seconds"] for each in last), sum(each["cpu_seconds"] for each in last)


def _summary(costs: dict[str, list[Cost]]) -> dict[str, Any]:
    """Overhead once per study, per trial and per epoch, by each clock."""
    recorded = {shape: [asdict(cost) for cost in found] for shape, found in costs.items()}
    return {"costs": recorded} | {clock: _overhead(costs, clock) for clock in ("cpu", "wall")}


def _overhead(costs: dict[str, list[Cost]], clock: str) -> dict[str, float]:
    """By the differences of the shapes."""
    middle = {
        shape: statistics.median(cost.overhead(clock) for cost in found)
        for shape, found in costs.items()
        if found
    }
    per_epoch = (middle["many long"] - middle["many short"]) / (MANY * (LONG - SHORT))
    slope = (middle["many short"] - middle["few short"]) / (MANY - FEW)
    per_trial = slope - SHORT * per_epoch
    spent = per_trial + ITS_EPOCHS * per_epoch
    return {
        "overhead_once": middle["few short"] - FEW * slope,
        "overhead_per_trial": per_trial,
        "overhead_per_epoch": per_epoch,
        "share_of_long_trial": spent / (LONG_TRIAL + spent),
    }


def _saved(costs: dict[str, dict[str, list[Cost]]]) -> dict[str, float]:
    """Training of trials that share a pretraining, with our store and without."""
    ours, plain = (
        statistics.median(cost.compute_cpu for cost in costs[system]["pretrained"])
        for system in ("ours", "optuna")
    )
    return {"trials": MANY, "ours": ours, "plain": plain, "saved": 1 - ours / plain}
