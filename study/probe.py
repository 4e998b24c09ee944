"""How fast a study's stages run here, by a few real steps of each kind; nothing is written.

A data set that is not there yet is stood in for by water of its size.
"""

from __future__ import annotations

import math
import resource
import time
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch

from study.datasets import folder_of, sizes_of
from study.errors import UserError
from study.frames import Frames
from study.graph import GraphSet
from study.identity import digest
from study.models import build_model
from study.own_settings import realized
from study.pipeline import build_task
from study.plan import Plan
from study.sizes import Sizes
from study.training import fit
from study.trial import Dataset, Stage, TIP3PWater, Trial

EPOCHS = 4
"""Of which the first is not counted: it warms up."""
BATCHES = (1, 3)
"""Training batches of the two trainings whose difference is the cost of a step."""
STARTUP = (1.0, 5.0)
"""Seconds that a worker takes before its first step, in a warm and in a fresh process."""
FLOAT = 4
KEPT = 8
"""Copies of the weights in two checkpoints: model, two moments, best."""


@dataclass(frozen=True)
class Speed:
    """Of one kind of stage.

    Args:
        step: seconds of a training step, fastest and slowest.
        validation: seconds per validation frame, likewise.
    """

    step: tuple[float, float]
    validation: tuple[float, float]


@dataclass(frozen=True)
class Cost:
    """What a study takes.

    Args:
        seconds: compute of all stages, at least and at most.
        memory: largest of a trial's process, bytes; of the GPU if there is one.
        disk: of data, weights, and checkpoints while running, bytes.
    """

    seconds: tuple[float, float]
    memory: int
    disk: int


@dataclass
class Probe:
    """Measures each kind of stage once.

    Args:
        plan: the study.
        device: torch device.
    """

    plan: Plan
    device: str
    speeds: dict[str, Speed] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)

    def cost(self) -> Cost:
        """Of all stages that are to be done."""
        torch.set_num_threads(self.plan.space.settings.resources.cpus)
        low = high = 0.0
        weights = []
        for trial, stage in self.plan.stages:
            least, most = self._seconds(trial, stage)
            low, high = low + least + STARTUP[0], high + most + STARTUP[1]
            weights.append(self.parameters[_of_model(trial)] * FLOAT)
        data = sum(_bytes_of(self._sizes(dataset)) for dataset in self.plan.datasets)
        running = KEPT * max(weights, default=0) * self.plan.slots
        return Cost((low, high), self._memory(), data + sum(weights) + running)

    def _seconds(self, trial: Trial, stage: Stage) -> tuple[float, float]:
        """Compute of a stage, at least and at most."""
        sizes = self._sizes(trial.dataset_of(stage))
        train, validation, _ = sizes.shares(trial.split)
        steps = math.ceil(min(train, stage.frames or train) / stage.batch_size)
        speed = self._speed(trial, stage)
        low, high = (
            stage.epochs * (steps * step + validation * frame)
            for step, frame in zip(speed.step, speed.validation, strict=True)
        )
        return low, high

    def _speed(self, trial: Trial, stage: Stage) -> Speed:
        what = [trial.dataset_of(stage), trial.model, stage.task]
        kind = digest([[part.model_dump(mode="json") for part in what], stage.batch_size])
        if kind not in self.speeds:
            self.speeds[kind] = self._measure(trial, stage)
        return self.speeds[kind]

    def _measure(self, trial: Trial, stage: Stage) -> Speed:
        trial, stage = realized(trial, self.plan.root), realized(stage, self.plan.root)
        size = stage.batch_size
        frames = self.frames(trial.dataset_of(stage), (BATCHES[1] + 1) * size)
        graphs = GraphSet.build(frames, trial.model.cutoff, device=self.device)
        everything = torch.arange(len(frames), device=graphs.device)
        model = build_model(trial.model, trial.seed).to(graphs.device)
        weights = sum(parameter.numel() for parameter in model.parameters())
        self.parameters[_of_model(trial)] = weights
        task = build_task(stage, model, graphs, everything)
        few, many = (
            self._epochs(
                lambda batches=batches: fit(
                    model,
                    task,
                    stage.model_copy(update={"epochs": EPOCHS, "frames": None, "compile": False}),
                    everything[: batches * size],
                    everything[-size:],
                    trial.seed,
                )
            )
            for batches in BATCHES
        )
        steps = BATCHES[1] - BATCHES[0]
        step = (min(many) - min(few)) / steps, (max(many) - min(few)) / steps
        step = max(step[0], min(many) / 10), max(step[1], min(many) / 10)
        rest = [max(0.0, epoch - BATCHES[0] * step[0]) / size for epoch in few]
        return Speed(step, (min(rest), max(rest)))

    def _epochs(self, train: object) -> list[float]:
        """Seconds of each epoch after the first."""
        assert callable(train)
        moments = [time.perf_counter()]
        for _ in train():
            if self.device != "cpu":
                torch.cuda.synchronize()
            moments.append(time.perf_counter())
        return [after - before for before, after in pairwise(moments[1:])]

    def frames(self, dataset: Dataset, count: int) -> Frames:
        """So many of a data set, or what stands in for them.

        Raises:
            UserError: if nothing does.
        """
        folder = folder_of(dataset, self.plan.root)
        if folder.exists():
            frames = Frames.load(folder)
            return frames.select(np.arange(count) % len(frames))
        if not isinstance(dataset, TIP3PWater):
            raise UserError(
                f"--probe: {dataset.label} has not been read yet; do that first with "
                f"`python -m study.data import`, or leave the option out"
            )
        return _packed_water(dataset.molecules, count)

    def _sizes(self, dataset: Dataset) -> Sizes:
        sizes = sizes_of(dataset, self.plan.root)
        if sizes is None:
            raise UserError(f"--probe: {dataset.label} has not been read yet; leave the option out")
        return sizes

    def _memory(self) -> int:
        if self.device != "cpu":
            return int(torch.cuda.max_memory_allocated())
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _of_model(trial: Trial) -> str:
    return digest([trial.model.model_dump(mode="json")])


def _packed_water(molecules: int, count: int) -> Frames:
    """Frames of the right size and density, with forces of the usual size."""
    from study.datasets.openmm_water import box_edge, build_box

    _, positions = build_box(molecules)
    rng = np.random.default_rng(0)
    jittered = 10 * positions + rng.normal(scale=0.02, size=(count, 3 * molecules, 3))
    return Frames(
        numbers=np.tile(np.array([8, 1, 1], np.uint8), molecules * count),
        positions=jittered.reshape(-1, 3),
        forces=rng.normal(scale=0.6, size=(3 * molecules * count, 3)),
        offsets=3 * molecules * np.arange(count + 1),
        cells=np.tile(10 * box_edge(molecules) * np.eye(3), (count, 1, 1)),
        energies=rng.normal(scale=0.5, size=count),
        groups=np.arange(count),
    )


def _bytes_of(sizes: Sizes) -> int:
    """Of a stored data set: positions and forces in float64, atomic numbers."""
    return int(sizes.frames * sizes.atoms * (2 * 3 * 8 + 1))
