"""Proposals by Optuna, through Ray Tune's OptunaSearch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from study.core.records import JobResult
from study.pipeline.job import Job
from study.scheduling.journal import Entry
from study.scheduling.protocols import Later, Planned
from study.space.search_space import Space
from study.space.trial import Trial

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

STUDY = "search"


class OptunaProposals:
    """What Optuna proposes, then the best of it with all seeds, beside the same from scratch.

    A study that continues gets the journal's proposals again, in the same order and with the same
    numbers; what ended is told to Optuna as it ended. Optuna and Ray take seconds to import, and a
    search that is over does without.

    Args:
        space: with a `search` block.
        work: makes a piece of work of a trial.
        slots: trials that may be under way at once.
        entries: the journal of earlier runs of the study.
    """

    def __init__(
        self,
        space: Space,
        work: Callable[[Trial], Job],
        slots: int,
        entries: Mapping[int, Entry],
    ) -> None:
        assert space.settings.search is not None
        self.space, self.work, self.slots = space, work, slots
        self.settings = space.settings.search
        in_order = [entries[number] for number in sorted(entries)]
        self.earlier = [entry for entry in in_order if not entry.planned.exempt]
        self.numbers = {entry.planned.work.key: entry.planned.number for entry in in_order}
        self.free = itertools.count(max(entries, default=-1) + 1)
        self.proposed: dict[int, Planned] = {}
        self.open: set[int] = set()
        self.scores: dict[int, float] = {}
        self.repeats: Iterator[Planned] | None = None
        self.untold: list[Entry] = []
        """Ends of an earlier run that Optuna will be told once it is asked."""

    @cached_property
    def search(self) -> Any:
        """Ray Tune's OptunaSearch."""
        from study.scheduling import ray_env  # noqa: F401, I001
        from study.scheduling.seeded_sampler import RepeatableSampler
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return OptunaSearch(
            space=self._ask,
            metric=self.space.settings.metric,
            mode="min",
            sampler=RepeatableSampler(self.settings.sampler, self.settings.seed),
            storage=optuna.storages.InMemoryStorage(),
            study_name=STUDY,
        )

    @property
    def study(self) -> optuna.Study:
        """Optuna's study, which knows all that ended."""
        import optuna

        study = optuna.load_study(study_name=STUDY, storage=self.search._storage)
        while self.untold:
            study.add_trial(_as_optuna(self.untold.pop(0), self.space))
        return study

    def next(self) -> Planned | Later | None:
        """The next trial, `LATER` while all slots are taken or the best are not yet known."""
        if len(self.proposed) < self.settings.trials:
            return self._propose() if len(self.open) < self.slots else Later.LATER
        if self.open and self.repeats is None:
            return Later.LATER
        if self.repeats is None:
            self.repeats = self._repeats()
        return next(self.repeats, None)

    def reported(self, number: int, epoch: int, value: float) -> None:
        """Tell Optuna an intermediate value."""
        if number in self.open:
            report = {self.space.settings.metric: value, "training_iteration": epoch}
            self.search.on_trial_result(str(number), report)

    def ended(self, number: int, result: JobResult, values: list[float]) -> None:
        """Tell Optuna: completed with its best value, stopped as pruned, anything else failed."""
        if number not in self.open:
            return
        self.open.remove(number)
        if result.status == "completed":
            self.scores[number] = min(values)
            report = {self.space.settings.metric: min(values)}
            self.search.on_trial_complete(str(number), report)
        else:
            self.search.on_trial_complete(str(number), error=result.status != "stopped")

    def _propose(self) -> Planned:
        """The journal's next proposal, or a new one."""
        known = self.earlier[len(self.proposed) :][:1]
        entry = known[0] if known else None
        if entry is not None and entry.over:
            return self._remember(entry)
        if entry is not None:
            planned = entry.planned
            self._suggest(planned.number, planned.parameters)
        else:
            planned = self._invent(next(self.free))
        self.open.add(planned.number)
        self.proposed[planned.number] = planned
        return planned

    def _invent(self, number: int) -> Planned:
        from optuna.trial import FixedTrial

        parameters = self._suggest(number)
        work = self.work(self.space.propose(FixedTrial(parameters)))
        return Planned(number, work, parameters, exempt=False)

    def _suggest(self, number: int, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        """What Optuna proposes after all that it knows, or the parameters that it is to propose."""
        study = self.study
        if parameters is not None:
            study.enqueue_trial(parameters)
        proposed: dict[str, Any] = self.search.suggest(str(number))
        return proposed

    def _ask(self, trial: optuna.Trial) -> None:
        """Optuna's define-by-run space."""
        self.space.propose(trial)

    def _remember(self, entry: Entry) -> Planned:
        """Tell Optuna how a proposal of an earlier run ended."""
        number = entry.planned.number
        self.untold.append(entry)
        self.proposed[number] = entry.planned
        if entry.result is not None and entry.result.status == "completed":
            self.scores[number] = min(entry.values)
        return entry.planned

    def _repeats(self) -> Iterator[Planned]:
        """The best proposals with the seeds that they have not yet had, and from scratch."""
        ranked = sorted(self.scores, key=lambda number: self.scores[number])
        best = [self.proposed[number].work.trial for number in ranked]
        known = {planned.work.key for planned in self.proposed.values()}
        for trial in self.space.with_baselines(best[: self.settings.repeat_best]):
            work = self.work(trial)
            if work.key not in known:
                number = self.numbers.get(work.key)
                yield Planned(next(self.free) if number is None else number, work)


def _as_optuna(entry: Entry, space: Space) -> FrozenTrial:
    """A proposal of an earlier run as Optuna keeps it."""
    from optuna.trial import FixedTrial, TrialState, create_trial

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
