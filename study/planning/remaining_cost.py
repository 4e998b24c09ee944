"""What is left to be paid of a study."""

from __future__ import annotations

from typing import Protocol

from study.core.provenance import gpus
from study.datasets.config import DatasetConfig
from study.datasets.prepare import folder_of
from study.datasets.sizes import Sizes
from study.planning.cost_model import (
    STARTUP,
    SURE,
    Cost,
    bytes_of,
    overhead_seconds,
    stage_memory,
    stage_seconds,
    weights,
)
from study.planning.plan import Plan
from study.space.trial import Trial
from study.training.config import Stage

PER_EPOCH, PER_PIECE, PER_STUDY = 6e3, 3e4, 4e6
"""Bytes of records, in `work` and in MLflow; of a study also report, tables and a logged model."""

CHECKPOINTS = 8
"""Copies of the weights in two checkpoints: model, two moments, best."""


class Source(Protocol):
    """Knows what a stage takes."""

    def seconds(self, trial: Trial, stage: Stage) -> tuple[float, float]:
        """Compute of a stage, at least and at most."""

    def memory(self) -> float:
        """Largest of a trial's process, bytes; of the GPU if there is one."""


class Experience:
    """With other studies, on one core.

    Several cores take no longer, nor does a GPU, which has to start its kernels at least.

    Args:
        plan: of the study; data sets that were not read yet count as nothing.
    """

    def __init__(self, plan: Plan, *, on_gpu: bool) -> None:
        self.plan, self.on_gpu = plan, on_gpu

    def seconds(self, trial: Trial, stage: Stage) -> tuple[float, float]:
        """Compute of a stage, at least and at most."""
        sizes = self._sizes(trial, stage)
        if sizes is None:
            return 0.0, 0.0
        most = stage_seconds(trial, stage, sizes)
        least = most / self.plan.space.settings.resources.total_cpus
        if self.on_gpu:
            least = overhead_seconds(trial, stage, sizes)
        return SURE[0] * least, SURE[1] * most

    def memory(self) -> float:
        """Largest of a trial's process, bytes."""
        trials = self.plan.grid or self.plan.space.samples
        stages = [(trial, stage) for trial in trials for stage in trial.stages]
        known = [(*stage, sizes) for stage in stages if (sizes := self._sizes(*stage))]
        return max((stage_memory(*each) for each in known), default=0.0)

    def _sizes(self, trial: Trial, stage: Stage) -> Sizes | None:
        return self.plan.sizes_of(trial.dataset_of(stage))


class RemainingCost:
    """Estimates what is left to be paid of a plan.

    Args:
        plan: the plan.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def cost(self, source: Source) -> Cost:
        """What is left to be paid.

        Of a search the cheapest of its `samples` counts, stopped as early as can be, and the
        dearest.

        Args:
            source: of what a stage takes.
        """
        low = high = 0.0
        for count, alternatives in self._left():
            costs = [[self._seconds(source, *stage) for stage in each] for each in alternatives]
            low += count * min(sum(least for least, _ in each) for each in costs)
            high += count * max(sum(most for _, most in each) for each in costs)
        resources = self.plan.space.settings.resources
        # On GPUs it is the memory of one; on CPUs each worker holds the data.
        holding = 1 if gpus() and resources.gpus else resources.workers
        return Cost((low, high), holding * source.memory(), self._disk())

    def _left(self) -> list[tuple[float, list[list[tuple[Trial, Stage]]]]]:
        """What is to be done how often, and in which ways."""
        plan = self.plan
        if plan.grid:
            return [(1, [[stage]]) for stage in plan.left]
        samples = [[(trial, stage) for stage in trial.stages] for trial in plan.space.samples]
        return [(plan.counts.trainings * (1 - plan.over / plan.trials), samples)]

    def _seconds(self, source: Source, trial: Trial, stage: Stage) -> tuple[float, float]:
        least, most = source.seconds(trial, stage)
        share = self._kept if stage is trial.finetune else 1.0
        return share * least + STARTUP[0], most + STARTUP[1]

    @property
    def _kept(self) -> float:
        """Share of its epochs that finetuning does at least, on average over a search."""
        stopping = self.plan.space.settings.early_stopping
        if stopping is None:
            return 1.0
        return stopping.kept(self.plan.longest_finetuning)

    def _disk(self) -> float:
        pieces = [(count, *stage) for count, options in self._left() for stage in options[0]]
        largest = max((weights(trial) for _, trial, _ in pieces), default=0.0)
        disk = PER_STUDY + CHECKPOINTS * largest * self.plan.slots
        disk += sum(map(self._bytes_to_make, self.plan.datasets))
        stopping = self.plan.space.settings.early_stopping is not None
        for count, trial, stage in pieces:
            disk += count * (2 * weights(trial) + stage.epochs * PER_EPOCH + PER_PIECE)
            # Trials that were stopped keep theirs, for an audit; parts keep their last one.
            if stopping and stage is trial.finetune:
                disk += count * CHECKPOINTS * weights(trial)
            if self.plan.counts.generations > 1 and stage is trial.finetune:
                disk += count * self.plan.counts.generations * CHECKPOINTS / 2 * weights(trial)
        return disk

    def _bytes_to_make(self, dataset: DatasetConfig) -> float:
        sizes = self.plan.sizes_of(dataset)
        made = folder_of(dataset, self.plan.root).exists()
        return bytes_of(sizes) if sizes and not made else 0.0
