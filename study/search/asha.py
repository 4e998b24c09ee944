"""ASHA (arXiv:1810.05934) as Ray Tune implements it, over epochs of finetuning."""

from __future__ import annotations

from types import SimpleNamespace

from ray.tune.schedulers import ASHAScheduler
from ray.tune.schedulers.trial_scheduler import TrialScheduler

from study.space import EarlyStopping


class Asha:
    """Lets only the best 1/reduction_factor of the trials pass each rung.

    Ray's scheduler knows a trial by its id alone; ours is the trial's number, so that what earlier
    runs of the study reported can be told to it again.

    Args:
        settings: grace and reduction.
        epochs: longest finetuning of the study.
    """

    def __init__(self, settings: EarlyStopping, epochs: int) -> None:
        self.scheduler = ASHAScheduler(
            time_attr="epoch",
            metric="value",
            mode="min",
            max_t=epochs,
            grace_period=min(settings.grace_epochs, epochs),
            reduction_factor=settings.reduction_factor,
            # A trial at its last epoch must still be tested.
            stop_last_trials=False,
        )
        self.known: dict[int, SimpleNamespace] = {}
        self.epochs = epochs

    def remember(self, number: int, values: list[float]) -> None:
        """What a trial reported in an earlier run of the study, epoch by epoch."""
        for epoch, value in enumerate(values, start=1):
            self.hopeless(number, epoch, value)

    def hopeless(self, number: int, epoch: int, value: float) -> bool:
        """Whether the trial failed the rung that it has reached; known rungs decide nothing."""
        if number not in self.known:
            self.known[number] = SimpleNamespace(trial_id=str(number))
            self.scheduler.on_trial_add(None, self.known[number])
        report = {"epoch": epoch, "value": value}
        decision = self.scheduler.on_trial_result(None, self.known[number], report)
        return decision == TrialScheduler.STOP and epoch < self.epochs
