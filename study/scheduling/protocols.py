"""What the scheduler needs of its sources of trials, stopping rules and observers."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job


@dataclass(frozen=True)
class Member:
    """The place of a trial in population-based training.

    Args:
        generation: from 0.
        number: of the member, from 0.
        parent: member of the generation before from whose end it goes on; None in the first one.
    """

    generation: int
    number: int
    parent: int | None


@dataclass(frozen=True)
class Planned:
    """A trial with its place in the plan.

    Args:
        number: from 0.
        work: the trial.
        parameters: what Optuna proposed, by the dotted name of the hole, or what tuning tries or
            has chosen; empty in another grid.
        exempt: is never stopped early, because others are judged by it.
        tuning: only chooses values, for its arm or as a part of population-based training, and
            enters no comparison.
        untuned: the same trial with what the space says in place of what was chosen; none if
            nothing was.
        sampler_state: what the sampler noted with its proposal, for those that follow.
        member: its place in population-based training, if it has one.
    """

    number: int
    work: Job
    parameters: dict[str, Any] = field(default_factory=dict)
    exempt: bool = True
    tuning: bool = False
    untuned: Job | None = field(default=None, compare=False)
    sampler_state: dict[str, Any] = field(default_factory=dict)
    member: Member | None = None

    @property
    def searched(self) -> dict[str, None]:
        """Settings that a search proposed, by their names in the trial, without labels of options.

        A population names its members in its own way, and has none.
        """
        found = [] if self.exempt or self.member else list(self.parameters)
        for hole in sorted(self.parameters, key=len, reverse=True):
            option = f"{hole}.{self.parameters[hole]}."
            found = [
                f"{hole}.{name.removeprefix(option)}" if name.startswith(option) else name
                for name in found
            ]
        return dict.fromkeys(found)


class Later(enum.Enum):
    """No proposal now, but there may be one when running trials have reported."""

    LATER = enum.auto()


class Proposals(Protocol):
    """Where trials come from: a grid, or Optuna."""

    def next(self) -> Planned | Later | None:
        """The next trial; none if there will be no more."""

    def reported(self, number: int, epoch: int, value: float) -> None:
        """A trial's metric after an epoch of finetuning."""

    def ended(self, number: int, result: JobResult, values: list[float]) -> None:
        """How a trial ended, with its metric after each epoch."""


class EarlyStop(Protocol):
    """Decides after each epoch of finetuning whether a trial goes on."""

    def should_prune(self, number: int, epoch: int, value: float) -> bool:
        """Whether to stop the trial; repeated reports change nothing."""

    def ended(self, number: int, result: JobResult, values: Sequence[float]) -> None:
        """How a trial that may be stopped ended, with its metric after each epoch."""


class Allowance(Protocol):
    """How much compute the study may use."""

    @property
    def exhausted(self) -> bool:
        """Whether no work may begin or go on in this run of the study."""


class Observer(Protocol):
    """Someone who is informed of every event, once per run of the study."""

    def planned(self, planned: Planned) -> None:
        """A trial has got its place in the plan."""

    def started(self, work: Job, number: int | None) -> None:
        """Work has begun or was found finished; pretrainings have no number."""

    def recorded(self, work: Job, record: EpochRecord) -> None:
        """An epoch is done; epochs come again when work continues after a crash."""

    def ended(self, work: Job, result: JobResult) -> None:
        """Work is over for this run of the study."""
