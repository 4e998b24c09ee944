"""Compute until a search has the best configuration's error within 2 %, on recorded curves.

`record` trains every configuration of `search.yaml` once and keeps the curves; `measure` lets each
search loose on them, with as many simulated workers, as if it trained. Our scheduler, proposals
and early stopping are the real ones. Replaying takes seconds, so searches are repeated often.
"""

from __future__ import annotations

import heapq
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from study.core.records import EpochRecord, JobResult
from study.datasets.frames import Frames
from study.datasets.prepare import prepare
from study.datasets.splits import split
from study.graphs.graph_set import GraphSet, index_tensor
from study.models.build import build_model
from study.models.potential import Potential
from study.pipeline.job import Job
from study.scheduling.asha import Asha
from study.scheduling.optuna_pruning import OptunaPruning
from study.scheduling.proposals.optuna_search import OptunaProposals
from study.scheduling.protocols import EarlyStop
from study.scheduling.scheduler import Scheduler
from study.space.search.stopping import EarlyStopping
from study.space.search_space import Space, load_space
from study.space.trial import Trial
from study.tasks.energy_forces import EnergyForces, LabelStatistics
from study.training.loop import fit

SPACE = Path(__file__).with_name("search.yaml")
CURVES = Path(__file__).with_name("curves.json")
CLOSE = 1.02
"""Times the error of the best configuration."""
WORKERS = 4
SEARCHES: dict[str, tuple[str, bool]] = {
    "ours: TPE + ASHA": ("tpe", True),
    "TPE": ("tpe", False),
    "random + ASHA": ("random", True),
    "random": ("random", False),
}
"""Sampler, and whether ASHA stops trials."""

Curves = dict[str, Any]
"""`pretrainings`: name → CPU seconds; `trials`: name → validation force errors (eV/Å) by epoch,
and CPU seconds of an epoch; `origin`: with what it was recorded."""


def names(trial: Trial) -> tuple[str, str]:
    """Of a configuration's pretraining, and of itself."""
    stage = trial.pretrain
    pretraining = f"{stage.task.label}, lr {stage.lr:g}" if stage else "scratch"
    finetune = trial.finetune
    return pretraining, f"{pretraining} > batch {finetune.batch_size}, lr {finetune.lr:g}"


def space(seed: int = 0, sampler: Any = "tpe", *, stopping: Any = True) -> Space:
    """The space with its search; `stopping` is as it says, none, or what is said here."""
    changes: list[tuple[list[str], Any]] = [
        (["search", "seed"], seed),
        (["search", "sampler"], sampler),
    ]
    if stopping is not True:
        changes.append((["early_stopping"], stopping or None))
    return load_space(str(SPACE), "quick", changes)


def grid() -> list[Trial]:
    """Every configuration."""
    found: list[Trial] = load_space(
        str(SPACE), "quick", [(["search"], None), (["early_stopping"], None)]
    ).grid()
    return found


def record(say: Callable[[str], None], origin: dict[str, Any]) -> Curves:
    """Train everything once, on one thread."""
    torch.set_num_threads(1)
    curves: Curves = {"origin": origin, "pretrainings": {"scratch": 0.0}, "trials": {}}
    weights: dict[str, dict[str, torch.Tensor]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        trials = grid()
        frames = Frames.load(prepare(trials[0].dataset, Path(name), 1, lambda *_: None))
    graphs = GraphSet.build(frames, trials[0].model.cutoff)
    for number, trial in enumerate(trials, start=1):
        splits = split(frames, trial.split, trial.seed)
        parts = [index_tensor(part) for part in (splits.train, splits.validation)]
        model = build_model(trial.model, trial.seed)
        pretraining, configuration = names(trial)
        if trial.pretrain is not None and pretraining not in weights:
            started = time.process_time()
            task = trial.pretrain.task.build(graphs)
            list(fit(model, task, trial.pretrain, *parts, trial.seed))
            curves["pretrainings"][pretraining] = round(time.process_time() - started, 3)
            weights[pretraining] = {key: w.clone() for key, w in model.state_dict().items()}
        if trial.pretrain is not None:
            model.load_pretrained(weights[pretraining], include_heads=False)
        model.zero_init_readout()
        curves["trials"][configuration] = _finetune(model, trial, graphs, parts)
        say(f"{number}/{len(trials)} {configuration}: {min(_curve(curves, configuration)):.4f}")
    return curves


def _finetune(
    model: Potential, trial: Trial, graphs: GraphSet, parts: list[torch.Tensor]
) -> dict[str, Any]:
    statistics_ = LabelStatistics.fit(graphs, parts[0])
    statistics_.apply(model, trial.finetune.task)
    task = EnergyForces(trial.finetune.task, graphs, statistics_)
    started = time.process_time()
    history = list(fit(model, task, trial.finetune, *parts, trial.seed))
    seconds = (time.process_time() - started) / len(history)
    errors = [round(metrics["val_force_rmse"], 5) for metrics in history]
    return {"errors": errors, "seconds": round(seconds, 4)}


def measure(curves: Curves, repetitions: int) -> dict[str, Any]:
    """Compute to the target of every search, repetition by repetition, and of the grid."""
    finals = {name: min(_curve(curves, name)) for name in curves["trials"]}
    target = CLOSE * min(finals.values())
    whole = sum(curves["pretrainings"].values()) + sum(
        len(found["errors"]) * found["seconds"] for found in curves["trials"].values()
    )
    found: dict[str, Any] = {
        label: _summary(
            [replay(curves, target, sampler, stopping, n) for n in range(repetitions)], whole
        )
        for label, (sampler, stopping) in SEARCHES.items()
    }
    found["grid in random order"] = _summary(
        [shuffled(curves, target, n) for n in range(repetitions)], whole
    )
    good = sum(value <= target for value in finals.values())
    return {
        "searches": found,
        "grid": {"seconds": whole, "trials": len(finals), "good": good},
        "best": min(finals.values()),
        "target": target,
        "workers": WORKERS,
        "repetitions": repetitions,
        "origin": curves["origin"],
    }


def replay(curves: Curves, target: float, sampler: Any, stopping: Any, seed: int) -> float:
    """Seconds of compute that a search has spent when a finished trial meets the target.

    Infinite if it never does.
    """
    searched = space(seed, sampler, stopping=stopping)
    settings = searched.settings
    epochs = max(len(found["errors"]) for found in curves["trials"].values())
    early_stop = _early_stop(settings.early_stopping, epochs)
    with tempfile.TemporaryDirectory(prefix="bench-") as root:
        proposals = OptunaProposals(searched, lambda trial: Job("trial", trial, ""), WORKERS, {})
        scheduler = Scheduler(proposals, settings.metric, Path(root), [], early_stop)
        return _simulate(scheduler, curves, target)


def _early_stop(settings: Any, epochs: int) -> EarlyStop | None:
    if settings is None:
        return None
    if isinstance(settings, EarlyStopping):
        return Asha(settings, epochs)
    return OptunaPruning(settings, epochs, "benchmark")


def shuffled(curves: Curves, target: float, seed: int) -> float:
    """The same for every configuration in random order, without early stopping."""
    trials = grid()
    random.Random(seed).shuffle(trials)
    spent, pretrained = 0.0, set()
    for trial in trials:
        pretraining, configuration = names(trial)
        if pretraining not in pretrained:
            pretrained.add(pretraining)
            spent += curves["pretrainings"][pretraining]
        curve = _curve(curves, configuration)
        spent += len(curve) * curves["trials"][configuration]["seconds"]
        if min(curve) <= target:
            return spent
    return float("inf")


def _simulate(scheduler: Scheduler, curves: Curves, target: float) -> float:
    """Workers take work, and report when its recorded time has passed."""
    now, spent = 0.0, 0.0
    events: list[tuple[float, int, Job, Iterator[float]]] = []
    serial = 0

    def proceed(work: Job, epochs: Iterator[float]) -> None:
        nonlocal serial
        serial += 1
        heapq.heappush(events, (now + next(epochs), serial, work, epochs))

    while True:
        while len(events) < WORKERS and (work := scheduler.next()) is not None:
            proceed(work, iter(_durations(work, curves)))
        if not events:
            return float("inf")
        before = now
        # Running workers spend compute together.
        now, _, work, epochs = heapq.heappop(events)
        spent += (len(events) + 1) * (now - before)
        if work.kind == "pretrain":
            scheduler.end(work.key, JobResult("completed"))
            continue
        curve = _curve(curves, names(work.trial)[1])
        left = epochs.__length_hint__()  # type: ignore[attr-defined]
        epoch = len(curve) - left
        value = curve[epoch - 1]
        if scheduler.report(work.key, EpochRecord("finetune", epoch, {scheduler.metric: value})):
            continue
        if left:
            proceed(work, epochs)
            continue
        scheduler.end(work.key, JobResult("completed"))
        if min(curve) <= target:
            return spent


def _durations(work: Job, curves: Curves) -> list[float]:
    """Seconds between the reports of a piece of work."""
    pretraining, configuration = names(work.trial)
    if work.kind == "pretrain":
        return [curves["pretrainings"][pretraining]]
    found = curves["trials"][configuration]
    return [found["seconds"]] * len(found["errors"])


def _curve(curves: Curves, configuration: str) -> list[float]:
    errors: list[float] = curves["trials"][configuration]["errors"]
    return errors


def _summary(seconds: list[float], whole: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "median": statistics.median(seconds),
        "share_of_grid": statistics.median(seconds) / whole,
        "missed": sum(value == float("inf") for value in seconds),
    }


def load() -> Curves:
    """The recorded curves."""
    curves: Curves = json.loads(CURVES.read_text())
    return curves
