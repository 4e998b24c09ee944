"""Proposals by Optuna."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from study.core.records import JobResult
from study.pipeline.job import Job
from study.scheduling.journal import Entry
from study.scheduling.objectives import best_first, keeps_limits
from study.scheduling.proposals.former_trials import FormerTrial
from study.scheduling.protocols import Later, Planned
from study.space.search_space import Space
from study.space.trial import Trial

if TYPE_CHECKING:
    from study.scheduling.proposals.optuna_study import OptunaStudy


class OptunaProposals:
    """What Optuna proposes, then the best of it with all seeds, beside the same from scratch.

    A study that continues gets the journal's proposals again, in the same order and with the same
    numbers; Optuna learns what ended as it ended. Optuna takes seconds to import, and a search that
    is over does without.

    Args:
        space: with a `search` block.
        work: makes a piece of work of a trial.
        slots: trials that may be under way at once.
        entries: the journal of earlier runs of the study.
        root: folder of all work, where code of the user's own is kept.
        former: trials of a former study, which the sampler knows from the start.
    """

    def __init__(
        self,
        space: Space,
        work: Callable[[Trial], Job],
        slots: int,
        entries: Mapping[int, Entry],
        root: Path = Path(),
        former: Sequence[FormerTrial] = (),
    ) -> None:
        assert space.settings.search is not None
        self.space, self.work, self.slots, self.root = space, work, slots, root
        self.former = former
        self.settings = space.settings.search
        in_order = [entries[number] for number in sorted(entries)]
        self.earlier = [entry for entry in in_order if not entry.planned.exempt]
        self.numbers = {entry.planned.work.key: entry.planned.number for entry in in_order}
        self.free = itertools.count(max(entries, default=-1) + 1)
        self.proposed: dict[int, Planned] = {}
        self.open: set[int] = set()
        self.scores: dict[int, list[float]] = {}
        """Values of the objectives of completed proposals that keep the limits."""
        self.repeats: Iterator[Planned] | None = None
        self.unreported: list[Entry] = []
        """Proposals that ended in an earlier run; Optuna learns of them before the next one."""

    @cached_property
    def study(self) -> OptunaStudy:
        """Optuna's study, which is needed only if there is something to propose."""
        from study.scheduling.proposals.optuna_study import OptunaStudy

        made = OptunaStudy(self.space, self.root)
        for trial in self.former:
            made.learn(trial.parameters, trial.value)
        return made

    def known_study(self) -> OptunaStudy:
        """Optuna's study once it knows all that ended in earlier runs."""
        while self.unreported:
            self.study.add(self.unreported.pop(0))
        return self.study

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
        """Report an intermediate value to Optuna."""
        if number in self.open:
            self.study.report(number, epoch, value)

    def ended(self, number: int, result: JobResult, values: list[float]) -> None:
        """Tell Optuna: completed with its best value, stopped as pruned, diverged as the worst."""
        if number not in self.open:
            return
        self.open.remove(number)
        self._score(number, result, values)
        self.study.finish(number, result, values)

    def _propose(self) -> Planned:
        """The journal's next proposal, or a new one."""
        known = self.earlier[len(self.proposed) :][:1]
        entry = known[0] if known else None
        if entry is not None and entry.over:
            return self._remember(entry)
        planned = self._new() if entry is None else self._again(entry.planned)
        self.open.add(planned.number)
        self.proposed[planned.number] = planned
        return planned

    def _new(self) -> Planned:
        """What Optuna proposes after all that it knows."""
        number = next(self.free)
        study = self.known_study()
        first = self.space.starts[len(self.proposed) :][:1]
        parameters, trial = study.propose(number, first[0] if first else {})
        state = study.sampler_state(number)
        return Planned(number, self.work(trial), parameters, exempt=False, sampler_state=state)

    def _again(self, planned: Planned) -> Planned:
        """A proposal of an earlier run that has not ended."""
        self.known_study().repeat(planned)
        return planned

    def _remember(self, entry: Entry) -> Planned:
        """Take over a proposal that ended in an earlier run."""
        number = entry.planned.number
        self.unreported.append(entry)
        self.proposed[number] = entry.planned
        if entry.result is not None:
            self._score(number, entry.result, entry.values)
        return entry.planned

    def _score(self, number: int, result: JobResult, values: Sequence[float]) -> None:
        """Note how good a proposal is, if it may be repeated."""
        if result.status == "completed" and keeps_limits(result, self.settings):
            names = self.settings.objectives
            found = [result.metrics[name] for name in names] if names else [min(values)]
            self.scores[number] = found

    def _repeats(self) -> Iterator[Planned]:
        """The best proposals with the seeds that they have not yet had, and from scratch."""
        best = [self.proposed[number].work.trial for number in best_first(self.scores)]
        known = {planned.work.key for planned in self.proposed.values()}
        seeds = self.space.settings.seeds
        for trial in self.space.with_baselines(best[: self.settings.repeat_best], seeds):
            work = self.work(trial)
            if work.key not in known:
                number = self.numbers.get(work.key)
                yield Planned(next(self.free) if number is None else number, work)
