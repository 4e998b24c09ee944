"""What is left to be paid of a study."""

from __future__ import annotations

from typing import Protocol

from study.datasets.prepare import sizes_of
from study.datasets.sizes import Sizes
from study.planning.cost_model import overhead_seconds, stage_memory, stage_seconds
from study.planning.plan import Plan
from study.space.trial import Trial
from study.training.config import Stage

SURE = (0.4, 1.6)
"""Between which shares of `stage_seconds` nearly all stages lay that were measured."""


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
        least = most / self.plan.space.settings.resources.cpus
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
        return sizes_of(trial.dataset_of(stage), self.plan.root)
