"""Many trials, many points, many reruns: what a study costs besides its training.

`python -m tests.load PART` prints measured figures beside their limits, and exits 1 if one is
exceeded. Trials go through real Ray, journal and MLflow, but train nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from study.core.atomic_io import write_hashed
from study.core.records import EpochRecord, JobResult, Tag
from study.core.signals import ShutdownRequest
from study.driver import ray_cluster
from study.pipeline.job import Job
from study.pipeline.outcome import Outcome, save_outcome
from study.scheduling.journal import Journal
from study.scheduling.proposals.grid import Grid
from study.scheduling.protocols import Planned
from study.scheduling.scheduler import Scheduler
from study.space.settings import Resources
from study.space.trial import Trial
from study.tracking.tracker import Tracker
from tests.load_search import search
from tests.mlflow_server import MlflowServer

METRIC, EPOCHS, SLOTS = "val_force_rmse", 3, 2
PAUSE = 0.2
"""Seconds from one epoch to the next, as a server fails."""
MIB = 2**20
FRAMES = {"data": Path("frames")}
Figure = tuple[str, float, float]
"""What, measured, at most."""


def trial(seed: int, epochs: int = EPOCHS) -> Job:
    settings = {
        "dataset": {"name": "tip3p_water"},
        "model": {"name": "egnn"},
        "finetune": {"task": {"name": "energy_forces"}, "epochs": epochs, "batch_size": 2},
        "seed": seed,
    }
    return Job("trial", Trial.model_validate(settings), "data")


def record(epoch: int) -> EpochRecord:
    names = (METRIC, "val_force_mae", "val_energy_rmse", "val_energy_mae", "train_loss", "lr")
    metrics = dict.fromkeys((*names, "grad_norm", "cpu_seconds"), 1 / epoch)
    return EpochRecord("finetune", epoch, metrics | {"seconds": float(epoch), "flops": 1e9})


def idle(config: dict[str, Any], root: str, **_options: Any) -> None:
    """Stands for `study.driver.worker.perform`: everything but training."""
    from ray.tune import report

    work = Job.from_json(json.loads(config["work"]))
    history = [record(epoch) for epoch in range(1, EPOCHS + 1)]
    for each in history:
        report({"record": json.dumps(asdict(each)), "warnings": []})
    folder, result = work.folder(Path(root)), JobResult("completed", metrics={"test": 1.0})
    weights = write_hashed(folder, "weights", ".safetensors", bytes(1000))
    save_outcome(folder, Outcome(result, history, weights))
    report({"result": json.dumps(asdict(result)), "warnings": []})


class Times:
    """When trials ended, and the driver's memory then."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.memory: list[int] = []

    def planned(self, planned: Planned) -> None:
        """Nothing to note."""

    def started(self, work: Job, number: int | None) -> None:
        """Nothing to note."""

    def recorded(self, work: Job, record: EpochRecord) -> None:
        """Nothing to note."""

    def ended(self, work: Job, result: JobResult) -> None:
        """Note it."""
        del work, result
        self.ends.append(time.monotonic())
        self.memory.append(psutil.Process().memory_info().rss)


def trials(root: Path, count: int) -> list[Figure]:
    """Through Ray, by warm workers."""
    ray_cluster.connect(Resources(gpus=0), cpus=SLOTS)
    # Ray must not be imported before it is known which cluster it joins.
    from study.driver import ray_runner

    works, times = [trial(seed) for seed in range(count)], Times()
    journal = Journal(root / "journal.jsonl", METRIC)
    tracker = _tracker(root)
    observers = [journal, tracker, times]
    scheduler = Scheduler(Grid(works, {}, exempt=True), METRIC, root, observers)
    ray_runner.run_work = idle
    ray_runner.run(
        scheduler, Resources(gpus=0), root, FRAMES, root / "ray", ShutdownRequest(), 3600.0
    )
    ray_cluster.disconnect()
    behind = time.monotonic()
    assert tracker.close("FINISHED"), tracker.problem
    state = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    tenth, ends = max(1, count // 10), times.ends
    # The first trials start the workers.
    first = (ends[2 * tenth] - ends[tenth]) / tenth
    last = (ends[-1] - ends[-1 - tenth]) / tenth
    return [
        ("seconds per trial", (ends[-1] - ends[tenth]) / (count - tenth - 1), 0.12),
        ("last tenth against the second", last / first, 1.5),
        ("driver's growth, MB", (times.memory[-1] - times.memory[tenth]) / MIB, 100),
        ("state per trial, KB", state / count / 1024, 40),
        ("seconds until MLflow has all", time.monotonic() - behind, math.inf),
    ]


def points(root: Path, count: int) -> list[Figure]:
    """Into MLflow and out of it to Parquet."""
    epochs = 1000
    runs = math.ceil(count / (epochs * len(record(1).metrics)))
    tracker, longest = _tracker(root), 0.0
    began = time.monotonic()
    for seed in range(runs):
        work = trial(seed, epochs)
        tracker.started(work, seed)
        for epoch in range(1, epochs + 1):
            told = time.monotonic()
            tracker.recorded(work, record(epoch))
            longest = max(longest, time.monotonic() - told)
        tracker.ended(work, JobResult("completed"))
    while tracker._tasks.qsize():
        time.sleep(0.1)
    assert tracker.close("FINISHED"), tracker.problem
    logged = time.monotonic() - began
    folder = root / "studies" / "load"
    folder.mkdir(parents=True)
    study = {"experiment": "load", "tracking_uri": f"sqlite:///{root}/mlflow.db", "name": "load"}
    (folder / "study.json").write_text(json.dumps(study))
    began = time.monotonic()
    peak = _peak_of(["analysis.export", str(folder)])
    exported = time.monotonic() - began
    return [
        ("seconds that an epoch waited at most", longest, 1.0),
        ("seconds to log", logged, 100),
        ("seconds to export", exported, 15),
        ("memory of the export, MB", peak / MIB, 1200),
    ]


def server(root: Path, count: int) -> list[Figure]:
    """A server that is stopped for a while, then killed and started again, as epochs come in."""
    with MlflowServer(root / "mlflow.db") as mlflow:
        faults: dict[int, Callable[[], object]] = {
            count // 8: lambda: mlflow.send(signal.SIGSTOP),
            count // 2: lambda: mlflow.send(signal.SIGCONT),
            count * 5 // 8: lambda: mlflow.send(signal.SIGKILL),
            count * 6 // 8: mlflow.start,
        }
        return _disturbed(root, mlflow.address, count, faults)


def locked(root: Path, count: int) -> list[Figure]:
    """A database that another program keeps locked for a while, as epochs come in."""
    _tracker(root).close("FINISHED")
    with closing(sqlite3.connect(root / "mlflow.db", isolation_level=None)) as other:
        faults: dict[int, Callable[[], object]] = {
            count // 8: lambda: other.execute("BEGIN EXCLUSIVE"),
            count * 7 // 8: lambda: other.execute("COMMIT"),
        }
        return _disturbed(root, "", count, faults)


def _disturbed(
    root: Path, uri: str, count: int, faults: dict[int, Callable[[], object]]
) -> list[Figure]:
    """Tell MLflow of many epochs, and do something to it before some of them."""
    work, waits = trial(0, count), []
    tracker = _tracker(root, uri)
    tracker.started(work, 0)
    for epoch in range(1, count + 1):
        faults.get(epoch, lambda: None)()
        began = time.monotonic()
        tracker.recorded(work, record(epoch))
        waits.append(time.monotonic() - began)
        time.sleep(PAUSE)
    tracker.ended(work, JobResult("completed"))
    whole = tracker.close("FINISHED")
    return [
        ("seconds that an epoch waited at most", max(waits), 1.0),
        *_lost_and_doubled(root, count * len(record(1).metrics)),
        ("problems told", float(not whole), 0),
    ]


def _lost_and_doubled(root: Path, expected: int) -> list[Figure]:
    """Of the points that the database must have."""
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        found = database.execute("SELECT run_uuid, key, step FROM metrics WHERE key LIKE '%/%'")
        points = Counter(found.fetchall())
    return [
        ("points lost", float(expected - len(points)), 0),
        ("points doubled", float(points.total() - len(points)), 0),
    ]


def first(root: Path, count: int) -> list[Figure]:
    """Processes that all begin a study at once, in a database that is not there yet."""
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        wholes = pool.starmap(_begin, [(root, number) for number in range(count)])
    points = count * EPOCHS * len(record(1).metrics)
    return [*_lost_and_doubled(root, points), ("problems told", float(wholes.count(False)), 0)]


def _begin(root: Path, number: int) -> bool:
    """A study with one trial; whether MLflow has all of it."""
    tracker, work = _tracker(root, name=f"load-{number}"), trial(number)
    tracker.started(work, 0)
    for epoch in range(1, EPOCHS + 1):
        tracker.recorded(work, record(epoch))
    tracker.ended(work, JobResult("completed"))
    return tracker.close("FINISHED")


def reruns(root: Path, count: int) -> list[Figure]:
    """Of a finished study."""
    space = root / "load.yaml"
    space.write_text(SPACE)
    command = [sys.executable, "-m", "study.run", "--space", str(space), "--out", str(root / "r")]
    subprocess.run(command, check=True, capture_output=True)
    before, times, spent = _contents(root / "r"), list[float](), _spent_by_children()
    for _ in range(count):
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.monotonic() - began)
    changed = before ^ _contents(root / "r")
    return [
        ("seconds of the slowest", max(times), 2.0),
        ("processor seconds of each", (_spent_by_children() - spent) / count, 2.0),
        ("files changed", float(len(changed)), 0),
    ]


def disk(root: Path, count: int) -> list[Figure]:
    """Of a study in whose search most trials are stopped, against what `--dry-run` says."""
    space = root / "load.yaml"
    space.write_text(SEARCH.replace("COUNT", str(count)))
    command = [sys.executable, "-m", "study.run", "--space", str(space), "--out", str(root / "r")]
    said = subprocess.run(
        [*command, "--dry-run", "--json"], check=True, capture_output=True, text=True
    )
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    used = 0
    while running.poll() is None:
        used = max(used, _size(root / "r"))
        time.sleep(0.2)
    assert running.returncode == 0
    return [("largest use, MB", used / 1e6, json.loads(said.stdout)["disk"] / 1e6)]


def _size(folder: Path) -> int:
    """Bytes of all files; some may go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _spent_by_children() -> float:
    """Processor time, s, of all that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


SPACE = """\
question: What does a rerun cost?
seeds: [0]
trial:
  dataset: {name: tip3p_water, molecules: 8, trajectories: 3, frames: 2}
  model: {name: egnn, hidden: 8, layers: 2}
  finetune:
    task: {name: energy_forces}
    epochs: 1
    batch_size: 2
profiles: {quick: }
"""


SEARCH = """\
question: How much disk does a search take?
seeds: [0]
search: {trials: COUNT, sampler: random, repeat_best: 0}
early_stopping: {grace_epochs: 1, reduction_factor: 3}
trial:
  dataset: {name: tip3p_water, molecules: 8, trajectories: 3, frames: 2}
  model: {name: egnn, hidden: 128, layers: 5}
  pretrain:
    task: {name: masking, masking_ratio: 0.5}
    epochs: 1
    batch_size: 2
  finetune:
    task: {name: energy_forces}
    epochs: 9
    batch_size: 2
    lr: {loguniform: [1e-6, 1e-3]}
    min_lr: 1e-7
profiles: {quick: }
"""


def _tracker(root: Path, uri: str = "", name: str = "load") -> Tracker:
    tags = {Tag.KEY: name, Tag.SPACE: "{}"}
    tracker = Tracker(uri or f"sqlite:///{root}/mlflow.db", name, root, tags)
    tracker.open()
    tracker.wait()
    return tracker


def _contents(root: Path) -> set[tuple[str, int, int]]:
    return {
        (str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith("lock")
    }


def _peak_of(module: list[str]) -> int:
    """Largest memory of a command, bytes."""
    running = psutil.Popen([sys.executable, "-m", *module], stdout=subprocess.DEVNULL)
    peak = 0
    while running.poll() is None:
        peak = max(peak, running.memory_info().rss)
        time.sleep(0.05)
    assert running.returncode == 0
    return peak


PARTS: dict[str, tuple[Callable[[Path, int], list[Figure]], int]] = {
    "trials": (trials, 1000),
    "search": (search, 1000),
    "points": (points, 1_000_000),
    "reruns": (reruns, 50),
    "disk": (disk, 12),
    "server": (server, 400),
    "locked": (locked, 400),
    "first": (first, 4),
}


def main() -> int:
    """Measure, and compare with the limits."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("part", choices=PARTS)
    usual = ", ".join(f"{count} {part}" for part, (_, count) in PARTS.items())
    parser.add_argument("--count", type=int, help=f"default: {usual}")
    chosen = parser.parse_args()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    measure, usual = PARTS[chosen.part]
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), chosen.count or usual)
    for what, measured, most in figures:
        limit = "" if math.isinf(most) else f" (at most {most:g})"
        verdict = "  EXCEEDED" if measured > most else ""
        sys.stdout.write(f"{what}: {measured:.3g}{limit}{verdict}\n")
    return int(any(measured > most for _, measured, most in figures))


if __name__ == "__main__":
    # Workers must find `idle` by the name of this module.
    from tests import load

    sys.exit(load.main())
