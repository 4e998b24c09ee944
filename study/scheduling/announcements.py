"""What the observers of a study hear of its work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.scheduling.protocols import Observer, Planned


@dataclass
class Running:
    """Work that waits for a worker or has one.

    Args:
        work: what is done.
        planned: the trial; none for a pretraining.
        values: a trial's metric by epoch, which may come twice.
        metrics: all metrics of a trial by epoch, if the search has several objectives or limits.
        began: whether it has a worker.
        announced: whether observers know that it has begun.
        deaths: how many of its workers have died.
    """

    work: Job
    planned: Planned | None
    values: dict[int, float] = field(default_factory=dict)
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    began: bool = False
    announced: bool = False
    deaths: int = 0


class Announcements:
    """Passes each event on to all observers, a start always before an end.

    Args:
        observers: who listens.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers = observers

    def planned(self, planned: Planned) -> None:
        """Announce a new trial of the plan."""
        for observer in self.observers:
            observer.planned(planned)

    def started(self, running: Running) -> None:
        """Announce that work has begun."""
        running.announced = True
        number = None if running.planned is None else running.planned.number
        for observer in self.observers:
            observer.started(running.work, number)

    def recorded(self, running: Running, record: EpochRecord) -> None:
        """Announce an epoch."""
        for observer in self.observers:
            observer.recorded(running.work, record)

    def ended(self, running: Running, result: JobResult) -> None:
        """Announce how work ended."""
        # Its worker may have died before it was up.
        if not running.announced:
            self.started(running)
        for observer in self.observers:
            observer.ended(running.work, result)
