"""An Optuna study whose proposals survive a restart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from study.core.hashing import digest
from study.core.records import JobResult
from study.scheduling.journal import Entry
from study.space.plugin_configs import realized_sampler
from study.space.samplers import SamplerConfig
from study.space.search_space import Space
from study.space.trial import Trial

STATES = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
"""Optuna's words for how a trial ended; a diverged one is complete with a bad value, see `_told`,
and any other end is a failure, of which samplers learn nothing."""

DIVERGED = "diverged"
"""Optuna's constraint that a trial which diverged violates."""


class OptunaStudy:
    """Proposes trials of a space, and learns how they went.

    Args:
        space: with a `search` block.
        root: folder of all work.
    """

    def __init__(self, space: Space, root: Path) -> None:
        assert space.settings.search is not None
        search = space.settings.search
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self.study = optuna.create_study(
            storage=optuna.storages.InMemoryStorage(),
            sampler=RepeatableSampler(realized_sampler(search.sampler, root), search.seed),
            pruner=optuna.pruners.NopPruner(),
            direction="minimize",
        )
        self.asked: dict[int, optuna.Trial] = {}
        """Optuna's trials, by our number."""
        self.reported: set[tuple[int, int]] = set()
        self.worst = math.inf
        """Largest value of a trial that did not diverge; infinite before there is one."""

    def propose(
        self, number: int, parameters: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], Trial]:
        """Ask for a trial.

        Args:
            number: of the trial in our study.
            parameters: what to propose again; new ones when left out.

        Returns:
            The parameters by the dotted name of their hole, and the trial with them.
        """
        if parameters is not None:
            self.study.enqueue_trial(dict(parameters))
        asked = self.asked[number] = self.study.ask()
        trial = self.space.propose(asked)
        return asked.params, trial

    def report(self, number: int, epoch: int, value: float) -> None:
        """Enter a trial's metric after an epoch; it may come again after a crash."""
        if (number, epoch) not in self.reported:
            self.reported.add((number, epoch))
            self.asked[number].report(value, epoch)

    def finish(self, number: int, result: JobResult, values: Sequence[float]) -> None:
        """Enter how a trial ended, with its metric after each epoch."""
        asked = self.asked[number]
        state, value, constraints = self._told(result, values)
        for name, violation in constraints.items():
            asked.set_constraint(name, violation)
        self.study.tell(asked, None if state == TrialState.PRUNED else value, state)

    def add(self, entry: Entry) -> None:
        """Enter a proposal of an earlier run of the study that is over."""
        parameters = entry.planned.parameters
        fixed = FixedTrial(parameters)
        self.space.propose(fixed)
        state, value, constraints = TrialState.FAIL, None, dict[str, float]()
        if entry.result is not None:
            state, value, constraints = self._told(entry.result, entry.values)
        self.study.add_trial(
            create_trial(
                state=state,
                value=value,
                params=parameters,
                distributions=fixed.distributions,
                intermediate_values=dict(enumerate(entry.values, start=1)),
                constraints=constraints,
            )
        )

    def _told(
        self, result: JobResult, values: Sequence[float]
    ) -> tuple[TrialState, float | None, dict[str, float]]:
        """State, value and constraints by which the sampler learns how a trial ended.

        A diverged trial counts as the worst so far: samplers ignore failures, and would propose
        its like again and again. Where trials are stopped early, a completed one ranks before
        those, whatever its value, so that it takes a constraint to rank a diverged one behind.
        """
        state, value = STATES.get(result.status, TrialState.FAIL), None
        if result.status == "diverged":
            state, value = TrialState.COMPLETE, self.worst
        elif state != TrialState.FAIL:
            value = min(values) if state == TrialState.COMPLETE else values[-1]
            self.worst = value if math.isinf(self.worst) else max(self.worst, value)
        stops = self.space.settings.early_stopping is not None
        rank = {DIVERGED: float(result.status == "diverged")}
        return state, value, rank if stops and state != TrialState.FAIL else {}


class RepeatableSampler(BaseSampler):
    """Draws each proposal with a generator of its own, seeded by the proposal's number.

    Optuna's samplers draw from one stream, which begins anew when a study continues: it would
    propose its first trials again.

    Args:
        settings: of the sampler.
        seed: of the search.
    """

    def __init__(self, settings: SamplerConfig, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.sampler = self._sampler(0)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Start this trial's stream."""
        self.sampler = self._sampler(trial.number)
        self.sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """As Optuna's sampler."""
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's sampler."""
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """As Optuna's sampler."""
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """As Optuna's sampler."""
        self.sampler.after_trial(study, trial, state, values)

    def _sampler(self, number: int) -> BaseSampler:
        seed = int(digest([self.seed, number])[:8], 16)
        sampler: BaseSampler = self.settings.build(seed)
        return sampler
