"""Does a trial of several workers equal that of one, and what does it save?

`python -m tests.workers` trains small trials with 1, 2 and 4 workers (gloo, a thread each), stops
some and lets another number of workers go on, kills a trial's process, and times steps. It prints
the largest differences of weights, and exits 1 if one is more than rounding or a process is left.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from torch import Tensor

from study.datasets.frames import Frames
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome
from study.space.trial import Trial
from study.training.checkpoint import load_tensors
from study.training.loop import PausedError
from study.training.runtime import configure_process
from tests.benchmarks.water import water_box
from tests.determinism import SMALL

MASKING = {"name": "masking", "masking_ratio": 0.5}
DENOISING = {"name": "denoising", "noise_scale": 0.1}
STAGES: dict[str, dict[str, Any]] = {
    "masking": {"pretrain": MASKING},
    "denoising": {"pretrain": DENOISING},
    "energy and forces": {"finetune": {"name": "energy_forces", "energy_weight": 0.1}},
}
FRAMES, BATCH, EPOCHS = 40, 8, 4
"""28 to 32 frames train in 4 steps an epoch."""
ROUNDING = 1e-4
"""Largest difference of a weight, relative to the largest weight; steps change them by 0.005."""
ROUNDS = 3
"""How often each number of workers is timed, in turns."""

Stop = Callable[[], bool]


def trial_of(model: str, tasks: dict[str, Any], **changes: Any) -> Trial:
    """A small trial of one stage; the other is as short as can be."""
    stage = {"batch_size": BATCH, "epochs": EPOCHS, "lr": 0.005, "clip_norm": 1.0, "ema": 0.9}
    first, second = tasks.get("pretrain", MASKING), tasks.get("finetune", {"name": "energy_forces"})
    sizes = {"name": model, "hidden": 8, "layers": 2, "cutoff": 3.4} | SMALL.get(model, {})
    return Trial.model_validate(
        {
            "dataset": {"name": "tip3p_water"},
            "split": {"by": "frame"},
            "model": sizes | changes,
            "pretrain": stage | {"task": first} if "pretrain" in tasks else None,
            "finetune": stage | {"task": second},
        }
    )


def job_of(trial: Trial, frames: Path) -> Job:
    """The stage that the trial is about."""
    job = Job("trial", trial, Frames.load(frames).content_hash())
    return job.pretraining or job


def train(job: Job, frames: Path, root: Path, *workers: int) -> dict[str, Tensor]:
    """Train with each number of workers for five steps, with the last to the end; the weights."""
    for number in workers[:-1]:
        left = iter(range(6))  # Asked once before the first step.
        try:
            list(run_job(job, root, frames, "cpu", lambda left=left: next(left) == 5, number))
        except PausedError:
            continue
    list(run_job(job, root, frames, workers=workers[-1]))
    outcome = load_outcome(job.folder(root))
    assert outcome is not None
    assert outcome.weights is not None
    assert outcome.result.facts["workers"] == workers[-1]
    return load_tensors(outcome.weights)


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference of the weights, relative to the largest of them; 0 if all bits agree."""
    largest = max(
        float(values.abs().max()) for name, values in one.items() if "reference" not in name
    )
    return max(float((one[name] - other[name]).abs().max()) for name in one) / largest


def equality(folder: Path, frames: Path, models: list[str]) -> Iterator[tuple[str, float, float]]:
    """What is compared, how far it is apart, and how far it may be."""
    for model in models:
        for task, tasks in STAGES.items():
            job, name = job_of(trial_of(model, tasks), frames), f"{model}, {task}"
            place = folder / model / task.replace(" ", "-")
            alone = train(job, frames, place / "1", 1)
            two = train(job, frames, place / "2", 2)
            yield f"{name}: 2 workers", apart(alone, two), ROUNDING
            four = train(job, frames, place / "4", 4, 2, 1)
            yield f"{name}: 4, then 2, then 1", apart(alone, four), ROUNDING
            if task == "energy and forces":
                again = train(job, frames, place / "22", 2, 2)
                yield f"{name}: 2, stopped and resumed, beside 2", apart(two, again), 0.0


def survivors(folder: Path, frames: Path) -> list[int]:
    """Processes that are left five seconds after that of their trial killed itself in a step."""
    job = job_of(trial_of("egnn", STAGES["energy and forces"]), frames)
    order = {"work": job.to_json(), "root": str(folder / "killed"), "frames": str(frames)}
    order |= {"device": "cpu", "threads": 1, "workers": 3, "deterministic": False, "die_at": 4}
    with subprocess.Popen(
        [sys.executable, "-m", "study.pipeline.resume_worker"], stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order))
        process.stdin.close()
        others: list[psutil.Process] = []
        while process.poll() is None:
            if len(found := psutil.Process(process.pid).children()) == 2:
                others = found
            time.sleep(0.02)
    assert len(others) == 2, "it had no other workers"
    _, alive = psutil.wait_procs(others, timeout=5)
    return [each.pid for each in alive]


def seconds(job: Job, frames: Path, root: Path, workers: int) -> tuple[float, float]:
    """Median seconds of a step, and CPU seconds of all workers for an epoch."""
    moments: list[float] = []

    def note() -> bool:
        moments.append(time.perf_counter())
        return False

    (record,) = run_job(job, root, frames, "cpu", note, workers)
    steps = [after - before for before, after in pairwise(moments[2:])]
    return statistics.median(steps), record.metrics["cpu_seconds"]


def speed(folder: Path) -> Iterator[str]:
    """How a step with two workers compares with one of one, in turns."""
    water_box(32, 120).save(folder / "large")
    for hidden, layers, batch in ((32, 3, 4), (128, 5, 4), (128, 5, 12)):
        trial = trial_of("egnn", STAGES["energy and forces"], hidden=hidden, layers=layers)
        stage = {"batch_size": batch, "epochs": 1, "frames": 8 * batch, "compile": False}
        trial = trial.model_copy(
            update={"finetune": trial.finetune.model_copy(update=stage), "seed": 0}
        )
        times: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for number in range(ROUNDS):
            for workers, found in times.items():
                root = folder / f"{hidden}-{batch}-{workers}-{number}"
                found.append(
                    seconds(job_of(trial, folder / "large"), folder / "large", root, workers)
                )
        one, two = (
            [statistics.median(column) for column in zip(*times[n], strict=True)] for n in times
        )
        ratios = sorted(b[0] / a[0] for a, b in zip(times[1], times[2], strict=True))
        yield (
            f"EGNN {hidden} x {layers}, {batch} frames of 96 atoms: {1e3 * one[0]:.0f} ms with one "
            f"worker, {1e3 * two[0]:.0f} with two ({ratios[0]:.2f} to {ratios[-1]:.2f} times as "
            f"long), CPU time {two[1] / one[1]:.2f} times"
        )


def checked(what: list[str], models: list[str], folder: Path) -> Iterator[tuple[str, bool]]:
    """A line of each check, and whether it holds."""
    frames = folder / "frames"
    water_box(8, FRAMES).save(frames)
    if "killed" in what:
        left = survivors(folder, frames)
        yield f"processes left after that of a trial was killed: {left or 'none'}", not left
    if "equal" in what:
        for told, difference, limit in equality(folder, frames, models):
            holds = difference <= limit
            yield f"{told}: {difference:.1e}" + " TOO FAR" * (not holds), holds
    if "speed" in what:
        for line in speed(folder):
            yield line, True


def main() -> int:
    """Check what is asked for."""
    everything = ("killed", "equal", "speed")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=everything, default=list(everything))
    parser.add_argument("--models", nargs="+", default=["egnn", "gns"])
    chosen, failed = parser.parse_args(), False
    configure_process(1, "cpu", deterministic=False)
    with tempfile.TemporaryDirectory() as folder:
        for line, holds in checked(chosen.only, chosen.models, Path(folder)):
            failed |= not holds
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
