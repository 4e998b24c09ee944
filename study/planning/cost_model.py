"""What a study will take, roughly, before anything has run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from study.core.provenance import gpus
from study.datasets.config import DatasetConfig
from study.datasets.sizes import EDGE_BYTES, STORED_ATOMS, STORED_EDGE_BYTES, Sizes
from study.datasets.sources.published_sizes import published_sizes
from study.planning.stages import one_per_pretraining, stages
from study.space.search_space import load_space
from study.space.trial import Trial
from study.training.config import Stage

STEP_OVERHEAD = 0.004
"""Seconds per step and layer, whatever the size."""

PER_EDGE = 0.6e-6
"""Seconds per edge and layer of a training step on one core of 2025."""

PER_EDGE_AND_FEATURE = 4e-8
"""The same, for each feature."""

WORKER = 0.4e9
"""Bytes that a worker of Ray takes beyond a process of its own once it has done many trials."""

PACKAGES = WORKER + 0.5e9
"""Bytes of a trial's process without any data: torch and torch-geometric, too."""

HELD_PER_ATOM = 45
"""Bytes of a data set's graphs, without edges."""

BUILT = 2.5
"""Peak memory of a neighbour search, relative to the memory of the edges."""

BESIDE = 100
"""Weights of a layer for each feature, beside `ModelCost.layer_squares`."""

MOST_NEIGHBOURS = 1e4
"""Most neighbours of an atom, so that a wrong cutoff does not make an estimate infinite."""

VALIDATION_SHARE = 0.35
"""Cost of a frame in validation relative to training."""

COMPILED = 0.5
"""Time of a compiled step relative to an eager one: 0.45 to 0.5 of EGNN at quick sizes."""

STARTUP = (1.0, 5.0)
"""Seconds that a worker takes before its first step, in a warm and in a fresh process."""


SURE = (0.4, 1.6)
"""Between which shares of `stage_seconds` nearly all stages lay that were measured."""


@dataclass(frozen=True)
class Cost:
    """What a study takes.

    Args:
        seconds: of all stages one after another, at least and at most.
        memory: largest of a trial's process, bytes; of the GPU if there is one.
        disk: of data, weights and records, and of checkpoints while running, bytes.
    """

    seconds: tuple[float, float]
    memory: float
    disk: float


def stage_seconds(trial: Trial, stage: Stage, sizes: Sizes) -> float:
    """Compute of one stage on one core.

    Measured on water; another machine is faster or slower, so the display corrects it by what the
    first epochs really take.
    """
    per_edge = PER_EDGE + PER_EDGE_AND_FEATURE * trial.model.hidden
    edges = stage.epochs * _frames(trial, stage, sizes) * _edges(trial, sizes)
    of_egnn = _compiled_share(stage) * trial.model.layers * edges * per_edge
    return overhead_seconds(trial, stage, sizes) + trial.model.cost.step_time * of_egnn


def overhead_seconds(trial: Trial, stage: Stage, sizes: Sizes) -> float:
    """The part of `stage_seconds` that does not depend on the size of a step."""
    steps = stage.epochs * _frames(trial, stage, sizes) / stage.batch_size
    of_egnn = _compiled_share(stage) * steps * trial.model.layers * STEP_OVERHEAD
    return trial.model.cost.step_time * of_egnn


def _compiled_share(stage: Stage) -> float:
    """What a stage takes, relative to autograd, if its space asks for compiled code."""
    return COMPILED if stage.compile else 1.0


def stage_memory(trial: Trial, stage: Stage, sizes: Sizes) -> float:
    """Largest of the process that does one stage, bytes: its packages, all graphs, one step."""
    model = trial.model
    channels = _edges(trial, sizes) * stage.batch_size * model.layers * model.hidden
    step = channels * model.cost.channel_bytes
    return max(built_memory(trial, sizes), PACKAGES + held_bytes(trial, sizes) + step)


def built_memory(trial: Trial, sizes: Sizes) -> float:
    """Memory of a process that searches the neighbours of a whole data set, bytes."""
    return PACKAGES + BUILT * _edge_bytes(trial, sizes)


def held_bytes(trial: Trial, sizes: Sizes) -> float:
    """Memory of the graphs of a data set, bytes; without what is mapped from files."""
    atoms = sizes.frames * sizes.atoms
    held = 0.0 if atoms >= STORED_ATOMS and not gpus() else atoms * HELD_PER_ATOM
    return _edge_bytes(trial, sizes) + held


def _edge_bytes(trial: Trial, sizes: Sizes) -> float:
    """Memory of the neighbours that a process holds, bytes: none if they are many."""
    edges = sizes.frames * _edges(trial, sizes) * EDGE_BYTES
    # More are mapped from a file, or found for each batch; a GPU may hold them.
    return edges if edges < STORED_EDGE_BYTES or gpus() else 0.0


def weights(trial: Trial) -> float:
    """Bytes of a model's weights."""
    model = trial.model
    of_feature = model.cost.layer_squares * model.hidden + BESIDE
    return 4 * model.layers * model.hidden * of_feature


def bytes_of(sizes: Sizes) -> int:
    """Size of a stored data set: positions and forces in float64, atomic numbers."""
    return int(sizes.frames * sizes.atoms * (2 * 3 * 8 + 1))


def _frames(trial: Trial, stage: Stage, sizes: Sizes) -> float:
    """Frames of an epoch, with those of validation weighted by what they cost."""
    train, validation, _ = sizes.shares(trial.split)
    return min(train, stage.frames or train) + VALIDATION_SHARE * validation


def _edges(trial: Trial, sizes: Sizes) -> float:
    """Edges of a frame."""
    return sizes.atoms * min(sizes.neighbours(trial.model.cutoff), MOST_NEIGHBOURS)


@dataclass(frozen=True)
class Forecast:
    """What a grid takes.

    Args:
        trials: number of trials, with those that tune.
        pretrainings: number of different pretrainings.
        steps: training steps of all stages.
        hours: on one core, at least and at most.
        unknown: labels of data sets whose size is not known, which cost nothing here.
    """

    trials: int
    pretrainings: int
    steps: int
    hours: tuple[float, float]
    unknown: tuple[str, ...]


def forecast(space: str, profile: str) -> Forecast:
    """Estimate what a profile of a grid takes, by the sizes that its data sets are known to have.

    Raises:
        UserError: if there is no such space or profile, or the space is wrong.
    """
    loaded = load_space(space, profile)
    trials = [*(trial for trial, _ in loaded.tuning()), *loaded.grid()]
    known = [(*each, sizes) for each in stages(trials) if (sizes := _sizes_of_stage(*each))]
    seconds = sum(stage_seconds(*each) for each in known)
    low, high = (
        share * seconds + len(known) * start for share, start in zip(SURE, STARTUP, strict=True)
    )
    return Forecast(
        trials=len(trials),
        pretrainings=len(one_per_pretraining(trials)),
        steps=sum(_steps(*each) for each in known),
        hours=(low / 3600, high / 3600),
        unknown=tuple(
            dict.fromkeys(e.label for e in _datasets(trials) if _expected_sizes(e) is None)
        ),
    )


def _datasets(trials: list[Trial]) -> list[DatasetConfig]:
    return [dataset for trial in trials for dataset in trial.datasets]


def _expected_sizes(dataset: DatasetConfig) -> Sizes | None:
    return dataset.sizes or published_sizes(dataset)


def _sizes_of_stage(trial: Trial, stage: Stage) -> Sizes | None:
    return _expected_sizes(trial.dataset_of(stage))


def _steps(trial: Trial, stage: Stage, sizes: Sizes) -> int:
    """Training steps of a stage."""
    train = sizes.shares(trial.split)[0]
    return stage.epochs * math.ceil(min(train, stage.frames or train) / stage.batch_size)
