"""An Optuna study whose proposals survive a restart."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from study.core.records import JobResult
from study.pipeline.outcome import OUT_OF_MEMORY
from study.scheduling.journal import Entry
from study.scheduling.protocols import Planned
from study.space.plugin_configs import realized_sampler
from study.space.search.samplers import OptunaSampler, SamplerConfig
from study.space.search_space import Space
from study.space.trial import Trial

STATES = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
"""Optuna's words for how a trial ended; a hopeless one is complete with a bad value, and any other
end is a failure, of which samplers learn nothing."""

HOPELESS = "hopeless"
"""Optuna's constraint that a hopeless trial violates."""

TRANSIENT = re.compile("relative_params|fixed_params")
"""Notes of a sampler that nobody needs once the trial has all its parameters."""


class OptunaStudy:
    """Proposes trials of a space, and learns how they went.

    Args:
        space: with a `search` block.
        root: folder of all work.
    """

    def __init__(self, space: Space, root: Path) -> None:
        assert space.settings.search is not None
        search = space.settings.search
        # Its warnings, of what a sampler draws in another way, would break into the live table.
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space = space
        self.sampler = RepeatableSampler(realized_sampler(search.sampler, root), search.seed)
        self.storage = optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(
            storage=self.storage,
            sampler=self.sampler,
            pruner=optuna.pruners.NopPruner(),
            directions=["minimize"] * len(search.objectives or [space.settings.metric]),
        )
        self.search = search
        # Samplers with a model of each constraint want to know all of them of every trial.
        stops = space.settings.early_stopping is not None
        self.constrained = bool(stops or search.objectives or search.at_most)
        self.asked: dict[int, optuna.Trial] = {}
        """Optuna's trials, by our number."""
        self.noted: dict[int, dict[str, Any]] = {}
        """What the sampler noted of the study with each proposal."""
        self.reported: set[tuple[int, int]] = set()
        self.worst = [math.inf] * len(self.study.directions)
        """Largest values of trials that did not diverge; infinite before there is one."""

    @property
    def _id(self) -> int:
        return self.storage.get_study_id_from_name(self.study.study_name)

    def learn(self, parameters: Mapping[str, Any], value: float) -> None:
        """Enter a trial of a former study."""
        fixed = FixedTrial(dict(parameters))
        self.space.propose(fixed)
        result = JobResult("completed")
        state, told = self._told(result, [value])
        made = create_trial(
            state=state,
            values=told,
            params=fixed.params,
            distributions=fixed.distributions,
            constraints=self._constraints(result),
        )
        self.study.add_trial(made)

    def propose(self, number: int, given: Mapping[str, Any]) -> tuple[dict[str, Any], Trial]:
        """Ask for a trial.

        Args:
            number: of the trial in our study.
            given: parameters that it has; the sampler adds the others.

        Returns:
            The parameters by the dotted name of their hole, and the trial with them.
        """
        if given:
            self.study.enqueue_trial(dict(given))
        before = self.storage.get_study_system_attrs(self._id)
        asked = self.asked[number] = self.study.ask()
        trial = self.space.propose(asked)
        after = self.storage.get_study_system_attrs(self._id)
        self.noted[number] = {
            name: after[name] for name in after if after[name] != before.get(name)
        }
        return asked.params, trial

    def sampler_state(self, number: int) -> dict[str, Any]:
        """What the sampler noted with a proposal: of the proposal, and of the study."""
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(
            self._id, self.asked[number].number
        )
        noted = self.storage.get_trial_system_attrs(trial_id)
        own = {name: noted[name] for name in noted if not TRANSIENT.search(name)}
        state = {"trial": own, "study": self.noted[number]}
        return {name: part for name, part in state.items() if part}

    def repeat(self, planned: Planned) -> None:
        """Enter a proposal of an earlier run again, which is still to be done."""
        self.study.enqueue_trial(dict(planned.parameters))
        with self.sampler.silenced():
            asked = self.asked[planned.number] = self.study.ask()
            self.space.propose(asked)
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self._id, asked.number)
        for name, value in planned.sampler_state.get("trial", {}).items():
            self.storage.set_trial_system_attr(trial_id, name, value)
        self._restore(planned)

    def report(self, number: int, epoch: int, value: float) -> None:
        """Enter a trial's metric after an epoch; it may come again after a crash.

        Optuna takes none where there are several objectives.
        """
        if (number, epoch) not in self.reported and not self.search.objectives:
            self.reported.add((number, epoch))
            self.asked[number].report(value, epoch)

    def finish(self, number: int, result: JobResult, values: Sequence[float]) -> None:
        """Enter how a trial ended, with its metric after each epoch."""
        asked = self.asked[number]
        state, told = self._told(result, values)
        for name, violation in self._constraints(result).items():
            asked.set_constraint(name, violation)
        self.study.tell(asked, told if state == TrialState.COMPLETE else None, state)

    def add(self, entry: Entry) -> None:
        """Enter a proposal of an earlier run of the study that is over."""
        parameters = entry.planned.parameters
        fixed = FixedTrial(parameters)
        self.space.propose(fixed)
        result = entry.result or JobResult("failed")
        state, told = self._told(result, entry.values)
        reported = {} if self.search.objectives else dict(enumerate(entry.values, start=1))
        self.study.add_trial(
            create_trial(
                state=state,
                values=told,
                params=parameters,
                distributions=fixed.distributions,
                intermediate_values=reported,
                constraints=self._constraints(result),
                system_attrs=entry.planned.sampler_state.get("trial", {}),
            )
        )
        self._restore(entry.planned)

    def _restore(self, planned: Planned) -> None:
        """Let the study know what the sampler noted of it with a proposal."""
        for name, value in planned.sampler_state.get("study", {}).items():
            self.storage.set_study_system_attr(self._id, name, value)

    def _told(
        self, result: JobResult, values: Sequence[float]
    ) -> tuple[TrialState, list[float] | None]:
        """State and values by which the sampler learns how a trial ended.

        A hopeless trial counts as the worst so far: samplers ignore failures, and would propose its
        like again and again.
        """
        if is_hopeless(result):
            return TrialState.COMPLETE, self.worst
        state = STATES.get(result.status)
        if state is None:
            return TrialState.FAIL, None
        told = [values[-1]]
        if state == TrialState.COMPLETE:
            names = self.search.objectives
            told = [result.metrics[name] for name in names] if names else [min(values)]
        pairs = zip(told, self.worst, strict=True)
        self.worst = [one if math.isinf(other) else max(one, other) for one, other in pairs]
        return state, told

    def _constraints(self, result: JobResult) -> dict[str, float]:
        """Optuna's constraints, which are violated above 0.

        Where trials are stopped early, a completed one ranks before those, whatever its value, so
        that it takes a constraint to rank a hopeless one behind.
        """
        counts = result.status in STATES or is_hopeless(result)
        if not self.constrained or not counts:
            return {}
        limits = (self.search.at_most or {}).items()
        over = {name: result.metrics.get(name, limit) / limit - 1 for name, limit in limits}
        return {HOPELESS: float(is_hopeless(result))} | over


def is_hopeless(result: JobResult) -> bool:
    """Whether a trial diverged, or needs more memory than there is: its like would, too."""
    return result.status == "diverged" or bool(result.facts.get(OUT_OF_MEMORY))


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
        self.sampler = self.first = self._sampler(0)
        # It remembers up to where it has read the study; with options it may note more than that.
        self.infers_alike = settings == OptunaSampler(name="tpe")
        self.is_silent = False

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Draw and note nothing, while a proposal is entered that was drawn before."""
        self.is_silent = True
        try:
            yield
        finally:
            self.is_silent = False

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Start this trial's stream."""
        self.sampler = self._sampler(trial.number)
        if not self.is_silent:
            self.sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """As Optuna's sampler."""
        if self.is_silent:
            return {}
        sampler = self.first if self.infers_alike else self.sampler
        return sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's sampler."""
        if self.is_silent:
            return {}
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
        # Samplers that have proposed everything stop Optuna's loop, which is not used here.
        with suppress(RuntimeError):
            self.sampler.after_trial(study, trial, state, values)

    def _sampler(self, number: int) -> BaseSampler:
        sampler: BaseSampler = self.settings.for_proposal(self.seed, number)
        return sampler
