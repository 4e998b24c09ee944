"""Asynchronous successive halving, ASHA (arXiv:1810.05934), over epochs of finetuning."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from study.core.records import JobResult
from study.space.search.stopping import EarlyStopping


class Asha:
    """Lets only the best 1/reduction_factor of the trials pass each rung.

    A trial is compared with those that reached its rung before it, whatever becomes of later ones;
    nobody waits. The cutoff is interpolated between ranks, as in Ray Tune's ASHAScheduler.

    Args:
        settings: grace and reduction.
        epochs: longest finetuning of the study.
    """

    def __init__(self, settings: EarlyStopping, epochs: int) -> None:
        self.epochs = epochs
        self.percentile = (1 - 1 / settings.reduction_factor) * 100
        grace = min(settings.grace_epochs, epochs)
        count = int(np.log(epochs / grace) / np.log(settings.reduction_factor) + 1)
        milestones = [grace * settings.reduction_factor**k for k in range(count)]
        self.rungs: dict[float, dict[int, float]] = {epoch: {} for epoch in reversed(milestones)}
        """Values of the trials that have reached each rung, by epoch, the last rung first."""

    def remember(self, number: int, values: list[float]) -> None:
        """Enter what a trial reported in an earlier run of the study, epoch by epoch."""
        for epoch, value in enumerate(values, start=1):
            self._enter(number, epoch, value)

    def should_prune(self, number: int, epoch: int, value: float) -> bool:
        """Whether the trial failed the rung that it has reached; known rungs decide nothing."""
        failed = self._enter(number, epoch, value)
        # A trial at its last epoch must still be tested.
        return failed and epoch < self.epochs

    def ended(self, number: int, result: JobResult, values: Sequence[float]) -> None:
        """Nothing to learn: rungs know all that they compare."""

    def _enter(self, number: int, epoch: int, value: float) -> bool:
        """Enter a value at the highest rung reached; whether it is worse than the cutoff there."""
        reached = (values for milestone, values in self.rungs.items() if epoch >= milestone)
        values = next(reached, None)
        if values is None or number in values:
            return False
        cutoff = self._cutoff(list(values.values()))
        values[number] = value
        return -value < cutoff

    def _cutoff(self, values: list[float]) -> float:
        """The least that a trial's negative value may be; the first one at a rung passes."""
        # Negative values, so that every rounding is Ray's, which maximizes.
        counted = [-value for value in values if not math.isnan(value)]
        return float(np.percentile(counted, self.percentile)) if counted else -math.inf
