"""An Optuna study whose proposals survive a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from study.core.hashing import digest
from study.core.records import Status
from study.scheduling.journal import Entry
from study.space.plugin_configs import realized_sampler
from study.space.samplers import SamplerConfig
from study.space.search_space import Space
from study.space.trial import Trial

STATES = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
"""Optuna's words for how a trial ended; any other end is a failure."""


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

    def finish(self, number: int, status: Status, value: float | None) -> None:
        """Enter how a trial ended; only a completed one has a value."""
        self.study.tell(self.asked[number], value, STATES.get(status, TrialState.FAIL))

    def add(self, entry: Entry) -> None:
        """Enter a proposal of an earlier run of the study that is over."""
        parameters = entry.planned.parameters
        fixed = FixedTrial(parameters)
        self.space.propose(fixed)
        state, value = TrialState.FAIL, None
        if entry.result is not None and entry.result.status in STATES:
            state = STATES[entry.result.status]
            value = min(entry.values) if state == TrialState.COMPLETE else entry.values[-1]
        self.study.add_trial(
            create_trial(
                state=state,
                value=value,
                params=parameters,
                distributions=fixed.distributions,
                intermediate_values=dict(enumerate(entry.values, start=1)),
            )
        )


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
