"""How fast a study's stages run here, by a few real steps of each kind; nothing is written.

A data set that is not there yet is stood in for by water of its size.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import torch

from study.core.errors import UserError
from study.core.hashing import digest
from study.datasets.config import DatasetConfig
from study.datasets.prepare import sizes_of
from study.datasets.sizes import Sizes
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.potential import Potential
from study.planning.cost_model import COMPILED, WORKER, built_memory, held_bytes
from study.planning.plan import Plan
from study.planning.sample_frames import sample_frames
from study.space.plugin_configs import realized
from study.space.trial import Trial
from study.tasks.build import build_task
from study.training.config import Stage
from study.training.gradients import compiles
from study.training.loop import fit
from study.training.runtime import configure_performance, configure_process

EPOCHS = 4
"""Epochs of each timing; the first warms up and is not counted."""
BATCHES = (1, 3)
"""Training batches of the two trainings whose difference is the cost of a step."""


@dataclass(frozen=True)
class Times:
    """Durations of some epochs, in seconds.

    Args:
        wall: by the clock on the wall.
        cpu: by that of the processor, of which each thread has its own; of a GPU the same as wall.
    """

    wall: list[float]
    cpu: list[float]


@dataclass(frozen=True)
class Speed:
    """Speed of one kind of stage: on an idle machine, and under the current load.

    Args:
        step: seconds of a training step, at least and at most.
        validation: seconds per validation frame, likewise.
    """

    step: tuple[float, float]
    validation: tuple[float, float]


@dataclass
class Probe:
    """Measures each kind of stage once.

    Args:
        plan: the study.
        device: torch device.
        speeds: of the kinds measured so far.
        models: that were measured.
        held: bytes of the largest data set's graphs.
        built: bytes of a process that makes them.
    """

    plan: Plan
    device: str
    speeds: dict[str, Speed] = field(default_factory=dict)
    models: dict[str, Potential] = field(default_factory=dict)
    held: float = 0.0
    built: float = 0.0

    def seconds(self, trial: Trial, stage: Stage) -> tuple[float, float]:
        """Compute of a stage, at least and at most."""
        sizes = self._sizes(trial.dataset_of(stage))
        train, validation, _ = sizes.shares(trial.split)
        steps = math.ceil(min(train, stage.frames or train) / stage.batch_size)
        speed, workers = self._speed(trial, stage), self.plan.space.settings.resources.workers
        low, high = (
            stage.epochs * (steps * step / shared + validation * frame)
            for step, frame, shared in zip(speed.step, speed.validation, (workers, 1), strict=True)
        )
        self.held = max(self.held, held_bytes(trial, sizes))
        self.built = max(self.built, built_memory(trial, sizes))
        compiled = compiles(stage, self.models[_of_model(trial)], int(train), workers)
        return low * (COMPILED if compiled else 1), high

    def memory(self) -> float:
        """Largest so far, with the graphs of all frames, of which the probe made few."""
        if self.device != "cpu":
            return self.held + torch.cuda.max_memory_allocated()
        steps = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return max(self.built, self.held + steps + WORKER)

    def _speed(self, trial: Trial, stage: Stage) -> Speed:
        what = [trial.dataset_of(stage), trial.model, stage.task]
        settings = [part.model_dump(mode="json") for part in what]
        kind = digest([settings, stage.batch_size, stage.precision])
        if kind not in self.speeds:
            self.speeds[kind] = self._measure(trial, stage)
        return self.speeds[kind]

    def _measure(self, trial: Trial, stage: Stage) -> Speed:
        trial, stage = realized(trial, self.plan.root), realized(stage, self.plan.root)
        resources = self.plan.space.settings.resources
        configure_process(resources.cpus, self.device, deterministic=resources.deterministic)
        configure_performance(torch.device(self.device), trial.model.hidden)
        size = stage.batch_size
        frames = sample_frames(trial.dataset_of(stage), (BATCHES[1] + 1) * size, self.plan.root)
        graphs = GraphSet.build(frames, trial.model.cutoff, device=self.device)
        everything = torch.arange(len(frames))
        model = build_model(trial.model, trial.seed).to(graphs.device)
        self.models[_of_model(trial)] = model
        task = build_task(stage.task, model, graphs, everything[: stage.frames])
        short = stage.model_copy(update={"epochs": EPOCHS, "frames": None, "compile": False})
        few, many = (
            self._epochs(
                fit(model, task, short, everything[: n * size], everything[-size:], trial.seed)
            )
            for n in BATCHES
        )
        steps = BATCHES[1] - BATCHES[0]
        least = max((min(many.cpu) - min(few.cpu)) / steps, min(many.cpu) / 10)
        most = max((median(many.wall) - min(few.wall)) / steps, median(many.wall) / 10, least)
        rest = max(0.0, min(few.cpu) - BATCHES[0] * least) / size
        return Speed((least, most), (rest, max(rest, (median(few.wall) - least) / size)))

    def _epochs(self, training: Iterable[object]) -> Times:
        """Time each epoch after the first."""
        moments = [(time.perf_counter(), time.process_time())]
        for _ in training:
            if self.device != "cpu":
                torch.cuda.synchronize()
            moments.append((time.perf_counter(), time.process_time()))
        clocks = zip(*moments[1:], strict=True)
        wall, cpu = ([after - before for before, after in pairwise(clock)] for clock in clocks)
        if self.device != "cpu":
            return Times(wall, wall)
        return Times(wall, [each / torch.get_num_threads() for each in cpu])

    def _sizes(self, dataset: DatasetConfig) -> Sizes:
        sizes = sizes_of(dataset, self.plan.root)
        if sizes is None:
            raise UserError(f"--probe: {dataset.label} has not been read yet; leave the option out")
        return sizes


def _of_model(trial: Trial) -> str:
    return digest([trial.model.model_dump(mode="json")])
