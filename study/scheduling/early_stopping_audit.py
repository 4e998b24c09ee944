"""The audit of early stopping: does it lose winners?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from study.core.hashing import digest
from study.core.records import JobResult
from study.scheduling.journal import Entry
from study.scheduling.protocols import Planned
from study.space.settings import Settings


class Audit:
    """A random sample of the trials that were stopped early, to be run to their end.

    It depends on the study's name and a seed alone, and a larger one contains the smaller.

    Args:
        name: of the study.
        seed: of the sample.
        entries: the study's journal.
        size: of the sample.
    """

    def __init__(self, name: str, seed: int, entries: Mapping[int, Entry], size: int) -> None:
        stopped: dict[str, Planned] = {}
        for _, entry in sorted(entries.items()):
            if entry.result is not None and entry.result.status == "stopped":
                # A trial that was proposed twice counts once.
                stopped.setdefault(entry.planned.work.key, replace(entry.planned, exempt=True))
        drawn = sorted(stopped.values(), key=lambda planned: digest([name, seed, planned.number]))
        self.stopped, self.sample = len(stopped), drawn[:size]
        self.best = min(map(_lowest, entries.values()), default=math.inf)
        self.ends: dict[int, tuple[str, float]] = {}
        self._plan: Iterator[Planned] = iter(self.sample)

    @property
    def failed(self) -> bool:
        """Some trial failed; the same command tries it again."""
        return any(status == "failed" for status, _ in self.ends.values())

    @property
    def summary(self) -> str:
        """What became of the sample, in words."""
        over = [(status, value) for status, value in self.ends.values() if status != "failed"]
        better = sum(status == "completed" and value < self.best for status, value in over)
        return f"{better} of {len(over)} stopped trials end below the best that was not stopped"

    def next(self) -> Planned | None:
        """The next trial of the sample."""
        return next(self._plan, None)

    def reported(self, number: int, epoch: int, value: float) -> None:
        """Nothing to learn: the sample is fixed."""

    def ended(self, number: int, result: JobResult, values: list[float]) -> None:
        """How a trial of the sample ended."""
        self.ends[number] = result.status, min(values, default=math.inf)


def audit_of(name: str, settings: Settings, entries: Mapping[int, Entry], size: int) -> Audit:
    """A sample of so many of the trials that were stopped early.

    Args:
        name: of the study.
        settings: of its space.
        entries: its journal.
        size: of the sample.
    """
    seed = settings.search.seed if settings.search else settings.seeds[0]
    return Audit(name, seed, entries, size)


def _lowest(entry: Entry) -> float:
    """The metric of a completed proposal."""
    counts = entry.result is not None and entry.result.status == "completed"
    return min(entry.values) if counts and not entry.planned.exempt else math.inf
