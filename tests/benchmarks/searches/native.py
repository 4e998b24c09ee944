"""The same searches by Optuna alone: one sampler for a whole search, its own pruner, ask and tell.

It is given for nothing what a loop around Optuna would have to be taught: a configuration that was
proposed before costs nothing, and neither does a pretraining that another trial has paid.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import optuna

from study.space.search_space import Space
from study.space.trial import Trial
from tests.benchmarks.searches.quality import WORKERS, Curves, names


@dataclass
class Asked:
    """A trial under way.

    Args:
        trial: Optuna's.
        name: of its configuration.
        errors: by epoch.
        epoch: epochs done.
    """

    trial: optuna.Trial
    name: str
    errors: list[float]
    epoch: int = 0


@dataclass
class Search:
    """Simulated workers that take what Optuna proposes.

    Args:
        curves: recorded.
        space: what is searched.
        study: Optuna's.
        paid: pretrainings that some trial has paid for.
        ends: what became of each configuration: value, or none if it was pruned.
    """

    curves: Curves
    space: Space
    study: optuna.Study
    paid: set[str] = field(default_factory=set)
    ends: dict[str, float | None] = field(default_factory=dict)
    asked: int = 0

    def seconds(self, target: float) -> float:
        """Compute until a finished trial meets the target; infinite if none does."""
        now, spent, serial = 0.0, 0.0, 0
        events: list[tuple[float, int, Asked]] = []
        while True:
            while len(events) < WORKERS and (new := self._ask()) is not None:
                serial += 1
                heapq.heappush(events, (now + self._first(new), serial, new))
            if not events:
                return float("inf")
            before = now
            now, _, running = heapq.heappop(events)
            spent += (len(events) + 1) * (now - before)
            if not self._report(running):
                serial += 1
                heapq.heappush(events, (now + self._epoch(running), serial, running))
            elif (value := self.ends[running.name]) is not None and value <= target:
                return spent

    def _ask(self) -> Asked | None:
        """The next configuration that was not tried before."""
        search = self.space.settings.search
        assert search is not None
        while self.asked < search.trials:
            self.asked += 1
            trial = self.study.ask()
            name = names(self._configuration(trial))[1]
            if name not in self.ends:
                return Asked(trial, name, self.curves["trials"][name]["errors"])
            self._tell(trial, self.ends[name])
        return None

    def _configuration(self, trial: optuna.Trial) -> Trial:
        return self.space.propose(trial)

    def _first(self, running: Asked) -> float:
        """Seconds of the first epoch, and of the pretraining if nobody has paid for it."""
        pretraining = running.name.partition(" > ")[0]
        before = 0.0 if pretraining in self.paid else self.curves["pretrainings"][pretraining]
        self.paid.add(pretraining)
        return float(before) + self._epoch(running)

    def _epoch(self, running: Asked) -> float:
        return float(self.curves["trials"][running.name]["seconds"])

    def _report(self, running: Asked) -> bool:
        """Take in an epoch; whether the trial is over."""
        value = running.errors[running.epoch]
        running.epoch += 1
        running.trial.report(value, running.epoch)
        whole = running.epoch == len(running.errors)
        if not whole and not running.trial.should_prune():
            return False
        self.ends[running.name] = min(running.errors) if whole else None
        self._tell(running.trial, self.ends[running.name])
        return True

    def _tell(self, trial: optuna.Trial, value: float | None) -> None:
        state = optuna.trial.TrialState
        self.study.tell(trial, value, state.PRUNED if value is None else state.COMPLETE)


def replay(
    curves: Curves,
    target: float,
    space: Space,
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
) -> float:
    """Seconds of compute that Optuna alone has spent when a finished trial meets the target."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, sampler=sampler, pruner=pruner)
    return Search(curves, space, study).seconds(target)
