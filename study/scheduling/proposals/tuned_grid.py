"""A grid whose arms are tuned alike first: every proposal for every arm, then every seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from study.core.records import JobResult
from study.pipeline.job import Job
from study.scheduling.journal import Entry
from study.scheduling.protocols import Later, Planned
from study.space.search_space import Space
from study.space.trial import Trial
from study.space.tuning import Values, identity_of_arm, with_values


@dataclass
class TunedArm:
    """What tuning knows of an arm.

    Args:
        trial: one of its tuning trials.
        errors: of its tuning trials that are over, by number: validation error and what was tried;
            infinite if a trial did not complete.
        open: numbers of those that are not over, or failed.
        completed: how many completed.
        unplanned: tuning trials that nobody has begun.
        recorded: what an earlier run of the study chose, if one did.
    """

    trial: Trial
    errors: dict[int, tuple[float, Values]] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    completed: int = 0
    unplanned: int = 0
    recorded: Values | None = None

    @property
    def proposals(self) -> int:
        """How many tuning trials it has."""
        return len(self.errors) + len(self.open) + self.unplanned

    @property
    def error(self) -> float:
        """The lowest validation error; infinite if no trial has completed."""
        return min((error for error, _ in self.errors.values()), default=math.inf)

    @property
    def chosen(self) -> Values | None:
        """What the arm takes: the proposal with the lowest validation error, the first of equals.

        It keeps what the space says if no proposal completed; None while some are not over.
        """
        if self.recorded is not None:
            return self.recorded
        if self.open or self.unplanned:
            return None
        if not math.isfinite(self.error):
            return {}
        return next(values for error, values in self.errors.values() if error == self.error)

    def facts(self) -> dict[str, Any]:
        """What the arm was given and what was chosen, for a JSON line."""
        return {
            "proposals": self.proposals,
            "completed": self.completed,
            "chosen": self.chosen,
            "error": self.error if math.isfinite(self.error) else None,
        }

    def end(self, number: int, values: Values, result: JobResult, curve: Sequence[float]) -> None:
        """Take in how a tuning trial ended; a failed one is still to be done."""
        if result.status == "failed":
            return
        self.open.discard(number)
        self.completed += result.status == "completed"
        self.errors[number] = (validation_error(self.trial, result, curve), values)


def validation_error(trial: Trial, result: JobResult, curve: Sequence[float]) -> float:
    """The error by which a tuning trial is judged: that of the epoch whose weights are kept."""
    if result.status != "completed" or not curve:
        return math.inf
    error = min(curve) if trial.finetune.select == "best" else curve[-1]
    return error if math.isfinite(error) else math.inf


def tuned_arms(space: Space, entries: Mapping[int, Entry]) -> dict[str, TunedArm]:
    """What the journal of a study knows of the tuning of its arms, by their identity."""
    assert space.settings.tune is not None
    names, arms = space.settings.tune.each_arm, dict[str, TunedArm]()
    for trial, _ in space.tuning():
        arms.setdefault(identity_of_arm(trial, names), TunedArm(trial)).unplanned += 1
    for number, entry in sorted(entries.items()):
        planned = entry.planned
        arm = arms.get(identity_of_arm(planned.work.trial, names))
        if arm is None:
            continue
        if not planned.tuning:
            arm.recorded = planned.parameters
            continue
        arm.unplanned -= 1
        arm.open.add(number)
        if entry.result is not None:
            arm.end(number, planned.parameters, entry.result, entry.values)
    return arms


class TunedGrid:
    """Hands out the tuning trials, and when all are over the trials with what they chose.

    An arm one of whose tuning trials failed is left to a later run of the study, because its
    proposals would be fewer than those of others.

    Args:
        space: with a `tune` block.
        work: makes a piece of work of a trial.
        entries: the journal of earlier runs; its trials keep their numbers, its arms their values.
    """

    def __init__(
        self, space: Space, work: Callable[[Trial], Job], entries: Mapping[int, Entry]
    ) -> None:
        assert space.settings.tune is not None
        self.space, self.work, self.tuned = space, work, space.settings.tune.each_arm
        self.numbers = {entry.planned.work.key: number for number, entry in entries.items()}
        self.free = itertools.count(max(entries, default=-1) + 1)
        self.recorded = {
            identity: arm.recorded for identity, arm in tuned_arms(space, entries).items()
        }
        self.arms: dict[str, TunedArm] = {}
        self.under_way: dict[int, Planned] = {}
        self._stages = itertools.chain(self._tuning(), self._reported())

    def next(self) -> Planned | Later | None:
        """The next trial, `LATER` while the last tuning trials are under way."""
        return next(self._stages, None)

    def reported(self, number: int, epoch: int, value: float) -> None:
        """Nothing to learn before a trial has ended."""

    def ended(self, number: int, result: JobResult, values: list[float]) -> None:
        """Learn how a tuning trial ended."""
        planned = self.under_way.pop(number, None)
        if planned is not None:
            arm = self.arms[identity_of_arm(planned.work.trial, self.tuned)]
            arm.end(number, planned.parameters, result, values)

    def _tuning(self) -> Iterator[Planned]:
        for trial, values in self.space.tuning():
            planned = Planned(self._number(work := self.work(trial)), work, values, tuning=True)
            identity = identity_of_arm(trial, self.tuned)
            recorded = self.recorded.get(identity)
            arm = self.arms.setdefault(identity, TunedArm(trial, recorded=recorded))
            arm.open.add(planned.number)
            self.under_way[planned.number] = planned
            yield planned

    def _reported(self) -> Iterator[Planned | Later]:
        while self.under_way:
            yield Later.LATER
        for trial in self.space.grid():
            chosen = self.arms[identity_of_arm(trial, self.tuned)].chosen
            if chosen is not None:
                work = self.work(with_values(trial, chosen))
                untuned = self.work(trial)
                yield Planned(self._number(work), work, chosen, untuned=untuned)

    def _number(self, work: Job) -> int:
        return self.numbers[work.key] if work.key in self.numbers else next(self.free)
