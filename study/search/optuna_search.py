"""Proposals by Optuna, through Ray Tune's OptunaSearch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial
from ray.tune.search.optuna import OptunaSearch

from study.conductor import Later, Planned
from study.journal import Entry
from study.records import WorkResult
from study.search.sampler import RepeatableSampler
from study.space import Space
from study.trial import Trial
from study.work import Work

STUDY = "search"
optuna.logging.set_verbosity(optuna.logging.WARNING)


class OptunaProposals:
    """What Optuna proposes, then the best of it with all seeds, beside the same from scratch.

    A study that continues gets the journal's proposals again, in the same order and with the same
    numbers; what ended is told to Optuna as it ended.

    Args:
        space: with a `search` block.
        data_hash: content hash of the data set.
        slots: trials that may be under way at once.
        entries: the journal of earlier runs of the study.
    """

    def __init__(self, space: Space, data_hash: str, slots: int, entries: dict[int, Entry]) -> None:
        assert space.settings.search is not None
        self.space, self.data_hash, self.slots = space, data_hash, slots
        self.settings = space.settings.search
        self.journal = entries
        self.open: set[int] = set()
        self.scores: dict[int, tuple[float, Trial]] = {}
        self.trials: dict[int, Trial] = {}
        self.number = 0
        self.repeats: Iterator[Trial] | None = None
        storage = optuna.storages.InMemoryStorage()
        self.search = OptunaSearch(
            space=self._ask,
            metric=space.settings.metric,
            mode="min",
            sampler=RepeatableSampler(self.settings.sampler, self.settings.seed),
            storage=storage,
            study_name=STUDY,
        )
        self.study = optuna.load_study(study_name=STUDY, storage=storage)

    def next(self) -> Planned | Later | None:
        """The next trial, `LATER` while all slots are taken or the best are not yet known."""
        if self.number < self.settings.trials:
            return self._propose() if len(self.open) < self.slots else Later.LATER
        if self.open and self.repeats is None:
            return Later.LATER
        if self.repeats is None:
            self.repeats = self._repeats()
        trial = next(self.repeats, None)
        return None if trial is None else self._plan(trial, {}, exempt=True)

    def reported(self, number: int, epoch: int, value: float) -> None:
        """Tell Optuna an intermediate value."""
        if number in self.open:
            report = {self.space.settings.metric: value, "training_iteration": epoch}
            self.search.on_trial_result(str(number), report)

    def ended(self, number: int, result: WorkResult, values: list[float]) -> None:
        """Tell Optuna: completed with its best value, stopped as pruned, anything else failed."""
        if number not in self.open:
            return
        self.open.remove(number)
        if result.status == "completed":
            best = min(values)
            self.scores[number] = (best, self.trials[number])
            report = {self.space.settings.metric: best}
            self.search.on_trial_complete(str(number), report)
        else:
            self.search.on_trial_complete(str(number), error=result.status != "stopped")

    def _propose(self) -> Planned:
        entry = self.journal.get(self.number)
        if entry is not None and entry.over:
            return self._remember(entry)
        if entry is not None:
            self.study.enqueue_trial(entry.planned.parameters)
        parameters = self.search.suggest(str(self.number))
        trial = self.space.propose(FixedTrial(parameters))
        self.open.add(self.number)
        return self._plan(trial, parameters, exempt=False)

    def _ask(self, trial: optuna.Trial) -> None:
        """Optuna's define-by-run space."""
        self.space.propose(trial)

    def _remember(self, entry: Entry) -> Planned:
        """Tell Optuna how a proposal of an earlier run ended."""
        self.study.add_trial(_as_optuna(entry, self.space))
        self.trials[self.number] = entry.planned.work.trial
        if entry.result is not None and entry.result.status == "completed":
            self.scores[self.number] = (min(entry.values), entry.planned.work.trial)
        self.number += 1
        return entry.planned

    def _plan(self, trial: Trial, parameters: dict[str, Any], *, exempt: bool) -> Planned:
        planned = Planned(self.number, Work("trial", trial, self.data_hash), parameters, exempt)
        self.trials[self.number] = trial
        self.number += 1
        return planned

    def _repeats(self) -> Iterator[Trial]:
        """The best proposals with the seeds that they have not yet had, and from scratch."""
        ranked = sorted(self.scores.values(), key=lambda scored: scored[0])
        best = [trial for _, trial in ranked[: self.settings.repeat_best]]
        known = {trial.model_dump_json() for trial in self.trials.values()}
        for trial in self.space.with_baselines(best):
            if trial.model_dump_json() not in known:
                yield trial


def _as_optuna(entry: Entry, space: Space) -> FrozenTrial:
    """A proposal of an earlier run as Optuna keeps it."""
    fixed = FixedTrial(entry.planned.parameters)
    space.propose(fixed)
    status = entry.result.status if entry.result else "failed"
    state, value = TrialState.FAIL, None
    if status == "completed":
        state, value = TrialState.COMPLETE, min(entry.values)
    elif status == "stopped":
        state, value = TrialState.PRUNED, entry.values[-1]
    return create_trial(
        state=state,
        value=value,
        params=entry.planned.parameters,
        distributions=fixed.distributions,
        intermediate_values=dict(enumerate(entry.values, start=1)),
    )
