"""An Optuna sampler whose proposals survive a restart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from study.core.hashing import digest

SAMPLERS: dict[str, type[TPESampler] | type[RandomSampler]] = {
    "tpe": TPESampler,
    "random": RandomSampler,
}


class RepeatableSampler(BaseSampler):
    """Draws each proposal with a generator of its own, seeded by the proposal's number.

    Optuna's samplers draw from one stream, which begins anew when a study continues: it would
    propose its first trials again.

    Args:
        name: which of `SAMPLERS`.
        seed: of the search.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed
        self.sampler = self._sampler(0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Start this trial's stream."""
        self.sampler = self._sampler(trial.number)
        self.sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """As Optuna's sampler."""
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's sampler."""
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """As Optuna's sampler."""
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """As Optuna's sampler."""
        self.sampler.after_trial(study, trial, state, values)

    def _sampler(self, number: int) -> BaseSampler:
        seed = int(digest([self.seed, number])[:8], 16)
        return SAMPLERS[self.name](seed=seed)
