"""Every arm with every seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from study.core.records import JobResult
from study.pipeline.job import Job
from study.scheduling.journal import Entry
from study.scheduling.protocols import Planned


class Grid:
    """Hands out a fixed list of trials in its order.

    Args:
        trials: all of them.
        entries: the journal of earlier runs of the study; its trials keep their numbers.
        exempt: they are never stopped early.
    """

    def __init__(
        self, trials: Sequence[Job], entries: Mapping[int, Entry], *, exempt: bool
    ) -> None:
        numbers = {entry.planned.work.key: number for number, entry in entries.items()}
        free = itertools.count(max(entries, default=-1) + 1)
        self._plan: Iterator[Planned] = (
            Planned(numbers[work.key] if work.key in numbers else next(free), work, exempt=exempt)
            for work in trials
        )

    def next(self) -> Planned | None:
        """The next trial of the list."""
        return next(self._plan, None)

    def reported(self, number: int, epoch: int, value: float) -> None:
        """Nothing to learn: the list is fixed."""

    def ended(self, number: int, result: JobResult, values: list[float]) -> None:
        """Nothing to learn: the list is fixed."""
