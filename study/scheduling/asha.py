"""ASHA (arXiv:1810.05934) as Ray Tune implements it, over epochs of finetuning."""

from __future__ import annotations

from functools import cached_property
from types import SimpleNamespace
from typing import Any

from study.space.settings import EarlyStopping


class Asha:
    """Lets only the best 1/reduction_factor of the trials pass each rung.

    Ray's scheduler knows a trial by its id alone; ours is the trial's number, so that what earlier
    runs of the study reported can be told to it again.

    Args:
        settings: grace and reduction.
        epochs: longest finetuning of the study.
    """

    def __init__(self, settings: EarlyStopping, epochs: int) -> None:
        self.settings, self.epochs = settings, epochs
        self.known: dict[int, SimpleNamespace] = {}
        self.earlier: list[tuple[int, list[float]]] = []
        """What an earlier run of the study reported, until the scheduler is needed."""

    @cached_property
    def scheduler(self) -> Any:
        """Ray's, which takes seconds to import."""
        from study.scheduling import ray_env  # noqa: F401, I001
        from ray.tune.schedulers import ASHAScheduler

        return ASHAScheduler(
            time_attr="epoch",
            metric="value",
            mode="min",
            max_t=self.epochs,
            grace_period=min(self.settings.grace_epochs, self.epochs),
            reduction_factor=self.settings.reduction_factor,
            # A trial at its last epoch must still be tested.
            stop_last_trials=False,
        )

    def remember(self, number: int, values: list[float]) -> None:
        """What a trial reported in an earlier run of the study, epoch by epoch."""
        self.earlier.append((number, values))

    def hopeless(self, number: int, epoch: int, value: float) -> bool:
        """Whether the trial failed the rung that it has reached; known rungs decide nothing."""
        while self.earlier:
            before, values = self.earlier.pop(0)
            for past, known in enumerate(values, start=1):
                self._report(before, past, known)
        return self._report(number, epoch, value) and epoch < self.epochs

    def _report(self, number: int, epoch: int, value: float) -> bool:
        if number not in self.known:
            self.known[number] = SimpleNamespace(trial_id=str(number))
            self.scheduler.on_trial_add(None, self.known[number])
        report = {"epoch": epoch, "value": value}
        decision = self.scheduler.on_trial_result(None, self.known[number], report)
        return bool(decision == self.scheduler.STOP)
