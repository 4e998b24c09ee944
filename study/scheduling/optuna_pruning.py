"""Early stopping by a pruner of Optuna, over epochs of finetuning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna

from study.core.records import JobResult
from study.space.search.stopping import OptunaPruner


class OptunaPruning:
    """Asks a pruner after each epoch; it knows all trials of the study that may be stopped.

    Args:
        settings: of the pruner.
        epochs: longest finetuning of the study.
        name: of the study, by which Hyperband deals trials out to its brackets.
    """

    def __init__(self, settings: OptunaPruner, epochs: int, name: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.epochs = epochs
        self.study = optuna.create_study(study_name=name, pruner=settings.build(epochs))
        self.trials: list[optuna.Trial] = []
        self.reported: set[tuple[int, int]] = set()
        self.over: set[int] = set()

    def remember(self, number: int, values: Sequence[float], result: JobResult | None) -> None:
        """Enter what a trial reported in an earlier run of the study, and how it ended."""
        for epoch, value in enumerate(values, start=1):
            self.should_prune(number, epoch, value)
        if result is not None:
            self.ended(number, result, values)

    def should_prune(self, number: int, epoch: int, value: float) -> bool:
        """Whether the pruner would stop the trial; repeated reports decide nothing."""
        if (number, epoch) in self.reported:
            return False
        self.reported.add((number, epoch))
        trial = self._trial(number)
        trial.report(value, epoch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of statistics with few values.
            pruned = trial.should_prune()
        # A trial at its last epoch must still be tested.
        return pruned and epoch < self.epochs

    def ended(self, number: int, result: JobResult, values: Sequence[float]) -> None:
        """Enter how a trial ended; others are never compared with one that has no good end."""
        states = {
            "completed": optuna.trial.TrialState.COMPLETE,
            "stopped": optuna.trial.TrialState.PRUNED,
        }
        if result.status in states and values and number not in self.over:
            self.over.add(number)
            completed = result.status == "completed"
            value = min(values) if completed else None
            self.study.tell(self._trial(number), value, states[result.status])

    def _trial(self, number: int) -> optuna.Trial:
        """Optuna's trial of our number, which is its own number, too."""
        while len(self.trials) <= number:
            self.trials.append(self.study.ask())
        return self.trials[number]
